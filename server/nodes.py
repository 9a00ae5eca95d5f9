"""Which node keys a new SuperLink accepts: those of the federation's approved institutions.

Flower keeps registrations in the SuperLink's memory, so each start registers them again; a revoked
key is simply not among them.

    nodes.json    in the run's folder: institution by node id, as of the SuperLink's last start

Guarantee: the ServerApp of a run that began with a federation's folder knows whose key each node
has, or does not start.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from common.errors import FederationError
from common.io.atomic import write_json
from common.io.register_file import NODES, read_register
from server.origin import Origin
from server.run_dir import RunDir, written

OWNERS: Final = "nodes.json"

Flwr = Callable[..., "subprocess.CompletedProcess[str]"]


def register_nodes(flwr: Flwr, folder: Path, connection: str) -> dict[int, str]:
    """Register every approved institution's node key; institution by node id.

    Only what the signed register approves counts: other files under `nodes/` are not looked at.

    Args:
        flwr: runs `flwr` with arguments, in the environment of the SuperLink's own connection.
        folder: the federation's, as `fedner provision` made it.

    Raises:
        IdentityError: the register is missing or damaged.
        FederationError: a node key file is another than the register's, or Flower refuses it.
    """
    found = {}
    for name, request in read_register(folder).approved.items():
        path = folder / NODES / f"{name}.pub"
        if (
            not path.is_file()
            or path.read_text("ascii", errors="replace").strip() != f"{request.node_key} {name}"
        ):
            raise FederationError(
                "is not the node key in the register",
                place=str(path),
                remedy="`fedner enrol approve` with the institution's request writes it again",
            )
        found[_register(flwr, path, name, connection)] = name
    return found


def keep_owners(run: RunDir, owners: Mapping[int, str]) -> None:
    """Tell the ServerApp whose node is whose.

    Raises:
        FederationError: the disk does not take it.
    """
    with written(run.path / OWNERS):
        write_json(run.path / OWNERS, {str(node): name for node, name in owners.items()})


def owners_of(run: RunDir) -> dict[int, str] | None:
    """Institution by node id; none in a run that serves its own machine only.

    Raises:
        UsageError: the run's origin is not there.
        FederationError: the run has node authentication, and nobody said whose node is whose.
    """
    if not Origin.read(run).federation:
        return None
    try:
        content = json.loads((run.path / OWNERS).read_text("utf-8"))
        return {int(node): str(name) for node, name in content.items()}
    except (OSError, ValueError, AttributeError):
        raise FederationError(
            "is missing or damaged",
            place=str(run.path / OWNERS),
            remedy="`fedner server --resume` writes it again",
        ) from None


def _register(flwr: Flwr, path: Path, name: str, connection: str) -> int:
    arguments = ("register", str(path), connection, "--name", name, "--format", "json")
    said = flwr("supernode", *arguments)
    try:
        answer = json.loads(said.stdout[said.stdout.index("{") :])
        return int(answer["node-id"])
    except (ValueError, KeyError, TypeError):
        raise FederationError(
            f"Flower did not register the node of {name}",
            place=str(path),
            remedy=f"it said: {(said.stdout + said.stderr).strip()[-300:]}",
        ) from None
