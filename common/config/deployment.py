"""FEDERATION.yaml: where a federation's server is found, and how long its certificates hold."""

import ipaddress
import json
import re
from dataclasses import asdict
from typing import Any, Final, cast

import yaml
from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from common.config import load
from common.config.data import STRICT
from common.config.privacy import refusal
from common.config.study import NAME_PATTERN

DNS_NAME: Final = r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Server:
    """The server as institutions reach it.

    Attributes:
        names: DNS names that stand in its certificate, in lower case.
        addresses: IP addresses that stand in its certificate.
        port: of the public socket.
        listen: the address of this machine that the public socket is bound to.
    """

    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    port: int = Field(default=9192, ge=1, le=65535)
    listen: str = "0.0.0.0"

    @field_validator("names")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if len(name) > 253 or not re.fullmatch(DNS_NAME, name) or _is_address(name):
                raise refusal(
                    f"{name!r} is not a DNS name in lower case",
                    "write names without scheme, port, blank or `*`; IP addresses go under "
                    "`addresses`",
                )
        return names

    @field_validator("addresses")
    @classmethod
    def _are_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            if not _is_address(address) or ipaddress.ip_address(address).is_unspecified:
                raise refusal(
                    f"{address!r} is not an IP address that somebody can connect to",
                    "write `192.0.2.10` or `2001:db8::10`, without a port",
                )
        return addresses

    @field_validator("listen")
    @classmethod
    def _is_local(cls, listen: str) -> str:
        if not _is_address(listen):
            raise refusal(
                f"{listen!r} is not an IP address", "0.0.0.0 or :: listens on every interface"
            )
        return listen

    @model_validator(mode="after")
    def _is_somewhere(self) -> "Server":
        if not self.names and not self.addresses:
            raise refusal(
                "the server needs a name or an address that its certificate can hold",
                "give `names`, `addresses` or both",
            )
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names and addresses in the server's certificate."""
        return (*self.names, *self.addresses)

    @property
    def public(self) -> str:
        """`host:port` that institutions connect to: the first name, else the first address."""
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Validity:
    """Days that certificates hold, counted from the day they are made.

    Attributes:
        authority_days: of the federation's own certificate authority.
        server_days: of the server's certificate; `fedner provision --renew` makes the next.
    """

    authority_days: int = Field(default=1825, ge=1, le=7300)
    server_days: int = Field(default=180, ge=1, le=825)

    @model_validator(mode="after")
    def _authority_lasts(self) -> "Validity":
        if self.server_days > self.authority_days:
            raise refusal(
                "the server's certificate would outlive the authority's",
                "make `server_days` the smaller of the two",
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Deployment:
    """One federation.

    Attributes:
        federation: its name.
        study: path of the study, relative to this file; its institutions are the only ones that
            can enrol.
    """

    federation: str = Field(pattern=NAME_PATTERN)
    study: str = Field(min_length=1)
    server: Server
    validity: Validity = Field(default_factory=Validity)


def parse_deployment(text: str, source: str) -> Deployment:
    """Parse FEDERATION.yaml.

    Raises:
        ConfigError: naming `source:line`, the YAML path, the value, what was expected.
    """
    parse = cast(Any, load._parse)
    return cast(Deployment, parse(text, source, Deployment))


def deployment_yaml(deployment: Deployment) -> str:
    """YAML that `parse_deployment` reads back as the same."""
    text: str = yaml.safe_dump(json.loads(json.dumps(asdict(deployment))), sort_keys=False)
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
