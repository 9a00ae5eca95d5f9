"""A real worker process, with hostile code where the relay should be."""

import contextlib
import os
import pickle
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from client.relay import METHOD, SERVICE, WorkerError, WorkerSocket
from common.config.canonical import study_hash
from common.io.configs import load_study
from common.wire import Refusal, Request, decode_reply, encode, vector_to_bytes
from scripts.cli import app
from tests import tiny

ROUTE = f"/{SERVICE}/{METHOD}"
NAME = tiny.INSTITUTIONS[0]


class Worker:
    """One worker process and what a relay may know of it."""

    def __init__(self, site: Path):
        self.site = site
        self.socket = site.parent / "state" / "worker" / "socket"
        self.study = study_hash(load_study(site.parent.parent / "study.yaml"))
        self.log = (site.parent / "worker.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "client.worker", str(site)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=site.parent,
        )

    def wait(self):
        while not self.socket.exists():
            assert self.process.poll() is None, (self.site.parent / "worker.log").read_text()
            time.sleep(0.05)
        return self

    def ask(self, data, timeout_s=60.0):
        return WorkerSocket(str(self.socket), timeout_s, connect_timeout_s=20.0).exchange(data)

    def request(self, kind="train", round_=1, body=b"", study=None):
        return encode(Request(kind=kind, study=study or self.study, round=round_, body=body))

    def status(self, chunks, route=ROUTE):
        """How a raw call ends, and the words that come with it."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            call = channel.stream_stream(route)(iter(chunks), timeout=30)
            with contextlib.suppress(grpc.RpcError):
                list(call)
            return call.code(), call.details() or ""

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def dealt(tiny_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    (folder / "study.yaml").write_text(tiny_study())
    target = folder / "f"
    result = CliRunner().invoke(app, ["data", "deal", f"{folder}/study.yaml", "--out", str(target)])
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture(scope="module")
def worker(dealt):
    running = Worker(dealt / NAME / "site.yaml")
    try:
        yield running.wait()
    finally:
        running.close()


@pytest.fixture(autouse=True)
def still_serving(request):
    """Whatever a test did: the same process answers a proper `hello`, with the same facts."""
    if "worker" not in request.fixturenames:
        yield
        return
    worker = request.getfixturevalue("worker")
    yield
    assert worker.process.poll() is None
    reply = decode_reply(worker.ask(worker.request("hello", 0)))
    assert (reply.institution, reply.refusal) == (NAME, "")
    assert len(reply.facts) == 5


def test_socket_and_state_are_the_workers_own(worker):
    assert stat.S_IMODE(worker.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(worker.socket.parent.stat().st_mode) == 0o700
    assert stat.S_ISSOCK(worker.socket.stat().st_mode)


def test_the_worker_has_no_network_socket(worker):
    worker.ask(worker.request())
    process = psutil.Process(worker.process.pid)
    for each in (process, *process.children(recursive=True)):
        assert each.net_connections(kind="inet") == []
        names = [os.readlink(fd) for fd in Path(f"/proc/{each.pid}/fd").iterdir() if fd.exists()]
        sockets = {name[8:-1] for name in names if name.startswith("socket:[")}
        table = Path(f"/proc/{each.pid}/net/unix").read_text().splitlines()[1:]
        assert sockets <= {line.split()[6] for line in table}


@pytest.mark.parametrize(
    "route",
    [
        "/fedner.Worker/Shutdown",
        "/fedner.Worker/exchange",
        "/fedner.Worker/../Exchange",
        "/fedner.Worker/Exchange/../../etc/passwd",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Watch",
        "/grpc.health.v1.Health/List",
        "/flwr.proto.ClientAppIo/GetToken",
        "/",
        "//",
    ],
)
def test_no_other_method_exists(worker, route):
    code, details = worker.status([worker.request("hello", 0)], route)
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert str(worker.site.parent) not in details


class _Evil:
    """Makes a folder when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def _malformed(worker, target):
    good = worker.request()
    yield pickle.dumps(_Evil(target))
    yield good[:4] + struct.pack(">I", 0xFFFFFFFF) + good[8:]
    yield good[:4] + struct.pack(">I", len(good)) + good[8:]
    yield b"FDN4" + struct.pack(">I", 1 << 16) + b"[" * (1 << 16)
    yield good + pickle.dumps(_Evil(target))
    yield good.replace(b'"train"', b'"shell"')
    yield good.replace(b'"round":1', b'"path":1')
    yield good.replace(b'"round":1', b'"round":1e999')
    yield b"/etc/passwd"
    yield b"../train.jsonl"
    yield f"file://{worker.site}".encode()
    yield b"GET /train.jsonl HTTP/1.1\r\n\r\n"


def test_malformed_requests_get_one_code_and_run_nothing(worker, tmp_path):
    replies = set()
    for data in _malformed(worker, tmp_path / "executed"):
        replies.add(worker.ask(data))
    (reply,) = replies
    assert decode_reply(reply).refusal == Refusal.MALFORMED
    assert decode_reply(reply).body == b""
    assert not (tmp_path / "executed").exists()


def _refused(worker):
    for study in ("0" * 64, "../../study.yaml", "/etc/passwd", str(worker.site), ""):
        data = encode(Request(kind="train", study=study, round=1))
        yield data, Refusal.STUDY
    yield worker.request("hello", 7), Refusal.STALE
    yield worker.request("train", 0), Refusal.STALE
    yield worker.request("train", 2**31 - 1), Refusal.STALE
    yield worker.request("evaluate", 1, bytes(8)), Refusal.DIMENSION
    yield worker.request("train", 1, pickle.dumps({})), Refusal.DIMENSION


def test_wrong_requests_get_a_code_and_nothing_else(worker):
    for data, code in _refused(worker):
        reply = decode_reply(worker.ask(data))
        assert (reply.refusal, reply.body, reply.facts) == (code.value, b"", {})
        assert reply.study == worker.study  # its own, never what was asked


def test_a_request_beyond_the_models_size_is_refused(worker):
    body = bytes(4 << 20)
    with pytest.raises(WorkerError) as caught:
        worker.ask(worker.request(body=body))
    assert caught.value.refusal == "worker-busy-or-request-too-large"


def _frame(kind, flags, stream, payload):
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


def _open_call():
    """HTTP/2 preface, settings and the headers of one call, by hand."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": ROUTE,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode()
        for k, v in fields.items()
    )
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return preface + _frame(4, 0, 0, b"") + _frame(1, 4, 1, block)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00\xff\xff\xff\xff" + bytes(100),
        b"\x01\x7f\xff\xff\xff" + bytes(100),
        b"\x00\x00\x10\x00\x01" + bytes(100),
        b"\xff" * 105,
    ],
)
def test_a_huge_length_prefix_takes_no_memory(worker, payload):
    before = psutil.Process(worker.process.pid).memory_info().rss
    with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(TimeoutError):
        raw.settimeout(1)  # the worker may also just wait for the rest, and cut it off later
        raw.connect(str(worker.socket))
        raw.sendall(_open_call() + _frame(0, 0, 1, payload))
        while part := raw.recv(1 << 16):
            assert str(worker.site.parent).encode() not in part
    assert psutil.Process(worker.process.pid).memory_info().rss - before < 64 << 20


def test_a_poisoned_model_leaves_no_trace_in_the_next_round(worker):
    proper = worker.request("evaluate", 1)
    before = worker.ask(proper)
    size = decode_reply(worker.ask(worker.request("hello", 0))).facts["dimension"]
    for value in (3e38, -1e20):
        poison = vector_to_bytes(np.full(size, value, np.float32))
        reply = decode_reply(worker.ask(worker.request("train", 1, poison)))
        assert len(reply.body) in {0, 4 * size}
    for number in range(9):  # push the remembered reply out of the worker's memory
        worker.ask(b"garbage %d" % number)
    assert worker.ask(proper) == before


def test_the_policy_is_decided_before_any_data_is_opened(dealt, tmp_path):
    """The data's files do not even exist; the answer is the policy's, and no socket appears."""
    text = (dealt / NAME / "site.yaml").read_text()
    assert "accept_privacy_none: true" in text
    site = tmp_path / NAME / "site.yaml"
    site.parent.mkdir()
    site.write_text(text.replace("accept_privacy_none: true", "accept_privacy_none: false"))
    (tmp_path / "study.yaml").write_text((dealt / "study.yaml").read_text())
    refusing = Worker(site)
    try:
        assert refusing.process.wait(60) == 6
    finally:
        refusing.close()
    assert "accept_privacy_none" in (site.parent / "worker.log").read_text()
    assert not refusing.socket.parent.exists()
