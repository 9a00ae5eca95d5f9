"""The gate over real TLS, in front of an application that notes what reaches it."""

import asyncio
import datetime
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_IN_MEMORY_DB_NAME,
)
from flwr.supercore.date import now
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)
from flwr.superlink.federation import NoOpFederationManager

from common.io.certificate_files import create_authority, create_server, open_authority
from common.io.flower_internals import authenticated_node
from common.io.processes import free_port
from server import gate
from server.approvals import Admission, Approvals
from server.door import GatedServer, open_door
from server.limits import Limits

PULL = "/v1/fleet/pull-messages"


def make_certificates(root: Path) -> Path:
    """A server's folder, of an authority made for it."""
    made = datetime.datetime.now(datetime.UTC)
    create_authority(root / "authority", "test", None, made, 2)
    authority = open_authority(root / "authority", None)
    create_server(root / "server", authority, ("localhost", "127.0.0.1"), made, 1)
    return root / "server"


def signed(key: Any, when: datetime.datetime | None = None) -> dict[str, str]:
    """Headers with which a node authenticates, as Flower's own nodes make them."""
    stamp = (when or now()).isoformat()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
        TIMESTAMP_HEADER: stamp,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, stamp.encode())).decode(),
    }


class App:
    """Stands where Flower stands, with Flower's own state of nodes; notes what reaches it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.says = b"ok"
        self.links = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
        )
        self.state = SimpleNamespace(linkstate_factory=self.links)

    def register(self) -> tuple[int, Any]:
        """A new node, and its key."""
        key, public = generate_key_pairs()
        node = self.links.state().create_node("a", "a", public_key_to_bytes(public), 30.0)
        return node, key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        event = await receive()
        self.seen.append((scope["method"], scope["path"], event["body"]))
        headers = [(b"content-length", b"%d" % len(self.says))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.says})


class Knocker:
    """A running gate, and hands to knock with: a registered node's, unless said otherwise."""

    def __init__(self, app: App, port: int, private: int, certificates: Path, held: gate.Gate):
        self.app, self.port, self.private, self.gate = app, port, private, held
        self.tls = ssl.create_default_context(cafile=certificates / "ca.crt")
        self.node, self.key = app.register()

    @property
    def held(self) -> int:
        """Bytes for which the gate holds room."""
        return self.gate._room.held

    def connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return self.tls.wrap_socket(raw, server_hostname="127.0.0.1")

    def send(self, data: bytes) -> bytes:
        """All that comes back until the server closes, or falls silent for a second."""
        with self.connect() as link:
            with suppress(OSError):  # refused before all of it was sent
                link.sendall(data)
            return read(link)

    def head(self, target: str, *fields: str, key: Any = None, method: str = "POST") -> bytes:
        """Of a request, signed."""
        proof = [f"{name}: {value}" for name, value in signed(key or self.key).items()]
        lines = (f"{method} {target} HTTP/1.1", "host: x", *fields, *proof, "", "")
        return "\r\n".join(lines).encode()

    def ask(self, target: str, method: str = "POST", body: bytes = b"", *more: str) -> bytes:
        """The answer to a whole request, signed."""
        fields = ("connection: close", f"content-length: {len(body)}", *more)
        return self.send(self.head(target, *fields, method=method) + body)


def read(link: socket.socket, limit_s: float = 3.0) -> bytes:
    """All until the other side closes, or is silent so long."""
    link.settimeout(limit_s)
    data = b""
    try:
        while chunk := link.recv(65536):
            data += chunk
    except (TimeoutError, OSError):
        pass
    return data


def status(answer: bytes) -> int:
    """Of an HTTP answer."""
    return int(answer.split(b" ", 2)[1])


@contextmanager
def opened(certificates: Path, limits: Limits, folder: Path | None = None) -> Iterator[Knocker]:
    """A gate that runs as long as the context lasts.

    Args:
        folder: with the register that it looks at; without, every registered key is approved.
    """
    app, port, private = App(), free_port(), free_port()
    crt, key = certificates / "server.crt", certificates / "server.key"
    door = open_door("127.0.0.1", port, str(crt), str(key), limits)
    config = uvicorn.Config(app, host="127.0.0.1", port=private, ws="none", log_config=None)
    node_of, require = partial(authenticated_node, app), lambda _scope: None
    if folder is not None:
        admission = Admission(app, Approvals(folder))
        node_of, require = admission.node_of, admission.require
    public = gate.public_config(app, door, node_of, require)
    server = GatedServer(config, public, door)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        yield Knocker(app, port, private, certificates, public.app)
    finally:
        server.should_exit = True
        thread.join(20)
