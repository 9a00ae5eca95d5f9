"""The hands of `scripts/bench attack` at a gate: each does what it says, and none gets in."""

import asyncio
import random
from dataclasses import replace

import pytest
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from scripts.benchmarks._attack_hands import PATHS, Hands, client_hello
from scripts.benchmarks.attack import FOLDER_LIMIT, LOG_LIMIT, Run, Watched, grown, sizes
from server.limits import Limits
from server.run_dir import RunDir
from tests.gates import make_certificates, opened

QUICK = Limits(
    max_body=1 << 20, node_bodies=1 << 20, bodies=1 << 20, min_rate=1 << 20, patience_s=0.5,
    head_s=0.6, idle_s=1.0, answer_s=1.0, handshake_s=0.5, per_address=20, connections=200,
)  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("gate"))


@pytest.fixture
def door(certificates):
    with opened(certificates, QUICK) as found:
        yield found


@pytest.fixture
def hands(door):
    return hands_at(door)


def hands_at(door):
    return Hands(
        port=door.port, tls=door.tls, stranger=generate_key_pairs()[0], turned=door.key,
        chance=random.Random(3),
    )  # fmt: skip


def test_bytes_in_place_of_a_handshake_are_answered_by_tls_alone(door, hands):
    assert client_hello(door.tls)[:2] == b"\x16\x03"
    found = asyncio.run(hands.raw_fuzz(40))
    assert found.total() == 40
    assert set(found) <= {"a TLS alert", "closed", "reset", "no answer"}
    assert found["a TLS alert"] > 0
    assert door.app.seen == []


def test_bytes_after_the_handshake_and_garbage_come_to_refusals(door, hands):
    found = asyncio.run(hands.tls_fuzz(40)) + asyncio.run(hands.garbage(20))
    assert found.total() == 60
    refused = {"400", "401", "404", "405", "413", "431"}
    assert set(found) <= refused | {"closed", "reset", "no answer"}
    assert found["401"] + found["400"] > 10
    assert door.app.seen == []


def test_a_strangers_key_is_refused_on_every_path_with_every_method(certificates):
    with opened(certificates, Limits()) as door:
        found = asyncio.run(hands_at(door).every_path(("GET", "POST", "PUT")))
        assert door.app.seen == []
    assert found.total() == 3 * len(PATHS)
    posted = sum(path.startswith("/v1/fleet/") for path in PATHS)
    assert posted == 12
    assert found["401"] + found["412"] == posted, found  # 412: Flower's codes for an unknown key
    assert found["404"] + found["405"] == 3 * len(PATHS) - posted, found


def test_a_crowd_is_open_at_once_and_the_silent_are_cut(certificates):
    """Both ends of thirty handshakes are in this process, and a busy machine is slow at them."""
    with opened(certificates, replace(QUICK, handshake_s=4.0)) as door:
        found = asyncio.run(hands_at(door).crowd(120, 30, 60.0))
    assert found["opened"] == 120
    assert found["at once"] > 60
    assert found["cut"] == 120
    assert found["kept"] == 0


def test_the_slow_are_cut_in_each_stage(door, hands):
    found = asyncio.run(hands.slow(2, 8.0))
    assert found.total() == 8
    kept = {what for what in found if what.endswith("kept")}
    assert kept <= {"slow reader: kept"}, found  # kernels hold megabytes of answers: test_gate.py
    assert found["slow body: 408"] == 2
    assert door.app.seen.count(("POST", "/v1/fleet/pull-messages", b"")) == 0


def test_a_log_or_folder_that_has_grown_too_much_is_a_fault(tmp_path):
    (tmp_path / "model").mkdir()
    for name, size in (("superlink.log", 700), ("metrics.jsonl", 50), ("model/weights", 9000)):
        (tmp_path / name).write_bytes(bytes(size))
    assert sizes(RunDir(tmp_path)) == (700, 750)
    ended = Run(code=0, took_s=1.0, weights=b"", survivors={}, held=Watched(), said="")
    assert grown(replace(ended, log_grew=LOG_LIMIT, folder_grew=FOLDER_LIMIT)) == []
    assert len(grown(replace(ended, log_grew=LOG_LIMIT + 1))) == 1
    assert len(grown(replace(ended, folder_grew=FOLDER_LIMIT + 1))) == 1
