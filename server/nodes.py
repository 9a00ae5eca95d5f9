"""Which node keys a new SuperLink accepts: those of the federation's approved institutions.

Flower keeps registrations in the SuperLink's memory, so each start registers them again; a revoked
key is simply not among them.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from common.errors import FederationError
from common.io.register_file import NODES, read_register

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
        if not path.is_file() or path.read_text("ascii").strip() != f"{request.node_key} {name}":
            raise FederationError(
                "is not the node key in the register",
                place=str(path),
                remedy="`fedner enrol approve` with the institution's request writes it again",
            )
        found[_register(flwr, path, name, connection)] = name
    return found


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
