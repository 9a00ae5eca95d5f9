"""The audit log on disk: every crash, a full disk, one writer, and what `open` refuses."""

import errno
import os
import stat
from itertools import count
from pathlib import Path

import pytest

from common.audit.entries import Start, Torn
from common.audit.errors import AuditError
from common.audit.examine import MAX_UNFINISHED, examine
from common.io.audit_file import _disk_errors
from tests.audits import SITE, STUDY, open_log, progress, reply, request
from tests.disks import MemoryDisk
from tests.ledgers import NOON, SIGNER, STRANGER, Clock

FOLDER = Path("/state")
LOG = FOLDER / "audit.jsonl"


def refused(call, *arguments, **keywords):
    with pytest.raises(AuditError) as caught:
        call(*arguments, **keywords)
    assert caught.value.remedy
    return caught.value


def work(disk, acknowledged, rounds=6):
    """Opens, writes, and says what was acknowledged by then."""
    log = open_log(FOLDER, disk=disk)
    acknowledged.append(log.head)
    for n in range(1, rounds + 1):
        log.append(request(n))
        acknowledged.append(log.head)
        log.append(reply(n), request(n + 100), request(n + 200))
        acknowledged.append(log.head)
    log.close()


def images_of(disk, run):
    """Every disk that a crash during `run` may leave, with the head acknowledged by then."""
    heads, found = [], {}

    def watch():
        head = heads[-1] if heads else None
        for files in disk.crashes():
            found[tuple(sorted(files.items())), head] = files

    disk.watch = watch
    run(disk, heads)
    disk.watch = lambda: None
    return [(files, head) for (_, head), files in found.items()]


def check_start(files, head):
    """The next start works, and nothing acknowledged is missing."""
    disk = MemoryDisk(files, folders=[FOLDER])
    open_log(FOLDER, disk=disk).close()
    found = examine(disk.read(LOG), keys=[SIGNER.public_key], heads=[head] if head else [])
    assert found.faults == ()
    return disk, found


def check_all(images):
    return [check_start(files, head)[1] for files, head in images]


def test_every_crash_prefix_leaves_a_log_that_starts_and_holds_what_was_acknowledged():
    disk = MemoryDisk(folders=[FOLDER])
    images = images_of(disk, work)
    assert len(images) > 150
    found = check_all(images)
    assert sum(any(isinstance(e.body, Torn) for e in one.entries) for one in found) > 50


def test_what_a_crash_left_unfinished_is_kept_byte_for_byte_and_named_in_the_log():
    whole = MemoryDisk(folders=[FOLDER])
    work(whole, [])
    data = whole.read(LOG)
    start_of_last = data.rstrip(b"\n").rfind(b"\n") + 1
    for size in range(start_of_last + 1, len(data), 13):
        disk, found = check_start({LOG: data[:size]}, None)
        assert disk.read(FOLDER / "audit.torn-1") == data[start_of_last:size]
        assert disk.read(LOG).startswith(data[:start_of_last])
        (named,) = [e.body for e in found.entries if isinstance(e.body, Torn)]
        assert (named.file, named.bytes) == ("audit.torn-1", size - start_of_last)


def test_a_crash_during_the_mending_after_a_crash_loses_nothing_either():
    first = MemoryDisk(folders=[FOLDER])
    again = {}
    for files, head in images_of(first, lambda disk, heads: work(disk, heads, rounds=1)):
        second = MemoryDisk(files, folders=[FOLDER])

        def watch(second=second, head=head):
            again.update(((tuple(sorted(f.items())), head), f) for f in second.crashes())

        second.watch = watch
        open_log(FOLDER, disk=second).close()
    assert len(again) > 100
    for (_, head), files in again.items():
        check_start(files, head)


class Forgetful(MemoryDisk):
    """Says that everything is on disk, and does not flush the log or its folder."""

    def __init__(self, what):
        super().__init__(folders=[FOLDER])
        self.what = what

    def fsync(self, descriptor):
        if self.what != "file":
            super().fsync(descriptor)

    def fsync_folder(self, path):
        if self.what != "folder":
            super().fsync_folder(path)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_the_crash_tests_find_whatever_is_not_flushed(what):
    images = images_of(Forgetful(what), lambda disk, heads: work(disk, heads, rounds=1))
    with pytest.raises((AssertionError, AuditError)):
        check_all(images)


def failing(name, number, code=errno.ENOSPC):
    """Raises at the `number`th call of one kind on the log, once."""
    numbers = count(1)

    def fault(called, path):
        if called == name and path == LOG and next(numbers) == number:
            raise OSError(code, os.strerror(code))

    return fault


@pytest.mark.parametrize("name", ["open", "write", "fsync"])
@pytest.mark.parametrize("number", range(2, 8))
def test_a_disk_that_fails_once_costs_that_append_alone(name, number):
    disk = MemoryDisk(folders=[FOLDER], fault=failing(name, number))
    log, written, errors = open_log(FOLDER, disk=disk), [], []
    for n in range(1, 8):
        try:
            log.append(request(n), reply(n))
            written += [request(n), reply(n)]
        except AuditError as error:
            errors.append(f"{error}")
    assert len(written) == 12
    assert "No space left" in errors[0]
    assert "free some space" in errors[0]
    for files in ({LOG: disk.read(LOG)}, *disk.crashes()):
        found = examine(files[LOG], keys=[SIGNER.public_key], heads=[log.head])
        assert found.faults == ()
        assert [e.body for e in found.entries][2:] == written


def test_a_failed_append_leaves_nothing_that_a_next_process_takes_for_written():
    disk = MemoryDisk(folders=[FOLDER])
    log = open_log(FOLDER, disk=disk)
    before = disk.read(LOG)
    disk.fault = failing("fsync", 1)
    refused(log.append, request())
    assert disk.killed()[LOG] == before


def test_a_disk_that_stays_full_refuses_until_there_is_room_again():
    disk = MemoryDisk(folders=[FOLDER])
    log = open_log(FOLDER, disk=disk)

    def full(called, path):
        if called == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.fault = full
    for _ in range(3):
        refused(log.append, request())
    disk.fault = lambda *_: None
    log.append(request())
    assert examine(disk.read(LOG), heads=[log.head]).faults == ()


def test_no_more_is_written_at_once_than_a_start_takes_for_unfinished():
    sizes = []

    class Watching(MemoryDisk):
        def write(self, descriptor, data, offset):
            sizes.append(len(data))
            return super().write(descriptor, data, offset)

    disk = Watching(folders=[FOLDER])
    names = tuple(f"{'n' * 50}{n}" for n in range(1000))
    open_log(FOLDER, disk=disk).append(*[progress(institutions=names)] * 40)
    assert max(sizes) <= MAX_UNFINISHED < sum(sizes)
    assert examine(disk.read(LOG)).faults == ()


def test_only_the_owner_may_read_the_log(tmp_path):
    before = os.umask(0)
    try:
        open_log(tmp_path).close()
    finally:
        os.umask(before)
    path = tmp_path / "audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    assert "640" in refused(open_log, tmp_path).message


def test_one_process_at_a_time_writes(tmp_path):
    log = open_log(tmp_path)
    assert str(os.getpid()) in refused(open_log, tmp_path).message
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.append(request())
    open_log(tmp_path).close()


def test_a_refused_open_gives_the_lock_back(tmp_path):
    open_log(tmp_path).close()
    refused(open_log, tmp_path, name="south-clinic")
    open_log(tmp_path).close()


def test_a_log_that_was_changed_is_not_written_to(tmp_path):
    with_entries(tmp_path)
    path = tmp_path / "audit.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"round":1', b'"round":2', 1))
    changed = path.read_bytes()
    error = refused(open_log, tmp_path)
    assert "line 3" in error.message
    assert "fedner log verify" in error.remedy
    assert path.read_bytes() == changed
    path.rename(tmp_path / "audit.jsonl.old")
    open_log(tmp_path).close()


def test_someone_who_writes_in_between_is_noticed(tmp_path):
    log = open_log(tmp_path)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"x")
    assert "someone else" in refused(log.append, request()).message
    (tmp_path / "audit.jsonl").write_bytes(b"")
    assert "someone else" in refused(log.append, request()).message
    (tmp_path / "audit.jsonl").unlink()
    assert "someone else" in refused(log.append, request()).message


def test_another_sides_log_is_not_gone_on_with(tmp_path):
    open_log(tmp_path).close()
    assert SITE in refused(open_log, tmp_path, name="south-clinic").message
    refused(open_log, tmp_path, side="coordinator")


def test_each_process_says_who_it_is_and_which_key_signs(tmp_path):
    open_log(tmp_path).close()
    open_log(tmp_path, signer=STRANGER, clock=Clock(NOON + 60)).close()
    open_log(tmp_path, signer=None).close()
    found = examine((tmp_path / "audit.jsonl").read_bytes())
    assert found.faults == ()
    starts = [e.body for e in found.entries if isinstance(e.body, Start)]
    keys = [SIGNER.public_key, STRANGER.public_key, None]
    assert [s.public_key for s in starts] == keys
    assert {(s.pid, s.uid, s.study) for s in starts} == {(os.getpid(), os.getuid(), STUDY)}
    assert found.entries[-1].body.choice == "unsigned-log"
    assert found.entries[-1].signature == ""


def with_entries(folder):
    log = open_log(folder)
    for n in range(1, 4):
        log.append(request(n), reply(n))
    log.close()


def test_missing_rights_are_no_disk_that_may_have_room_later(tmp_path):
    """One `sudo fedner` leaves such a file: starting again and again would not mend it."""
    for error, code in ((PermissionError(13, "no"), 11), (OSError(28, "full"), 13)):
        with pytest.raises(AuditError) as caught, _disk_errors(tmp_path):
            raise error
        assert (caught.value.exit_code, bool(caught.value.remedy)) == (code, True)
