"""The coordinator's requests to institutions over nodes, with a deadline. No Flower here.

Guarantees:
    - A trip ends with the study's deadline at the latest, also if somebody has sent a part of a
      reply. It sends the same bytes again after a failure, up to `_TRIES` times.
    - An institution that comes back as another node is found again; one that joins while a trip is
      under way is asked in that trip, with what is left of its time.
    - A trip waits for nodes that have not said who they are only as long as `server.greeting` says.
    - A reply counts for the institution that was asked.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.config.study import Study
from common.wire import Kind, Reply
from server.greeting import Greeter, Mail, Pace

log = logging.getLogger("fedner.server")

_TRIES: Final = 3


@dataclass(slots=True, kw_only=True)
class _Trip:
    """One request to each of several institutions.

    Attributes:
        pending: institution by message.
        asked: nodes, in the try that is under way.
    """

    kind: Kind
    round: int
    requests: Mapping[str, bytes]
    deadline: float
    replies: dict[str, bytes] = field(default_factory=dict, repr=False)
    pending: dict[str, str] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        """Who has not replied."""
        return [name for name in self.requests if name not in self.replies]

    def take(self, message: str, data: bytes | None) -> None:
        """What came back."""
        name = self.pending.pop(message)
        if data is not None:
            self.replies[name] = data


class NodeExchange:
    """Implements `server.coordinator.Exchange`.

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
        self._greeter = Greeter(mail, study, self._pace, told, owners)

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask every node its name until `enough` is satisfied or the deadline has passed.

        Nor is anyone waited for when all others have answered or refused finally, or when those who
        have refused leave too few for the quorum.
        """
        deadline = self._pace.clock() + self._deadline_s
        self._greeter.hello = request
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

    def ask(self, kind: Kind, round_: int, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        """Send each institution its request; what came back before the deadline, by name."""
        self._greeter.started = True
        deadline = self._pace.clock() + self._deadline_s
        trip = _Trip(kind=kind, round=round_, requests=requests, deadline=deadline)
        for attempt in range(_TRIES):
            self._greeter.look(anew=True, until=deadline)
            trip.asked.clear()
            sent = self._send(trip)
            if attempt and sent:
                log.warning("round %d: asking %d nodes again for %s", round_, sent, kind)
            self._collect(trip)
            if not trip.missing or self._pace.clock() > deadline:
                break
        late = [name for name in self._roster if name in trip.missing]
        if late:
            log.warning("round %d: no reply to %s from %s", round_, kind, ", ".join(late))
        return trip.replies

    def _send(self, trip: _Trip) -> int:
        """Ask whoever is here and was not asked in this try; how many."""
        missing = set(trip.missing)
        new = {
            node: name
            for node, name in self._greeter.nodes.items()
            if name in missing and node not in trip.asked
        }
        if new:
            ttl = max(1.0, trip.deadline - self._pace.clock())
            requests = {node: trip.requests[name] for node, name in new.items()}
            sent = self._mail.send(trip.kind, trip.round, requests, ttl)
            trip.asked |= new.keys()
            trip.pending |= {m: name for m, name in zip(sent, new.values(), strict=True) if m}
        return len(new)

    def _collect(self, trip: _Trip) -> None:
        """Take replies, and ask who joins, until nobody is left to wait for or it is too late."""
        while trip.pending or self._greeter.awaited(trip.missing):
            self._fetch(trip)
            if self._pace.clock() > trip.deadline:
                self._fetch(trip)  # what came while parts of another's reply were awaited
                break
            self._greeter.look(until=trip.deadline)
            self._send(trip)
            if trip.pending or self._greeter.awaited(trip.missing):
                self._pace.sleep(self._pace.poll_s)

    def _fetch(self, trip: _Trip) -> None:
        if not trip.pending:
            return
        left = max(0.0, trip.deadline - self._pace.clock())
        for message, data in self._mail.fetch(trip.pending, left).items():
            trip.take(message, data)
