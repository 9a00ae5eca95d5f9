"""What a stranger does to the public port: each hand is one kind of attack, counted by its outcome.

A hand knows address and CA certificate of the server, as anybody may, and has a node key of its
own that nobody has enrolled. One hand is an institution's that has turned: it has an enrolled key.
All come from many loopback addresses, since the server counts connections by address.
"""

import asyncio
import datetime
import random
import socket
import ssl
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

ANSWER_S: Final = 5.0
"""For which a hand waits for an answer that it does not need."""

PATHS: Final = tuple(path for _, path in PROTOBUF_REQUEST_TYPES)
"""All that Flower's SuperLink serves: Fleet, Control and Runtime."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI")
_PULL: Final = "/v1/fleet/pull-messages"
_GARBAGE: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"\x00" * 200,
    b"GET\r\n\r\n",
    b"POST " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: x\r\na: " + b"b" * 200_000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/fleet/../control/start-run HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    b"GET http://127.0.0.1/v1/control/list-runs HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x16\x03\x01" * 50,
)


@dataclass(slots=True)
class Hands:
    """Attacks on one public port.

    Args:
        tls: trusts the server's authority, and nothing else.
        stranger: a node's private key that is not enrolled.
        turned: an enrolled one.
        chance: the only source of randomness.
        first: of the source addresses 127.`first`.*.*; each hand goes on where the last ended.
    """

    port: int
    tls: ssl.SSLContext
    stranger: Any
    turned: Any
    chance: random.Random
    first: int = 7
    _next: int = field(default=0, repr=False)

    def address(self) -> str:
        """The next of 10,000 source addresses."""
        self._next = (self._next + 1) % 10_000
        return f"127.{self.first}.{self._next // 100}.{1 + self._next % 100}"

    async def _open(self, source: str, tls: bool) -> tuple[asyncio.StreamReader, Any]:
        more: dict[str, Any] = {"ssl": self.tls, "server_hostname": "localhost"} if tls else {}
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0), **more)

    @asynccontextmanager
    async def connection(self, tls: bool, source: str | None = None) -> Any:
        """Reader and writer, cut at the end without a farewell."""
        reader, writer = await self._open(source or self.address(), tls)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, data: bytes, tls: bool) -> str:
        """What comes of some bytes: the status of an answer, or how else it ends."""
        try:
            async with self.connection(tls) as (reader, writer):
                writer.write(data)
                with suppress(OSError):
                    await writer.drain()
                return await _ending(reader)
        except (OSError, ssl.SSLError) as error:
            return _named(error)

    async def raw_fuzz(self, count: int) -> Counter[str]:
        """Bytes where a TLS handshake should come: random ones, and damaged greetings."""
        hello = client_hello(self.tls)
        return await _many(
            [lambda: self.send(self._damaged(hello), tls=False) for _ in range(count)]
        )

    async def tls_fuzz(self, count: int) -> Counter[str]:
        """Bytes after a good handshake: random ones, and damaged requests of a stranger."""
        good = self.head(_PULL, self.stranger, "content-length: 0")
        return await _many([lambda: self.send(self._damaged(good), tls=True) for _ in range(count)])

    async def garbage(self, count: int) -> Counter[str]:
        """What is no HTTP/1.1 request, or one with two meanings."""
        chosen = [_GARBAGE[i % len(_GARBAGE)] for i in range(count)]
        return await _many([_later(self.send, data, True) for data in chosen])

    async def every_path(self, methods: Sequence[str] = METHODS) -> Counter[str]:
        """Each path of Flower's with each method, signed by a key that is not enrolled."""
        heads = [
            self.head(path, self.stranger, "content-length: 0", method=method)
            for path in PATHS
            for method in methods
        ]
        return await _many([_later(self.send, head, True) for head in heads])

    async def crowd(self, count: int, handshakes: int, hold_s: float) -> Counter[str]:
        """So many connections, all open at once, some of them after a handshake; they say nothing.

        Counted: those that opened, and of them those that the server had cut before `hold_s`.
        """
        found: Counter[str] = Counter()
        sources = [self.address() for _ in range(max(1, count // 20))]
        room = asyncio.Semaphore(200)

        async def one(index: int) -> None:
            try:
                async with room:
                    reader, writer = await self._open(
                        sources[index % len(sources)], index < handshakes
                    )
            except (OSError, ssl.SSLError) as error:
                found[_named(error)] += 1
                return
            found["opened"] += 1
            found["at once"] = max(found["at once"], found["opened"] - found["cut"])
            try:
                async with asyncio.timeout(hold_s):
                    with suppress(OSError):
                        await reader.read(1)
                    found["cut"] += 1
            except TimeoutError:
                found["kept"] += 1
            finally:
                writer.transport.abort()

        await asyncio.gather(*(one(index) for index in range(count)))
        return found

    async def slow(self, count: int, limit_s: float) -> Counter[str]:
        """Handshakes, heads, bodies of an enrolled node and readers, each a byte a second or less.

        Counted: what each came to; `kept` are those that the server bore for `limit_s`.
        """
        hello = client_hello(self.tls)
        head = self.head(_PULL, self.stranger, "content-length: 0")
        body = self.head(_PULL, self.turned, "content-length: 100000")
        kinds = (
            ("handshake", lambda: self._drip(b"", hello, False, limit_s)),
            ("head", lambda: self._drip(b"", head, True, limit_s)),
            ("body", lambda: self._drip(body, bytes(1000), True, limit_s)),
            ("reader", lambda: self._never_reads(limit_s)),
        )
        found = await asyncio.gather(
            *(_many([act] * count, f"slow {name}: ") for name, act in kinds)
        )
        return sum(found, Counter())

    async def _drip(self, first: bytes, data: bytes, tls: bool, limit_s: float) -> str:
        try:
            async with asyncio.timeout(limit_s), self.connection(tls) as (reader, writer):
                writer.write(first)
                ending = asyncio.ensure_future(_ending(reader, limit_s))
                for byte in data:
                    writer.write(bytes([byte]))
                    if ending in (await asyncio.wait({ending}, timeout=1.0))[0]:
                        return ending.result()
                return await ending
        except TimeoutError:
            return "kept"
        except (OSError, ssl.SSLError) as error:
            return _named(error)

    async def _never_reads(self, limit_s: float) -> str:
        """Asks again and again, and takes no answer; its kernel holds as few as it can."""
        request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.bind((self.address(), 0))
        link.setblocking(False)
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", self.port))
                _, writer = await asyncio.open_connection(
                    sock=link, ssl=self.tls, server_hostname="localhost"
                )
                cast(asyncio.Transport, writer.transport).pause_reading()
                while True:
                    writer.write(request)
                    await writer.drain()
                    await asyncio.sleep(0)
        except TimeoutError:
            return "kept"
        except (OSError, ssl.SSLError) as error:
            return _named(error)
        finally:
            if writer is None:
                link.close()
            else:
                writer.transport.abort()

    def head(self, path: str, key: Any, *fields: str, method: str = "POST") -> bytes:
        """Of a request, signed as Flower's nodes do."""
        stamp = datetime.datetime.now(datetime.UTC).isoformat()
        proof = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, stamp.encode())).decode(),
        }
        lines = [f"{method} {path} HTTP/1.1", "host: x", *fields]
        return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in proof.items()), "", ""]).encode()

    def _damaged(self, good: bytes) -> bytes:
        """Random bytes, or good ones cut off, changed in places, or with something put in."""
        way = self.chance.randrange(4)
        noise = self.chance.randbytes(self.chance.randrange(1, 2000))
        at = self.chance.randrange(len(good))
        if way == 0:
            return noise
        if way == 1:
            return good[:at]
        if way == 2:
            return good[:at] + noise + good[at:]
        changed = bytearray(good)
        for _ in range(self.chance.randrange(1, 20)):
            changed[self.chance.randrange(len(changed))] = self.chance.randrange(256)
        return bytes(changed)


def client_hello(tls: ssl.SSLContext) -> bytes:
    """The first bytes of a handshake."""
    outgoing = ssl.MemoryBIO()
    link = tls.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        link.do_handshake()
    return outgoing.read()


def _named(error: Exception) -> str:
    return "reset" if isinstance(error, ConnectionError) else type(error).__name__


async def _ending(reader: asyncio.StreamReader, limit_s: float = ANSWER_S) -> str:
    try:
        async with asyncio.timeout(limit_s):
            answer = await reader.read(4096)
    except TimeoutError:
        return "no answer"
    except (OSError, ssl.SSLError) as error:
        return _named(error)
    if answer.startswith(b"HTTP/1.1 "):
        return answer[9:12].decode("ascii", "replace")
    return "a TLS alert" if answer else "closed"


def _later(act: Callable[..., Awaitable[str]], *arguments: Any) -> Callable[[], Awaitable[str]]:
    return lambda: act(*arguments)


async def _many(acts: Sequence[Callable[[], Awaitable[str]]], prefix: str = "") -> Counter[str]:
    """All of them, fifty at once; how often each outcome came."""
    room = asyncio.Semaphore(50)

    async def one(act: Callable[[], Awaitable[str]]) -> str:
        async with room:
            return f"{prefix}{await act()}"

    return Counter(await asyncio.gather(*(one(act) for act in acts)))
