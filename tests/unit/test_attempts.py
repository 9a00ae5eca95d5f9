"""What is tried of each sum outlives a coordinator: over whom it may have been opened."""

import json
from pathlib import Path

import pytest

from common.errors import FederationError
from server.attempts import Attempts
from tests.disks import MemoryDisk

OVER = ("north", "east", "south")


def test_over_whom_a_sum_may_have_been_opened_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    first = Attempts(path)
    assert first.over("train", 1) == ()
    first.bind("train", 1, OVER)
    again = Attempts(path)
    assert again.over("train", 1) == OVER
    assert again.over("train", 2) == again.over("evaluate", 1) == ()
    assert again.begin("train", 1) == 1
    again.ask("train", 1)
    assert Attempts(path).over("train", 1) == OVER


def test_it_is_on_disk_whenever_the_machine_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("/run/attempts.json")
    disk = MemoryDisk(folders=(path.parent,))
    monkeypatch.setattr("server.attempts.DISK", disk)
    attempts = Attempts(path)
    for over in (OVER, OVER[:2]):
        attempts.bind("train", 1, over)
        for left in disk.crashes():
            monkeypatch.setattr("server.attempts.DISK", MemoryDisk(left, folders=(path.parent,)))
            assert Attempts(path).over("train", 1) == over
        monkeypatch.setattr("server.attempts.DISK", disk)


def test_the_same_set_again_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    attempts = Attempts(path)
    attempts.bind("train", 1, OVER)
    path.unlink()
    attempts.bind("train", 1, OVER)
    assert not path.exists()


def test_sets_of_earlier_rounds_of_the_purpose_are_forgotten_and_numbers_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "attempts.json"
    attempts = Attempts(path)
    attempts.begin("train", 1)
    for purpose, round_ in (("train", 1), ("evaluate", 1), ("train", 2), ("train", 3)):
        attempts.bind(purpose, round_, OVER)  # type: ignore[arg-type]
    attempts.bind("train", 2, OVER[:2])  # nothing later is lost by it
    for kept in (attempts, Attempts(path)):
        assert kept.over("train", 1) == ()
        assert kept.over("train", 2) == OVER[:2]
        assert kept.over("train", 3) == kept.over("evaluate", 1) == OVER
    assert json.loads(path.read_text())["train"]["1"] == {"attempts": 1, "asked": False}
    assert Attempts(path).begin("train", 1) == 2


@pytest.mark.parametrize("over", ['"north"', '["north", "north"]', "[1]", '{"north": 1}', "[[]]"])
def test_a_set_that_is_none_is_damage(tmp_path: Path, over: str) -> None:
    path = tmp_path / "attempts.json"
    path.write_text(f'{{"train": {{"1": {{"attempts": 1, "asked": true, "over": {over}}}}}}}')
    with pytest.raises(FederationError, match="damaged"):
        Attempts(path)


def test_a_file_without_sets_is_read(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    path.write_text('{"train": {"1": {"attempts": 1, "asked": true}}}')
    assert Attempts(path).over("train", 1) == ()
