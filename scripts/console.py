"""What the command line shows: notices, tables, progress, errors."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from common.config.study import Study
from common.errors import FednerError
from common.metrics.entities import Scores
from common.privacy.notice import notices
from scripts.highlight import visible


class Steady(Console):
    """A console whose reader may go away: what it would have said is dropped, and nothing ends."""

    def on_broken_pipe(self) -> None:
        """Say nothing more; Rich would end the process."""
        self.quiet = True


_WIDE = None if sys.stdout.isatty() else 130
out = Console(emoji=False, width=_WIDE)
err = Steady(emoji=False, stderr=True)


def show_notices(study: Study) -> None:
    """Say what the study does without, so that nobody misses it."""
    show_said(notices(study))


def show_said(said: Sequence[str]) -> None:
    """Notices in a frame, as text whatever they hold; nothing if there are none."""
    if said:
        err.print(Panel(Text(visible("\n".join(said))), style="bold red", title="read this"))


def show_error(error: FednerError) -> None:
    """One error: place, what is wrong, remedy."""
    head = f"{error.place}: " if error.place else ""
    err.print(Text.assemble(("error ", "bold red"), f"{head}{error.message}"), soft_wrap=True)
    if error.remedy:
        err.print(Text.assemble(("  remedy: ", "green"), error.remedy), soft_wrap=True)


def cell(text: str, style: str = "") -> Text:
    """A table's cell, head or title: text whatever it holds, no markup and no control character."""
    return Text(visible(text), style)


def report_table(title: str, report: Mapping[str, Scores]) -> Table:
    """Precision, recall, F1 and support per row."""
    table = Table(title=cell(title, "table.title"), title_justify="left")
    table.add_column("")
    for name in ("precision", "recall", "F1", "support"):
        table.add_column(name, justify="right")
    for row, s in report.items():
        if row == "micro":
            table.add_section()
        table.add_row(
            cell(row), *(f"{v:.4f}" for v in (s.precision, s.recall, s.f1)), str(s.support)
        )
    return table


def comparison_table(
    title: str, rows: Mapping[str, Mapping[str, Scores]], labels: Sequence[str]
) -> Table:
    """F1 per label and micro, one row per way of training."""
    table = Table(title=cell(title, "table.title"), title_justify="left")
    table.add_column("trained by")
    for label in (*labels, "micro"):
        table.add_column(cell(f"{label} F1"), justify="right")
    for name, report in rows.items():
        table.add_row(cell(name), *(f"{report[label].f1:.4f}" for label in (*labels, "micro")))
    return table


def show_counts(what: str, counts: Mapping[str, int]) -> None:
    """One line with everything that was merged, dropped or resolved; nothing if all was clean."""
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
    if shown:
        out.print(f"{what}: {shown}", markup=False, highlight=False)


def show_path(what: str, path: Path) -> None:
    """A path on one line, to be copied."""
    out.print(f"{what:8} {path}", markup=False, highlight=False, soft_wrap=True)


def scores_from_json(report: Mapping[str, Mapping[str, float]]) -> dict[str, Scores]:
    """A report as `metrics.jsonl` holds it, as scores again."""
    return {
        row: Scores(s["precision"], s["recall"], s["f1"], int(s["support"]))
        for row, s in report.items()
    }


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress bars that vanish when done; nothing when not a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        yield progress


def quiet_libraries() -> None:
    """No load reports, bars or chatter from libraries on the user's terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # peft 0.21 reads a property that transformers 5.23 deprecates
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    logging.getLogger("flwr").setLevel(logging.ERROR)
