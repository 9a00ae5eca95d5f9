"""A federation of real processes, as provisioned: TLS, node keys, secure sums, test seeds.

One `fedner server` and any number of `fedner client`s, with keys and data in one folder on this
machine. Processes are started, stopped and killed by role; what has become of them is read from the
files that they keep. For benchmarks and tests: all keys are made here and protect nobody.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import psutil
import yaml
from typer.testing import CliRunner

from common.io.home import fedner_home
from common.io.ledger_folder import read_state
from common.io.processes import free_port
from common.privacy.accountant import epsilon
from common.privacy.ledger_spend import spent
from scripts.cli import app
from server.run_dir import RunDir

FEDNER: Final = str(Path(sys.executable).parent / "fedner")
LIMIT_S: Final = 480.0
LEFT_S: Final = 5.0

Role = Literal["worker", "supernode", "relay"]
ROLES: Final[Mapping[Role, str]] = {
    "worker": "client.worker",
    "supernode": "client.supernode",
    "relay": "superexec",
}
"""A word of the command line of each child of `fedner client`; the relay is with its messages."""

FEDERATION: Final = """\
federation: northern
study: study.yaml
server: {{names: [localhost], addresses: [127.0.0.1], port: {port}, listen: 127.0.0.1}}
"""


class StageError(Exception):
    """What was waited for did not come."""


class Command:
    """One running `fedner` command and every process that ever was below it.

    Args:
        log: takes its output; its folder is the command's working directory.
        more: of its environment.
    """

    def __init__(self, log: Path, *arguments: str, more: Mapping[str, str] | None = None):
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [FEDNER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(more or {})},
                start_new_session=True,
            )
        self._seen: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        """The processes below it now."""
        try:
            now = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            now = []
        self._seen |= {p.pid: p for p in now}
        return now

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text("utf-8", "replace")

    def await_end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code.

        Raises:
            StageError: it still runs after `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise StageError(f"still runs after {limit_s:g} s: {self.text}")
            self.look()
            time.sleep(0.1)
        return int(self.process.returncode)

    def left(self) -> list[str]:
        """Command lines of what outlived it by more than `LEFT_S`."""
        deadline = time.monotonic() + LEFT_S
        while (alive := [*filter(_lives, self._seen.values())]) and time.monotonic() < deadline:
            time.sleep(0.1)
        found = []
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(" ".join(process.cmdline()))
        return found

    def destroy(self) -> None:
        """Kill it and everything below."""
        self.look()
        self.process.kill()
        self.process.wait()
        for process in self._seen.values():
            if process.is_running():
                process.kill()


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def fedner(*arguments: object) -> str:
    """A verb in this process, which must succeed.

    Raises:
        StageError: it did not; with what it said.
    """
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exit_code:
        raise StageError(f"fedner {arguments[0]} ended with {done.exit_code}: {done.output}")
    return done.output


class Charge(NamedTuple):
    """A reserve of a privacy ledger, but for its figures."""

    purpose: str
    round: int
    attempt: int


class Stage:
    """`fedner provision --demo`, each kit completed as its institution would; nothing runs yet.

    Args:
        folder: to be made; its path must be short enough for a socket below a site's folder.
        study_text: as YAML, with `simulation`, whose data are dealt out.
        port: the public one; any free one if absent.
        run: the run's folder, if not `run` below `folder`.
    """

    def __init__(
        self, folder: Path, study_text: str, port: int | None = None, run: Path | None = None
    ):
        folder.mkdir(parents=True)
        self.folder, self.fed, self.run = folder, folder / "fed", RunDir(run or folder / "run")
        self.port = port or free_port()
        self.environment = {"FEDNER_HOME": str(_own_home(folder)), "OMP_NUM_THREADS": "1"}
        (folder / "study.yaml").write_text(study_text)
        (folder / "FEDERATION.yaml").write_text(FEDERATION.format(port=self.port))
        fedner("provision", folder / "FEDERATION.yaml", "--out", self.fed, "--demo")
        fedner("data", "deal", folder / "study.yaml", "--out", folder / "dealt")
        names = yaml.safe_load((self.fed / "study.yaml").read_text())["federation"]["institutions"]
        self.sites = {name: self._complete(name) for name in names}
        self.server: Command | None = None
        self.clients: dict[str, Command] = {}
        self._served: list[Command] = []
        self._lives: dict[str, list[Command]] = {}

    def _complete(self, name: str) -> Path:
        """Data, policy and pin into the site file that the kit has."""
        kit, dealt = self.fed / "sites" / name, self.folder / "dealt" / name
        for side in ("train.jsonl", "test.jsonl"):
            shutil.copy(dealt / side, kit / side)
        site = yaml.safe_load((kit / "site.yaml").read_text())
        like = yaml.safe_load((dealt / "site.yaml").read_text())
        like["policy"].pop("roster_sha256", None)
        site |= {"data": like["data"], "policy": like["policy"], "threads": 1}
        self._write(kit, site)
        said = fedner("roster", "pin", kit / "roster.yaml", kit / "site.yaml")
        pin = next(line for line in said.splitlines() if "roster_sha256:" in line)
        site["policy"]["roster_sha256"] = pin.split(":")[1].strip()
        self._write(kit, site)
        fedner("roster", "pin", kit / "roster.yaml", kit / "site.yaml")
        return kit / "site.yaml"

    @staticmethod
    def _write(kit: Path, site: Mapping[str, Any]) -> None:
        (kit / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False))

    def change(self, name: str, **changes: Any) -> None:
        """Put keys into a site file; those of `policy` are merged into it."""
        site = yaml.safe_load(self.sites[name].read_text())
        site["policy"] |= changes.pop("policy", {})
        self._write(self.sites[name].parent, site | changes)

    # --- processes

    def serve(self, **more: str) -> Command:
        """Start `fedner server`, or, once there is a run, go on with it (`--resume`)."""
        past = len(self._served)
        where = ("--federation", str(self.fed), "--out", str(self.run.path))
        begin = (str(self.fed / "study.yaml"), *where)
        again = ("--resume", str(self.run.path))
        arguments = again if self.run.path.exists() else begin
        log = self.folder / f"server{past or ''}.log"
        self.server = self._command("server", *arguments, log=log, more=more)
        self._served.append(self.server)
        return self.server

    def start(self, *names: str, **more: str) -> None:
        """Start `fedner client` for these institutions, or for all.

        Args:
            more: of its environment.
        """
        for name in names or self.sites:
            site = self.sites[name]
            past = self._lives.setdefault(name, [])
            log = site.parent / f"client{len(past) or ''}.log"
            self.clients[name] = self._command("client", str(site), log=log, more=more)
            past.append(self.clients[name])

    def _command(self, *arguments: str, log: Path, more: Mapping[str, str]) -> Command:
        return Command(log, *arguments, more={**self.environment, **more})

    def processes(self, name: str, role: Role) -> list[psutil.Process]:
        """Those of an institution's child, itself first; empty between two of its lives."""
        word, found = ROLES[role], []
        for process in self.clients[name].look():
            try:
                if any(word in part for part in process.cmdline()[1:]):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def send(self, name: str, role: Role, number: int = signal.SIGKILL) -> int:
        """Send a signal to all processes of an institution's child; how many there were."""
        found = self.processes(name, role)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return len(found)

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """End `fedner client`; its exit code. With SIGKILL, as its machine would."""
        client = self.clients[name]
        client.look()
        client.process.send_signal(number)
        return client.await_end(60)

    def kill_server(self) -> None:
        """SIGKILL, as its machine would."""
        if self.server is None:
            raise StageError("no server was started")
        self.server.look()
        self.server.process.kill()
        self.server.process.wait()

    def finish(self, limit_s: float = LIMIT_S) -> int:
        """The server's exit code; meanwhile what is below everybody is remembered.

        Raises:
            StageError: it still runs after `limit_s`.
        """
        if self.server is None:
            raise StageError("no server was started")
        deadline = time.monotonic() + limit_s
        while self.server.process.poll() is None and time.monotonic() < deadline:
            self.look()
            time.sleep(0.2)
        return self.server.await_end(1.0)

    def look(self) -> None:
        """Remember what is below everybody."""
        for command in self.commands:
            command.look()

    @property
    def commands(self) -> list[Command]:
        """All that were ever started."""
        return [*self._served, *(life for lives in self._lives.values() for life in lives)]

    def close(self) -> None:
        """Kill all that is left."""
        for command in self.commands:
            command.destroy()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what has become of them

    def await_true(
        self, holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S, poll_s: float = 0.005
    ) -> Any:
        """What `holds` says once it says anything; it is asked every `poll_s`.

        Raises:
            StageError: `what` did not come within `limit_s`, or the server is gone.
        """
        deadline = time.monotonic() + limit_s
        while not (found := holds()):
            ended = self.server is not None and self.server.process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = "" if self.server is None else self.server.text
                raise StageError(f"{what} did not come: {said}")
            time.sleep(poll_s)
        return found

    def await_event(self, kind: str, count: int = 1, limit_s: float = LIMIT_S) -> None:
        """Until `metrics.jsonl` has so many events of a kind."""

        def there() -> bool:
            metrics = self.run.path / "metrics.jsonl"
            return metrics.exists() and len(self.run.events(kind)) >= count

        self.await_true(there, f"event {kind}", limit_s)

    def audit(self, name: str | None = None) -> Path:
        """The audit log of an institution, or of the coordinator."""
        return self.run.path / "audit.jsonl" if name is None else self.state(name) / "audit.jsonl"

    def state(self, name: str) -> Path:
        """An institution's state."""
        return self.sites[name].parent / "state"

    def worker_log(self, name: str) -> str:
        """What an institution's worker has said."""
        path = self.state(name) / "worker.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def charges(self, name: str) -> list[Charge]:
        """All reserves of an institution's ledger, in order; each was paid, whatever came of it."""
        state = self._ledger(name)
        reserves = () if state is None else (r.body for r in state.reserves.values())
        return [Charge(body.purpose, body.round, body.attempt) for body in reserves]

    def epsilon(self, name: str) -> float:
        """What these reserves cost, at the study's delta, by privacy-loss distributions."""
        state = self._ledger(name)
        if state is None or not state.reserves:
            return 0.0
        body = next(iter(state.reserves.values())).body
        return float(epsilon(spent(state, unit=body.unit), body.delta))

    def _ledger(self, name: str) -> Any:
        return read_state(self.state(name) / "ledger", name)[0].state

    def weights(self) -> bytes:
        """The released model's trained weights, as float32, after the last finished round."""
        return bytes(self.run.load_delta()[0].tobytes())

    def f1(self) -> float | None:
        """Of the last evaluation, if there was one."""
        events = self.run.events("evaluation")
        return float(events[-1]["f1"]) if events else None

    def survivors(self, event: Literal["round", "evaluation"]) -> dict[int, tuple[str, ...]]:
        """Whose vectors are in each sum, by round."""
        return {e["round"]: tuple(e["institutions"]) for e in self.run.events(event)}


def _own_home(folder: Path) -> Path:
    """A home with this user's encoders and a receipt book of its own."""
    home = folder / "home"
    home.mkdir()
    (home / "encoders").symlink_to(fedner_home() / "encoders")
    return home.absolute()
