"""What a report holds, before it is HTML or Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass

from scripts.reporting.figures import Figure, Show

Text = tuple[str | Figure, ...]
"""Words and figures, one after the other."""
Curve = tuple[tuple[Figure, Figure], ...]
"""Figures across and up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a head; the first cell of a row names it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[Text, ...]
    folded: bool = False

    @property
    def worded(self) -> tuple[bool, ...]:
        """Whether each column holds words alone."""
        return tuple(not any(map(_is_number, column)) for column in zip(*self.rows, strict=True))


def _is_number(part: str | Figure) -> bool:
    return isinstance(part, Figure) and isinstance(part.value, int | float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Curves over one axis; a table beside it holds the same figures.

    Attributes:
        top: the upper end of the axis, if it is not the largest value's.
        tick: how the values of the axis are written; plainly if absent.
    """

    title: str
    across: str
    up: str
    curves: Mapping[str, Curve]
    top: float | None = None
    tick: Show | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack(Plot):
    """The same, each step a column of the curves' values one upon the other, the first lowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One line of a bar chart.

    Attributes:
        kind: bars of one kind look alike.
        ends: low and high of an interval around the value.
    """

    name: str
    value: Figure
    kind: str
    ends: tuple[Figure, Figure] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Horizontal bars from zero; a table beside it holds the same figures.

    Attributes:
        top: as for `Plot`.
    """

    title: str
    across: str
    bars: tuple[Bar, ...]
    top: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Who was in which round; a table beside it names who was missing.

    Attributes:
        rounds: in their order.
        present: by institution, whether it was in each of them.
    """

    title: str
    rounds: tuple[Figure, ...]
    present: Mapping[str, tuple[bool, ...]]


Drawing = Plot | Bars | Presence


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        help: what the words of this section mean, for who does not know them.
    """

    name: str
    title: str
    texts: tuple[Text, ...] = ()
    points: tuple[Text, ...] = ()
    plots: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    quoted: str = ""
    help: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report.

    Attributes:
        marks: what must be read before anything else.
        keys: the few figures that matter most, each under its name.
    """

    title: str
    lead: Text
    marks: tuple[Text, ...]
    sections: tuple[Section, ...]
    keys: tuple[tuple[str, Text], ...] = ()
