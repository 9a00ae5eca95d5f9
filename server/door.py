"""The public socket of a uvicorn server: TLS 1.3, counted connections, and clocks on each.

Guarantees:
    - A TLS handshake is done within `handshake_s`, the first head is whole within `head_s`, and the
      next within `idle_s` of an answer: who is slower is cut off.
    - So is who does not read: an answer that waits for its reader waits `answer_s`.
    - Connections are counted after their handshake: `server.limits.Crowd`.
    - No request, and nothing that is none, has a log line of its own: `server.refusals`.

It relies on uvicorn's classes: the tests fail when they move.
"""

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.errors import FederationError
from server.limits import Crowd, Limits
from server.refusals import Refusals

BACKLOG: Final = 512
_LOOK_S: Final = 10.0


class PublicProtocol(H11Protocol):
    """A connection to the public socket: counted, and cut off when no request comes of it."""

    def __init__(self, crowd: Crowd, limits: Limits, refusals: Refusals, **arguments: Any):
        super().__init__(**arguments)
        self.access_log = False
        self.logger = _of_errors_alone()
        self._crowd = crowd
        self._limits = limits
        self._refusals = refusals
        self._counted: str | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self._crowd.enter(address):
            self._refusals.note("too many connections", address)
            transport.abort()
            return
        self._counted = address
        self._wait_for_head(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted is not None:
            self._crowd.leave(self._counted)
            self._counted = None
        for clock in (self._clock, self._unread):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._unread = self.loop.call_later(self._limits.answer_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._wait_for_head(self._limits.idle_s)
        super().on_response_complete()

    def _wait_for_head(self, limit_s: float) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self.loop.call_later(limit_s, self._cut_if_idle)

    def _cut_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            begun = self.conn.trailing_data[0] or self.cycle is None
            if begun:  # an institution's idle connection may end so
                self._refusals.note("no whole request in time", self._counted or "")
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._refusals.note("400 no HTTP request", self._counted or "")
        super().send_400_response(msg)


def _of_errors_alone() -> logging.Logger:
    """uvicorn's log, without the warnings that it writes for each request that is none."""
    log = logging.getLogger("uvicorn.error.public")
    log.setLevel(logging.ERROR)
    return log


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The public side: a bound socket, its TLS, its limits, and what it refuses."""

    socket: socket.socket
    tls: ssl.SSLContext
    limits: Limits
    refusals: Refusals = field(default_factory=Refusals)


def open_door(host: str, port: int, certificate: str, key: str, limits: Limits) -> Door:
    """Bind a socket with TLS 1.3: every peer runs Python 3.11 or newer.

    Raises:
        FederationError: the address is taken, or certificate and key can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        context.load_cert_chain(certificate, key)
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise FederationError(
            f"the public socket can't be opened: {error.strerror or error}",
            place=f"{host}:{port}",
            remedy=f"is the port taken? do {certificate} and {key} belong together?",
        ) from None
    return Door(socket=bound, tls=context, limits=limits)


class GatedServer(uvicorn.Server):
    """A server of Flower's application with a second, public socket."""

    def __init__(self, private: uvicorn.Config, public: uvicorn.Config, door: Door):
        super().__init__(private)
        self._public = public
        self._door = door

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the public socket once Flower is ready on the private one."""
        await super().startup(sockets)
        if self.should_exit:
            return
        limits, crowd = self._door.limits, Crowd(self._door.limits)

        def protocol() -> PublicProtocol:
            return PublicProtocol(
                crowd,
                limits,
                self._door.refusals,
                config=self._public,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            protocol, sock=self._door.socket, ssl=self._door.tls, backlog=BACKLOG,
            ssl_handshake_timeout=limits.handshake_s,
        )  # fmt: skip
        self.servers.append(server)
        self._look()

    def _look(self) -> None:
        """Say what was refused, from time to time, also when nothing more comes."""
        self._door.refusals.look()
        asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say what is not said yet, and end."""
        self._door.refusals.sum_up()
        await super().shutdown(sockets)
