"""Between Flower's records and our bytes: the coordinator's side of `client/app.py`.

A payload is one raw `Array`; Flower stores its 5 MB pieces by content, so the same request to
many institutions is uploaded once. Build such messages with `request_messages`, which also
hashes it only once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from common.transport import RECORD, STYPE, RelayRefusal

Kind = Literal["query", "train", "evaluate"]

MALFORMED_REPLY: Final = "malformed-reply"
REFUSALS: Final = frozenset(str(code) for code in RelayRefusal)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A reply without bytes: a relay's refusal, Flower's own error, or an unknown shape.

    Attributes:
        code: one of `REFUSALS`, `flower-error-N`, or `malformed-reply`; never a sender's text.
    """

    code: str


def request_message(request: bytes, node_id: int, kind: Kind, group: str, ttl: float) -> Message:
    """Return the message that carries `request` to one node.

    Args:
        group: shown by Flower as the round.
        ttl: seconds for which request and reply are kept.
    """
    return request_messages(request, [node_id], kind, group, ttl)[0]


def request_messages(
    request: bytes, node_ids: Iterable[int], kind: Kind, group: str, ttl: float
) -> list[Message]:
    """Return messages that carry the same `request` to several nodes and share its records."""
    array = Array(dtype="uint8", shape=(len(request),), stype=STYPE, data=request)
    content = RecordDict({RECORD: ArrayRecord({"request": array})})
    return [Message(content, node_id, kind, ttl=ttl, group_id=group) for node_id in node_ids]


def reply_bytes(message: Message) -> bytes | Refusal:
    """Return what the worker replied, or why there is nothing. The sender is not trusted."""
    if message.has_error():
        return Refusal(code=f"flower-error-{int(message.error.code)}")
    record = message.content.get(RECORD)
    if isinstance(record, ConfigRecord):
        return _refusal(record.get("refused"))
    array = record.get("reply") if isinstance(record, ArrayRecord) else None
    if array is None or array.stype != STYPE or array.shape != (len(array.data),):
        return Refusal(code=MALFORMED_REPLY)
    return array.data


def _refusal(code: object) -> Refusal:
    known = isinstance(code, str) and code in REFUSALS
    return Refusal(code=str(code) if known else MALFORMED_REPLY)
