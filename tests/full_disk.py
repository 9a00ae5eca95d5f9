"""A folder whose disk is full when a test says so; other folders are not touched."""

import errno
import os
from pathlib import Path

import pytest

from common.io.disk import Disk


class FullDisk:
    """Args:
    folder: its own files alone count, not those in folders below.

    Attributes:
        capacity: bytes that its files may have together; `None` for any number.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.capacity = folder, None
        write, allocate = Disk.write, Disk.allocate

        def limited(disk, descriptor, data, offset):
            self.take(descriptor, offset + len(data))
            return write(disk, descriptor, data, offset)

        def allocated(disk, descriptor, size):
            self.take(descriptor, size)
            allocate(disk, descriptor, size)

        monkeypatch.setattr(Disk, "write", limited)
        monkeypatch.setattr(Disk, "allocate", allocated)

    def take(self, descriptor: int, end: int) -> None:
        """Refuse, if the file would grow to `end` bytes and there is no room for them."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.parent == self.folder and self.capacity is not None:
            grown = max(0, end - path.stat().st_size)
            if grown and self.used() + grown > self.capacity:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def fill(self) -> None:
        """Not one byte more from now on."""
        self.capacity = self.used()

    def clear(self) -> None:
        self.capacity = None
