"""What a policy's decision is made of: codes, reasons, and the facts of the moment."""

import datetime
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from common.identity.sign_off import SignOff
from common.privacy.events import Unit

Asked = Literal["start", "hello", "train", "evaluate", "sum"]
"""What is to be done: the worker's start, or a request's kind."""
WORK: frozenset[Asked] = frozenset({"train", "evaluate"})
"""What touches the data."""


class Code(StrEnum):
    """Why a policy refuses; for the site's own log."""

    INSTITUTION = "not-on-the-roster"
    STUDY = "study-pin"
    SIGN_OFF = "sign-off"
    CODE = "code-pin"
    USERS = "one-user"
    TASK = "task"
    LABELS = "labels"
    ROUNDS = "rounds"
    HOURS = "hours"
    PRIVACY_NONE = "privacy-none"
    UNIT = "unit"
    EVALUATION = "exact-evaluation"
    SEED = "insecure-seed"
    NOISE = "noise"
    BUDGET = "budget"
    AGGREGATION_NONE = "secure-aggregation-none"
    SEMI_HONEST = "semi-honest"
    COHORT = "cohort"
    ROSTER = "roster-pin"
    EXCLUDE = "exclude-unreadable"
    EXCLUDE_UNKNOWN = "exclude-unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One reason. It prints as a line of the log."""

    code: Code
    message: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"


@dataclass(frozen=True, slots=True)
class Decision:
    """`refusals` is empty when the study is allowed. They stay at the site."""

    refusals: tuple[Refused, ...]

    @property
    def allowed(self) -> bool:
        return not self.refusals

    @property
    def reasons(self) -> tuple[str, ...]:
        """The messages."""
        return tuple(refused.message for refused in self.refusals)

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes, in the order of the messages."""
        return tuple(refused.code for refused in self.refusals)

    def __str__(self) -> str:
        """A line for each reason."""
        return "\n".join(str(refused) for refused in self.refusals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is so at this moment at this site, beside study and policy. Nothing is shown by default.

    Attributes:
        asked: what is to be done.
        now: the moment, with a time zone.
        users: whether the relay that asks is of the worker's OS user (`one`) or of another
            (`apart`); `none` asks where no process is between, as in a simulation.
        code_sha256: hash of the worker's installed code.
        sign_offs: whatever lies in the site's folder; each is verified here.
        spent: epsilon that the ledger holds, of all studies, by unit, at the delta of that unit's
            budget; only units with a cap for a lifetime.
        exclude_problem: why the list of the withdrawn can't be used; empty if it can, or if there
            is none.
        exclude_unknown: how many ids of that list no document here has.

    Raises:
        ValueError: a moment without a time zone.
    """

    asked: Asked = "start"
    now: datetime.datetime | None = None
    users: Literal["none", "one", "apart"] = "none"
    code_sha256: str | None = None
    sign_offs: tuple[SignOff, ...] = ()
    spent: dict[Unit, float] = field(default_factory=dict)
    exclude_problem: str = ""
    exclude_unknown: int = 0

    def __post_init__(self) -> None:
        if self.now is not None and self.now.tzinfo is None:
            raise ValueError("a moment needs its time zone")


def no(code: Code, message: str) -> Refused:
    """A reason."""
    return Refused(code=code, message=message)
