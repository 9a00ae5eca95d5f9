"""Blocks of the disk, taken for a vector before it is charged.

    vault/.room.sealed.new     as long as the sealed vector and the ledger's entries of it

Guarantees:
    - Within `held` the disk has blocks for the vector and for the ledger's entries of it: a disk
      that others fill costs no vector that was charged. Taking them charges nothing.
    - After a crash during `store` there is all of the file, or nothing under its name.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from common.errors import StorageError
from common.io.disk import UNFINISHED, Disk, os_errors, replace_file, write_all
from common.privacy.ledger_traces import SEALED

ENTRIES_BYTES: Final = 1 << 16
"""More than the ledger and its head take for one vector, before it or after it."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROOM: Final = f".room{SEALED}{UNFINISHED}"


class VaultRoom:
    """Room in the vault's folder, for one vector at a time."""

    def __init__(self, folder: Path, disk: Disk):
        self._folder, self._path, self._disk = folder, folder / _ROOM, disk

    @contextmanager
    def held(self, size: int, sealing: int) -> Iterator[None]:
        """Within this there are blocks for a vector of `size` bytes and `sealing` more.

        Raises:
            StorageError: there is no room, or the disk fails; none is taken.
        """
        try:
            with os_errors(self._folder):
                self._take_or_say(size, sealing)
            yield
        finally:
            with suppress(OSError):
                self._disk.remove(self._path)

    def store(self, path: Path, *parts: bytes) -> None:
        """In the room that was taken, or else, or where the disk does not write in place, anew."""
        if not self._disk.exists(self._path):
            return replace_file(self._disk, path, *parts)
        try:
            self._fill(parts)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._disk.remove(self._path)
            return replace_file(self._disk, path, *parts)
        self._disk.rename(self._path, path)
        return self._disk.fsync_folder(self._folder)

    def _take_or_say(self, size: int, sealing: int) -> None:
        try:
            self._take(size + sealing + ENTRIES_BYTES)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StorageError(
                f"no room for a vector of {size} bytes and its entries in the ledger: "
                f"{error.strerror}",
                place=str(self._folder),
                remedy="free some space; nothing was charged, and the next request tries again",
            ) from None

    def _take(self, size: int) -> None:
        """Blocks for `size` bytes, when there are `ENTRIES_BYTES` more."""
        descriptor = self._disk.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.allocate(descriptor, size + ENTRIES_BYTES)
            self._disk.truncate(descriptor, size)
            self._disk.fsync(descriptor)
        finally:
            self._disk.close(descriptor)

    def _fill(self, parts: tuple[bytes, ...]) -> None:
        descriptor, size = self._disk.open(self._path, os.O_WRONLY), 0
        try:
            for part in parts:
                write_all(self._disk, descriptor, part, size)
                size += len(part)
            self._disk.truncate(descriptor, size)
            self._disk.fsync(descriptor)
        finally:
            self._disk.close(descriptor)
