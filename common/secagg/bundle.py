"""Several messages in one trip: stage 0 of the next session on stage 3 of this one, 1 on 4.

    bundle = MAGIC (4) | version (1) | count (1) | (length 4, bytes), each not empty

The parts belong to separate machines; a bundle means nothing beyond its parts.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from common.secagg.errors import MalformedError

MAGIC: Final = b"FDSB"
VERSION: Final = 1
MAX_PARTS: Final = 4
_HEAD: Final = MAGIC + bytes([VERSION])


def join(parts: Sequence[bytes]) -> bytes:
    """One to four messages as one.

    Raises:
        MalformedError: none, too many, or an empty one.
    """
    if not 1 <= len(parts) <= MAX_PARTS or not all(parts):
        raise MalformedError(f"a bundle of {len(parts)} messages, expected 1 to {MAX_PARTS}")
    framed = [piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)]
    return b"".join([_HEAD, bytes([len(parts)]), *framed])


def bundle_bytes(parts: Iterable[int]) -> int:
    """Bytes of a bundle of messages of so many bytes."""
    return len(_HEAD) + 1 + sum(4 + part for part in parts)


def split(data: bytes) -> tuple[bytes, ...]:
    """The messages of a bundle.

    Raises:
        MalformedError: not exactly one.
    """
    start = len(_HEAD) + 1
    if len(data) < start or data[: len(_HEAD)] != _HEAD:
        raise MalformedError("not a bundle of messages")
    parts = []
    for _ in range(data[start - 1]):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        parts.append(data[start + 4 : end])
        if end > len(data):
            raise MalformedError("a bundle ends early")
        start = end
    if start != len(data) or not 1 <= len(parts) <= MAX_PARTS or not all(parts):
        raise MalformedError("a bundle with another number of messages or bytes than it says")
    return tuple(parts)
