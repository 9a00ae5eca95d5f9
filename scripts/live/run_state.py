"""A run as its metrics tell it, event by event."""

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from common.config.study import Study
from scripts.live.lines import run_line

_RECENT: Final = 20
"""Rounds by which the time left is told."""
_LINES: Final = 5


@dataclass(slots=True)
class Institution:
    """One, as far as it is known.

    Attributes:
        state: as in the metrics; empty before it was seen.
        rounds: whose sum or mean it is in.
    """

    state: str = ""
    rounds: int = 0
    refusals: int = 0
    last_refusal: str = ""


@dataclass(slots=True)
class RunState:
    """What is shown of a run.

    Attributes:
        round: the last finished one.
        epsilon: by plan, after that round.
        protection: of the institution with the largest epsilon; absent without a mechanism.
        f1s: micro F1 by round; `label_f1s` by label.
        paces: seconds from one round's end to the next, of the recent ones.
        said: the last lines.
    """

    study: Study
    institutions: dict[str, Institution] = field(default_factory=dict)
    started: datetime | None = None
    last: datetime | None = None
    round: int = 0
    epsilon: float | None = None
    protection: Mapping[str, Any] | None = None
    f1s: dict[int, float] = field(default_factory=dict)
    label_f1s: dict[str, dict[int, float]] = field(default_factory=dict)
    noised: bool = False
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    bytes_up: int = 0
    bytes_down: int = 0
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    _turn: datetime | None = None

    def __post_init__(self) -> None:
        for name in self.study.federation.institutions:
            self.institutions[name] = Institution()

    @property
    def seconds_left(self) -> float | None:
        """By the pace of the recent rounds; `None` before there is one."""
        if not self.paces:
            return None
        return statistics.median(self.paces) * (self.study.training.rounds - self.round)

    def take(self, event: Mapping[str, Any]) -> None:
        """One line more."""
        time = time_of(event)
        self.started, self.last = self.started or time, time or self.last
        handle = getattr(self, f"_on_{event['event']}", None)
        if handle is not None:
            handle(event, time)
        line = run_line(event)
        if line and event["event"] != "institution":
            self.said.append(line)
        self._count(event)

    def _on_institution(self, event: Mapping[str, Any], _time: datetime | None) -> None:
        self.institutions.setdefault(event["name"], Institution()).state = event["state"]

    def _on_start(self, event: Mapping[str, Any], time: datetime | None) -> None:
        self._turn = time
        protected = event.get("protection", {}).values()
        self.protection = max(protected, key=lambda one: one["epsilon"], default=None)

    def _on_resume(self, _event: Mapping[str, Any], time: datetime | None) -> None:
        self._turn = time

    def _on_round(self, event: Mapping[str, Any], time: datetime | None) -> None:
        if time is not None and self._turn is not None:
            self.paces.append((time - self._turn).total_seconds())
        self._turn, self.round = time, event["round"]
        self.epsilon = event.get("epsilon", self.epsilon)
        for name in event["institutions"]:
            self.institutions[name].rounds += 1

    def _on_evaluation(self, event: Mapping[str, Any], _time: datetime | None) -> None:
        round_, f1 = int(event["round"]), event["f1"]
        found = {label: event["entities"][label]["f1"] for label in self.study.task.labels}
        self.f1s[round_], self.noised = f1, event["noised"]
        for label, value in found.items():
            self.label_f1s.setdefault(label, {})[round_] = value

    def _on_refusal(self, event: Mapping[str, Any], _time: datetime | None) -> None:
        one = self.institutions.setdefault(event["institution"], Institution())
        one.refusals += 1
        one.last_refusal = f"{event['asked']} of round {event['round']}: {event['code']}"

    def _count(self, event: Mapping[str, Any]) -> None:
        course = event.get("sum") if event["event"] in ("round", "evaluation") else None
        if isinstance(course, Mapping):
            self.bytes_up += course["bytes_up"]
            self.bytes_down += course["bytes_down"]
        elif event["event"] == "round":
            self.bytes_up += event["bytes_up"]


def time_of(event: Mapping[str, Any]) -> datetime | None:
    """When a line was written; lines of fedner before 2026-12 do not say."""
    return datetime.fromisoformat(event["time"]) if "time" in event else None
