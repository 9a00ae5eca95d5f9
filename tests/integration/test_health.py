"""Health of worker and server: what is asked, what is told, and that it is nothing more."""

import contextlib
import threading

import grpc
import pytest
import yaml
from typer.testing import CliRunner

from client import service
from client.health import CHECK, HEALTH, HealthDoor, is_serving
from client.relay import SERVICE, WorkerSocket
from common.io.processes import free_port
from scripts.cli import app
from scripts.verbs.health import server_answers
from server.door import open_door
from server.limits import Limits
from tests.gates import make_certificates, opened


@pytest.fixture
def path(tmp_path):
    return tmp_path / "door" / "s"


@pytest.fixture
def worker(path):
    asked = []
    running = service.serve(
        path,
        lambda request: asked.append(request) or request,
        max_request_bytes=1 << 20,
        on_error=lambda _: b"failed",
    )
    running.asked = asked
    yield running
    running.stop()


def call(path, method, request):
    """Status and raw answer of one call to the health service."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            reply = channel.unary_unary(f"/{HEALTH}/{method}")(request, timeout=20)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, reply


def name(text):
    return b"\x0a" + bytes([len(text)]) + text.encode()


def test_a_worker_that_serves_says_so_in_the_protocols_bytes_and_no_others(worker, path):
    serving = (grpc.StatusCode.OK, b"\x08\x01")  # HealthCheckResponse: status (1) SERVING (1)
    assert call(path, CHECK, b"") == call(path, CHECK, name(SERVICE)) == serving
    assert WorkerSocket(str(path), 20).exchange(b"x") == b"x"
    assert call(path, CHECK, b"") == serving
    assert worker.asked == [b"x"]


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        (CHECK, name("fedner.Ledger"), grpc.StatusCode.NOT_FOUND),
        (CHECK, b"\xff" * 9, grpc.StatusCode.INTERNAL),
        ("Watch", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("List", b"", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_what_else_is_asked_is_refused_without_a_word_of_the_worker(
    method, request_, code, worker, path
):
    found, details = call(path, method, request_)
    assert found == code
    assert str(path.parent) not in details
    assert is_serving(path, 20)


def test_a_worker_that_ended_or_never_began_is_not_serving(worker, path, tmp_path):
    assert is_serving(path, 20)
    worker.stop()
    assert not is_serving(path, 20)
    assert not is_serving(tmp_path / "never", 20)
    assert not is_serving(tmp_path / ("long" * 40), 20)


def test_the_workers_own_door_answers_health_and_nothing_else(tmp_path):
    path = tmp_path / "health" / "socket"
    door = HealthDoor(path)
    try:
        assert is_serving(path, 20)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            exchange = channel.stream_stream(f"/{SERVICE}/Exchange")(iter([b"x"]), timeout=20)
            with pytest.raises(grpc.RpcError) as caught:
                list(exchange)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    finally:
        door.close()
    assert not is_serving(path, 20)


def asked(*arguments):
    """Exit code and answer of `fedner health`."""
    done = CliRunner().invoke(app, ["health", "--limit", "10", *map(str, arguments)])
    return done.exit_code, done.output.strip()


def test_the_verb_asks_a_sites_worker_and_through_a_relays_file(tmp_path, worker, path):
    site = {
        "institution": "north", "study": "study.yaml", "coordinator": "127.0.0.1:9192",
        "state": "state", "socket": str(path),
        "data": {side: {"format": "jsonl", "path": f"{side}.jsonl"} for side in ("train", "test")},
    }  # fmt: skip
    relay = {key: site[key] for key in ("institution", "coordinator", "state", "socket")}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    (tmp_path / "relay.yaml").write_text(yaml.safe_dump(relay))
    both = ([tmp_path / "site.yaml"], [tmp_path / "relay.yaml", "--side", "relay"])
    assert [asked(*one) for one in both] == [(0, "serving")] * 2
    worker.stop()
    assert [asked(*one) for one in both] == [(1, "not serving")] * 2
    divided = site | {"relay_group": "fedner-door"}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(divided))
    door = HealthDoor(tmp_path / "state" / "health" / "socket")
    try:
        assert asked(tmp_path / "site.yaml") == (0, "serving")
    finally:
        door.close()


def test_the_verb_asks_a_federations_server_over_tls_and_trusts_its_authority_alone(tmp_path):
    folder = tmp_path / "fed"
    folder.mkdir()
    certificates = make_certificates(folder)
    with opened(certificates, Limits()) as door:
        federation(folder, door.port)
        assert asked("--federation", folder) == (0, "serving")
        assert [(method, path) for method, path, _ in door.app.seen] == [("GET", "/health")]
        (tmp_path / "other").mkdir()
        other = make_certificates(tmp_path / "other")
        (certificates / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
        assert asked("--federation", folder) == (1, "not serving")
        assert len(door.app.seen) == 1
    federation(folder, free_port())
    assert asked("--federation", folder) == (1, "not serving")


def test_a_server_that_answers_a_byte_a_second_has_the_limit_all_the_same(tmp_path):
    certificates = make_certificates(tmp_path)
    door = open_door(
        "127.0.0.1", 0, str(certificates / "server.crt"), str(certificates / "server.key"), Limits()
    )
    over = threading.Event()

    def drip():
        with (
            contextlib.suppress(OSError),
            door.tls.wrap_socket(door.socket.accept()[0], server_side=True) as link,
        ):
            while not over.wait(0.2):
                link.sendall(b"H")

    federation(tmp_path, door.socket.getsockname()[1])
    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert not server_answers(tmp_path, 1.0)  # it would be HTTP's longest line, for hours
    finally:
        over.set()
        thread.join(20)
        door.socket.close()


def federation(folder, port):
    server = {"names": ["localhost"], "port": port, "listen": "127.0.0.1"}
    content = {"federation": "northern", "study": "study.yaml", "server": server}
    (folder / "federation.yaml").write_text(yaml.safe_dump(content))


def test_the_verb_wants_one_of_the_two():
    relays = ("--federation", "x", "--side", "relay")
    for wrong in ((), ("site.yaml", "--federation", "x"), relays):
        assert asked(*wrong)[0] != 0
