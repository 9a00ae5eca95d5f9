"""Addresses `host:port`, and which of them may be spoken to without TLS."""

import ipaddress
import os
from typing import Final

from common.errors import ConfigError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def unproxied() -> str:
    """For `NO_PROXY` of a child: what this process has there, and this machine itself."""
    said = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return ",".join([*filter(None, [said]), *LOOPBACK])


def parse_address(address: str, place: str) -> tuple[str, int]:
    """Host, without brackets, and port.

    Raises:
        ConfigError: not `host:port`.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            f"{address}: expected host:port",
            place=place,
            remedy="as fl.example.org:9192 or [2001:db8::1]:9192, with a port of 1 to 65535",
        )
    return host.strip("[]"), int(port)


def parse_loopback(address: str, place: str) -> tuple[str, int]:
    """Host and port of a loopback address.

    Raises:
        ConfigError: not `host:port`, or a host beyond this machine: that needs TLS.
    """
    host, port = parse_address(address, place)
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(
            f"{address} is not on this machine, and there is no TLS here",
            place=place,
            remedy="use 127.0.0.1:PORT, or TLS: at the coordinator `fedner server --federation "
            "FOLDER`, at an institution `authority` and `node` in the site file "
            "(docs/provisioning.md)",
        )
    return host, port
