"""The proxy of the fault table: what it holds back, delays and resets, over real sockets."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scripts.benchmarks._proxy import Proxy, _Line


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server that sends back what it gets, until the other side's end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve_one(one: socket.socket) -> None:
            with one:
                try:
                    while data := one.recv(1 << 16):
                        one.sendall(data)
                except ConnectionResetError:
                    return

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve_one, args=(one,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as made:
        yield made


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def received(one: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := one.recv(1 << 16)):
        found += data
    return found


def test_bytes_come_through_whole_both_ways_and_the_end_does_too(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 5000
    with connected(proxy) as one:
        threading.Thread(target=one.sendall, args=(sent,)).start()
        assert received(one, len(sent)) == sent
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
    assert proxy.carried == {"up": len(sent), "down": len(sent)}


@pytest.mark.parametrize(("directions", "reached"), [((), 0), (("up",), 0), (("down",), 4)])
def test_what_is_held_comes_after_the_release_and_not_before(
    proxy: Proxy, directions: tuple, reached: int
) -> None:
    with connected(proxy) as one:
        one.sendall(b"ping")
        assert received(one, 4) == b"ping"
        proxy.hold(*directions)
        one.sendall(b"pong")
        one.settimeout(0.4)
        with pytest.raises(TimeoutError):
            one.recv(4)
        assert proxy.carried["up"] == 4 + reached
        proxy.release()
        assert received(one, 4) == b"pong"


def test_a_connection_made_while_the_line_is_cut_waits_for_it(proxy: Proxy) -> None:
    proxy.hold()
    with connected(proxy) as one:
        one.sendall(b"ping")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(4)
        proxy.release()
        one.settimeout(5)
        assert received(one, 4) == b"ping"


def test_a_delay_counts_each_way(proxy: Proxy) -> None:
    proxy.delay(0.2)
    with connected(proxy) as one:
        begun = time.monotonic()
        one.sendall(b"ping")
        assert received(one, 4) == b"ping"
        assert 0.4 <= time.monotonic() - begun < 2.0


def test_a_reset_reaches_the_client_as_one_and_the_next_connection_works(proxy: Proxy) -> None:
    with connected(proxy) as one:
        one.sendall(b"ping")
        assert received(one, 4) == b"ping"
        assert proxy.reset() == 2
        with pytest.raises(ConnectionResetError):
            one.recv(4)
    with connected(proxy) as again:
        again.sendall(b"ping")
        assert received(again, 4) == b"ping"
    assert proxy.accepted == 2


def test_a_slow_line_takes_the_time_of_its_rate_for_all_that_was_sent() -> None:
    line = _Line(rate=1000.0)
    assert line.takes(500, 10.0) == pytest.approx(0.5)
    assert line.takes(1000, 10.0) == pytest.approx(1.5)  # after what is on its way
    assert line.takes(100, 20.0) == pytest.approx(0.1)  # nothing is saved up while it is idle
    assert _Line().takes(1 << 20, 0.0) == 0.0


def test_all_bytes_come_through_a_slow_line(proxy: Proxy) -> None:
    proxy.slow(1e6)
    sent = bytes(range(256)) * 500
    with connected(proxy) as one:
        threading.Thread(target=one.sendall, args=(sent,)).start()
        assert received(one, len(sent)) == sent
