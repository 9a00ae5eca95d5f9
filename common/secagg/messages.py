"""The messages of a secure sum: bytes, strict and canonical. All integers are big-endian.

    message = MAGIC (4) | version (1) | kind (1) | session (73) | body
              | of a request, boxes, an opening or a complaint: signature (64)
    list    = count (2) | entries, by strictly increasing index

| kind | message     | body                                                                 |
|-----:|-------------|----------------------------------------------------------------------|
|    1 | invitation  | nothing                                                              |
|    2 | advert      | sender 2, box key 32, mask key 32, commitment 32, signature 64       |
|    3 | adverts     | list of the bodies of adverts                                        |
|    4 | boxes       | sender 2, list of (receiver 2, box)                                  |
|    5 | instruction | model hash 32, receiver 2, list of (sender 2, box)                   |
|    6 | masked      | sender 2, values 4, packed values                                    |
|    7 | survivors   | list of survivors 2, list of drop-outs 2                             |
|    8 | consistent  | sender 2, signature 64                                               |
|    9 | unmask      | two lists as in 7, list of (sender 2, signature 64)                  |
|   10 | opening     | sender 2, list of (owner 2, seed share 33), of (owner 2, key share 33) |
|   12 | complaint   | sender 2, accused 2                                                  |

Odd kinds are requests of the coordinator, even ones come from institutions. A request ends with the
coordinator's signature over all before it, and boxes, openings and complaints with their sender's;
it is empty in an object that is not signed yet.

    box = digest of the key share (32) | digest of the seed share (32) | sealed (84)

How they become bytes and back is `common.secagg.codec`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Final

from common.secagg.session import HASH_BYTES, SESSION_BYTES, Session
from common.secagg.shamir import SHARE_BYTES

MAGIC: Final = b"FDSA"
VERSION: Final = 3
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


def reply_bytes(n: int, vector: int) -> int:
    """At most, of any reply to a request, in a study of `n` institutions.

    Args:
        vector: bytes of a packed vector where one is asked for, else 0.
    """
    fixed = HEADER_BYTES + ADVERT_BYTES + INDEX_BYTES + 2 * COUNT_BYTES + SIGNATURE_BYTES
    return max(fixed + n * max(BOX_ENTRY_BYTES, SHARE_ENTRY_BYTES), MASKED_HEAD_BYTES + vector)


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
    COMPLAINT = 12


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
    signature: bytes = b""


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
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """What an institution has for its neighbours."""

    kind: ClassVar = Kind.BOXES
    session: Session
    sender: int
    boxes: tuple[Box, ...]
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """The coordinator asks for the masked vector of work on one model, and brings the boxes."""

    kind: ClassVar = Kind.INSTRUCTION
    session: Session
    model: bytes
    receiver: int
    boxes: tuple[Box, ...]
    signature: bytes = b""


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
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistent:
    """An institution's signature over its view."""

    kind: ClassVar = Kind.CONSISTENT
    session: Session
    sender: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmask:
    """The sets again, with the survivors' signatures by sender."""

    kind: ClassVar = Kind.UNMASK
    session: Session
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    signatures: tuple[tuple[int, bytes], ...]
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An institution's shares: of survivors' seeds, of drop-outs' keys; by owner."""

    kind: ClassVar = Kind.OPENING
    session: Session
    sender: int
    seeds: tuple[tuple[int, bytes], ...] = field(repr=False)
    keys: tuple[tuple[int, bytes], ...] = field(repr=False)
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """In place of a masked vector: the box of `accused` does not hold the sender's shares."""

    kind: ClassVar = Kind.COMPLAINT
    session: Session
    sender: int
    accused: int
    signature: bytes = b""


Request = Invitation | Adverts | Instruction | Survivors | Unmask
Testimony = Boxes | Opening | Complaint
"""Replies from which blame is drawn."""
Message = Request | Testimony | Advert | Masked | Consistent
