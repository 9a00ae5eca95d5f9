"""The worker's door: one gRPC method on a Unix-domain socket, bytes in and bytes out.

Guarantees:
    * Reach: the socket has mode 0600 in a directory of mode 0700, or, where relay and worker are
      different users, 0060 and 0710 for one named group: see `client.endpoint`. Wider directories
      are refused.
    * One worker: a second one on the same path is refused; only a dead socket is removed.
    * Idempotence: a request equal to one running or lately finished runs no computation; it gets
      the same bytes. A caller that leaves cancels nothing.
    * Order: one computation at a time; a few others wait, more are refused.
    * Silence: no exception's text leaves the process; what the log has of it: `client.worker_log`.
    * Bounds: a request beyond `max_request_bytes` is refused once that many bytes have come. At
      most `MAX_CALLS` requests are read at once and `MAX_WAITING` run or wait, so hostile callers
      can make the worker hold no more than their sum times `max_request_bytes` (plus an eighth).
      At most `MAX_CONNECTIONS` connections stand (`client.endpoint`); one more is closed at once.
      One that does not begin to speak HTTP/2 is closed after 10 s, one without a call after 60 s.
    * Apart: with a relay's group, nothing is taken before this user was kept out of the socket.
    * Health: grpc.health.v1 beside the one method, see `client.health`.
"""

import contextlib
import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import grpc

from client.endpoint import bind, claim, limits, prepare_directory
from client.health import handler as health_handler
from client.relay import CHUNK_BYTES, METHOD, SERVICE, gather, split

MAX_CALLS: Final = 4
MAX_WAITING: Final = 3

Handle = Callable[[bytes], bytes]
Keep = Callable[[bytes], bool]
OnError = Callable[[BaseException], bytes]

_log = logging.getLogger("fedner.worker")


class BusyError(Exception):
    """Too many different requests are running or waiting."""


class TooLargeError(Exception):
    """The request outgrew the limit."""


class ReplyCache:
    """Runs each distinct request once and remembers the last replies.

    Args:
        handle: computes a reply; called by one thread, one request at a time.
        on_error: makes the reply to a request whose computation raised.
        keep: whether a finished reply is remembered; one that is not goes to those who wait for
            it, and the same request runs again.
        max_replies: finished replies kept.
        max_bytes: bytes of finished replies kept; the newest stays whatever its size, since the
            relay that asked for it may have died.
    """

    def __init__(
        self,
        handle: Handle,
        on_error: OnError,
        *,
        keep: Keep = lambda _reply: True,
        max_replies: int = 8,
        max_bytes: int = 1 << 30,
    ):
        self._handle = handle
        self._keep = keep
        self._on_error = on_error
        self._max_replies = max_replies
        self._max_bytes = max_bytes
        self._replies: OrderedDict[bytes, Future[bytes | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._runner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fedner-compute")

    def submit(self, request: bytes) -> "Future[bytes | None]":
        """Return the future reply to `request`; None stands for "failed beyond `on_error`".

        Raises:
            BusyError: `MAX_WAITING` other requests are running or waiting.
        """
        key = hashlib.sha256(request).digest()
        with self._lock:
            known = self._replies.get(key)
            if known is not None:
                return known
            if sum(not reply.done() for reply in self._replies.values()) >= MAX_WAITING:
                raise BusyError
            reply = self._runner.submit(self._compute, request)
            self._replies[key] = reply
        reply.add_done_callback(partial(self._finish, key))
        return reply

    def close(self) -> None:
        """Take no more requests and drop those that haven't started."""
        self._runner.shutdown(wait=False, cancel_futures=True)

    def _compute(self, request: bytes) -> bytes | None:
        try:
            return _require_bytes(self._handle(request))
        except BaseException as error:  # noqa: BLE001 - even SystemExit must not end the thread
            _log.exception("the worker failed on a request")
            return self._error_reply(error)

    def _error_reply(self, error: BaseException) -> bytes | None:
        try:
            return _require_bytes(self._on_error(error))
        except Exception:  # noqa: BLE001 - logged here, never sent
            _log.exception("the worker failed to report a failure")
            return None

    def _finish(self, key: bytes, finished: "Future[bytes | None]") -> None:
        reply = None if finished.cancelled() else finished.result()
        with self._lock:
            if reply is None or not self._keep(reply):
                del self._replies[key]
            done = [key for key, reply in self._replies.items() if reply.done()]
            sizes = {key: _size(self._replies[key]) for key in done}
            while len(sizes) > 1 and not self._fits(sizes):
                oldest = next(iter(sizes))
                del sizes[oldest], self._replies[oldest]

    def _fits(self, sizes: dict[bytes, int]) -> bool:
        return len(sizes) <= self._max_replies and sum(sizes.values()) <= self._max_bytes


class WorkerService:
    """A serving worker. Keep it: the path's lock is released when it goes."""

    def __init__(self, server: grpc.Server, replies: ReplyCache, lock_file: int):
        self._server = server
        self._replies = replies
        self._lock_file = lock_file

    def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        """Block until `stop`; True if the time ran out first."""
        return bool(self._server.wait_for_termination(timeout_s))

    def stop(self, grace_s: float = 0.0) -> None:
        """Refuse new calls, give running ones `grace_s`, then let the next worker in.

        A running computation isn't interrupted: the interpreter waits for it when it exits.
        """
        self._server.stop(grace_s).wait()
        self._replies.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


def serve(
    socket_path: Path,
    handle: Handle,
    *,
    max_request_bytes: int,
    on_error: OnError,
    keep: Keep = lambda _reply: True,
    relay_group: int | None = None,
    stall_timeout_s: float = 300.0,
    max_replies: int = 8,
    max_reply_bytes: int = 1 << 30,
) -> WorkerService:
    """Serve `handle` on `socket_path` in background threads.

    Args:
        socket_path: its directory is made if missing.
        max_request_bytes: largest request accepted.
        on_error: turns an unexpected exception of `handle` into reply bytes that may travel.
        keep: see `ReplyCache`.
        relay_group: numeric id of a group shared with the relay's user; None if both are one user.
        stall_timeout_s: how long a caller may take to send its request, and to take its reply.
        max_replies: see `ReplyCache`.
        max_reply_bytes: see `ReplyCache`, `max_bytes`.

    Raises:
        FederationError: the path is unsafe or too long, or another worker serves it.
        PolicyError: with a relay's group, this very user could reach the socket.
    """
    path = socket_path.absolute()
    prepare_directory(path.parent, relay_group)
    lock_file = claim(path)
    try:
        replies = ReplyCache(
            handle, on_error, keep=keep, max_replies=max_replies, max_bytes=max_reply_bytes
        )
        server = _make_server(_Exchange(replies, max_request_bytes, stall_timeout_s))
        bind(server, path, relay_group)
        server.start()
    except BaseException:
        os.close(lock_file)
        raise
    return WorkerService(server, replies, lock_file)


class _Exchange:
    """The one method: receive, compute or attach, send."""

    def __init__(self, replies: ReplyCache, max_request_bytes: int, stall_timeout_s: float):
        self._replies = replies
        self._max_request_bytes = max_request_bytes
        self._stall_timeout_s = stall_timeout_s

    def __call__(self, chunks: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            reply = self._reply(chunks, context)
        except (TooLargeError, BusyError):
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            return
        except ValueError:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            return
        except grpc.RpcError:  # the caller has gone
            return
        except Exception:  # noqa: BLE001 - logged here, never sent
            _log.exception("the worker's socket service failed")
            reply = None
        if reply is None:
            context.set_code(grpc.StatusCode.INTERNAL)
            return
        with _time_limit(context, self._stall_timeout_s):
            yield from split(reply)

    def _reply(self, chunks: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        with _time_limit(context, self._stall_timeout_s):
            request = gather(self._checked(chunks))
        if not request:
            raise ValueError
        future = self._replies.submit(request)
        del request
        awake = threading.Event()
        future.add_done_callback(lambda _: awake.set())
        if context.add_callback(awake.set):  # False: the call has ended already
            awake.wait()
        return future.result() if future.done() and not future.cancelled() else None

    def _checked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        received = 0
        for chunk in chunks:
            received += len(chunk)
            if received > self._max_request_bytes:
                raise TooLargeError
            if not chunk:  # an endless stream of nothing would hold a thread
                raise ValueError
            yield chunk


@contextlib.contextmanager
def _time_limit(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel the call unless the block is left in time: half-open callers hold no thread."""
    timer = threading.Timer(seconds, context.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _make_server(exchange: _Exchange) -> grpc.Server:
    methods = {METHOD: grpc.stream_stream_rpc_method_handler(exchange)}
    return grpc.server(
        ThreadPoolExecutor(max_workers=MAX_CALLS, thread_name_prefix="fedner-socket"),
        handlers=(grpc.method_handlers_generic_handler(SERVICE, methods), health_handler()),
        options=limits(CHUNK_BYTES),
        maximum_concurrent_rpcs=MAX_CALLS,
    )


def _require_bytes(reply: object) -> bytes:
    if not isinstance(reply, bytes):
        raise TypeError(f"a reply is bytes, not {type(reply).__name__}")
    return reply


def _size(reply: "Future[bytes | None]") -> int:
    return 0 if reply.cancelled() else len(reply.result() or b"")
