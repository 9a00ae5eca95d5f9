"""`fedner client`: one institution."""

from pathlib import Path
from typing import Annotated

import typer

from client.supervisor import supervise
from common.io.configs import load_site, load_study
from scripts.console import err, show_notices


def command(
    path: Annotated[Path, typer.Argument(metavar="SITE", help="This institution's site file.")],
) -> None:
    """Take part in a study: starts the worker, Flower's SuperNode and the relay.

    Runs until Ctrl-C. What dies is started again.

    Example: fedner client federation/cardiac-centre/site.yaml
    """
    site = load_site(path)
    study = load_study(path.parent / site.study)
    show_notices(study)
    supervise(site, path, lambda line: err.print(line, highlight=False))
