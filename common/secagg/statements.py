"""What is signed in a secure sum, and by whom. Each text has version and session at its front.

| label   | signer      | text                                                                  |
|---------|-------------|-----------------------------------------------------------------------|
| request | coordinator | all before the signature: magic, version, kind, session, body         |
| reply   | institution | the same, of boxes, an opening or a complaint                         |
| advert  | institution | version, session, its index, two keys, commitment                     |
| view    | institution | version, session, hash of all adverts, model hash, lists of survivors |
|         |             | and drop-outs                                                         |

Study and roster hash are part of the session (`Session.to_bytes`). A request for all is one message
and signed once; an instruction, which brings each institution its own boxes, is signed for each.
Replies from which blame is drawn are signed, so that who carries them can put none on anybody.
"""

from typing import Final

from common.identity.signing import Signer, verify
from common.secagg.codec import signed_part
from common.secagg.messages import SIGNATURE_BYTES, VERSION, Advert, Request, Testimony
from common.secagg.session import Session

REQUEST: Final = b"fedner secagg request v1"
REPLY: Final = b"fedner secagg reply v1"
ADVERT: Final = b"fedner secagg advert v1"
VIEW: Final = b"fedner secagg view v1"


def sign(signer: Signer, label: bytes, text: bytes) -> bytes:
    """An Ed25519 signature, 64 bytes."""
    return bytes.fromhex(signer.sign(label, text))


def verified(public_key: str, label: bytes, text: bytes, signature: bytes) -> bool:
    """Whether the signature is the key's over this text under this label."""
    return verify(public_key, label, text, signature.hex())


def signed(coordinator: Signer, request: Request) -> bytes:
    """The bytes of a request under the coordinator's signature, whatever it bore before."""
    text = signed_part(request)
    return text + sign(coordinator, REQUEST, text)


def testified(institution: Signer, reply: Testimony) -> bytes:
    """The bytes of a reply under the institution's signature, whatever it bore before."""
    text = signed_part(reply)
    return text + sign(institution, REPLY, text)


def is_signed(public_key: str, message: bytes, label: bytes = REQUEST) -> bool:
    """Whether a message, as it came, ends with the key's signature over all before it."""
    text, signature = message[:-SIGNATURE_BYTES], message[-SIGNATURE_BYTES:]
    return verified(public_key, label, text, signature)


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
