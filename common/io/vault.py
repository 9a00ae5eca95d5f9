"""Finished noised vectors, kept encrypted until they are no longer needed.

    vault.key              32 bytes, hexadecimal
    vault/LEDGER-SEQ.sealed    nonce (12 bytes) | AES-256-GCM ciphertext | tag (16)
    vault/.room.sealed.new     see `common.io.vault_room`

Guarantees:
    - When `put` returns, the vector is on disk; after a crash during it there is all or nothing.
    - What `get` returns is what was `put` under exactly this name: ledger, entry, study, round,
      purpose, request and attempt. What an earlier version sealed, without the last three, is
      returned only if it is the vector that the ledger's commit of this entry names.
    - Nothing is written over, and what can't be decrypted is moved aside, never deleted. Nor is a
      key made anew beside vectors that another one sealed.

Nonces are random: with one key and fewer than 2^32 vectors that is within NIST SP 800-38D, 8.3.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import BudgetError
from common.io.disk import DISK, UNFINISHED, Disk, make_folder, os_errors
from common.io.ledger_folder import Files, Random
from common.io.signing import make_secret, read_secret
from common.io.vault_room import VaultRoom
from common.privacy.ledger_codec import canonical
from common.privacy.ledger_entries import Purpose
from common.privacy.ledger_state import Reserved
from common.privacy.ledger_traces import SEALED

log = logging.getLogger("fedner.vault")

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MAX_BYTES: Final = (1 << 31) - 1 - 16
"""What `cryptography` encrypts in one call, less the tag."""
TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultName:
    """Which vector: it is encrypted with all of this as associated data."""

    ledger: str
    seq: int
    study: str
    round: int
    purpose: Purpose
    request: str
    attempt: int

    @classmethod
    def of(cls, reserved: Reserved) -> "VaultName":
        body = reserved.body
        return cls(
            ledger=reserved.ledger, seq=reserved.seq, study=body.study, round=body.round,
            purpose=body.purpose, request=body.request, attempt=body.attempt,
        )  # fmt: skip

    @property
    def file(self) -> str:
        return f"{self.ledger}-{self.seq}{SEALED}"

    def associated(self) -> bytes:
        more = [self.purpose, self.request, self.attempt]
        return canonical(["fedner vault v2", self.ledger, self.seq, self.study, self.round, *more])

    def associated_before(self) -> bytes:
        """As versions before the purpose was in it had it."""
        return canonical(["fedner vault v1", self.ledger, self.seq, self.study, self.round])


class Vault:
    """The vault of one ledger's folder. Whoever uses it holds that ledger's lock.

    Raises:
        BudgetError: the folder or its key can't be read or made, or the key of vectors that are
            there is missing.
    """

    def __init__(self, folder: Path, *, random: Random = os.urandom, disk: Disk = DISK):
        files = Files(folder=folder)
        self._folder, self._random, self._disk = files.vault, random, disk
        with os_errors(files.vault):
            key = read_secret(files.vault_key, KEY_BYTES, disk)
            if key is None:
                _check_none_sealed(files, disk)
                key = make_secret(files.vault_key, KEY_BYTES, random, disk)
            make_folder(disk, files.vault)
        self._cipher, self._room = AESGCM(key), VaultRoom(files.vault, disk)

    def __repr__(self) -> str:
        return f"Vault({self._folder})"

    def put(self, name: VaultName, vector: bytes) -> None:
        """Store a finished vector, once.

        Raises:
            BudgetError: there is one already, it is too long, or the disk does not take it.
        """
        path = self._folder / name.file
        _check_fits(len(vector), path)
        with os_errors(path):
            if self._disk.exists(path):
                raise BudgetError(
                    "a vector is stored for this reserve already",
                    place=str(path),
                    remedy="send the stored one, or reserve anew",
                )
            nonce = self._random(NONCE_BYTES)
            sealed = self._cipher.encrypt(nonce, vector, name.associated())
            self._room.store(path, nonce, sealed)

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Within this a vector of at most `size` bytes can be `put`, whoever fills the disk.

        When it is entered, there was room for the ledger's next entries besides.

        Raises:
            BudgetError: none so long can be sealed.
            StorageError: there is no room, or the disk fails; none is taken.
        """
        _check_fits(size, self._folder)
        with self._room.held(size, sealing=NONCE_BYTES + TAG_BYTES):
            yield

    def get(self, name: VaultName, committed: str | None = None) -> bytes | None:
        """The stored vector; `None` if there is none that can be decrypted.

        Args:
            committed: SHA-256 that the ledger has of it, if it has.

        Raises:
            BudgetError: the disk does not give it.
        """
        path = self._folder / name.file
        with os_errors(path):
            data = self._disk.read(path)
            if data is None:
                return None
            vector = self._opened(memoryview(data), name, committed)
            if vector is None:
                self._move_aside(path)
            return vector

    def _opened(self, sealed: memoryview, name: VaultName, committed: str | None) -> bytes | None:
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        with suppress(InvalidTag, ValueError):
            return self._cipher.decrypt(nonce, rest, name.associated())
        with suppress(InvalidTag, ValueError):
            vector = self._cipher.decrypt(nonce, rest, name.associated_before())
            if hashlib.sha256(vector).hexdigest() == committed:
                return vector
        return None

    def stored(self) -> Callable[[Reserved], bool]:
        """As the function of this name says of a folder."""
        return _stored(self._folder, self._disk)

    def flush(self) -> None:
        """Put on disk for certain whatever `get` finds: a `put` may have broken off at the end.

        Raises:
            BudgetError: the disk does not allow it.
        """
        with os_errors(self._folder):
            self._disk.fsync_folder(self._folder)

    def prune(self, over: Collection[VaultName], ledgers: Collection[str] = ()) -> int:
        """Delete stored vectors that are no longer needed, and how many that were; no others.

        What a crash left unfinished is deleted too.

        Args:
            over: their names, stored or not.
            ledgers: ids of ledgers, all of whose vectors are no longer needed.

        Raises:
            BudgetError: the disk does not allow it.
        """
        files = {name.file for name in over}
        with os_errors(self._folder):
            names = self._disk.names(self._folder)
            sealed = [name for name in names if name.endswith(SEALED)]
            gone = [name for name in sealed if name in files or name.split("-")[0] in ledgers]
            unfinished = [name for name in names if name.endswith(SEALED + UNFINISHED)]
            for name in (*gone, *unfinished):
                self._disk.remove(self._folder / name)
            self._disk.fsync_folder(self._folder)
        return len(gone)

    def _move_aside(self, path: Path) -> None:
        number, taken = 1, self._disk.names(self._folder)
        while f"{path.name}.damaged-{number}" in taken:
            number += 1
        log.error("%s can't be decrypted: moved aside; its round is charged anew", path.name)
        self._disk.rename(path, path.with_name(f"{path.name}.damaged-{number}"))
        self._disk.fsync_folder(self._folder)


def _check_fits(size: int, place: Path) -> None:
    if size > MAX_BYTES:
        raise BudgetError(
            f"a vector of {size} bytes can't be sealed, at most {MAX_BYTES} fit",
            place=str(place),
            remedy="agree on a study that trains fewer weights: `model.train`",
        )


def _check_none_sealed(files: Files, disk: Disk) -> None:
    """A key is made only where it has nothing to open."""
    sealed = [name for name in disk.names(files.vault) if name.endswith(SEALED)]
    if sealed:
        raise BudgetError(
            f"the vault's key is missing, and {len(sealed)} vectors are sealed with it",
            place=str(files.vault_key),
            remedy=f"put it back from a copy. If it is gone for good, so are the vectors: move "
            f"{files.vault}/*{SEALED} elsewhere by hand; what is asked for again of them is then "
            "charged anew",
        )


def stored(folder: Path, disk: Disk = DISK) -> Callable[[Reserved], bool]:
    """Tells of a reserve whether a vector is stored for it now, committed or not; opens none.

    Args:
        folder: of the ledger; without a vault there is none for any.

    Raises:
        StorageError: the disk does not say.
    """
    return _stored(Files(folder=folder).vault, disk)


def _stored(vault: Path, disk: Disk) -> Callable[[Reserved], bool]:
    with os_errors(vault):
        names = frozenset(disk.names(vault))
    return lambda reserved: VaultName.of(reserved).file in names
