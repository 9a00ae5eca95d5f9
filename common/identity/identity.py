"""A long-term identity: a name, an Ed25519 key, and how both lie in files.

PKCS 8 as OpenSSL writes it was not taken: PBKDF2 with a few thousand rounds, and CBC, which can't
tell a wrong passphrase from an altered file. Here the key comes from scrypt (RFC 7914) and the
seed is sealed with AES-256-GCM (NIST SP 800-38D); the parameters are part of the format, so that
no file can ask for weaker ones.

Guarantees:
    - Without the passphrase the sealed file tells name and public key, nothing of the private key.
    - A damaged file, a wrong passphrase, a missing and a needless one each have their own error.
    - A sealed seed opens only as the identity that it was sealed for.
    - Name and public key are signed with the private key: nobody presents another's key as theirs,
      or theirs under another's name, without that showing.
    - Neither seed nor passphrase prints or stands in an error.
"""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from common.config.study import NAME_PATTERN
from common.errors import IdentityError
from common.identity.points import why_no_public_key
from common.identity.signing import SEED_BYTES, Signer, verify

PUBLIC_FORMAT: Final = "fedner identity v1"
SEALED_FORMAT: Final = "fedner private key v1, scrypt 2^17 8 1, aes-256-gcm"
OPEN_FORMAT: Final = "fedner private key v1, no passphrase"
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
RANDOM_BYTES: Final = SEED_BYTES + SALT_BYTES + NONCE_BYTES
"""What a new identity needs of a cryptographic generator."""
MIN_PASSPHRASE: Final = 12
"""Characters of a new one; scrypt makes a guess dear, not a bad passphrase good."""

_LABEL: Final = PUBLIC_FORMAT.encode()
_PUBLIC_KEYS: Final = frozenset({"format", "name", "public_key", "signature"})
_PRIVATE_KEYS: Final = frozenset(
    {"format", "name", "public_key", "salt", "nonce", "seed", "sha256"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicIdentity:
    """What everybody may know, signed by its owner.

    Raises:
        IdentityError: a bad name or key, or a signature that is not the key's.
    """

    name: str
    public_key: str
    signature: str

    def __post_init__(self) -> None:
        require_name(self.name)
        require_public_key(self.public_key, self.name)
        if not verify(self.public_key, _LABEL, self.name.encode(), self.signature):
            raise IdentityError(
                "name and key are not signed with that key",
                place=self.name,
                remedy="get the file again from its owner, and compare the fingerprint",
            )

    def to_bytes(self) -> bytes:
        """The public file."""
        content = {
            "format": PUBLIC_FORMAT,
            "name": self.name,
            "public_key": self.public_key,
            "signature": self.signature,
        }
        return json.dumps(content, indent=2).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "PublicIdentity":
        """Parse a public file; raises as construction does."""
        content = _content(data, _PUBLIC_KEYS)
        if content is None or content.pop("format") != PUBLIC_FORMAT:
            raise IdentityError(
                "not a public identity of this version",
                remedy="give the file `public.json` that `fedner identity new` made",
            )
        return cls(**content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A name and its private key. The key does not print."""

    name: str
    signer: Signer

    @classmethod
    def of(cls, name: str, seed: bytes) -> "Identity":
        """Raises IdentityError for a bad name."""
        require_name(name)
        return cls(name=name, signer=Signer(seed))

    @property
    def public(self) -> PublicIdentity:
        """What others may have of it."""
        signature = self.signer.sign(_LABEL, self.name.encode())
        return PublicIdentity(
            name=self.name, public_key=self.signer.public_key, signature=signature
        )


def new_identity(name: str, passphrase: str | None, random: bytes) -> tuple[Identity, bytes]:
    """A new identity and its private file.

    Args:
        passphrase: absent: the seed lies open in the file.
        random: `RANDOM_BYTES` of a cryptographic generator, used for nothing else.

    Raises:
        IdentityError: a bad name, or a passphrase that is too short.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{RANDOM_BYTES} random bytes are needed")
    seed, salt = random[:SEED_BYTES], random[SEED_BYTES:-NONCE_BYTES]
    nonce = random[-NONCE_BYTES:]
    identity = Identity.of(name, seed)
    content = {"format": OPEN_FORMAT, "name": name, "public_key": identity.signer.public_key}
    if passphrase is None:
        content |= {"salt": "", "nonce": "", "seed": seed.hex()}
    else:
        _require_length(passphrase)
        content["format"] = SEALED_FORMAT
        sealed = _cipher(passphrase, salt).encrypt(nonce, seed, _bound(content))
        content |= {"salt": salt.hex(), "nonce": nonce.hex(), "seed": sealed.hex()}
    content["sha256"] = _checksum(content)
    return identity, json.dumps(content, indent=2).encode("ascii") + b"\n"


def open_identity(data: bytes, passphrase: str | None) -> Identity:
    """The identity of a private file.

    Raises:
        IdentityError: damaged; a passphrase that is wrong, missing or not needed.
    """
    content = _checked(data)
    if (content["format"] == OPEN_FORMAT) != (passphrase is None):
        raise _passphrase_error(needed=passphrase is None)
    seed = bytes.fromhex(content["seed"])
    if passphrase is not None:
        salt, nonce = bytes.fromhex(content["salt"]), bytes.fromhex(content["nonce"])
        try:
            seed = _cipher(passphrase, salt).decrypt(nonce, seed, _bound(content))
        except InvalidTag:
            raise IdentityError(
                "the passphrase is wrong",
                place=content["name"],
                remedy="type it again; nobody can recover a lost one: make a new identity and a "
                "new roster",
            ) from None
    identity = Identity.of(content["name"], seed)
    if identity.signer.public_key != content["public_key"]:
        raise _damaged("the private key is not that of the public key beside it")
    return identity


def claimed_public_key(data: bytes) -> tuple[str, str]:
    """Name and public key that a private file states, without opening it.

    Raises:
        IdentityError: damaged.
    """
    content = _checked(data)
    return content["name"], content["public_key"]


def require_name(name: str) -> None:
    """Raises IdentityError for what can't be an institution's name in a study."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise IdentityError(
            f"{name[:80]!r} is not a name: lower-case letters, digits, - and _",
            remedy="take the name that the study's `federation.institutions` has",
        )


def require_public_key(public_key: str, place: str | None = None) -> None:
    """Raises IdentityError for what is not an Ed25519 public key in hexadecimal."""
    why: str | None = "expected 64 lower-case hexadecimal digits"
    if re.fullmatch(r"[0-9a-f]{64}", public_key):
        why = why_no_public_key(bytes.fromhex(public_key))
    if why is not None:
        raise IdentityError(
            f"{public_key[:80]!r} is not a public key: {why}",
            place=place,
            remedy="`fedner identity show` prints it; get it from its owner again",
        )


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    """scrypt at N = 2^17, r = 8, p = 1: 128 MiB and about half a second a guess."""
    text = unicodedata.normalize("NFC", passphrase).encode()
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(text))


def _bound(content: dict[str, str]) -> bytes:
    return json.dumps([content["format"], content["name"], content["public_key"]]).encode("ascii")


def _checksum(content: dict[str, str]) -> str:
    """Tells damage from a wrong passphrase. It stops no forger: the tag does."""
    text = json.dumps({k: v for k, v in content.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _checked(data: bytes) -> dict[str, str]:
    content = _content(data, _PRIVATE_KEYS)
    if content is None or content["sha256"] != _checksum(content):
        raise _damaged("is damaged, or no private key")
    sealed = content["format"] == SEALED_FORMAT
    sizes = {"salt": SALT_BYTES, "nonce": NONCE_BYTES, "seed": SEED_BYTES + 16}
    if not sealed:
        sizes = {"salt": 0, "nonce": 0, "seed": SEED_BYTES}
    fits = all(re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", content[k]) for k, size in sizes.items())
    if content["format"] not in {SEALED_FORMAT, OPEN_FORMAT} or not fits:
        raise _damaged("is no private key of this version")
    require_name(content["name"])
    require_public_key(content["public_key"])
    return content


def _content(data: bytes, keys: frozenset[str]) -> dict[str, Any] | None:
    """A JSON object of exactly these keys with texts; `None` if it is none."""
    try:
        content = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or set(content) != keys:
        return None
    return content if all(isinstance(value, str) for value in content.values()) else None


def _damaged(message: str) -> IdentityError:
    return IdentityError(
        message, remedy="put a copy back; without one, make a new identity and a new roster"
    )


def _passphrase_error(*, needed: bool) -> IdentityError:
    if needed:
        return IdentityError(
            "the private key needs its passphrase", remedy="give a file that holds it"
        )
    return IdentityError(
        "the private key has no passphrase, and one was given: this is not the file you mean, or "
        "someone has put another there",
        remedy="look which key this is; leave the passphrase out if it is meant to have none",
    )


def _require_length(passphrase: str) -> None:
    if len(passphrase) < MIN_PASSPHRASE:
        raise IdentityError(
            f"a passphrase has at least {MIN_PASSPHRASE} characters",
            remedy="take five or more random words",
        )
