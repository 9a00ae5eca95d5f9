"""Messages of a secure sum as bytes; their layout is the table of `common.secagg.messages`.

Guarantees:
    * Canonical: a message has one form, `encode(decode(data)) == data`.
    * Strict: anything else is a `MalformedError`: another version, kind or length, an index out of
      order, a byte too many.
    * Bounded: a count is checked against the bytes that are there before anything is made of it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from common.errors import ConfigError
from common.secagg.errors import MalformedError
from common.secagg.messages import (
    ADVERT_BYTES,
    BOX_BYTES,
    BOX_ENTRY_BYTES,
    COUNT_BYTES,
    INDEX_BYTES,
    KEY_BYTES,
    MAGIC,
    SHARE_ENTRY_BYTES,
    SIGNATURE_BYTES,
    SIGNED_ENTRY_BYTES,
    VERSION,
    Advert,
    Adverts,
    Box,
    Boxes,
    Complaint,
    Consistent,
    Instruction,
    Invitation,
    Kind,
    Masked,
    Message,
    Opening,
    Request,
    Survivors,
    Testimony,
    Unmask,
)
from common.secagg.packing import fresh, packed_size
from common.secagg.session import HASH_BYTES, PURPOSES, Session
from common.secagg.shamir import SHARE_BYTES

T = TypeVar("T")


def header(kind: Kind, session: Session) -> bytes:
    """The first `HEADER_BYTES` of a message."""
    return MAGIC + bytes([VERSION, kind]) + session.to_bytes()


def encode(message: Message) -> bytes:
    """The bytes of a message whose fields have their sizes, its signature too if it ends so."""
    parts = [header(message.kind, message.session), *_body(message)]
    if isinstance(message, Request | Testimony):
        parts.append(message.signature)
    return b"".join(parts)


def signed_part(message: Request | Testimony) -> bytes:
    """What the signature at a message's end is over: the message up to there."""
    return encode(replace(message, signature=b""))


def encode_masked(
    session: Session, sender: int, n: int, k: int, write: Callable[[memoryview], object]
) -> bytes:
    """The bytes of a `Masked` message, its values written in place.

    Args:
        n: values.
        k: bits of each on the wire.
        write: packs them into a buffer of `packed_size(n, k)` bytes, and keeps no view of it.
    """
    head = header(Kind.MASKED, session) + _u16(sender) + n.to_bytes(4, "big")
    stream = fresh(len(head) + packed_size(n, k))
    stream.write(head)
    if n:
        with stream.getbuffer() as out:
            write(out[len(head) :])
    return stream.getvalue()


def adverts_digest(adverts: Adverts) -> bytes:
    """SHA-256 of the message without its signature: what is meant by "the same adverts"."""
    return hashlib.sha256(signed_part(adverts)).digest()


def _body(message: Message) -> list[bytes | memoryview]:
    match message:
        case Invitation():
            return []
        case Advert():
            return [_advert(message)]
        case Adverts():
            return [_list(message.adverts, _advert)]
        case Boxes():
            return [_u16(message.sender), _list(message.boxes, _box)]
        case Instruction():
            return [message.model, _u16(message.receiver), _list(message.boxes, _box)]
        case Masked():
            return [_u16(message.sender), message.length.to_bytes(4, "big"), message.packed]
        case Survivors():
            return _sets(message)
        case Consistent():
            return [_u16(message.sender), message.signature]
        case Unmask():
            return [*_sets(message), _list(message.signatures, _entry)]
        case Opening():
            lists = [_list(part, _entry) for part in (message.seeds, message.keys)]
            return [_u16(message.sender), *lists]
        case Complaint():
            return [_u16(message.sender), _u16(message.accused)]


def _u16(number: int) -> bytes:
    return number.to_bytes(INDEX_BYTES, "big")


def _list(entries: tuple[T, ...], write: Callable[[T], bytes]) -> bytes:
    return len(entries).to_bytes(COUNT_BYTES, "big") + b"".join(map(write, entries))


def _advert(advert: Advert) -> bytes:
    keys = advert.box_key + advert.mask_key + advert.commitment
    return _u16(advert.sender) + keys + advert.signature


def _box(box: Box) -> bytes:
    return _u16(box.peer) + box.key_digest + box.seed_digest + box.box


def _entry(entry: tuple[int, bytes]) -> bytes:
    return _u16(entry[0]) + entry[1]


def _sets(message: Survivors | Unmask) -> list[bytes | memoryview]:
    return [_list(message.survivors, _u16), _list(message.dropped, _u16)]


class _Reader:
    """Takes fields off the front of a message."""

    def __init__(self, data: bytes):
        self._left = memoryview(data)

    def take(self, n: int) -> bytes:
        return bytes(self.view(n))

    def view(self, n: int) -> memoryview:
        if n > len(self._left):
            raise MalformedError(f"a message ends {n - len(self._left)} bytes early")
        part, self._left = self._left[:n], self._left[n:]
        return part

    def number(self, n: int) -> int:
        return int.from_bytes(self.view(n), "big")

    def rest(self) -> memoryview:
        return self.view(len(self._left))

    def index(self) -> int:
        return self.number(INDEX_BYTES)

    def list(self, size: int, read: Callable[["_Reader", int], T]) -> tuple[T, ...]:
        """Entries of `size` bytes that begin with an index, each above the one before."""
        count = self.number(COUNT_BYTES)
        if count * size > len(self._left):
            raise MalformedError(f"a list of {count} entries in {len(self._left)} bytes")
        entries, last = [], -1
        for _ in range(count):
            index = self.index()
            if index <= last:
                raise MalformedError(f"index {index} after {last}")
            entries.append(read(self, index))
            last = index
        return tuple(entries)

    def signature(self) -> bytes:
        return self.take(SIGNATURE_BYTES)

    def end(self) -> None:
        if self._left:
            raise MalformedError(f"{len(self._left)} bytes after the end of a message")


def decode(data: bytes) -> Message:
    """Parse a message.

    Raises:
        MalformedError: not exactly one.
    """
    reader = _Reader(data)
    if reader.take(len(MAGIC)) != MAGIC:
        raise MalformedError("not a message of a secure sum")
    if (version := reader.number(1)) != VERSION:
        raise MalformedError(f"version {version}, expected {VERSION}")
    number = reader.number(1)
    if number not in _READERS:
        raise MalformedError(f"kind {number} is none")
    message = _READERS[Kind(number)](reader, _session(reader))
    reader.end()
    return message


def _session(reader: _Reader) -> Session:
    study, roster = reader.take(HASH_BYTES).hex(), reader.take(HASH_BYTES).hex()
    purpose, round_, attempt = reader.number(1), reader.number(4), reader.number(4)
    if not 1 <= purpose <= len(PURPOSES):
        raise MalformedError(f"purpose {purpose} is none")
    kind = PURPOSES[purpose - 1]
    try:
        return Session(study=study, roster=roster, purpose=kind, round=round_, attempt=attempt)
    except ConfigError as error:
        raise MalformedError(error.message) from None


def _read_advert(reader: _Reader, sender: int, session: Session) -> Advert:
    return Advert(
        session=session,
        sender=sender,
        box_key=reader.take(KEY_BYTES),
        mask_key=reader.take(KEY_BYTES),
        commitment=reader.take(HASH_BYTES),
        signature=reader.signature(),
    )


def _read_box(reader: _Reader, peer: int) -> Box:
    key_digest, seed_digest = reader.take(HASH_BYTES), reader.take(HASH_BYTES)
    box = reader.take(BOX_BYTES)
    return Box(peer=peer, key_digest=key_digest, seed_digest=seed_digest, box=box)


def _read_boxes(reader: _Reader) -> tuple[Box, ...]:
    return reader.list(BOX_ENTRY_BYTES, _read_box)


def _read_indices(reader: _Reader) -> tuple[int, ...]:
    return reader.list(INDEX_BYTES, lambda _, index: index)


def _read_signatures(reader: _Reader) -> tuple[tuple[int, bytes], ...]:
    return reader.list(SIGNED_ENTRY_BYTES, lambda r, index: (index, r.signature()))


def _read_shares(reader: _Reader) -> tuple[tuple[int, bytes], ...]:
    return reader.list(SHARE_ENTRY_BYTES, lambda r, index: (index, r.take(SHARE_BYTES)))


def _read_adverts(reader: _Reader, session: Session) -> Adverts:
    adverts = reader.list(ADVERT_BYTES, lambda r, sender: _read_advert(r, sender, session))
    return Adverts(session=session, adverts=adverts, signature=reader.signature())


def _read_instruction(reader: _Reader, session: Session) -> Instruction:
    return Instruction(
        session=session,
        model=reader.take(HASH_BYTES),
        receiver=reader.index(),
        boxes=_read_boxes(reader),
        signature=reader.signature(),
    )


def _read_masked(reader: _Reader, session: Session) -> Masked:
    sender, length = reader.index(), reader.number(4)
    return Masked(session=session, sender=sender, length=length, packed=reader.rest())


def _read_unmask(reader: _Reader, session: Session) -> Unmask:
    return Unmask(
        session=session,
        survivors=_read_indices(reader),
        dropped=_read_indices(reader),
        signatures=_read_signatures(reader),
        signature=reader.signature(),
    )


# fields of a call are read in the order in which they are written
_READERS: Final[dict[Kind, Callable[[_Reader, Session], Message]]] = {
    Kind.INVITATION: lambda r, s: Invitation(session=s, signature=r.signature()),
    Kind.ADVERT: lambda r, s: _read_advert(r, r.index(), s),
    Kind.ADVERTS: _read_adverts,
    Kind.BOXES: lambda r, s: Boxes(
        session=s, sender=r.index(), boxes=_read_boxes(r), signature=r.signature()
    ),
    Kind.INSTRUCTION: _read_instruction,
    Kind.MASKED: _read_masked,
    Kind.SURVIVORS: lambda r, s: Survivors(
        session=s, survivors=_read_indices(r), dropped=_read_indices(r), signature=r.signature()
    ),
    Kind.CONSISTENT: lambda r, s: Consistent(session=s, sender=r.index(), signature=r.signature()),
    Kind.UNMASK: _read_unmask,
    Kind.OPENING: lambda r, s: Opening(
        session=s,
        sender=r.index(),
        seeds=_read_shares(r),
        keys=_read_shares(r),
        signature=r.signature(),
    ),
    Kind.COMPLAINT: lambda r, s: Complaint(
        session=s, sender=r.index(), accused=r.index(), signature=r.signature()
    ),
}
