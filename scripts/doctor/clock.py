"""This machine's clock against what there is to compare it with. Nothing is set by either.

Flower 1.41 takes a node's signature (`flwr/superlink/routers/fleet/node_auth.py`) if it is at most
305 s older than the server's clock and less than 5 s younger. The server's word for the time comes
over verified TLS and is compared only: which of the two is wrong, a person finds out.
"""

import datetime
import email.utils
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final

from common.errors import FederationError
from common.io.certificate_files import read_authorities
from scripts.doctor.checks import Finding, failed, ok, warning
from scripts.doctor.network import Route
from scripts.doctor.tls import opened

Clock = Callable[[], datetime.datetime]
MAX_AHEAD_S: Final = 5
MAX_BEHIND_S: Final = 305
_WARN_AHEAD_S: Final = 3
_WARN_BEHIND_S: Final = 60
_REMEDY: Final = "set the clock by NTP (`timedatectl`, chrony); compare both machines with a third"


def utc_now() -> datetime.datetime:
    """The system's clock."""
    return datetime.datetime.now(datetime.UTC)


def certificate_window(path: Path, clock: Clock) -> Finding:
    """Whether this machine's time is within a certificate's; of two, the one that holds longer."""
    certificate, now = read_authorities(path)[0], clock()
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    window = f"{path.name} holds from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    said = f"{now:%Y-%m-%d %H:%M:%S} UTC here, {window}"
    if start <= now <= end:
        return ok(said)
    if now < start:
        return failed(said, f"this clock is behind, or the certificate was made ahead: {_REMEDY}")
    return failed(said, f"renew the certificate (docs/provisioning.md, 5), or {_REMEDY}")


def against_server(route: Route, authority: Path, limit_s: float, clock: Clock) -> Finding:
    """How far this clock is from the Date header with which the server answers `/health`.

    Raises:
        FederationError: no answer, or one without a date.
    """
    theirs, ours = _server_date(route, authority, limit_s, clock)
    ahead = (ours - theirs).total_seconds()
    how = "ahead of" if ahead >= 0 else "behind"
    said = f"this clock is {abs(ahead):.0f} s {how} the server's, which is no proof of either"
    if ahead > MAX_AHEAD_S or -ahead > MAX_BEHIND_S:
        why = f"refuses nodes more than {MAX_AHEAD_S} s ahead or {MAX_BEHIND_S} s behind"
        return failed(f"{said}; Flower {why}", _REMEDY)
    if ahead > _WARN_AHEAD_S or -ahead > _WARN_BEHIND_S:
        return warning(said, _REMEDY)
    return ok(said)


def _server_date(
    route: Route, authority: Path, limit_s: float, clock: Clock
) -> tuple[datetime.datetime, datetime.datetime]:
    """The server's time and ours, half a second into the header's whole second."""
    with opened(route, authority, limit_s) as link:
        head = f"GET /health HTTP/1.1\r\nhost: {route.host}\r\nconnection: close\r\n\r\n"
        link.sendall(head.encode("ascii"))
        with HTTPResponse(link) as response:
            try:
                response.begin()
            except (HTTPException, OSError) as error:
                raise _no_date(route, type(error).__name__) from None
            ours = clock()
            said, status = response.getheader("date", ""), response.status
    try:
        theirs = email.utils.parsedate_to_datetime(said)
    except ValueError:
        raise _no_date(route, f"status {status}, no date") from None
    return theirs + datetime.timedelta(seconds=0.5), ours


def _no_date(route: Route, why: str) -> FederationError:
    return FederationError(
        f"no time of the server's to compare with: {why}",
        place=f"https://{route}/health",
        remedy="is it `fedner server --federation` that answers there? ask the coordinator",
    )
