"""Addresses `host:port`, and which of them may be spoken to without TLS."""

import ipaddress

from common.errors import ConfigError


def parse_loopback(address: str, place: str) -> tuple[str, int]:
    """Host and port of a loopback address.

    Raises:
        ConfigError: not `host:port`, or a host beyond this machine: this version has no TLS.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{address}: expected host:port", place=place)
    bare = host.strip("[]")
    try:
        local = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(
            f"{address} is not on this machine, and this version has no TLS",
            place=place,
            remedy="use 127.0.0.1:PORT; deployment across machines comes with provisioning",
        )
    return bare, int(port)
