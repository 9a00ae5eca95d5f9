"""Enrolment: an institution asks with its public keys, the coordinator keeps a register.

A request holds the institution's identity and the ECDSA key of its Flower node, each signing the
whole, so that nobody enrols another's key. It proves possession, not who asks: that is compared out
of band, by the fingerprint of the identity.

Guarantees:
    - A request is signed by both keys over federation, name and both keys; no field can be changed.
    - Only institutions of the study are approved, each with one pair of keys at a time, no two with
      the same key; what was revoked or left is never approved again.
    - The register forgets nothing: every entry stays, with its state and when it changed.
"""

import base64
import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.config.study import NAME_PATTERN
from common.errors import IdentityError
from common.identity.fingerprint import fingerprint
from common.identity.identity import Identity, PublicIdentity, require_name
from common.identity.signing import verify

REQUEST_FORMAT: Final = "fedner enrolment request v1"
REGISTER_FORMAT: Final = "fedner register v1"
MAX_BYTES: Final = 1 << 20

State = Literal["approved", "revoked", "left"]
_LABEL: Final = REQUEST_FORMAT.encode()
_FIELDS: Final = frozenset(
    {"format", "federation", "name", "public_key", "identity_signature", "node_key",
     "node_signature", "signature"}
)  # fmt: skip
_WHEN: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """Public parts of one institution's keys, signed with both.

    Attributes:
        federation: the federation's name in FEDERATION.yaml.
        node_key: OpenSSH line of an ECDSA P-384 key, without a comment.
        node_signature: the node key's over the statement, base64.
        signature: the identity's over statement and `node_signature`, in hexadecimal.

    Raises:
        IdentityError: a malformed part, or a signature that is not right.
    """

    federation: str
    identity: PublicIdentity
    node_key: str
    node_signature: str
    signature: str

    def __post_init__(self) -> None:
        require_name(self.federation)
        key = load_node_key(self.node_key)
        if not _node_signed(key, self.node_signature, self._statement()):
            raise self._unsigned("its node key")
        signed = self._statement() + self.node_signature.encode()
        if not verify(self.identity.public_key, _LABEL, signed, self.signature):
            raise self._unsigned("its identity")

    @property
    def name(self) -> str:
        """The institution's."""
        return self.identity.name

    def to_bytes(self) -> bytes:
        """The request's file."""
        content = {
            "format": REQUEST_FORMAT,
            "federation": self.federation,
            "name": self.name,
            "public_key": self.identity.public_key,
            "identity_signature": self.identity.signature,
            "node_key": self.node_key,
            "node_signature": self.node_signature,
            "signature": self.signature,
        }
        return json.dumps(content, indent=2).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "EnrolmentRequest":
        """Parse a request; raises as construction does."""
        content = _json(data)
        texts = isinstance(content, dict) and all(isinstance(v, str) for v in content.values())
        if not texts or set(content) != _FIELDS or content["format"] != REQUEST_FORMAT:
            raise IdentityError(
                "not an enrolment request of this version",
                remedy="give the file that `fedner enrol request` wrote",
            )
        identity = PublicIdentity(
            name=content["name"],
            public_key=content["public_key"],
            signature=content["identity_signature"],
        )
        return cls(
            federation=content["federation"],
            identity=identity,
            node_key=content["node_key"],
            node_signature=content["node_signature"],
            signature=content["signature"],
        )

    def _statement(self) -> bytes:
        return _statement(self.federation, self.name, self.identity.public_key, self.node_key)

    def _unsigned(self, by: str) -> IdentityError:
        return IdentityError(
            f"the request is not signed by {by}",
            place=self.name,
            remedy="get the file again from the institution; never edit it",
        )


def make_request(
    federation: str, identity: Identity, node_key: ec.EllipticCurvePrivateKey
) -> EnrolmentRequest:
    """Sign a request with both of an institution's keys."""
    line = node_line(node_key.public_key())
    statement = _statement(federation, identity.name, identity.signer.public_key, line)
    raw = node_key.sign(statement, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    node_signature = base64.b64encode(raw).decode()
    return EnrolmentRequest(
        federation=federation,
        identity=identity.public,
        node_key=line,
        node_signature=node_signature,
        signature=identity.signer.sign(_LABEL, statement + node_signature.encode()),
    )


def node_line(key: ec.EllipticCurvePublicKey) -> str:
    """OpenSSH's line of a public key, without a comment."""
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_bytes(*openssh).decode("ascii")


def load_node_key(line: str) -> ec.EllipticCurvePublicKey:
    """The key of an OpenSSH line, which must be written as `node_line` writes it.

    Raises:
        IdentityError: another form, or not ECDSA on P-384.
    """
    try:
        key = serialization.load_ssh_public_key(line.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_node_key() from None
    is_p384 = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1"
    if not is_p384 or node_line(_p384(key)) != line:
        raise _bad_node_key()
    return _p384(key)


def node_pem(line: str) -> bytes:
    """The key of an OpenSSH line as PEM, which is how Flower's nodes name themselves.

    Raises:
        IdentityError: as `load_node_key`.
    """
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return load_node_key(line).public_bytes(*pem)


def node_fingerprint(line: str) -> str:
    """40 digits of a node key."""
    return fingerprint("fedner node key fingerprint v1", line.encode("ascii"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One institution's keys, and whether they count.

    Attributes:
        changed: when the state was entered, `YYYY-MM-DDTHH:MM:SSZ`.
        why: a person's words on a revocation.
    """

    request: EnrolmentRequest
    state: State
    changed: str
    why: str = ""

    def __post_init__(self) -> None:
        known = self.state in get_args(State) and isinstance(self.why, str)
        if not known or not re.fullmatch(_WHEN, self.changed):
            raise _damaged()


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Who is enrolled in a federation, and who was.

    Attributes:
        demo: one machine made all private keys.
    """

    federation: str
    demo: bool = False
    entries: tuple[Entry, ...] = field(default=())

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.federation) or not isinstance(self.demo, bool):
            raise _damaged()

    @property
    def approved(self) -> dict[str, EnrolmentRequest]:
        """Requests that count, by institution."""
        return {e.request.name: e.request for e in self.entries if e.state == "approved"}

    @property
    def ended(self) -> tuple[EnrolmentRequest, ...]:
        """Requests that count no more."""
        return tuple(e.request for e in self.entries if e.state != "approved")

    def ended_as(self, name: str) -> Literal["revoked", "left", "not-enrolled"]:
        """What became of an institution's last keys that count no more."""
        for entry in reversed(self.entries):
            if entry.request.name == name and entry.state != "approved":
                return entry.state
        return "not-enrolled"

    def approve(self, request: EnrolmentRequest, names: tuple[str, ...], when: str) -> "Register":
        """With one institution more.

        Args:
            names: the study's institutions.

        Raises:
            IdentityError: another federation or name, keys that another has or had, or an
                institution that is enrolled with other keys.
        """
        self._require_belongs(request, names)
        if self.approved.get(request.name) == request:
            return self
        self._require_unused(request)
        entry = Entry(request=request, state="approved", changed=when)
        return dataclasses.replace(self, entries=(*self.entries, entry))

    def end(self, name: str, state: Literal["revoked", "left"], when: str, why: str) -> "Register":
        """Without an institution, from now on.

        Raises:
            IdentityError: it is not enrolled.
        """
        if name not in self.approved:
            raise IdentityError(
                f"{name} is not enrolled", remedy="`fedner enrol list` shows who is"
            )

        def ended(entry: Entry) -> Entry:
            if entry.request.name != name or entry.state != "approved":
                return entry
            return Entry(request=entry.request, state=state, changed=when, why=why)

        return dataclasses.replace(self, entries=tuple(ended(e) for e in self.entries))

    def to_bytes(self) -> bytes:
        """The register's file."""
        entries = [
            {
                "state": e.state,
                "changed": e.changed,
                "why": e.why,
                "request": json.loads(e.request.to_bytes()),
            }
            for e in self.entries
        ]
        content = {"format": REGISTER_FORMAT, "federation": self.federation, "demo": self.demo}
        return json.dumps({**content, "entries": entries}, indent=2).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Register":
        """Parse a register; every signature in it is checked again.

        Raises:
            IdentityError: damaged.
        """
        content = _json(data)
        keys = {"format", "federation", "demo", "entries"}
        if not isinstance(content, dict) or set(content) != keys:
            raise _damaged()
        if content["format"] != REGISTER_FORMAT or not isinstance(content["entries"], list):
            raise _damaged()
        entries = tuple(_entry(raw) for raw in content["entries"])
        return cls(federation=content["federation"], demo=content["demo"], entries=entries)

    def _require_belongs(self, request: EnrolmentRequest, names: tuple[str, ...]) -> None:
        if request.federation != self.federation:
            raise IdentityError(
                f"the request is for the federation {request.federation}, this is "
                f"{self.federation}",
                place=request.name,
                remedy="the institution makes another, with `--federation` as in FEDERATION.yaml",
            )
        if request.name not in names:
            raise IdentityError(
                f"{request.name} is not in the study; it has {', '.join(names)}",
                remedy="the institution's name is that of the study's `federation.institutions`",
            )

    def _require_unused(self, request: EnrolmentRequest) -> None:
        ended = any(_shares_key(request, old) for old in self.ended)
        if ended:
            raise IdentityError(
                "a key of the request was revoked, or its institution left with it",
                place=request.name,
                remedy="the institution makes new keys and a new request",
            )
        if request.name in self.approved:
            raise IdentityError(
                f"{request.name} is enrolled with other keys",
                remedy="find out who asks; then `fedner enrol revoke` the old ones first",
            )
        other = next((r.name for r in self.approved.values() if _shares_key(request, r)), None)
        if other is not None:
            raise IdentityError(
                f"{other} is enrolled with a key of this",
                place=request.name,
                remedy="each institution makes its own keys: find out who has whose",
            )


def _shares_key(one: EnrolmentRequest, other: EnrolmentRequest) -> bool:
    same_identity = one.identity.public_key == other.identity.public_key
    return same_identity or one.node_key == other.node_key


def _statement(federation: str, name: str, public_key: str, node_key: str) -> bytes:
    text = json.dumps([REQUEST_FORMAT, federation, name, public_key, node_key])
    return hashlib.sha256(text.encode("ascii")).digest()


def _node_signed(key: ec.EllipticCurvePublicKey, signature: str, statement: bytes) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, statement, ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _p384(key: Any) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _bad_node_key()
    return key


def _entry(raw: Any) -> Entry:
    if not isinstance(raw, dict) or set(raw) != {"state", "changed", "why", "request"}:
        raise _damaged()
    if not isinstance(raw["changed"], str):
        raise _damaged()
    request = EnrolmentRequest.from_bytes(json.dumps(raw["request"]).encode())
    return Entry(request=request, state=raw["state"], changed=raw["changed"], why=raw["why"])


def _json(data: bytes) -> Any:
    try:
        return json.loads(data[:MAX_BYTES].decode("ascii"))
    except (ValueError, RecursionError):
        return None


def _bad_node_key() -> IdentityError:
    return IdentityError(
        "the node key is not ECDSA on P-384 in OpenSSH's form",
        remedy="`fedner enrol request` makes it; Flower refuses PEM",
    )


def _damaged() -> IdentityError:
    return IdentityError("is damaged, or no register of this version", remedy="put a copy back")
