"""Relay and worker as different OS users: the kernel tells them apart, and the worker looks."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from client.endpoint import group_id, require_apart
from common.errors import ConfigError, PolicyError

GROUP, WORKER, RELAY, STRANGER = 41_009, 41_001, 41_002, 41_003
CHILD = """
import os, sys
import grpc._channel, grpc._server  # now: another user may not read where Python lies
from pathlib import Path
from client import service
from client.relay import WorkerError, WorkerSocket
from common.errors import PolicyError

role, user, groups, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
os.setgroups([int(g) for g in groups.split(",") if g])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
if role == "serve":
    try:
        served = service.serve(
            Path(path), lambda r: r[::-1], max_request_bytes=100, on_error=lambda e: b"failed",
            relay_group=int(groups.split(",")[0]),
        )
        print("apart", flush=True)
        sys.stdin.read()
        served.stop()
    except PolicyError as error:
        print(error.message, flush=True)
else:
    try:
        print(WorkerSocket(path, 10, connect_timeout_s=3).exchange(b"abc").decode())
    except WorkerError as error:
        print(error.refusal)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


def child(role, user, groups, path):
    said = [sys.executable, "-c", CHILD, role, str(user), ",".join(map(str, groups)), str(path)]
    return subprocess.Popen(said, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(user, groups, path):
    asking = child("ask", user, groups, path)
    return asking.communicate(timeout=60)[0].strip()


@pytest.fixture
def path():
    """Below a folder that others may walk through, as /run/fedner would be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        state = Path(folder) / "state"
        state.mkdir(mode=0o711)
        if os.geteuid() == 0:
            os.chown(state, WORKER, WORKER)
        yield state / "worker" / "socket"


@pytest.fixture
def serve(path):
    """Starts workers of a user of their own, whose group for relays is `GROUP`."""
    running = []

    def start():
        running.append(child("serve", WORKER, [GROUP], path))
        assert running[-1].stdout.readline().strip() == "apart"
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.communicate(timeout=60)


@pytest.fixture
def worker(serve):
    return serve()


@as_root
def test_the_relays_user_is_answered_and_nobody_else(worker, path):
    assert ask(RELAY, [GROUP], path) == "cba"
    assert ask(STRANGER, [], path) == "worker-unreachable"
    assert ask(RELAY, [], path) == "worker-unreachable"
    assert stat.S_IMODE(path.stat().st_mode) == 0o060
    assert (path.stat().st_uid, path.stat().st_gid) == (WORKER, GROUP)


@as_root
def test_a_relay_of_the_workers_own_user_reaches_nothing(worker, path):
    """In the group or not: for the owner, the kernel looks at the owner's bits alone."""
    assert ask(WORKER, [], path) == "worker-unreachable"
    assert ask(WORKER, [GROUP], path) == "worker-unreachable"


@as_root
def test_a_worker_is_not_pushed_out_by_another_of_its_user_though_the_lock_is_gone(worker, path):
    """Their own user can't connect to either, and so must not take the first for dead."""
    path.with_name("socket.lock").unlink()
    second = child("serve", WORKER, [GROUP], path)
    assert second.communicate(timeout=60)[0] == ""
    assert second.returncode != 0
    assert ask(RELAY, [GROUP], path) == "cba"


@as_root
def test_a_worker_that_was_killed_comes_back_on_its_socket(serve, path):
    first = serve()
    first.kill()
    first.wait(10)
    assert path.exists()
    serve()
    assert ask(RELAY, [GROUP], path) == "cba"


@as_root
def test_a_worker_with_the_rights_of_root_can_not_tell_the_relay_apart(path):
    said, _ = child("serve", 0, [GROUP], path).communicate(timeout=60)
    assert said.startswith("the worker's own user can connect")


def test_a_socket_that_its_owner_reaches_is_not_apart(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(PolicyError, match="own user can connect"):
            require_apart(tmp_path / "s")


def test_nothing_is_taken_before_this_user_was_kept_out(tmp_path, monkeypatch):
    """Whoever connects first, in that very moment, waits until it is known, and is then dropped."""
    import socket

    from client import endpoint, service

    early = socket.socket(socket.AF_UNIX)

    def look(path):
        monkeypatch.undo()
        path.chmod(0o600)
        early.connect(str(path))
        early.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        early.settimeout(1.0)
        with pytest.raises(TimeoutError):
            early.recv(1)  # a server that takes connections sends its settings at once
        require_apart(path)

    monkeypatch.setattr(endpoint, "require_apart", look)
    with early, pytest.raises(PolicyError, match="own user can connect"):
        service.serve(
            tmp_path / "door" / "s",
            lambda request: request,
            max_request_bytes=9,
            on_error=lambda _: b"",
            relay_group=os.getgid(),
        )


def test_what_does_not_listen_is_not_shown_to_be_apart(tmp_path):
    with pytest.raises(PolicyError):
        require_apart(tmp_path / "missing")


def test_a_group_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="no group no-such-group-here"):
        group_id("no-such-group-here")
