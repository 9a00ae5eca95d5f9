"""A small file that displays read, and nothing else depends on.

Guarantees:
    * A reader finds the old content or the new one, whole. Nothing is flushed to the disk.
    * A disk that does not take it stops nothing: what can't be written is not shown.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class DisplayFile:
    """One file, of mode 0600.

    Args:
        log: told once if the file can't be written.
    """

    def __init__(self, path: Path, log: logging.Logger):
        self._path, self._log, self._told = path, log, False

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace the content by one JSON object."""
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(value, file)
            beside.replace(self._path)
        except OSError as error:
            if not self._told:
                self._log.warning("%s can't be written: %s", self._path, error.strerror)
            self._told = True


def read_display(path: Path) -> dict[str, Any] | None:
    """The object; `None` if there is no file, or none that can be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
