"""`metrics.jsonl`: whole lines are appended, read while they come, and mended after a crash.

Guarantees:
    * When `append` returns, its line is on disk.
    * `read` gives whole lines only: what a crash, or a writer at work, left unfinished at the end
      is not there yet. A whole line that is no JSON object is refused, with its number.
    * `mend` takes an unfinished end off and keeps its bytes in a file beside it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError
from common.io.disk import DISK, cut

TORN: Final = "metrics.torn"


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line and flush it to disk."""
    _append_bytes(path, json.dumps(value, allow_nan=False).encode() + b"\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; none if there is no file.

    Raises:
        FederationError: a damaged line.
    """
    data = DISK.read(path) or b""
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [_parsed(path, number, line) for number, line in enumerate(lines, 1)]


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
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict) or "event" not in value:
        raise FederationError(
            "not an event",
            place=f"{path}:{number}",
            remedy="the file was changed from outside: put a copy back, or begin a new study",
        )
    return value
