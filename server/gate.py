"""Flower's SuperLink behind two sockets: all of it on loopback, and what nodes need in public.

Flower 1.41 serves its Fleet, Control and Runtime paths on one port, and authenticates nobody on the
last two: whoever reaches them may submit code. Here that port is on loopback; a second socket, with
a TLS of its own, leads to the same application through a gate. No proxy stands between, so there
are no two parsers that could disagree on where a request ends.

Guarantees:
    - The public socket passes on only `POST` to the paths in `FLEET_PATHS` and `GET` or `HEAD` of
      `/health`, spelt byte for byte so, without a query. All else gets an error of the gate's own.
    - It speaks HTTP/1.1 over TLS 1.3. Upgrades, a length beside chunks (RFC 9112, 6.1) and bodies
      over `max_body` are refused before Flower sees the request; so is any body to `/health`.
    - No body is asked for, or kept, before its head has passed Flower's node authentication: a
      signature, in Flower's window of time, by the key of a node that is registered now and whose
      institution the federation's register approves now. The register is looked at again when the
      body is whole (`server.approvals`), and Flower authenticates again, with the body.
    - Room for a body is taken before it is read: `server.limits`. Where there is none, 503 and the
      reason; Flower's nodes then try again.
    - A body comes at `min_rate` after `patience_s`: who is slower is cut off. For connections,
      `server.door`.
    - The body is whole before Flower sees the request: a slow sender holds none of its threads.
    - What strangers and nodes send grows the log by little: refusals are counted, and said in a few
      lines; no connection has an access log, and no place in the code writes without limit:
      `server.refusals`.
    - It starts only with node authentication, and with Flower's own port on loopback.
    - A node answers, confirms and fetches nothing that is another's, which Flower 1.41 does not
      check: `common.io.flower_internals.guard_handlers`.

Any user of the coordinator's own machine still reaches the loopback port: let there be none.
"""

import asyncio
import json
import logging
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import uvicorn

from common.errors import FednerError, UsageError
from common.io.addresses import parse_loopback
from common.io.flower_internals import NodeRefusedError, gated_superlink
from common.io.register_file import REGISTER
from server.approvals import Admission, Approvals
from server.door import Door, GatedServer, open_door
from server.limits import Limits, Room
from server.refusals import Refusals, bound_all_logs, shown

__all__ = ["Door", "Gate", "Limits", "main", "open_door", "public_config", "refusal", "serve"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
NodeOf = Callable[[Scope], Awaitable[int]]
"""The node whose key has signed a head; `NodeRefusedError` without."""
Require = Callable[[Scope], None]
"""Raises `NodeRefusedError` for a head whose key is not approved any more."""
Refusal = tuple[int, str | Mapping[str, Any]]
"""Status, and the reason as text, or as Flower's JSON."""

FLEET_PATHS: Final = frozenset(
    f"/v1/fleet/{name}".encode()
    for name in (
        "register-node", "activate-node", "deactivate-node", "unregister-node",
        "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
        "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
HEALTH: Final = b"/health"
_NO_ROOM: Final = (503, "no room for another body just now, try again")


def refusal(scope: Scope, limits: Limits) -> Refusal | None:
    """Status and reason with which the gate refuses a request's head; `None` lets it pass."""
    if scope["type"] != "http" or scope["http_version"] != "1.1":
        return 400, "HTTP/1.1 only"
    path, method = scope["raw_path"], scope["method"]
    allowed = {"GET", "HEAD"} if path == HEALTH else {"POST"}
    if (path != HEALTH and path not in FLEET_PATHS) or scope["query_string"]:
        return 404, "not served here"
    if method not in allowed:
        return 405, "not with this method"
    headers = _lower(scope)
    most = 0 if path == HEALTH else limits.max_body
    return _framing_refusal(headers) or (
        (413, "too large") if _announced(headers, limits) > most else None
    )


def _lower(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in scope["headers"]]


def _framing_refusal(headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    names = Counter(name for name, _ in headers)
    if names[b"upgrade"] or names[b"content-length"] > 1 or names[b"host"] != 1:
        return 400, "one host, one length, no upgrade"
    if names[b"content-length"] and names[b"transfer-encoding"]:
        return 400, "a length or chunks, not both"
    return None


def _announced(headers: list[tuple[bytes, bytes]], limits: Limits) -> int:
    """Bytes of the body as its head has it; of chunks, the most there may be."""
    fields = dict(headers)
    if b"transfer-encoding" in fields:
        return limits.max_body
    return int(fields.get(b"content-length", b"0"))


class Gate:
    """ASGI application in front of another: refuses heads, then collects the body.

    Args:
        node_of: authenticates a head.
        require: asked again when the body is whole.
        refusals: told of each.
    """

    def __init__(
        self, app: App, limits: Limits, node_of: NodeOf, require: Require, refusals: Refusals
    ):
        self._app = app
        self._limits = limits
        self._refusals = refusals
        self._node_of = node_of
        self._require = require
        self._room = Room(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refused = refusal(scope, self._limits)
        if refused is None and scope["raw_path"] == HEALTH:
            await self._app(scope, receive, send)
            return
        if refused is None:
            refused = await self._admit(scope, receive, send)
        if refused is not None and scope["type"] == "http":
            self._refusals.note(_kind(*refused), _whose(scope))
            await _answer(send, *refused)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> Refusal | None:
        """Pass on a node's request, or say why not."""
        try:
            node = await self._node_of(scope)
            return await self._take_body(node, scope, receive, send)
        except NodeRefusedError as error:
            return error.status, error.said

    async def _take_body(
        self, node: int, scope: Scope, receive: Receive, send: Send
    ) -> Refusal | None:
        with self._room.body(node, _announced(_lower(scope), self._limits)) as there_is:
            if not there_is:
                return _NO_ROOM
            body = await _collect(receive, self._limits)
            if not isinstance(body, bytes):
                return body
            self._require(scope)  # it may have been revoked meanwhile
            await self._app(scope, _replay(body, receive), send)
        return None


async def _collect(receive: Receive, limits: Limits) -> bytes | Refusal:
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


def _kind(status: int, reason: str | Mapping[str, Any]) -> str:
    return f"{status} {reason if isinstance(reason, str) else reason.get('detail', '')}"


def _whose(scope: Scope) -> str:
    """Of a request, for the log: what it asks, and from where."""
    address = (scope.get("client") or ("nowhere", 0))[0]
    return f"{shown(scope['method'].encode(), 10)} {shown(scope['raw_path'])} from {address}"


async def _answer(send: Send, status: int, reason: str | Mapping[str, Any]) -> None:
    plain = isinstance(reason, str)
    text = (reason if plain else json.dumps(reason)).encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain" if plain else b"application/json"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def public_config(app: App, door: Door, node_of: NodeOf, require: Require) -> uvicorn.Config:
    """How uvicorn serves the public side: HTTP/1.1 by h11, the gate in front."""
    return uvicorn.Config(
        Gate(app, door.limits, node_of, require, door.refusals), http="h11", ws="none",
        lifespan="off", log_config=None, proxy_headers=False,
        timeout_keep_alive=int(door.limits.idle_s),
    )  # fmt: skip


def serve(app: App, door: Door, approvals: Approvals, **flowers: Any) -> None:
    """In place of the `uvicorn.run` that Flower calls: the same server, and the public socket."""
    host, port = flowers.pop("host"), flowers.pop("port")
    parse_loopback(f"{host}:{port}", "--host")
    private = uvicorn.Config(
        app, host=host, port=port, ws="none", proxy_headers=False, server_header=False, **flowers
    )
    admission = Admission(app, approvals)
    public = public_config(app, door, admission.node_of, admission.require)
    bound_all_logs()  # of this moment: Flower's and uvicorn's are there
    GatedServer(private, public, door).run()


def main(argv: list[str]) -> None:
    """`HOST PORT CERTIFICATE KEY FEDERATION`, then the arguments of `flower-superlink`.

    FEDERATION is the folder with `register.json`.

    Raises:
        UsageError: fewer, or without node authentication.
        FederationError: another Flower is installed, or the public socket can't be opened.
    """
    if len(argv) < 5 or "--enable-supernode-auth" not in argv:
        raise UsageError(
            "expected HOST PORT CERTIFICATE KEY FEDERATION and flower-superlink's arguments",
            remedy="node authentication is never left out: --enable-supernode-auth",
        )
    host, port, certificate, key, folder, *rest = argv
    if not (Path(folder) / REGISTER).is_file():
        raise UsageError("has no register", place=folder, remedy="give the federation's folder")
    door = open_door(host, int(port), certificate, key, Limits())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    approvals = Approvals(Path(folder))
    _log_here()
    gated_superlink(rest, lambda **flowers: serve(door=door, approvals=approvals, **flowers))


def _log_here() -> None:
    """Send what fedner says in this process to its output, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("fedner").addHandler(handler)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FednerError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
