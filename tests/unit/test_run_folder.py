"""What outlives a coordinator: its journal, its attempts, its origin and its locks."""

import dataclasses
import errno
import json
import logging
import os
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from flwr.app import Context
from flwr.serverapp import Grid

from common import __version__
from common.config.canonical import study_yaml
from common.errors import ConfigError, FederationError, FlowerEndedError, UsageError
from common.io import journal
from common.io.disk import Disk
from common.io.private_files import make_private, open_log
from common.io.processes import Child
from server import app as server_app
from server.app import run_study
from server.attempts import Attempts
from server.optimizer import ServerOptimizer
from server.origin import COORDINATOR_LOCK, MODEL, SERVER_LOCK, Origin, alone, is_finished
from server.reserve import STATUS_RESERVE
from server.run_dir import RunDir
from server.standing import standing_of
from server.supervisor import serve_study
from tests.disks import MemoryDisk
from tests.full_disk import FullDisk
from tests.unit.test_coordinator import study_of

LINES = [{"event": "a", "n": 1}, {"event": "b", "n": 2}]


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    for line in LINES:
        journal.append(path, line)
    return path


def test_every_cut_of_the_last_line_is_set_aside_and_no_whole_line_is_lost(metrics: Path) -> None:
    whole = metrics.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first + 1, len(whole)):
        metrics.write_bytes(whole[:size])
        assert journal.read(metrics) == LINES[:1]
        assert journal.mend(metrics) == size - first
        assert metrics.read_bytes() == whole[:first]
        assert metrics.with_name(journal.TORN).read_bytes() == whole[first:size] + b"\n"
        metrics.with_name(journal.TORN).unlink()


def test_a_whole_file_is_left_as_it_is(metrics: Path) -> None:
    assert journal.mend(metrics) == 0
    assert journal.read(metrics) == LINES
    assert not metrics.with_name(journal.TORN).exists()
    assert journal.read(metrics.with_name("none")) == []
    assert journal.mend(metrics.with_name("none")) == 0


@pytest.mark.parametrize("line", [b"zorblax", b"[]", b"{}", b"\xff"])
def test_a_damaged_whole_line_is_refused_with_its_number(metrics: Path, line: bytes) -> None:
    metrics.write_bytes(metrics.read_bytes() + line + b"\n")
    with pytest.raises(FederationError, match="not an event") as caught:
        journal.read(metrics)
    assert caught.value.place == f"{metrics}:3"


def test_attempts_rise_by_one_over_restarts_of_each_sum_apart(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    assert [Attempts(path).begin("train", 1) for _ in range(3)] == [1, 2, 3]
    assert Attempts(path).begin("evaluate", 1) == 1
    assert Attempts(path).begin("train", 2) == 1
    assert Attempts(path).begin("train", 1) == 4


def test_that_vectors_were_asked_for_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    first = Attempts(path)
    first.begin("train", 1)
    assert not first.asked("train", 1)
    first.ask("train", 1)
    assert Attempts(path).asked("train", 1)
    assert not Attempts(path).asked("evaluate", 1)
    assert Attempts(path).begin("train", 1) == 2
    assert Attempts(path).asked("train", 1)


def test_what_was_tried_outlives_any_crash_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("/run/attempts.json")
    disk = MemoryDisk(folders=(path.parent,))
    monkeypatch.setattr("server.attempts.DISK", disk)
    attempts, expected = Attempts(path), []
    for step, asked in ((attempts.begin, False), (attempts.ask, True), (attempts.begin, True)):
        step("train", 1)
        expected.append((1 if len(expected) < 2 else 2, asked))
        for left in disk.crashes():
            monkeypatch.setattr("server.attempts.DISK", MemoryDisk(left, folders=(path.parent,)))
            again = Attempts(path)
            assert again.asked("train", 1) == asked
            assert again.begin("train", 1) == expected[-1][0] + 1
        monkeypatch.setattr("server.attempts.DISK", disk)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"other": {}}',
        '{"train": {"x": {"attempts": 1, "asked": true}}}',
        '{"train": {"1": {"attempts": -1, "asked": true}}}',
        '{"train": {"1": {"attempts": true, "asked": true}}}',
        '{"train": {"1": {"attempts": 1, "asked": 1}}}',
        '{"train": {"1": {"attempts": 1, "more": 1}}}',
        '{"train": []}',
    ],
)
def test_a_damaged_file_of_attempts_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "attempts.json"
    path.write_text(text)
    with pytest.raises(FederationError, match="damaged"):
        Attempts(path)


def test_attempts_that_the_disk_does_not_take_are_not_begun(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "gone" / "attempts.json")
    with pytest.raises(FederationError, match="can't be written"):
        attempts.begin("train", 1)
    (tmp_path / "gone").mkdir()
    assert attempts.begin("train", 1) == 1


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", "study: x\n")


def test_a_run_is_gone_on_with_only_as_it_was_begun(run: RunDir) -> None:
    origin = Origin.of(study_of(), None, "127.0.0.1:1")
    assert origin.version == __version__
    origin.save(run)
    read = Origin.read(run)
    assert read == origin
    read.require_same(dataclasses.replace(origin, address="127.0.0.1:2"), run)
    other = Origin.of(study_of(rounds=3), None, "127.0.0.1:1")
    with pytest.raises(UsageError, match=r"began with: the study\n"):
        read.require_same(other, run)
    for name, said in (("version", "version"), ("coordinator", "key"), ("roster", "roster")):
        with pytest.raises(UsageError, match=said):
            read.require_same(dataclasses.replace(origin, **{name: "x"}), run)


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '{"version": 1, "more": 2}'])
def test_a_folder_without_a_readable_origin_is_refused(run: RunDir, text: str | None) -> None:
    if text is not None:
        (run.path / "origin.json").write_text(text)
    with pytest.raises(UsageError, match="no run of `fedner server`"):
        Origin.read(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        RunDir.open(tmp_path)


def test_a_finished_run_is_refused_once_its_model_is_saved(run: RunDir) -> None:
    for state in ("running", "failed", "starting"):
        run.set_status(state)
        assert not is_finished(run)
    run.set_status("finished")
    assert is_finished(run)
    (run.path / MODEL).mkdir()
    with pytest.raises(UsageError, match="the run is finished"):
        is_finished(run)


def test_one_at_a_time_has_a_run_folder(run: RunDir) -> None:
    with alone(run, SERVER_LOCK):
        holder = (run.path / SERVER_LOCK).read_text().strip()
        with (
            pytest.raises(FederationError, match=rf"another process \({holder}\)"),
            alone(run, SERVER_LOCK, wait_s=0.3),
        ):
            pass
        with alone(run, "other.lock"):
            pass
    with alone(run, SERVER_LOCK):
        pass


_COORDINATOR = """
import sys, time
from pathlib import Path
from server.origin import end_with_server
from server.run_dir import RunDir
end_with_server(RunDir(Path(sys.argv[1])))
print("here", flush=True)
time.sleep(100)
"""


def test_a_coordinators_process_ends_when_its_server_is_gone(run: RunDir) -> None:
    with alone(run, SERVER_LOCK):
        command = [sys.executable, "-c", _COORDINATOR, str(run.path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert process.poll() is None
    assert process.wait(10) == 1
    process.stdout.close()


def test_what_is_recorded_is_one_line_each(run: RunDir) -> None:
    run.record("round", study_of(), round=1)
    (line,) = (run.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["round"] == 1


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_a_run_folder_and_its_logs_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run = RunDir.create(tmp_path / "runs" / "run", "")
        run.log_here()
        logging.getLogger("fedner.server").warning("a line")
        child = Child("superlink", ["echo", "said"], {}, run.path / "superlink.log")
        child.start()
        assert child.process is not None
        child.process.wait(10)
        child.stop()
        assert (mode(run.path), mode(run.path / "run.log")) == ("0o700", "0o600")
        assert mode(run.path / "superlink.log") == "0o600"
        (run.path / "run.log").chmod(0o644)  # as an older version made it
        RunDir.open(run.path).log_here()
        assert mode(run.path / "run.log") == "0o600"
        assert "a line" in (run.path / "run.log").read_text()
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"identity": 1}', '{"identity": 1, "roster": 2}']
)
def test_damaged_whereabouts_are_said_with_place_and_remedy(tmp_path: Path, text: str) -> None:
    run = RunDir.create(tmp_path / "run", "")
    (run.path / "standing.json").write_text(text)
    with pytest.raises(FederationError, match="is damaged") as caught:
        standing_of(run)
    assert caught.value.place == str(run.path / "standing.json")
    assert caught.value.remedy


def test_what_nobody_foresaw_reaches_the_terminal_with_the_logs_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: a study that can't be read as text any more, as after a disk's fault."""
    run = RunDir.create(tmp_path / "run", "")
    run.log_here()
    (run.path / "study.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        run_study(cast(Grid, object()), run)
    state = run.status()
    assert state["state"] == "failed"
    assert (
        f"{run.path}/run.log: UnicodeDecodeError, which fedner did not foresee" in state["message"]
    )
    assert f"--resume {run.path}" in state["message"]
    assert "Traceback" in (run.path / "run.log").read_text()


def test_a_run_that_flower_lost_is_marked_so(tmp_path: Path) -> None:
    """The grid's own error comes from Flower's client of a SuperLink that is gone."""

    class Gone:
        def get_node_ids(self) -> list[int]:
            raise httpx.ConnectError("connection refused")

    run = RunDir.create(tmp_path / "run", study_yaml(study_of()))
    with pytest.raises(FlowerEndedError):
        run_study(cast(Grid, Gone()), run)
    assert run.status()["state"] == "lost"


@pytest.mark.parametrize("call", ["chmod", "fchmod"])
def test_a_run_folder_of_another_user_is_refused_with_place_and_remedy(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As the kernel says it to a user who does not own the file; root owns all."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, call, denied)
    handlers = list(logging.getLogger("fedner").handlers)
    begun = {
        "chmod": lambda: serve_study(run, "127.0.0.1:1", lambda _: None), "fchmod": run.log_here,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="Operation not permitted") as caught:
        begun[call]()
    assert str(caught.value.place).startswith(str(run.path))
    assert "chown" in str(caught.value.remedy)
    assert logging.getLogger("fedner").handlers == handlers
    with pytest.raises(ConfigError):
        (make_private if call == "chmod" else open_log)(run.path / "superlink.log")


def test_of_a_checkpoint_no_more_is_read_than_the_released_model(run: RunDir) -> None:
    study = study_of()
    optimizer = ServerOptimizer.start(study.aggregation, 1 << 20)
    run.save_checkpoint(optimizer, 1, {})
    size = (run.path / "checkpoint.npz").stat().st_size
    tracemalloc.start()
    released, _ = run.load_delta()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert released.nbytes <= most < released.nbytes * 1.5 < size


@pytest.fixture
def begun(tmp_path: Path) -> RunDir:
    """A run that was begun, and gone on with, while there was room."""
    run = RunDir.create(tmp_path / "run", study_yaml(study_of()))
    run.set_status("starting")
    return run


def test_a_run_is_not_gone_on_with_on_a_full_disk_and_that_is_said_with_place_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir.create(tmp_path / "run", study_yaml(study_of()))
    for _ in range(2):
        with alone(run, COORDINATOR_LOCK):
            pass
    FullDisk(run.path, monkeypatch).fill()
    with pytest.raises(FederationError, match="No space left") as caught:
        serve_study(run, "127.0.0.1:1", lambda _: None)
    assert caught.value.place == str(run.path / STATUS_RESERVE)
    assert "fedner server --resume" in str(caught.value.remedy)
    assert run.status()["state"] == "unknown"


def test_a_taken_port_is_refused_before_anything_is_started_there(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", study_yaml(study_of()))
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(FederationError, match="port is taken") as caught:
            serve_study(run, address, lambda _: None)
    assert caught.value.place == address
    assert not (run.path / "superlink.log").exists()


class ReachedError(Exception):
    """The SuperLink would be started now."""


def test_a_predecessors_superlink_may_take_its_time_to_go_though_nothing_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was killed while it waited for its institutions: the metrics have no line yet."""
    run = RunDir.create(tmp_path / "run", study_yaml(study_of()))
    run.set_status("running")

    def start(_child: object) -> None:
        raise ReachedError

    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr("server.supervisor.time.sleep", lambda _: other.close())
        monkeypatch.setattr("server.supervisor.Child.start", start)
        with pytest.raises(ReachedError):
            serve_study(run, address, lambda _: None)


@pytest.mark.parametrize("step", ["set_status", "mend"])
def test_a_disk_that_is_full_from_some_step_on_is_the_runs_end_and_is_in_its_status(
    begun: RunDir, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """When the ServerApp begins; once it has: the audit log does not get its first entry."""
    full, real = FullDisk(begun.path, monkeypatch), getattr(RunDir, step)

    def filled(run: RunDir, *given: str) -> object:
        if full.capacity is None:
            full.fill()
        return real(run, *given)

    monkeypatch.setattr(RunDir, step, filled)
    with pytest.raises(FederationError, match="No space left"):
        run_study(cast(Grid, object()), begun)
    state = begun.status()
    assert state["state"] == "failed"
    assert "No space left" in state["message"]
    assert "remedy: free some space" in state["message"]
    assert not (begun.path / STATUS_RESERVE).exists()


def test_a_disk_that_does_not_even_take_the_end_hides_no_reason(
    begun: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def mend(_: RunDir) -> int:
        monkeypatch.setattr(Disk, "write", broken)
        raise FederationError("the reason")

    monkeypatch.setattr(RunDir, "mend", mend)
    with pytest.raises(FederationError, match="the reason"):
        run_study(cast(Grid, object()), begun)
    assert begun.status()["state"] == "running"


def test_what_fails_before_the_study_is_read_is_in_the_status_too(
    begun: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: RunDir) -> None:
        raise ConfigError("is another user's")

    monkeypatch.setattr(server_app, "end_with_server", lambda _: None)
    monkeypatch.setattr(RunDir, "log_here", refused)
    context = SimpleNamespace(run_config={"run-dir": str(begun.path)})
    with pytest.raises(ConfigError):
        server_app.main(cast(Grid, object()), cast(Context, context))
    assert begun.status() == {"state": "failed", "message": "is another user's"}
