"""`fedner runs`: what lies under runs/, one run, or several beside each other. Changes nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from common.errors import UsageError
from scripts.console import cell, out
from scripts.highlight import visible
from scripts.reporting.figures import NONE, duration, score, significant, size
from scripts.reporting.runs import (
    RUNS,
    RunFacts,
    beside,
    differing,
    found_runs,
    one_run,
    same_held_out,
)
from scripts.reporting.source import MICRO

app = typer.Typer(help="Runs that were made on this machine.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")]
_WHOLE = (1, 4, 6)
"""Columns of the list that are of no use when broken."""
_ABSENT = "-"
"""Of a key that a study has not: `none` is a value of some."""
_SHOWN = {"seconds": duration, "bytes up": size, "bytes down": size, "epsilon": significant}


@app.callback()
def _group() -> None:
    """Runs that were made on this machine."""


@app.command("list")
def list_(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Folder that holds the runs.")
    ] = RUNS,
    as_json: AsJson = False,
) -> None:
    """List every run with its state, privacy and last F1; damaged ones with their damage.

    Example: fedner runs list
    """
    runs = found_runs(folder)
    if as_json:
        typer.echo(json.dumps([run.as_dict() for run in runs], allow_nan=False))
        return
    if not runs:
        out.print(f"no runs in {folder}", markup=False, highlight=False)
        return
    table = _table("run", "started (UTC)", "study", "sites", "epsilon", "state", "F1")
    for column in _WHOLE:
        table.columns[column].no_wrap = True
    for run in runs:
        table.add_row(*map(cell, _row(run)))
    out.print(table)
    for run in runs:
        if run.damage is not None:
            _line("damage", f"{run.name}: {run.damage}")


@app.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its name.")],
    as_json: AsJson = False,
) -> None:
    """Show one run: what it is, what it protects, its last scores, and where its files are.

    Example: fedner runs show runs/RUN
    """
    run = one_run(path)
    if as_json:
        typer.echo(json.dumps(run.as_dict(), allow_nan=False))
        return
    for what, said in _head(run):
        _line(what, said)
    for notice in run.notices:
        out.print(Text(f"  {visible(notice)}"))
    if run.f1:
        noised = "; counts carry noise" if run.noised else ""
        after = "" if run.evaluated is None else f", after round {run.evaluated}"
        table = _table(f"last scores{after}{noised}", "F1", "held-out entities")
        for label, f1 in run.f1.items():
            table.add_row(*map(cell, (label, score(f1), f"{run.support[label]:g}")))
        out.print(table)


@app.command("compare")
def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two runs or more.")],
    as_json: AsJson = False,
) -> None:
    """Show where the studies of several runs differ, and their figures, side by side.

    Example: fedner runs compare runs/ONE runs/OTHER
    """
    if len(paths) < 2:
        raise UsageError("a comparison needs two runs or more")
    runs = [one_run(path) for path in paths]
    studies, figures, same = differing(runs), beside(runs), same_held_out(runs)
    if as_json:
        names = [run.path for run in runs]
        content = {"runs": names, "study": studies, "figures": figures, "same_held_out": same}
        typer.echo(json.dumps(content, allow_nan=False))
        return
    _print_beside("the studies differ in", runs, studies, _ABSENT)
    if not studies:
        out.print("The studies are the same.")
    _print_beside("figures", runs, figures, NONE)
    if same is False:
        out.print("The held-out documents differ: their F1 do not compare.", style="bold yellow")
    if same is None:
        out.print("Counts carry noise: whether the held-out documents are the same is not known.")


def _row(run: RunFacts) -> tuple[str, ...]:
    f1 = score(run.f1[MICRO]) if MICRO in run.f1 else NONE
    when = (run.started or NONE)[:16].replace("T", " ")
    count = str(len(run.institutions)) if run.institutions else NONE
    epsilon = "not yet" if run.epsilon is None and run.privacy == "local" else None
    shown = epsilon or significant(run.epsilon)
    return run.name, when, run.study or NONE, count, shown, run.state.replace(",", ""), f1


def _privacy(run: RunFacts) -> str:
    if run.privacy in {None, "none"}:
        return NONE
    return f"{run.privacy}, epsilon {significant(run.epsilon) if run.epsilon else 'not known yet'}"


def _head(run: RunFacts) -> Sequence[tuple[str, str]]:
    said = [
        ("run", run.path),
        ("made by", f"fedner {'simulate' if run.made_by == 'simulation' else run.made_by}"),
        ("study", f"{run.study} {run.study_sha256}"),
        ("started", f"{run.started}"),
        ("state", run.state),
        ("ended by", run.message),
        ("institutions", ", ".join(run.institutions)),
        ("privacy", _privacy(run)),
        ("secure sums", run.secure_aggregation or NONE),
        ("rounds", f"{run.rounds_done} of {run.rounds}, {duration(run.seconds)}"),
        ("bytes", f"up {size(run.bytes_up)}, down {_size(run.bytes_down)}"),
        ("model", run.model or "not saved"),
        ("report", run.report or _no_report(run)),
    ]
    return [(what, text) for what, text in said if text]


def _no_report(run: RunFacts) -> str:
    """How one is made; before the start, and of a model that `train` made, there is none."""
    return f"none yet: fedner report {run.path}" if run.has_started else ""


def _size(count: int | None) -> str:
    return "not recorded" if count is None else size(count)


def _print_beside(
    title: str, runs: Sequence[RunFacts], rows: dict[str, list[Any]], absent: str
) -> None:
    if not rows:
        return
    table = _table(title, *(run.name for run in runs))
    for name, values in rows.items():
        shown = _SHOWN.get(name, score if name.startswith("F1 ") else _plain)
        table.add_row(cell(name), *(cell(absent if v is None else shown(v)) for v in values))
    out.print(table)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(cell(name), overflow="fold")
    return table


def _line(what: str, said: str) -> None:
    out.print(Text(f"{what:13} {visible(said)}"), soft_wrap=True)
