"""The folder of a ledger: its files, its lock, and how a start finds or repairs them."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from common.errors import BudgetError
from common.identity.signing import Signer
from common.io.disk import DISK, Disk, cut, make_folder, os_errors, replace_file, write_at
from common.io.signing import make_signer, read_signer
from common.privacy import ledger_traces
from common.privacy.ledger_codec import NO_HASH, encode_head, make_entry
from common.privacy.ledger_entries import FORMAT, Head, Note, Open
from common.privacy.ledger_examine import Examined, examine, head_of
from common.privacy.ledger_spend import Epsilon
from common.privacy.ledger_state import LedgerState, advance, check_known
from common.privacy.ledger_traces import Traces, check_first, check_replaced, check_vectors

LEDGER: Final = "ledger.jsonl"
HEAD: Final = "ledger.head"
SEEN: Final = "ledger.seen"
LOCK: Final = "ledger.lock"
TORN: Final = ledger_traces.TORN
LOST: Final = ledger_traces.LOST
KEY: Final = "signing.key"
CLOCK_TOLERANCE_S: Final = 60
_ID_BYTES: Final = 16

Clock = Callable[[], int]
Random = Callable[[int], bytes]
Check = Callable[[LedgerState | None], None]
"""Raises BudgetError on a ledger, or the lack of one, that is not what is known elsewhere."""


class Content(NamedTuple):
    """What a folder has of its ledger.

    Attributes:
        ledger, head: bytes of the files; `None` for a missing one.
        seen: the newest head that the counterpart has shown this ledger not to have; `None`: none.
        traces: of what was there before.
    """

    ledger: bytes | None
    head: bytes | None
    seen: bytes | None
    traces: Traces


def utc_seconds() -> int:
    """The system's clock."""
    return int(time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Names of one ledger's files."""

    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / LEDGER

    @property
    def head(self) -> Path:
        return self.folder / HEAD

    @property
    def seen(self) -> Path:
        return self.folder / SEEN

    @property
    def lock(self) -> Path:
        return self.folder / LOCK

    @property
    def key(self) -> Path:
        return self.folder / KEY

    @property
    def vault_key(self) -> Path:
        return self.folder / ledger_traces.VAULT_KEY

    @property
    def vault(self) -> Path:
        return self.folder / ledger_traces.VAULT

    def next_aside(self, prefix: str, disk: Disk) -> Path:
        """The first name `prefix`N, counted from 1, that is free."""
        taken, number = set(disk.names(self.folder)), 1
        while f"{prefix}{number}" in taken:
            number += 1
        return self.folder / f"{prefix}{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What an open ledger works with, besides its state."""

    files: Files
    disk: Disk
    signer: Signer
    clock: Clock
    epsilon: Epsilon
    counterpart: str | None
    lock: int

    def time_after(self, last: int) -> int:
        """Time of a next entry; a clock that is a little behind the last entry counts as it.

        Raises:
            BudgetError: it is further behind than `CLOCK_TOLERANCE_S`.
        """
        now = self.clock()
        if now < last - CLOCK_TOLERANCE_S:
            raise BudgetError(
                f"the clock says {now}, {last - now} s before the last entry",
                place=str(self.files.ledger),
                remedy="set the clock right; if it ran ahead when that entry was made, wait until "
                "its time has come",
            )
        return max(now, last)

    def write_head(self, head: Head) -> None:
        replace_file(self.disk, self.files.head, encode_head(head))


def lock_folder(files: Files, disk: Disk) -> int:
    """The folder, made if need be, and its lock.

    Raises:
        BudgetError: another process has it.
    """
    missing = [path for path in (files.folder, *files.folder.parents) if not disk.exists(path)]
    for path in reversed(missing):
        make_folder(disk, path)
    disk.fsync_folder(files.folder.parent)  # a start that broke off may have made them
    with suppress(PermissionError):
        disk.fsync_folder(files.folder.parent.parent)
    lock = disk.lock(files.lock)
    if lock is None:
        holder = (disk.read(files.lock) or b"").decode("ascii", "replace").strip()
        raise BudgetError(
            f"the ledger is in use by process {holder or 'unknown'}",
            place=str(files.ledger),
            remedy="one worker per institution: stop the other one, or wait for it",
        )
    return lock


def read_files(files: Files, disk: Disk) -> Content:
    """What the folder has; the ledger is read last, so it is never behind the rest."""
    names, vault = disk.names(files.folder), disk.names(files.vault)
    seen, head = disk.read(files.seen), disk.read(files.head)
    torn = [name for name in names if name.startswith(TORN)] if head is None else []
    lost = [name for name in names if name.startswith(LOST)]
    lost.sort(key=lambda name: (len(name), name))  # 10 after 9
    traces = Traces(
        folder=tuple(names),
        vault=tuple(vault),
        torn={name: disk.read(files.folder / name) or b"" for name in torn},
        lost={name: disk.read(files.folder / name) or b"" for name in lost},
    )
    return Content(ledger=disk.read(files.ledger), head=head, seen=seen, traces=traces)


def examined(
    files: Files,
    found: Content,
    institution: str,
    public_key: str | None,
    known_head: Head | None,
) -> Examined:
    """`examine`, and whether something beside the ledger knows more of it; errors name the file."""
    with _named(files):
        seen = head_of(found.seen, SEEN)
        what = examine(
            found.ledger, found.head, institution=institution, public_key=public_key,
            known_head=known_head or seen,
        )  # fmt: skip
        if what.state is not None:
            check_known(what.state, seen)
            check_vectors(found.traces, what.state)
            check_replaced(found.traces, what.state)
        if found.head is None:
            check_first(found.traces, institution, found.ledger or b"", what.state)
    return what


@contextmanager
def _named(files: Files) -> Iterator[None]:
    """Errors of what the ledger says, with its file."""
    try:
        yield
    except BudgetError as error:
        place = f"{files.ledger}, {error.place}"
        raise BudgetError(error.message, place=place, remedy=error.remedy) from None


def read_state(folder: Path, institution: str, disk: Disk = DISK) -> tuple[Examined, bytes]:
    """What lies on disk, and the verified lines. Needs no lock and changes nothing.

    Raises:
        BudgetError: see `examine`.
    """
    files = Files(folder=folder)
    with os_errors(folder):
        signer = read_signer(files.key, disk)
        content = read_files(files, disk)
        while content.head != disk.read(files.head):  # its owner is writing just now
            content = read_files(files, disk)
    found = examined(files, content, institution, signer.public_key if signer else None, None)
    return found, (content.ledger or b"")[: found.good_bytes]


def begin(means: Means, institution: str, random: Random) -> tuple[LedgerState, bytes]:
    """State and line of a first entry."""
    body = Open(
        format=FORMAT,
        institution=institution,
        public_key=means.signer.public_key,
        ledger=random(_ID_BYTES).hex(),
    )
    entry = make_entry(1, means.time_after(0), body, NO_HASH, means.signer)
    return advance(None, entry), entry.line() + b"\n"


def signer_of(
    files: Files,
    found: Content,
    institution: str,
    known_head: Head | None,
    check: Check,
    random: Random,
    disk: Disk,
) -> Signer:
    """The key of the folder; made if there is no ledger yet, and nothing shows that one was.

    Raises:
        BudgetError: it is missing, damaged, or others may read it; or a ledger is missing.
    """
    signer = read_signer(files.key, disk)
    if signer is not None:
        return signer
    if any(found[:2]):
        raise BudgetError(
            "the ledger's signing key is missing",
            place=str(files.key),
            remedy="put it back from a copy; docs/ledger.md says what to do without one",
        )
    examined(files, found, institution, None, known_head)
    with _named(files):
        check(None)
    return make_signer(files.key, random, disk)


def start(
    means: Means,
    content: Content,
    institution: str,
    random: Random,
    known_head: Head | None,
    check: Check = lambda _state: None,
) -> tuple[LedgerState, int, Note | None]:
    """Verify, begin or repair.

    Returns:
        The state, the size of the file in bytes, and what is still to be noted in it.

    Raises:
        BudgetError: see `LedgerFile.open`.
    """
    means.disk.fsync_folder(means.files.folder)  # the head's new name may stand in memory only
    found = examined(means.files, content, institution, means.signer.public_key, known_head)
    with _named(means.files):
        check(found.state)
    note = _move_aside(means, found) if found.torn else None
    if found.state is None:
        state, line = begin(means, institution, random)
        _write_again(means, state, line, 0)
        return state, len(line), note
    if found.unacknowledged:
        whole = (content.ledger or b"")[: found.good_bytes]
        begins = whole.rfind(b"\n", 0, -1) + 1
        _write_again(means, found.state, whole[begins:], begins)
    return found.state, found.good_bytes, note


def _write_again(means: Means, state: LedgerState, line: bytes, offset: int) -> None:
    """Put the last line on disk for certain, then its head.

    A line that was never acknowledged may stand in memory only: an fsync of it may have failed.
    """
    write_at(means.disk, means.files.ledger, line, offset, create=True)
    means.disk.fsync_folder(means.files.folder)
    means.write_head(state.head)


def _move_aside(means: Means, found: Examined) -> Note:
    """Keep the torn end in a file of its own, then cut it off; not if the clock forbids a note."""
    files, disk = means.files, means.disk
    means.time_after(found.state.time if found.state else 0)
    aside = files.next_aside(TORN, disk)
    replace_file(disk, aside, found.torn)
    cut(disk, files.ledger, found.good_bytes)
    return Note(
        text=f"{len(found.torn)} bytes of an entry that was never acknowledged were moved aside",
        file=aside.name,
        sha256=hashlib.sha256(found.torn).hexdigest(),
    )
