"""Pieces of both live views."""

from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scripts.highlight import visible
from scripts.reporting.figures import duration, score

_BARS: Final = "▁▂▃▄▅▆▇█"
_TREND: Final = 24


def sparkline(values: Iterable[float], top: float | None = None) -> str:
    """The last values, each as a bar.

    Args:
        top: of the scale, which begins at 0; the largest value if absent.
    """
    shown = list(values)[-_TREND:]
    largest = top or max(shown, default=0.0) or 1.0
    steps = len(_BARS) - 1
    return "".join(_BARS[round(steps * min(1.0, max(0.0, v / largest)))] for v in shown)


def bar(done: float, of: float, words: str) -> Table:
    """A bar and what it says."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=max(of, 1), completed=done, width=30), Text(words))
    return grid


def f1_trends(by_label: Mapping[str, Mapping[int, float]], micro: Mapping[int, float]) -> Table:
    """The last F1 of each label, and how it came there; of several also that of all."""
    rows = by_label if len(by_label) == 1 else {**by_label, "all labels": micro}
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("F1")
    table.add_column("last", justify="right")
    table.add_column("round", justify="right")
    table.add_column("so far, from 0 to 1")
    for name, by_round in rows.items():
        last = max(by_round)
        values = [by_round[round_] for round_ in sorted(by_round)]
        table.add_row(plain(name), score(by_round[last]), str(last), sparkline(values, 1.0))
    return table


def framed(title: str, parts: Iterable[RenderableType | None], foot: str) -> Panel:
    """All parts but the absent ones, in a frame."""
    shown = [part for part in parts if part is not None]
    return Panel(Group(*shown), title=plain(title), title_align="left", subtitle=plain(foot),
                 subtitle_align="left")  # fmt: skip


def plain(text: str) -> Text:
    """A text that comes from outside: no markup, and nothing that a terminal obeys."""
    return Text(visible(text))


def heading(text: str) -> Text:
    """Of a part."""
    return Text(f"\n{text}", style="bold")


def about(seconds: float | None) -> str:
    """A time to come."""
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"
