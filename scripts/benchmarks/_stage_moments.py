"""Where a secure sum is, by an audit log: what a request was for is told by those before it.

Holds while each sum takes one attempt; of a further one keys may be taken for signatures.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Moment(NamedTuple):
    """A stage of a secure sum: `keys`, `boxes`, `vectors`, `signatures` or `shares`.

    The next sum's keys and boxes, which travel with signatures and shares, are no moments.

    Attributes:
        purpose: `train` or `evaluate`; of keys and boxes empty, for a log has not whose they are.
    """

    purpose: str
    round: int
    stage: str


class Moments:
    """Reads an institution's or the coordinator's audit log as it grows."""

    def __init__(self, log: Path):
        self._log, self._at = log, 0
        self._forget()

    def _forget(self) -> None:
        """A process begins: what was under way is begun in full."""
        self._before, self._after, self._asked = 0, 2, ""
        self._seen: set[str] = set()

    def new(self) -> list[Moment]:
        """What was begun since the last call, in order."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(self._at)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._at += len(whole) + 1
        return [m for line in whole.splitlines() for m in self._of(json.loads(line))]

    def _of(self, entry: Mapping[str, Any]) -> Iterator[Moment]:
        body = entry["body"]
        if entry["kind"] == "start":
            self._forget()
        if entry["kind"] == "reply":
            self._seen.clear()
        if entry["kind"] != "request" or body["asked"] == "hello":
            return
        same_trip = bool(self._seen) and body["institution"] not in self._seen
        self._seen.add(body["institution"])
        if not same_trip:
            self._seen = {body["institution"]}
            yield self._moment(body["asked"], body["round"])

    def _moment(self, asked: str, round_: int) -> Moment:
        if asked != "sum":
            self._before, self._after, self._asked = 0, 0, asked
            return Moment(asked, round_, "vectors")
        if self._after < 2:
            self._after += 1
            return Moment(self._asked, round_, ("signatures", "shares")[self._after - 1])
        self._before += 1
        return Moment("", round_, ("keys", "boxes")[(self._before - 1) % 2])


def moments(log: Path) -> list[Moment]:
    """Every stage that an audit log has a request of, in order: what was last begun is the last."""
    return Moments(log).new()
