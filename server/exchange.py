"""The coordinator's requests to institutions over nodes, with a deadline. No Flower here.

Guarantees:
    - A trip ends with the study's deadline at the latest. A reply that is whole a second before
      then counts, whatever others have sent a part of.
    - The same bytes are sent again after a failure, an absence and a long silence, as
      `server.absences` says, which also says how long an institution that is away is waited for.
    - An institution that comes back as another node is found again; one that joins while a trip is
      under way is asked in that trip, with what is left of its time.
    - A trip waits for nodes that have not said who they are only as long as `server.greeting` says.
    - A reply counts for the institution that was asked, once.
    - Each reply is handed over as soon as it is whole, and not kept: of many large ones, one at a
      time is in memory. One that is larger than any reply to its request can be is not taken; its
      institution is not asked again in that trip, and costs the others nothing.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.config.study import Study
from common.wire import Kind, Reply
from server.absences import Absences, Turn, away_in
from server.greeting import Greeter
from server.mail import Leaving, Letter, Lost, Mail, Pace, Take

log = logging.getLogger("fedner.server")

_MARGIN_S: Final = 15.0
"""How long after the deadline a reply may be fetched: Flower deletes what is past its time."""


@dataclass(slots=True, kw_only=True)
class _Trip:
    """One request to each of several institutions.

    Attributes:
        most: bytes of a reply.
        has_left: whether a request was sent to anyone.
        replied: whose reply was handed over.
        refused: whose reply was too large.
        pending: institution by message.
        told: of whom the log has said that they are waited for.
    """

    kind: Kind
    round: int
    requests: Mapping[str, Letter]
    deadline: float
    most: int
    leaving: Leaving
    has_left: bool = False
    replied: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    pending: dict[str, str] = field(default_factory=dict)
    turns: dict[str, Turn] = field(init=False)
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.turns = {name: Turn() for name in self.requests}

    @property
    def missing(self) -> dict[str, Turn]:
        """Who has not replied."""
        done = self.replied | self.refused
        return {name: turn for name, turn in self.turns.items() if name not in done}

    def heard(self, message: str, answer: bytes | Lost, now: float) -> str:
        """Note what came back; whose it is if nothing more is awaited of it, else empty."""
        name = self.pending.pop(message, "")  # another answer of its was there first
        if not name:
            return ""
        turn = self.turns[name]
        turn.pending.discard(message)
        if answer is Lost.ON_THE_WAY:
            turn.was_lost(now)
            return ""
        if answer is Lost.FAILED:
            turn.has_failed(now)
            return ""
        (self.refused if answer is Lost.TOO_LARGE else self.replied).add(name)
        return name


class NodeExchange:
    """Implements `server.asking.Exchange`.

    Args:
        on_seen: told an institution's name and `joined`, `back`, or why it is not taken in.
        owners: institution by node id, where nodes authenticate.
    """

    def __init__(
        self,
        mail: Mail,
        study: Study,
        on_seen: Callable[[str, str], None] | None = None,
        owners: Mapping[int, str] | None = None,
        pace: Pace | None = None,
    ):
        self._mail = mail
        self._roster = study.federation.institutions
        self._deadline_s = study.federation.deadline_s
        self._pace = pace or Pace()
        told = on_seen or (lambda _name, _state: None)
        self._absences = Absences(study)
        self._greeter = Greeter(mail, study, self._pace, told, owners)

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask every node its name until `enough` is satisfied or the deadline has passed.

        Nor is anyone waited for when all others have answered or refused finally, or when those who
        have refused leave too few for the quorum.
        """
        deadline = self._pace.clock() + self._deadline_s
        self._greeter.hello = Letter((request,))
        found = self._greeter.look(anew=True)
        while not enough(found) and not self._greeter.hopeless:
            if self._pace.clock() >= deadline:
                break
            self._pace.sleep(self._pace.poll_s)
            found = self._greeter.look()

    def present(self) -> frozenset[str]:
        """Institutions taken in whose nodes are online."""
        self._greeter.look(anew=True)
        while self._greeter.awaited(set(self._roster) - self._greeter.present):
            self._pace.sleep(self._pace.poll_s)
            self._greeter.look()
        return self._greeter.present

    def ask(
        self,
        kind: Kind,
        round_: int,
        requests: Mapping[str, Letter],
        most: int,
        take: Take,
        leaving: Leaving,
    ) -> None:
        """Send each institution its request, and hand over what comes back before the deadline.

        Args:
            most: bytes of a reply.
        """
        self._greeter.started = True
        deadline = self._pace.clock() + self._deadline_s
        trip = _Trip(
            kind=kind,
            round=round_,
            requests=requests,
            deadline=deadline,
            most=most,
            leaving=leaving,
        )
        self._greeter.look(anew=True)
        while self._go_on(trip, take):
            self._greeter.look()
        self._mail.drop(trip.pending)
        late = [name for name in self._roster if name in trip.missing]
        if late:
            log.warning("round %d: no reply to %s from %s", round_, kind, ", ".join(late))

    def _go_on(self, trip: _Trip, take: Take) -> bool:
        """Ask who is due and take what came; wait a moment unless the trip is over."""
        over = self._pace.clock() >= trip.deadline
        if not over:
            self._send(trip)
        self._fetch(trip, take)
        if over or not trip.missing:
            return False
        if not self._due(trip):
            if not self._waits(trip):
                return False
            self._pace.sleep(self._pace.poll_s)
        return True

    def _due(self, trip: _Trip) -> dict[int, str]:
        """Whom to ask now, by node."""
        now, missing, online = self._pace.clock(), trip.missing, self._greeter.online
        idle = not trip.pending
        return {
            node: name
            for node, name in self._greeter.nodes.items()
            if node in online and name in missing and missing[name].is_due(node, now, idle=idle)
        }

    def _send(self, trip: _Trip) -> None:
        due, now = self._due(trip), self._pace.clock()
        if not due:
            return
        again = [name for node, name in due.items() if trip.turns[name].node == node]
        if again:
            log.warning("round %d: asking %s again for %s", trip.round, ", ".join(again), trip.kind)
        requests = {node: trip.requests[name] for node, name in due.items()}
        if not trip.has_left:
            trip.leaving()
            trip.has_left = True
        ttl = trip.deadline - now + _MARGIN_S
        sent = self._mail.send(trip.kind, trip.round, requests, ttl, trip.most)
        for (node, name), message in zip(due.items(), sent, strict=True):
            trip.turns[name].sent(node, message, now, self._absences.silent_s)
            if message:
                trip.pending[message] = name

    def _waits(self, trip: _Trip) -> bool:
        """Whether there is somebody left to wait for."""
        missing, known = trip.missing, set(self._greeter.nodes.values())
        away = away_in(missing, known)
        pending = sum(bool(turn.pending) for turn in missing.values())
        figures = len(trip.requests), len(trip.replied), pending
        waits = self._absences.waits(self._pace.clock(), *figures, away)
        if waits and not trip.told.issuperset(away):
            trip.told.update(away)
            log.warning("round %d: waits for %s, away", trip.round, ", ".join(away))
        return waits or bool(pending) or self._greeter.awaited(missing)

    def _fetch(self, trip: _Trip, take: Take) -> None:
        """Hand over what came."""
        if not trip.pending:
            return
        for message, answer in self._mail.fetch(tuple(trip.pending), trip.most):
            if name := trip.heard(message, answer, self._pace.clock()):
                self._settle(trip, name)
                take(name, answer)
            del answer  # before the next is fetched

    def _settle(self, trip: _Trip, name: str) -> None:
        """Of who was asked twice, the other answer is not awaited any more."""
        self._absences.replied(name)
        others = [message for message, whose in trip.pending.items() if whose == name]
        self._mail.drop(others)
        for message in others:
            del trip.pending[message]
