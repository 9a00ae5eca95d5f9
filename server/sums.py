"""The coordinator's driver of the secure sums: sessions, attempts, deadlines, keys fetched ahead.

Guarantees:
    * A sum is opened over at least threshold, cohort and quorum, or not at all; where fewer than
      the quorum sent keys, no vector is asked for.
    * No attempt begins while fewer than these can be reached; after `patience` there is no sum.
    * A noised sum that may have been opened is tried again over exactly the same institutions: they
      are waited for, nobody else is invited, and both hold for keys fetched ahead. Only if that
      fails, and where it does no harm, is it tried once over whoever is there: `server.again`.
    * Who misses a stage is left behind; where too few remain, the attempt ends with the reason, and
      another begins after a pause with fresh keys, up to `ATTEMPTS`.
    * In steady state a sum takes a trip for the vectors, one for the signatures and one for the
      shares: the next sum's keys travel on the latter two. Whoever is there and not among those who
      sent keys ahead makes what was fetched ahead void: the next sum begins in full, with all.
    * Nothing is kept of an institution's vector but the running total, to which it is added as soon
      as it is whole: `docs/secure-aggregation.md` has the figures.
    * That vectors which may be given once only were given is said if institutions say so, or none
      tells: `server.outcome`.
    * The number of an attempt is on disk before its invitation leaves, and that vectors are wanted
      before the instruction does: a restarted coordinator goes on with the next attempt.
    * From there on an attempt at vectors that are given once writes nothing: the number of the next
      sum's is on disk before vectors are asked for, so that no full disk loses them for its keys.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from common.identity.signing import Signer
from common.secagg.coordinator import Coordinator
from common.secagg.errors import Aborted, BelowCohortError
from common.secagg.packing import packed_size
from common.secagg.session import Context, Purpose, Session
from common.secagg.transitions import Phase
from common.secagg.vectors import threads_here
from server.again import Again
from server.attempts import Attempts
from server.outcome import Answers, Ask, Course, GivenError, Missed, Total
from server.patience import AbsentError, Patience
from server.progress import AWAIT
from server.trips import Open, Stage, Trips

__all__ = ["Answers", "Ask", "GivenError", "SecureSums", "Stage", "Total"]

log = logging.getLogger("fedner.server")

ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A sum, and how far it has come.

    Attributes:
        body: the model.
        following: the sum after this one.
        course: of all attempts.
        ended: why each attempt did.
    """

    purpose: Purpose
    round: int
    body: bytes
    following: tuple[Purpose, int] | None
    course: Course = field(default_factory=Course)
    ended: list[Aborted] = field(default_factory=list)


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
        stage: told what a sum is at.
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
        stage: Stage = lambda _purpose, _stage, _round: None,
    ):
        self._contexts, self._signer, self._lengths = contexts, signer, lengths
        self._quorum, self._present, self._record = quorum, present, record
        self._names = contexts["train"].parameters.institutions
        self._trips, self._stage = Trips(self._names, ask, present, record, stage), stage
        self._threads = threads_here()
        self._attempts, self._noised = attempts or Attempts(), noised
        self._again = Again(self._attempts, contexts, noised)
        self._patience = patience or Patience()
        self._ahead: Open | None = None

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
            FederationError: none of `ATTEMPTS` attempts gave one, or too few institutions, or not
                those needed, came back to begin another.
            GivenError: so many say that they gave a vector without noise of its own that there will
                be none.
        """
        wanted = _Wanted(purpose=purpose, round=round_, body=body, following=following)
        for number in range(ATTEMPTS):
            if number:
                self._patience.pause()
            if (total := self._tried(wanted, self._again.over(purpose, round_))) is not None:
                return total
            if isinstance(wanted.ended[-1], AbsentError):
                break
        if self._others_may(purpose, round_) and (total := self._tried(wanted, ())) is not None:
            return total
        raise self._missed(wanted).as_error()

    def _tried(self, wanted: _Wanted, over: tuple[str, ...]) -> Total | None:
        """One attempt, over these alone if there are any; if it ends, the reason is recorded."""
        wanted.course.begin()
        try:
            return self._attempt(wanted, over)
        except Aborted as error:
            wanted.ended.append(error)
            what, reason = {"round": wanted.round, "sum": wanted.purpose}, error.message
            log.warning("%s of round %d: attempt ended: %s", wanted.purpose, wanted.round, error)
            self._record("abort", **what, rule=error.rule, reason=reason)
            return None

    def _others_may(self, purpose: Purpose, round_: int) -> bool:
        """Whether a noised sum is tried over whoever is there, as those needed did not come."""
        if not self._again.others_may(purpose, round_):
            return False
        here = len(self._present())
        if here >= self._needed(purpose):
            told = "%s of round %d: no sum over the same institutions; tried over the %d there"
            log.warning(told, purpose, round_, here)
        return here >= self._needed(purpose)

    def _missed(self, wanted: _Wanted) -> Missed:
        purpose, round_ = wanted.purpose, wanted.round
        return Missed(
            purpose=purpose,
            round=round_,
            reasons=tuple(error.message for error in wanted.ended),
            course=wanted.course,
            institutions=self._names,
            needed=self._needed(purpose),
            noised=purpose in self._noised,
            asked=self._attempts.asked(purpose, round_),
            over=self._again.over(purpose, round_),
        )

    def _needed(self, purpose: Purpose) -> int:
        """Fewest institutions in a sum; the cohort is never below the threshold."""
        return max(self._quorum, self._contexts[purpose].parameters.min_cohort)

    def _await(self, wanted: _Wanted, over: tuple[str, ...]) -> None:
        """Until all of `over` are there, or enough where it is empty."""
        what = f"{wanted.purpose} of round {wanted.round}"
        self._stage(wanted.purpose, AWAIT, wanted.round)
        if over:
            again = f"{what}, over the same institutions again"
            self._patience.await_enough(again, over, len(over), self._present)
        else:
            needed = self._needed(wanted.purpose)
            self._patience.await_enough(what, self._names, needed, self._present)

    def _attempt(self, wanted: _Wanted, over: tuple[str, ...]) -> Total:
        purpose, round_, course = wanted.purpose, wanted.round, wanted.course
        self._await(wanted, over)
        # 1. keys and shares: fetched ahead, or now
        current = self._with_keys(wanted, over)
        ahead = self._begin_ahead(wanted.following)
        # 2. the model out, masked vectors back
        model = hashlib.sha256(wanted.body).digest()
        self._attempts.ask(purpose, round_)
        current.requests = current.machine.instruct(model)
        self._trips.go(purpose, round_, wanted.body, [current], course)
        self._require_kept(current, current.machine.survivors, "sent a vector")
        current.requests = current.machine.close()
        # 3. signatures and shares, with the next sum's keys on top
        self._ahead = _narrowed(ahead, current.requests)
        survivors = self._named(current.machine.survivors)
        while current.machine.phase is not Phase.DONE:
            note = partial(self._again.note, purpose, round_, current.machine.phase, survivors)
            self._trips.go("sum", round_, b"", [current, *self._advancing()], course, note)
            current.requests = current.machine.close()
            self._advance()
        figures = course.as_dict(survivors, self._named(current.machine.dropped))
        return Total(values=current.machine.total, survivors=survivors, course=figures)

    def _with_keys(self, wanted: _Wanted, over: tuple[str, ...]) -> Open:
        """A session in which enough have shared keys."""
        purpose, round_ = wanted.purpose, wanted.round
        current = self._fetched(purpose, round_, over) or self._begin(purpose, round_, over)
        self._require_kept(current, current.members, "sent keys")
        while current.machine.phase is not Phase.MODEL:
            self._trips.go("sum", round_, b"", [current], wanted.course)
            current.requests = current.machine.close()
            self._require_kept(current, current.members, "sent keys")
        return current

    def _begin(self, purpose: Purpose, round_: int, over: tuple[str, ...] = ()) -> Open:
        """A new session for all who can be reached, or for these alone."""
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
        only = frozenset(self._names.index(name) for name in over)
        invited = {i: r for i, r in machine.invite().items() if not only or i in only}
        packed = packed_size(length, context.parameters.bits)
        return Open(session, machine, invited, packed, only)

    def _begin_ahead(self, following: tuple[Purpose, int] | None) -> Open | None:
        """A session for the sum after this one; nobody is invited yet."""
        if following is None:
            return None
        return self._begin(*following, self._again.over(*following))

    def _fetched(self, purpose: Purpose, round_: int, over: tuple[str, ...]) -> Open | None:
        """The session whose keys were fetched ahead, if all who can be reached are in it.

        Args:
            over: if given, these must be in it; it was begun for nobody else.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None or (ahead.session.purpose, ahead.session.round) != (purpose, round_):
            return None
        here = {self._names.index(name) for name in over or self._present()}
        if here <= ahead.members:
            return ahead
        log.info("%s of round %d: begun in full, others are there", purpose, round_)
        return None

    def _advancing(self) -> Iterator[Open]:
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

    def _require_kept(self, current: Open, there: Collection[int], did: str) -> None:
        """Give a session up in which too few are left, or not all of the set that it is over."""
        if current.over and not current.over <= set(there):
            needed = f"{len(current.over)} over whom its sum may have been opened already"
            missing = self._named(current.over - set(there))
        elif len(there) < self._quorum:
            needed = f"{len(self._names)} institutions"
            did = f"{did}, the study's quorum is {self._quorum}"
            missing = self._named(set(range(len(self._names))) - set(there))
        else:
            return
        current.machine.abort()
        raise BelowCohortError(f"{len(there)} of {needed} {did}; missing: {', '.join(missing)}")

    def _named(self, indices: Collection[int]) -> tuple[str, ...]:
        return tuple(self._names[i] for i in sorted(indices))


def _narrowed(ahead: Open | None, there: Collection[int]) -> Open | None:
    """A session that was begun ahead, for those alone who are in this sum."""
    if ahead is not None:
        ahead.requests = {i: r for i, r in ahead.requests.items() if i in there}
    return ahead
