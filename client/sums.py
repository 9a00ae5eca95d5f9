"""The institution's driver of the secure sums: machines in memory, freshness on disk.

Guarantees, beside those of `common.secagg.institution`:
    * What must be on disk is there before a reply is given to the caller.
    * Nothing is asked of the data for an instruction that the coordinator's identity did not sign
      for this session and for the very model that lies beside it.
    * Where another's box does not open, the coordinator is told whose, and no vector.
    * A vector that bears no noise of its own enters one session only, whatever is restarted, and
      of one model only one such vector of a purpose is ever sent: it leaves when that is on disk,
      at whichever request.
    * Vectors that bear noise are in no two sums over different survivors.
    * When the work fails, the secrets of its session are gone.
    * No session is begun that the study has not: beyond its rounds, or of counts that are not due.
    * At most `ALIVE` sessions are kept; what is left of an older one is forgotten.
    * Secrets are never written to disk.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from common.config.canonical import study_hash
from common.config.site import Policy
from common.config.study import Study
from common.identity.roster import Roster
from common.identity.signing import Signer
from common.io.freshness import Freshness
from common.secagg.bundle import join, split
from common.secagg.codec import decode
from common.secagg.errors import (
    MalformedError,
    OutOfOrderError,
    SecaggError,
    WrongSessionError,
)
from common.secagg.machine import Machine
from common.secagg.messages import Instruction, Invitation, Message
from common.secagg.pipeline import Levels
from common.secagg.session import Party, Purpose, Session
from common.secagg.states import Step
from common.secagg.transitions import Stage
from common.secagg.vectors import threads_here
from common.sums import Sum, contexts_of, noised_purposes, sums_of

log = logging.getLogger("fedner.worker")

ALIVE: Final = 2
"""This session, and the next one, whose keys travel ahead."""


class SpentError(SecaggError):
    """A vector without noise of its own is wanted for a second session, or of a used model."""

    rule = "spent"


class UnplannedError(SecaggError):
    """A session that the study has not."""

    rule = "unplanned"


class WrongModelError(SecaggError):
    """The model beside an instruction is not the one that it names."""

    rule = "other-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An instruction that holds.

    Attributes:
        session: in which the vector is due.
        model: `name_of` the model.
        reply: the masked vector, if it was sent before, or a complaint; else empty.
    """

    session: Session
    model: str
    reply: bytes = field(default=b"", repr=False)


class Sums:
    """One institution's part in the secure sums of one study.

    Args:
        parties: this institution, by purpose.
        freshness: of this study.
        planned: the study's sums; no other is begun.
        noised: purposes whose vectors bear noise of their own and are kept, so that a retry sends
            the same one.
        random: secret uniform bytes.
        threads: for masking.
    """

    def __init__(
        self,
        parties: Mapping[Purpose, Party],
        freshness: Freshness,
        planned: frozenset[Sum],
        noised: frozenset[Purpose],
        random: Callable[[int], bytes] = os.urandom,
        threads: int = 1,
    ):
        self._parties, self._freshness = parties, freshness
        self._planned, self._noised = planned, noised
        self._random, self._threads = random, threads
        self._machines: dict[Session, Machine] = {}
        self._answered: set[bytes] = set()

    @property
    def party(self) -> Party:
        """This institution; parameters are those of updates."""
        return self._parties["train"]

    def close(self) -> None:
        """Give back the lock of what is remembered, and forget all sessions."""
        self._machines.clear()
        self._freshness.close()

    def answer(self, data: bytes, first: Callable[[], None] = lambda: None) -> bytes:
        """Answer the messages of a bundle, all but instructions.

        Of two messages one may be refused and the other answered: their sessions are separate.

        Args:
            first: called before a reply is given to a message that had none yet; so not for one
                that the coordinator did not sign, nor for one that comes again.

        Raises:
            SecaggError: none could be answered.
            StorageError: the disk does not take what must be remembered; it may later.
        """
        replies, refused, answered = [], [], set()
        for part in split(data):
            try:
                replies.append(self._answer(part))
                answered.add(hashlib.sha256(part).digest())
            except SecaggError as error:
                log.warning("secure sum: refused: %s", error, extra={"about": error.rule})
                refused.append(error)
        if not replies:
            raise refused[0]
        if not answered <= self._answered:
            first()
            self._answered |= answered
        return join(replies)

    def instructed(self, data: bytes, purpose: Purpose, round_: int, model: bytes) -> Task:
        """Check an instruction before anything is done for it.

        Args:
            model: the bytes that lie beside it.

        Raises:
            SecaggError: it is not the coordinator's, not for this work, model or session, or its
                vector, or another one of this model, was given to another session already.
        """
        message, asked = _one(data)
        session = asked.session
        if (session.purpose, session.round) != (purpose, round_):
            raise WrongSessionError("an instruction for other work", peer="coordinator")
        if asked.model != hashlib.sha256(model).digest():
            raise WrongModelError("another model than the one signed for", peer="coordinator")
        name = name_of(model)
        self._require_unspent(session, name)
        reply = self._instruct(self._known(session), message, self._spent_by(session, name))
        return Task(session=session, model=name, reply=join([reply]) if reply else b"")

    def _instruct(self, machine: Machine, message: bytes, model: str) -> bytes:
        """The vector again, if there was one: perhaps the disk failed when it was about to leave.

        Args:
            model: to be remembered with it.
        """
        try:
            return self._noted(machine.receive(message), model).reply
        except SecaggError as error:
            complaint = machine.complaint(error)
            if not complaint:
                raise
            log.warning("secure sum: the coordinator is told: %s", error)
            return complaint

    def masked(self, task: Task, compute: Callable[[], Levels]) -> bytes:
        """The reply to an instruction: a vector under its masks.

        Args:
            compute: makes the vector, which nobody else has: it is let go before its message is
                copied into a reply.

        Raises:
            SecaggError: no instruction waits for one, or it was sent in the meantime.
            StorageError: the disk does not take what must be remembered; it may later.
        """
        session = task.session
        with self._forgotten_if_it_fails(session):
            vector = compute()
            self._require_unspent(session, task.model)
            step = self._known(session).submit(vector, self._threads)
        del vector
        return join([self._noted(step, self._spent_by(session, task.model)).reply])

    @contextmanager
    def _forgotten_if_it_fails(self, session: Session) -> Iterator[None]:
        """The secrets of a session whose vector does not come about are gone."""
        try:
            yield
        except BaseException:
            machine = self._machines.get(session)
            if machine is not None and machine.stage is Stage.INSTRUCTED:
                machine.abort("its work failed")
            raise

    def _spent_by(self, session: Session, model: str) -> str:
        """The model that a vector uses up: none, if it bears noise of its own."""
        return "" if session.purpose in self._noised else model

    def _answer(self, message: bytes) -> bytes:
        asked = decode(message)
        if isinstance(asked, Instruction):
            raise OutOfOrderError("an instruction without its model", peer="coordinator")
        if isinstance(asked, Invitation) and asked.session not in self._machines:
            return self._begin(asked.session, message)
        return self._noted(self._known(asked.session).receive(message)).reply

    def _begin(self, session: Session, message: bytes) -> bytes:
        if (session.purpose, session.round) not in self._planned:
            raise UnplannedError(
                f"{session.purpose} {session.round} is no sum of this study", peer="coordinator"
            )
        self._require_unspent(session)
        of_sum = session.purpose, session.round
        party = replace(
            self._parties[session.purpose], opened_over=self._freshness.opened_over(*of_sum)
        )
        machine = Machine(party, self._freshness.newest(*of_sum), self._random)
        step = machine.receive(message)
        self._machines = {s: m for s, m in self._machines.items() if not _replaced(s, session)}
        self._machines[session] = machine
        while len(self._machines) > ALIVE:
            del self._machines[next(iter(self._machines))]
        return self._noted(step).reply

    def _noted(self, step: Step, model: str = "") -> Step:
        if step.aborted is not None:
            raise step.aborted
        if step.durable is not None:
            self._freshness.note(step.durable, model)
        return step

    def _known(self, session: Session) -> Machine:
        machine = self._machines.get(session)
        if machine is None:
            raise WrongSessionError(
                f"{session.purpose} {session.round}.{session.attempt} is not alive here: it was "
                "never begun, is over, or was lost in a restart",
                peer="coordinator",
            )
        return machine

    def _require_unspent(self, session: Session, model: str = "") -> None:
        sent = self._freshness.masked(session.purpose)
        if session.purpose in self._noised or sent is None or sent == session.order:
            return
        if session.round <= sent[0]:
            raise SpentError(
                f"the {session.purpose} vector of round {sent[0]} went into attempt {sent[1]} and "
                "bears no noise of its own: in a second sum, over other institutions, the "
                "difference of the two would show it",
                peer="coordinator",
            )
        if self._freshness.was_used(session.purpose, model):
            raise SpentError(
                f"{session.purpose} {session.round} has a model that went into an earlier sum, and "
                "bears no noise of its own: over other institutions, the difference of the two "
                "would show one",
                peer="coordinator",
            )


def open_sums(
    study: Study,
    roster: Roster,
    institution: str,
    signer: Signer,
    policy: Policy,
    folder: Path,
    threads: int | None = None,
) -> Sums:
    """The driver of one institution.

    Args:
        folder: of what is remembered; its parent must be there.
        threads: for masking; of all processors a few if absent.

    Raises:
        IdentityError: a roster of others.
        ConfigError: an identity that is not the roster's.
        FederationError: what is remembered is damaged, gone, or in use by another worker.
        StorageError: the disk does not give it.
    """
    index = study.federation.institutions.index(institution)
    parties = {
        purpose: Party(context=context, index=index, signer=signer, min_cohort=policy.min_cohort)
        for purpose, context in contexts_of(study, roster).items()
    }
    freshness = Freshness(folder, study_hash(study))
    planned = frozenset(sums_of(study))
    return Sums(parties, freshness, planned, noised_purposes(study), threads=threads_here(threads))


def name_of(model: bytes) -> str:
    """SHA-256 of a model's values: no body is all zeros, and -0.0 is 0.0.

    Raises:
        MalformedError: not whole values of float32.
    """
    if len(model) % 4:
        raise MalformedError(f"a model of {len(model)} bytes", peer="coordinator")
    values = np.frombuffer(model, "<f4") + np.float32(0)
    return hashlib.sha256(values.data if values.any() else b"").hexdigest()


def _replaced(old: Session, new: Session) -> bool:
    """Whether a session is an older attempt at the same sum."""
    return (old.purpose, old.round) == (new.purpose, new.round)


def _one(data: bytes) -> tuple[bytes, Instruction]:
    parts = split(data)
    asked: Message = decode(parts[0])
    if len(parts) != 1 or not isinstance(asked, Instruction):
        raise MalformedError("not one instruction", peer="coordinator")
    return parts[0], asked
