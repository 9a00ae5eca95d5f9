"""`metrics.jsonl`: whole lines are appended, read while they come, and mended after a crash.

Guarantees:
    * When `append` returns, its line is on disk; where it raises, no part of it is, so that it may
      be tried again.
    * `read` gives whole lines only: what a crash, or a writer at work, left unfinished at the end
      is not there yet. A whole line that is no JSON object is refused, with its number.
    * `mend` takes an unfinished end off and keeps its bytes in a file beside it.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError
from common.io.disk import DISK, cut, write_all

TORN: Final = "metrics.torn"
_GO_ON: Final = "free some space or mend the disk, then `fedner server --resume`"
_RESTORE: Final = "the file was changed from outside: put a copy back, or begin a new study"


def append(path: Path, value: Mapping[str, Any], remedy: str = _GO_ON) -> None:
    """Append one JSON line and flush it to disk.

    Raises:
        FederationError: the disk does not take it.
    """
    data = json.dumps(value, allow_nan=False).encode() + b"\n"
    before = DISK.size(path) if DISK.exists(path) else 0
    try:
        _append_bytes(path, data)
    except OSError as error:
        with suppress(OSError):
            cut(DISK, path, before)
        raise FederationError(
            f"a line can't be written: {error.strerror or type(error).__name__}",
            place=str(path),
            remedy=remedy,
        ) from None


def read(path: Path, remedy: str = _RESTORE) -> list[dict[str, Any]]:
    """All whole lines; none if there is no file.

    Raises:
        FederationError: a damaged line.
    """
    data = DISK.read(path) or b""
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [_parsed(path, number, line, remedy) for number, line in enumerate(lines, 1)]


def mend(path: Path) -> int:
    """Take off an unfinished last line; how many bytes it had."""
    data = DISK.read(path) or b""
    whole = data.rfind(b"\n") + 1
    torn = data[whole:]
    if torn:
        _append_bytes(path.with_name(TORN), torn + b"\n")
        cut(DISK, path, whole)
    return len(torn)


def _append_bytes(path: Path, data: bytes) -> None:
    descriptor = DISK.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        write_all(DISK, descriptor, data, os.fstat(descriptor).st_size)
        DISK.fsync(descriptor)
    finally:
        DISK.close(descriptor)


def _parsed(path: Path, number: int, line: bytes, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict) or "event" not in value:
        raise FederationError(
            "not an event",
            place=f"{path}:{number}",
            remedy=remedy,
        )
    return value
