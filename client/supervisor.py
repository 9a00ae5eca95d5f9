"""`fedner client`: starts an institution's worker, SuperNode and relay, and keeps them alive.

All of them as one OS user, for development: each side as a user of its own is `client.sides`.
"""

import contextlib
import datetime
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.site_paths import SitePaths
from client.uplink import Uplink
from common.audit.errors import AuditError
from common.config.site import Site
from common.errors import (
    BudgetError,
    ConfigError,
    DataError,
    EncoderError,
    FederationError,
    FednerError,
    IdentityError,
    PolicyError,
    ProtocolError,
    StorageError,
    UsageError,
)
from common.io.disk import is_locked
from common.io.flower_internals import flower_environment
from common.io.processes import Child, free_port, is_free, module_command, stopping

_INTERNALS: Final = "common.io.flower_internals"
_WORKER_ENVIRONMENT: Final = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_HUGE_PAGES: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""For large vectors, whose masking then takes less (docs/results.md). What the site sets stays."""
SAY_EVERY_S: Final = 60.0
"""How often it is said that a start is still waited for."""
_MAX_PAUSE_S: Final = 30.0
_REFUSALS: Final[Mapping[int, type[FednerError]]] = {
    error.exit_code: error
    for error in (
        UsageError, ConfigError, DataError, EncoderError, PolicyError, ProtocolError,
        FederationError, BudgetError, IdentityError, AuditError,
    )
}  # fmt: skip
"""By a worker's exit code, why it refuses to run: a restart mends none of it."""
_LOCK_LIMIT_S: Final = 60.0
"""For which a killed worker may hold its locks: the kernel gives them back when it is gone."""


def worker_environment() -> dict[str, str]:
    """What a worker has in its environment, beside this process's own."""
    return _WORKER_ENVIRONMENT | {k: os.environ.get(k, v) for k, v in _HUGE_PAGES.items()}


@dataclass(slots=True)
class Restarts:
    """How long to wait before a child is started again: 1 s, doubling to 30 s; reset after 60 s."""

    started: float = 0.0
    pause_s: float = 1.0
    due: float | None = field(default=None)

    def plan(self, now: float) -> float:
        """Note a death; the pause until the next start, in seconds."""
        if now - self.started > 60.0:
            self.pause_s = 1.0
        pause, self.pause_s = self.pause_s, min(2 * self.pause_s, _MAX_PAUSE_S)
        self.due = now + pause
        return pause


def supervise(site: Site, site_path: Path, tell: Callable[[str], None]) -> None:
    """Run one institution until interrupted.

    Args:
        tell: shown to the user: what happens, in one line.

    Raises:
        PolicyError: relay and worker would share a user, and the site has not accepted that or is
            made for two.
        ConfigError: no way to the coordinator, see `Uplink.of`.
        FederationError: another process has the institution's state, or the worker can't start.
        FednerError: of the worker's own kind, with its exit code, where the worker ends with an
            error that a restart won't mend.
    """
    uplink = check_runnable(site, site_path)
    tell("ONE USER: worker and relay share an OS user. For development only.")
    if uplink.notice:
        tell(uplink.notice)
    paths = SitePaths.of(site, site_path.parent)
    paths.state.mkdir(parents=True, exist_ok=True)
    paths.state.chmod(0o700)
    worker = worker_child(site_path)
    relay = outward_children(paths, uplink, site.institution)
    with stopping(worker, *relay):
        await_locks(paths.state, tell)
        worker.start()
        await_worker(worker, paths.socket, paths, site.start_limit_s, tell)
        tell(f"{site.institution}: worker is ready, logs under {paths.state}")
        for child in relay:
            child.start()
        tell(f"{site.institution}: connecting to {site.coordinator}; Ctrl-C ends")
        keep_alive([worker, *relay], paths.state, tell)


def check_runnable(site: Site, site_path: Path) -> Uplink:
    """Refuse what `fedner client` without `--side` can't run; the way to the coordinator.

    Raises:
        PolicyError: relay and worker would share a user, and the site has not accepted that or is
            made for two.
        ConfigError: no way to the coordinator, see `Uplink.of`.
    """
    if site.relay_group is not None:
        raise PolicyError(
            "without `--side` worker and relay run as one OS user, and the site is for two",
            place=f"{site_path}: relay_group",
            remedy="`fedner client SITE --side worker` as the one, `fedner client RELAY --side "
            "relay` as the other: docs/deployment.md",
        )
    if not site.policy.accept_one_user:
        raise PolicyError(
            "worker and relay would run as the same OS user, so that code the coordinator "
            "ships could read the worker's files",
            place=f"{site_path}: policy.accept_one_user",
            remedy="two users, with `relay_group`: docs/deployment.md; for development only, "
            "`policy: {accept_one_user: true}`",
        )
    return Uplink.of(site, site_path, datetime.datetime.now(datetime.UTC))


def worker_child(site_path: Path) -> Child:
    """The worker; what it says stays on the terminal."""
    command = module_command("client.worker", str(site_path))
    return Child("worker", command, worker_environment())


def outward_children(paths: SitePaths, uplink: Uplink, name: str) -> list[Child]:
    """SuperNode and relay; they are told where the socket is, and nothing else of the site.

    Args:
        paths: whose `flower` and logs are theirs.
    """
    environment = flower_environment(paths.flower)
    paths.flower.mkdir(exist_ok=True)
    node_config = f'socket="{paths.socket}" institution="{name}"'
    arguments = (*uplink.arguments, "--isolation", "process", "--node-config", node_config)
    port = free_port()
    node = Child("supernode", _node_command(arguments, port), environment, paths.log("supernode"))
    relay = Child("relay", _relay_command(port), environment, paths.log("relay"))

    def renew_port() -> None:
        """Another port for both, where somebody has taken theirs between two starts."""
        nonlocal port
        if is_free(port):
            return
        port = free_port()
        node.command, relay.command = _node_command(arguments, port), _relay_command(port)
        relay.stop()  # it is started again, with the new one

    node.before_start = renew_port
    return [node, relay]


def _node_command(arguments: Sequence[str], port: int) -> list[str]:
    listen = ("--host", "127.0.0.1", "--port", str(port))
    return module_command("client.supernode", *arguments, *listen)


def _relay_command(port: int) -> list[str]:
    at = ("--runtime-api-address", f"127.0.0.1:{port}")
    return module_command(_INTERNALS, "superexec", "--insecure", *at)


def await_worker(
    worker: Child, door: Path, paths: SitePaths, limit_s: float, tell: Callable[[str], None]
) -> None:
    """Wait until a worker that was started answers; as often as its disk fails, start it again.

    Args:
        door: the socket that it answers on.
        tell: told each minute that it is waited for.

    Raises:
        FederationError: it was killed, or is not ready after `limit_s`.
        FednerError: of its own kind, if it refuses to run.
    """
    log, restarts = str(paths.log("worker")), Restarts(started=time.monotonic())
    patience = _Patience(limit_s, log, tell)
    while not listens(door):
        if worker.exit_code == StorageError.exit_code:
            _start_again(worker, restarts, paths.state, tell)
            patience = _Patience(limit_s, log, tell)  # each life has its own
        elif worker.exit_code is not None:
            _check_final(worker)
            raise FederationError(
                f"the worker ended with {worker.exit_code} before it was ready",
                place=log,
                remedy="read its end, and what it said above; -9 is SIGKILL, for want of memory "
                "perhaps; then start again",
            )
        patience.spend()
        time.sleep(0.1)


class _Patience:
    """With one life of a worker that starts: `limit_s`, and a word each minute.

    Args:
        log: the worker's.
    """

    def __init__(self, limit_s: float, log: str, tell: Callable[[str], None]):
        self._limit_s, self._log, self._tell = limit_s, log, tell
        self._started = time.monotonic()
        self._due_s = SAY_EVERY_S

    def spend(self) -> None:
        """Go on waiting.

        Raises:
            FederationError: for too long.
        """
        waited_s = time.monotonic() - self._started
        if waited_s > self._limit_s:
            raise FederationError(
                f"the worker is not ready after {self._limit_s:.0f} s",
                place=self._log,
                remedy="its end says what it is at; if that needs longer, a larger "
                "`start_limit_s` in the site file",
            )
        if waited_s >= self._due_s:
            self._due_s += SAY_EVERY_S
            self._tell(
                f"the worker is not ready yet, after {waited_s:.0f} s of at most "
                f"{self._limit_s:.0f} (`start_limit_s`); what it is at: {self._log}"
            )


def await_locks(state: Path, tell: Callable[[str], None], limit_s: float = _LOCK_LIMIT_S) -> None:
    """Wait until no process holds a lock below `state`.

    Raises:
        FederationError: one still does after `limit_s`.
    """
    deadline, told = time.monotonic() + limit_s, False
    while held := [path for path in sorted(state.rglob("*.lock")) if is_locked(path)]:
        if time.monotonic() > deadline:
            raise FederationError(
                "in use by another process",
                place=str(held[0]),
                remedy="one `fedner client` per institution: stop the other one",
            )
        if not told:
            tell(f"waiting for another process, which holds {held[0]}")
        told = True
        time.sleep(0.2)


def listens(path: Path) -> bool:
    """Whether somebody answers on a socket."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(5.0)  # one that is stopped takes no connection
        return probe.connect_ex(str(path)) == 0
    return False  # the path is too long for a socket: the worker itself says so


def keep_alive(children: list[Child], state: Path, tell: Callable[[str], None]) -> None:
    """Start again what ends, for ever.

    Raises:
        FednerError: of the worker's own kind, with its exit code, where it ended with an error
            that a restart won't mend.
    """
    restarts = {child.name: Restarts(started=time.monotonic()) for child in children}
    while True:
        time.sleep(0.2)
        for child in children:
            if child.exit_code is not None:
                _start_again(child, restarts[child.name], state, tell)


def _start_again(child: Child, plan: Restarts, state: Path, tell: Callable[[str], None]) -> None:
    """Plan the start of a child that ended, or start it, if it is due."""
    now = time.monotonic()
    if plan.due is None:
        _check_final(child)
        pause = plan.plan(now)
        where = f" ({child.log})" if child.log else ""
        tell(f"{child.name} ended with {child.exit_code}; again in {pause:.0f} s{where}")
    elif now >= plan.due:
        if child.name == "worker":
            await_locks(state, tell)
        child.start()
        plan.started, plan.due = now, None


def _check_final(child: Child) -> None:
    if child.name == "worker" and child.exit_code in _REFUSALS:
        raise _REFUSALS[child.exit_code](
            f"the worker refused to run (exit code {child.exit_code})",
            remedy="read what it said above, or its log",
        )
