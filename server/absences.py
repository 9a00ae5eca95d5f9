"""How long a trip waits for institutions that are away, and when it asks again. No Flower here.

Guarantees:
    - While too few have replied for the round, and enough still may, a trip waits for who is away
      until its deadline.
    - Once enough have replied, or cannot any more, it waits for each only `away_s` from when it was
      first missed, **in all trips of a run together**; only a reply gives it another such time.
    - What got lost on its way is sent again after pauses that double, and is not counted as a try;
      an institution that fails is asked `TRIES` times, after such pauses or as soon as no other is
      at work. One that says nothing is asked again after a part of the deadline: its node may have
      been started anew, and what is done is not done twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from common.config.study import Study
from server.mail import doubled

TRIES: Final = 3
_AWAY_S: Final = 60.0
"""A node that was killed is let in again by Flower a minute after its last heartbeat, which is when
it is missed."""
_AWAY_PART: Final = 0.25
_SILENT_PART: Final = 1 / 3
"""Of the study's deadline."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Turn:
    """One institution in one trip.

    Attributes:
        node: who was asked last.
        pending: messages without an answer.
        failed, lost: answers that were an error of the institution, or of the way there.
        due: when it is asked again, if nothing is pending.
        failing: whether its last answer was an error of its own.
        again: when it is asked again, if something is.
    """

    node: int | None = None
    pending: set[str] = field(default_factory=set)
    failed: int = 0
    lost: int = 0
    due: float = -inf
    failing: bool = False
    again: float = -inf

    def is_due(self, node: int, now: float, *, idle: bool) -> bool:
        """Whether a node that is here is to be asked now.

        Args:
            idle: nothing is pending of any institution.
        """
        if node != self.node:
            return True
        if self.pending:
            return now >= self.again
        return self.may_reply and (now >= self.due or (idle and self.failing))

    @property
    def may_reply(self) -> bool:
        """Whether its tries are left."""
        return self.failed < TRIES

    def sent(self, node: int, message: str, now: float, silent_s: float) -> None:
        """A message's id; empty where it could not be sent."""
        if node != self.node:
            self.node, self.failed, self.lost = node, 0, 0
        self.again = now + silent_s
        if message:
            self.pending.add(message)
        else:
            self.was_lost(now)

    def was_lost(self, now: float) -> None:
        """What was sent, or the answer, did not arrive."""
        self.due, self.failing = now + _pause_s(self.lost), False
        self.lost += 1

    def has_failed(self, now: float) -> None:
        """The answer was an error of the institution."""
        self.due, self.failing = now + _pause_s(self.failed), True
        self.failed += 1


def _pause_s(before: int) -> float:
    return doubled(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, before)


class Absences:
    """Of the institutions of one run."""

    def __init__(self, study: Study):
        deadline_s = study.federation.deadline_s
        parameters = study.secure_parameters
        self._needed = max(study.federation.required, parameters.min_cohort if parameters else 0)
        self._since: dict[str, float] = {}
        self.away_s = min(_AWAY_S, _AWAY_PART * deadline_s)
        self.silent_s = _SILENT_PART * deadline_s

    def replied(self, name: str) -> None:
        """An institution's absence, if there was one, is over."""
        self._since.pop(name, None)

    def waits(
        self, now: float, asked: int, replied: int, pending: int, away: Collection[str]
    ) -> bool:
        """Whether a trip waits for some that are away.

        Args:
            asked, replied, pending: institutions in this trip.
            away: who may come back.
        """
        for name in away:
            self._since.setdefault(name, now)
        needed = min(self._needed, asked)
        if replied < needed <= replied + pending + len(away):
            return bool(away)
        return any(now < self._since[name] + self.away_s for name in away)


def away_in(turns: Mapping[str, Turn], known: Collection[str]) -> list[str]:
    """Who has nothing pending and may come back: a node of it was taken in once."""
    return [
        name
        for name, turn in turns.items()
        if name in known and turn.may_reply and not turn.pending
    ]
