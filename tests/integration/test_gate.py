"""The public socket in front of an application, attacked over real TLS by somebody with the CA."""

import socket
import ssl
import time
from contextlib import suppress

import pytest
from flwr.superlink.routers.fleet.router import router

from common.errors import ConfigError, FederationError, UsageError
from common.io.processes import free_port
from server import gate
from server.door import open_door
from server.gate import FLEET_PATHS
from server.limits import Limits
from tests.gates import PULL, App, make_certificates, opened, read, status

QUICK = Limits(
    max_body=4096, node_bodies=8192, bodies=16384, min_rate=1 << 20, patience_s=0.5, head_s=0.6,
    idle_s=1.5, handshake_s=0.5, per_address=4, connections=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def door(certificates):
    with opened(certificates, Limits(per_address=200)) as found:
        yield found


@pytest.fixture
def quick(certificates):
    with opened(certificates, QUICK) as found:
        yield found


def test_the_fleet_paths_are_those_that_this_flower_has():
    assert {route.path.encode() for route in router.routes} == FLEET_PATHS
    assert {method for route in router.routes for method in route.methods} == {"POST"}


def test_what_nodes_need_passes_whole(door):
    door.app.seen.clear()
    body = bytes(range(256)) * 8192
    assert status(door.ask(PULL, "POST", body)) == 200
    assert status(door.ask("/health", "GET")) == 200
    assert status(door.ask("/health", "HEAD")) == 200
    assert door.app.seen[0] == ("POST", PULL, body)


@pytest.mark.parametrize(
    "target",
    [
        "/", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/runtime/acquire-task",
        "//v1/fleet/pull-messages", "/v1/fleet/../control/start-run", "/v1/fleet//pull-messages",
        "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/pull%2dmessages",
        "/V1/FLEET/pull-messages",
        "/v1/fleet/pull-messages/", "/v1/fleet/pull-messages;x", "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/", "/v1/fleet", "/v1/fleet/pull-messages%00", "/health/../v1/control/start-run",
        "/health?x", "http://x/v1/control/start-run", "https://x/v1/fleet/pull-messages",
        "/v1/fleet\\..\\control\\start-run", "*", "x:443",
    ],
)  # fmt: skip
def test_no_other_spelling_of_a_path_passes(door, target):
    door.app.seen.clear()
    for method in ("GET", "POST", "OPTIONS", "CONNECT", "PUT"):
        assert status(door.ask(target, method)) in {400, 404, 405}
    assert door.app.seen == []


def test_no_other_method_passes(door):
    door.app.seen.clear()
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post"):
        assert status(door.ask(PULL, method)) == 405
    for method in ("POST", "PUT", "TRACE"):
        assert status(door.ask("/health", method)) == 405
    assert door.app.seen == []


def test_headers_that_would_rewrite_the_request_do_not(door):
    door.app.seen.clear()
    for header in ("x-http-method-override: POST", "x-original-url: " + PULL,
                   "x-rewrite-url: " + PULL, "x-forwarded-for: 127.0.0.1"):  # fmt: skip
        assert status(door.ask("/v1/control/start-run", "POST", b"", header)) == 404
    assert door.app.seen == []


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: -1",
        "content-length: +5",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "content-length : 5",
        "content-length: 5\r\n folded: x",
    ],
)
def test_a_request_with_two_ends_is_refused_and_nothing_after_it_is_read(door, head):
    door.app.seen.clear()
    inner = "POST /v1/control/start-run HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    answer = door.send(
        f"POST {PULL} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n0\r\n\r\n{inner}".encode()
    )
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status(answer) in {400, 501}
    assert door.app.seen == []


def test_a_second_request_on_one_connection_meets_the_gate_too(door):
    door.app.seen.clear()
    good = door.head(PULL, "content-length: 0")
    bad = door.head("/v1/control/start-run", "content-length: 0")
    answer = door.send(good + bad + good)
    assert [answer.count(b"HTTP/1.1 200"), answer.count(b"HTTP/1.1 404")] == [1, 1]
    assert len(door.app.seen) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x00" * 100,
        b"POST " + PULL.encode() + b" HTTP/1.0\r\nhost: x\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST " + b"/a" * 40000 + b" HTTP/1.1\r\n\r\n",
        b"POST /health HTTP/1.1\r\nhost: x\r\na: " + b"b" * 200000 + b"\r\n\r\n",
        b"POST " + PULL.encode() + b" HTTP/1.1\r\n\r\n",
        b"POST " + PULL.encode() + b" HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"GET " + PULL.encode() + b" HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n"
        b"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\n",
    ],
)
def test_what_is_no_plain_http_1_is_refused(door, data):
    door.app.seen.clear()
    answer = door.send(data)
    assert answer == b"" or status(answer) in {400, 405, 431}
    assert door.app.seen == []


def test_only_tls_1_3_and_no_plain_text(door):
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP" not in read(raw)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    raw = socket.create_connection(("127.0.0.1", door.port), timeout=5)
    with raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw)


def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_its_bytes(quick):
    assert status(quick.ask(PULL, "POST", bytes(4097))) == 413
    chunks = b"1000\r\n" + bytes(4096) + b"\r\n" + b"1\r\n0\r\n0\r\n\r\n"
    assert status(quick.send(quick.head(PULL, "transfer-encoding: chunked") + chunks)) == 413
    assert status(quick.ask(PULL, "POST", bytes(4096))) == 200
    assert [body for _, _, body in quick.app.seen] == [bytes(4096)]


def test_who_sends_slowly_is_cut_off(quick):
    head = quick.head(PULL, "content-length: 100")
    for sent in (b"", head[:20], head, head + b"x"):
        start = time.monotonic()
        with quick.connect() as link:
            link.sendall(sent)
            answer = read(link, 5.0)
        assert time.monotonic() - start < 2.5
        assert answer == b"" or status(answer) == 408
    assert quick.app.seen == []


def test_who_drips_bytes_is_cut_off_all_the_same(quick):
    head = quick.head(PULL, "content-length: 100")
    start = time.monotonic()
    with quick.connect() as link, suppress(OSError):  # reset, or a broken pipe
        link.sendall(head)
        while time.monotonic() - start < 5:
            link.sendall(b"x")
            time.sleep(0.1)
    assert time.monotonic() - start < 3
    assert quick.app.seen == []


def test_who_idles_between_two_requests_is_cut_off(quick):
    with quick.connect() as link:
        link.sendall(quick.head(PULL, "content-length: 0") + b"POST")
        start = time.monotonic()
        assert status(read(link, 6.0)) == 200
        assert time.monotonic() - start < 3.5


def test_who_pauses_between_two_requests_has_the_time_for_that(certificates):
    """And not what was left of the time for the first one."""
    limits = Limits(head_s=1.0, idle_s=20.0)
    with opened(certificates, limits) as door, door.connect() as link:
        for _ in range(2):
            link.sendall(door.head(PULL, "content-length: 0"))
            assert status(read(link, 1.8)) == 200


@pytest.mark.parametrize(("silent_s", "answers"), [(0.0, 3), (4.5, 0)])
def test_who_does_not_read_its_answers_is_cut_off(certificates, silent_s, answers):
    """Three requests at once: the second answer waits behind the first, which nobody reads."""
    with opened(certificates, Limits(answer_s=3.0)) as door, door.connect() as link:
        door.app.says = bytes(8 << 20)
        link.sendall(door.head(PULL, "content-length: 0") * 3)
        time.sleep(silent_s)
        assert _count(link) // len(door.app.says) == answers


def _count(link):
    """Bytes until the other side closes, or is silent for two seconds."""
    link.settimeout(2.0)
    count = 0
    with suppress(OSError):
        while got := link.recv(1 << 20):
            count += len(got)
    return count


def test_a_handshake_that_never_comes_is_cut_off(quick):
    with socket.create_connection(("127.0.0.1", quick.port), timeout=5) as raw:
        start = time.monotonic()
        assert read(raw, 4.0) == b""
        assert time.monotonic() - start < 2


def test_one_address_holds_so_many_connections_and_others_are_served_again_after(quick):
    links = [quick.connect() for _ in range(QUICK.per_address)]
    try:
        with quick.connect() as link:
            with suppress(OSError):
                link.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert read(link, 1.0) == b""
    finally:
        for link in links:
            link.close()
    time.sleep(0.3)
    assert status(quick.ask("/health", "GET")) == 200


def test_what_the_application_gets_is_only_after_the_whole_body(door):
    door.app.seen.clear()
    head = door.head(PULL, "content-length: 4")
    with door.connect() as link:
        link.sendall(head + b"ab")
        time.sleep(0.3)
        assert door.app.seen == []
        link.sendall(b"cd")
        assert status(read(link, 1.0)) == 200
    assert door.app.seen == [("POST", PULL, b"abcd")]


def test_the_private_side_must_be_on_loopback_and_authentication_on(certificates):
    with pytest.raises(ConfigError, match="not on this machine"):
        gate.serve(App(), None, None, host="0.0.0.0", port=9093)
    with pytest.raises(UsageError, match="--enable-supernode-auth"):
        gate.main(["127.0.0.1", "1", "c", "k", "--host", "127.0.0.1"])


def test_a_public_socket_that_cannot_be_opened_is_said(certificates):
    crt, key = str(certificates / "server.crt"), str(certificates / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FederationError):
        open_door("127.0.0.1", taken.getsockname()[1], crt, key, Limits())
    with pytest.raises(FederationError, match="belong together"):
        open_door("127.0.0.1", free_port(), crt, str(certificates / "link.key"), Limits())


def test_a_websocket_that_got_past_the_parser_is_refused_too():
    assert gate.refusal({"type": "websocket"}, Limits()) == (400, "HTTP/1.1 only")
