"""A new ledger in the place of a lost or damaged one; the old files are kept."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from common.errors import BudgetError
from common.identity.signing import Signer
from common.io.disk import DISK, Disk, os_errors, replace_file
from common.io.ledger_folder import (
    LOST,
    Check,
    Clock,
    Content,
    Files,
    Means,
    Random,
    begin,
    examined,
    lock_folder,
    read_files,
    utc_seconds,
)
from common.io.signing import make_signer
from common.privacy.events import Unit
from common.privacy.ledger import Cap
from common.privacy.ledger_codec import MalformedError, make_entry, parse_head
from common.privacy.ledger_entries import Head, Open, Recover
from common.privacy.ledger_recovery import Given, plan_recovery
from common.privacy.ledger_salvage import Proof, Salvage, salvage
from common.privacy.ledger_spend import Epsilon, pld_epsilon
from common.privacy.ledger_state import LedgerState, advance, check_known
from common.privacy.ledger_stated import Charged
from common.privacy.ledger_traces import ledger_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What a site's audit log tells of its ledgers.

    Attributes:
        heads: the newest of each.
        charges: as of `plan_recovery`.
        check: as of `LedgerFile.open`: a ledger that it refuses is not intact.
    """

    heads: tuple[Head, ...] = ()
    charges: tuple[Charged, ...] = ()
    check: Check = lambda _state: None


NOTHING_LOGGED: Final = Logged()


def recover(
    folder: Path,
    institution: str,
    *,
    reason: str,
    caps: Sequence[Cap],
    assume: Mapping[Unit, Given],
    heads: Sequence[Head] = (),
    studies: Sequence[str] = (),
    logged: Logged = NOTHING_LOGGED,
    old_copy: bool = False,
    clock: Clock = utc_seconds,
    random: Random = os.urandom,
    epsilon: Epsilon = pld_epsilon,
    disk: Disk = DISK,
) -> LedgerState:
    """Begin a ledger that takes the old one as spent: see `plan_recovery`.

    Everything old stays, as `ledger.lost-N`. If this is interrupted, the folder is refused as
    before, and recovery is to be run again.

    Args:
        heads: what the counterpart has seen of the old ledger, if known.
        logged: what the site's audit log tells.
        old_copy: the operator says that the ledger, though it is intact, is not the last word: it
            is an older copy, or a clock that ran ahead has made its last entry.

    Raises:
        BudgetError: the ledger is intact, in use, or another institution's; or there is nothing to
            go by; or the disk does not allow it.
    """
    files = Files(folder=folder)
    with os_errors(folder):
        lock = lock_folder(files, disk)
    try:
        with os_errors(folder):
            content, signer = read_files(files, disk), _signer(files, disk)
            _check_owner(files, content, institution, signer)
            if not old_copy:
                _check_lost(files, content, institution, signer, heads, logged.check)
            found = _salvage(content, institution, signer)
            plan = plan_recovery(
                found, reason=reason, caps=caps, assume=assume, studies=studies,
                heads=(*_head_in(content.head), *_head_in(content.seen), *logged.heads, *heads),
                charges=logged.charges, epsilon=epsilon,
            )  # fmt: skip
            kept = _keep(files, content, damaged_key=signer is None, disk=disk)
            means = Means(
                files=files, disk=disk, clock=clock, epsilon=epsilon, counterpart=None, lock=lock,
                signer=signer or make_signer(files.key, random, disk),
            )  # fmt: skip
            state = _begin(means, institution, random, replace(plan, kept=kept))
            if content.seen is not None:  # what it said is among the heads
                disk.rename(files.seen, files.next_aside(LOST, disk))
                disk.fsync_folder(files.folder)
            return state
    finally:
        disk.close(lock)


def _signer(files: Files, disk: Disk) -> Signer | None:
    """The old key; `None` if it is missing or damaged."""
    with suppress(ValueError):
        return Signer(bytes.fromhex((disk.read(files.key) or b"").decode("ascii")))
    return None


def _check_owner(files: Files, content: Content, institution: str, signer: Signer | None) -> None:
    """Refuse what this folder's own key says is the ledger of another institution."""
    found = salvage([content[0] or b""], institution, signer.public_key if signer else None)
    other = [o.institution for o in found.bodies(Open, Proof.KEY) if o.institution != institution]
    if other:
        raise BudgetError(
            f"is the ledger of {other[0]}, expected that of {institution}",
            place=str(files.ledger),
            remedy="check `state` in the site file: each institution has a folder of its own, and "
            "keeps the name that stands in its ledger",
        )


def _check_lost(
    files: Files,
    content: Content,
    institution: str,
    signer: Signer | None,
    heads: Sequence[Head],
    check: Check,
) -> None:
    """Refuse to put aside a ledger that is as it should be."""
    if signer is None:
        return
    try:
        found = examined(files, content, institution, signer.public_key, None)
        if found.state is not None:
            check(found.state)
            for head in heads:
                check_known(found.state, head)
    except BudgetError:
        return
    if found.state is not None:
        raise BudgetError(
            f"is intact up to entry {found.state.seq}: there is nothing to recover",
            place=str(files.ledger),
            remedy="if the counterpart has seen more of it, give its head with --head; if it is an "
            "older copy, or its last entry was made by a clock that ran years ahead, --old-copy "
            "begins a new one on top of it: what it says counts as spent, and the lifetime cap too",
        )


def _salvage(content: Content, institution: str, signer: Signer | None) -> Salvage:
    """What is readable; of earlier ledgers too, unless the last one tells of them.

    What was put aside of the last one itself may be newer than what is there now.
    """
    key, last = signer.public_key if signer else None, content.ledger or b""
    found, lost = salvage([last], institution, key), list(content.traces.lost.values())
    own = {opened.ledger for opened in found.bodies(Open)}
    if found.bodies(Recover, Proof.KEY):
        lost = [data for data in lost if ledger_of(data) in own]
    return salvage([*lost, last], institution, key)


def _head_in(data: bytes | None) -> tuple[Head, ...]:
    with suppress(MalformedError):
        return (parse_head(data or b""),)
    return ()


def _keep(files: Files, content: Content, *, damaged_key: bool, disk: Disk) -> tuple[str, ...]:
    """Copies of what is about to be replaced: what each is called now, and what it was."""
    kept = []
    key = disk.read(files.key) if damaged_key else None
    for path, data in ((files.ledger, content[0]), (files.head, content[1]), (files.key, key)):
        if data is not None:
            aside = files.next_aside(LOST, disk)
            replace_file(disk, aside, data)
            kept.append(f"{aside.name}: {path.name}")
    return tuple(kept)


def _begin(means: Means, institution: str, random: Random, plan: Recover) -> LedgerState:
    opened, first = begin(means, institution, random)
    entry = make_entry(2, opened.time, plan, opened.hashes[-1], means.signer)
    state = advance(opened, entry)
    replace_file(means.disk, means.files.ledger, first, entry.line() + b"\n")
    means.write_head(state.head)
    return state
