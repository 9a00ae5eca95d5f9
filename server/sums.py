"""The coordinator's driver of the secure sums: sessions, attempts, deadlines, keys fetched ahead.

Guarantees:
    * A sum is opened over at least threshold, cohort and quorum, or not at all.
    * No attempt begins while fewer than these can be reached; after `patience` there is no sum.
    * Who misses a stage is left behind; where too few remain, the attempt ends with the reason, and
      another begins after a pause with fresh keys, up to `ATTEMPTS`.
    * In steady state a sum takes a trip for the vectors, one for the signatures and one for the
      shares: the next sum's keys travel on the latter two. Whoever is there and not among those who
      sent keys ahead makes what was fetched ahead void: the next sum begins in full, with all.
    * Nothing is kept of an institution's vector but the running total.
    * That vectors which may be given once only were given is said if institutions say so, or none
      tells: `server.outcome`.
    * The number of an attempt is on disk before its invitation leaves, and that vectors are wanted
      before the instruction does: a restarted coordinator goes on with the next attempt.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from common.identity.signing import Signer
from common.secagg.bundle import join, split
from common.secagg.codec import decode
from common.secagg.coordinator import Coordinator, Requests
from common.secagg.errors import (
    Aborted,
    BelowCohortError,
    ComplaintError,
    MalformedError,
    SecaggError,
)
from common.secagg.session import Context, Purpose, Session
from common.secagg.transitions import Phase
from common.wire import Kind, Reply
from server.attempts import Attempts
from server.outcome import STAGES, Answers, Ask, Course, GivenError, Missed, Total
from server.patience import AbsentError, Patience

__all__ = ["Answers", "Ask", "GivenError", "SecureSums", "Total"]

log = logging.getLogger("fedner.server")

ATTEMPTS: Final = 3
MAX_THREADS: Final = 4


@dataclass(slots=True)
class _Open:
    """A session and what it has to say next, by roster index."""

    session: Session
    machine: Coordinator
    requests: Requests

    @property
    def members(self) -> frozenset[int]:
        """Who has done all that was asked so far."""
        if self.machine.phase is Phase.MODEL:
            return frozenset(self.machine.dropped)
        return frozenset(self.requests)


class SecureSums:
    """The sums of one run.

    Args:
        contexts: what all parties agree on, by purpose.
        signer: the coordinator's identity.
        lengths: values of a vector, by purpose.
        quorum: fewest institutions in a sum; the protocol's own limits hold besides.
        ask: one trip.
        present: names of the institutions that can be reached now.
        record: told events for the metrics.
        attempts: kept over a restart, if they have a file.
        noised: purposes whose vectors bear noise of their own and are given again under fresh keys.
        patience: how long to wait for institutions; for nobody if absent.
    """

    def __init__(
        self,
        *,
        contexts: Mapping[Purpose, Context],
        signer: Signer,
        lengths: Mapping[Purpose, int],
        quorum: int,
        ask: Ask,
        present: Callable[[], Collection[str]],
        record: Callable[..., None],
        attempts: Attempts | None = None,
        noised: frozenset[Purpose] = frozenset(),
        patience: Patience | None = None,
    ):
        self._contexts, self._signer, self._lengths = contexts, signer, lengths
        self._quorum, self._ask, self._present, self._record = quorum, ask, present, record
        self._names = contexts["train"].parameters.institutions
        self._threads = max(1, min(MAX_THREADS, os.cpu_count() or 1))
        self._attempts, self._noised = attempts or Attempts(), noised
        self._patience = patience or Patience()
        self._ahead: _Open | None = None

    def sum(
        self,
        purpose: Purpose,
        round_: int,
        body: bytes,
        following: tuple[Purpose, int] | None = None,
    ) -> Total:
        """The sum of all institutions' vectors for one model.

        Args:
            body: the model.
            following: the sum after this one, whose keys may travel ahead.

        Raises:
            FederationError: none of `ATTEMPTS` attempts gave one, or too few institutions came
                back to begin another.
            GivenError: the same, and vectors without noise of their own were given before.
        """
        course = Course()
        reasons: list[str] = []
        for number in range(ATTEMPTS):
            if number:
                self._patience.pause()
            course.begin()
            try:
                self._await_enough(purpose, round_)
                return self._attempt(purpose, round_, body, following, course)
            except Aborted as error:
                reasons.append(error.message)
                log.warning("%s of round %d: attempt ended: %s", purpose, round_, error)
                self._record(
                    "abort", round=round_, sum=purpose, rule=error.rule, reason=error.message
                )
                if isinstance(error, AbsentError):
                    break
        raise self._missed(purpose, round_, reasons[0], course).as_error()

    def _missed(self, purpose: Purpose, round_: int, reason: str, course: Course) -> Missed:
        return Missed(
            purpose=purpose,
            round=round_,
            reason=reason,
            course=course,
            institutions=self._names,
            needed=self._needed(purpose),
            noised=purpose in self._noised,
            asked=self._attempts.asked(purpose, round_),
        )

    def _needed(self, purpose: Purpose) -> int:
        """Fewest institutions in a sum; the cohort is never below the threshold."""
        return max(self._quorum, self._contexts[purpose].parameters.min_cohort)

    def _await_enough(self, purpose: Purpose, round_: int) -> None:
        what = f"{purpose} of round {round_}"
        self._patience.await_enough(what, self._names, self._needed(purpose), self._present)

    def _attempt(
        self,
        purpose: Purpose,
        round_: int,
        body: bytes,
        following: tuple[Purpose, int] | None,
        course: Course,
    ) -> Total:
        # 1. keys and shares: fetched ahead, or now
        current = self._fetched(purpose, round_) or self._begin(purpose, round_)
        while current.machine.phase is not Phase.MODEL:
            self._trip("sum", round_, b"", [current], course)
            current.requests = current.machine.close()
        # 2. the model out, masked vectors back
        self._attempts.ask(purpose, round_)
        current.requests = current.machine.instruct(hashlib.sha256(body).digest())
        self._trip(purpose, round_, body, [current], course)
        self._require_quorum(current.machine)
        current.requests = current.machine.close()
        # 3. signatures and shares, with the next sum's keys on top
        self._ahead = None if following is None else self._begin(*following)
        if self._ahead is not None:
            self._ahead.requests = {i: self._ahead.requests[i] for i in current.requests}
        while current.machine.phase is not Phase.DONE:
            self._trip("sum", round_, b"", [current, *self._advancing()], course)
            current.requests = current.machine.close()
            self._advance()
        machine = current.machine
        survivors, dropped = self._named(machine.survivors), self._named(machine.dropped)
        figures = course.as_dict(survivors, dropped)
        return Total(values=machine.total, survivors=survivors, course=figures)

    def _begin(self, purpose: Purpose, round_: int) -> _Open:
        """A new session for all who can be reached."""
        context = self._contexts[purpose]
        session = Session(
            study=context.study,
            roster=context.roster,
            purpose=purpose,
            round=round_,
            attempt=self._attempts.begin(purpose, round_),
        )
        length = self._lengths[purpose]
        machine = Coordinator(
            context=context,
            session=session,
            signer=self._signer,
            length=length,
            threads=self._threads,
        )
        return _Open(session, machine, machine.invite())

    def _fetched(self, purpose: Purpose, round_: int) -> _Open | None:
        """The session whose keys were fetched ahead, if all who can be reached are in it."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or (ahead.session.purpose, ahead.session.round) != (purpose, round_):
            return None
        here = {self._names.index(name) for name in self._present()}
        if here <= ahead.members:
            return ahead
        log.info("%s of round %d: begun in full, others are there", purpose, round_)
        return None

    def _advancing(self) -> Iterator[_Open]:
        if self._ahead is not None and self._ahead.machine.phase is not Phase.MODEL:
            yield self._ahead

    def _advance(self) -> None:
        """Close the stage of the session ahead; if too few are in it, forget it."""
        for ahead in self._advancing():
            try:
                ahead.requests = ahead.machine.close()
            except Aborted as error:
                log.info("keys fetched ahead are void: %s", error)
                self._ahead = None

    def _require_quorum(self, machine: Coordinator) -> None:
        survivors = machine.survivors
        if len(survivors) < self._quorum:
            machine.abort()
            missing = [name for i, name in enumerate(self._names) if i not in survivors]
            raise BelowCohortError(
                f"{len(survivors)} of {len(self._names)} institutions sent a vector, the study's "
                f"quorum is {self._quorum}; missing: {', '.join(missing)}"
            )

    def _trip(
        self, kind: Kind, round_: int, body: bytes, sessions: list[_Open], course: Course
    ) -> None:
        """Ask what the sessions have to ask, and hand them what comes back."""
        stage, started = STAGES[sessions[0].machine.phase], time.monotonic()
        parts: dict[int, list[bytes]] = {}
        for one in sessions:
            for index, request in one.requests.items():
                parts.setdefault(index, []).append(request)
        if stage == STAGES[Phase.ADVERTS]:  # later everyone asked was there a moment ago
            here = set(self._present())
            parts = {i: some for i, some in parts.items() if self._names[i] in here}
        bundles = {self._names[i]: join(some) for i, some in parts.items()}
        answers = self._ask(kind, round_, body, bundles)
        for name, reply in answers.replies.items():
            self._take(name, reply, sessions, round_)
        course.take(stage, answers, time.monotonic() - started)

    def _take(self, name: str, reply: Reply, sessions: list[_Open], round_: int) -> None:
        """Hand each part of a reply to its session; what is refused leaves the other parts be."""
        try:
            if reply.body:
                raise MalformedError("a body, where only the secure sum's messages go", peer=name)
            parts = split(reply.sums)
        except SecaggError as error:
            self._refused(name, error, round_)
            return
        for part in parts:
            self._take_part(name, part, sessions, round_)

    def _take_part(self, name: str, part: bytes, sessions: list[_Open], round_: int) -> None:
        by_session = {one.session: one.machine for one in sessions}
        try:
            # each part names its session; one of no session here is refused by the first
            machine = by_session.get(decode(part).session, sessions[0].machine)
            machine.receive(self._names.index(name), part)
        except SecaggError as error:
            self._refused(name, error, round_)

    def _refused(self, name: str, error: SecaggError, round_: int) -> None:
        if isinstance(error, ComplaintError):  # it kept to the protocol: a box did not open
            log.warning("round %d: %s", round_, error.message)
            self._record_refusal(round_, name, error, accused=error.accused)
        else:
            log.warning("round %d: %s broke the secure sum's protocol: %s", round_, name, error)
            self._record_refusal(round_, name, error)

    def _record_refusal(self, round_: int, name: str, error: SecaggError, **more: str) -> None:
        figures = {"institution": name, "asked": "sum", "code": error.rule, **more}
        self._record("refusal", round=round_, **figures)

    def _named(self, indices: Collection[int]) -> tuple[str, ...]:
        return tuple(self._names[i] for i in sorted(indices))
