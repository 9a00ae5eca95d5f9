"""Room on the disk that is kept for what has to be written once vectors have come.

A file of random bytes, which no file system makes smaller. It is made before institutions are asked
for vectors, and given up when a write that must not fail finds the disk full.

Guarantees:
    * When `hold` returns, so many bytes of the disk are taken; where it raises, none are.
    * `release` needs no room, and says whether there was something to give up.
    * It helps against a full disk only: not against one that is broken, nor against another process
      that takes what was given up before the next write does.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.audit.errors import AuditError
from common.io.disk import DISK, replace_file

RESERVE: Final = "audit.reserve"


class Reserve:
    """Room in one folder.

    Args:
        size: bytes.
        random: bytes that can't be made fewer.
    """

    def __init__(self, folder: Path, size: int, random: Callable[[int], bytes] = os.urandom):
        self._path, self._size, self._random = folder / RESERVE, size, random

    def hold(self) -> None:
        """Take the room, unless it is taken.

        Raises:
            AuditError: the disk does not have it.
        """
        try:
            if not DISK.exists(self._path) or DISK.size(self._path) != self._size:
                replace_file(DISK, self._path, self._random(self._size))
        except OSError as error:
            raise AuditError(
                f"no room for the log of a sum, {self._size} bytes: "
                f"{error.strerror or type(error).__name__}",
                place=str(self._path),
                remedy="free some space, then `fedner server --resume`: nobody was asked for a "
                "vector yet",
            ) from None

    def release(self) -> bool:
        """Give the room up; whether there was any."""
        try:
            DISK.remove(self._path)
        except OSError:
            return False
        return True
