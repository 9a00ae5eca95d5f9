"""Catches an institution's worker between its reserve and the vector, by its own ledger and vault.

`ledger.jsonl` is read as it grows, without a check: whether it verifies is seen once all is over.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

_SLICE_S: Final = 0.004


class Reserved(NamedTuple):
    """A reserve, and whether its vector is there: stored in the vault, or committed."""

    seq: int
    stored: bool


def last_reserve(ledger: Path, purpose: str, round_: int) -> Reserved | None:
    """The newest one for a round.

    Args:
        ledger: the institution's folder.
    """
    found, committed = 0, set()
    for entry in _entries(ledger / "ledger.jsonl"):
        body = entry["body"]
        if entry["kind"] == "commit":
            committed.add(body["reserve"])
        if entry["kind"] == "reserve" and (body["purpose"], body["round"]) == (purpose, round_):
            found = entry["seq"]
    if not found:
        return None
    kept = any((ledger / "vault").glob(f"*-{found}.sealed"))
    return Reserved(found, kept or found in committed)


def caught(
    ledger: Path, purpose: str, round_: int, worker: Sequence[psutil.Process], limit_s: float
) -> bool:
    """Kill the worker between its reserve for a round and that vector's file.

    To be called before the worker has its request. It runs for a few milliseconds at a time, and is
    looked at while it stands still.

    Returns:
        Whether it was killed; false, too, if there is no reserve within `limit_s`, or the vector
        came in the same slice of time. Then it goes on.
    """
    deadline = time.monotonic() + limit_s
    found = None
    while found is None and time.monotonic() < deadline:
        _each(worker, psutil.Process.resume)
        time.sleep(_SLICE_S)
        _each(worker, psutil.Process.suspend)
        found = last_reserve(ledger, purpose, round_)
    was_caught = found is not None and not found.stored
    _each(worker, psutil.Process.kill if was_caught else psutil.Process.resume)
    return was_caught


def _each(worker: Sequence[psutil.Process], act: Any) -> None:
    for process in worker:
        with suppress(psutil.NoSuchProcess):
            act(process)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Of whole lines."""
    data = path.read_bytes() if path.exists() else b""
    for line in data.split(b"\n")[:-1]:
        with suppress(ValueError):
            yield json.loads(line)
