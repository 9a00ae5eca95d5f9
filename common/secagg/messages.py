"""The messages of a secure sum: bytes, strict and canonical. All integers are big-endian.

    message = MAGIC (4) | version (1) | kind (1) | session (73) | body
    list    = count (2) | entries, by strictly increasing index

| kind | message     | body                                                                 |
|-----:|-------------|----------------------------------------------------------------------|
|    1 | invitation  | signature 64                                                         |
|    2 | advert      | sender 2, box key 32, mask key 32, commitment 32, signature 64       |
|    3 | adverts     | list of the bodies of adverts                                        |
|    4 | boxes       | sender 2, list of (receiver 2, box)                                  |
|    5 | instruction | model hash 32, signature 64, receiver 2, list of (sender 2, box)     |
|    6 | masked      | sender 2, values 4, packed values                                    |
|    7 | survivors   | list of survivors 2, list of drop-outs 2                             |
|    8 | consistent  | sender 2, signature 64                                               |
|    9 | unmask      | two lists as in 7, list of (sender 2, signature 64)                  |
|   10 | opening     | sender 2, list of (owner 2, seed share 33), of (owner 2, key share 33) |

Odd kinds come from the coordinator, even ones from institutions.

    box = digest of the key share (32) | digest of the seed share (32) | sealed (84)

Guarantees:
    * Canonical: a message has one form, `encode(decode(data)) == data`.
    * Strict: anything else is a `MalformedError`: another version, kind or length, an index out of
      order, a byte too many.
    * Bounded: a count is checked against the bytes that are there before anything is made of it.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Final, TypeVar

from common.errors import ConfigError
from common.secagg.errors import MalformedError
from common.secagg.packing import pack_into, packed_size
from common.secagg.session import HASH_BYTES, PURPOSES, SESSION_BYTES, Session
from common.secagg.shamir import SHARE_BYTES
from common.secagg.vectors import Vector

MAGIC: Final = b"FDSA"
VERSION: Final = 1
HEADER_BYTES: Final = len(MAGIC) + 2 + SESSION_BYTES
INDEX_BYTES: Final = 2
COUNT_BYTES: Final = 2
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
TAG_BYTES: Final = 16
PLAIN_BYTES: Final = INDEX_BYTES + 2 * SHARE_BYTES
BOX_BYTES: Final = PLAIN_BYTES + TAG_BYTES
ADVERT_BYTES: Final = INDEX_BYTES + 2 * KEY_BYTES + HASH_BYTES + SIGNATURE_BYTES
BOX_ENTRY_BYTES: Final = INDEX_BYTES + 2 * HASH_BYTES + BOX_BYTES
SIGNED_ENTRY_BYTES: Final = INDEX_BYTES + SIGNATURE_BYTES
SHARE_ENTRY_BYTES: Final = INDEX_BYTES + SHARE_BYTES
MASKED_HEAD_BYTES: Final = HEADER_BYTES + INDEX_BYTES + 4

T = TypeVar("T")


class Kind(IntEnum):
    """Of a message."""

    INVITATION = 1
    ADVERT = 2
    ADVERTS = 3
    BOXES = 4
    INSTRUCTION = 5
    MASKED = 6
    SURVIVORS = 7
    CONSISTENT = 8
    UNMASK = 9
    OPENING = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Two shares for one peer, sealed; the digests commit the dealer to them.

    Attributes:
        peer: the receiver in `Boxes`, the sender in an `Instruction`.
    """

    peer: int
    key_digest: bytes
    seed_digest: bytes
    box: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """The coordinator opens a session."""

    kind: ClassVar = Kind.INVITATION
    session: Session
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    """An institution's keys for the session, X25519, and the commitment to its seed."""

    kind: ClassVar = Kind.ADVERT
    session: Session
    sender: int
    box_key: bytes
    mask_key: bytes
    commitment: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Adverts:
    """All adverts, by sender."""

    kind: ClassVar = Kind.ADVERTS
    session: Session
    adverts: tuple[Advert, ...]

    def digest(self) -> bytes:
        """SHA-256 of the message: what institutions mean by "the same adverts"."""
        return hashlib.sha256(encode(self)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """What an institution has for its neighbours."""

    kind: ClassVar = Kind.BOXES
    session: Session
    sender: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """The coordinator asks for the masked vector of work on one model, and brings the boxes."""

    kind: ClassVar = Kind.INSTRUCTION
    session: Session
    model: bytes
    signature: bytes
    receiver: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """An institution's masked vector, packed."""

    kind: ClassVar = Kind.MASKED
    session: Session
    sender: int
    length: int
    packed: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Who sent a masked vector, and who shared keys and then did not."""

    kind: ClassVar = Kind.SURVIVORS
    session: Session
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistent:
    """An institution's signature over its view."""

    kind: ClassVar = Kind.CONSISTENT
    session: Session
    sender: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmask:
    """The sets again, with signatures by sender."""

    kind: ClassVar = Kind.UNMASK
    session: Session
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    signatures: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An institution's shares: of survivors' seeds, of drop-outs' keys; by owner."""

    kind: ClassVar = Kind.OPENING
    session: Session
    sender: int
    seeds: tuple[tuple[int, bytes], ...] = field(repr=False)
    keys: tuple[tuple[int, bytes], ...] = field(repr=False)


Message = (
    Invitation | Advert | Adverts | Boxes | Instruction
    | Masked | Survivors | Consistent | Unmask | Opening
)  # fmt: skip


def header(kind: Kind, session: Session) -> bytes:
    """The first `HEADER_BYTES` of a message."""
    return MAGIC + bytes([VERSION, kind]) + session.to_bytes()


def encode(message: Message) -> bytes:
    """The bytes of a message whose fields have their sizes."""
    return header(message.kind, message.session) + b"".join(_body(message))


def encode_masked(session: Session, sender: int, values: Vector, k: int, threads: int = 1) -> bytes:
    """The bytes of a `Masked` message, packed in place.

    Args:
        values: uint32, below `2^k`.
        k: bits of each on the wire.
        threads: how many parts of the vector are worked on at once.
    """
    head = header(Kind.MASKED, session) + _u16(sender) + len(values).to_bytes(4, "big")
    # a BytesIO gives its memory up as bytes without a copy
    stream = io.BytesIO(head)
    if size := packed_size(len(values), k):
        stream.seek(len(head) + size - 1)
        stream.write(b"\0")
        with stream.getbuffer() as out:
            pack_into(out[len(head) :], values, k, threads=threads)
    return stream.getvalue()


def _body(message: Message) -> list[bytes | memoryview]:
    match message:
        case Invitation():
            return [message.signature]
        case Advert():
            return [_advert(message)]
        case Adverts():
            return [_list(message.adverts, _advert)]
        case Boxes():
            return [_u16(message.sender), _list(message.boxes, _box)]
        case Instruction():
            head = [message.model, message.signature, _u16(message.receiver)]
            return [*head, _list(message.boxes, _box)]
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
        signature=reader.take(SIGNATURE_BYTES),
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
    return reader.list(SIGNED_ENTRY_BYTES, lambda r, index: (index, r.take(SIGNATURE_BYTES)))


def _read_shares(reader: _Reader) -> tuple[tuple[int, bytes], ...]:
    return reader.list(SHARE_ENTRY_BYTES, lambda r, index: (index, r.take(SHARE_BYTES)))


def _read_adverts(reader: _Reader, session: Session) -> Adverts:
    adverts = reader.list(ADVERT_BYTES, lambda r, sender: _read_advert(r, sender, session))
    return Adverts(session=session, adverts=adverts)


def _read_instruction(reader: _Reader, session: Session) -> Instruction:
    return Instruction(
        session=session,
        model=reader.take(HASH_BYTES),
        signature=reader.take(SIGNATURE_BYTES),
        receiver=reader.index(),
        boxes=_read_boxes(reader),
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
    )


# fields of a call are read in the order in which they are written
_READERS: Final[dict[Kind, Callable[[_Reader, Session], Message]]] = {
    Kind.INVITATION: lambda r, s: Invitation(session=s, signature=r.take(SIGNATURE_BYTES)),
    Kind.ADVERT: lambda r, s: _read_advert(r, r.index(), s),
    Kind.ADVERTS: _read_adverts,
    Kind.BOXES: lambda r, s: Boxes(session=s, sender=r.index(), boxes=_read_boxes(r)),
    Kind.INSTRUCTION: _read_instruction,
    Kind.MASKED: _read_masked,
    Kind.SURVIVORS: lambda r, s: Survivors(
        session=s, survivors=_read_indices(r), dropped=_read_indices(r)
    ),
    Kind.CONSISTENT: lambda r, s: Consistent(
        session=s, sender=r.index(), signature=r.take(SIGNATURE_BYTES)
    ),
    Kind.UNMASK: _read_unmask,
    Kind.OPENING: lambda r, s: Opening(
        session=s, sender=r.index(), seeds=_read_shares(r), keys=_read_shares(r)
    ),
}
