"""A file is the old one or the new one whatever crashes, and the new one once it was written."""

import os
from pathlib import Path

import pytest

from common.io.atomic import write_bytes, write_json
from tests.disks import MemoryDisk

FILE = Path("/run/status.json")
OLD, NEW = b"old, and longer than the new one", b"new"


def disk_with(content: bytes | None, **more) -> MemoryDisk:
    return MemoryDisk({} if content is None else {FILE: content}, folders=(FILE.parent,), **more)


@pytest.mark.parametrize("old", [None, OLD])
def test_a_crash_at_any_moment_leaves_the_old_file_or_the_new_one(old: bytes | None) -> None:
    left, moments = set(), []

    def watch() -> None:
        moments.append(len(left))
        left.update(files.get(FILE) for files in disk.crashes())

    disk = disk_with(old, watch=watch)
    write_bytes(FILE, NEW, disk=disk)
    assert left == {old, NEW}
    assert len(moments) > 3


@pytest.mark.parametrize("old", [None, OLD])
@pytest.mark.parametrize("new", [NEW, b""])
def test_what_was_written_outlives_any_crash_after_it(old: bytes | None, new: bytes) -> None:
    disk = disk_with(old)
    write_bytes(FILE, new, disk=disk)
    assert list(disk.crashes()) == [{FILE: new}]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_a_disk_that_does_not_take_it_leaves_the_old_file_and_no_other(call: str) -> None:
    def fault(name: str, _path: Path) -> None:
        if name == call:
            raise OSError(28, "No space left on device")

    disk = disk_with(OLD, fault=fault)
    with pytest.raises(OSError, match="No space"):
        write_bytes(FILE, NEW, disk=disk)
    assert disk.killed() == {FILE: OLD}


def test_a_folder_that_can_not_be_flushed_is_an_error() -> None:
    def fault(name: str, _path: Path) -> None:
        if name == "fsync_folder":
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        write_bytes(FILE, NEW, disk=disk_with(OLD, fault=fault))


def test_two_writers_at_once_do_not_mix() -> None:
    def fault(name: str, _path: Path) -> None:
        if name == "rename" and not inner:
            inner.append(True)
            write_bytes(FILE, b"second", disk=disk)

    inner: list[bool] = []
    disk = disk_with(OLD, fault=fault)
    write_bytes(FILE, b"first, and longer", disk=disk)
    assert disk.killed() == {FILE: b"first, and longer"}


def test_on_a_real_disk_the_file_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_bytes(path, OLD)
    write_json(path, {"state": "running"})
    assert path.read_bytes() == b'{\n  "state": "running"\n}\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name]
