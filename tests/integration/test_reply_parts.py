"""How replies come off Flower's own state: whole ones at once, and no part is waited for."""

import hashlib
import os
import time
from importlib import import_module
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from common.errors import FederationError
from common.io import flower_internals as internals
from common.io.flower_internals import LONGEST_LOOK_S, Gone, ReplyParts, superlink_reached
from common.transport import RECORD, STYPE
from server.app import GridMail
from server.mail import Letter, Lost
from tests.integration.test_gate_handlers import Link

ARRAYS = import_module("flwr.app.message.array")
MOST = 1 << 16
RUNTIME = import_module("flwr.superlink.servicer.runtime.runtime_handlers")


class Coordinators(Link):
    """The same state from the ServerApp's side; `nodes` answer as they are told to."""

    def __init__(self, monkeypatch):
        super().__init__(monkeypatch, guarded=True)
        self.now = 0.0
        self.asked_for = 0
        task = SimpleNamespace(run_id=self.run)
        calls = {
            "PullMessages": RUNTIME.pull_messages,
            "PullObject": RUNTIME.pull_object,
            "ConfirmMessageReceived": RUNTIME.confirm_message_received,
        }
        client = {name: self._call(handler, task) for name, handler in calls.items()}
        self._runtime_client = SimpleNamespace(**client)
        self.node = Node(node_id=1)
        state_run, self.run_id = SimpleNamespace(run_id=self.run), self.run
        self.grid = SimpleNamespace(
            _runtime_client=self._runtime_client, node=self.node, run=state_run
        )
        self.parts = ReplyParts(self.grid, clock=lambda: self.now)

    def _call(self, handler, task):
        def call(request):
            self.asked_for += handler is RUNTIME.pull_object
            return handler(request, self.state, task)

        return call

    def begin(self, node, said=b"reply", reply_to=None, error=None, content=None, first=False):
        """A node's answer without its parts; what stores so many, and says how many are left.

        Args:
            first: its parts come before the message itself, as Flower's nodes send them.
        """
        (asked,) = self.hand(node)
        several = {str(i): ConfigRecord({"b": said + b"%d" % i}) for i in range(3)}
        reply = Message(error or content or RecordDict(several), reply_to=asked)
        if reply_to:
            reply.metadata.__dict__["_reply_to_message_id"] = reply_to
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree, parts = get_object_tree(reply), get_all_nested_objects(reply)
        head = message_to_proto(reply)
        head.metadata.reply_to_message_id = asked.metadata.message_id
        request = PushMessagesRequest(messages_list=[head], message_object_trees=[tree])
        request.node.node_id = node
        pushed = self.handlers.push_messages(request=request, state=self.state)
        rest = [(name, parts[name].deflate()) for name in pushed.objects_to_push]
        assert rest[-1][0] == reply.object_id
        if first:
            rest.reverse()

        def give(count):
            for _ in range(min(count, len(rest))):
                name, data = rest.pop()
                assert self.state.store_object(self.run, pushed.session_id, name, data)
            return len(rest)

        return give

    def whole(self, node, **how):
        self.begin(node, **how)(99)


@pytest.fixture
def link(monkeypatch):
    return Coordinators(monkeypatch)


def _said(message):
    return message.content["0"]["b"]


def test_a_reply_by_half_costs_the_others_nothing(link):
    mine, other = (link.instruct(node) for node in link.nodes)
    link.begin(link.nodes[0], said=b"half")(2)
    link.whole(link.nodes[1])
    begun = time.monotonic()
    found = dict(link.parts.pull([mine, other], MOST))
    assert time.monotonic() - begun < 2
    assert list(found) == [other]
    assert _said(found[other]) == b"reply0"


def test_a_reply_by_half_is_taken_once_it_is_whole_and_each_part_once(link):
    mine = link.instruct(link.nodes[0])
    give = link.begin(link.nodes[0])
    left = give(1)
    while left:
        assert dict(link.parts.pull([mine], MOST)) == {}
        link.now += LONGEST_LOOK_S
        left = give(1)
    found = dict(link.parts.pull([mine], MOST))
    assert _said(found[mine]) == b"reply0"
    assert found[mine].metadata.message_id not in link.store  # the SuperLink has forgotten it


def test_parts_that_do_not_come_are_looked_for_ever_less_often(link):
    mine = link.instruct(link.nodes[0])
    link.begin(link.nodes[0])(1)
    dict(link.parts.pull([mine], MOST))
    looks = []
    for _ in range(600):
        link.now += 0.1
        before = link.asked_for
        assert dict(link.parts.pull([mine], MOST)) == {}
        looks += [link.now] if link.asked_for > before else []
    assert 50 < len(looks) < 70


def test_a_reply_that_had_begun_outlives_its_messages_time_and_its_nodes_heartbeat(link):
    mine = link.instruct(link.nodes[0])
    give = link.begin(link.nodes[0])
    give(1)
    assert dict(link.parts.pull([mine], MOST)) == {}
    link.state.nodes[link.nodes[0]].online_until = time.time() - 1
    give(99)
    link.now += LONGEST_LOOK_S
    assert _said(dict(link.parts.pull([mine], MOST))[mine]) == b"reply0"


def test_a_node_whose_heartbeat_lapsed_is_away_and_its_whole_reply_lost(link):
    """As Flower does it: so the coordinator asks again."""
    mine = link.instruct(link.nodes[0])
    link.whole(link.nodes[0])
    link.state.nodes[link.nodes[0]].online_until = time.time() - 1
    assert dict(GridMail(link.grid, link.parts).fetch([mine], MOST)) == {mine: Lost.ON_THE_WAY}


def test_a_reply_whose_parts_are_gone_is_lost(link):
    mine = link.instruct(link.nodes[0])
    link.begin(link.nodes[0])(1)
    dict(link.parts.pull([mine], MOST))
    link.store.clear()
    link.now += LONGEST_LOOK_S
    assert dict(GridMail(link.grid, link.parts).fetch([mine], MOST)) == {mine: Lost.ON_THE_WAY}


def test_a_reply_of_too_many_parts_is_given_up_at_once(link, monkeypatch):
    monkeypatch.setattr(internals, "MOST_PARTS", 3)
    mine = link.instruct(link.nodes[0])
    link.whole(link.nodes[0])
    assert dict(link.parts.pull([mine], MOST)) == {mine: Gone.TOO_LARGE}
    assert link.asked_for == 0


PIECES = 20


def _pieces(size):
    return RecordDict({str(i): ConfigRecord({"b": os.urandom(size)}) for i in range(PIECES)})


def test_a_reply_larger_than_it_may_be_is_not_taken_and_the_others_are(link):
    large, other = (link.instruct(node, most=1 << 30) for node in link.nodes)
    before = len(link.store)
    link.whole(link.nodes[0], content=_pieces(1 << 18))
    link.whole(link.nodes[1])
    found = dict(GridMail(link.grid, link.parts).fetch([large, other], MOST))
    assert found[large] is Lost.TOO_LARGE
    assert isinstance(found[other], Lost)  # it is no reply of a relay's, but it was taken
    assert len(link.store) == before


def test_of_a_reply_that_is_too_large_hardly_more_is_fetched_than_it_may_have(link):
    asked = link.instruct(link.nodes[0], most=1 << 30)
    link.whole(link.nodes[0], content=_pieces(1 << 18))
    assert dict(link.parts.pull([asked], MOST)) == {asked: Gone.TOO_LARGE}
    assert link.asked_for < PIECES // 2


def test_a_reply_as_large_as_it_may_be_is_taken(link):
    asked = link.instruct(link.nodes[0])
    data = os.urandom(MOST)
    array = Array(dtype="uint8", shape=(MOST,), stype=STYPE, data=data)
    link.whole(link.nodes[0], content=RecordDict({RECORD: ArrayRecord({"reply": array})}))
    assert dict(GridMail(link.grid, link.parts).fetch([asked], MOST)) == {asked: data}


def test_a_reply_a_byte_larger_than_it_may_be_is_not(link):
    asked = link.instruct(link.nodes[0])
    array = Array(dtype="uint8", shape=(MOST + 1,), stype=STYPE, data=os.urandom(MOST + 1))
    link.whole(link.nodes[0], content=RecordDict({RECORD: ArrayRecord({"reply": array})}))
    found = dict(GridMail(link.grid, link.parts).fetch([asked], MOST))
    assert found == {asked: Lost.TOO_LARGE}


def test_a_piece_that_stands_in_a_reply_many_times_counts_as_often(link, monkeypatch):
    monkeypatch.setattr(ARRAYS, "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 1024)
    asked = link.instruct(link.nodes[0])
    array = Array(dtype="uint8", shape=(1 << 20,), stype=STYPE, data=bytes(1 << 20))
    link.whole(link.nodes[0], content=RecordDict({RECORD: ArrayRecord({"reply": array})}))
    monkeypatch.setattr(link.parts._flower, "inflate_object_from_contents", None)  # never made
    assert dict(link.parts.pull([asked], MOST)) == {asked: Gone.TOO_LARGE}
    assert link.asked_for < 10


def test_an_object_that_is_no_piece_and_large_is_not_read(link, monkeypatch):
    monkeypatch.setattr(internals, "MOST_HEAD", 1000)
    asked = link.instruct(link.nodes[0])
    link.whole(link.nodes[0], content=RecordDict({"c": ConfigRecord({"b": bytes(1001)})}))
    assert dict(link.parts.pull([asked], MOST)) == {asked: Gone.TOO_LARGE}


def test_whole_replies_are_fetched_one_after_the_other(link):
    both = [link.instruct(node) for node in link.nodes]
    for node in link.nodes:
        link.whole(node)
    found = link.parts.pull(both, MOST)
    next(found)
    of_one = link.asked_for
    next(found)
    assert link.asked_for == 2 * of_one


def test_nothing_of_a_reply_is_fetched_before_its_last_part_is_there(link):
    mine = link.instruct(link.nodes[0])
    give = link.begin(link.nodes[0], first=True)
    while give(1) > 1:
        assert dict(link.parts.pull([mine], MOST)) == {}
        assert link.parts._begun[mine].here == {}
        link.now += LONGEST_LOOK_S
    give(1)
    assert _said(dict(link.parts.pull([mine], MOST))[mine]) == b"reply0"


def test_one_look_does_not_ask_for_all_of_many_parts_that_are_not_there(link, monkeypatch):
    monkeypatch.setattr(internals, "MOST_MISSED", 0)
    mine = link.instruct(link.nodes[0])
    give = link.begin(link.nodes[0])
    assert dict(link.parts.pull([mine], MOST)) == {}
    give(99)
    link.now += LONGEST_LOOK_S
    assert _said(dict(link.parts.pull([mine], MOST))[mine]) == b"reply0"


def test_a_reply_counts_for_the_message_that_flower_checked_whatever_its_parts_say(link):
    mine, other = (link.instruct(node) for node in link.nodes)
    link.whole(link.nodes[0], said=b"forged", reply_to=other)
    found = dict(link.parts.pull([mine, other], MOST))
    assert list(found) == [mine]


def test_what_is_dropped_is_forgotten(link):
    mine = link.instruct(link.nodes[0])
    link.begin(link.nodes[0])(1)
    dict(link.parts.pull([mine], MOST))
    link.parts.drop([mine, "", "never asked"])
    assert link.parts._begun == {}


def test_an_institutions_error_is_told_from_an_absence(link):
    mine = link.instruct(link.nodes[0])
    link.whole(link.nodes[0], error=Error(code=2, reason="oh"))
    assert dict(GridMail(link.grid, link.parts).fetch([mine], MOST)) == {mine: Lost.FAILED}


@pytest.mark.parametrize("error", [httpx.ReadTimeout("x"), httpx.UnsupportedProtocol("x")])
def test_what_flowers_client_raises_is_an_error_with_place_and_remedy(error):
    with pytest.raises(FederationError, match=type(error).__name__) as caught, superlink_reached():
        raise error
    assert caught.value.place
    assert "--resume" in caught.value.remedy


def test_a_run_that_flower_has_ended_is_said_to_be_that():
    ended = import_module("flwr.supercore.run").RunNotRunningException
    with pytest.raises(FederationError, match="Flower has ended this run"), superlink_reached():
        raise ended


@pytest.mark.parametrize("call", ["online", "send", "fetch"])
def test_each_call_of_the_superlink_is_guarded(link, call):
    def fail(*_):
        raise httpx.ReadTimeout("x")

    grid = SimpleNamespace(get_node_ids=fail, push_messages=fail, pull_messages=fail)
    letters = {1: Letter((b"x",))}
    arguments = {"online": (), "send": ("hello", 0, letters, 1.0, MOST), "fetch": (["m"], MOST)}
    with pytest.raises(FederationError, match="ReadTimeout"):
        list(getattr(GridMail(grid), call)(*arguments[call]))


def _odd(link, data):
    """A reply that is one object: these bytes."""
    asked = link.instruct(link.nodes[0])
    (message,) = link.hand(link.nodes[0])
    reply, name = Message(RecordDict(), reply_to=message), hashlib.sha256(data).hexdigest()
    reply.metadata.__dict__["_message_id"] = name
    tree = ObjectTree(object_id=name)
    request = PushMessagesRequest(
        messages_list=[message_to_proto(reply)], message_object_trees=[tree]
    )
    request.node.node_id = link.nodes[0]
    pushed = link.handlers.push_messages(request=request, state=link.state)
    assert link.state.store_object(link.run, pushed.session_id, name, data)
    return asked


@pytest.mark.parametrize(
    "data", [b"no object of Flower's", ConfigRecord({"b": b"no message"}).deflate()]
)
def test_parts_that_make_no_message_are_a_lost_reply_and_end_no_run(link, monkeypatch, data):
    monkeypatch.setattr(link.store, "verify", False)
    asked = _odd(link, data)
    assert dict(GridMail(link.grid, link.parts).fetch([asked], MOST)) == {asked: Lost.ON_THE_WAY}
