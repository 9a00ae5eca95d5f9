"""The coordinator's machine: collects each stage, decides who survives, gives the sum.

    invite() -> receive()* -> close() -> receive()* -> close() -> instruct(model)
             -> receive()* -> close() -> receive()* -> close() -> receive()* -> close() -> total

Each call but `receive` gives the requests to send, by roster index. Who has not answered when the
driver calls `close` is left behind.

Guarantees:
    * The total is the sum of the survivors' vectors modulo `2^k`, to the bit, or there is none.
    * Every request is signed by the coordinator's identity, to the byte.
    * A reply that breaks a rule is refused and changes nothing; the same one again is ignored.
    * Culprits are named. A share that is not the one its dealer committed to is its holder's doing;
      shares that are, and do not give the seed or key announced, are the dealer's. Neither can
      shift the blame: the dealer's commitment is bound into the box that the holder opened. Nor can
      who carries the messages: boxes, openings and complaints are signed. Of a box that its holder
      says does not open both are named, since either may be at fault.
    * Below threshold or cohort the session fails with the numbers and the missing names, the total
      is dropped, and a failed session stays failed.
"""

import hashlib
from typing import Final

from common.errors import ConfigError
from common.identity.signing import Signer
from common.secagg import checks, statements
from common.secagg.codec import decode
from common.secagg.errors import (
    Aborted,
    AnsweredError,
    FailedError,
    OutOfOrderError,
    UnknownInstitutionError,
)
from common.secagg.messages import (
    Advert,
    Boxes,
    Complaint,
    Consistent,
    Instruction,
    Invitation,
    Kind,
    Masked,
    Message,
    Opening,
    Request,
    Survivors,
    Unmask,
)
from common.secagg.openings import Openings, View
from common.secagg.pipeline import Packed, unmask
from common.secagg.replies import Replies
from common.secagg.session import HASH_BYTES, Context, Session
from common.secagg.transitions import COLLECTS, Phase, phase_after
from common.secagg.vectors import Vector

_DID: Final = {
    Phase.ADVERTS: "sent keys",
    Phase.BOXES: "shared keys",
    Phase.MASKED: "sent a vector",
    Phase.SIGNATURES: "signed their view",
    Phase.OPENINGS: "opened their shares",
}
Requests = dict[int, bytes]


class Coordinator:
    """One session; see the module.

    Args:
        context: what all agree on.
        session: newer than all before it of its purpose.
        signer: the coordinator's identity.
        length: values of a vector.
        threads: how many parts of a vector are worked on at once.

    Raises:
        ConfigError: an identity or a session that is not the context's.
    """

    def __init__(
        self, *, context: Context, session: Session, signer: Signer, length: int, threads: int = 1
    ):
        if signer.public_key != context.coordinator:
            raise ConfigError("the identity is not the coordinator's on the roster")
        if (session.study, session.roster) != (context.study, context.roster):
            raise ConfigError("a session of another study or roster")
        self._context, self._session, self._signer = context, session, signer
        self._threads = threads
        self._phase = Phase.ADVERTS
        self._seen: dict[tuple[Kind, int], bytes] = {}
        self._done: dict[Phase, set[int]] = {phase: set() for phase in COLLECTS}
        self._replies = Replies(context, session, length, threads)
        self._openings: Openings | None = None
        self._total: Vector | None = None

    @property
    def phase(self) -> Phase:
        """What is waited for."""
        return self._phase

    @property
    def total(self) -> Vector:
        """uint32 `[length]`, the sum modulo `2^k`, when all is done.

        Raises:
            OutOfOrderError: before.
        """
        if self._phase is not Phase.DONE or self._total is None:
            raise OutOfOrderError("the sum is not opened")
        return self._total

    @property
    def survivors(self) -> tuple[int, ...]:
        """Roster indices of those whose vectors are in the sum so far."""
        return tuple(sorted(self._done[Phase.MASKED]))

    @property
    def dropped(self) -> tuple[int, ...]:
        """Of those who shared keys and are not in the sum so far."""
        return tuple(sorted(self._done[Phase.BOXES] - self._done[Phase.MASKED]))

    def invite(self) -> Requests:
        """The first requests, to the whole roster."""
        message = self._signed(Invitation(session=self._session))
        return dict.fromkeys(range(self._context.parameters.n), message)

    def receive(self, sender: int, message: bytes) -> None:
        """Take a reply.

        Args:
            sender: roster index of who the transport says it came from.
            message: as it came.

        Raises:
            SecaggError: it breaks a rule; nothing has changed.
        """
        reply = decode(message)
        self._replies.require_mine(sender, reply, message)
        digest = hashlib.sha256(message).digest()
        known = self._seen.get((reply.kind, sender))
        if known == digest:
            return
        if known is not None:
            raise AnsweredError("a second, different reply", peer=self._context.name(sender))
        if self._phase is Phase.FAILED:
            raise FailedError("this session has failed")
        if isinstance(reply, Complaint) and self._phase is Phase.MASKED:
            self._replies.refuse_complaint(reply)
        if COLLECTS.get(self._phase) is not reply.kind:
            raise OutOfOrderError(
                f"{reply.kind.name.lower()} while the phase is {self._phase}",
                peer=self._context.name(sender),
            )
        if sender not in self._asked():
            raise UnknownInstitutionError(
                "a reply of one who was not asked", peer=self._context.name(sender)
            )
        self._take(reply)
        self._seen[reply.kind, sender] = digest
        self._done[self._phase].add(sender)

    def close(self) -> Requests:
        """End the phase with those who have answered, and give the next requests.

        Raises:
            Aborted: too few, or a culprit; the session has failed.
            OutOfOrderError, FailedError: no phase of replies is open.
        """
        if self._phase not in COLLECTS:
            phase_after(self._phase, self._context.parameters.adversary)
            raise OutOfOrderError(f"nothing to close while the phase is {self._phase}")
        try:
            self._require_enough()
            following = phase_after(self._phase, self._context.parameters.adversary)
            requests = self._requests(following)
        except Aborted:
            self.abort()
            raise
        self._phase = following
        return requests

    def instruct(self, model: bytes) -> Requests:
        """Ask for the masked vectors of work on a model.

        Args:
            model: SHA-256 of the model sent beside these requests.

        Raises:
            OutOfOrderError, FailedError: not now.
            ConfigError: not a hash.
        """
        if self._phase is not Phase.MODEL:
            phase_after(self._phase, self._context.parameters.adversary)
            raise OutOfOrderError(f"no instruction while the phase is {self._phase}")
        if len(model) != HASH_BYTES:
            raise ConfigError(f"the hash of a model is {HASH_BYTES} bytes")
        requests = {i: self._instruction(i, model) for i in sorted(self._done[Phase.BOXES])}
        self._replies.expect_vectors(model)
        self._phase = Phase.MASKED
        return requests

    def abort(self) -> None:
        """Give the session up. What was collected is dropped."""
        self._phase = Phase.FAILED
        self._replies.total = self._total = None
        self._openings = None

    def _asked(self) -> frozenset[int]:
        """Who is asked in this phase: those who answered the one before."""
        phases = list(COLLECTS)
        place = phases.index(self._phase)
        if place == 0:
            return frozenset(range(self._context.parameters.n))
        if self._phase is Phase.OPENINGS:
            # who sent a vector and no signature may still open
            place = phases.index(Phase.SIGNATURES)
        return frozenset(self._done[phases[place - 1]])

    def _take(self, reply: Message) -> None:
        match reply:
            case Advert():
                self._replies.take_advert(reply)
            case Boxes():
                self._replies.take_boxes(reply)
            case Masked():
                self._replies.take_masked(reply)
            case Consistent():
                self._replies.take_signature(reply, self.survivors, self.dropped)
            case Opening() if self._openings is not None:
                self._openings.take(reply)

    def _require_enough(self) -> None:
        """Abort below threshold, cohort or a neighbourhood's threshold."""
        context, phase, there = self._context, self._phase, self._done[self._phase]
        grows = phase in (Phase.ADVERTS, Phase.BOXES, Phase.MASKED)
        if grows or phase is Phase.SIGNATURES or context.parameters.degree is None:
            cohort = context.parameters.min_cohort if grows else 0
            checks.require_enough(context, there, cohort, _DID[phase])
        if phase in (Phase.BOXES, Phase.MASKED):
            for owner in self._done[Phase.BOXES]:
                holders = (self._replies.graph.neighbours(owner) | {owner}) & there
                checks.require_neighbours(context, owner, len(holders), _DID[phase])

    def _requests(self, following: Phase) -> Requests:
        match following:
            case Phase.BOXES:
                told = self._signed(self._replies.told())
                return dict.fromkeys(sorted(self._replies.adverts), told)
            case Phase.SIGNATURES:
                asked = Survivors(
                    session=self._session, survivors=self.survivors, dropped=self.dropped
                )
                return dict.fromkeys(self.survivors, self._signed(asked))
            case Phase.OPENINGS:
                return self._ask_openings()
            case Phase.DONE:
                self._unmask()
        return {}

    def _signed(self, request: Request) -> bytes:
        """The bytes of any request that leaves."""
        return statements.signed(self._signer, request)

    def _instruction(self, receiver: int, model: bytes) -> bytes:
        boxes = self._replies.boxes_for(receiver)
        return self._signed(
            Instruction(session=self._session, model=model, receiver=receiver, boxes=boxes)
        )

    def _ask_openings(self) -> Requests:
        got = self._replies
        view = View(
            session=self._session,
            adverts=got.adverts,
            boxes=got.boxes,
            graph=got.graph,
            survivors=self.survivors,
            dropped=self.dropped,
        )
        self._openings = Openings(self._context, view)
        told = Unmask(
            session=self._session,
            survivors=self.survivors,
            dropped=self.dropped,
            signatures=tuple(sorted(got.signatures.items())),
        )
        return dict.fromkeys(self.survivors, self._signed(told))

    def _unmask(self) -> None:
        total, openings = self._replies.total, self._openings
        if openings is None or total is None:
            raise OutOfOrderError("the sum is not there to be opened")
        masked = Packed(stream=total.stream, length=len(total))
        bits, masks = self._context.parameters.bits, openings.masks()
        self._total = unmask(masked, bits, masks, threads=self._threads)
        self._replies.total = self._openings = None
