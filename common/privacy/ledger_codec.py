"""Entries of the privacy ledger as bytes: one line of canonical JSON each, chained and signed.

    line = {"body":{…},"kind":…,"prev":…,"seq":…,"signature":…,"time":…}

Canonical: sorted keys, no blanks, ASCII, floats as Python's shortest text that reads back the same.
A line that is not byte for byte what its own content encodes to is malformed, so every byte counts.
`prev` is the SHA-256 of the line before (64 zeros in the first); the signature is over the line
without the key `signature`, under `ENTRY_LABEL`.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar, get_args

from pydantic import TypeAdapter

from common.errors import BudgetError
from common.identity.signing import Signer, verify
from common.privacy.ledger_entries import MAX_INT, Body, Head, Receipt

ENTRY_LABEL: Final = b"fedner ledger entry v1"
HEAD_LABEL: Final = b"fedner ledger head v1"
NO_HASH: Final = "0" * 64

KINDS: Final[dict[str, type[Body]]] = {kind.__name__.lower(): kind for kind in get_args(Body)}
_SCHEMAS: Final = {name: TypeAdapter[Any](kind) for name, kind in KINDS.items()}
_HEAD: Final = TypeAdapter(Head)
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_KEYS: Final = {"body", "kind", "prev", "seq", "signature", "time"}

_Value = TypeVar("_Value")


class MalformedError(ValueError):
    """Bytes that are no entry, head or receipt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line.

    Attributes:
        seq: from 1; the line's number in the file.
        time: of the institution's clock, in UTC seconds.
        prev, signature: in hexadecimal.
    """

    seq: int
    time: int
    body: Body
    prev: str
    signature: str

    @property
    def kind(self) -> str:
        return type(self.body).__name__.lower()

    def line(self) -> bytes:
        """Canonical bytes, without the newline."""
        return canonical({**self._unsigned(), "signature": self.signature})

    def hash(self) -> str:
        """SHA-256 of the line, in hexadecimal."""
        return hashlib.sha256(self.line()).hexdigest()

    def is_signed_by(self, public_key: str) -> bool:
        return verify(public_key, ENTRY_LABEL, canonical(self._unsigned()), self.signature)

    def _unsigned(self) -> dict[str, Any]:
        return {
            "body": asdict(self.body),
            "kind": self.kind,
            "prev": self.prev,
            "seq": self.seq,
            "time": self.time,
        }


def canonical(value: object) -> bytes:
    """Canonical JSON. Raises ValueError on a number that JSON has not."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def make_entry(seq: int, time: int, body: Body, prev: str, signer: Signer) -> Entry:
    """A signed entry."""
    blank = Entry(seq=seq, time=time, body=body, prev=prev, signature="")
    signature = signer.sign(ENTRY_LABEL, canonical(blank._unsigned()))
    return Entry(seq=seq, time=time, body=body, prev=prev, signature=signature)


def parse_entry(line: bytes) -> Entry:
    """The entry of a line without its newline. Chain and signature are not looked at.

    Raises:
        MalformedError: not the canonical bytes of an entry.
    """
    raw = _load(line)
    if set(raw) != _KEYS:
        raise MalformedError("not the keys of an entry")
    if not all(isinstance(raw[key], str) for key in ("kind", "prev", "signature")):
        raise MalformedError("kind, prev and signature are texts")
    if raw["kind"] not in KINDS:
        raise MalformedError("an unknown kind")
    body = _validated(_SCHEMAS[raw["kind"]], raw["body"])
    entry = Entry(
        seq=raw["seq"], time=raw["time"], body=body, prev=raw["prev"], signature=raw["signature"]
    )
    if type(entry.seq) is not int or type(entry.time) is not int:
        raise MalformedError("seq and time are whole numbers")
    if not 1 <= entry.seq <= MAX_INT:
        raise MalformedError("seq counts from 1")
    if not _SIGNATURE.fullmatch(entry.signature):
        raise MalformedError("a signature is 128 hexadecimal digits in lower case")
    return _exact(entry, entry.line(), line)


def encode_head(head: Head) -> bytes:
    """A head as `ledger.head` holds it: one canonical line."""
    return canonical(asdict(head)) + b"\n"


def parse_head(data: bytes) -> Head:
    """The inverse of `encode_head`.

    Raises:
        MalformedError: anything else.
    """
    head: Head = _validated(_HEAD, _load(data))
    return _exact(head, encode_head(head), data)


def head_from_text(text: str) -> Head:
    """A head as `LEDGER:SEQ:HASH`.

    Raises:
        BudgetError: anything else.
    """
    ledger, _, rest = text.partition(":")
    seq, _, digest = rest.partition(":")
    try:
        return Head(ledger=ledger, seq=int(seq), hash=digest)
    except ValueError:
        raise BudgetError(
            "expected a head as LEDGER:SEQ:HASH",
            place=text[:120],
            remedy="copy it from `fedner budget show`, or join `ledger`, `seq` and `hash` of the "
            "institution's receipt in the coordinator's ledger-heads.json",
        ) from None


def countersign(head: Head, signer: Signer, time: int) -> Receipt:
    """The counterpart's word that it has seen `head`; `time` in UTC seconds."""
    signature = signer.sign(HEAD_LABEL, _receipt_message(head, time))
    return Receipt(**asdict(head), time=time, public_key=signer.public_key, signature=signature)


def verify_receipt(receipt: Receipt, public_key: str) -> bool:
    """Whether `public_key`, in hexadecimal, signed this receipt."""
    message = _receipt_message(receipt.head, receipt.time)
    return receipt.public_key == public_key and verify(
        public_key, HEAD_LABEL, message, receipt.signature
    )


def entries_to_lines(entries: Sequence[object]) -> bytes:
    """The bytes of a ledger file from its entries as JSON values."""
    return b"".join(canonical(entry) + b"\n" for entry in entries)


def _receipt_message(head: Head, time: int) -> bytes:
    return canonical({**asdict(head), "time": time})


def _load(data: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {type(error).__name__}") from None
    if not isinstance(raw, dict):
        raise MalformedError("not an object")
    return raw


def _validated(schema: TypeAdapter[Any], raw: object) -> Any:
    """Strict as JSON: lists are tuples, and nothing is converted."""
    try:
        return schema.validate_json(json.dumps(raw))
    except (ValueError, BudgetError) as error:
        raise MalformedError(f"not an entry's content: {type(error).__name__}") from None


def _exact(value: _Value, found: bytes, expected: bytes) -> _Value:
    if found != expected:
        raise MalformedError("not in canonical form")
    return value
