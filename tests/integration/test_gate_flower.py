"""Flower's own SuperLink behind the gate, met by its own tools: a stranger's and an institution's.

A stranger has the CA certificate and all of Flower; only a registered node key gets anywhere.
"""

import datetime
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress

import psutil
import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from flwr.supercore.protobuf.translation import PROTOBUF_MEDIA_TYPE, PROTOBUF_REQUEST_TYPES

from common.identity.enrolment import Register, make_request
from common.identity.identity import Identity
from common.io.certificate_files import (
    create_authority,
    create_node_key,
    create_server,
    open_authority,
    read_node_key,
)
from common.io.flower_internals import UNKNOWN_KEY, flower_environment
from common.io.processes import Child, await_port, free_port, module_command, script_command
from common.io.register_file import write_register
from server.nodes import register_nodes
from tests.gates import signed

CONFIG = """\
[superlink]
default = "{name}"

[superlink.{name}]
address = "127.0.0.1:{port}"
root-certificates = "{ca}"
"""

PROJECT = """\
[project]
name = "{name}"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "{name}"
[tool.flwr.app.components]
serverapp = "{name}.s:app"
clientapp = "{name}.c:app"
"""
WHEN = "2026-05-01T12:00:00Z"
HANDLES = 200


class Federation:
    def __init__(self, root):
        now = datetime.datetime.now(datetime.UTC)
        create_authority(root / "authority", "test", None, now, 2)
        authority = open_authority(root / "authority", None)
        self.root, self.server = root, root / "server"
        create_server(self.server, authority, ("127.0.0.1",), now, 1)
        self.ca = self.server / "ca.crt"
        self.public, self.private = free_port(), free_port()
        write_register(root, Register(federation="fed"))
        for name, port in (("stranger", self.public), ("own", self.private)):
            (root / name).mkdir()
            text = CONFIG.format(name=name, port=port, ca=self.ca)
            (root / name / "config.toml").write_text(text)
        self.link = Child("superlink", self._command(), flower_environment(root / "own"),
                          root / "superlink.log")  # fmt: skip

    def _command(self):
        at = self.server
        return module_command(
            "server.gate", "127.0.0.1", str(self.public), f"{at}/server.crt", f"{at}/server.key",
            str(self.root), "--host", "127.0.0.1", "--port", str(self.private),
            "--enable-supernode-auth",
            "--ssl-ca-certfile", f"{at}/ca.crt", "--ssl-certfile", f"{at}/link.crt",
            "--ssl-keyfile", f"{at}/link.key", "--disable-runtime-dependency-installation",
        )  # fmt: skip

    def flwr(self, who, *arguments):
        environment = {**os.environ, **flower_environment(self.root / who)}
        return subprocess.run(
            script_command("flwr", *arguments), env=environment, capture_output=True, text=True,
            timeout=90, check=False, cwd=self.root,
        )  # fmt: skip

    def supernode(self, name, *arguments):
        (self.root / name).mkdir(exist_ok=True)
        command = module_command(
            "common.io.flower_internals", "supernode", "--superlink", f"127.0.0.1:{self.public}",
            "--root-certificates", str(self.ca), "--isolation", "process", "--host", "127.0.0.1",
            "--port", str(free_port()), "--max-retries", "1", *arguments,
        )  # fmt: skip
        return Child(name, command, flower_environment(self.root / name), self.root / f"{name}.log")

    def ended(self, name, *arguments):
        """Exit code and log of a node that must end by itself."""
        node = self.supernode(name, *arguments)
        node.start()
        try:
            code = node.process.wait(60)
        finally:
            node.stop()
        return code, node.log.read_text()

    def post(self, port, path, data=b"", key=None):
        """Status of a protobuf request as Flower's clients make it, signed if there is a key."""
        headers = {"content-type": PROTOBUF_MEDIA_TYPE, **({} if key is None else signed(key))}
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}{path}", data=data, method="POST", headers=headers
        )
        tls = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(request, context=tls, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def is_healthy(self):
        tls = ssl.create_default_context(cafile=self.ca)
        with (
            suppress(OSError),
            urllib.request.urlopen(
                f"https://127.0.0.1:{self.public}/health", context=tls, timeout=5
            ) as answer,
        ):
            return answer.status == 200
        return False


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    found = Federation(tmp_path_factory.mktemp("federation"))
    found.link.start()
    try:
        for port in (found.public, found.private):
            await_port("127.0.0.1", port, found.link, 60.0)
        yield found
    finally:
        found.link.stop()


def paths(prefix):
    return [path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith(prefix)]


LONG = b"A" * 40_000
SHORT = b"A" * 4_000
FLOOD = (
    b"GET /" + SHORT + b" HTTP/1.1\r\nhost: x\r\n\r\n",  # a long one is 400 unless read at once
    b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nflwr-public-key: " + SHORT + b"\r\n\r\n",
    b"GET /" + LONG + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    LONG + b" / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/fleet/pull-messages?" + LONG + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nflwr-public-key: " + LONG + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: " + LONG + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + LONG,
    b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" + b"\x00" * 40_000,
    b"\x00" * 40_000,
)


def test_two_hundred_refused_requests_of_any_size_leave_a_few_lines_in_the_log(federation):
    """And bytes that are no TLS, and connections that end at once."""
    tls = ssl.create_default_context(cafile=federation.ca)
    before = federation.link.log.stat().st_size
    statuses = set()
    for number in range(200):
        raw = socket.create_connection(("127.0.0.1", federation.public), timeout=10)
        if number % 11 == 10:
            raw.sendall(LONG)
            raw.close()
            continue
        with tls.wrap_socket(raw, server_hostname="127.0.0.1") as link, suppress(OSError):
            link.sendall(FLOOD[number % len(FLOOD)])
            statuses.add(link.recv(12)[-3:])
    time.sleep(1.0)
    whole = federation.link.log.read_bytes()
    said = whole[before:].decode()
    assert len(said) < 2 << 10, f"{len(said)} bytes: {said[:2000]}"
    assert max(map(len, said.splitlines()), default=0) < 400
    assert statuses == {b"400", b"401", b"404", b"200"}
    for kind in ("400 no HTTP request", "400 one host", "401 Invalid", "404 not served here"):
        assert f"public port: {kind}" in whole.decode()  # at once, at its first time


def test_a_stranger_reaches_no_control_and_no_runtime_path(federation):
    found = [*paths("/v1/control/"), *paths("/v1/runtime/")]
    assert len(found) > 40
    for path in [*found, "/docs", "/openapi.json"]:
        assert federation.post(federation.public, path) == (404, b"not served here\n")
    served, _ = federation.post(federation.private, "/v1/control/list-nodes")
    assert served == 200  # the positive control: without the gate, anybody is served


def test_a_stranger_without_a_node_key_gets_nothing_from_a_fleet_path(federation):
    found = paths("/v1/fleet/")
    assert len(found) == 12
    for path in found:
        status, body = federation.post(federation.public, path)
        assert status == 401, (path, body)


def test_a_stranger_with_a_key_of_its_own_gets_no_further(federation):
    key, _ = generate_key_pairs()
    for path in paths("/v1/fleet/"):
        status, body = federation.post(federation.public, path, key=key)
        code = UNKNOWN_KEY.get(path)
        if code is not None:
            assert b'"code": %d' % code in body, (path, body)
        else:
            assert (status, b"Invalid SuperNode" in body) == (401, True), (path, body)


@pytest.mark.slow
def test_flowers_own_tools_fail_at_the_public_socket(federation):
    create_node_key(federation.root / "strangers")
    key = str(federation.root / "strangers" / "node.pub")
    for arguments in (("list",), ("supernode", "register", key), ("supernode", "list")):
        done = federation.flwr("stranger", *arguments, "stranger", "--format", "json")
        assert done.returncode != 0 or '"success": false' in done.stdout, done.stdout
    listed = federation.flwr("own", "supernode", "list", "own", "--format", "json")
    assert '"success": true' in listed.stdout
    assert '"nodes": []' in listed.stdout


@pytest.mark.slow
def test_a_stranger_cannot_run_code(federation):
    app = federation.root / "app"
    (app / "evil").mkdir(parents=True)
    (app / "evil" / "__init__.py").write_text("")
    (app / "evil" / "s.py").write_text("from flwr.server import ServerApp\napp = ServerApp()\n")
    (app / "evil" / "c.py").write_text("from flwr.client import ClientApp\napp = ClientApp()\n")
    (app / "pyproject.toml").write_text(PROJECT.format(name="evil"))
    refused = federation.flwr("stranger", "run", str(app), "stranger")
    assert refused.returncode != 0 or "rror" in refused.stdout + refused.stderr
    listed = federation.flwr("own", "list", "own", "--format", "json")
    assert '"runs": []' in listed.stdout


@pytest.mark.slow
def test_only_a_registered_node_joins_and_a_revoked_one_does_not(federation):
    root = federation.root
    for name in ("north", "other"):
        create_node_key(root / f"{name}-keys")
    own = "--auth-supernode-private-key", str(root / "north-keys" / "node.key")
    other = "--auth-supernode-private-key", str(root / "other-keys" / "node.key")

    code, log = federation.ended("keyless")
    assert code != 0, log
    assert "[code: 2001]" in log, log
    code, log = federation.ended("unregistered", *other)
    assert code != 0, log
    assert "[code: 2004]" in log, log  # docs/provisioning.md names it

    asked = make_request("fed", Identity.of("north", bytes(32)), read_node_key(root / "north-keys"))
    write_register(root, Register(federation="fed").approve(asked, ("north",), WHEN))
    registered = register_nodes(lambda *a: federation.flwr("own", *a), root, "own")
    assert list(registered.values()) == ["north"]
    node = federation.supernode("north", *own)
    node.start()
    try:
        assert waited(lambda: "online" in online(federation), 40), node.log.read_text()
    finally:
        node.stop()

    node_id = str(next(iter(registered)))
    gone = federation.flwr("own", "supernode", "unregister", node_id, "own", "--format", "json")
    assert '"success": true' in gone.stdout, gone.stdout
    code, log = federation.ended("north", *own)
    assert code != 0, log


@pytest.mark.slow
def test_an_enrolled_node_cannot_answer_in_anothers_name(federation):
    folder = federation.root  # whose register the gate looks at
    register, keys = Register(federation="fed"), {}
    for number, name in enumerate(("west", "south")):
        create_node_key(folder / name)
        keys[name] = read_node_key(folder / name)
        asked = make_request("fed", Identity.of(name, bytes([number]) * 32), keys[name])
        register = register.approve(asked, ("west", "south"), WHEN)
    write_register(folder, register)
    nodes = register_nodes(lambda *a: federation.flwr("own", *a), folder, "own")
    ids = {name: node for node, name in nodes.items()}
    path, said = "/v1/fleet/push-messages", {}
    for sender in ("west", "south"):
        request = PushMessagesRequest()
        request.node.node_id = ids["west"]
        request.messages_list.add().metadata.src_node_id = ids[sender]
        data = request.SerializeToString()
        said[sender] = federation.post(federation.public, path, data, keys["west"])
    assert said["south"][0] == 403
    assert b"another node's name" in said["south"][1]
    assert b"another node's name" not in said["west"][1]


SERVER_APP = """\
import time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)
    big = RecordDict({"c": ConfigRecord({"b": bytes(6 << 20)})})
    sent = Message(content=big, message_type="query", dst_node_id=nodes[0])
    replies = list(grid.send_and_receive([sent], timeout=60))
    Path(context.run_config["out"]).write_text(str(len(replies[0].content["c"]["b"])))
"""

CLIENT_APP = """\
from flwr.app import Message
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query()
def query(message, context):
    return Message(content=message.content, reply_to=message)
"""


@pytest.mark.slow
def test_a_run_goes_through_the_gate_both_ways(federation):
    root = federation.root
    create_node_key(root / "east-keys")
    asked = make_request("fed", Identity.of("east", bytes(32)), read_node_key(root / "east-keys"))
    write_register(root, Register(federation="fed").approve(asked, ("east",), WHEN))
    register_nodes(lambda *a: federation.flwr("own", *a), root, "own")
    app, out = root / "echo", root / "echoed"
    (app / "echo").mkdir(parents=True)
    for name, text in (("__init__", ""), ("s", SERVER_APP), ("c", CLIENT_APP)):
        (app / "echo" / f"{name}.py").write_text(text)
    (app / "pyproject.toml").write_text(
        PROJECT.format(name="echo") + '[tool.flwr.app.config]\nout = ""\n'
    )
    node = Child(
        "east",
        script_command(
            "flower-supernode", "--superlink", f"127.0.0.1:{federation.public}",
            "--root-certificates", str(federation.ca), "--port", str(free_port()),
            "--auth-supernode-private-key", str(root / "east-keys" / "node.key"),
        ),
        flower_environment(root / "east"),
        root / "east.log",
    )  # fmt: skip
    (root / "east").mkdir()
    node.start()
    try:
        done = federation.flwr("own", "run", str(app), "own", "--run-config", f'out="{out}"')
        assert done.returncode == 0, done.stdout + done.stderr
        assert waited(out.is_file, 90), federation.link.log.read_text()[-3000:]
    finally:
        node.stop()
    assert out.read_text() == str(6 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["another CA", "wrong name", "expired"])
def test_a_node_refuses_a_server_with(what, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    made = now - datetime.timedelta(days=9) if what == "expired" else now
    federation = Federation(tmp_path)
    create_authority(tmp_path / "other", "test", None, made, 30)
    authority = open_authority(tmp_path / "other", None)
    hosts = ("elsewhere.example",) if what == "wrong name" else ("127.0.0.1",)
    create_server(tmp_path / "second", authority, hosts, made, 1)
    for name in ("server.crt", "server.key"):
        (tmp_path / "server" / name).write_bytes((tmp_path / "second" / name).read_bytes())
    if what != "another CA":
        federation.ca = tmp_path / "second" / "ca.crt"
    create_node_key(tmp_path / "keys")
    federation.link.start()
    try:
        await_port("127.0.0.1", federation.public, federation.link, 60.0)
        key = str(tmp_path / "keys" / "node.key")
        code, log = federation.ended("node", "--auth-supernode-private-key", key)
    finally:
        federation.link.stop()
    assert code != 0
    assert "ertificate" in log, log


def online(federation):
    return federation.flwr("own", "supernode", "list", "own", "--format", "json").stdout


def waited(true, limit_s):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.5)
    return False


@pytest.mark.slow
def test_a_crowd_that_takes_all_file_handles_leaves_few_lines_and_is_got_over(tmp_path):
    """Without a handshake no connection is counted; each is cut after its ten seconds."""
    found = Federation(tmp_path)
    found.link.command = ["sh", "-c", f'ulimit -n {HANDLES}; exec "$@"', "sh", *found.link.command]
    found.link.start()
    links = []
    try:
        for port in (found.public, found.private):
            await_port("127.0.0.1", port, found.link, 60.0)
        before = found.link.log.stat().st_size
        links += [socket.create_connection(("127.0.0.1", found.public)) for _ in range(300)]
        server = psutil.Process(found.link.process.pid)
        assert waited(lambda: server.num_fds() >= HANDLES - 1, 30), server.num_fds()
        time.sleep(3.0)  # as long as it lasts it may write: what is asserted is how much
        said = found.link.log.read_bytes()[before:]
        assert len(said) < 64 << 10, len(said)
        for link in links:
            link.close()
        assert waited(found.is_healthy, 60)
    finally:
        for link in links:
            link.close()
        found.link.stop()
