"""What a report holds, before it is HTML or Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass

from scripts.reporting.figures import Figure

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Curves over one axis; a table beside it holds the same figures.

    Attributes:
        top: the upper end of the axis, if it is not the largest value's.
    """

    title: str
    across: str
    up: str
    curves: Mapping[str, Curve]
    top: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    name: str
    title: str
    texts: tuple[Text, ...] = ()
    points: tuple[Text, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    quoted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report.

    Attributes:
        marks: what must be read before anything else.
    """

    title: str
    lead: Text
    marks: tuple[Text, ...]
    sections: tuple[Section, ...]
