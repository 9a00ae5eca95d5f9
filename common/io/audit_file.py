"""The audit log of one side on disk: `docs/audit-log.md` has the format.

    audit.jsonl    one entry a line, only ever appended to; mode 0600
    audit.lock     held by the one process that may write
    audit.torn-N   unfinished ends that a crash left, set aside

Guarantees:
    * When `append` returns, its entries are on disk.
    * When it raises, nothing acknowledged was touched, and what is left of them is taken off, at
      the latest by the next append: a disk that was full is used again once there is room.
    * After a crash at any point the next `open` succeeds, and no acknowledged entry is missing.
    * `open` refuses a log that is not what was written: see `common.audit.examine`.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import __version__
from common.audit.chain import Chain
from common.audit.codec import Entry, Head, make_entry
from common.audit.entries import FORMAT, Body, Insecure, Open, Side, Start, Torn
from common.audit.errors import AuditError, AuditStorageError
from common.audit.examine import MAX_UNFINISHED, Examined, examine, readable
from common.errors import StorageError
from common.identity.signing import Signer
from common.io.disk import DISK, Disk, cut, os_errors, replace_file, write_at
from common.io.ledger_folder import Clock, Files, Random, utc_seconds

LOG: Final = "audit.jsonl"
LOCK: Final = "audit.lock"
TORN: Final = "audit.torn-"
_ID_BYTES: Final = 16
_REMEDY: Final = (
    "keep the file as it is and look into it: `fedner log verify`. To go on, move it elsewhere: "
    "the next start begins a new log"
)


class AuditFile:
    """An open log; holds its lock until `close`. Make one with `AuditFile.open`."""

    def __init__(
        self, path: Path, chain: Chain, size: int, signer: Signer | None, clock: Clock, disk: Disk
    ):
        self._path, self._chain, self._size = path, chain, size
        self._signer, self._clock, self._disk = signer, clock, disk
        self._unsure = 0
        """Bytes beyond `_size` that a failed append may have left."""
        self._lock: int | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        side: Side,
        name: str,
        study: str,
        roster: str | None = None,
        signer: Signer | None = None,
        clock: Clock = utc_seconds,
        random: Random = os.urandom,
        disk: Disk = DISK,
    ) -> "AuditFile":
        """Lock, verify and, after a crash, mend; a log that is not there is begun.

        The first entry after this says which process writes from here on.

        Args:
            folder: must be there.
            name: the institution, or `coordinator`.
            study, roster: hashes of what the process works for.
            signer: the side's identity; without one nothing is signed, and an entry says so.
            clock: UTC seconds.

        Raises:
            AuditError: another process has it, it is another's or not what was written, or others
                may read it.
            AuditStorageError: the disk does not take or give it.
        """
        path, key = folder / LOG, signer.public_key if signer else None
        lock = _lock(folder, disk)
        try:
            found = read_log(path, side, name, disk)
            log = cls(path, found.chain, found.whole, signer, clock, disk)
            log._begin(
                Open(format=FORMAT, side=side, name=name, log=random(_ID_BYTES).hex(),
                     public_key=key),
                Start(process="worker" if side == "site" else "coordinator", version=__version__,
                      pid=os.getpid(), uid=os.getuid(), public_key=key, study=study, roster=roster),
                _set_aside(path, found, disk),
            )  # fmt: skip
        except BaseException:
            disk.close(lock)
            raise
        log._lock = lock
        return log

    @property
    def path(self) -> Path:
        """Its file."""
        return self._path

    @property
    def chain(self) -> Chain:
        """Where the log stands."""
        return self._chain

    @property
    def head(self) -> Head:
        """To be kept elsewhere: it shows a cut end."""
        head = self._chain.head
        if head is None:
            raise AuditError("an open log has its first entry", place=str(self._path))
        return head

    def now(self) -> int:
        """UTC seconds, as the next entry will have them."""
        return self._clock()

    def append(self, *bodies: Body) -> None:
        """Write entries, in order; none is nothing.

        Raises:
            AuditError: someone else has written to the file.
            AuditStorageError: the disk does not take them.
        """
        if self._lock is None:
            raise AuditError("this log was closed", place=str(self._path))
        if bodies:
            self._append(bodies)

    def close(self) -> None:
        """Give the lock back. Twice is once."""
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    def _begin(self, opened: Open, started: Start, torn: Torn | None) -> None:
        first: list[Body] = [] if self._chain.opened else [opened]
        unsigned = [] if self._signer else [Insecure(choice="unsigned-log")]
        self._append([*first, started, *([torn] if torn else []), *unsigned])
        with _disk_errors(self._path):
            self._disk.fsync_folder(self._path.parent)

    def _append(self, bodies: Sequence[Body]) -> None:
        with _disk_errors(self._path):
            self._mend()
            try:
                self._write(bodies)
            except BaseException:
                with suppress(OSError, AuditError):
                    self._mend()
                raise

    def _write(self, bodies: Sequence[Body]) -> None:
        chain, lines, end = self._chain, [], self._size
        for body in bodies:
            entry = make_entry(chain.seq + 1, self._clock(), body, chain.hash, self._signer)
            lines.append(entry.line + b"\n")
            chain = chain.after(entry)
        for piece in _pieces(lines):
            self._unsure = end + len(piece) - self._size
            write_at(self._disk, self._path, piece, end, create=True)
            end += len(piece)
        self._chain, self._size, self._unsure = chain, end, 0

    def _mend(self) -> None:
        """Take off what a failed append may have left.

        Raises:
            AuditError: the file is not as long as it was left.
        """
        found = self._disk.size(self._path) if self._disk.exists(self._path) else 0
        if not self._size <= found <= self._size + self._unsure:
            raise AuditError(
                f"has {found} bytes, expected {self._size}: someone else has written to it",
                place=str(self._path),
                remedy=_REMEDY,
            )
        if found > self._size:
            cut(self._disk, self._path, self._size)
        self._unsure = 0


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines together, as long as a crash may leave them unfinished."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > MAX_UNFINISHED:
            yield piece
            piece = b""
        piece += line
    yield piece


def _lock(folder: Path, disk: Disk) -> int:
    with _disk_errors(folder):
        lock = disk.lock(folder / LOCK)
    if lock is None:
        holder = (disk.read(folder / LOCK) or b"").decode("ascii", "replace").strip()
        raise AuditError(
            f"the audit log is in use by process {holder if holder.isdigit() else 'unknown'}",
            place=str(folder / LOG),
            remedy="one process writes it: stop the other one, or wait for it",
        )
    return lock


def read_log(path: Path, side: Side, name: str, disk: Disk = DISK) -> Examined:
    """The log, which must be what was written but for an end that a crash left; empty if absent.

    Needs no lock and changes nothing.

    Raises:
        AuditError: it is not what was written, another's, or others may use it.
        AuditStorageError: the disk does not give it.
    """
    with _disk_errors(path):
        mode = disk.mode(path) if disk.exists(path) else 0
    if mode & 0o077:
        raise AuditError(
            f"others than its owner may use it: mode {mode:03o}",
            place=str(path),
            remedy=f"chmod 600 {path}",
        )
    found = examine(_data(path, disk))
    if found.broken:
        raise AuditError(f"the log is broken: {found.broken[0]}", place=str(path), remedy=_REMEDY)
    _require_owner(path, found, side, name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What is readable of a log.

    Attributes:
        entries: of the file, in its order.
        aside: of the ends that a start has set aside.
        fault: why that may not be all; empty if the log is what was written.
    """

    entries: tuple[Entry, ...]
    aside: tuple[Entry, ...]
    fault: str


def salvage_log(path: Path, side: Side, name: str, disk: Disk = DISK) -> Salvaged:
    """Whatever is readable of the log, broken or not; nothing if absent.

    Raises:
        AuditError: it is another's.
        AuditStorageError: the disk does not give it.
    """
    data = _data(path, disk)
    found, entries = examine(data), readable(data)
    _require_owner(path, found, side, name)
    with _disk_errors(path):
        torn = [n for n in disk.names(path.parent) if n.startswith(TORN)]
    aside = (entry for n in torn for entry in readable(_data(path.parent / n, disk)))
    fault = str(found.broken[0]) if found.broken else ""
    if not fault and len(entries) > len(found.entries):
        fault = f"line {found.lines + 1} is damaged, and whole ones follow it"
    return Salvaged(entries=entries, aside=tuple(aside), fault=fault)


def _data(path: Path, disk: Disk) -> bytes:
    with _disk_errors(path):
        return disk.read(path) or b""


def _require_owner(path: Path, found: Examined, side: Side, name: str) -> None:
    opened = found.chain.opened
    if opened is not None and (opened.side, opened.name) != (side, name):
        raise AuditError(
            f"this is the log of {opened.side} {opened.name}, expected that of {side} {name}",
            place=str(path),
            remedy="each institution, and each run of a coordinator, has a folder of its own",
        )


def _set_aside(path: Path, found: Examined, disk: Disk) -> Torn | None:
    """Keep the unfinished end in a file of its own, then cut it off."""
    torn = found.unfinished
    if not torn:
        return None
    with _disk_errors(path):
        aside = Files(folder=path.parent).next_aside(TORN, disk)
        replace_file(disk, aside, torn)
        cut(disk, path, found.whole)
    return Torn(file=aside.name, bytes=len(torn), sha256=hashlib.sha256(torn).hexdigest())


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """Errors of the operating system as `AuditStorageError`: they pass, but for missing rights."""
    try:
        with os_errors(place):
            try:
                yield
            except PermissionError:
                raise AuditError(
                    "this user may not read or write it",
                    place=str(place),
                    remedy="chown it to the user that the worker, or the server, runs as",
                ) from None
    except StorageError as error:
        raise AuditStorageError(error.message, place=error.place, remedy=error.remedy) from None
