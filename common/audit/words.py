"""What an entry may say of an error or a message.

Guarantee: an error's own words are taken only from errors about policy, budget and protocol, which
name studies, figures and rules. Of any other, a reader's of documents above all, the class name is
all that is said.
"""

import hashlib
import re
import struct
from collections.abc import Iterable
from typing import Final

from common.audit.entries import ERROR_NAME, MAX_REASON, MAX_REASONS
from common.errors import BudgetError, IdentityError, PolicyError, ProtocolError
from common.wire import MAGIC

_SAYABLE: Final = (PolicyError, BudgetError, ProtocolError, IdentityError)
_CUT: Final = " [...]"
_PREFIX_BYTES: Final = 8


def name_of(error: BaseException) -> str:
    """The class of an error, as an entry may hold it."""
    name = type(error).__name__
    return name if re.fullmatch(ERROR_NAME, name) else "Exception"


def reasons_of(error: BaseException) -> tuple[str, ...]:
    """Why something was refused, as an entry may hold it."""
    if not isinstance(error, _SAYABLE):
        return (name_of(error),)
    return sayable(f"{name_of(error)}: {line}" for line in error.message.splitlines())


def sayable(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts of fedner's own as reasons: what is not printable ASCII becomes `?`, and the length
    has a limit.
    """
    clean = (re.sub(r"[^ -~]", "?", text) for text in texts)
    return tuple(_cut(text) for text in clean if text)[:MAX_REASONS]


def digest_of(message: bytes) -> str:
    """SHA-256 of a message up to the end of its header, which names the hashes of all that
    follows (`common.wire`): it tells messages apart at no cost. Of any other bytes, of all.
    """
    return hashlib.sha256(memoryview(message)[: _header_end(message)]).hexdigest()


def _header_end(message: bytes) -> int:
    if len(message) < _PREFIX_BYTES or message[: len(MAGIC)] != MAGIC:
        return len(message)
    (length,) = struct.unpack_from(">I", message, len(MAGIC))
    end: int = _PREFIX_BYTES + length
    return min(end, len(message))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - len(_CUT)] + _CUT
