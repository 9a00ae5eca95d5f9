"""The ledger on a real disk: locks, faults, clocks, keys, countersignatures, recovery."""

import errno
import os
import stat
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from common.errors import BudgetError, StorageError
from common.io.disk import Disk
from common.io.ledger_folder import read_state
from common.io.ledger_recovery import recover
from common.privacy.ledger import Cap
from common.privacy.ledger_codec import countersign, encode_head
from common.privacy.ledger_entries import Head
from common.privacy.ledger_examine import verify_file
from common.privacy.ledger_recovery import Given
from common.privacy.ledger_spend import spent
from tests.disks import MemoryDisk
from tests.ledgers import (
    COORDINATOR,
    DELTA,
    INSTITUTION,
    NOON,
    STEPS,
    STRANGER,
    Clock,
    chance,
    charge,
    digest,
    open_ledger,
    refused,
    steps,
    toy_epsilon,
)

ROOT = Path(__file__).parents[2]
PATIENT = Cap(unit="patient", delta=DELTA, epsilon_lifetime=10.0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "ledger"


def fill(folder, rounds=3, **changes):
    """Reserves and commits `rounds`; the ledger is closed again. Its head."""
    with open_ledger(folder, **changes) as ledger:
        for number in range(1, rounds + 1):
            ledger.commit(ledger.reserve(charge(number)), digest("vector"))
        return ledger.head


def steps_in(folder, **changes):
    with open_ledger(folder, **changes) as ledger:
        return sum(e.steps for e in spent(ledger.state, unit="patient"))


def snapshot(folder):
    """Content of every file but the lock."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "ledger.lock"
    }


def recovered(folder, **changes):
    fields = {
        "reason": "a test", "caps": (PATIENT,), "assume": {}, "clock": Clock(),
        "epsilon": toy_epsilon,
    }  # fmt: skip
    return recover(folder, changes.pop("institution", INSTITUTION), **{**fields, **changes})


def test_what_was_acknowledged_is_there_at_the_next_start(folder):
    head = fill(folder)
    with open_ledger(folder) as ledger:
        assert ledger.head == head
        assert len(ledger.state.reserves) == 3
        assert verify_file((folder / "ledger.jsonl").read_bytes(), ledger.public_key).head == head


def test_an_entry_is_appended_and_what_stood_before_is_untouched(folder):
    fill(folder, 1)
    before = (folder / "ledger.jsonl").read_bytes()
    fill(folder, 2)
    assert (folder / "ledger.jsonl").read_bytes().startswith(before)


def test_only_its_owner_may_read_what_lies_in_the_folder(folder):
    fill(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"ledger.jsonl", "ledger.head", "signing.key"} <= set(modes)


def test_a_reserve_over_a_cap_writes_nothing(folder):
    with open_ledger(folder) as ledger:
        for number in range(1, 5):
            ledger.reserve(charge(number), (PATIENT,))
        before = snapshot(folder)
        assert "lifetime cap of 10" in refused(ledger.reserve, charge(5), (PATIENT,)).message
        assert snapshot(folder) == before
        ledger.reserve(charge(5))


def test_the_retry_of_a_request_is_found_by_its_charge(folder):
    with open_ledger(folder) as ledger:
        assert ledger.attempts(charge(1)) == ()
        first = ledger.reserve(charge(1))
        again = ledger.reserve(charge(1))
        assert [r.body.attempt for r in ledger.attempts(charge(1))] == [1, 2]
        assert (first.seq, again.seq) == (2, 3)
        done = ledger.commit(again, digest("vector"))
        assert ledger.attempts(charge(1)) == (first, done)


def test_a_commit_needs_an_open_reserve_of_this_ledger(folder, tmp_path):
    with open_ledger(folder) as ledger, open_ledger(tmp_path / "other") as other:
        reserved = ledger.reserve(charge(1))
        other.reserve(charge(1))
        with pytest.raises(BudgetError, match="another ledger"):
            other.commit(reserved, digest("vector"))
        ledger.commit(reserved, digest("vector"))
        refused(ledger.commit, reserved, digest("vector"))
        ledger.reserve(charge(2))


# two processes


def test_a_second_process_is_refused_and_told_which_one_has_the_ledger(folder):
    code = (
        "import sys; from pathlib import Path; from tests.ledgers import open_ledger\n"
        "with open_ledger(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "open\n"
        error = refused(open_ledger, folder)
        assert f"in use by process {other.pid}" in error.message
        refused(recovered, folder)
        assert read_state(folder, INSTITUTION)[0].state.seq == 1
        other.stdin.close()
        other.wait(30)
    open_ledger(folder).close()


def test_a_ledger_is_used_once_at_a_time_in_one_process_too(folder):
    with open_ledger(folder):
        assert f"process {os.getpid()}" in refused(open_ledger, folder).message


def test_a_closed_ledger_takes_nothing(folder):
    ledger = open_ledger(folder)
    ledger.close()
    ledger.close()
    for call in (lambda: ledger.reserve(charge(1)), lambda: ledger.anchor(None)):
        assert "closed" in refused(call).message


# faults of the disk


class Faulty(Disk):
    """The real disk, until one call fails with an errno; a write is cut in half first."""

    def __init__(self, number, code):
        self.calls, self.number, self.code = count(1), number, code
        self.failed = None

    def _may_fail(self, name):
        if next(self.calls) == self.number:
            self.failed = name
            raise OSError(self.code, os.strerror(self.code))

    def open(self, path, flags):
        self._may_fail("open")
        return super().open(path, flags)

    def write(self, descriptor, data, offset):
        try:
            self._may_fail("write")
        except OSError:
            super().write(descriptor, data[: len(data) // 2], offset)
            raise
        return super().write(descriptor, data, offset)

    def fsync(self, descriptor):
        self._may_fail("fsync")
        super().fsync(descriptor)

    def rename(self, source, target):
        self._may_fail("rename")
        super().rename(source, target)

    def fsync_folder(self, path):
        self._may_fail("fsync_folder")
        super().fsync_folder(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_fault_at_any_call_is_refused_and_nothing_acknowledged_is_lost(tmp_path, code):
    failed = set()
    for number in count(1):
        folder = tmp_path / str(number) / "ledger"
        disk, acknowledged, said = Faulty(number, code), [], None
        try:
            with open_ledger(folder, disk=disk) as ledger:
                for round_ in (1, 2):
                    acknowledged.append(ledger.reserve(charge(round_)).seq)
                    ledger.commit(ledger.state.reserves[acknowledged[-1]], digest("vector"))
        except BudgetError as error:
            said = error
        if disk.failed is None:
            break
        failed.add(disk.failed)
        assert said is not None
        assert os.strerror(code) in said.message
        assert said.place
        assert said.remedy
        with open_ledger(folder) as ledger:
            assert set(acknowledged) <= ledger.state.reserves.keys()
            ledger.reserve(charge(3))
    assert failed == {"open", "write", "fsync", "rename", "fsync_folder"}


@pytest.mark.parametrize("name", ["write", "fsync", "rename", "fsync_folder"])
def test_a_ledger_takes_nothing_while_the_disk_fails_and_goes_on_by_itself_after(folder, name):
    fill(folder, 1)
    disk = Faulty(0, errno.ENOSPC)
    whole, fails = disk._may_fail, lambda call: _raise(errno.ENOSPC) if call == name else None
    with open_ledger(folder, disk=disk) as ledger:
        head = ledger.head
        disk._may_fail = fails
        for call in (
            lambda: ledger.reserve(charge(2)),
            lambda: ledger.commit(ledger.state.reserves[2], digest("vector")),
            lambda: ledger.anchor(countersign(head, COORDINATOR, NOON)),
        ):
            error = refused(call)
            assert isinstance(error, StorageError)
            assert "No space left" in error.message
        disk._may_fail = whole
        reserved = ledger.reserve(charge(2))
        ledger.anchor(countersign(head, COORDINATOR, NOON))
        ledger.commit(reserved, digest("vector"))
    assert steps_in(folder) == 2 * STEPS


@pytest.mark.parametrize("restarted", [False, True])
def test_a_reserve_that_was_written_and_not_acknowledged_is_used_once_and_by_its_own_charge(
    folder, restarted
):
    """Nothing was computed for it. After a restart nobody knows that, and it is charged anew."""
    disk = Faulty(0, errno.ENOSPC)
    with open_ledger(folder, disk=disk) as ledger:
        disk._may_fail = lambda call: _raise(errno.ENOSPC) if call == "rename" else None
        refused(ledger.reserve, charge(1))
    if restarted:
        disk._may_fail = lambda _call: None
        with open_ledger(folder, disk=disk) as ledger:
            assert [ledger.reserve(charge(1)).seq for _ in range(2)] == [3, 4]
        return
    with open_ledger(folder, disk=(disk := Faulty(0, errno.ENOSPC))) as ledger:
        disk._may_fail = lambda call: _raise(errno.ENOSPC) if call == "rename" else None
        refused(ledger.reserve, charge(2))
        disk._may_fail = lambda _call: None
        for other in (charge(3), charge(2, events=[steps(1)]), charge(2, target=999.0)):
            assert ledger.reserve(other).seq > 3
        used = ledger.reserve(charge(2))
        assert (used.seq, used.body.attempt) == (3, 1)
        assert ledger.reserve(charge(2)).seq == 7


def test_a_ledger_that_lost_an_acknowledged_entry_during_a_fault_stays_refused(folder):
    """Never with less spend than was reserved: an older copy was put back meanwhile."""
    fill(folder, 1)
    old = snapshot(folder)
    disk = Faulty(0, errno.EIO)
    with open_ledger(folder, disk=disk) as ledger:
        ledger.reserve(charge(2))
        disk.number, disk.calls = 1, count(1)
        assert "Input/output" in refused(ledger.reserve, charge(3)).message
        for path, data in old.items():
            (folder / path).write_bytes(data)
        for _ in range(2):
            error = refused(ledger.reserve, charge(3))
            assert not isinstance(error, StorageError)
            assert "older copy" in error.message


def test_entries_of_another_process_that_appear_during_a_fault_are_not_taken_for_own(folder):
    """Validly signed: as where the mended disk was mounted anew, and its lock with it."""
    fill(folder, 1)
    before = snapshot(folder)
    fill_on = [charge(2), charge(3)]
    with open_ledger(folder) as other:
        for one in fill_on:
            other.reserve(one)
    theirs = snapshot(folder)
    for path, data in before.items():
        (folder / path).write_bytes(data)
    disk = Faulty(0, errno.EIO)
    with open_ledger(folder, disk=disk) as ledger:
        disk.number, disk.calls = 1, count(1)
        assert "Input/output" in refused(ledger.reserve, charge(9)).message
        for path, data in theirs.items():
            (folder / path).write_bytes(data)
        for said in ("did not write", "has failed before"):
            assert said in refused(ledger.reserve, charge(9)).message


def test_an_end_that_a_fault_left_unfinished_is_moved_aside_without_a_restart(folder):
    disk = Faulty(0, errno.ENOSPC)
    with open_ledger(folder, disk=disk) as ledger:
        ledger.reserve(charge(1))
        disk.number, disk.calls = 2, count(1)  # the write of the entry, by half
        refused(ledger.reserve, charge(2))
        assert disk.failed == "write"
        ledger.reserve(charge(2))
        assert (folder / "ledger.torn-1").exists()
    assert (folder / "ledger.jsonl").read_text().count('"kind":"note"') == 1
    assert steps_in(folder) == 2 * STEPS


def test_a_commit_that_was_on_disk_all_the_same_is_not_asked_for_again(folder):
    disk = Faulty(0, errno.ENOSPC)
    with open_ledger(folder, disk=disk) as ledger:
        reserved = ledger.reserve(charge(1))
        disk._may_fail = lambda call: _raise(errno.ENOSPC) if call == "rename" else None
        refused(ledger.commit, reserved, digest("vector"))
        disk._may_fail = lambda _call: None
        (found,) = ledger.attempts(charge(1))
        assert found.vector == digest("vector")


def test_a_disk_that_is_full_at_the_start_too_leaves_everything_as_it_is(folder):
    fill(folder, 2)
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"body":{"att')
    before = snapshot(folder)
    disk = Faulty(0, errno.ENOSPC)
    disk._may_fail = lambda name: _raise(errno.ENOSPC) if name == "write" else None
    assert "No space left" in refused(open_ledger, folder, disk=disk).message
    left = {path: data for path, data in snapshot(folder).items() if data}
    assert left == before
    assert steps_in(folder) == 2 * STEPS


def test_a_read_only_disk_is_refused_and_can_still_be_read(folder):
    fill(folder, 2)
    before = snapshot(folder)
    disk = Faulty(0, errno.EROFS)
    disk._may_fail = lambda _name: _raise(errno.EROFS)
    error = refused(open_ledger, folder, disk=disk)
    assert "Read-only" in error.message
    assert "mount" in error.remedy
    assert snapshot(folder) == before
    assert len(read_state(folder, INSTITUTION, disk)[0].state.reserves) == 2


def _raise(code):
    raise OSError(code, os.strerror(code))


def test_a_file_that_grew_or_shrank_while_it_was_open_is_noticed(folder):
    for change in (lambda data: data + b"x", lambda data: data[:-1]):
        fill(folder, 1)
        whole = (folder / "ledger.jsonl").read_bytes()
        with open_ledger(folder) as ledger:
            (folder / "ledger.jsonl").write_bytes(change(whole))
            assert "someone else" in refused(ledger.reserve, charge(9)).message
        (folder / "ledger.jsonl").write_bytes(whole)


# an unfinished end


def test_an_unfinished_end_is_moved_aside_and_noted(folder):
    fill(folder, 2)
    for number, torn in enumerate((b'{"body":', bytes(100), b"\n"), 1):
        with (folder / "ledger.jsonl").open("ab") as file:
            file.write(torn)
        with open_ledger(folder) as ledger:
            assert len(ledger.state.notes) == number
            assert ledger.state.notes[-1].file == f"ledger.torn-{number}"
        assert (folder / f"ledger.torn-{number}").read_bytes() == torn
    assert steps_in(folder) == 2 * STEPS


def test_reading_needs_no_lock_and_repairs_nothing(folder):
    with open_ledger(folder) as ledger:
        ledger.reserve(charge(1))
        with (folder / "ledger.jsonl").open("ab") as file:
            file.write(b"{")
        before = snapshot(folder)
        found, lines = read_state(folder, INSTITUTION)
        assert (found.state, found.torn) == (ledger.state, b"{")
        assert lines + b"{" == (folder / "ledger.jsonl").read_bytes()
        assert snapshot(folder) == before


# what no crash leaves behind


def test_a_restored_old_copy_is_refused_by_what_the_counterpart_knows(folder):
    fill(folder, 1)
    old = snapshot(folder)
    head = fill(folder, 2)
    for path, data in old.items():
        (folder / path).write_bytes(data)
    error = refused(open_ledger, folder, known_head=head)
    assert str(folder / "ledger.jsonl") in error.place
    assert "older copy" in error.message


def test_a_restored_old_copy_is_found_by_the_next_receipt_and_takes_nothing_more(folder):
    fill(folder, 1)
    old = snapshot(folder)
    receipt = countersign(fill(folder, 2), COORDINATOR, NOON)
    for path, data in old.items():
        (folder / path).write_bytes(data)
    with open_ledger(folder) as ledger:
        assert "older copy" in refused(ledger.anchor, receipt).message
        assert "failed before" in refused(ledger.reserve, charge(3)).message


def test_a_deleted_ledger_is_not_begun_anew(folder):
    head = fill(folder)
    (folder / "ledger.jsonl").unlink()
    assert "missing" in refused(open_ledger, folder).message
    (folder / "ledger.head").unlink()
    refused(open_ledger, folder, known_head=head)
    (folder / "vault").mkdir()
    (folder / "vault" / f"{head.ledger}-2.sealed").write_bytes(b"")
    assert "earlier" in refused(open_ledger, folder).message
    assert not (folder / "ledger.jsonl").exists()


def test_the_ledger_of_another_institution_is_refused(folder):
    fill(folder)
    assert INSTITUTION in refused(open_ledger, folder, institution="north-clinic").message
    refused(open_ledger, folder, signer=STRANGER)


# the key


def test_a_missing_key_is_not_made_anew_beside_a_ledger(folder):
    fill(folder)
    key = (folder / "signing.key").read_bytes()
    (folder / "signing.key").unlink()
    assert "missing" in refused(open_ledger, folder).message
    (folder / "signing.key").write_bytes(b"00" * 31 + b"\n")
    (folder / "signing.key").chmod(0o600)
    assert "not a key" in refused(open_ledger, folder).message
    (folder / "signing.key").write_bytes(key)
    (folder / "signing.key").chmod(0o640)
    assert "chmod 600" in refused(open_ledger, folder).remedy
    (folder / "signing.key").chmod(0o600)
    open_ledger(folder).close()


def test_no_key_prints(folder):
    with open_ledger(folder) as ledger:
        secret = (folder / "signing.key").read_text().strip()
        shown = f"{ledger!r} {vars(ledger)!r} {ledger._means.signer!r}"
        assert secret not in shown
        assert ledger.public_key in shown


# the clock


def test_a_clock_set_back_is_refused_and_a_little_behind_counts_as_the_last_time(folder):
    clock = Clock()
    with open_ledger(folder, clock=clock) as ledger:
        ledger.reserve(charge(1))
        clock.now = NOON - 60
        ledger.reserve(charge(2))
        assert ledger.state.time == NOON
        clock.now = NOON - 61
        before = snapshot(folder)
        error = refused(ledger.reserve, charge(3))
        assert "61 s before" in error.message
        assert "set the clock right" in error.remedy
        assert snapshot(folder) == before
        clock.now = NOON + 5
        ledger.reserve(charge(3))
        assert ledger.state.time == NOON + 5


def test_a_clock_set_back_moves_nothing_aside(folder):
    fill(folder, 1)
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b"{")
    before = snapshot(folder)
    refused(open_ledger, folder, clock=Clock(NOON - 1000))
    assert snapshot(folder) == before
    assert steps_in(folder, clock=Clock(NOON + 1)) == STEPS


# countersignatures


def test_a_receipt_is_recorded_once_and_an_older_one_is_only_checked(folder):
    with open_ledger(folder) as ledger:
        first = ledger.head
        ledger.reserve(charge(1))
        second = ledger.head
        ledger.anchor(countersign(second, COORDINATOR, NOON))
        size = ledger.state.seq
        ledger.anchor(countersign(second, COORDINATOR, NOON))
        ledger.anchor(countersign(first, COORDINATOR, NOON))
        assert ledger.state.seq == size
        assert ledger.state.anchored.head == second


def test_another_key_than_the_first_is_refused_unless_it_is_pinned(folder):
    with open_ledger(folder) as ledger:
        ledger.anchor(countersign(ledger.head, COORDINATOR, NOON))
        before = ledger.head
        refused(ledger.anchor, countersign(before, STRANGER, NOON))
        assert ledger.head == before
        ledger.reserve(charge(1))
    with open_ledger(folder, counterpart=STRANGER.public_key) as ledger:
        refused(ledger.anchor, countersign(ledger.head, COORDINATOR, NOON))
        ledger.anchor(countersign(ledger.head, STRANGER, NOON))
    with open_ledger(folder) as ledger:
        assert ledger.state.counterpart == STRANGER.public_key


# recovery


def damage(folder):
    path = folder / "ledger.jsonl"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_ledger_is_recovered_and_everything_old_is_kept(folder):
    fill(folder)
    damage(folder)
    before = snapshot(folder)
    refused(open_ledger, folder)
    state = recovered(folder)
    after = snapshot(folder)
    kept = dict(text.split(": ") for text in state.recovered.kept)
    assert {after[Path(new)] for new in kept} == {
        before[Path("ledger.jsonl")], before[Path("ledger.head")]
    }  # fmt: skip
    with open_ledger(folder) as ledger:
        assert ledger.state == state
        refused(ledger.reserve, charge(9, "lung"), (PATIENT,))
        raised = Cap(unit="patient", delta=2 * DELTA, epsilon_lifetime=20.0)
        ledger.reserve(charge(9, "lung"), (raised,))


def test_an_intact_ledger_is_not_recovered_unless_the_counterpart_knows_more(folder):
    fill(folder, 1)
    old = snapshot(folder)
    head = fill(folder, 2)
    refused(recovered, folder)
    refused(recovered, folder, heads=(head,))
    for path, data in old.items():
        (folder / path).write_bytes(data)
    assert "intact" in refused(recovered, folder).message
    state = recovered(folder, heads=(head,))
    assert head in state.recovered.heads
    with open_ledger(folder, known_head=head) as ledger:
        ledger.anchor(countersign(head, COORDINATOR, NOON))  # an old one: no longer of interest
        assert ledger.state.anchored is None


@pytest.mark.parametrize("lost", ["ledger.jsonl", "ledger.head", "signing.key"])
def test_whatever_is_missing_can_be_recovered_from(folder, lost):
    fill(folder)
    (folder / lost).unlink()
    refused(open_ledger, folder)
    readable = lost != "ledger.jsonl"
    state = recovered(folder)
    assert spent(state, unit="patient") == (() if not readable else spent_of(3))
    open_ledger(folder).close()


def spent_of(rounds):
    return (steps(rounds * STEPS),)


def test_a_damaged_key_is_kept_and_replaced(folder):
    fill(folder)
    (folder / "signing.key").write_bytes(b"nothing\n")
    state = recovered(folder)
    assert any(text.endswith("signing.key") for text in state.recovered.kept)
    open_ledger(folder).close()


@pytest.mark.parametrize("head", [b"damaged", None])
def test_an_interrupted_recovery_never_leaves_an_empty_ledger(head):
    files = Path("/state/ledger")
    whole = MemoryDisk()
    fill(files, disk=whole, random=chance())
    start = {**whole.killed(), files / "ledger.head": head}
    start = {path: data for path, data in start.items() if data is not None}
    images = {}
    disk = MemoryDisk(start, folders=["/state", files])
    disk.watch = lambda: images.update((tuple(sorted(i.items())), i) for i in disk.crashes())
    recovered(files, disk=disk)
    assert len(images) > 20
    for image in images.values():
        again = MemoryDisk(image, folders=["/state", files])
        try:
            open_ledger(files, disk=again, random=chance()).close()
        except BudgetError:
            recovered(files, disk=again)
        with open_ledger(files, disk=again, random=chance()) as ledger:
            assert spent(ledger.state, unit="patient") == spent_of(3)
            refused(ledger.reserve, charge(9, "lung"), (PATIENT,))


def put_back(folder, **names):
    """Copies of kept files, where they had been."""
    for name, kept in names.items():
        (folder / f"ledger.{name}").write_bytes((folder / kept).read_bytes())


def test_a_ledger_that_a_recovery_put_aside_is_refused_though_another_recovery_came_before(folder):
    fill(folder)
    damage(folder)
    recovered(folder)
    caps = (replace(PATIENT, epsilon_lifetime=1e6, delta=4 * DELTA),)
    with open_ledger(folder) as ledger:
        ledger.reserve(charge(1, "lung", target=1e9), caps)
    recovered(folder, old_copy=True)
    put_back(folder, jsonl="ledger.lost-3", head="ledger.lost-4")
    error = refused(open_ledger, folder)
    assert "put this ledger aside" in error.message
    assert "ledger.lost-3" in error.place
    before = spent_of(1)
    recovered(folder, old_copy=True)  # what was put aside is read again, and nothing forgotten
    with open_ledger(folder) as ledger:
        assert ledger.state.recovered.assumed[0].epsilon >= toy_epsilon(before, 1e-5)
        assert "lung" in {carried.name for carried in ledger.state.recovered.carried}


@pytest.mark.parametrize("seen", [bytes(50), None])
def test_a_recovery_deals_with_what_a_receipt_has_shown(folder, seen):
    """A mark that is damaged, or of a ledger that nobody has any more."""
    fill(folder)
    lost = Head(ledger="7" * 32, seq=9, hash="8" * 64)
    (folder / "ledger.seen").write_bytes(encode_head(lost) if seen is None else seen)
    refused(open_ledger, folder)
    state = recovered(folder)
    assert (lost in state.recovered.heads) == (seen is None)
    assert not (folder / "ledger.seen").exists()
    open_ledger(folder).close()


def test_the_word_of_a_key_that_nobody_vouches_for_locks_no_ledger(folder):
    fill(folder)
    for vouched in (False, True):
        with open_ledger(folder) as ledger:
            far = replace(ledger.head, seq=1000, hash="1" * 64)
            refused(partial(ledger.anchor, vouched=vouched), countersign(far, STRANGER, 5))
            refused(ledger.reserve, charge(9), (PATIENT,))
        assert (folder / "ledger.seen").exists() == vouched
    refused(open_ledger, folder)


def test_a_recovery_without_caps_asks_what_to_assume(folder):
    fill(folder)
    damage(folder)
    before = snapshot(folder)
    assert "--assume patient=EPSILON" in refused(recovered, folder, caps=()).remedy
    assert snapshot(folder) == before
    state = recovered(folder, caps=(), assume={"patient": Given(epsilon=99.0)})
    assert state.recovered.assumed[0].epsilon == 99.0


def test_the_ledger_of_another_institution_is_not_recovered_intact_or_damaged(folder):
    fill(folder)
    for broken in (False, True):
        if broken:
            damage(folder)
        before = snapshot(folder)
        for options in ({}, {"old_copy": True}):
            error = refused(recovered, folder, institution="north-clinic", **options)
            assert "is the ledger of cardiac-centre, expected that of north-clinic" in error.message
        assert snapshot(folder) == before


def test_with_the_key_lost_the_ledger_of_an_earlier_name_counts(folder):
    fill(folder, 8)
    (folder / "signing.key").unlink()
    state = recovered(folder, institution="cardiac-center")
    assert state.recovered.assumed[0].epsilon == 20.0
    assert digest("heart") in state.recovered.closed


def test_an_old_copy_is_recovered_on_top_of_if_the_operator_says_so(folder):
    head = fill(folder, 8)
    assert "--old-copy" in refused(recovered, folder).remedy
    state = recovered(folder, old_copy=True)
    assert state.recovered.heads == (head,)
    assert state.recovered.assumed[0].epsilon == 20.0
    with open_ledger(folder, known_head=head) as ledger:
        assert "study ran before" in refused(ledger.reserve, charge(9), (PATIENT,)).message


def test_a_clock_that_ran_years_ahead_is_got_over_by_that_too(folder):
    clock = Clock(NOON + 10 * 365 * 86400)
    fill(folder, 1, clock=clock)
    clock.now = NOON
    with open_ledger(folder, clock=clock) as ledger:
        refused(ledger.reserve, charge(2))
    assert "clock" in refused(recovered, folder, clock=clock).remedy
    recovered(folder, clock=clock, old_copy=True)
    raised = Cap(unit="patient", delta=2 * DELTA, epsilon_lifetime=20.0)
    with open_ledger(folder, clock=clock) as ledger:
        ledger.reserve(charge(1, "lung"), (raised,))


def test_only_a_recovery_signed_with_the_own_key_stands_for_the_ledgers_before_it(folder):
    fill(folder, 8)
    damage(folder)
    recovered(folder)
    kept = (folder / "ledger.jsonl").read_bytes()
    stranger = folder.parent / "other"
    open_ledger(stranger).close()
    (stranger / "ledger.jsonl").unlink()
    recovered(stranger, caps=(), assume={"patient": Given(epsilon=0.5, delta=DELTA)})
    forged = (stranger / "ledger.jsonl").read_bytes()
    for present in (kept.replace(b'"reason"', b'"reasom"'), forged):
        (folder / "ledger.jsonl").write_bytes(present)
        low = Cap(unit="patient", delta=DELTA, epsilon_lifetime=1.0)
        assert recovered(folder, caps=(low,)).recovered.assumed[0].epsilon >= 17.5
        (folder / "ledger.jsonl").write_bytes(kept)
