"""How `fedner server` learns that a run is over."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import FederationError, FlowerEndedError
from common.io.journal import append
from common.io.processes import Child, free_port
from server import supervisor
from server.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(supervisor, "_POLL_S", 0.0)
    monkeypatch.setattr(supervisor, "_FLOWER_POLLS", 1)
    made = RunDir.create(tmp_path / "run", "")
    made.set_status("running")
    return made


def watch(run: RunDir) -> None:
    supervisor._watch(run, Child("superlink", [], {}), {}, lambda _: None, 0)


def test_a_run_that_ends_while_flower_is_asked_is_no_failure(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower takes seconds to answer; what it then says of the run can be newer than the status."""

    def meanwhile(_environment: object) -> bool:
        run.set_status("finished")
        return True

    monkeypatch.setattr(supervisor, "_flower_gave_up", meanwhile)
    watch(run)


def test_the_reason_of_a_run_that_fails_while_flower_is_asked_is_told(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(_environment: object) -> bool:
        run.set_status("failed", "the reason")
        return True

    monkeypatch.setattr(supervisor, "_flower_gave_up", meanwhile)
    with pytest.raises(FederationError, match="the reason"):
        watch(run)


def test_a_run_that_flower_ended_without_a_word_is_a_failure(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_flower_gave_up", lambda _: True)
    with pytest.raises(FlowerEndedError, match="ended before the run did"):
        watch(run)


def test_what_the_serverapp_says_of_flowers_end_is_not_taken_for_a_failure_of_the_study(
    run: RunDir,
) -> None:
    run.set_status("lost", "Flower has ended this run")
    with pytest.raises(FlowerEndedError, match="Flower has ended this run"):
        watch(run)


def test_whatever_is_said_once_the_superlink_is_gone_it_was_flowers_end(run: RunDir) -> None:
    """The ServerApp may write its last word before its server has looked."""
    run.set_status("failed", "expected an answer")
    link = Child("superlink", ["true"], {})
    link.start()
    assert link.process is not None
    link.process.wait(10)
    with pytest.raises(FlowerEndedError, match="expected an answer"):
        supervisor._watch(run, link, {}, lambda _: None, 0)
    link.stop()


def test_some_looks_that_fail_or_come_too_late_end_no_healthy_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def late(*_: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 20:
            run.set_status("finished")
        raise FederationError("`flwr list` took more than 120 s")

    monkeypatch.setattr(supervisor, "_flwr", late)
    watch(run)
    assert looks == 20


def test_flower_that_says_nothing_for_a_quarter_of_an_hour_has_ended(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def silent(*_: object) -> None:
        nonlocal now
        now += 130.0
        if now == 650.0:  # a round comes to its end: that counts as a word
            append(run.path / "metrics.jsonl", {"event": "round"})
        raise FederationError("`flwr list` took more than 120 s")

    monkeypatch.setattr(supervisor, "_flwr", silent)
    monkeypatch.setattr(
        supervisor, "time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: now)
    )
    with pytest.raises(FlowerEndedError) as caught:
        watch(run)
    assert 650.0 + 900.0 < now < 650.0 + 900.0 + 300.0
    assert f"fedner server --resume {run.path}" in str(caught.value.remedy)


def test_no_list_of_flowers_is_no_look(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    said = SimpleNamespace(stdout="", returncode=1)
    monkeypatch.setattr(supervisor, "_flwr", lambda *_: said)
    for text in ("", "[]", "null", '{"success": false}', '{"runs": [{}]}'):
        said.stdout = text
        with pytest.raises(FederationError, match="no list"):
            supervisor._flower_gave_up({})
    said.stdout = '{"runs": []}'
    assert not supervisor._flower_gave_up({})
    said.stdout = '{"runs": [{"status": "finished:failed"}]}'
    assert supervisor._flower_gave_up({})


@pytest.mark.parametrize("step", ["port", "admit", "submit"])
def test_a_superlink_that_ends_before_the_study_is_begun_is_flowers_end(
    run: RunDir, step: str
) -> None:
    link = Child("superlink", ["false"], {}, run.path / "superlink.log")
    link.start()
    assert link.process is not None
    link.process.wait(10)

    def begin() -> None:
        with supervisor._ended_with(link):
            if step == "port":
                supervisor.await_port("127.0.0.1", free_port(), link, 5.0)
            raise FederationError(f"`flwr {step}` failed")

    with pytest.raises(FlowerEndedError, match="before the study was begun") as caught:
        begin()
    link.stop()
    assert caught.value.place == str(run.path / "superlink.log")
    assert ("does not listen" if step == "port" else step) in caught.value.message


def test_a_study_that_a_living_superlink_does_not_take_is_a_failure(run: RunDir) -> None:
    link = Child("superlink", ["sleep", "60"], {})
    link.start()
    with (
        pytest.raises(FederationError, match="did not take") as caught,
        supervisor._ended_with(link),
    ):
        raise FederationError("Flower did not take the study")
    link.stop()
    assert type(caught.value) is FederationError
