"""A sign-off: somebody's signature, in a role, that a study may be taken part in.

Guarantees:
    - It covers the study's canonical hash, the roster's, and the role: with one byte of them
      changed it counts for nothing.
    - It is made with an Ed25519 key under a label of its own: no other signature of that key
      is one.
    - Reading one does not verify it. Whether it counts is `covers`' to say, by the key that the
      site's own policy names.
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Final

from common.errors import IdentityError
from common.identity.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Signer, verify

FORMAT: Final = "fedner sign-off v1"
MAX_ROLE: Final = 80
MAX_BYTES: Final = 1 << 12
NO_ROSTER: Final = ""
"""In place of the roster's hash where the site pins none."""

_LABEL: Final = FORMAT.encode()
_KEYS: Final = frozenset({"format", "role", "study", "roster", "public_key", "signature"})
_PATTERNS: Final = {
    "role": rf"[^\x00-\x1f\x7f]{{1,{MAX_ROLE}}}",
    "study": r"[0-9a-f]{64}",
    "roster": r"([0-9a-f]{64})?",
    "public_key": rf"[0-9a-f]{{{2 * PUBLIC_KEY_BYTES}}}",
    "signature": rf"[0-9a-f]{{{2 * SIGNATURE_BYTES}}}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff:
    """As it was read: not yet verified.

    Attributes:
        role: as whom; free text of the site's policy.
        study, roster: canonical hashes; `roster` may be `NO_ROSTER`.
        public_key, signature: in hexadecimal.

    Raises:
        IdentityError: a value of another form.
    """

    role: str
    study: str
    roster: str
    public_key: str
    signature: str

    def __post_init__(self) -> None:
        for key, pattern in _PATTERNS.items():
            value = getattr(self, key)
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise _malformed(f"`{key}` is not of its form")

    def covers(self, role: str, public_key: str, study: str, roster: str) -> bool:
        """Whether this is that key's sign-off, in that role, of that study under that roster."""
        told = (self.role, self.public_key, self.study, self.roster)
        message = _message(role, study, roster)
        return told == (role, public_key, study, roster) and verify(
            public_key, _LABEL, message, self.signature
        )

    def to_bytes(self) -> bytes:
        """Its file."""
        content = {"format": FORMAT, **asdict(self)}
        return json.dumps(content, indent=2).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "SignOff":
        """Parse its file; raises as construction does."""
        try:
            content = json.loads(data.decode("ascii"))
        except (ValueError, RecursionError):
            raise _malformed("is not JSON") from None
        if not isinstance(content, dict) or set(content) != _KEYS:
            raise _malformed("has not exactly its keys")
        if content.pop("format") != FORMAT:
            raise _malformed("is of another version")
        return cls(**content)


def sign_off(signer: Signer, role: str, study: str, roster: str = NO_ROSTER) -> SignOff:
    """Sign.

    Args:
        study, roster: canonical hashes.

    Raises:
        IdentityError: a role or a hash that is none.
    """
    return SignOff(
        role=role,
        study=study,
        roster=roster,
        public_key=signer.public_key,
        signature=signer.sign(_LABEL, _message(role, study, roster)),
    )


def _message(role: str, study: str, roster: str) -> bytes:
    content = {"role": role, "study": study, "roster": roster}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")


def _malformed(message: str) -> IdentityError:
    return IdentityError(
        f"is no sign-off: {message}",
        remedy="have it made again: `fedner policy sign`",
    )
