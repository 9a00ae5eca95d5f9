"""How Flower's SuperLink is started and reached: on this machine only, or behind the gate.

Guarantee: Flower's own port, which serves its unauthenticated paths, is on loopback in both.
"""

import json
from dataclasses import dataclass
from typing import Final

from common.io.addresses import parse_loopback
from common.io.certificate_files import AUTHORITY, LINK, SERVER
from common.io.processes import free_port, module_command, script_command
from server.federation import Federation
from server.gate import Limits, open_door

CONNECTION: Final = "fedner"
_LOOPBACK: Final = "127.0.0.1"
_OFFLINE: Final = "--disable-runtime-dependency-installation"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperLink:
    """One way to run it.

    Attributes:
        host: of Flower's own port.
        connection: Flower's `config.toml` for tools on this machine.
        federation: whose nodes it takes in; anybody's on this machine if absent.
    """

    command: tuple[str, ...]
    host: str
    port: int
    connection: str
    federation: Federation | None


def on_loopback(address: str) -> SuperLink:
    """Without TLS, for institutions on this machine.

    Raises:
        ConfigError: an address beyond this machine.
    """
    host, port = parse_loopback(address, "--address")
    arguments = ("--insecure", "--host", host, "--port", str(port), _OFFLINE)
    return SuperLink(
        command=tuple(script_command("flower-superlink", *arguments)),
        host=host,
        port=port,
        connection=_connection(address, "insecure = true"),
        federation=None,
    )


def behind_gate(federation: Federation) -> SuperLink:
    """With TLS and node authentication, by the gate; Flower's own port is any free one.

    Raises:
        FederationError: the public socket can't be opened.
    """
    server, files = federation.deployment.server, federation.root / SERVER
    certificate, key = str(files / f"{SERVER}.crt"), str(files / f"{SERVER}.key")
    open_door(server.listen, server.port, certificate, key, Limits()).socket.close()
    authority, port = str(files / AUTHORITY), free_port()
    command = module_command(
        "server.gate", server.listen, str(server.port), certificate, key,
        str(federation.root), "--host", _LOOPBACK, "--port", str(port), "--enable-supernode-auth",
        "--ssl-ca-certfile", authority, "--ssl-certfile", str(files / f"{LINK}.crt"),
        "--ssl-keyfile", str(files / f"{LINK}.key"), _OFFLINE,
    )  # fmt: skip
    return SuperLink(
        command=tuple(command),
        host=_LOOPBACK,
        port=port,
        connection=_connection(
            f"{_LOOPBACK}:{port}", f"root-certificates = {json.dumps(authority)}"
        ),
        federation=federation,
    )


def _connection(address: str, trust: str) -> str:
    return (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n'
        f'[superlink.{CONNECTION}]\naddress = "{address}"\n{trust}\n'
    )
