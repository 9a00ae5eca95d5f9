"""One vector for one charge: the stored one, or a new one that is charged first.

A vector is computed once. A retry sends the stored bytes; if they are lost, the charge is reserved
anew, with fresh sampling and noise: the same noise on another sum would reveal the difference.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence

from common.io.ledger_file import LedgerFile
from common.io.vault import Vault, VaultName
from common.privacy.ledger import Cap, Charge
from common.privacy.ledger_state import Reserved

log = logging.getLogger("fedner.vault")


def release(
    ledger: LedgerFile,
    vault: Vault,
    charge: Charge,
    caps: Sequence[Cap],
    compute: Callable[[Reserved], bytes],
    size: int = 0,
    before: Callable[[], None] = lambda: None,
) -> bytes:
    """The vector for a charge: the stored one, or a new one that is charged first.

    1. The same study, round, purpose and request again: the bytes of the newest attempt.
    2. Else: take room, reserve, compute, store, commit.

    Args:
        compute: touches the data. Draws fresh sampling and noise each time it is called.
        size: bytes that the vector has at most; room for a longer one is not sure.
        before: reserves what is to be charged before a new vector is, once there is room.

    Raises:
        BudgetError: the caps or the disk do not allow it; then nothing may be sent. Where there is
            no room for `size` bytes, nothing was charged.
    """
    for earlier in reversed(ledger.attempts(charge)):
        vector = vault.get(VaultName.of(earlier), earlier.vector)
        if vector is not None and _is_right(ledger, vault, earlier, vector):
            return vector
    with vault.room(size):
        before()
        reserved = ledger.reserve(charge, caps)
        vector = compute(reserved)
        vault.put(VaultName.of(reserved), vector)
    ledger.commit(reserved, hashlib.sha256(vector).hexdigest())
    return vector


def _is_right(ledger: LedgerFile, vault: Vault, earlier: Reserved, vector: bytes) -> bool:
    """Whether a stored vector is the committed one; commits it if a crash came before that."""
    digest = hashlib.sha256(vector).hexdigest()
    if earlier.vector is None:
        vault.flush()
        ledger.commit(earlier, digest)
        return True
    if earlier.vector != digest:
        log.error("the vector of entry %d is not the committed one: not sent", earlier.seq)
    return earlier.vector == digest
