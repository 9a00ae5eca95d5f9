"""`fedner server`: starts Flower's SuperLink, submits the study, and watches it to its end."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError, FlowerEndedError
from common.io.atomic import write_bytes
from common.io.flower_internals import flower_environment
from common.io.private_files import make_private
from common.io.processes import Child, await_port, is_free, script_command, stopping
from server.book_place import open_book
from server.federation import Federation
from server.nodes import keep_owners, register_nodes
from server.origin import COORDINATOR_LOCK, PREDECESSOR_LIMIT_S, alone
from server.run_dir import LOG, RunDir, written
from server.superlink import CONNECTION, SuperLink, behind_gate, on_loopback

log = logging.getLogger("fedner.server")

SUPERLINK_LOG: Final = "superlink.log"
_START_LIMIT_S: Final = 60.0
_FLWR_LIMIT_S: Final = 120.0
_POLL_S: Final = 0.5
_FLOWER_POLLS: Final = 20
_BLIND_LIMIT_S: Final = 900.0
"""For which Flower may not answer, and the run say nothing, before that counts as its end."""

OnEvent = Callable[[Mapping[str, Any]], None]


def serve_study(run: RunDir, at: str | Federation, on_event: OnEvent) -> None:
    """Run the study of a run folder over a SuperLink, or go on with it.

    A run that is gone on with gets a SuperLink and a Flower run of its own.

    Args:
        at: `host:port` on this machine, without TLS; or the federation that is served, over TLS
            and to its enrolled nodes only.
        on_event: told each new line of the metrics as it comes.

    Raises:
        ConfigError: an address beyond this machine, the receipt book has no place, or the run
            folder is another user's.
        FederationError: the run failed, or the disk of its folder; says where to read why. Or the
            port is taken.
        FlowerEndedError: the SuperLink or the ServerApp ended before the run.
    """
    make_private(run.path)
    if run.study().local_privacy is not None:
        open_book(run)  # as the ServerApp will: here it can still be said
    link = on_loopback(at) if isinstance(at, str) else behind_gate(at)
    home = (run.path / "flower").absolute()
    with alone(run, COORDINATOR_LOCK, PREDECESSOR_LIMIT_S):  # its last word comes before ours
        wait_s = 0.0 if run.status()["state"] == "unknown" else PREDECESSOR_LIMIT_S
        run.set_status("starting")
    seen = len(run.events())
    environment = flower_environment(home)
    with written(home):
        home.mkdir(exist_ok=True)
        write_bytes(home / "config.toml", link.connection.encode())
    _await_free(link, wait_s)
    child = Child("superlink", link.command, environment, run.path / SUPERLINK_LOG)
    with stopping(child):
        child.start()
        with _ended_with(child):
            await_port(link.host, link.port, child, _START_LIMIT_S)
            if link.federation is not None:
                _admit(run, link.federation, environment)
            _submit(run, environment)
        _watch(run, child, environment, on_event, seen)


def _await_free(link: SuperLink, limit_s: float) -> None:
    """Until Flower's port is free: else the institutions would speak to whoever has it.

    Args:
        limit_s: for which a killed predecessor's SuperLink may still be there.

    Raises:
        FederationError: it is another's.
    """
    deadline = time.monotonic() + limit_s
    while not is_free(link.port):
        if time.monotonic() >= deadline:
            raise FederationError(
                "the port is taken by another process",
                place=f"{link.host}:{link.port}",
                remedy="stop the other server, or name a free port with --address, and in each "
                "site file as `coordinator`",
            )
        time.sleep(_POLL_S)


@contextmanager
def _ended_with(link: Child) -> Iterator[None]:
    """What fails in the block once the SuperLink has ended is Flower's end, not the study's."""
    try:
        yield
    except FederationError as error:
        if link.exit_code is None:
            raise
        raise FlowerEndedError(
            f"the SuperLink ended ({link.exit_code}) before the study was begun: {error.message}",
            place=str(link.log),
            remedy="read it; is the port taken? Then `fedner server --resume`",
        ) from None


def bundle_root() -> Path:
    """The folder that Flower bundles: the checkout that this package was installed from.

    Raises:
        FederationError: fedner was not installed from a checkout (`pip install -e .`).
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        raise FederationError(
            "the coordinator needs the checkout that fedner was installed from",
            place=str(root),
            remedy="install with `pip install -e .` in a checkout",
        )
    return root


def _flwr(environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            script_command("flwr", *arguments),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=_FLWR_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FederationError(
            f"`flwr {arguments[0]}` took more than {_FLWR_LIMIT_S:.0f} s",
            remedy="is the machine overloaded? read superlink.log in the run folder",
        ) from None


def _admit(run: RunDir, federation: Federation, environment: Mapping[str, str]) -> None:
    """Register the enrolled nodes; nobody else's get in. The ServerApp is told whose is whose."""

    def flwr(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return _flwr(environment, *arguments)

    keep_owners(run, register_nodes(flwr, federation.root, CONNECTION))


def _submit(run: RunDir, environment: Mapping[str, str]) -> None:
    config = f"run-dir={json.dumps(str(run.path.absolute()))}"
    done = _flwr(environment, "run", str(bundle_root()), CONNECTION, "--run-config", config)
    with written(run.path / "submit.log"):
        write_bytes(run.path / "submit.log", (done.stdout + done.stderr).encode())
    if done.returncode != 0:
        raise FederationError(
            f"Flower did not take the study (exit code {done.returncode})",
            place=str(run.path / "submit.log"),
            remedy="read the file",
        )


def _watch(
    run: RunDir, link: Child, environment: Mapping[str, str], on_event: OnEvent, seen: int
) -> None:
    polls, looks = 0, _Looks(environment)
    while True:
        time.sleep(_POLL_S)
        state = run.status()
        events = run.events()
        for event in events[seen:]:
            on_event(event)
        if len(events) > seen:
            looks.lives()
        seen = len(events)
        if state["state"] == "finished":
            return
        if state["state"] in {"failed", "lost"}:
            lost = state["state"] == "lost" or link.exit_code is not None
            error = FlowerEndedError if lost else FederationError
            raise error(state["message"], place=str(run.path))
        polls += 1
        dead = polls % _FLOWER_POLLS == 0 and looks.gave_up()
        gone = link.exit_code is not None or dead
        if gone and run.status()["state"] == state["state"]:  # or it came to its end meanwhile
            raise FlowerEndedError(
                "Flower's processes ended before the run did, killed perhaps for memory, or do not "
                "answer any more",
                place=str(run.path / SUPERLINK_LOG),
                remedy=f"read it, and {run.path / LOG}; has the disk room? Then `fedner server "
                f"--resume {run.path}`",
            )


class _Looks:
    """Looks at what Flower says of the run; one that fails, or comes too late, says nothing."""

    def __init__(self, environment: Mapping[str, str]):
        self._environment = environment
        self._alive = time.monotonic()

    def lives(self) -> None:
        """The run has done something."""
        self._alive = time.monotonic()

    def gave_up(self) -> bool:
        """Whether Flower has ended the run; or has said nothing for `_BLIND_LIMIT_S`."""
        try:
            ended = _flower_gave_up(self._environment)
        except FederationError as error:
            blind_s = time.monotonic() - self._alive
            log.warning("no word of Flower's for %.0f s: %s", blind_s, error.message)
            return blind_s > _BLIND_LIMIT_S
        self.lives()
        return ended


def _flower_gave_up(environment: Mapping[str, str]) -> bool:
    """Whether Flower has ended all runs.

    Raises:
        FederationError: it does not say.
    """
    listed = _flwr(environment, "list", CONNECTION, "--format", "json")
    try:
        runs = json.loads(listed.stdout)["runs"]
        return bool(runs) and all(str(r["status"]).startswith("finished") for r in runs)
    except (ValueError, KeyError, TypeError):
        raise FederationError(f"`flwr list` ended with {listed.returncode}, and no list") from None
