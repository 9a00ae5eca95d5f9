"""Children that are started again: on another port if theirs is taken; no wait is for ever."""

import signal
import socket
import sys
from pathlib import Path

import pytest

from client.site_paths import SitePaths
from client.supervisor import keep_alive, outward_children
from client.uplink import Uplink
from common.errors import BudgetError, FederationError, StorageError
from common.io import processes
from common.io.processes import Child, is_free


def ports(children: list[Child]) -> list[str]:
    """The runtime's port in each command."""
    node, relay = (list(child.command) for child in children)
    at = relay[relay.index("--runtime-api-address") + 1]
    return [node[node.index("--port") + 1], at.split(":")[1]]


@pytest.fixture
def outward(tmp_path: Path) -> list[Child]:
    paths = SitePaths(tmp_path, tmp_path / "socket")
    uplink = Uplink(arguments=("--insecure",), notice="")
    return outward_children(paths, uplink, "north")


def test_a_port_that_nobody_has_taken_stays(outward: list[Child]) -> None:
    before = ports(outward)
    node, _ = outward
    assert node.before_start is not None
    node.before_start()
    assert ports(outward) == before
    assert before[0] == before[1]


def test_a_port_that_somebody_has_taken_between_two_starts_is_another_for_both(
    outward: list[Child],
) -> None:
    before = ports(outward)
    node, relay = outward
    relay.command = [sys.executable, "-c", "import time; time.sleep(100)"]
    relay.start()
    assert node.before_start is not None
    with socket.create_server(("127.0.0.1", int(before[0]))):
        assert not is_free(int(before[0]))
        node.before_start()
    after = ports(outward)
    assert after[0] == after[1] != before[0]
    assert relay.exit_code == -signal.SIGTERM  # so it is started again, with the new one


def test_what_is_called_before_a_start_may_change_the_command(tmp_path: Path) -> None:
    child = Child("child", ["false"], {}, tmp_path / "log")

    def change() -> None:
        child.command = ["echo", "changed"]

    child.before_start = change
    child.start()
    assert child.process is not None
    assert child.process.wait(10) == 0
    child.stop()
    assert (tmp_path / "log").read_text() == "changed\n"


def test_a_process_that_outlives_sigkill_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None that is in state D can be made here: this one does not get the signal."""
    child = Child("child", [sys.executable, "-c", "import time; time.sleep(100)"], {})
    child.start()
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    monkeypatch.setattr(processes, "KILL_LIMIT_S", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_signal_group", lambda *_: None)
        child.stop()
        with pytest.raises(FederationError, match="outlives SIGKILL") as caught:
            child.start()
        assert child.exit_code is None  # both have returned while it was still there
        assert str(child.process.pid) in str(caught.value.place)
    child.stop()
    assert child.exit_code == -signal.SIGTERM


def test_a_worker_whose_disk_was_full_is_started_again_and_one_without_budget_is_not(
    tmp_path: Path,
) -> None:
    full, spent, been = StorageError.exit_code, BudgetError.exit_code, tmp_path / "been"
    script = f"[ -e {been} ] && exit {spent}; touch {been}; exit {full}"
    worker, said = Child("worker", ["/bin/sh", "-c", script], {}), list[str]()
    worker.start()
    with pytest.raises(BudgetError, match=f"exit code {spent}"):
        keep_alive([worker], tmp_path, said.append)
    worker.stop()
    assert said == [f"worker ended with {full}; again in 1 s"]
