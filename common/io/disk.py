"""The few calls through which ledger and vault touch the disk: tests put another disk here.

A disk's methods raise OSError. Nothing is tried twice: after a failed fsync the kernel may have
dropped what it could not write, and a second fsync would say that all is well (Rebello et al. 2020,
Can Applications Recover from fsync Failures?).
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from common.errors import StorageError

UNFINISHED: Final = ".new"
_AGAIN: Final = "a worker that runs tries again by itself, anything else is to be started again"
_REMEDIES: Final = {
    errno.ENOSPC: f"free some space; {_AGAIN}; what was acknowledged is on disk",
    errno.EDQUOT: f"free some space; {_AGAIN}; what was acknowledged is on disk",
    errno.EROFS: f"mount the disk for writing; {_AGAIN}",
    errno.EACCES: f"give the worker's user the folder, with mode 0700; {_AGAIN}",
    errno.EIO: f"check the disk before anything else; {_AGAIN}",
}


class Disk:
    """The real one. Files are made with mode 0600, folders with 0700."""

    def read(self, path: Path) -> bytes | None:
        """The whole file; `None` if there is none."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def names(self, folder: Path) -> list[str]:
        """Names in a folder, in order; none if there is no folder."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def mode(self, path: Path) -> int:
        """Permission bits."""
        return path.stat().st_mode & 0o777

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of `data` at `offset`; how many bytes it were."""
        return os.pwrite(descriptor, data, offset)

    def allocate(self, descriptor: int, size: int) -> None:
        """Take blocks of the disk for the file's first `size` bytes, at least 1."""
        os.posix_fallocate(descriptor, 0, size)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def fsync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> int | None:
        """Exclusive lock on a file, until the descriptor is closed; `None` if another has it."""
        descriptor = self.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = f"{os.getpid()}\n".encode()
            os.ftruncate(descriptor, os.pwrite(descriptor, said, 0))  # a full disk has its block
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


DISK: Final = Disk()


@contextmanager
def os_errors(place: Path) -> Iterator[None]:
    """Errors of the operating system as `StorageError`."""
    try:
        yield
    except OSError as error:
        said = error.strerror or type(error).__name__
        remedy = _REMEDIES.get(error.errno or 0, f"mend it; {_AGAIN}")
        raise StorageError(said, place=str(place), remedy=remedy) from None


def write_all(disk: Disk, descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view, written = memoryview(data), 0
    while written < len(data):
        written += disk.write(descriptor, view[written:], offset + written)


def write_at(disk: Disk, path: Path, data: bytes, offset: int, *, create: bool = False) -> None:
    """Write at `offset` of a file of at least that size, and flush it to disk."""
    descriptor = disk.open(path, os.O_WRONLY | (os.O_CREAT if create else 0))
    try:
        write_all(disk, descriptor, data, offset)
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def cut(disk: Disk, path: Path, size: int) -> None:
    """Cut a file to its first `size` bytes, on disk."""
    descriptor = disk.open(path, os.O_WRONLY)
    try:
        disk.truncate(descriptor, size)
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def replace_file(disk: Disk, path: Path, *parts: bytes | memoryview) -> None:
    """The file with this content, or as it was; on disk when this returns."""
    beside = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        _write_new(disk, beside, parts)
        disk.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            disk.remove(beside)
        raise
    disk.fsync_folder(path.parent)


def make_folder(disk: Disk, path: Path) -> None:
    """A folder whose name is on disk; its parent must be there."""
    disk.make_folder(path)
    disk.fsync_folder(path.parent)


def _write_new(disk: Disk, path: Path, parts: tuple[bytes | memoryview, ...]) -> None:
    descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        offset = 0
        for part in parts:
            write_all(disk, descriptor, part, offset)
            offset += len(part)
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process has a lock; whoever wants it in this very moment tries again."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
