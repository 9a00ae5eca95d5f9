"""New lines of a growing `metrics.jsonl`."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


class Tail:
    """Reads on from where it was.

    Guarantee: each whole line is given once. An end that is not whole yet, or that a crash left, is
    not given; nor is a line that is no object (`fedner report` complains of it).
    """

    def __init__(self, path: Path):
        self._path, self._read = path, 0

    def new(self) -> list[dict[str, Any]]:
        """The lines that came since; none if there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [line for line in map(_parsed, whole.splitlines()) if line is not None]


def unread(events: Iterable[Mapping[str, Any]], take: Callable[[Mapping[str, Any]], None]) -> int:
    """Hand each event over; how many of them `take` could make nothing of."""
    failed = 0
    for event in events:
        try:
            take(event)
        except (KeyError, TypeError, ValueError, AttributeError):
            failed += 1
    return failed


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None
