"""`fedner watch`: a run, or an institution's part in it, while it goes on."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from common.config.site import Site
from common.errors import UsageError
from common.io.configs import load_any, load_study
from scripts.console import out
from scripts.live.event_files import EventFiles
from scripts.live.run_view import RunView
from scripts.live.show import say, shown
from scripts.live.site_view import SiteView
from server.run_dir import RunDir

_EVERY_S: Final = 0.5

View = RunView | SiteView


def command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SITE", help="A run's folder (coordinator), or a site file (institution)."
        ),
    ],
    event_files: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard",
            metavar="FOLDER",
            help="Write TensorBoard's event files there, all from the start on; a new folder.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show how things stand, and end.")] = False,
) -> None:
    """Watch a study; where nothing is drawn, one line for each event. Changes nothing.

    At the coordinator: rounds, stages, who is in, epsilon, scores of the sum, bytes. At an
    institution, as the worker's user: its own loss, scores and spend, which stay there. Ends with
    the run, or with Ctrl-C.

    Example: fedner watch runs/RUN
    """
    view = _view(path)
    files = None if event_files is None else EventFiles.create(event_files, view.metrics)
    try:
        if once:
            out.print(view())
            if files is not None:
                files.take_new()
        else:
            _follow(view, files)
    finally:
        if files is not None:
            files.close()


def _view(path: Path) -> View:
    if path.is_dir():
        return RunView(RunDir.open(path))
    config = load_any(path)
    if not isinstance(config, Site):
        raise UsageError(
            "a study file: of a study alone there is nothing to watch",
            place=str(path),
            remedy="name the run's folder, or the site file of an institution",
        )
    return SiteView(config, load_study(path.parent / config.study), path.parent)


def _follow(view: View, files: EventFiles | None) -> None:
    """Until the run is over."""
    trouble = ""
    with shown(view, out) as drawn:
        while True:
            over = view.is_over  # before the last lines are read
            if not drawn:
                before, trouble = trouble, view.trouble
                news = [trouble] if trouble != before else []
                for line in filter(None, [*map(view.line, view.read()), *news]):
                    say(out, line)
            if files is not None:
                files.take_new()
            if over:
                return
            time.sleep(_EVERY_S)
