"""Health of a worker: gRPC health checking (grpc.health.v1) on its socket, `Check` alone.

The protocol is that of github.com/grpc/grpc-proto, grpc/health/v1/health.proto. `Watch` is not
there (UNIMPLEMENTED, which the protocol allows): a stream that is held open would hold a call.

Guarantees:
    * Silence: the answer is SERVING, or NOT_FOUND for a service of another name. Nothing of study,
      data, policy, ledger or what runs is in it, and it is the same at all times.
    * Where the relay is another user, the worker's own user can't reach the socket. So the worker
      then has a second one, with this method and no other, for its own user alone.
"""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from client.endpoint import bind, claim, limits, prepare_directory
from client.relay import SERVICE

HEALTH: Final = "grpc.health.v1.Health"
CHECK: Final = "Check"
_NAMES: Final = ("", SERVICE)
_MAX_REQUEST_BYTES: Final = 1024


def handler() -> grpc.GenericRpcHandler:
    """Answers `Check`."""
    method = grpc.unary_unary_rpc_method_handler(
        _check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(HEALTH, {CHECK: method})


def _check(
    request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
) -> health_pb2.HealthCheckResponse:
    if request.service not in _NAMES:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse()
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class HealthDoor:
    """A socket with nothing but health. Keep it: the path's lock is released when it goes.

    Raises:
        FederationError: the path is unsafe or too long, or another worker has it.
    """

    def __init__(self, path: Path):
        prepare_directory(path.parent, None)
        self._lock_file = claim(path)
        try:
            self._server = grpc.server(
                ThreadPoolExecutor(max_workers=1, thread_name_prefix="fedner-health"),
                handlers=(handler(),),
                options=limits(_MAX_REQUEST_BYTES),
                maximum_concurrent_rpcs=1,
            )
            bind(self._server, path, None)
            self._server.start()
        except BaseException:
            os.close(self._lock_file)
            raise

    def close(self) -> None:
        """Answer no more."""
        self._server.stop(0).wait()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


def is_serving(path: Path, limit_s: float) -> bool:
    """Whether a worker answers `Check` at `path` with SERVING, within the limit."""
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(f"unix:{path.absolute()}", options=options) as channel:
        check = channel.unary_unary(
            f"/{HEALTH}/{CHECK}",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        with contextlib.suppress(grpc.RpcError, ValueError):
            reply = check(health_pb2.HealthCheckRequest(), timeout=limit_s)
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
    return False
