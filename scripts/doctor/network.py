"""Names, ports and proxies: how an institution would reach the server, and whether it could.

Proxies are found as httpx does, with which Flower 1.41 speaks: `HTTPS_PROXY`, else `ALL_PROXY`, in
either case, unless `NO_PROXY` covers the host. A test compares the two.
"""

import base64
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from common.errors import FederationError
from common.io.addresses import unproxied
from scripts.doctor.checks import Finding, failed, ok, warning

PROXY_VARIABLES: Final = ("https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the server is, and the proxy on the way to it.

    Attributes:
        proxy: a URL, which may hold a password and does not print.
    """

    host: str
    port: int
    proxy: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, host: str, port: int) -> "Route":
        """As the environment says that fedner gives Flower's processes."""
        proxies = getproxies_environment() | {"no": unproxied()}
        return cls(host=host, port=port, proxy=proxy_for(host, port, proxies))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def proxy_for(host: str, port: int, proxies: Mapping[str, str]) -> str | None:
    """The proxy that an https request takes; `None` if it goes directly.

    Args:
        proxies: as `urllib.request.getproxies_environment` gives them, by scheme.
    """
    exempt = [entry.strip() for entry in proxies.get("no", "").split(",")]
    if "*" in exempt or any(_exempts(entry.lower(), host.lower(), port) for entry in exempt):
        return None
    found = proxies.get("https") or proxies.get("all")
    return found if not found or "://" in found else f"http://{found}"


def _exempts(entry: str, host: str, port: int) -> bool:
    """An address, `localhost` and a URL exempt themselves; `.name` what is below it; `name` both.

    A port, where there is one, must be the same.
    """
    scheme, said, rest = entry.rpartition("://")
    name, _, its_port = rest.partition("/")[0].rpartition(":")
    if not name or not its_port.isdigit() or _is_address(rest):
        name, its_port = rest.partition("/")[0], ""
    if not name or (its_port and int(its_port) != port) or scheme not in {"", "all", "https"}:
        return False
    if said or _is_address(name) or name == "localhost":
        return host == name.strip("[]")
    return host.endswith(f".{name.removeprefix('.')}") or host == name


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _parts(proxy: str) -> SplitResult:
    """A proxy's URL; where it can't be read, what stands in it may be a password."""
    try:
        parts = urlsplit(proxy)
        readable = parts.port is None or parts.port > 0
    except ValueError:
        readable = False
    if not readable or "@" in parts.path + parts.query + parts.fragment:
        raise FederationError(
            "the proxy's URL can't be read",
            place="the variables of a proxy",
            remedy="percent-encode what is special in its user or password: # as %23, / as %2F, "
            "? as %3F, @ as %40",
        )
    return parts


def shown(proxy: str) -> str:
    """A proxy without user and password.

    Raises:
        FederationError: it is no URL of a proxy.
    """
    parts = _parts(proxy)
    port = f":{parts.port}" if parts.port else ""
    hidden = " (with a password, not shown)" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{parts.hostname}{port}{hidden}"


def proxy_finding(route: Route) -> Finding:
    """Which proxy would be used, and which variables say so."""
    names = [n for n in (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES)) if os.environ.get(n)]
    said = f"set: {', '.join(names)}" if names else "no proxy variable is set"
    if route.proxy is None:
        return ok(f"{said}; {route.host} is reached directly")
    return warning(
        f"{said}; {route.host} is reached through {shown(route.proxy)}",
        "if that is not meant, unset the variable or add the host to NO_PROXY where fedner starts",
    )


def resolves(host: str) -> Finding:
    """Whether a name has an address here.

    Raises:
        FederationError: it has not.
    """
    if _is_address(host):
        return ok("an address: no name to resolve")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FederationError(
            f"does not resolve: {getattr(error, 'strerror', None) or 'not a name'}",
            place=host,
            remedy="compare the spelling with the coordinator's; ask who runs the name server; as "
            "a last resort /etc/hosts",
        ) from None
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return ok(f"resolves to {', '.join(addresses)}")


def reachable(route: Route, limit_s: float) -> Finding:
    """Whether the server's port takes a connection, on the way that Flower would take."""
    connect(route, limit_s).close()
    through = "" if route.proxy is None else f", through {shown(route.proxy)}"
    return ok(f"takes connections{through}")


def connect(route: Route, limit_s: float) -> socket.socket:
    """A TCP connection to the server, by the proxy if there is one.

    Raises:
        FederationError: says which of the two did not answer.
    """
    if route.proxy is not None:
        return _tunnel(route, route.proxy, limit_s)
    try:
        return socket.create_connection((route.host, route.port), timeout=limit_s)
    except OSError as error:
        raise FederationError(
            f"can't be reached: {error.strerror or 'no answer in time'}",
            place=str(route),
            remedy="is the server running? let your firewall pass TCP to this port, outwards only",
        ) from None


def _tunnel(route: Route, proxy: str, limit_s: float) -> socket.socket:
    parts = _parts(proxy)
    remedy = "ask who runs the proxy to pass CONNECT to this port, or add the host to NO_PROXY"
    if parts.scheme != "http" or parts.hostname is None:
        said = "this kind of proxy is not looked through"
        raise FederationError(said, place=shown(proxy), remedy=remedy)
    link = HTTPConnection(parts.hostname, parts.port or 80, timeout=limit_s)
    link.set_tunnel(route.host, route.port, headers=_credentials(parts.username, parts.password))
    try:
        link.connect()
    except (OSError, HTTPException) as error:
        link.close()
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        place = f"{route} through {shown(proxy)}"
        raise FederationError(f"the proxy: {said}", place=place, remedy=remedy) from None
    return link.sock


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"proxy-authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


def bindable(host: str, port: int) -> Finding:
    """Whether the server's public socket could be opened now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return failed(
            f"can't be opened: {error.strerror or error}",
            "stop what listens there (`ss -ltnp`), or change `server.port` or `server.listen` in "
            "FEDERATION.yaml and renew",
        )
    return ok("free")
