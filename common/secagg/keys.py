"""Ephemeral keys of one session: X25519, a key for each use by HKDF-SHA256, boxes of AES-256-GCM.

    key = HKDF-SHA256(secret, info = label | version | session | sender | receiver | their public
          keys), no salt, 32 bytes (RFC 5869)

| label     | secret                     | sender, receiver      | use                         |
|-----------|----------------------------|-----------------------|-----------------------------|
| box       | X25519 of box keys         | dealer, holder        | one AES-256-GCM box         |
| pair mask | X25519 of mask keys        | lower, higher index   | one mask; lower adds it     |
| self mask | the seed                   | owner, owner          | one mask                    |

Guarantees:
    * One key, one use: label, session, direction and public keys are all in the key's name. Each
      box key closes one box ever, which is why a constant nonce will do.
    * Bound: a box opens only in its session, from its sender, for its receiver, with the digests
      that travel beside it.
    * Silent: private keys, seeds and derived keys do not print, and are not pickled or copied.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import ConfigError
from common.secagg.errors import BoxError, ShareError, WeakKeyError
from common.secagg.masks import Mask
from common.secagg.messages import INDEX_BYTES, VERSION, Box
from common.secagg.session import Session
from common.secagg.shamir import SHARE_BYTES, require_share

SECRETS_BYTES: Final = 96
"""Random bytes that a session's keys and seed are made of."""

BOX: Final = b"fedner secagg box v1\n"
PAIR_MASK: Final = b"fedner secagg pair mask v1\n"
SELF_MASK: Final = b"fedner secagg self mask v1\n"
COMMITMENT: Final = b"fedner secagg commitment v1\n"
KEY_SHARE: Final = b"fedner secagg key share v1\n"
SEED_SHARE: Final = b"fedner secagg seed share v1\n"
_NONCE: Final = bytes(12)
_FIELD: Final = 2**255 - 19


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Secrets:
    """An institution's secrets of one session, in memory only; made of 96 random bytes.

    Attributes:
        box_key, mask_key: X25519 private keys, 32 bytes.
        seed: of the self-mask, 32 bytes.
    """

    box_key: bytes
    mask_key: bytes
    seed: bytes

    @classmethod
    def of(cls, random: bytes) -> "Secrets":
        """Keys and seed are the random bytes themselves, in this order.

        Raises:
            ConfigError: not `SECRETS_BYTES` of them.
        """
        if len(random) != SECRETS_BYTES:
            raise ConfigError(f"{len(random)} random bytes, expected {SECRETS_BYTES}")
        return cls(box_key=random[:32], mask_key=random[32:64], seed=random[64:])

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled or copied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """One holder's shares of one dealer's secrets."""

    key: bytes = field(repr=False)
    seed: bytes = field(repr=False)


def public_key(private_key: bytes) -> bytes:
    """X25519 (RFC 7748), 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def require_strong(public: bytes, peer: str) -> None:
    """Refuse a public key of small order, with which everybody's shared secret is zero.

    And one that is not written in the one canonical way, below 2^255 - 19: X25519 takes all
    (RFC 7748, section 5), so that one key in two spellings would pass for two keys.

    Raises:
        WeakKeyError: it is one (RFC 7748, section 6.1).
    """
    if int.from_bytes(public, "little") >= _FIELD:
        raise WeakKeyError("a public key that is not written canonically", peer=peer)
    probe = X25519PrivateKey.from_private_bytes(b"\x55" * 32)
    try:
        probe.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise WeakKeyError("a public key of small order", peer=peer) from None


def commitment(session: Session, owner: int, seed: bytes) -> bytes:
    """SHA-256 over label, session, owner and seed. A seed is uniform, so this hides it."""
    return hashlib.sha256(COMMITMENT + _name(session, owner) + seed).digest()


def share_digest(label: bytes, session: Session, owner: int, holder: int, share: bytes) -> bytes:
    """SHA-256 over label, session, owner, holder and share."""
    return hashlib.sha256(label + _name(session, owner, holder) + share).digest()


def box_key(
    private_key: bytes, public: bytes, session: Session, sender: int, receiver: int, own: int
) -> bytes:
    """Of the boxes from `sender` to `receiver`; `own` is which of the two holds `private_key`."""
    return _shared(BOX, private_key, public, session, sender, receiver, own)


def pair_mask(private_key: bytes, public: bytes, session: Session, own: int, peer: int) -> Mask:
    """The mask that `own` adds or subtracts for `peer`."""
    low, high = sorted((own, peer))
    key = _shared(PAIR_MASK, private_key, public, session, low, high, own)
    return Mask(key=key, sign=1 if own == low else -1)


def self_mask(seed: bytes, session: Session, owner: int) -> Mask:
    """The mask that the owner adds, and the sum is freed of by its survivors' shares."""
    return Mask(key=_derive(seed, SELF_MASK + _name(session, owner, owner)), sign=1)


def seal(key: bytes, session: Session, sender: int, receiver: int, shares: Shares) -> Box:
    """Close shares for a receiver."""
    digests = _digests(session, sender, receiver, shares)
    plain = (receiver + 1).to_bytes(INDEX_BYTES, "big") + shares.key + shares.seed
    bound = _bound(session, sender, receiver, *digests)
    sealed = AESGCM(key).encrypt(_NONCE, plain, bound)
    return Box(peer=receiver, key_digest=digests[0], seed_digest=digests[1], box=sealed)


def unseal(key: bytes, session: Session, box: Box, receiver: int, peer: str) -> Shares:
    """Open the box of sender `box.peer`.

    Args:
        peer: the sender's name, for errors.

    Raises:
        BoxError: it was not closed by this sender for this receiver in this session.
        ShareError: the sender closed what is not this receiver's share.
    """
    bound = _bound(session, box.peer, receiver, box.key_digest, box.seed_digest)
    try:
        plain = AESGCM(key).decrypt(_NONCE, box.box, bound)
    except InvalidTag:
        raise BoxError("a box that does not open", peer=peer) from None
    point, rest = int.from_bytes(plain[:INDEX_BYTES], "big"), plain[INDEX_BYTES:]
    shares = Shares(key=rest[:SHARE_BYTES], seed=rest[SHARE_BYTES:])
    _require_shares(session, box, receiver, point, shares, peer)
    return shares


def _require_shares(
    session: Session, box: Box, receiver: int, point: int, shares: Shares, peer: str
) -> None:
    if point != receiver + 1:
        raise ShareError(f"a share at {point}, expected {receiver + 1}", peer=peer)
    require_share(shares.key, peer)
    require_share(shares.seed, peer)
    if _digests(session, box.peer, receiver, shares) != (box.key_digest, box.seed_digest):
        raise ShareError("a share that is not the one committed to", peer=peer)


def _digests(session: Session, owner: int, holder: int, shares: Shares) -> tuple[bytes, bytes]:
    return (
        share_digest(KEY_SHARE, session, owner, holder, shares.key),
        share_digest(SEED_SHARE, session, owner, holder, shares.seed),
    )


def _bound(session: Session, sender: int, receiver: int, *digests: bytes) -> bytes:
    return BOX + _name(session, sender, receiver) + b"".join(digests)


def _name(session: Session, *indices: int) -> bytes:
    places = b"".join(index.to_bytes(INDEX_BYTES, "big") for index in indices)
    return bytes([VERSION]) + session.to_bytes() + places


def _shared(
    label: bytes,
    private: bytes,
    public: bytes,
    session: Session,
    sender: int,
    receiver: int,
    own: int,
) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise WeakKeyError("a public key of small order") from None
    mine = key.public_key().public_bytes_raw()
    publics = mine + public if own == sender else public + mine
    return _derive(secret, label + _name(session, sender, receiver) + publics)


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)
