"""A figure on a page: what is shown, the value behind it, and where that value stands.

A source is one of

    metrics.jsonl:LINE PATH       a value of one line, its keys and indices joined by blanks
    metrics.jsonl:LINE PATH minus metrics.jsonl:LINE PATH
    metrics.jsonl OP(EVENT PATH)  `sum` or `median` over the lines of an event that have the value
    metrics.jsonl count(EVENT)    how many there are; with ` KEY=NAME`, of those that have the name
    study.yaml PATH               with `len(PATH)`, how many there are
    roster.yaml PATH
    groups.json PATH              of what `fedner evaluate --groups --json` printed

`metrics.jsonl` is the run's, or in an institution's own report that in `state/figures/STUDY`, where
`alone/metrics.jsonl` is that of the run which trained on its documents alone;

so that whoever reads a page can look each figure up, and a test does.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.run_dir import METRICS, STUDY

Value = str | int | float | bool | list[str] | None
Show = Callable[[Any], str]
Place = tuple[int, str]
"""A line's number and a path in it."""

NONE: Final = "none"
NOTHING: Final = "nothing to find"
"""In place of a recall or F1, where nothing is annotated: neither is 0, both are undefined."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value.

    Attributes:
        value: as it stands at its source, or as the operation gives it.
        text: as it is shown.
        source: see the module.
    """

    value: Value
    text: str
    source: str


class Lines:
    """The lines of a run's metrics, and figures of them.

    Args:
        lines: all of `metrics.jsonl`, in order.
        place: how the file is named in sources.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]], place: str = METRICS):
        self._numbered, self._place = tuple(enumerate(lines, 1)), place

    def of(self, event: str) -> list[int]:
        """Numbers of an event's lines, from 1."""
        return [number for number, line in self._numbered if line["event"] == event]

    def value(self, number: int, path: str) -> Any:
        """What stands in a line.

        Raises:
            KeyError, IndexError: nothing.
        """
        return at(self._numbered[number - 1][1], path)

    def has(self, number: int, path: str) -> bool:
        """Whether a line has a value at a path."""
        try:
            self.value(number, path)
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def figure(self, number: int, path: str, show: Show = str) -> Figure:
        """A value of one line."""
        value = self.value(number, path)
        return Figure(value, show(value), f"{self._place}:{number} {path}")

    def difference(self, one: Place, other: Place, show: Show) -> Figure:
        """What the first is above the second."""
        value = self.value(*one) - self.value(*other)
        source = " minus ".join(f"{self._place}:{number} {path}" for number, path in (one, other))
        return Figure(value, show(value), source)

    def count(self, event: str) -> Figure:
        """How many lines of an event there are."""
        found = len(self.of(event))
        return Figure(found, str(found), f"{self._place} count({event})")

    def total(self, event: str, path: str, show: Show = str) -> Figure:
        """The sum over an event's lines that have the value."""
        found = sum(self._values(event, path))
        return Figure(found, show(found), f"{self._place} sum({event} {path})")

    def median(self, event: str, path: str, show: Show = str) -> Figure:
        """The median over an event's lines that have the value."""
        values = self._values(event, path)
        found = statistics.median(values) if values else 0
        return Figure(found, show(found), f"{self._place} median({event} {path})")

    def _values(self, event: str, path: str) -> list[Any]:
        found = []
        for number in self.of(event):
            try:
                found.append(self.value(number, path))
            except (KeyError, IndexError):
                continue
        return found


def of_study(study: Mapping[str, Any], path: str, show: Show = str) -> Figure:
    """A value of the study file."""
    return of_file(STUDY, study, path, show)


def of_file(place: str, content: Mapping[str, Any], path: str, show: Show = str) -> Figure:
    """A value of a file that is one object."""
    value = at(content, path)
    return Figure(value, show(value), f"{place} {path}")


def at(value: Any, path: str) -> Any:
    """What lies at a path of keys and indices, joined by blanks: no key has one, a label dots.

    Raises:
        KeyError, IndexError: nothing.
    """
    for step in path.split(" "):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def score(value: float) -> str:
    """Four digits, as in all of fedner's reports."""
    return f"{value:.4f}"


def gain(value: float) -> str:
    """A difference of two scores, with its sign."""
    return f"{value:+.4f}"


def percent(value: float) -> str:
    """A share."""
    return f"{value:.0%}"


def names(value: Sequence[str]) -> str:
    """Names, joined."""
    return ", ".join(value)


def support(value: float) -> str:
    """A count, which noise may have made no whole number."""
    return f"{value:g}" if value == int(value) else f"{value:.1f}"


def significant(value: float | None) -> str:
    """Four significant digits, or `none`."""
    return NONE if value is None else f"{value:.4g}"


def size(count: float) -> str:
    """Bytes, in decimal units."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:g} B"


def duration(seconds: float) -> str:
    """Seconds, or minutes and hours of many."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def whole(value: int) -> str:
    """With thousands apart."""
    return f"{value:,}"
