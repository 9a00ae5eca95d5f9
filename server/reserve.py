"""Room on the disk that is kept for what has to be written once vectors have come.

    audit.reserve       for the audit log's entries of a sum, and the metrics' lines
    checkpoint.reserve  for the next checkpoint, which is written beside the last one
    status.reserve      for how the run ends, from its start on

A file of random bytes, in blocks too large for a file system that compresses to see them again. It
is made before institutions are asked for vectors, and given up when a write that must not fail
finds the disk full.

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

from common.errors import FednerError
from common.io.disk import DISK, replace_file

RESERVE: Final = "audit.reserve"
CHECKPOINT_RESERVE: Final = "checkpoint.reserve"
STATUS_RESERVE: Final = "status.reserve"
_BLOCK: Final = 1 << 20


class Reserve:
    """Room in one folder.

    Args:
        size: bytes.
        what: it is for.
        error: to raise where there is none.
        random: bytes that can't be made fewer.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        what: str,
        error: type[FednerError],
        random: Callable[[int], bytes] = os.urandom,
    ):
        self._path, self._size, self._what, self._error = path, size, what, error
        self._random = random

    def hold(self) -> None:
        """Take the room, unless it is taken.

        Raises:
            FednerError: of the kind given: the disk does not have it.
        """
        try:
            if not DISK.exists(self._path) or DISK.size(self._path) != self._size:
                block = self._random(min(_BLOCK, self._size))
                blocks = [block] * (self._size // _BLOCK)
                replace_file(DISK, self._path, *blocks, block[: self._size % _BLOCK])
        except OSError as error:
            raise self._error(
                f"no room for {self._what}, {self._size} bytes: "
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
