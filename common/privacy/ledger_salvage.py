"""What is still readable of a lost or damaged ledger, and how far each entry is proven.

Guarantees:
    - Every entry that is readable is found, wherever it stands in a file, and each once.
    - An entry is never thought better proven than its signature shows: see `Proof`.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from common.privacy.ledger_codec import Entry, MalformedError, parse_entry
from common.privacy.ledger_entries import Anchor, Body, Head, Open

_Kind = TypeVar("_Kind")


class Proof(IntEnum):
    """Who vouches for a readable entry.

    NONE: nobody whose key is known: the key is lost and line 1 damaged, the signature is wrong, or
        the file is one of another name. It may be true: it can add to what is assumed, and to what
        is closed, and lowers nothing.
    OPEN: the key that an `open` entry of this institution names. It counts as spend.
    KEY: the institution's own key. It counts as spend, and what it says of the time before it is
        believed.
    """

    NONE = 0
    OPEN = 1
    KEY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """One entry, its proof, and the id of its ledger: by the first line of its file, or else by a
    receipt in it; `None` if neither tells.
    """

    entry: Entry
    proof: Proof
    ledger: str | None

    @property
    def body(self) -> Body:
        return self.entry.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What is readable of the old files, the oldest first; and the heads of what is proven."""

    entries: tuple[Readable, ...]
    heads: tuple[Head, ...]

    def bodies(self, kind: type[_Kind], proof: Proof = Proof.OPEN) -> tuple[_Kind, ...]:
        """Of one kind, with at least this proof."""
        bodies = (one.body for one in self.entries if one.proof >= proof)
        return tuple(body for body in bodies if isinstance(body, kind))

    def unproven(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """Of one kind, without any proof."""
        bodies = (one.body for one in self.entries if one.proof is Proof.NONE)
        return tuple(body for body in bodies if isinstance(body, kind))


def salvage(files: Iterable[bytes], institution: str, public_key: str | None) -> Salvage:
    """Read what can be read.

    Args:
        files: ledgers, damaged or not, the oldest first; other content is skipped.
        public_key: the institution's ledger key, if it is still known.
    """
    entries: dict[str, Readable] = {}
    heads: dict[str, Head] = {}
    for file in files:
        ledger, keys = None, {public_key} - {None}
        lines = _parsed(file)
        named = _ledger_by_receipts(lines, public_key)
        for entry in lines:
            body, digest = entry.body, entry.hash()
            if isinstance(body, Open) and body.institution == institution:
                ledger, keys = body.ledger, {*keys, body.public_key}
            proof = _proof(entry, public_key, keys)
            if digest not in entries or entries[digest].proof < proof:
                entries[digest] = Readable(entry=entry, proof=proof, ledger=ledger or named)
            if proof and ledger is not None:
                heads[ledger] = Head(ledger=ledger, seq=entry.seq, hash=digest)
    return Salvage(entries=tuple(entries.values()), heads=tuple(heads.values()))


def _proof(entry: Entry, own: str | None, keys: Iterable[str | None]) -> Proof:
    if own is not None and entry.is_signed_by(own):
        return Proof.KEY
    signed = any(key is not None and entry.is_signed_by(key) for key in keys)
    return Proof.OPEN if signed else Proof.NONE


def _ledger_by_receipts(lines: Iterable[Entry], public_key: str | None) -> str | None:
    """The id in the first receipt that the institution's own key signed into this file."""
    if public_key is None:
        return None
    own = (e.body for e in lines if isinstance(e.body, Anchor) and e.is_signed_by(public_key))
    return next((anchor.receipt.head.ledger for anchor in own), None)


def _parsed(file: bytes) -> list[Entry]:
    entries = []
    for line in file.split(b"\n"):
        with suppress(MalformedError):
            entries.append(parse_entry(line))
    return entries
