"""The privacy ledger of one institution on disk: `docs/ledger.md` has the format.

    ledger.jsonl    one entry a line, only ever appended to
    ledger.head     number and hash of the last acknowledged entry
    ledger.seen     a head that a receipt has shown this ledger not to have
    ledger.lock     held by the one process that may write
    ledger.torn-N   unfinished ends that a crash left, moved aside
    signing.key     the institution's ledger key

Guarantees:
    - When `reserve`, `commit` or `anchor` returns, its entry is on disk, and then `ledger.head`.
    - A reserve that does not fit the caps is refused before anything is written.
    - After a crash at any point the next `open` succeeds, and no acknowledged entry is missing.
    - What no crash can leave behind is refused, naming the entry: see `examine`.
    - After an error of the disk the next call verifies and repairs what is there, as a start does,
      before it does anything: an entry that may be on disk counts, one that was acknowledged and is
      gone is refused. While the disk fails, so does every call.
    - What lies beside it and shows that there was more of it is refused: see
      `common.privacy.ledger_traces`.
    - Once the counterpart has shown this ledger to be an old copy, this object refuses everything,
      and so does each start until the newest one is put back or a recovery follows. Once someone
      else has written to its file, this object refuses everything.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from common.errors import BudgetError
from common.identity.signing import Signer
from common.io.disk import DISK, Disk, os_errors, replace_file, write_at
from common.io.ledger_folder import (
    Check,
    Clock,
    Files,
    Means,
    Random,
    lock_folder,
    read_files,
    signer_of,
    start,
    utc_seconds,
)
from common.privacy.ledger import Cap, Charge, charge_of, make_reserve
from common.privacy.ledger_codec import encode_head, make_entry
from common.privacy.ledger_entries import Anchor, Body, Commit, Head, Receipt
from common.privacy.ledger_spend import Epsilon, pld_epsilon
from common.privacy.ledger_state import (
    LedgerState,
    Reserved,
    advance,
    check_known,
    check_receipt,
    tells_more,
)

log = logging.getLogger("fedner.ledger")


class LedgerFile:
    """An open ledger; holds its lock until `close`. Make one with `LedgerFile.open`."""

    def __init__(self, means: Means, state: LedgerState, size: int):
        self._means = means
        self._state = state
        self._size = size
        self._written = ""  # hash of the entry that was written last
        self._unused: int | None = None  # a reserve for which nothing was computed, for certain
        self._unsure = False  # whether the disk has what the last write was to leave there
        self._failed = False
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: Path,
        institution: str,
        signer: Signer | None = None,
        clock: Clock = utc_seconds,
        random: Random = os.urandom,
        known_head: Head | None = None,
        *,
        counterpart: str | None = None,
        epsilon: Epsilon = pld_epsilon,
        disk: Disk = DISK,
        check: Check = lambda _state: None,
    ) -> "LedgerFile":
        """Lock, verify and, after a crash, repair; a ledger that is not there is begun.

        Args:
            folder: made if it is missing.
            signer: the institution's key; that of `signing.key`, made at the first start, if
                absent.
            clock: UTC seconds.
            known_head: the newest head that the counterpart has countersigned, if known.
            counterpart: its public key, pinned; else that of the first receipt is kept.
            epsilon: the accountant.
            check: told what was found, before anything is written; what it raises refuses it.

        Raises:
            BudgetError: another process has it; the files are not what a crash could have left;
                the disk or the clock does not allow it.
        """
        files = Files(folder=folder)
        with os_errors(folder):
            lock = lock_folder(files, disk)
        try:
            with os_errors(folder):
                found = read_files(files, disk)
                signer = signer or signer_of(
                    files, found, institution, known_head, check, random, disk
                )
                means = Means(
                    files=files, disk=disk, clock=clock, epsilon=epsilon, lock=lock,
                    counterpart=counterpart, signer=signer,
                )  # fmt: skip
                state, size, note = start(means, found, institution, random, known_head, check)
                ledger = cls(means, state, size)
                if note is not None:
                    ledger._append(note)
                return ledger
        except BaseException:
            disk.close(lock)
            raise

    @property
    def state(self) -> LedgerState:
        return self._state

    @property
    def head(self) -> Head:
        """What to send to the counterpart, to be countersigned."""
        return self._state.head

    @property
    def public_key(self) -> str:
        return self._means.signer.public_key

    def attempts(self, charge: Charge) -> tuple[Reserved, ...]:
        """The reserves already made for what `charge` is for, oldest first.

        Raises:
            BudgetError: as `reserve`; where it is a `StorageError`, the disk fails still.
        """
        self._check_usable()
        return self._state.attempts(charge.study, charge.round, charge.purpose, charge.request)

    def reserve(self, charge: Charge, caps: Sequence[Cap] = ()) -> Reserved:
        """Record a charge. Only when this has returned may the data be touched.

        A reserve of the same charge that this object wrote, and could not acknowledge since the
        disk failed, is taken instead: nothing was computed for it.

        Raises:
            BudgetError: it does not fit the caps (nothing is written), or it could not be
                recorded.
        """
        self._check_usable()
        if (unused := self._take_unused(charge)) is not None:
            return unused
        self._append(make_reserve(self._state, caps, charge, self._means.epsilon))
        return self._state.reserves[self._state.seq]

    def commit(self, reserved: Reserved, vector_sha256: str) -> Reserved:
        """Record that the finished vector is stored. It changes no spend.

        Raises:
            BudgetError: not an open reserve of this ledger, or it could not be recorded.
        """
        self._check_usable()
        if reserved.ledger != self._state.opened.ledger:
            raise BudgetError(
                f"a reserve of another ledger, {reserved.ledger}; this is "
                f"{self._state.opened.ledger}",
                place=f"{self._means.files.ledger}, entry {reserved.seq}",
                remedy="a fault of fedner's: nothing was written; start again",
            )
        self._append(Commit(reserve=reserved.seq, vector=vector_sha256))
        return self._state.reserves[reserved.seq]

    def anchor(self, receipt: Receipt, *, vouched: bool = False) -> None:
        """Check a countersignature, and record it if it tells more than the last: `tells_more`.

        Args:
            vouched: whether the receipt came under the signature of somebody who is known.

        Raises:
            BudgetError: another key than before, or a wrong signature; or a head that this
                ledger has not: it is an old copy then, and this object refuses everything, as
                does the next start. Not so on the word of a key that nobody vouches for, pinned
                or heard before: anybody could lock the ledger with it.
        """
        self._check_usable()
        pinned = self._means.counterpart
        check_receipt(self._state, receipt, pinned)
        self._failed = True
        try:
            check_known(self._state, receipt.head)
        except BudgetError as error:
            if vouched or pinned is not None or self._state.counterpart is not None:
                self._remember(receipt.head)
            place = f"{self._means.files.ledger}, {error.place}"
            raise BudgetError(error.message, place=place, remedy=error.remedy) from None
        self._failed = False
        if tells_more(self._state, receipt):
            self._append(Anchor(receipt=receipt, pinned=pinned is not None))

    def _remember(self, head: Head) -> None:
        """That this is an old copy, for the next start."""
        path = self._means.files.seen
        try:
            replace_file(self._means.disk, path, encode_head(head))
        except OSError as error:
            log.error("%s: %s: only the next receipt shows it again", path, error.strerror)

    def close(self) -> None:
        """Give the lock back. Twice is once."""
        if not self._closed:
            self._closed = True
            self._means.disk.close(self._means.lock)

    def __enter__(self) -> "LedgerFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._failed or self._closed:
            raise BudgetError(
                "this ledger was closed" if self._closed else "this ledger has failed before",
                place=str(self._means.files.ledger),
                remedy="mend what failed and start again: the next start checks and repairs",
            )
        if self._unsure:
            self._verify_again()

    def _verify_again(self) -> None:
        """Take for the state what is on disk, verified and repaired; the lock is held all along.

        Raises:
            BudgetError: the disk fails still, or lacks an entry that was acknowledged.
        """
        means, before = self._means, self._state
        with os_errors(means.files.folder):
            found = read_files(means.files, means.disk)
            state, size, note = start(
                means, found, before.opened.institution, os.urandom, before.head
            )
            self._check_own(state)
        self._state, self._size, self._unsure = state, size, False
        if state.seq > before.seq:
            self._unused = state.seq
        if note is not None:
            self._append(note)
        log.warning("the disk failed and is mended: the ledger goes on after entry %d", state.seq)

    def _check_own(self, found: LedgerState) -> None:
        """Refuse what another process wrote while this one had the lock."""
        more = found.seq - self._state.seq
        if more > 1 or (more == 1 and found.hashes[-1] != self._written):
            self._failed = True
            raise BudgetError(
                f"has {more} entries after {self._state.seq} that this process did not write: "
                "someone else has written to it",
                place=str(self._means.files.ledger),
                remedy="find out who; then start again: the next start checks and repairs",
            )

    def _take_unused(self, charge: Charge) -> Reserved | None:
        """The reserve that nothing was computed for, if it is of exactly this charge; once."""
        found = None if self._unused is None else self._state.reserves.get(self._unused)
        if found is None or charge != charge_of(found.body):
            return None
        self._unused = None
        return found

    def _append(self, body: Body) -> None:
        """Check, record, apply. If recording breaks off, the disk may have the entry or not."""
        means, before = self._means, self._state
        time_s = means.time_after(before.time)
        entry = make_entry(before.seq + 1, time_s, body, before.hashes[-1], means.signer)
        state, line = advance(before, entry), entry.line() + b"\n"
        self._unsure, self._written = True, entry.hash()
        with os_errors(means.files.ledger):
            self._check_size()
            write_at(means.disk, means.files.ledger, line, self._size)
            means.write_head(state.head)
        self._state, self._size, self._unsure = state, self._size + len(line), False

    def _check_size(self) -> None:
        found = self._means.disk.size(self._means.files.ledger)
        if found != self._size:
            self._failed = True
            raise BudgetError(
                f"has {found} bytes, expected {self._size}: someone else has written to it",
                place=str(self._means.files.ledger),
                remedy="start again: the next start checks the file",
            )
