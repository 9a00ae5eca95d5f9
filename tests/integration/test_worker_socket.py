"""The socket between relay and worker: reach, chunks, silence."""

import fcntl
import hashlib
import logging
import os
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from client import endpoint, service
from client.relay import (
    CHUNK_BYTES,
    FAILED,
    METHOD,
    SERVICE,
    UNREACHABLE,
    WorkerError,
    WorkerSocket,
    gather,
    split,
)
from common.errors import FederationError, PolicyError, ProtocolError

SECRET = "Jane Doe, born 1 April"
ROUTE = f"/{SERVICE}/{METHOD}"


@pytest.fixture
def path(tmp_path):
    """A short path in a directory that doesn't exist yet."""
    return tmp_path / "door" / "s"


@pytest.fixture
def start(path):
    """Start services on `path` with defaults; all are stopped at the end."""
    running = []

    def _start(handle=lambda request: request, **options):
        options = {"max_request_bytes": 1 << 20, "on_error": lambda error: b"failed", **options}
        running.append(service.serve(path, handle, **options))
        return running[-1]

    yield _start
    for one in running:
        one.stop()


def _ask(path, request, timeout_s=20.0):
    return WorkerSocket(str(path), timeout_s, connect_timeout_s=5.0).exchange(request)


def _status(path, chunks, route=ROUTE):
    """Return the status that a raw call ends with."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        call = channel.stream_stream(route)(iter(chunks), timeout=20)
        try:
            list(call)
        except grpc.RpcError:
            assert not call.details() or SECRET not in call.details()
        return call.code()


# --- reach


def test_socket_and_directory_are_the_owners_alone(start, path):
    start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_relay_group_gets_the_socket_and_nothing_wider(start, path):
    if os.geteuid() == 0:  # root is kept out by no mode, and so refused before it serves
        with pytest.raises(PolicyError, match="own user can connect"):
            start(relay_group=os.getgid())
    else:
        start(relay_group=os.getgid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o060
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o710


def test_the_socket_has_its_final_mode_from_the_moment_on_when_it_is_there(path, monkeypatch):
    """Nothing is left to a later chmod, which is taken away here, or to the umask of before."""
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    monkeypatch.setattr(endpoint, "require_apart", lambda _: None)
    path.parent.mkdir()
    before = os.umask(0)
    try:
        for group, mode in ((None, 0o600), (os.getgid(), 0o060)):
            server = grpc.server(ThreadPoolExecutor(1))
            endpoint.bind(server, path, group)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            server.stop(0).wait()
            path.unlink(missing_ok=True)
            assert os.umask(0) == 0
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o750, 0o710, 0o701, 0o777])
def test_an_existing_wider_directory_is_refused(start, path, mode):
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(FederationError, match="0700 or narrower"):
        start()
    assert not path.exists()


def test_a_directory_behind_a_link_is_refused(start, path, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    path.parent.symlink_to(tmp_path / "real")
    with pytest.raises(FederationError, match="worker's own"):
        start()


def test_a_second_worker_is_refused_and_the_first_keeps_serving(start, path):
    start()
    with pytest.raises(FederationError, match="another worker"):
        start()
    assert _ask(path, b"still here") == b"still here"


def test_a_worker_that_is_just_starting_is_not_overtaken(start, path):
    path.parent.mkdir(mode=0o700)
    with open(f"{path}.lock", "w") as lock:  # what the first one holds before it listens
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FederationError, match="another worker"):
            start()
    start()


def test_a_foreign_listener_is_not_pushed_out(start, path):
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(FederationError, match="another worker"):
            start()
    assert path.exists()


def test_a_dead_workers_socket_is_replaced(start, path):
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    start()
    assert _ask(path, b"x") == b"x"


def test_a_file_in_the_sockets_place_is_left_alone(start, path):
    path.parent.mkdir(mode=0o700)
    path.write_text("keep")
    with pytest.raises(FederationError, match="other than a socket"):
        start()
    assert path.read_text() == "keep"


def test_a_worker_can_follow_a_stopped_one(start, path):
    start(lambda request: b"first").stop()
    start(lambda request: b"second")
    assert _ask(path, b"x") == b"second"


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    long = tmp_path / ("d" * 100) / "s"
    with pytest.raises(FederationError, match="107 bytes"):
        service.serve(long, bytes, max_request_bytes=1, on_error=lambda error: b"")
    with pytest.raises(WorkerError, match="107 bytes"):
        WorkerSocket(str(long), 1.0)


def test_an_absent_worker_gives_a_protocol_error_in_time(path):
    started = time.monotonic()
    with pytest.raises(ProtocolError, match="no worker answered") as caught:
        WorkerSocket(str(path), 60.0, connect_timeout_s=0.5).exchange(b"x")
    assert caught.value.refusal == UNREACHABLE
    assert time.monotonic() - started < 5


def test_a_worker_that_starts_late_is_waited_for(start, path):
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(_ask, path, b"early")
        time.sleep(0.5)
        start()
        assert reply.result() == b"early"


# --- chunks


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_split_and_gather_are_inverse(size):
    payload = os.urandom(size)
    chunks = list(split(payload))
    assert max(map(len, chunks)) <= CHUNK_BYTES
    assert gather(chunks) == payload


def test_a_64_mb_message_passes_whole(start, path):
    start(lambda request: request[::-1], max_request_bytes=64_000_000)
    request = os.urandom(64_000_000)
    assert _ask(path, request) == request[::-1]


RELAY_PROCESS = """
import resource, sys
from client.relay import WorkerSocket
request = bytes(128 << 20)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
reply = WorkerSocket(sys.argv[1], 60.0).exchange(request)
assert len(reply) == 128 << 20
print(peak() - before, sorted({"numpy", "torch", "flwr"} & set(sys.modules)))
"""


def test_relay_holds_little_beside_the_two_messages_and_imports_no_numpy(start, path):
    start(lambda request: request, max_request_bytes=128 << 20)
    command = [sys.executable, "-c", RELAY_PROCESS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    extra_mib, loaded = done.stdout.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert int(extra_mib) < 128 * 9 / 8 + 32  # the reply, its eighth, and gRPC's windows


# --- silence


def _raise(error):
    raise error


@pytest.mark.parametrize("error", [ValueError(SECRET), SystemExit(SECRET), KeyboardInterrupt()])
def test_an_exceptions_text_is_logged_here_and_never_travels(start, path, error, caplog):
    seen = []
    start(lambda request: _raise(error), on_error=lambda e: seen.append(e) or b"code 7")
    with caplog.at_level(logging.ERROR):
        reply = _ask(path, b"x")
    assert reply == b"code 7"
    assert SECRET.encode() not in reply
    assert seen == [error]
    assert "the worker failed" in caplog.text
    assert _ask(path, b"x") == b"code 7"
    assert len(seen) == 1


def test_a_failing_error_report_gives_a_bare_status(start, path):
    start(lambda request: _raise(ValueError(SECRET)), on_error=lambda e: _raise(e))
    assert _status(path, [b"x"]) == grpc.StatusCode.INTERNAL
    with pytest.raises(WorkerError) as caught:
        _ask(path, b"x")
    assert caught.value.refusal == FAILED
    assert SECRET not in str(caught.value)


def test_a_reply_that_is_not_bytes_is_an_error(start, path):
    start(lambda request: SECRET)
    assert _ask(path, b"x") == b"failed"


def test_replies_are_keyed_by_the_whole_request():
    replies = service.ReplyCache(lambda r: hashlib.sha256(r).digest(), lambda e: b"")
    one, two = replies.submit(b"a" * 99), replies.submit(b"a" * 100)
    assert one.result(10) != two.result(10)
    replies.close()
