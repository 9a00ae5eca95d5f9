"""Files that are either the old one or the new one, never a part.

Guarantees:
    * Whatever crashes, a file that was written has the old content or the new one, whole; the new
      one once the call returned.
    * Two that write one file at once do not mix: the later rename wins. Files have mode 0600.
"""

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.io.disk import DISK, Disk, write_at


def write_bytes(path: Path, data: bytes, *, disk: Disk = DISK) -> None:
    """Write beside `path`, flush, rename over it, flush the folder.

    Raises:
        OSError: the disk does not take it. What was there is there still, but where the folder
            alone could not be flushed.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_at(disk, beside, data, 0, create=True)
        disk.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            disk.remove(beside)
        raise
    disk.fsync_folder(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def append_json(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")
        file.flush()
