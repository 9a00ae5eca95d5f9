"""How `fedner server` learns that a run is over."""

from pathlib import Path

import pytest

from common.errors import FederationError
from common.io.processes import Child
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
    with pytest.raises(FederationError, match="Flower ended the run"):
        watch(run)
