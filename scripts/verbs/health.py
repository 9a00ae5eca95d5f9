"""`fedner health`: whether a worker, or the coordinator's server, takes requests."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated, Final

import typer

from client.health import is_serving
from client.sides import Side, relay_paths
from client.site_paths import SitePaths
from common.config.deployment import parse_deployment
from common.errors import UsageError
from common.io.certificate_files import AUTHORITY, SERVER
from common.io.configs import load_relay, load_site, read_config
from server.federation import DEPLOYMENT

NOT_SERVING: Final = 1


def command(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The site file; with --side relay, the relay's."),
    ] = None,
    federation: Annotated[
        Path | None, typer.Option(help="At the coordinator: the folder of `fedner provision`.")
    ] = None,
    side: Annotated[
        Side | None, typer.Option(help="Of which side FILE is, where they are two users.")
    ] = None,
    limit_s: Annotated[
        float,
        typer.Option(
            "--limit",
            min=0.1,
            max=600,
            help="Seconds to wait for the answer; with --federation, as many to connect before.",
        ),
    ] = 5.0,
) -> None:
    """Ask a worker, or the coordinator's server, whether it takes requests: for service managers.

    Prints `serving` or `not serving`, and ends with 0 or 1. Nothing else is told.

    Example: fedner health site.yaml

    Example: fedner health --federation federation
    """
    if (path is None) == (federation is None):
        raise UsageError("expected FILE, or --federation FOLDER", remedy="fedner health --help")
    if federation is not None and side is not None:
        raise UsageError("--side is an institution's: it goes with FILE, not with --federation")
    try:
        serving = (
            server_answers(federation, limit_s)
            if federation is not None
            else is_serving(_door(Path(str(path)), side), limit_s)
        )
    except PermissionError as error:
        raise UsageError(
            "this user may not look there",
            place=str(error.filename),
            remedy="ask as the user whose side it is",
        ) from None
    typer.echo("serving" if serving else "not serving")
    if not serving:
        raise typer.Exit(NOT_SERVING)


def _door(path: Path, side: Side | None) -> Path:
    """The socket at which this side's user may ask."""
    if side is Side.RELAY:
        return relay_paths(load_relay(path), path).socket
    site = load_site(path)
    paths = SitePaths.of(site, path.parent)
    return paths.socket if site.relay_group is None else paths.health


def server_answers(root: Path, limit_s: float) -> bool:
    """Whether the public port of a federation on this machine answers `GET /health` with 200.

    The certificate is verified, by the folder's own authority and its first name. The limit is one
    to connect and one for all that follows. No name is looked up: `listen` is an IP address.
    """
    path, authority = root / DEPLOYMENT, root / SERVER / AUTHORITY
    server = parse_deployment(read_config(path), str(path)).server
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.listen, server.listen)
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection((host, server.port), timeout=limit_s) as raw,
            context.wrap_socket(
                raw, server_hostname=server.hosts[0], do_handshake_on_connect=False
            ) as link,
            _cut_after(link, limit_s),
        ):
            link.do_handshake()
            link.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            with HTTPResponse(link) as response:
                response.begin()
                return response.status == HTTPStatus.OK
    except PermissionError:
        raise
    except (OSError, HTTPException):
        return False


@contextlib.contextmanager
def _cut_after(link: ssl.SSLSocket, limit_s: float) -> Iterator[None]:
    """Shut a connection then: its own limit is one for each read, and an answer takes several."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(link, socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
