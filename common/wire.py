"""The bytes between coordinator and worker: versioned, strict, the same in every transport.

    message = MAGIC (4) | header length, big endian (4) | header, JSON | body | sums

A header has exactly the keys of its kind. The body is an opaque vector, `sums` are opaque messages
of the secure sum (`common.secagg`); the header has the length of the latter and the SHA-256 of
each. `CLEAR_FACTS` and `CLEAR_FIELDS` are all that a reply says outside of these two.
"""

import hashlib
import json
import re
import struct
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from common.config.study import NAME_PATTERN, SHA256_PATTERN
from common.errors import ProtocolError

MAGIC: Final = b"FDN4"
MAX_HEADER_BYTES: Final = 1 << 20
RECEIPTS: Final = b"fedner receipts v1"
HEADS: Final = b"fedner heads v1"
"""Labels of signatures."""
UNKNOWN: Final = "unknown"
"""In place of study and institution, in an answer of a worker that can't say more."""

_PARTS: Final[dict[str, type]] = {"body_sha256": str, "sums_sha256": str, "sums_bytes": int}
LEDGER_PATTERN: Final = r"([0-9a-f]{32}:[1-9][0-9]{0,17}:[0-9a-f]{64})?"

Kind = Literal["hello", "train", "evaluate", "sum"]
KINDS: Final = get_args(Kind)


def is_hash(text: str) -> bool:
    """Whether a text from outside is a SHA-256 in hexadecimal, and so may be repeated in a log."""
    return re.fullmatch(SHA256_PATTERN, text) is not None


class Refusal(StrEnum):
    """Why a worker did not do what was asked: all that the coordinator learns about it."""

    MALFORMED = "malformed-request"
    STUDY = "other-study"
    POLICY = "policy"
    DIMENSION = "wrong-dimension"
    STALE = "stale-round"
    BUDGET = "privacy-budget"
    STORAGE = "storage"  # the disk under the site's state fails or is full: it passes
    SUMS = "secure-sum"
    SPENT = "spent"  # a vector without noise of its own, which another secure sum was given
    INTERNAL = "internal-error"


CLEAR_FACTS: Final = frozenset({"version", "dimension", "layout", "initial", "encoder"})
"""What a `hello` reply says of the model: public constants of study and encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One instruction of the coordinator.

    Attributes:
        kind: `sum` for the stages of a secure sum in which nobody trains or evaluates.
        round: counted from 1; 0 for `hello`.
        body: float32 little-endian `[dimension]`, the sum of all updates so far; empty stands
            for zeros.
        receipts: by institution, the newest head of its privacy ledger that the coordinator has
            countersigned: `common.privacy.ledger_entries.Receipt`, as a mapping; none for `sum`.
        receipts_signature: of `receipts_text` by the coordinator's identity; empty where it
            has none and for `sum`, and looked at in a study with secure aggregation alone.
        sums: a bundle of the secure sum's messages; empty in a study without.
    """

    kind: Kind
    study: str
    round: int
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    receipts_signature: str = ""
    body: bytes = field(default=b"", repr=False)
    sums: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A worker's answer.

    Attributes:
        refusal: empty if the worker did as asked.
        ledger: head of the institution's privacy ledger, `LEDGER:SEQ:HASH`; empty if it has none.
        ledger_signature: of `head_text` by the institution's identity; empty without a head, and
            in a study without secure aggregation, which asks for no identity.
        facts: only in answer to `hello`; keys among `CLEAR_FACTS`.
        body: `train`: float32 `[dimension]`, the update. `evaluate`: int64, the counts. Empty in a
            study with secure aggregation.
        sums: a bundle of the secure sum's messages; empty in a study without.
    """

    kind: Kind
    study: str
    round: int
    institution: str
    refusal: str = ""
    ledger: str = ""
    ledger_signature: str = ""
    facts: dict[str, str | int] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    sums: bytes = field(default=b"", repr=False)


CLEAR_FIELDS: Final = frozenset(
    {
        "kind",
        "study",
        "round",
        "institution",
        "refusal",
        "ledger",
        "ledger_signature",
        "facts",
    }
)


def encode(message: Request | Reply) -> bytes:
    """The bytes of a request or a reply."""
    return b"".join(in_parts(message))


def in_parts(message: Request | Reply, body_sha256: str = "") -> tuple[bytes, bytes, bytes]:
    """What `encode` puts together: all up to the body, the body itself and `sums`, not copied.

    Args:
        body_sha256: of the body, where it is known.
    """
    header = {k: v for k, v in asdict(message).items() if k not in {"body", "sums"}}
    header |= _of_parts(message.body, message.sums, body_sha256)
    text = _header_text(header)
    return MAGIC + struct.pack(">I", len(text)) + text, message.body, message.sums


def _of_parts(body: bytes, sums: bytes, body_sha256: str = "") -> dict[str, Any]:
    """What the header says of body and sums."""
    return {
        "body_sha256": body_sha256 or hashlib.sha256(body).hexdigest(),
        "sums_sha256": hashlib.sha256(sums).hexdigest(),
        "sums_bytes": len(sums),
    }


def _header_text(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode("ascii")


def decode_request(data: bytes) -> Request:
    """Parse a request.

    Raises:
        ProtocolError: whatever is not exactly a request of this version.
    """
    keys = {"kind": str, "study": str, "round": int, "receipts": dict, "receipts_signature": str}
    header, body, sums = _split(data, keys)
    return Request(**header, body=body, sums=sums)


def receipts_text(request: Request) -> bytes:
    """What is signed of receipts, under `RECEIPTS`: they, and the request that they lie beside.

    The messages of the secure sum in it are of one session, so that receipts of an earlier attempt,
    or of an earlier run of the study, are not taken for this one's.
    """
    named = {"kind": request.kind, "study": request.study, "round": request.round}
    sums = hashlib.sha256(request.sums).hexdigest()
    return _header_text({**named, "sums": sums, "receipts": request.receipts})


def head_text(reply: Reply) -> bytes:
    """What is signed of a ledger's head, under `HEADS`: it, and the reply that it lies in.

    So nobody who carries replies can put another head in the place of one, or an earlier one of
    another round or session. A reply to `hello` belongs to no session.
    """
    named = {"kind": reply.kind, "study": reply.study, "round": reply.round}
    sums = hashlib.sha256(reply.sums).hexdigest()
    said = {"institution": reply.institution, "ledger": reply.ledger}
    return _header_text({**named, "sums": sums, **said})


def decode_reply(data: bytes) -> Reply:
    """Parse a reply.

    Raises:
        ProtocolError: whatever is not exactly a reply of this version, or says more in clear
            than the allow-list.
    """
    keys = dict.fromkeys(CLEAR_FIELDS, str) | {"round": int, "facts": dict}
    header, body, sums = _split(data, keys)
    facts = header["facts"]
    if not set(facts) <= CLEAR_FACTS or any(type(v) not in {str, int} for v in facts.values()):
        raise ProtocolError("a reply states facts that are not on the allow-list")
    if facts and header["kind"] != "hello":
        raise ProtocolError("a reply states facts that only `hello` asks for")
    if header["refusal"] and header["refusal"] not in set(Refusal):
        raise ProtocolError("a reply has an unknown refusal code")
    if not re.fullmatch(LEDGER_PATTERN, header["ledger"]):
        raise ProtocolError("a reply's ledger head is none")
    if not re.fullmatch(NAME_PATTERN, header["institution"]):
        raise ProtocolError("a reply's institution is not a name")
    return Reply(**header, body=body, sums=sums)


def _split(data: bytes, keys: dict[str, type]) -> tuple[dict[str, Any], bytes, bytes]:
    if data[:4] != MAGIC:
        raise ProtocolError(
            "not a message of this protocol version", remedy="install the same fedner everywhere"
        )
    if len(data) < 8:
        raise ProtocolError("truncated before the header")
    (length,) = struct.unpack_from(">I", data, 4)
    if length > MAX_HEADER_BYTES or len(data) < 8 + length:
        raise ProtocolError(f"header of {length} bytes is too long or truncated")
    header = _parse_header(data[8 : 8 + length], keys)
    said = {key: header.pop(key) for key in _PARTS}
    place = len(data) - said["sums_bytes"]
    if not 8 + length <= place <= len(data):
        raise ProtocolError("a secure sum's messages of more bytes than there are, or of fewer")
    body, sums = data[8 + length : place], data[place:]
    if _of_parts(body, sums) != said:
        raise ProtocolError("the body is not the one that the header names")
    return header, body, sums


def _parse_header(text: bytes, keys: dict[str, type]) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("ascii"))
        as_encoded = _header_text(header)
    except (ValueError, RecursionError):
        raise ProtocolError("the header is not JSON") from None
    if as_encoded != text:
        raise ProtocolError("the header is not written as `encode` writes it")
    expected = keys | _PARTS
    if not isinstance(header, dict) or set(header) != set(expected):
        raise ProtocolError("the header does not have exactly its keys")
    for key, kind in expected.items():
        if type(header[key]) is not kind:
            raise ProtocolError(f"header key {key}: expected {kind.__name__}")
    if header["kind"] not in KINDS or not 0 <= header["round"] < 1 << 31:
        raise ProtocolError("header: unknown kind, or round out of range")
    return header


def vector_to_bytes(vector: npt.NDArray[np.float32]) -> bytes:
    """Float32 little-endian bytes."""
    return vector.astype("<f4", copy=False).tobytes()


def vector_from_bytes(body: bytes, dimension: int) -> npt.NDArray[np.float32]:
    """Read-only float32 `[dimension]`.

    Raises:
        ProtocolError: another length, or values that are not finite.
    """
    if len(body) != 4 * dimension:
        raise ProtocolError(f"expected a vector of {dimension} values, got {len(body)} bytes")
    vector = np.frombuffer(body, "<f4")
    if not np.isfinite(vector).all():
        raise ProtocolError("the vector holds values that are not finite")
    return vector


def counts_to_bytes(counts: npt.NDArray[np.int64]) -> bytes:
    """Int64 little-endian bytes."""
    return counts.astype("<i8", copy=False).tobytes()


def counts_from_bytes(body: bytes, size: int, *, noised: bool = False) -> npt.NDArray[np.int64]:
    """Read-only int64 `[size]`.

    Args:
        noised: counts may be negative then.

    Raises:
        ProtocolError: another length, or a negative count.
    """
    if len(body) != 8 * size:
        raise ProtocolError(f"expected {size} counts, got {len(body)} bytes")
    counts = np.frombuffer(body, "<i8")
    if not noised and (counts < 0).any():
        raise ProtocolError("a count is negative")
    return counts
