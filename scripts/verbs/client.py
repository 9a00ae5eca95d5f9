"""`fedner client`: one institution."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from client.supervisor import supervise
from common.io.configs import load_site, load_study
from scripts.console import err, quiet_libraries, show_notices
from scripts.rehearsal import rehearse


def command(
    path: Annotated[Path, typer.Argument(metavar="SITE", help="This institution's site file.")],
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="One round with made-up documents on this machine alone; nothing is spent.",
        ),
    ] = False,
) -> None:
    """Take part in a study: starts the worker, Flower's SuperNode and the relay.

    Runs until Ctrl-C. What dies is started again.

    Example: fedner client federation/cardiac-centre/site.yaml
    """
    site = load_site(path)
    study = load_study(path.parent / site.study)
    show_notices(study)
    if rehearsal:
        quiet_libraries()
        logging.getLogger("fedner.server").setLevel(logging.ERROR)  # refusals are told below
        rehearse(site, path, lambda line: err.print(line, highlight=False, soft_wrap=True))
        return
    supervise(site, path, lambda line: err.print(line, highlight=False))
