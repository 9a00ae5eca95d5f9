"""Who may have a body read, and how much of the coordinator's memory all bodies take together."""

import datetime
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from common.io.flower_internals import UNKNOWN_KEY
from server.gate import FLEET_PATHS
from server.limits import Limits
from tests.gates import PULL, make_certificates, opened, read, signed, status

BODY = 64 << 10
LIMITS = Limits(max_body=BODY, node_bodies=4 * BODY, bodies=8 * BODY, per_address=400)
PATHS = sorted(path.decode() for path in FLEET_PATHS)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("gate"))


@pytest.fixture
def door(certificates):
    with opened(certificates, LIMITS) as found:
        yield found


def _head(target, fields):
    lines = (f"POST {target} HTTP/1.1", "host: x", f"content-length: {BODY}", *fields, "", "")
    return "\r\n".join(lines).encode()


def _fields(headers):
    return tuple(f"{name}: {value}" for name, value in headers.items())


def _strangers(door):
    """Heads that no registered node has signed now."""
    stranger, _ = generate_key_pairs()
    mine, own = signed(door.key), signed(stranger)
    forged = {**mine, FLEET_HTTP_SIGNATURE_HEADER: own[FLEET_HTTP_SIGNATURE_HEADER]}
    hour = datetime.timedelta(hours=1)
    yield "nothing", {}
    yield "a key that is not registered", own
    yield "a registered key, and another's signature", forged
    yield "a signature of an hour ago", signed(door.key, now() - hour)
    yield "a signature of the next hour", signed(door.key, now() + hour)
    yield "no base64", {name: "ä?" if "key" in name else value for name, value in mine.items()}
    for name in mine:
        yield f"no {name}", {other: value for other, value in mine.items() if other != name}


def test_a_head_that_no_registered_node_has_signed_is_refused_before_its_body(door):
    for what, headers in _strangers(door):
        fields = tuple(field.encode("latin-1").decode("latin-1") for field in _fields(headers))
        for target in PATHS:
            head = _head(target, ("expect: 100-continue", *fields))
            answer = door.send(head)
            known = what != "a key that is not registered" or target not in UNKNOWN_KEY
            assert status(answer) in ({401} if known else {403, 412}), (what, target, answer)
            assert b"100 Continue" not in answer
            assert b"connection: close" in answer.lower()
    assert door.app.seen == []
    assert door.held == 0


@pytest.mark.parametrize(("target", "code"), UNKNOWN_KEY.items())
def test_a_node_with_an_unknown_key_is_told_so_in_flowers_words(door, target, code):
    """Its own log then has the code, as docs/provisioning.md says."""
    stranger, _ = generate_key_pairs()
    answer = door.send(_head(target, _fields(signed(stranger))))
    assert b"application/json" in answer
    assert b'"code": %d' % code in answer


def test_a_node_that_is_no_longer_registered_is_refused_at_once(door):
    assert status(door.ask(PULL, "POST", b"x")) == 200
    door.app.links.state().delete_node("a", door.node)
    assert status(door.ask(PULL, "POST", b"x")) == 401
    assert len(door.app.seen) == 1


def test_a_registered_node_is_asked_for_its_body(door):
    with door.connect() as link:
        link.sendall(door.head(PULL, f"content-length: {BODY}", "expect: 100-continue"))
        assert status(link.recv(100)) == 100
        link.sendall(bytes(BODY))
        assert status(read(link, 1.0)) == 200
    assert door.app.seen == [("POST", PULL, bytes(BODY))]


@pytest.mark.parametrize("field", [f"content-length: {BODY}", "transfer-encoding: chunked"])
def test_a_body_to_health_is_refused_unread(door, field):
    head = door.head("/health", field, "expect: 100-continue", method="GET")
    answer = door.send(head)
    assert status(answer) == 413
    assert b"100 Continue" not in answer
    assert door.app.seen == []


def test_strangers_with_many_half_sent_bodies_hold_no_room(door):
    with ExitStack() as stack:
        for _ in range(200):
            link = stack.enter_context(door.connect())
            with suppress(OSError):
                link.sendall(_head(PULL, ()) + bytes(BODY // 2))
        assert door.held == 0
        assert status(door.ask(PULL, "POST", bytes(BODY))) == 200
    assert len(door.app.seen) == 1


def _half(door, stack, key, *, chunked=False):
    """A connection that has sent half of a body."""
    link = stack.enter_context(door.connect())
    length = "transfer-encoding: chunked" if chunked else f"content-length: {BODY}"
    link.sendall(door.head(PULL, length, key=key) + (b"8\r\n01234567\r\n" if chunked else b"x"))
    return link


def _answers(links):
    """Statuses that came without the rest of a body; `None` where it is still awaited."""
    return [status(data) if (data := read(link, 0.1)) else None for link in links]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_nodes_half_sent_bodies_fill_its_own_share_and_others_still_get_through(door, chunked):
    _, other = door.app.register()
    with ExitStack() as stack:
        links = [_half(door, stack, door.key, chunked=chunked) for _ in range(40)]
        answers = _answers(links)
        assert sorted(answers, key=str) == [503] * 36 + [None] * 4
        assert door.held == LIMITS.node_bodies
        honest = door.send(door.head(PULL, f"content-length: {BODY}", key=other) + bytes(BODY))
        assert status(honest) == 200
        assert status(door.ask(PULL, "POST", b"x")) == 503
        assert b"try again" in door.ask(PULL, "POST", b"x")
    assert _waited(lambda: door.held == 0)
    assert status(door.ask(PULL, "POST", b"x")) == 200
    assert len(door.app.seen) == 2


def test_half_sent_bodies_of_many_nodes_never_hold_more_than_all_room(door):
    keys = [door.app.register()[1] for _ in range(4)]
    with ExitStack() as stack:
        links = [_half(door, stack, key) for key in keys for _ in range(4)]
        answers = _answers(links)
        assert (answers.count(None), answers.count(503)) == (8, 8)
        assert door.held == LIMITS.bodies
        kept = links[answers.index(None)]
        kept.sendall(bytes(BODY - 1))
        assert status(read(kept, 1.0)) == 200  # what was begun has room to its end


PIECE = 5 << 20


def test_flowers_own_node_tries_again_where_there_was_no_room(certificates):
    """A piece as large as Flower's, sent while the room is taken, arrives once it is free."""
    wide = Limits(max_body=2 * PIECE, node_bodies=2 * PIECE, bodies=8 * PIECE)
    with opened(certificates, wide) as door, ExitStack() as stack:
        door.app.says = b""
        half = stack.enter_context(door.connect())
        half.sendall(door.head(PULL, f"content-length: {2 * PIECE}") + b"x")
        assert _waited(lambda: door.held == 2 * PIECE)
        retry = make_simple_http_retry_invoker()
        refusals = []
        backoff = retry.on_backoff
        retry.on_backoff = lambda state: (refusals.append(state.exception), backoff(state))
        client = stack.enter_context(
            FleetHttpClient.from_server_address(
                f"127.0.0.1:{door.port}",
                False,
                (certificates / "ca.crt").read_bytes(),
                [NodeAuthHttpInterceptor(door.key, door.key.public_key())],
            )
        )
        done = stack.enter_context(ThreadPoolExecutor(1)).submit(
            retry.invoke, client.PushObject, PushObjectRequest(object_content=bytes(PIECE))
        )
        assert _waited(lambda: refusals)
        assert not done.done()
        half.close()
        assert done.result(30) == PushObjectResponse()
        assert len(door.app.seen) == 1


def test_room_of_who_falls_silent_is_given_back(certificates):
    impatient = replace(LIMITS, patience_s=1.5)
    with opened(certificates, impatient) as door:
        with ExitStack() as stack:
            links = [_half(door, stack, door.key) for _ in range(4)]
            assert _waited(lambda: door.held == LIMITS.node_bodies, 1.5)
            assert _waited(lambda: door.held == 0, 4.0)
            assert [status(read(link, 1.0)) for link in links] == [408] * 4
        assert status(door.ask(PULL, "POST", bytes(BODY))) == 200


def _waited(true, limit_s=5.0):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False
