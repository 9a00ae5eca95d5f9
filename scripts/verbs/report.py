"""`fedner report`: a run as a page that can be read without fedner, and without a network."""

from pathlib import Path
from typing import Annotated

import typer

from common.io.atomic import write_bytes
from scripts.console import show_path
from scripts.reporting.head import head_of
from scripts.reporting.render import to_html, to_markdown
from scripts.reporting.run_report import build
from server.run_dir import RunDir

HTML = "report.html"
MARKDOWN = "report.md"


def command(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; the run's if absent.")
    ] = None,
) -> None:
    """Write what a run's metrics say: report.html, one file without scripts, and report.md.

    Of a run that goes on, what there is so far. Each figure names the line it was read from.

    Example: fedner report runs/RUN
    """
    run = RunDir.open(run_path)
    page = build(run)
    folder = folder or run_path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((HTML, to_html(page)), (MARKDOWN, head_of(run) + to_markdown(page))):
        write_bytes(folder / name, text.encode())
        show_path("report", folder / name)
