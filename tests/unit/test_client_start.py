"""How `fedner client` waits for its worker, and with which exit code it gives up on one."""

import types
from pathlib import Path

import pytest

from client import sides, supervisor
from client.site_paths import SitePaths
from common.audit.errors import AuditError, AuditStorageError
from common.config.site import START_LIMIT_S
from common.errors import FederationError, FednerError, FlowerEndedError, StorageError
from common.io.processes import Child


class Clock:
    """Goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Worker(Child):
    """No process: what becomes of it is said by `ends`, one exit code for each start."""

    def __init__(self, *ends: int | None):
        super().__init__("worker", [], {})
        self.ends = list(ends)
        self.starts = 0

    def start(self) -> None:
        self.starts += 1

    @property
    def exit_code(self) -> int | None:
        return self.ends[self.starts - 1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    faked = types.SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep)
    monkeypatch.setattr(supervisor, "time", faked)
    monkeypatch.setattr(sides, "time", faked)
    return clock


@pytest.fixture
def paths(tmp_path: Path) -> SitePaths:
    return SitePaths(tmp_path)


def ended_with(code: int) -> Worker:
    worker = Worker(code)
    worker.start()
    return worker


def kinds(of: type[FednerError] = FednerError) -> set[type[FednerError]]:
    """All of fedner's errors."""
    below = {kind for one in of.__subclasses__() for kind in kinds(one)}
    return {kind for kind in {of, *below} if kind.__module__.startswith("common.")}


FINAL = sorted({kind.exit_code for kind in kinds()} - {1, 12, 13})


def test_all_that_a_restart_does_not_mend_is_final_and_a_full_disk_is_not() -> None:
    assert {FlowerEndedError.exit_code, StorageError.exit_code} == {12, 13}
    assert AuditStorageError.exit_code == StorageError.exit_code
    assert [AuditError.exit_code in FINAL, 6 in FINAL] == [True, True]
    assert set(supervisor._REFUSALS) == set(FINAL)


@pytest.mark.parametrize("code", FINAL)
def test_a_refusal_of_the_workers_keeps_its_exit_code(
    code: int, paths: SitePaths, clock: Clock
) -> None:
    """When it starts for the first time, and later."""
    with pytest.raises(FednerError, match=f"refused to run .exit code {code}.") as early:
        supervisor.await_worker(ended_with(code), paths.socket, paths, 10.0, print)
    with pytest.raises(FednerError, match=f"refused to run .exit code {code}.") as late:
        supervisor.keep_alive([ended_with(code)], paths.state, print)
    assert early.value.exit_code == late.value.exit_code == code


@pytest.mark.parametrize("code", [-9, 1, 12])
def test_a_worker_that_was_killed_while_it_started_is_no_refusal(
    code: int, paths: SitePaths, clock: Clock
) -> None:
    with pytest.raises(FederationError, match=f"ended with {code} before") as caught:
        supervisor.await_worker(ended_with(code), paths.socket, paths, 10.0, print)
    assert caught.value.exit_code == 8
    assert caught.value.place == str(paths.log("worker"))


def test_a_worker_whose_disk_is_full_is_started_until_there_is_room(
    paths: SitePaths, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(*[13] * 12, None)
    monkeypatch.setattr(supervisor, "listens", lambda _: worker.exit_code is None)
    worker.start()
    said: list[str] = []
    supervisor.await_worker(worker, paths.socket, paths, 100.0, said.append)
    assert worker.starts == 13
    pauses = (1, 2, 4, 8, 16, *[30] * 7)  # longer than one worker has to read
    assert said == [f"worker ended with 13; again in {pause} s" for pause in pauses]


def test_a_worker_that_reads_for_long_is_waited_for_and_that_is_said_each_minute(
    paths: SitePaths, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = clock.now
    monkeypatch.setattr(supervisor, "listens", lambda _: clock.now > begun + 1000.0)
    worker = Worker(None)
    worker.start()
    said: list[str] = []
    supervisor.await_worker(worker, paths.socket, paths, START_LIMIT_S, said.append)
    assert len(said) == 16
    assert "after 60 s of at most 3600" in said[0]
    assert str(paths.log("worker")) in said[0]


def test_a_worker_that_is_never_ready_is_given_up_with_the_field_that_says_when(
    paths: SitePaths, clock: Clock
) -> None:
    worker = Worker(None)
    worker.start()
    with pytest.raises(FederationError, match="not ready after 90 s") as caught:
        supervisor.await_worker(worker, paths.socket, paths, 90.0, print)
    assert "start_limit_s" in str(caught.value.remedy)


def test_a_relay_says_each_minute_that_it_waits(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    with pytest.raises(FederationError, match="no worker listens here") as caught:
        sides.await_socket(tmp_path / "s", said.append, limit_s=150.0)
    assert said == 3 * [f"waiting for the worker at {tmp_path / 's'}"]
    assert "start_limit_s" in str(caught.value.remedy)
