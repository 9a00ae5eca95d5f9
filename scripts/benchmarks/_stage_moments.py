"""Where a secure sum is, by an audit log: what a request was for is told by those before it.

Holds while each sum takes one attempt; of a further one keys may be taken for signatures.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
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


def moments(log: Path) -> list[Moment]:
    """Every stage that an audit log has a request of, in order: what was last begun is the last."""
    if not log.exists():
        return []
    whole = log.read_bytes().rpartition(b"\n")[0]
    return list(_moments([json.loads(line) for line in whole.splitlines()]))


def _moments(entries: Sequence[Mapping[str, Any]]) -> Iterator[Moment]:
    before, after, asked_now = 0, 2, ""
    seen: set[str] = set()
    for entry in entries:
        body = entry["body"]
        if entry["kind"] == "start":
            before, after, asked_now = 0, 2, ""
        if entry["kind"] == "reply":
            seen.clear()
        if entry["kind"] != "request" or body["asked"] == "hello":
            continue
        asked, same_trip = body["asked"], bool(seen) and body["institution"] not in seen
        seen.add(body["institution"])
        if same_trip:
            continue
        seen = {body["institution"]}
        if asked != "sum":
            before, after, asked_now = 0, 0, asked
            yield Moment(asked, body["round"], "vectors")
        elif after < 2:
            after += 1
            yield Moment(asked_now, body["round"], ("signatures", "shares")[after - 1])
        else:
            before += 1
            yield Moment("", body["round"], ("keys", "boxes")[(before - 1) % 2])
