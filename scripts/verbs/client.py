"""`fedner client`: one institution."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from client.sides import Side, check_worker, supervise_relay, supervise_worker
from client.supervisor import supervise
from common.config.site import Site
from common.errors import UsageError
from common.io.configs import load_relay, load_site, load_study
from scripts.console import err, out, quiet_libraries, show_notices


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The site file; with --side relay, the relay's."),
    ],
    side: Annotated[
        Side | None,
        typer.Option(help="One half alone, as an OS user of its own: docs/deployment.md."),
    ] = None,
    write_relay: Annotated[
        Path | None,
        typer.Option(
            metavar="RELAY", help="Write the relay's file out of the site's, and start nothing."
        ),
    ] = None,
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="One round with made-up documents on this machine alone; nothing is spent.",
        ),
    ] = False,
) -> None:
    """Take part in a study: starts the worker, Flower's SuperNode and the relay.

    Runs until Ctrl-C. What dies is started again. Without --side all run as one OS user, which the
    site's policy refuses but for development.

    Example: fedner client federation/cardiac-centre/site.yaml

    Example: fedner client site.yaml --side worker

    Example: fedner client relay.yaml --side relay
    """
    if (side is not None) + (write_relay is not None) + rehearsal > 1:
        raise UsageError("--side, --write-relay and --rehearse are three things: give one")
    if side is Side.RELAY:
        supervise_relay(load_relay(path), path, _tell)
        return
    site = load_site(path)
    if write_relay is not None:
        _write_relay(site, path, write_relay)
        return
    show_notices(load_study(path.parent / site.study))
    if rehearsal:
        from scripts.rehearsal import rehearse  # torch, which no supervisor has to hold

        quiet_libraries()
        logging.getLogger("fedner.server").setLevel(logging.ERROR)  # refusals are told below
        rehearse(site, path, _tell)
    elif side is Side.WORKER:
        supervise_worker(site, path, _tell)
    else:
        supervise(site, path, _tell)


def relay_text(site: Site, socket: Path) -> str:
    """The relay's file of a site; its folder is the relay's, and holds certificate and node key."""
    lines = [
        "# The relay's own file. Nothing of the worker's is in it; the node key is the one secret",
        "# that it leads to. docs/deployment.md",
        f"institution: {site.institution}",
        f"coordinator: {site.coordinator!r}",
        f"socket: {str(socket)!r}",
        "state: state",
        f"start_limit_s: {site.start_limit_s:g}",
        *(("authority: ca.crt", "node: node") if site.authority is not None else ()),
    ]
    return "\n".join(lines) + "\n"


def _write_relay(site: Site, path: Path, target: Path) -> None:
    check_worker(site, path)
    socket = (path.parent / str(site.socket)).absolute()
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(relay_text(site, socket))
    except FileExistsError:
        raise UsageError(
            "is there already, and nothing is overwritten",
            place=str(target),
            remedy="name another file, or remove this one",
        ) from None
    out.print(f"written {target}", highlight=False, soft_wrap=True)
    if site.authority is not None and site.node is not None:
        at = path.parent
        out.print(
            f"Beside it belong {at / site.authority} as ca.crt and the folder {at / site.node} as "
            "node, all owned by the relay's user; then take both lines out of the site file.",
            highlight=False,
            soft_wrap=True,
        )


def _tell(line: str) -> None:
    err.print(line, highlight=False, soft_wrap=True)
