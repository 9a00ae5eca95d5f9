"""Revocation while the server runs: the gate over real TLS, with Flower's own state of nodes."""

import time

import pytest

from common.errors import IdentityError, UsageError
from common.identity.enrolment import Register, make_request
from common.identity.identity import Identity
from common.io.register_file import REGISTER, write_register
from server import gate
from server.limits import Limits
from tests.gates import PULL, make_certificates, opened, read, status

NAMES = ("north", "south")
WHEN = "2026-05-01T12:00:00Z"
EMPTY = f"POST {PULL}"


class Enrolled:
    """A gate, and two institutions whose nodes are registered and approved."""

    def __init__(self, door, folder):
        self.door, self.folder = door, folder
        self.register = Register(federation="fed")
        self.keys = {"north": door.key, "south": door.app.register()[1]}
        for number, (name, key) in enumerate(self.keys.items()):
            asked = make_request("fed", Identity.of(name, bytes([number]) * 32), key)
            self.register = self.register.approve(asked, NAMES, WHEN)
        write_register(folder, self.register)

    def end(self, name, state="revoked"):
        self.register = self.register.end(name, state, WHEN, "")
        write_register(self.folder, self.register)

    def ask(self, name, path=PULL):
        head = self.door.head(path, "connection: close", "content-length: 1", key=self.keys[name])
        return self.door.send(head + b"x")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def gated(certificates, tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    with opened(certificates, Limits(), folder) as door:
        yield door, folder


@pytest.fixture
def enrolled(gated):
    door, folder = gated
    door.app.seen.clear()
    door.node, door.key = door.app.register()
    return Enrolled(door, folder)


@pytest.mark.parametrize("state", ["revoked", "left"])
def test_a_revoked_nodes_next_request_is_refused_and_the_others_pass(enrolled, state):
    assert [status(enrolled.ask(name)) for name in NAMES] == [200, 200]
    enrolled.end("north", state)
    assert [status(enrolled.ask(name)) for name in NAMES] == [401, 200]
    assert len(enrolled.door.app.seen) == 3


def test_a_connection_that_stands_since_before_is_of_no_use_to_a_revoked_node(enrolled):
    whole = enrolled.door.head(PULL, "content-length: 1") + b"x"
    with enrolled.door.connect() as link:
        link.sendall(whole)
        assert status(read(link, 0.5)) == 200
        enrolled.end("north")
        link.sendall(whole)
        assert status(read(link)) == 401
    assert len(enrolled.door.app.seen) == 1


def test_a_node_that_is_revoked_while_it_sends_a_body_gets_nothing_through(enrolled):
    with enrolled.door.connect() as link:
        link.sendall(enrolled.door.head(PULL, "content-length: 2") + b"x")
        deadline = time.monotonic() + 5
        while not enrolled.door.held and time.monotonic() < deadline:
            time.sleep(0.01)
        assert enrolled.door.held == 2  # its head was believed
        enrolled.end("north")
        link.sendall(b"x")
        assert status(read(link)) == 401
    assert enrolled.door.app.seen == []
    assert enrolled.door.held == 0


def test_a_revoked_node_that_comes_back_is_told_what_an_unknown_one_is(enrolled):
    enrolled.end("north")
    assert b'"code": 2004' in enrolled.ask("north", "/v1/fleet/activate-node")


def test_a_key_that_flower_knows_and_nobody_approved_is_refused(enrolled):
    _, enrolled.keys["stranger"] = enrolled.door.app.register()
    assert status(enrolled.ask("stranger")) == 401
    assert enrolled.door.app.seen == []


def test_an_approved_key_that_flower_does_not_know_is_refused(enrolled, certificates):
    with opened(certificates, Limits(), enrolled.folder) as other:
        enrolled.door = other  # another SuperLink, with which nobody is registered
        assert status(enrolled.ask("south")) == 401
        assert other.app.seen == []


@pytest.mark.parametrize("damage", ["missing", "cut", "edited", "empty"])
def test_a_damaged_register_lets_nobody_in_until_it_is_whole_again(enrolled, damage):
    assert status(enrolled.ask("north")) == 200
    path = enrolled.folder / REGISTER
    whole = path.read_bytes()
    spoilt = {
        "cut": whole[:-30],
        "edited": whole.replace(b'"approved"', b'"accepted"', 1),
        "empty": b"",
    }
    path.unlink()
    if damage != "missing":
        path.write_bytes(spoilt[damage])
    for _ in range(2):
        answers = [enrolled.ask(name) for name in NAMES]
        assert [status(answer) for answer in answers] == [503, 503]
        assert all(b"try again" in answer for answer in answers)
    assert len(enrolled.door.app.seen) == 1
    path.write_bytes(whole)
    assert [status(enrolled.ask(name)) for name in NAMES] == [200, 200]


def test_a_register_in_the_others_place_counts_though_it_is_as_long(enrolled):
    """A file of the same size, renamed over the old one within the same moment."""
    north, south = enrolled.register.end("north", "left", WHEN, ""), enrolled.register.end(
        "south", "left", WHEN, ""
    )  # fmt: skip
    for register, allowed in ((north, [401, 200]), (south, [200, 401])) * 3:
        write_register(enrolled.folder, register)
        assert [status(enrolled.ask(name)) for name in NAMES] == allowed


def test_a_gate_without_a_register_does_not_start(tmp_path):
    arguments = ["127.0.0.1", "1", "c", "k", str(tmp_path), "--enable-supernode-auth"]
    with pytest.raises(UsageError, match="no register"):
        gate.main(arguments)


def test_a_folder_among_the_node_keys_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "nodes" / "backup").mkdir(parents=True)
    with pytest.raises(IdentityError, match="a folder among the keys") as caught:
        write_register(tmp_path, Register(federation="fed"))
    assert caught.value.place == str(tmp_path / "nodes" / "backup")
    assert not (tmp_path / REGISTER).exists()
