"""What a site remembers of its secure sums across restarts: which sessions it began, what it said.

Ephemeral secrets live in memory only, so a restart ends every session. What must outlive it is that
no session is begun twice, and that a vector which bears no noise enters one session only.

    STUDY.json    {purpose: [{round, attempt, stages: {stage: SHA-256 of the reply},
                              survivors: [place on the roster, ...]}, ...],
                   "models": {purpose: [SHA-256 of a model whose vector was sent, ...]}}

Guarantees:
    - When `note` returns, what it was told is on disk; after a crash during it, all or nothing.
    - Of one purpose no session is begun twice, and (round, attempt) never goes down, but that round
      r may still be tried again when no more than the keys of round r + 1 were fetched ahead: of
      each of these two the attempt never goes down. From its first vector on, no round before it
      is begun again.
    - Over whom a sum of a round may have been opened stays known for all its later attempts, and
      another set is never noted.
    - Every model that was named with a masked vector is remembered, of each purpose apart.
    - A file that can't be read or is malformed is refused, never begun anew; so is one that is
      gone: a marker beside the folder tells that there was one.
    - One process at a time has the file, from before it reads it until `close`; after that nothing
      can be noted, so a worker that ends late says nothing that the next one does not know.

Whoever puts an old copy of the file back undoes this: keep the folder out of restores.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError, StorageError
from common.io.disk import DISK, Disk, os_errors, replace_file
from common.secagg.session import PURPOSES, Purpose
from common.secagg.states import Durable
from common.secagg.transitions import Stage

KEPT: Final = 2
"""Rounds of one purpose that are alive at once: this one, and the next one, for its keys."""
_STAGES: Final = frozenset(Stage)
_AHEAD: Final = frozenset({Stage.ADVERTISED.value, Stage.SHARED.value})
"""What is said in a session whose keys travel ahead."""
_MODELS: Final = "models"
_SHA256: Final = "[0-9a-f]{64}"

Order = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A session's round and attempt, and what was replied in it: SHA-256 by stage.

    Attributes:
        survivors: over whom, in this attempt or an earlier one, the sum may have been opened.
    """

    round: int
    attempt: int
    stages: Mapping[str, str] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()

    @property
    def order(self) -> Order:
        """What must increase."""
        return self.round, self.attempt

    @property
    def is_ahead(self) -> bool:
        """Whether no more than keys were given in it."""
        return self.stages.keys() <= _AHEAD


Sessions = Mapping[Purpose, tuple[Begun, ...]]
Models = Mapping[Purpose, tuple[str, ...]]


class Freshness:
    """The file of one study at one site, and its lock, held until `close`.

    Args:
        folder: of the site's state; made if missing, its parent must be there.
        study: hash, in hexadecimal.

    Raises:
        FederationError: another process has it, or the file is malformed or gone.
        StorageError: the disk does not give or take it.
    """

    def __init__(self, folder: Path, study: str, *, disk: Disk = DISK):
        self._path, self._disk = folder / f"{study}.json", disk
        self._marker = folder.parent / f"{folder.name}.{study}.begun"
        self._lock: int | None = None
        try:
            with os_errors(self._path):
                disk.make_folder(folder)
                disk.fsync_folder(folder.parent)
                self._lock = disk.lock(folder / f"{study}.lock")
                self._require_locked()
                self._begun, self._models = self._start()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.close()
            raise self._broken(f"can't be read: {type(error).__name__}") from None
        except (FederationError, StorageError):
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back; nothing can be noted any more. Twice is once."""
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    def _require_locked(self) -> None:
        if self._lock is None:
            raise FederationError(
                "in use by another process, or closed",
                place=str(self._path),
                remedy="one worker per institution: stop the other one, or wait for it",
            )

    def _start(self) -> tuple[Sessions, Models]:
        """What the file says; where there was none before, an empty one and then its marker."""
        data, marked = self._disk.read(self._path), self._disk.read(self._marker) is not None
        if data is None and marked:
            raise self._broken("is gone")
        if data is None:
            replace_file(self._disk, self._path, _text({}, {}))
        found = _parsed(data)
        if not marked:
            replace_file(self._disk, self._marker, b"")
        return found

    def newest(self, purpose: Purpose, round_: int) -> dict[Purpose, Order]:
        """What a session of this round must be newer than: `Idle.newest` for its machine."""
        known = self._begun.get(purpose, ())
        later = [b for b in known if b.round > round_]
        if {b.round for b in later} == {round_ + 1} and all(b.is_ahead for b in later):
            known = tuple(b for b in known if b.round <= round_)
        return {purpose: known[-1].order} if known else {}

    def masked(self, purpose: Purpose) -> Order | None:
        """(round, attempt) of the newest session in which a masked vector was sent."""
        found = [b.order for b in self._begun.get(purpose, ()) if Stage.MASKED in b.stages]
        return max(found, default=None)

    def opened_over(self, purpose: Purpose, round_: int) -> tuple[int, ...]:
        """Survivors of a sum of this round that may have been opened; empty if there was none."""
        known = self._begun.get(purpose, ())
        return next((b.survivors for b in known if b.round == round_ and b.survivors), ())

    def was_used(self, purpose: Purpose, model: str) -> bool:
        """Whether a vector of this model was ever sent under masks."""
        return model in self._models.get(purpose, ())

    def note(self, durable: Durable, model: str = "") -> None:
        """Put on disk what is about to be said; the same again changes nothing.

        Args:
            model: SHA-256, in hexadecimal, of the model whose vector is sent, to be remembered.

        Raises:
            FederationError: it goes back behind what was noted, or is a second, different reply, or
                this was closed.
            StorageError: the disk does not take it; the next call tries again. Nothing may be sent,
                whichever it is.
        """
        self._require_locked()
        session = durable.session
        known = self._begun.get(session.purpose, ())
        begun = next((b for b in known if b.order == session.order), None)
        if begun is None:
            newest = self.newest(session.purpose, session.round).get(session.purpose)
            if newest is not None and session.order <= newest:
                raise self._broken(f"{session.order} after {newest}")
            begun = Begun(round=session.round, attempt=session.attempt)
        before = begun.stages.get(durable.stage)
        if before == durable.reply_sha256:
            return
        if before is not None:
            raise self._broken(f"a second reply at stage {durable.stage} of {session.order}")
        over = self.opened_over(session.purpose, session.round)
        if over and durable.survivors not in {(), over}:
            raise self._broken(f"{session.order} over {durable.survivors} after {over}")
        stages = {**begun.stages, durable.stage.value: durable.reply_sha256}
        changed = replace(begun, stages=stages, survivors=over or durable.survivors)
        self._replace(session.purpose, _with(known, changed), model)

    def _replace(self, purpose: Purpose, begun: tuple[Begun, ...], model: str) -> None:
        following, models = {**self._begun, purpose: begun}, self._models
        if model:
            models = {**models, purpose: (*models.get(purpose, ()), model)}
        with os_errors(self._path):
            replace_file(self._disk, self._path, _text(following, models))
        self._begun, self._models = following, models

    def _broken(self, message: str) -> FederationError:
        return FederationError(
            message,
            place=str(self._path),
            remedy="take part in another study: no copy of the file tells what this site has said "
            "since",
        )


def _with(known: tuple[Begun, ...], changed: Begun) -> tuple[Begun, ...]:
    """Of each of the newest rounds the newest attempt, and the newest that sent a masked vector."""
    ordered = sorted([*known, changed], key=lambda b: b.order)
    by_order = {b.order: b for b in ordered if b.order != changed.order or b is changed}
    by_round = {b.round: b for b in by_order.values()}
    kept = [by_round[r] for r in sorted(by_round)[-KEPT:]]
    masked = [b for b in by_order.values() if Stage.MASKED in b.stages][-1:]
    return tuple(sorted({b.order: b for b in (*masked, *kept)}.values(), key=lambda b: b.order))


def _text(begun: Sessions, models: Models) -> bytes:
    content: dict[str, Any] = {
        purpose: [
            {"round": b.round, "attempt": b.attempt, "stages": dict(b.stages)}
            | ({"survivors": list(b.survivors)} if b.survivors else {})
            for b in some
        ]
        for purpose, some in begun.items()
    }
    content[_MODELS] = {purpose: list(some) for purpose, some in models.items()}
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def _parsed(data: bytes | None) -> tuple[Sessions, Models]:
    if data is None:
        return {}, {}
    content = json.loads(data)
    models = {purpose: tuple(some) for purpose, some in content.pop(_MODELS, {}).items()}
    if not {*content, *models} <= set(PURPOSES):
        raise ValueError("unknown purpose")
    found = {purpose: tuple(_begun(entry) for entry in content[purpose]) for purpose in content}
    if any(a.order >= b.order for some in found.values() for a, b in pairwise(some)):
        raise ValueError("sessions out of order")
    if not all(re.fullmatch(_SHA256, model) for some in models.values() for model in some):
        raise ValueError("not a hash")
    return found, models


def _begun(entry: Mapping[str, Any]) -> Begun:
    begun = Begun(**{**entry, "survivors": tuple(entry.get("survivors", ()))})
    numbers = (begun.round, begun.attempt, *(place + 1 for place in begun.survivors))
    if any(type(n) is not int or n < 1 for n in numbers):
        raise ValueError("not a session")
    if not begun.stages.keys() <= _STAGES:
        raise ValueError("unknown stage")
    if not all(re.fullmatch(_SHA256, digest) for digest in begun.stages.values()):
        raise ValueError("not a hash")
    return begun
