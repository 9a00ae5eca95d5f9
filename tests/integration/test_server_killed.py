"""`fedner server` under SIGKILL, and `--resume`, with real processes on loopback."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.io.ledger_file import LedgerFile
from common.io.processes import free_port
from tests.integration.test_processes import PRIVATE, THREE, Command, Federation, _simulated

_PARENT = """
import sys, time
from pathlib import Path
from common.io.processes import Child
below = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']); print(p.pid, flush=True); time.sleep(100)"
child = Child("child", [sys.executable, "-c", below], {}, Path(sys.argv[1]))
child.start()
while not Path(sys.argv[1]).read_text().strip():
    time.sleep(0.05)
print(child.process.pid, Path(sys.argv[1]).read_text(), flush=True)
time.sleep(100)
"""  # noqa: E501


def test_a_killed_supervisor_takes_its_childrens_groups_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "pid")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        below = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        guards = [p for p in psutil.Process(parent.pid).children() if "fedner-guard" in p.cmdline()]
        parent.kill()
    assert (len(below), len(guards)) == (2, 1)
    _, alive = psutil.wait_procs([*below, *guards], timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def private_study(tiny_study, names) -> str:
    return tiny_study(
        privacy=PRIVATE,
        model="{train: full, dropout: 0}",
        training="{rounds: 2, learning_rate: 5e-3, precision: float32}",
        federation=f"{{institutions: [{', '.join(names)}], deadline_s: 180, evaluate_every: 2}}",
        secure_aggregation="{}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )


def resumed(federation: Federation, log: Path) -> Command:
    return Command(log, "server", "--resume", str(federation.run.path))


def as_simulated(federation: Federation, text: str, folder: Path) -> None:
    """See that weights and charges are the simulation's."""
    simulated = _simulated(text, folder)
    one, other = federation.run.load_delta()[0], simulated.load_delta()[0]
    assert one.tobytes() == other.tobytes()
    for name in THREE:
        real = charged(folder / "real" / "f" / name / "state", name)
        assert real == charged(simulated.path / "sites" / name, name)


def charged(state: Path, name: str) -> list[tuple[str, int]]:
    with LedgerFile.open(state / "ledger", name) as ledger:
        return sorted((r.body.purpose, r.body.round) for r in ledger.state.reserves.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_killed_in_mid_round_goes_on_to_the_same_weights_and_charges_nothing_twice(
    tiny_study, tmp_path
):
    text = private_study(tiny_study, THREE)
    federation = Federation(tmp_path / "real", text, THREE)
    try:
        federation.await_event("round")
        os.kill(federation.server.process.pid, signal.SIGKILL)
        federation.server.process.wait()
        killed = time.monotonic()
        first, federation.server = federation.server, resumed(federation, tmp_path / "resumed.log")
        federation.await_event("resume")
        print(f"resumed after {time.monotonic() - killed:.1f} s")  # noqa: T201
        assert federation.finish() == 0, federation.server.text
        assert first.left() == []
        for client in federation.clients:
            assert "Traceback" not in client.text
    finally:
        federation.close()
    as_simulated(federation, text, tmp_path)
    again = resumed(federation, tmp_path / "again.log")
    assert again.await_end() == 2
    assert "the run is finished" in again.text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_superlink_and_a_killed_serverapp_end_with_12_and_resume_goes_on(
    tiny_study, tmp_path
):
    """As the kernel kills what has taken too much memory: the unit begins anew after a 12."""
    text = private_study(tiny_study, THREE)
    federation = Federation(tmp_path / "real", text, THREE)
    try:
        for number, (event, word) in enumerate((("round", "superlink"), ("resume", "serverapp"))):
            federation.await_event(event)
            victims = [p for p in federation.server.look() if is_of_flower(p, word)]
            assert victims, word
            victims[0].kill()
            killed = time.monotonic()
            assert federation.finish() == 12, federation.server.text
            print(f"{word}: ended after {time.monotonic() - killed:.1f} s")  # noqa: T201
            assert "--resume" in federation.server.text
            assert "Traceback" not in federation.server.text
            federation.server = resumed(federation, tmp_path / f"resumed{number}.log")
        assert federation.finish() == 0, federation.server.text
    finally:
        federation.close()
    as_simulated(federation, text, tmp_path)


def is_of_flower(process: psutil.Process, word: str) -> bool:
    """Whether a process is one of Flower's programs, by its script's name."""
    with contextlib.suppress(psutil.Error):
        return any(Path(part).name == f"flower-{word}" or Path(part).name == f"flwr-{word}"
                   for part in process.cmdline())  # fmt: skip
    return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_server_on_a_run_folder_is_refused(tiny_study, tmp_path):
    """While the first one waits for its institutions; then it is killed, and its port is free."""
    (tmp_path / "study.yaml").write_text(tiny_study())
    run, port = tmp_path / "run", free_port()
    where = ("--out", str(run), "--address", f"127.0.0.1:{port}")
    first = Command(tmp_path / "1.log", "server", str(tmp_path / "study.yaml"), *where)
    second = third = None
    try:
        await_text(run / "status.json", "running")
        second = Command(tmp_path / "2.log", "server", "--resume", str(run))
        assert second.await_end() == 8, second.text
        assert re.search(r"in use by another process \(\d+\)", second.text)
        first.look()
        first.process.kill()
        first.process.wait()
        assert first.left() == []
        third = Command(tmp_path / "3.log", "server", "--resume", str(run))
        await_port(port, third)
        third.process.send_signal(signal.SIGTERM)
        assert third.await_end(60) == 130
    finally:
        for one in (first, second, third):
            if one is not None:
                one.destroy()


def await_port(port: int, command: Command, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        assert command.process.poll() is None, command.text
        assert time.monotonic() < deadline
        time.sleep(0.1)


def await_text(path: Path, text: str, command: Command | None = None, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not (path.exists() and text in path.read_text()):
        assert command is None or command.process.poll() is None, command.text
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
