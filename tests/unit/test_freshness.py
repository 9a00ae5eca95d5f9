"""What a site remembers of its secure sums: never less than it has said, whenever it is killed."""

import errno
import hashlib
import json
from pathlib import Path

import pytest

from common.errors import FederationError, StorageError
from common.io.freshness import Freshness
from common.secagg.session import Session
from common.secagg.states import Durable
from common.secagg.transitions import Stage
from tests.disks import MemoryDisk

FOLDER = Path("/state/sums")
STUDY = "ab" * 32
FILE = FOLDER / f"{STUDY}.json"
COURSE = (Stage.ADVERTISED, Stage.SHARED, Stage.MASKED, Stage.SIGNED, Stage.OPENED)


def session(round_, attempt=1, purpose="train"):
    return Session(study=STUDY, roster="cd" * 32, purpose=purpose, round=round_, attempt=attempt)


def said(round_, stage, attempt=1, purpose="train", text="", over=()):
    digest = hashlib.sha256(f"{purpose}{round_}.{attempt} {stage}{text}".encode()).hexdigest()
    return Durable(
        session=session(round_, attempt, purpose),
        stage=Stage(stage),
        reply_sha256=digest,
        survivors=over,
    )


MARKER = FOLDER.parent / f"{FOLDER.name}.{STUDY}.begun"


def freshness(disk):
    """As after a restart: the process before is dead."""
    disk.locked.clear()
    return Freshness(FOLDER, STUDY, disk=disk)


def fresh_disk(**more):
    return MemoryDisk(folders=("/state",), **more)


def course():
    """Two sums with the third's keys ahead, a retry of the second, and the counts between."""
    yield from (said(1, stage) for stage in COURSE[:4])
    yield said(1, Stage.ADVERTISED, purpose="evaluate")
    yield said(1, Stage.OPENED)
    yield from (said(1, stage, purpose="evaluate") for stage in COURSE[1:])
    yield from (said(2, stage) for stage in COURSE[:4])
    yield said(3, Stage.ADVERTISED)
    yield from (said(2, stage, attempt=2) for stage in COURSE)
    yield from (said(3, stage, attempt=2) for stage in COURSE[:3])


# --- what is remembered


def test_a_site_that_remembers_nothing_takes_any_session():
    file = freshness(fresh_disk())
    assert file.newest("train", 1) == {}
    assert file.masked("train") is None


def test_the_newest_session_of_each_purpose_is_remembered_after_a_restart():
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(1, "advertised"))
    file.note(said(1, "masked"))
    file.note(said(2, "advertised", attempt=3))
    again = freshness(disk)
    assert again.newest("train", 3) == again.newest("train", 2) == {"train": (2, 3)}
    assert again.newest("evaluate", 2) == {}
    assert again.masked("train") == (1, 1)
    assert again.masked("evaluate") is None


def test_a_round_is_tried_again_beside_the_next_rounds_keys():
    file = freshness(fresh_disk())
    file.note(said(4, "advertised"))
    file.note(said(5, "advertised"))
    assert file.newest("train", 4) == {"train": (4, 1)}  # 4.2 may begin
    file.note(said(4, "advertised", attempt=2))
    assert file.newest("train", 4) == {"train": (4, 2)}
    assert file.newest("train", 5) == {"train": (5, 1)}
    assert file.newest("train", 3) == {"train": (5, 1)}  # 3 is over


@pytest.mark.parametrize("stage", COURSE[2:])
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_round_is_over_once_a_vector_of_the_next_one_was_sent(stage, attempts):
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(4, "advertised"))
    for reached in COURSE[: COURSE.index(stage) + 1]:
        file.note(said(5, reached))
    for attempt in range(2, attempts + 1):
        file.note(said(5, "advertised", attempt=attempt))
    assert freshness(disk).newest("train", 4) == {"train": (5, attempts)}
    file = freshness(disk)
    with pytest.raises(FederationError, match="after"):
        file.note(said(4, "advertised", attempt=2))


@pytest.mark.parametrize("order", [(1, 1), (1, 9), (2, 1), (3, 1)])
def test_what_goes_back_behind_a_remembered_session_is_not_written(order):
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(2, "advertised", attempt=2))
    file.note(said(3, "advertised", attempt=2))
    before = disk.read(FILE)
    with pytest.raises(FederationError, match="after"):
        file.note(said(order[0], "advertised", attempt=order[1]))
    assert disk.read(FILE) == before


def test_a_second_different_reply_of_one_stage_is_not_written():
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(1, "masked"))
    before = disk.read(FILE)
    with pytest.raises(FederationError, match="second reply at stage masked"):
        file.note(said(1, "masked", text="another vector"))
    with pytest.raises(FederationError, match="second reply"):
        freshness(disk).note(said(1, "masked", text="another vector"))
    assert disk.read(FILE) == before


def test_the_same_reply_again_writes_nothing():
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(1, "masked"))
    disk.fault = lambda name, _: pytest.fail(f"{name} of the disk")
    file.note(said(1, "masked"))


def test_the_newest_vector_sent_is_remembered_over_any_number_of_sessions():
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(1, "masked"))
    for attempt in range(2, 9):
        file.note(said(1, "advertised", attempt=attempt))
    assert freshness(disk).masked("train") == (1, 1)
    for round_ in range(2, 9):
        file.note(said(round_, "advertised"))
    assert freshness(disk).masked("train") == (1, 1)
    file.note(said(8, "masked"))
    assert freshness(disk).masked("train") == (8, 1)


def test_over_whom_a_sum_was_opened_is_known_to_every_later_attempt():
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(4, "opened", over=(0, 1, 3)))
    file.note(said(5, "advertised"))
    for attempt in range(2, 6):
        assert file.opened_over("train", 4) == freshness(disk).opened_over("train", 4) == (0, 1, 3)
        file = freshness(disk)
        file.note(said(4, "advertised", attempt=attempt))
    assert file.opened_over("train", 5) == file.opened_over("evaluate", 4) == ()


def test_a_second_sum_over_others_is_not_written():
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(1, "opened", over=(0, 1, 3)))
    file.note(said(1, "masked", attempt=2))
    before = disk.read(FILE)
    for over in ((0, 1), (0, 1, 2), (0, 1, 2, 3)):
        with pytest.raises(FederationError, match="after"):
            file.note(said(1, "opened", attempt=2, over=over))
    assert disk.read(FILE) == before
    file.note(said(1, "opened", attempt=2, over=(0, 1, 3)))


def test_every_model_is_remembered_of_its_purpose_after_any_number_of_rounds():
    disk = fresh_disk()
    file = freshness(disk)
    names = [hashlib.sha256(bytes([n])).hexdigest() for n in range(40)]
    for round_, name in enumerate(names, 1):
        file.note(said(round_, "masked"), name)
    again = freshness(disk)
    assert all(again.was_used("train", name) for name in names)
    assert not any(again.was_used("evaluate", name) for name in names)
    assert not again.was_used("train", "ab" * 32)


def test_the_file_stays_small():
    disk = fresh_disk()
    file = freshness(disk)
    for round_ in range(1, 60):
        for attempt in (1, 2):
            for stage in COURSE:
                file.note(said(round_, stage, attempt=attempt))
    assert len(disk.read(FILE)) < 4_000


# --- crashes


def test_what_was_noted_is_there_after_any_crash_and_nothing_else_is():
    """Every crash prefix: the file is the one before or the one after, and the next start works."""
    told, images = [], {}
    disk = fresh_disk()

    def watch():
        for files in disk.crashes():
            images[tuple(sorted(files.items())), len(told)] = files

    disk.watch = watch
    file = freshness(disk)
    states = [None, disk.read(FILE)]
    images.clear()  # the first start has a test of its own
    for durable in course():
        file.note(durable)  # a crash within it may leave the state before or after
        states.append(disk.read(FILE))
        told.append(durable)
        watch()
    disk.watch = lambda: None
    assert len(images) > 100
    for (_, count), files in images.items():
        left = files.get(FILE)
        assert left in states[count + 1 : count + 3]
        freshness(MemoryDisk(files, folders=("/state", FOLDER)))


def test_after_any_crash_no_session_begins_twice_and_no_vector_goes_unremembered():
    told = []
    disk, checked = fresh_disk(), set()

    def watch():
        for files in disk.crashes():
            key = tuple(sorted(files.items())), len(told)
            if key not in checked:
                checked.add(key)
                check(files, told)

    disk.watch = watch
    file = freshness(disk)
    for durable in course():
        file.note(durable, model_of(durable))
        told.append(durable)
        watch()


def model_of(durable):
    """One for each vector that is sent."""
    masked = durable.stage is Stage.MASKED
    return durable.reply_sha256 if masked else ""


def check(files, told):
    again = freshness(MemoryDisk(files, folders=("/state", FOLDER)))
    for durable in told:
        order, purpose = durable.session.order, durable.session.purpose
        newest = again.newest(purpose, durable.session.round)[purpose]
        assert order <= newest
        if durable.stage is Stage.MASKED:
            assert again.masked(purpose) >= order
            assert again.was_used(purpose, model_of(durable))


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "fsync_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_where_the_disk_fails_note_says_so_and_nothing_may_be_sent(call, code):
    disk = fresh_disk()
    file = freshness(disk)
    file.note(said(1, "advertised"))

    def fault(name, _):
        if name == call:
            raise OSError(code, "the disk's own words")

    disk.fault = fault
    with pytest.raises(StorageError, match="the disk's own words") as caught:
        file.note(said(1, "shared"))
    assert caught.value.remedy
    disk.fault = lambda *_: None
    assert freshness(disk).newest("train", 1) == {"train": (1, 1)}
    file.note(said(1, "shared"))
    assert "shared" in json.loads(disk.read(FILE))["train"][0]["stages"]


def test_a_folder_that_can_not_be_made_is_refused():
    def fault(name, _):
        if name == "make_folder":
            raise OSError(errno.EACCES, "Permission denied")

    disk = fresh_disk(fault=fault)
    with pytest.raises(StorageError, match="Permission denied") as caught:
        freshness(disk)
    assert "0700" in caught.value.remedy
    disk.fault = lambda *_: None
    assert freshness(disk).newest("train", 1) == {}


# --- one process


def test_a_worker_that_starts_while_the_old_one_masks_is_refused_and_reads_nothing():
    disk = fresh_disk()
    old = freshness(disk)
    disk.fault = lambda name, _: name == "read" and pytest.fail("it was read")
    with pytest.raises(FederationError, match="in use") as caught:
        Freshness(FOLDER, STUDY, disk=disk)
    assert "stop the other one" in caught.value.remedy
    disk.fault = lambda *_: None
    old.note(said(1, "masked"))
    old.close()
    old.close()
    assert Freshness(FOLDER, STUDY, disk=disk).masked("train") == (1, 1)


def test_an_old_worker_that_ends_late_can_note_nothing_once_the_lock_is_given_back():
    disk = fresh_disk()
    old = freshness(disk)
    old.close()
    new = Freshness(FOLDER, STUDY, disk=disk)
    new.note(said(1, "advertised"))
    before = disk.read(FILE)
    with pytest.raises(FederationError, match="closed"):
        old.note(said(1, "masked"))
    assert disk.read(FILE) == before


def test_a_start_that_fails_gives_the_lock_back():
    disk = MemoryDisk({FILE: b"{"}, folders=("/state", FOLDER))
    for _ in range(2):
        with pytest.raises(FederationError, match="can't be read"):
            Freshness(FOLDER, STUDY, disk=disk)


# --- gone


def test_a_file_deleted_after_the_first_start_is_noticed_and_no_copy_is_asked_for():
    disk = fresh_disk()
    freshness(disk)
    assert disk.read(MARKER) is not None
    disk.remove(FILE)
    with pytest.raises(FederationError, match="is gone") as caught:
        freshness(disk)
    assert "another study" in caught.value.remedy
    assert "put" not in caught.value.remedy
    assert disk.read(FILE) is None


def test_a_crash_in_the_first_start_leaves_what_the_next_one_can_use():
    disk, seen = fresh_disk(), []
    disk.watch = lambda: seen.extend(disk.crashes())
    freshness(disk)
    assert len(seen) > 10
    for files in seen:
        freshness(MemoryDisk(files, folders=("/state", FOLDER)))


# --- damage

GOOD = {"round": 1, "attempt": 1, "stages": {"masked": "ab" * 32}}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        json.dumps({"other": []}).encode(),
        json.dumps({"train": 7}).encode(),
        json.dumps({"train": [GOOD | {"round": 0}]}).encode(),
        json.dumps({"train": [GOOD | {"attempt": True}]}).encode(),
        json.dumps({"train": [GOOD | {"more": 1}]}).encode(),
        json.dumps({"train": [{"round": 1}]}).encode(),
        json.dumps({"train": [GOOD | {"stages": {"thought": "ab" * 32}}]}).encode(),
        json.dumps({"train": [GOOD | {"stages": ["masked"]}]}).encode(),
        json.dumps({"train": [GOOD | {"stages": {"masked": 7}}]}).encode(),
        json.dumps({"train": [GOOD | {"stages": {"masked": "AB" * 32}}]}).encode(),
        json.dumps({"train": [GOOD | {"round": 2}, GOOD]}).encode(),
        json.dumps({"train": [GOOD | {"survivors": 7}]}).encode(),
        json.dumps({"train": [GOOD | {"survivors": [-1]}]}).encode(),
        json.dumps({"train": [GOOD | {"survivors": ["0"]}]}).encode(),
        json.dumps({"models": 7}).encode(),
        json.dumps({"models": {"other": []}}).encode(),
        json.dumps({"models": {"train": 7}}).encode(),
        json.dumps({"models": {"train": [7]}}).encode(),
        json.dumps({"models": {"train": ["AB" * 32]}}).encode(),
    ],
)
def test_a_damaged_file_is_refused_and_never_begun_anew(damage):
    disk = MemoryDisk({FILE: damage}, folders=("/state", FOLDER))
    with pytest.raises(FederationError, match="can't be read") as caught:
        freshness(disk)
    assert "another study" in caught.value.remedy
    assert disk.read(FILE) == damage
