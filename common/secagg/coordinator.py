"""The coordinator's machine: collects each stage, decides who survives, gives the sum.

    invite() -> receive()* -> close() -> receive()* -> close() -> instruct(model)
             -> receive()* -> close() -> receive()* -> close() -> receive()* -> close() -> total

Each call but `receive` gives the requests to send, by roster index. `waiting()` are those who have
not answered; when the driver calls `close`, they are left behind.

Guarantees:
    * The total is the sum of the survivors' vectors modulo `2^k`, to the bit, or there is none.
    * One running total: a masked vector is added as it comes and not kept.
    * A reply that breaks a rule is refused and changes nothing; the same one again is ignored.
    * Culprits are named. A share that is not the one its dealer committed to is its holder's doing;
      shares that are, and do not give the seed or key announced, are the dealer's. Neither can
      shift the blame: the dealer's commitment is bound into the box that the holder opened.
    * Below threshold or cohort the session fails with the numbers and the missing names, the total
      is dropped, and a failed session stays failed.
"""

import hashlib
from dataclasses import replace
from typing import Final

import numpy as np

from common.errors import ConfigError, ProtocolError
from common.identity.signing import Signer
from common.secagg import checks, statements
from common.secagg.codec import adverts_digest, decode, encode
from common.secagg.errors import (
    Aborted,
    AnsweredError,
    FailedError,
    MalformedError,
    OutOfOrderError,
    SetsError,
    StatementError,
    UnknownInstitutionError,
    WrongRosterError,
    WrongSenderError,
    WrongSessionError,
    WrongStudyError,
)
from common.secagg.graph import Graph, make_graph
from common.secagg.masks import add_masks_
from common.secagg.messages import (
    Advert,
    Adverts,
    Box,
    Boxes,
    Consistent,
    Instruction,
    Invitation,
    Kind,
    Masked,
    Message,
    Opening,
    Survivors,
    Unmask,
)
from common.secagg.openings import Openings, View
from common.secagg.packing import add_packed_
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
        self._length, self._threads = length, threads
        self._phase = Phase.ADVERTS
        self._seen: dict[tuple[Kind, int], bytes] = {}
        self._done: dict[Phase, set[int]] = {phase: set() for phase in COLLECTS}
        self._adverts: dict[int, Advert] = {}
        self._adverts_digest, self._model = b"", b""
        self._graph = Graph((), None)
        self._boxes: dict[int, dict[int, Box]] = {}
        self._signatures: dict[int, bytes] = {}
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

    def waiting(self) -> frozenset[int]:
        """Who was asked in this phase and has not answered."""
        if self._phase not in COLLECTS:
            return frozenset()
        return self._asked() - frozenset(self._done[self._phase])

    def invite(self) -> Requests:
        """The first requests, to the whole roster."""
        text = statements.invitation_text(self._session)
        signature = statements.sign(self._signer, statements.INVITATION, text)
        message = encode(Invitation(session=self._session, signature=signature))
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
        self._require_mine(sender, reply)
        digest = hashlib.sha256(message).digest()
        known = self._seen.get((reply.kind, sender))
        if known == digest:
            return
        if known is not None:
            raise AnsweredError("a second, different reply", peer=self._context.name(sender))
        if self._phase is Phase.FAILED:
            raise FailedError("this session has failed")
        if COLLECTS.get(self._phase) is not reply.kind:
            raise OutOfOrderError(
                f"{reply.kind.name.lower()} while the phase is {self._phase}",
                peer=self._context.name(sender),
            )
        if sender not in self._asked():
            raise UnknownInstitutionError(
                "a reply of one who was not asked", peer=self._context.name(sender)
            )
        self._take(sender, reply)
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
        self._model = model
        text = statements.instruction_text(self._session, model)
        signature = statements.sign(self._signer, statements.INSTRUCTION, text)
        requests = {i: self._instruction(i, signature) for i in sorted(self._done[Phase.BOXES])}
        self._total = np.zeros(self._length, np.uint32)
        self._phase = Phase.MASKED
        return requests

    def abort(self) -> None:
        """Give the session up. What was collected is dropped."""
        self._phase = Phase.FAILED
        self._total = None
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

    def _require_mine(self, sender: int, reply: Message) -> None:
        name, session = self._context.name(sender), reply.session
        if session.study != self._session.study:
            raise WrongStudyError("a reply of another study", peer=name)
        if session.roster != self._session.roster:
            raise WrongRosterError("a reply under another roster", peer=name)
        if session != self._session:
            raise WrongSessionError("a reply of another round or attempt", peer=name)
        claimed = getattr(reply, "sender", None)
        if claimed is None:
            raise OutOfOrderError(f"{reply.kind.name.lower()} is no reply", peer=name)
        if claimed != sender:
            raise WrongSenderError(
                f"a reply in the name of {self._context.name(claimed)}", peer=name
            )

    def _take(self, sender: int, reply: Message) -> None:
        match reply:
            case Advert():
                checks.require_advert(self._context, reply)
                checks.require_distinct(self._context, [*self._adverts.values(), reply])
                self._adverts[sender] = reply
            case Boxes():
                self._take_boxes(reply)
            case Masked():
                self._take_masked(reply)
            case Consistent():
                self._take_signature(reply)
            case Opening() if self._openings is not None:
                self._openings.take(reply)

    def _take_boxes(self, reply: Boxes) -> None:
        boxes = {box.peer: box for box in reply.boxes}
        if boxes.keys() != self._graph.neighbours(reply.sender):
            raise SetsError(
                "boxes for others than the neighbours", peer=self._context.name(reply.sender)
            )
        self._boxes[reply.sender] = boxes

    def _take_masked(self, reply: Masked) -> None:
        name, bits = self._context.name(reply.sender), self._context.parameters.bits
        if reply.length != self._length or self._total is None:
            raise MalformedError(f"{reply.length} values, expected {self._length}", peer=name)
        try:
            add_packed_(self._total, reply.packed, bits, threads=self._threads)
        except ProtocolError as error:
            raise MalformedError(error.message, peer=name) from None

    def _take_signature(self, reply: Consistent) -> None:
        public, name = self._context.public_keys[reply.sender], self._context.name(reply.sender)
        if not statements.verified(public, statements.VIEW, self._view(), reply.signature):
            raise StatementError("a signature over another view than the coordinator's", peer=name)
        self._signatures[reply.sender] = reply.signature

    def _view(self) -> bytes:
        return statements.view_text(
            self._session, self._adverts_digest, self._model, self.survivors, self.dropped
        )

    def _require_enough(self) -> None:
        """Abort below threshold, cohort or a neighbourhood's threshold."""
        context, phase, there = self._context, self._phase, self._done[self._phase]
        grows = phase in (Phase.ADVERTS, Phase.BOXES, Phase.MASKED)
        if grows or phase is Phase.SIGNATURES or context.parameters.degree is None:
            cohort = context.parameters.min_cohort if grows else 0
            checks.require_enough(context, there, cohort, _DID[phase])
        if phase in (Phase.BOXES, Phase.MASKED):
            for owner in self._done[Phase.BOXES]:
                holders = (self._graph.neighbours(owner) | {owner}) & there
                checks.require_neighbours(context, owner, len(holders), _DID[phase])

    def _requests(self, following: Phase) -> Requests:
        match following:
            case Phase.BOXES:
                return self._ask_boxes()
            case Phase.SIGNATURES:
                told = Survivors(
                    session=self._session, survivors=self.survivors, dropped=self.dropped
                )
                return dict.fromkeys(self.survivors, encode(told))
            case Phase.OPENINGS:
                return self._ask_openings()
            case Phase.DONE:
                self._unmask()
        return {}

    def _ask_boxes(self) -> Requests:
        senders = tuple(sorted(self._adverts))
        told = Adverts(session=self._session, adverts=tuple(self._adverts[i] for i in senders))
        self._adverts_digest = adverts_digest(told)
        degree, session = self._context.parameters.degree, self._session.to_bytes()
        self._graph = make_graph(senders, degree, session, self._adverts_digest)
        return dict.fromkeys(senders, encode(told))

    def _instruction(self, receiver: int, signature: bytes) -> bytes:
        dealers = sorted(self._graph.neighbours(receiver) & self._done[Phase.BOXES])
        return encode(
            Instruction(
                session=self._session,
                model=self._model,
                signature=signature,
                receiver=receiver,
                boxes=tuple(_from(dealer, self._boxes[dealer][receiver]) for dealer in dealers),
            )
        )

    def _ask_openings(self) -> Requests:
        view = View(
            session=self._session,
            adverts=self._adverts,
            boxes=self._boxes,
            graph=self._graph,
            survivors=self.survivors,
            dropped=self.dropped,
        )
        self._openings = Openings(self._context, view)
        told = Unmask(
            session=self._session,
            survivors=self.survivors,
            dropped=self.dropped,
            signatures=tuple(sorted(self._signatures.items())),
        )
        return dict.fromkeys(self.survivors, encode(told))

    def _unmask(self) -> None:
        if self._openings is None or self._total is None:
            raise OutOfOrderError("the sum is not there to be opened")
        bits = self._context.parameters.bits
        add_masks_(self._total, self._openings.masks(), bits, self._threads)
        self._openings = None


def _from(dealer: int, box: Box) -> Box:
    """A box as its receiver gets it: under its sender's index."""
    return replace(box, peer=dealer)
