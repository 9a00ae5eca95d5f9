"""Flower's SuperLink behind two sockets: all of it on loopback, and what nodes need in public.

Flower 1.41 serves its Fleet, Control and Runtime paths on one port, and authenticates nobody on the
last two: whoever reaches them may submit code. Here that port is on loopback; a second socket, with
a TLS of its own, leads to the same application through a gate. No proxy stands between, so there
are no two parsers that could disagree on where a request ends.

Guarantees:
    - The public socket passes on only `POST` to the paths in `FLEET_PATHS` and `GET` or `HEAD` of
      `/health`, spelt byte for byte so, without a query. All else gets an error of the gate's own.
    - It speaks HTTP/1.1 over TLS 1.3. Upgrades, a length beside chunks (RFC 9112, 6.1) and bodies
      over `max_body` are refused before Flower sees the request.
    - A body comes at `min_rate` after `patience_s`, the first head within `head_s`, a TLS handshake
      within `handshake_s`: who is slower is cut off, and who takes more than `idle_s` to read an
      answer and ask again. At most `per_address` connections of one address and `connections` of
      all are open after their handshake.
    - It starts only with node authentication, and with Flower's own port on loopback.
    - A reply counts only if the node that pushes it is its sender. Flower 1.41 checks that its
      sender is who was asked, but not that the authenticated node is its sender.
    - The body is whole before Flower sees the request: a slow sender holds none of its threads.

It relies on how Flower starts uvicorn, and on uvicorn's classes: the tests fail when either moves.
Any user of the coordinator's own machine still reaches the loopback port: let there be none.
"""

import asyncio
import resource
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import uvicorn
from fastapi import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.errors import FederationError, FednerError, UsageError
from common.io.addresses import parse_loopback
from common.io.flower_internals import check_flower_version

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET_PATHS: Final = frozenset(
    f"/v1/fleet/{name}".encode()
    for name in (
        "register-node", "activate-node", "deactivate-node", "unregister-node",
        "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
        "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
HEALTH: Final = b"/health"
BACKLOG: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one stranger may hold open, and for how long.

    Attributes:
        max_body: bytes; Flower sends arrays in pieces of 5 MiB.
        min_rate: bytes a second of a body.
        patience_s: before `min_rate` counts.
        head_s: until the first request's head is whole.
        idle_s: from one answer to the next whole head; a node must read 5 MiB in this time.
        handshake_s: for TLS.
    """

    max_body: int = 16 << 20
    min_rate: int = 8 << 10
    patience_s: float = 20.0
    head_s: float = 20.0
    idle_s: float = 120.0
    handshake_s: float = 10.0
    per_address: int = 64
    connections: int = 1024


def refusal(scope: Scope, limits: Limits) -> tuple[int, str] | None:
    """Status and reason with which the gate refuses a request's head; `None` lets it pass."""
    if scope["type"] != "http" or scope["http_version"] != "1.1":
        return 400, "HTTP/1.1 only"
    path, method = scope["raw_path"], scope["method"]
    allowed = {"GET", "HEAD"} if path == HEALTH else {"POST"}
    if (path != HEALTH and path not in FLEET_PATHS) or scope["query_string"]:
        return 404, "not served here"
    if method not in allowed:
        return 405, "not with this method"
    return _framing_refusal([(k.lower(), v) for k, v in scope["headers"]], limits)


def _framing_refusal(headers: list[tuple[bytes, bytes]], limits: Limits) -> tuple[int, str] | None:
    names = Counter(name for name, _ in headers)
    if names[b"upgrade"] or names[b"content-length"] > 1 or names[b"host"] != 1:
        return 400, "one host, one length, no upgrade"
    if names[b"content-length"] and names[b"transfer-encoding"]:
        return 400, "a length or chunks, not both"
    length = dict(headers).get(b"content-length", b"0")
    if int(length) > limits.max_body:
        return 413, "too large"
    return None


class Gate:
    """ASGI application in front of another: refuses heads, then collects the body."""

    def __init__(self, app: App, limits: Limits):
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refused = refusal(scope, self._limits)
        if refused is None:
            body = await _collect(receive, self._limits)
            if isinstance(body, bytes):
                await self._app(scope, _replay(body, receive), send)
                return
            refused = body
        if scope["type"] == "http":
            await _answer(send, *refused)


async def _collect(receive: Receive, limits: Limits) -> bytes | tuple[int, str]:
    """The body, or status and reason of refusing it."""
    loop, body = asyncio.get_running_loop(), bytearray()
    deadline = loop.time() + limits.patience_s
    while True:
        try:
            async with asyncio.timeout_at(deadline + len(body) / limits.min_rate):
                event = await receive()
        except TimeoutError:
            return 408, "too slow"
        if event["type"] == "http.disconnect":
            return 400, "gone"
        body += event.get("body", b"")
        if len(body) > limits.max_body:
            return 413, "too large"
        if not event.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The collected body as one event, then what the connection says."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def first_the_body() -> MutableMapping[str, Any]:
        return events.pop() if events else await receive()

    return first_the_body


async def _answer(send: Send, status: int, reason: str) -> None:
    text = reason.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class Crowd:
    """Open connections by address."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one in, if there is room."""
        full = self._open.total() >= self._limits.connections
        if full or self._open[address] >= self._limits.per_address:
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one out."""
        self._open[address] -= 1
        self._open += Counter()  # forget addresses that hold nothing


class PublicProtocol(H11Protocol):
    """A connection to the public socket: counted, and cut off when no request comes of it."""

    def __init__(self, crowd: Crowd, limits: Limits, **arguments: Any):
        super().__init__(**arguments)
        self._crowd = crowd
        self._limits = limits
        self._counted: str | None = None
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self._crowd.enter(address):
            transport.abort()
            return
        self._counted = address
        self._wait_for_head(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted is not None:
            self._crowd.leave(self._counted)
            self._counted = None
        if self._clock is not None:
            self._clock.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait_for_head(self._limits.idle_s)
        super().on_response_complete()

    def _wait_for_head(self, limit_s: float) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self.loop.call_later(limit_s, self._cut_if_idle)

    def _cut_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The public side: a bound socket, its TLS and its limits."""

    socket: socket.socket
    tls: ssl.SSLContext
    limits: Limits


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


def public_config(app: App, door: Door) -> uvicorn.Config:
    """How uvicorn serves the public side: HTTP/1.1 by h11, the gate in front."""
    return uvicorn.Config(
        Gate(app, door.limits), http="h11", ws="none", lifespan="off", log_config=None,
        proxy_headers=False, timeout_keep_alive=int(door.limits.idle_s),
    )  # fmt: skip


def serve(app: App, door: Door, **flowers: Any) -> None:
    """In place of the `uvicorn.run` that Flower calls: the same server, and the public socket."""
    host, port = flowers.pop("host"), flowers.pop("port")
    parse_loopback(f"{host}:{port}", "--host")
    private = uvicorn.Config(
        app, host=host, port=port, ws="none", proxy_headers=False, server_header=False, **flowers
    )
    GatedServer(private, public_config(app, door), door).run()


def own_replies_only(push: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's handler of pushed replies, for those whose sender pushes them."""

    def checked(request: Any, **others: Any) -> Any:
        senders = {message.metadata.src_node_id for message in request.messages_list}
        if senders - {request.node.node_id}:
            raise HTTPException(403, "a reply in another node's name")
        return push(request=request, **others)

    return checked


def main(argv: list[str]) -> None:
    """`HOST PORT CERTIFICATE KEY`, then the arguments of `flower-superlink`.

    Raises:
        UsageError: fewer, or without node authentication.
    """
    if len(argv) < 4 or "--enable-supernode-auth" not in argv:
        raise UsageError(
            "expected HOST PORT CERTIFICATE KEY and flower-superlink's arguments",
            remedy="node authentication is never left out: --enable-supernode-auth",
        )
    check_flower_version()
    host, port, certificate, key, *rest = argv
    door = open_door(host, int(port), certificate, key, Limits())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.argv = ["flower-superlink", *rest]
    import_module("flwr.superlink.cli")
    link: Any = sys.modules["flwr.superlink.cli.flower_superlink"]  # the package hides it
    fleet: Any = import_module("flwr.superlink.servicer.fleet.fleet_handlers")
    fleet.push_messages = own_replies_only(fleet.push_messages)
    link.uvicorn = SimpleNamespace(run=lambda **flowers: serve(door=door, **flowers))
    link.flower_superlink()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FednerError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
