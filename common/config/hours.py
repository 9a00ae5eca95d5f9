"""Hours of the week, in UTC, in which an institution trains and evaluates."""

import datetime
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.config.privacy import refusal

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
START_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
END_PATTERN: Final = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Window:
    """A part of some days, in UTC: from `start`, which is in it, to `end`, which is not.

    Attributes:
        days: on which it starts; all if absent.
        start: `HH:MM`, in quotes in YAML.
        end: the same; before `start` it is on the day after, and `24:00` is the end of the day.
    """

    days: tuple[Day, ...] = Field(default=DAYS, min_length=1)
    start: str = Field(pattern=START_PATTERN)
    end: str = Field(pattern=END_PATTERN)

    @field_validator("start", "end", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        """YAML reads `20:00` without quotes as the number 1200."""
        if not isinstance(value, str):
            raise refusal("expected a time in quotes", 'write "20:00", in UTC, with the quotes')
        return value

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Window":
        if self.start == self.end:
            raise refusal(
                "`start` and `end` are the same",
                'write start: "00:00" and end: "24:00" for whole days, or leave `hours` out',
            )
        return self

    def holds(self, now: datetime.datetime) -> bool:
        """Whether a moment lies in it.

        Args:
            now: with a time zone.
        """
        utc = now.astimezone(datetime.UTC)
        clock, today = f"{utc:%H:%M}", DAYS[utc.weekday()]
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        yesterday = DAYS[utc.weekday() - 1]
        return (today in self.days and clock >= self.start) or (
            yesterday in self.days and clock < self.end
        )

    def __str__(self) -> str:
        days = "every day" if set(self.days) == set(DAYS) else ", ".join(self.days)
        return f"{days} {self.start} to {self.end} UTC"
