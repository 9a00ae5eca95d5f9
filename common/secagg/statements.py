"""What is signed in a secure sum, and by whom. Each text begins with version and session.

| label       | signer      | then                                                          |
|-------------|-------------|---------------------------------------------------------------|
| invitation  | coordinator | nothing                                                       |
| instruction | coordinator | model hash                                                    |
| advert      | institution | its index, two keys, commitment                               |
| view        | institution | hash of all adverts, model hash, lists of survivors and drop-outs |

Study and roster hash are part of the session (`Session.to_bytes`).
"""

from typing import Final

from common.identity.signing import Signer, verify
from common.secagg.messages import VERSION, Advert
from common.secagg.session import Session

INVITATION: Final = b"fedner secagg invitation v1"
INSTRUCTION: Final = b"fedner secagg instruction v1"
ADVERT: Final = b"fedner secagg advert v1"
VIEW: Final = b"fedner secagg view v1"


def sign(signer: Signer, label: bytes, text: bytes) -> bytes:
    """An Ed25519 signature, 64 bytes."""
    return bytes.fromhex(signer.sign(label, text))


def verified(public_key: str, label: bytes, text: bytes, signature: bytes) -> bool:
    """Whether the signature is the key's over this text under this label."""
    return verify(public_key, label, text, signature.hex())


def invitation_text(session: Session) -> bytes:
    """What an invitation's signature covers."""
    return bytes([VERSION]) + session.to_bytes()


def instruction_text(session: Session, model: bytes) -> bytes:
    """What an instruction's signature covers; `model` is a hash of 32 bytes."""
    return bytes([VERSION]) + session.to_bytes() + model


def advert_text(advert: Advert) -> bytes:
    """What an advert's signature covers."""
    sender = advert.sender.to_bytes(2, "big")
    keys = advert.box_key + advert.mask_key + advert.commitment
    return bytes([VERSION]) + advert.session.to_bytes() + sender + keys


def view_text(
    session: Session,
    adverts: bytes,
    model: bytes,
    survivors: tuple[int, ...],
    dropped: tuple[int, ...],
) -> bytes:
    """What a survivor signs of its view; `adverts` and `model` are hashes of 32 bytes."""
    head = bytes([VERSION]) + session.to_bytes() + adverts + model
    return head + _indices(survivors) + _indices(dropped)


def _indices(indices: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in (len(indices), *indices))
