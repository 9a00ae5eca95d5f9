"""How an institution's SuperNode reaches the coordinator: TLS and its node key, or not far.

Guarantees:
    - With `authority` and `node` in the site file: TLS, with that authority alone (two while one
      takes the other's place), and the node key on every request. Certificates and key are looked
      at first, and an error names the field.
    - Without: no coordinator beyond this machine.
"""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.config.relay import RelaySite
from common.config.site import Site
from common.errors import ConfigError, IdentityError
from common.identity.authority import expiry_notice
from common.io.addresses import parse_address, parse_loopback
from common.io.certificate_files import (
    NODE_KEY,
    read_authorities,
    read_node_key,
    require_authority,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A checked way to the coordinator.

    Attributes:
        arguments: of flower-supernode.
        notice: what a person should read; empty if nothing.
    """

    arguments: tuple[str, ...]
    notice: str

    @classmethod
    def of(cls, site: Site | RelaySite, site_path: Path, now: datetime.datetime) -> "Uplink":
        """As the site file says, or the relay's.

        Raises:
            ConfigError: certificate or key can't be used, or a coordinator beyond this machine
                without them.
        """
        place, to = f"{site_path}: coordinator", ("--superlink", site.coordinator)
        if site.authority is None or site.node is None:
            parse_loopback(site.coordinator, place)
            return cls(arguments=(*to, "--insecure"), notice="NO TLS: on this machine only.")
        parse_address(site.coordinator, place)
        base = site_path.parent.absolute()
        authority, node = base / site.authority, base / site.node
        with _as_config_error(f"{site_path}: authority"):
            require_authority(authority, now)
            notice = expiry_notice(str(authority), read_authorities(authority)[0], now)
        with _as_config_error(f"{site_path}: node"):
            read_node_key(node)
        trust = ("--root-certificates", str(authority))
        key = ("--auth-supernode-private-key", str(node / NODE_KEY))
        return cls(arguments=(*to, *trust, *key), notice=notice or "")


@contextmanager
def _as_config_error(place: str) -> Iterator[None]:
    """What is wrong with a file, at the place in the site file that names it."""
    try:
        yield
    except IdentityError as error:
        said = f"{error.place} {error.message}" if error.place else error.message
        remedy = error.remedy or "docs/provisioning.md says how both files are made"
        raise ConfigError(said, place=place, remedy=remedy) from None
