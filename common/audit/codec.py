"""Entries of an audit log as bytes: one line of canonical JSON each, chained and perhaps signed.

    line = {"body":{…},"kind":…,"prev":…,"seq":…,"signature":…,"time":…}

Canonical as in the privacy ledger, so every byte counts. `prev` is the SHA-256, under
`CHAIN_LABEL`, of the line before without its newline (64 zeros in the first). The signature is
Ed25519 under `ENTRY_LABEL` over the line without the key `signature`; empty where nobody signs.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final, get_args

from pydantic import TypeAdapter

from common.audit.entries import Body
from common.identity.signing import Signer, verify
from common.privacy.ledger_codec import MalformedError, canonical

__all__ = ["Entry", "Head", "MalformedError", "hash_of", "make_entry", "parse_entry"]

ENTRY_LABEL: Final = b"fedner audit entry v1"
CHAIN_LABEL: Final = b"fedner audit chain v1"
NO_HASH: Final = "0" * 64
MAX_TIME: Final = 253_402_300_800

KINDS: Final[dict[str, type[Body]]] = {kind.__name__.lower(): kind for kind in get_args(Body)}
_SCHEMAS: Final = {name: TypeAdapter[Any](kind) for name, kind in KINDS.items()}
_KEYS: Final = {"body", "kind", "prev", "seq", "signature", "time"}
_SIGNATURE: Final = re.compile(r"([0-9a-f]{128})?")
_HEAD: Final = re.compile(r"([0-9a-f]{32}):([1-9][0-9]{0,15}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. Made by `make_entry` and `parse_entry`.

    Attributes:
        seq: from 1; the line's number in the file.
        time: of the side's clock, in UTC seconds; a clock that was set back shows.
        prev, signature: in hexadecimal.
        line: canonical bytes, without the newline.
        signed: what the signature is over.
    """

    seq: int
    time: int
    body: Body
    prev: str
    signature: str
    line: bytes = field(repr=False)
    signed: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        return _kind_of(self.body)

    def hash(self) -> str:
        """What the next entry names as `prev`."""
        return hash_of(self.line)

    def is_signed_by(self, public_key: str) -> bool:
        return verify(public_key, ENTRY_LABEL, self.signed, self.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a log goes: the number of its last entry, and that line's hash."""

    log: str
    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.log}:{self.seq}:{self.hash}"

    @classmethod
    def from_text(cls, text: str) -> "Head | None":
        """The inverse of `str`; `None` for anything else."""
        found = _HEAD.fullmatch(text)
        return found and cls(log=found[1], seq=int(found[2]), hash=found[3])


def hash_of(line: bytes) -> str:
    """SHA-256 of a line, without its newline, under `CHAIN_LABEL`."""
    return hashlib.sha256(CHAIN_LABEL + b"\n" + line).hexdigest()


def make_entry(seq: int, time: int, body: Body, prev: str, signer: Signer | None) -> Entry:
    """An entry, signed if there is a signer."""
    unsigned = {
        "body": asdict(body),
        "kind": _kind_of(body),
        "prev": prev,
        "seq": seq,
        "time": time,
    }
    signed = canonical(unsigned)
    signature = "" if signer is None else signer.sign(ENTRY_LABEL, signed)
    line = canonical({**unsigned, "signature": signature})
    return Entry(
        seq=seq, time=time, body=body, prev=prev, signature=signature, line=line, signed=signed
    )


def parse_entry(line: bytes) -> Entry:
    """The entry of a line without its newline. Chain and signature are not looked at.

    Raises:
        MalformedError: not the canonical bytes of an entry.
    """
    raw = _load(line)
    if set(raw) != _KEYS or raw["kind"] not in KINDS:
        raise MalformedError("not the keys of an entry")
    if not (type(raw["seq"]) is type(raw["time"]) is int and 0 <= raw["time"] < MAX_TIME):
        raise MalformedError("seq and time are whole numbers, and time is one of 1970 to 9999")
    if not _SIGNATURE.fullmatch(str(raw["signature"])):
        raise MalformedError("a signature is 128 hexadecimal digits in lower case, or none")
    body = _validated(raw["kind"], raw["body"])
    signed = canonical({key: raw[key] for key in _KEYS - {"signature"}})
    return Entry(
        seq=raw["seq"], time=raw["time"], body=body, prev=raw["prev"], signature=raw["signature"],
        line=line, signed=signed,
    )  # fmt: skip


def _kind_of(body: Body) -> str:
    return type(body).__name__.lower()


def _load(line: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(line.decode("ascii"))
        as_written = canonical(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {type(error).__name__}") from None
    if not isinstance(raw, dict) or as_written != line:
        raise MalformedError("not an object in canonical form")
    return raw


def _validated(kind: str, body: object) -> Body:
    """Strict as JSON: lists are tuples, and nothing is converted."""
    try:
        found: Body = _SCHEMAS[kind].validate_json(json.dumps(body))
    except ValueError as error:
        raise MalformedError(f"not the content of a {kind}: {type(error).__name__}") from None
    return found
