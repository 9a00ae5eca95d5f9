"""A TCP proxy that spoils a link on demand: holds bytes, delays or slows them, resets connections.

It knows nothing of what it carries, TLS included. What is held back is not lost: as with a cut
line, the two ends keep it, and it goes on where it stopped if nobody has given up meanwhile.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal

CHUNK_BYTES: Final = 1 << 16
QUEUED: Final = 16
"""Chunks on their way in one direction: then the sender is no more read from."""
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends RST, socket(7)

Direction = Literal["up", "down"]
BOTH: Final[tuple[Direction, ...]] = ("up", "down")


@dataclass(slots=True)
class _Line:
    """One direction of all connections."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0
    rate: float = 0.0
    free_s: float = 0.0
    carried: int = 0

    def takes(self, size: int, now_s: float) -> float:
        """Seconds until so many bytes more have been sent, at `rate` bytes a second, if any."""
        if not self.rate:
            return 0.0
        self.free_s = max(self.free_s, now_s) + size / self.rate
        return self.free_s - now_s


class Proxy:
    """Carries connections from a port of its own to another one on this machine.

    Args:
        target: port that it connects to; `up` is towards it.
    """

    def __init__(self, target: int):
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._lines: dict[Direction, _Line] = {d: _Line() for d in BOTH}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        for line in self._lines.values():
            line.open.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._started = threading.Event()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # --- what is done to the link

    def hold(self, *directions: Direction) -> None:
        """Carry nothing more in these directions, or in both; new connections are accepted."""
        self._set(directions or BOTH, carries=False)

    def release(self) -> None:
        """Carry again in both directions, at once."""
        self._set(BOTH, carries=True)

    def delay(self, seconds: float) -> None:
        """Each byte takes so much longer, each way."""
        for line in self._lines.values():
            line.delay_s = seconds

    def slow(self, rate: float) -> None:
        """So many bytes a second each way, over all connections; 0 is as many as there come."""
        for line in self._lines.values():
            line.rate = rate

    def reset(self) -> int:
        """End all connections with RST at both ends; how many ends there were."""
        done: list[int] = []
        finished = threading.Event()

        def abort() -> None:
            done.append(len(self._writers))
            for writer in list(self._writers):
                _reset(writer)
            finished.set()

        self._loop.call_soon_threadsafe(abort)
        finished.wait()
        return done[0]

    @property
    def carried(self) -> dict[Direction, int]:
        """Bytes by direction."""
        return {name: line.carried for name, line in self._lines.items()}

    def _set(self, directions: tuple[Direction, ...], *, carries: bool) -> None:
        finished = threading.Event()

        def change() -> None:
            for direction in directions:
                line = self._lines[direction].open
                (line.set if carries else line.clear)()
            finished.set()

        self._loop.call_soon_threadsafe(change)
        finished.wait()

    # --- inside the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._meet, sock=self._socket))
        self._loop.call_soon(self._started.set)
        try:
            self._loop.run_forever()
        finally:
            self._loop.set_exception_handler(lambda _loop, _context: None)  # of what is cut off now
            server.close()
            for writer in list(self._writers):
                _reset(writer)
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(_all_of(asyncio.all_tasks(self._loop)))
            self._loop.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            await self._lines["up"].open.wait()
            far, other = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(other)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(self._lines["up"], reader, other))
                both.create_task(self._carry(self._lines["down"], far, writer))
        except* OSError:
            pass  # one end is gone: so goes the other
        finally:
            for one in (writer, other):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _carry(
        self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until the sender's end; each chunk is due `delay_s` after it came."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED)
        async with asyncio.TaskGroup() as pair:
            pair.create_task(self._take(line, reader, queue))
            pair.create_task(self._give(line, writer, queue))

    async def _take(
        self, line: _Line, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        data = b"-"
        while data:
            await line.open.wait()
            data = await reader.read(CHUNK_BYTES)
            await queue.put((self._loop.time() + line.delay_s, data))

    async def _give(
        self, line: _Line, writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        while True:
            due, data = await queue.get()
            if due > self._loop.time():
                await asyncio.sleep(due - self._loop.time())
            await asyncio.sleep(line.takes(len(data), self._loop.time()))
            await line.open.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            line.carried += len(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _all_of(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
