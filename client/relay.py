"""The outward side's only way in: opaque bytes to the worker over a Unix-domain socket.

Imports the standard library and grpc alone. One method, `/fedner.Worker/Exchange`: a stream of
chunks of at most `CHUNK_BYTES` in, the same out, no serialisation beyond that.

Memory: beside the request the sender holds one chunk and gRPC's flow-control window; the reply is
gathered in one growing buffer that becomes the result without a copy, so at most an eighth of
the reply and one chunk on top of the reply itself.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import grpc

from common.errors import ProtocolError
from common.transport import RelayRefusal

SERVICE: Final = "fedner.Worker"
METHOD: Final = "Exchange"
CHUNK_BYTES: Final = 1 << 20
MAX_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un.sun_path less its closing NUL, Linux unix(7)

UNREACHABLE: Final = RelayRefusal.UNREACHABLE
TIMEOUT: Final = RelayRefusal.TIMEOUT
BUSY: Final = RelayRefusal.BUSY
FAILED: Final = RelayRefusal.WORKER_FAILED

_REFUSAL_OF_STATUS: Final = {
    grpc.StatusCode.UNAVAILABLE: UNREACHABLE,
    grpc.StatusCode.CANCELLED: UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: TIMEOUT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BUSY,
}
_REMEDY: Final = {
    UNREACHABLE: "start the worker, and see that the relay's user may reach its socket",
    TIMEOUT: "ask again: the worker keeps computing and hands over the finished reply",
    BUSY: "wait for the running computation, or raise the worker's limit on requests",
    FAILED: "read the worker's own log at the institution",
}


class WorkerError(ProtocolError):
    """No reply from the worker. `refusal` is the fixed code that may travel; the text may not."""

    def __init__(self, refusal: str, message: str, *, place: str):
        super().__init__(message, place=place, remedy=_REMEDY[refusal])
        self.refusal = refusal


def split(payload: bytes) -> Iterator[bytes]:
    """Yield `payload` in chunks of `CHUNK_BYTES`; only one chunk is copied at a time."""
    view = memoryview(payload)
    for start in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])


def gather(chunks: Iterable[bytes]) -> bytes:
    """Join `chunks` in one buffer whose `getvalue` hands it over without copying (CPython)."""
    buffer = io.BytesIO()
    for chunk in chunks:
        buffer.write(chunk)
    return buffer.getvalue()


class WorkerSocket:
    """One institution's worker, as the relay sees it.

    Args:
        path: the worker's socket.
        timeout_s: how long a whole exchange may take, the computation included.
        connect_timeout_s: how long to wait for a worker that is still starting.
    """

    def __init__(self, path: str, timeout_s: float, *, connect_timeout_s: float = 30.0):
        self._path = str(Path(path).absolute())
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        if len(self._path.encode()) > MAX_SOCKET_PATH_BYTES:
            raise WorkerError(
                UNREACHABLE,
                f"a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes",
                place=self._path,
            )

    def exchange(self, request: bytes) -> bytes:
        """Return the worker's reply to `request`.

        A repeated request is safe: the worker answers an identical one with identical bytes.

        Raises:
            WorkerError: the worker can't be reached, took too long, refused or failed.
        """
        with grpc.insecure_channel(f"unix:{self._path}", options=_CHANNEL_OPTIONS) as channel:
            self._await_ready(channel)
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}")
            try:
                return gather(call(split(request), timeout=self._timeout_s))
            except grpc.RpcError as error:
                raise self._error(error.code()) from None

    def _await_ready(self, channel: grpc.Channel) -> None:
        try:
            grpc.channel_ready_future(channel).result(timeout=self._connect_timeout_s)
        except grpc.FutureTimeoutError:
            raise WorkerError(
                UNREACHABLE,
                f"no worker answered within {self._connect_timeout_s:g} s",
                place=self._path,
            ) from None

    def _error(self, status: grpc.StatusCode) -> WorkerError:
        refusal = _REFUSAL_OF_STATUS.get(status, FAILED)
        return WorkerError(refusal, f"exchange ended with {status.name}", place=self._path)


_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", CHUNK_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)
