"""What the coordinator remembers of each institution's privacy ledger, under its own signature.

An institution's chain of entries can't show that its end was cut off or that the whole is an old
copy. So its head goes out with every reply, is countersigned here, and comes back with the next
request: an institution that has less than what was seen refuses to go on. Where institutions have
identities they sign their heads: else who carries a reply could have a head of its own making
countersigned, behind which the true ledger would be taken for an old copy.
"""

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from common.errors import BudgetError, FederationError
from common.identity.signing import verify
from common.io.disk import DISK, replace_file
from common.io.signing import make_signer, read_signer
from common.privacy.ledger_codec import countersign, head_from_text
from common.privacy.ledger_entries import Head, Receipt
from common.wire import HEADS, Reply, head_text

log = logging.getLogger("fedner.server")

KEY: Final = "signing.key"
BOOK: Final = "ledger-heads.json"
LOCK: Final = "ledger-heads.lock"
TURN_S: Final = 30.0
"""A turn is one small file, written and flushed."""


class ReceiptBook:
    """The newest head of each institution, kept across runs, studies and processes.

    Args:
        folder: of this coordinator; made, with a signing key, if it is not there.
        clock: UTC seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], int] = lambda: int(time.time())):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._clock = clock
        self._unkept: dict[str, dict[str, Any]] = {}
        with self._alone():
            self._signer = read_signer(folder / KEY) or make_signer(folder / KEY, os.urandom)

    @property
    def public_key(self) -> str:
        """What institutions pin, or learn with their first receipt."""
        return self._signer.public_key

    def receipts(self, institutions: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """The newest receipt of each institution that has one."""
        known = self._known()
        return {name: known[name] for name in institutions if name in known}

    def see(self, heads: Mapping[str, str]) -> None:
        """Countersign the heads that came with replies; only a newer one replaces a receipt.

        What the disk does not take is kept in memory, and said: the replies are not lost for it.
        `keep` tries again.

        Args:
            heads: of institutions that did as they were asked. A head of another ledger is kept
                too, and logged: who answers a request that carries the old receipt has found
                that its ledger follows the old one by a recovery; else it would have refused.
        """
        known = self._known()
        newer = {n: h for n, text in heads.items() if (h := _newer(n, text, known.get(n)))}
        for name, head in newer.items():
            self._unkept[name] = asdict(countersign(head, self._signer, self._clock()))
        try:
            self._write()
        except OSError as error:
            log.error("receipts wait in memory: %s: %s", self._folder / BOOK, error.strerror)

    def keep(self) -> None:
        """Put on disk what waits.

        Raises:
            FederationError: it can't be.
        """
        try:
            self._write()
        except OSError as error:
            raise FederationError(
                f"receipts can't be written: {error.strerror or type(error).__name__}",
                place=str(self._folder / BOOK),
                remedy="free some space or mend the disk, then `fedner server --resume`: nobody "
                "was asked for a vector yet",
            ) from None

    def _write(self) -> None:
        if not self._unkept:
            return
        with self._alone():
            known = self._read()  # another study of this coordinator may have seen more meanwhile
            ours = {n: r for n, r in self._unkept.items() if not _is_beyond(known.get(n), r)}
            content = json.dumps({**known, **ours}, indent=2).encode() + b"\n"
            replace_file(DISK, self._folder / BOOK, content)
            self._unkept = {}

    def _known(self) -> dict[str, dict[str, Any]]:
        return {**self._read(), **self._unkept}

    def _read(self) -> dict[str, dict[str, Any]]:
        """What is on disk.

        Raises:
            FederationError: it is damaged.
        """
        path = self._folder / BOOK
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text("utf-8"))
            return {name: asdict(Receipt(**receipt)) for name, receipt in content.items()}
        except (ValueError, TypeError, AttributeError):
            raise FederationError(
                "is damaged: expected the newest receipt of each institution, as JSON",
                place=str(path),
                remedy="put back the newest copy. Without one remove it: a ledger that was put "
                "back to an older state before its next receipt is then not found out",
            ) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two studies of one coordinator take turns.

        Raises:
            TimeoutError: the other one has not given its turn up in `TURN_S`.
        """
        deadline = time.monotonic() + TURN_S
        with (self._folder / LOCK).open("a") as lock:
            while not _locked(lock.fileno()):
                if time.monotonic() > deadline:
                    said = f"another process has held {LOCK} for {TURN_S:g} s"
                    raise TimeoutError(errno.ETIMEDOUT, said)
                time.sleep(0.05)
            yield


def head_of(reply: Reply, public_keys: Mapping[str, str] | None) -> str:
    """Head of the ledger that a reply states; empty if the institution did not sign it.

    Where heads are signed, none of `hello` counts: an earlier one could be said again, and bring a
    ledger back that a recovery has ended.

    Args:
        public_keys: of the institutions; absent in a study that asks for no identity.
    """
    if public_keys is None or not reply.ledger:
        return reply.ledger
    if reply.kind == "hello":
        return ""
    key = public_keys.get(reply.institution, "")
    if verify(key, HEADS, head_text(reply), reply.ledger_signature):
        return reply.ledger
    log.error(
        "round %d: the head of %s's ledger is not signed by it, and not countersigned: whoever "
        "carries its replies has changed it",
        reply.round, reply.institution,
    )  # fmt: skip
    return ""


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_beyond(known: Mapping[str, Any] | None, receipt: Mapping[str, Any]) -> bool:
    """Whether what is known of the same ledger goes further."""
    return known is not None and (
        known["ledger"] == receipt["ledger"] and known["seq"] >= receipt["seq"]
    )


def _newer(name: str, text: str, before: Mapping[str, Any] | None) -> Head | None:
    """The head, if it goes beyond what was seen before."""
    try:
        head = head_from_text(text)
    except BudgetError as error:
        log.warning("%s: %s", name, error.message)
        return None
    if before and before["ledger"] != head.ledger:
        log.warning("%s has begun another ledger: %s", name, head)
    elif before and before["seq"] >= head.seq:
        return None
    return head
