"""The worker against repeated, vanishing and hostile callers: idempotence and bounds."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from client import endpoint, service
from client.relay import (
    BUSY,
    CHUNK_BYTES,
    METHOD,
    SERVICE,
    TIMEOUT,
    WorkerError,
    WorkerSocket,
)

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


class Counting:
    """A handler that counts its calls and can be held."""

    def __init__(self, held=False):
        self.calls = []
        self.entered = threading.Event()
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, request):
        self.calls.append(request)
        self.entered.set()
        assert self.go.wait(20)
        return b"reply %d to " % len(self.calls) + request


def _status(path, chunks, route=ROUTE):
    """Return the status that a raw call ends with."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        call = channel.stream_stream(route)(iter(chunks), timeout=20)
        try:
            list(call)
        except grpc.RpcError:
            assert not call.details() or SECRET not in call.details()
        return call.code()


# --- idempotence


def test_the_same_request_is_handled_once(start, path):
    handle = Counting()
    start(handle)
    assert _ask(path, b"a") == _ask(path, b"a") == b"reply 1 to a"
    assert _ask(path, b"b") == b"reply 2 to b"
    assert handle.calls == [b"a", b"b"]


def test_a_request_attaches_to_the_same_one_in_progress(start, path):
    handle = Counting(held=True)
    start(handle)
    with ThreadPoolExecutor(3) as pool:
        replies = [pool.submit(_ask, path, b"a") for _ in range(3)]
        assert handle.entered.wait(10)
        handle.go.set()
        assert {reply.result() for reply in replies} == {b"reply 1 to a"}
    assert handle.calls == [b"a"]


def test_a_caller_that_leaves_cancels_nothing(start, path):
    handle = Counting(held=True)
    start(handle)
    with pytest.raises(WorkerError) as caught:
        _ask(path, b"a", timeout_s=1.0)
    assert caught.value.refusal == TIMEOUT
    handle.go.set()
    assert _ask(path, b"a") == b"reply 1 to a"
    assert handle.calls == [b"a"]


def test_callers_that_leave_free_their_threads(start, path):
    handle = Counting(held=True)
    start(handle)
    for _ in range(2 * service.MAX_CALLS):
        with pytest.raises(WorkerError) as caught:
            _ask(path, b"a", timeout_s=0.3)
        assert caught.value.refusal == TIMEOUT
    handle.go.set()
    assert _ask(path, b"a") == b"reply 1 to a"


def test_a_killed_relay_finds_the_finished_reply(start, path):
    handle = Counting(held=True)
    start(handle)
    code = "import sys; from client.relay import *; WorkerSocket(sys.argv[1], 60.0).exchange(b'a')"
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as relay:
        assert handle.entered.wait(20)
        relay.kill()
    handle.go.set()
    assert _ask(path, b"a") == b"reply 1 to a"
    assert handle.calls == [b"a"]


def test_one_computation_runs_at_a_time(start, path):
    running, most = [], []

    def handle(request):
        running.append(request)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(request)
        return request

    start(handle)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda r: _ask(path, r), [b"a", b"b", b"c"])) == [b"a", b"b", b"c"]
    assert most == [1, 1, 1]


def test_too_many_different_requests_are_refused():
    handle = Counting(held=True)
    replies = service.ReplyCache(handle, lambda error: b"")
    futures = [replies.submit(b"%d" % i) for i in range(service.MAX_WAITING)]
    with pytest.raises(service.BusyError):
        replies.submit(b"one more")
    assert replies.submit(b"0") is futures[0]
    handle.go.set()
    assert futures[-1].result(10)
    assert replies.submit(b"one more").result(10)
    replies.close()


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [({"max_replies": 2}, [3, 4]), ({"max_bytes": 250}, [3, 4]), ({"max_bytes": 10}, [4])],
)
def test_finished_replies_are_bounded_and_the_newest_stays(bounds, kept):
    calls = []

    def handle(request):
        calls.append(request)
        return bytes(100)

    replies = service.ReplyCache(handle, lambda error: b"", **bounds)
    for number in range(5):
        replies.submit(b"%d" % number).result(10)
        while not replies.submit(b"%d" % number).done():
            pass
    time.sleep(0.05)  # the last callback
    calls.clear()
    for number in kept:
        replies.submit(b"%d" % number).result(10)
    assert calls == []
    replies.submit(b"%d" % (kept[0] - 1)).result(10)
    assert len(calls) == 1
    replies.close()


# --- bounds and hostile bytes


def test_an_oversized_request_is_refused_without_being_gathered(start, path):
    handle = Counting()
    start(handle, max_request_bytes=3 << 20)
    assert len(_ask(path, bytes(3 << 20))) > 3 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = []

    def endless():
        for _ in range(400):
            sent.append(1)
            yield bytes(CHUNK_BYTES)

    assert _status(path, endless()) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(sent) < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    with pytest.raises(WorkerError) as caught:
        _ask(path, bytes((3 << 20) + 1))
    assert caught.value.refusal == BUSY
    assert len(handle.calls) == 1


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT),
        ([b""], grpc.StatusCode.INVALID_ARGUMENT),
        ([b"a", b"", b"b"], grpc.StatusCode.INVALID_ARGUMENT),
        ([bytes(CHUNK_BYTES + 1)], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([b"a", b"b"], grpc.StatusCode.OK),
    ],
)
def test_chunking_is_checked(start, path, chunks, status):
    handle = Counting()
    start(handle)
    assert _status(path, chunks) == status
    assert handle.calls == ([b"ab"] if status == grpc.StatusCode.OK else [])


@pytest.mark.parametrize("route", ["/fedner.Worker/Other", "/other/Exchange", "/", "nonsense"])
def test_other_methods_do_not_exist(start, path, route):
    handle = Counting()
    start(handle)
    assert _status(path, [b"x"], route) != grpc.StatusCode.OK
    assert _ask(path, b"x")
    assert handle.calls == [b"x"]


def test_garbage_on_the_socket_leaves_the_worker_serving(start, path):
    start()
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for garbage in (b"", b"\x00" * 5000, os.urandom(5000), b"GET / HTTP/1.1\r\n\r\n", preface,
                    preface + b"\xff" * 5000):  # fmt: skip
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(garbage)
    assert _ask(path, b"x") == b"x"


def test_half_open_callers_are_cut_off(start, path):
    start(stall_timeout_s=1.0)
    never = threading.Event()

    def silent():
        yield b"a"
        never.wait(30)

    raw = socket.socket(socket.AF_UNIX)
    with raw, grpc.insecure_channel(f"unix:{path}") as channel:
        raw.connect(str(path))
        calls = [channel.stream_stream(ROUTE)(silent()) for _ in range(service.MAX_CALLS)]
        time.sleep(0.3)
        with pytest.raises(WorkerError) as caught:
            _ask(path, b"x")
        assert caught.value.refusal == BUSY
        assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
        never.set()
        assert _ask(path, b"x") == b"x"


def test_a_caller_that_takes_no_reply_is_cut_off(start, path):
    start(lambda request: bytes(64 << 20), stall_timeout_s=1.0)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        calls = [channel.stream_stream(ROUTE)(iter([b"a"])) for _ in range(service.MAX_CALLS)]
        for call in calls:
            assert next(call)
        time.sleep(2)
        assert len(_ask(path, b"x")) == 64 << 20


def _connections(path, count, said=b""):
    """So many sockets, each with what the worker has sent at once: b"" is a closed one."""
    for _ in range(count):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(10)
        one.connect(str(path))
        if said:  # else a socket that is closed already is an error
            one.sendall(said)
        yield one, one.recv(9)


def test_connections_beyond_the_limit_are_closed_at_once_and_room_comes_back(start, path):
    start()
    with contextlib.ExitStack() as stack:
        answers = []
        for one, answer in _connections(path, 2 * endpoint.MAX_CONNECTIONS):
            stack.enter_context(one)
            answers.append(answer)
        assert sum(bool(answer) for answer in answers) == endpoint.MAX_CONNECTIONS
    assert _ask(path, b"x") == b"x"


def test_connections_that_say_nothing_or_ask_nothing_are_closed(start, path, monkeypatch):
    monkeypatch.setattr(endpoint, "HANDSHAKE_LIMIT_S", 1.0)
    monkeypatch.setattr(endpoint, "IDLE_LIMIT_S", 2.0)
    start()
    settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    for said in (b"", settings):
        ((one, answer),) = _connections(path, 1, said)
        with one:
            assert answer
            while one.recv(1 << 16):  # a farewell; then its end, before the ten seconds are over
                pass
    assert _ask(path, b"x") == b"x"
