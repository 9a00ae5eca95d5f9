"""Child processes that are started, watched and stopped, each as a process group of its own.

Guarantee: however this process ends, SIGKILL included, the groups of its children are killed. Each
child has a guard for that: a shell that reads from a pipe whose other end only this process has.
When the pipe closes unsaid, the guard kills the group. That needs a POSIX shell, and nothing that
only Linux has. A child that makes a session of its own leaves its group and is not covered; between
the start of a child and that of its guard, about a millisecond, nor is the child.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.errors import FederationError
from common.io.private_files import open_log

GRACE_S: Final = 5.0
KILL_LIMIT_S: Final = 30.0
"""For which a process may outlive SIGKILL: one that waits for a dead disk or device does."""
_GUARD: Final = 'read -r word || kill -s KILL -- "-$1"'


@dataclass(slots=True)
class Child:
    """One supervised process.

    Attributes:
        log: file that takes its output; `None` leaves it on the terminal.
        before_start: called before each start; it may change `command`.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None
    guard: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    before_start: Callable[[], None] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start, or start again; what is left of the group of before is killed.

        Raises:
            FederationError: the process of before outlives that.
            ConfigError: the log is another user's.
        """
        if not self._clear():
            raise FederationError(
                f"{self.name} outlives SIGKILL for {KILL_LIMIT_S:.0f} s",
                place=f"process {self.process.pid if self.process else '?'}",
                remedy="it waits for a disk or a device (state D in `ps`): mend that, or restart "
                "the machine",
            )
        if self.before_start is not None:
            self.before_start()
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(open_log(self.log)) if self.log else None
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment, "PATH": _path_with_python()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
        self.guard = _guard_of(self.process.pid)

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs."""
        return None if self.process is None else self.process.poll()

    def stop(self) -> None:
        """SIGTERM to the group, then SIGKILL to what is left after `GRACE_S`.

        A process that outlives that is left behind after `KILL_LIMIT_S`.
        """
        if self.process is None:
            return
        _signal_group(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        self._clear()

    def _clear(self) -> bool:
        """Kill what is left of the group, then send its guard home; whether it is gone."""
        if self.process is not None:
            _signal_group(self.process.pid, signal.SIGKILL)
            try:
                self.process.wait(KILL_LIMIT_S)
            except subprocess.TimeoutExpired:
                return False
        if self.guard is not None:
            with contextlib.suppress(BrokenPipeError):
                self.guard.communicate(b"done\n")
            self.guard = None
        return True


def module_command(module: str, *arguments: str) -> list[str]:
    """This Python on an installed module; `-P` keeps the current folder out of its path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def script_command(name: str, *arguments: str) -> list[str]:
    """A console script that is installed beside this Python."""
    return [str(Path(sys.executable).parent / name), *arguments]


@contextlib.contextmanager
def stopping(*children: Child) -> Iterator[None]:
    """Stop the children, last first, however the block ends.

    SIGTERM and SIGHUP (a closed terminal) count as Ctrl-C. While children are being stopped (a
    few seconds each at most) all three are ignored: a second one leaves no process behind.
    """

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(children):
            child.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """A loopback port that no one listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
            return True
    return False


def await_port(host: str, port: int, child: Child, limit_s: float) -> None:
    """Wait until `child` listens.

    Raises:
        FederationError: it ended, or did not listen within `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            return
        if child.exit_code is not None:
            break
        time.sleep(0.1)
    raise FederationError(
        f"{child.name} does not listen on {host}:{port}",
        place=str(child.log) if child.log else None,
        remedy="read its log; is the port taken?",
    )


def _guard_of(pid: int) -> "subprocess.Popen[bytes]":
    """In a session of its own, so that a signal to our group does not end it."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "fedner-guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _path_with_python() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
