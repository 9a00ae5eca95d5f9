"""A coordinator's disk that is full at the worst moment costs no sum of vectors given once."""

import pytest

from common.errors import FederationError
from server.attempts import Attempts
from tests.full_disk import FullDisk
from tests.sums_parties import Federation

NEXT = ("train", 2)


@pytest.fixture
def full(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    return FullDisk(run, monkeypatch)


@pytest.fixture
def three(tmp_path, full):
    """All have to stay, and none gives its vector twice."""
    made = Federation(tmp_path, n=3)
    made.coordinator = made.make_coordinator(Attempts(full.folder / "attempts.json"))
    return made


def fill_before(federation, full, moment):
    """The disk is full from this stage of the first round on."""

    def before(_purpose, round_, stage):
        if (round_, stage) == (1, moment):
            full.fill()

    federation.before = before


@pytest.mark.parametrize("moment", ["mask", "sign", "open"])
def test_a_disk_that_is_full_once_vectors_are_asked_for_costs_no_sum(three, full, moment):
    fill_before(three, full, moment)
    total = three.sum("train", 1, NEXT)
    assert total.survivors == three.names
    assert total.values.tolist() == three.plain_sum(three.names, 1).tolist()
    assert not three.refused


@pytest.mark.parametrize("moment", ["advertise", "share"])
def test_a_disk_that_is_full_before_ends_the_run_while_nobody_gave_anything(three, full, moment):
    fill_before(three, full, moment)
    with pytest.raises(FederationError, match="No space left") as caught:
        three.sum("train", 1, NEXT)
    assert "--resume" in caught.value.remedy
    assert "mask" not in {stage for _, _, stage, _, _ in three.trips}
    full.clear()
    three.before = lambda *_: None
    three.coordinator = three.make_coordinator(Attempts(full.folder / "attempts.json"))
    assert three.sum("train", 1, NEXT).survivors == three.names


def test_keys_that_came_ahead_on_a_full_disk_are_used_once_there_is_room(three, full):
    fill_before(three, full, "mask")
    three.sum("train", 1, NEXT)
    full.clear()
    three.trips.clear()
    assert three.sum(*NEXT).survivors == three.names
    assert [stage for _, _, stage, _, _ in three.trips] == ["mask", "sign", "open"]
