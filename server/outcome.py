"""What comes of a secure sum: the answers of a trip, the course, a total, or why there is none.

Guarantee: that a sum can't come about any more (`GivenError`) is never said before so many
institutions told that they gave their vectors that the others are too few.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from common.errors import FederationError
from common.secagg.session import Purpose
from common.secagg.transitions import Phase
from common.secagg.vectors import Vector
from common.wire import Kind, Refusal, Reply
from server.mail import Leaving

STAGES: Final[dict[Phase, str]] = {
    Phase.ADVERTS: "advertise",
    Phase.BOXES: "share",
    Phase.MASKED: "mask",
    Phase.SIGNATURES: "sign",
    Phase.OPENINGS: "open",
}
_OF_THIS_SUM: Final = frozenset({"advertise", "mask"})
"""Where a vector that was given is refused; later, `spent` could be meant of the next sum only."""
_WHAT: Final[dict[Purpose, str]] = {"train": "updates", "evaluate": "evaluation counts"}
_NEW_STUDY: Final = (
    "begin a new study, with another `study` name or seed, so that it has another hash; with "
    "`privacy: {mechanism: local}` it could have gone on"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came of one trip: bytes down to and up from all, and who answered.

    Attributes:
        replied: who did as they were asked; their replies were handed over.
        refused: codes of `common.wire.Refusal`, of those who answered this request and did not do
            as they were asked.
    """

    replied: Collection[str]
    refused: Mapping[str, str] = field(default_factory=dict)
    down: int
    up: int


Take = Callable[[str, Reply], None]
"""Told an institution's name and its reply, which it does not keep."""


class Ask(Protocol):
    """One trip: bodies and bundles out; what each institution did comes back."""

    def __call__(
        self,
        kind: Kind,
        round_: int,
        body: bytes,
        sums: Mapping[str, bytes],
        most: int,
        take: Take,
        leaving: Leaving,
    ) -> Answers:
        """Send `body` to each institution of `sums`, with its bundle.

        Args:
            most: bytes of a reply's body and bundle; a larger one is refused.
            take: told each reply of who did as asked, as soon as it is whole.
        """


class GivenError(FederationError):
    """No sum comes about any more: too many say that they gave the vector that they give once."""


@dataclass(slots=True)
class Course:
    """What a sum took, and what was said on the way.

    Attributes:
        seconds: by stage.
        answered: whether anyone answered in any attempt, be it with a refusal.
        spent: who said, in any attempt, that its vector was given to another.
    """

    attempts: int = 0
    trips: int = 0
    down: int = 0
    up: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    answered: bool = False
    spent: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Another attempt."""
        self.attempts += 1

    def take(self, stage: str, answers: Answers, seconds: float) -> None:
        """One trip more."""
        self.trips += 1
        self.down += answers.down
        self.up += answers.up
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.answered |= bool(answers.replied or answers.refused)
        if stage in _OF_THIS_SUM:
            self.spent |= {n for n, code in answers.refused.items() if code == Refusal.SPENT}

    def as_dict(self, survivors: Collection[str], dropped: Collection[str]) -> dict[str, Any]:
        """For the metrics."""
        return {
            "survivors": list(survivors),
            "dropped": list(dropped),
            "attempts": self.attempts,
            "trips": self.trips,
            "bytes_down": self.down,
            "bytes_up": self.up,
            "stage_seconds": {stage: round(s, 3) for stage, s in self.seconds.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """An opened sum.

    Attributes:
        values: uint32, modulo `2^k`; whoever takes the total may scale it in place.
        survivors: whose vectors it holds, in roster order.
        course: for the metrics.
    """

    values: Vector = field(repr=False)
    survivors: tuple[str, ...]
    course: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A sum of which no attempt came to an end.

    Attributes:
        reasons: why each attempt ended.
        institutions: of the study.
        needed: fewest in a sum.
        noised: whether vectors bear noise of their own: they are given again.
        asked: whether vectors were ever asked for, in whatever life of the coordinator.
        over: noised, and may have been opened: over these, so that no other set will do.
    """

    purpose: Purpose
    round: int
    reasons: tuple[str, ...]
    course: Course
    institutions: tuple[str, ...]
    needed: int
    noised: bool
    asked: bool
    over: tuple[str, ...] = ()

    def as_error(self) -> FederationError:
        """What to raise."""
        left = len(self.institutions) - len(self.course.spent)
        if not self.noised and left < self.needed:
            return self._given()
        if not self.noised and self.asked and not self.course.answered:
            return self._unheard()
        if self.over:
            return self._bound()
        return FederationError(
            self._message,
            remedy="read the log for who refused, failed or was late, and the logs at these "
            "institutions for why; then `fedner server --resume`",
        )

    @property
    def _message(self) -> str:
        attempts = f"{self.course.attempts} attempt{'s' * (self.course.attempts != 1)}"
        return (
            f"round {self.round}: no sum of {_WHAT[self.purpose]} after {attempts}; the first "
            f"ended since {self.reasons[0]}"
        )

    def _given(self) -> GivenError:
        """Institutions said so."""
        names = ", ".join(name for name in self.institutions if name in self.course.spent)
        return GivenError(
            f"{self._message}. The {_WHAT[self.purpose]} had been asked for already, in an attempt "
            "that was cut off before its sum was opened, or of the very same model: "
            f"{names} say that theirs were given. In this study they bear no noise of their own, "
            "so whoever gave one refuses to give it to a second sum: two sums over different "
            "institutions would show one institution's",
            remedy=f"this run can't go on: {_NEW_STUDY}",
        )

    def _unheard(self) -> FederationError:
        """Nobody says anything: it is not known whether vectors were given."""
        return FederationError(
            f"{self._message}. The {_WHAT[self.purpose]} of this round had been asked for already, "
            "in an attempt that was cut off before its sum was opened, and no institution has told "
            "since whether it gave one. In this study they bear no noise of their own, and are not "
            "given twice",
            remedy="see that the institutions are there, then `fedner server --resume`: they tell "
            f"whether they gave theirs. If so, {_NEW_STUDY}",
        )

    def _bound(self) -> FederationError:
        """Whoever gave shares for it takes part over the same set only."""
        last = f"; the last since {self.reasons[-1]}" if len(self.reasons) > 1 else ""
        return FederationError(
            f"{self._message}{last}. An earlier attempt had come so far that this sum may have "
            f"been opened over {', '.join(self.over)}: who gave shares for that takes part again "
            "over exactly these only, as two sums over different institutions would show one "
            "institution's vector",
            remedy="see that each of these is there and that its log shows no failure, then "
            "`fedner server --resume`. If one never comes back: begin a new study, with another "
            "`study` name or seed, which is charged anew",
        )
