"""What the coordinator has of a session: replies, each checked before it is kept.

Guarantees:
    * A reply that breaks a rule changes nothing.
    * One running total, packed: a masked vector is added as it comes and not kept.
    * Boxes, openings and complaints count as their sender signed them, and in no other form: who
      carries them can put the blame for a bad one on nobody.
    * A complaint of a box is no reply: it names both parties, for either may be at fault.
"""

from dataclasses import replace
from typing import NoReturn

from common.errors import ProtocolError
from common.secagg import checks, statements
from common.secagg.adding import RunningTotal
from common.secagg.codec import adverts_digest
from common.secagg.errors import (
    ComplaintError,
    MalformedError,
    OutOfOrderError,
    SetsError,
    StatementError,
    UnknownInstitutionError,
    UnsignedError,
    WrongRosterError,
    WrongSenderError,
    WrongSessionError,
    WrongStudyError,
)
from common.secagg.graph import Graph, make_graph
from common.secagg.messages import (
    Advert,
    Adverts,
    Box,
    Boxes,
    Complaint,
    Consistent,
    Masked,
    Message,
    Testimony,
)
from common.secagg.session import Context, Session


class Replies:
    """By sender: adverts, boxes and signatures; and the sum of the vectors.

    Args:
        length: values of a vector.
        threads: how many parts of a vector are worked on at once.

    Attributes:
        total: from `expect_vectors` on.
        graph: of neighbours, from `told` on.
    """

    def __init__(self, context: Context, session: Session, length: int, threads: int):
        self._context, self._session = context, session
        self._length, self._threads = length, threads
        self.adverts: dict[int, Advert] = {}
        self.boxes: dict[int, dict[int, Box]] = {}
        self.signatures: dict[int, bytes] = {}
        self.graph = Graph((), None)
        self.total: RunningTotal | None = None
        self._adverts_digest = self._model = b""

    def told(self) -> Adverts:
        """All adverts, as institutions are told them; they fix who is whose neighbour."""
        senders = tuple(sorted(self.adverts))
        told = Adverts(session=self._session, adverts=tuple(self.adverts[i] for i in senders))
        self._adverts_digest = adverts_digest(told)
        degree, session = self._context.parameters.degree, self._session.to_bytes()
        self.graph = make_graph(senders, degree, session, self._adverts_digest)
        return told

    def expect_vectors(self, model: bytes) -> None:
        """Begin the total; the vectors are of work on the model of this hash."""
        self._model = model
        self.total = RunningTotal(self._length, self._context.parameters.bits)

    def boxes_for(self, receiver: int) -> tuple[Box, ...]:
        """As the receiver gets them: by and under their senders' indices."""
        dealers = sorted(self.graph.neighbours(receiver) & self.boxes.keys())
        return tuple(replace(self.boxes[dealer][receiver], peer=dealer) for dealer in dealers)

    def require_mine(self, sender: int, reply: Message, message: bytes) -> None:
        """Refuse what is no reply of this sender in this session.

        Args:
            message: as it came; `reply` was decoded from it.

        Raises:
            WrongStudyError, WrongRosterError, WrongSessionError, OutOfOrderError, WrongSenderError,
                UnsignedError: in this order.
        """
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
        public = self._context.public_keys[sender]
        bound = isinstance(reply, Testimony)
        if bound and not statements.is_signed(public, message, statements.REPLY):
            raise UnsignedError(
                "not signed as it stands; who carried it may be at fault", peer=name
            )

    def take_advert(self, advert: Advert) -> None:
        """Keep it.

        Raises:
            SecaggError: it is not signed, or has a key that is weak or used twice.
        """
        checks.require_advert(self._context, advert)
        checks.require_distinct(self._context, [*self.adverts.values(), advert])
        self.adverts[advert.sender] = advert

    def take_boxes(self, reply: Boxes) -> None:
        """Keep them.

        Raises:
            SetsError: for others than the sender's neighbours.
        """
        boxes = {box.peer: box for box in reply.boxes}
        if boxes.keys() != self.graph.neighbours(reply.sender):
            raise SetsError(
                "boxes for others than the neighbours", peer=self._context.name(reply.sender)
            )
        self.boxes[reply.sender] = boxes

    def take_masked(self, reply: Masked) -> None:
        """Add it to the total.

        Raises:
            MalformedError: another length.
        """
        name = self._context.name(reply.sender)
        if reply.length != self._length or self.total is None:
            raise MalformedError(f"{reply.length} values, expected {self._length}", peer=name)
        try:
            self.total.add(reply.packed, threads=self._threads)
        except ProtocolError as error:
            raise MalformedError(error.message, peer=name) from None

    def take_signature(
        self, reply: Consistent, survivors: tuple[int, ...], dropped: tuple[int, ...]
    ) -> None:
        """Keep it.

        Raises:
            StatementError: it is over another view than these sets.
        """
        public, name = self._context.public_keys[reply.sender], self._context.name(reply.sender)
        digest, model = self._adverts_digest, self._model
        view = statements.view_text(self._session, digest, model, survivors, dropped)
        if not statements.verified(public, statements.VIEW, view, reply.signature):
            raise StatementError("a signature over another view than the coordinator's", peer=name)
        self.signatures[reply.sender] = reply.signature

    def refuse_complaint(self, told: Complaint) -> NoReturn:
        """Say who complains of whom.

        Raises:
            UnknownInstitutionError: no box of the accused was sent to the sender.
            ComplaintError: else.
        """
        name, accused = self._context.name(told.sender), self._context.name(told.accused)
        if told.sender not in self.boxes.get(told.accused, {}):
            raise UnknownInstitutionError(
                f"a complaint of {accused}, of whom it has no box", peer=name
            )
        raise ComplaintError(
            f"{name} says that the box of {accused} does not open: one of the two is at fault, "
            "and nothing here tells which",
            peer=name,
            accused=accused,
        )
