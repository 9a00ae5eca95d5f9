"""One trip of a secure sum: what its sessions have to say goes out, what comes back is theirs.

Guarantees:
    * Each part of a reply goes to the session that it names. What is refused is recorded, with the
      institution and the rule, ends no sum, and leaves the other parts be.
    * A reply with a body is refused: nothing but the secure sum's messages belongs there.
    * Who can't be reached is not invited.
    * A reply is added to its sum as soon as it is whole, and not kept; none is taken that is larger
      than the stages of its sessions can make it.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from common.secagg.bundle import bundle_bytes, join, split
from common.secagg.codec import decode
from common.secagg.coordinator import Coordinator, Requests
from common.secagg.errors import ComplaintError, MalformedError, SecaggError
from common.secagg.messages import reply_bytes
from common.secagg.session import Purpose, Session
from common.secagg.transitions import Phase
from common.wire import Kind, Reply
from server.mail import Leaving
from server.outcome import STAGES, Ask, Course

log = logging.getLogger("fedner.server")

Stage = Callable[[Purpose, str, int], None]
"""Told a sum's purpose, the stage that it begins, and its round."""


@dataclass(slots=True)
class Open:
    """A session and what it has to say next, by roster index.

    Attributes:
        vector_bytes: of a packed vector.
        over: the only set over which it may be opened; empty if over any.
    """

    session: Session
    machine: Coordinator
    requests: Requests
    vector_bytes: int
    over: frozenset[int]

    @property
    def members(self) -> frozenset[int]:
        """Who has done all that was asked so far."""
        if self.machine.phase is Phase.MODEL:
            return frozenset(self.machine.dropped)
        return frozenset(self.requests)

    def reply_bytes(self, n: int) -> int:
        """At most, in answer to its requests.

        Args:
            n: institutions of the study.
        """
        return reply_bytes(n, self.vector_bytes if self.machine.phase is Phase.MASKED else 0)


class Trips:
    """The trips of one run; arguments are those of `server.sums.SecureSums`."""

    def __init__(
        self,
        names: Sequence[str],
        ask: Ask,
        present: Callable[[], Collection[str]],
        record: Callable[..., None],
        tell_stage: Stage,
    ):
        self._names, self._ask, self._present, self._record = names, ask, present, record
        self._tell_stage = tell_stage

    def go(
        self,
        kind: Kind,
        round_: int,
        body: bytes,
        sessions: list[Open],
        course: Course,
        leaving: Leaving = lambda: None,
    ) -> None:
        """Ask what the sessions have to ask, and hand them what comes back."""
        stage, started = STAGES[sessions[0].machine.phase], time.monotonic()
        self._tell_stage(sessions[0].session.purpose, stage, round_)
        parts: dict[int, list[bytes]] = {}
        for one in sessions:
            for index, request in one.requests.items():
                parts.setdefault(index, []).append(request)
        if stage == STAGES[Phase.ADVERTS]:  # later everyone asked was there a moment ago
            here = set(self._present())
            parts = {i: some for i, some in parts.items() if self._names[i] in here}
        bundles = {self._names[i]: join(some) for i, some in parts.items()}
        most = bundle_bytes(one.reply_bytes(len(self._names)) for one in sessions)

        def take(name: str, reply: Reply) -> None:
            self._take(name, reply, sessions, round_)

        answers = self._ask(kind, round_, body, bundles, most, take, leaving)
        course.take(stage, answers, time.monotonic() - started)

    def _take(self, name: str, reply: Reply, sessions: list[Open], round_: int) -> None:
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

    def _take_part(self, name: str, part: bytes, sessions: list[Open], round_: int) -> None:
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
