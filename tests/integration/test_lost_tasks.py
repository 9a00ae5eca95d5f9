"""A relay that is gone in the middle of a task leaves no node behind that waits for ever."""

from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from common.io import flower_internals as internals
from common.io.lost_tasks import PACE_S, LostReplyError, LostTasks

LOOP = import_module("flwr.supernode.start_client_internal")
NODESTATE = import_module("flwr.supernode.nodestate.in_memory_nodestate")
RUNTIME = import_module("flwr.supernode.servicer.runtime.runtime_handlers")
STORES = import_module("flwr.supercore.object_store.in_memory_object_store")
SUB_STATUS = import_module("flwr.common.constant").SubStatus
CLIENT_APP = import_module("flwr.supercore.constant").TaskType.CLIENT_APP
CRASHED = 8
MOST_SLEEPS = 100


class StillWaitsError(Exception):
    """A wait that nothing has ended."""


class Node:
    """Flower's state of a node and its loop's half that pushes; one message was received."""

    def __init__(self):
        self.store = STORES.InMemoryObjectStore(verify=False)
        self.state = NODESTATE.InMemoryNodeState(object_store=self.store)
        self.state.set_node_id(7)
        self.sent, self.pushed, self.slept = [], [], 0
        self.meanwhile = lambda: None
        self.receive()

    def receive(self):
        with internals._local_identity():
            message = Message(RecordDict(), dst_node_id=7, message_type="query")
        message.metadata.__dict__["_message_id"] = message.object_id
        self.state.store_message(message)
        self.store.preregister(message.metadata.run_id, get_object_tree(message))
        self.message, self.run = message, message.metadata.run_id
        self.task = self.state.create_task(task_type=CLIENT_APP, run_id=self.run, fab_hash="f")

    # --- what a relay does

    def take_task(self):
        assert self.state.claim_task(self.task)
        assert self.state.activate_task(self.task)

    def take_message(self):
        task = SimpleNamespace(run_id=self.run)
        answer = RUNTIME.pull_messages(None, self.state, task)
        return [one.metadata.message_id for one in answer.messages_list]

    def hand_over(self, parts):
        """A reply's head, and so many of its parts; ids of all."""
        reply = Message(RecordDict({"r": ConfigRecord({"b": b"reply"})}), reply_to=self.message)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.store.preregister(self.run, get_object_tree(reply))
        objects = {name: one.deflate() for name, one in get_all_nested_objects(reply).items()}
        for name in list(objects)[:parts]:
            self.store.put(name, objects[name])
        self.state.store_message(reply)
        return objects

    def end(self, sub_status):
        assert self.state.finish_task(self.task, sub_status, "")

    def vanish(self):
        """No heartbeat for longer than Flower's patience."""
        self.state.task_token_store[self.task].active_until -= timedelta(hours=1)

    # --- the node

    def push(self, monkeypatch, paced=True):
        """Its wait, as the SuperNode runs it, by a clock of the tests'."""
        now = [0.0]

        def sleep(_seconds):
            now[0] += PACE_S
            self.slept += 1
            if self.slept > MOST_SLEEPS:
                raise StillWaitsError
            self.meanwhile()

        loop = SimpleNamespace(_push_messages=LOOP._push_messages)
        pacer = internals.NodePacer(sleep)
        if paced:
            watch = lambda state: LostTasks(state, lambda: now[0])  # noqa: E731
            monkeypatch.setattr(internals, "LostTasks", watch)
            internals.pace_supernode(loop, pacer)
            monkeypatch.setattr(LOOP, "time", loop.time)
        else:
            monkeypatch.setattr(LOOP, "time", SimpleNamespace(sleep=sleep))
        loop._push_messages(
            state=self.state, object_store=self.store, send=self._send, push_object=self._push
        )

    def _send(self, message, tree, _seconds):
        self.sent.append(message)
        names = {one.object_id for one in import_module(TREES).iterate_object_tree(tree)}
        return names, "session"

    def _push(self, _run, _session, name, _content):
        self.pushed.append(name)


TREES = "flwr.supercore.inflatable.inflatable_object"


@pytest.fixture
def node():
    return Node()


def errors_of(node):
    return [one.error.code for one in node.sent if one.has_error()]


def dies_before_the_message(node):
    node.take_task()
    node.vanish()


def fails_before_the_message(node):
    node.take_task()
    node.end(SUB_STATUS.FAILED)


def dies_with_the_message(node):
    node.take_task()
    assert node.take_message()
    node.vanish()


def fails_without_a_reply(node):
    node.take_task()
    assert node.take_message()
    node.end(SUB_STATUS.FAILED)


LOST = (dies_before_the_message, fails_before_the_message, fails_without_a_reply)


@pytest.mark.parametrize("lost", [*LOST, dies_with_the_message])
def test_a_node_answers_for_a_relay_that_is_gone(node, monkeypatch, lost):
    lost(node)
    node.push(monkeypatch)
    assert errors_of(node) == [CRASHED]
    assert not node.state.msg_store
    before = node.message.metadata.message_id
    node.receive()
    node.take_task()
    (taken,) = node.take_message()
    assert taken == node.message.metadata.message_id != before


@pytest.mark.parametrize("lost", LOST)
def test_flower_alone_waits_for_ever(node, monkeypatch, lost):
    """If not, what mends it can go."""
    lost(node)
    with pytest.raises(StillWaitsError):
        node.push(monkeypatch, paced=False)


@pytest.mark.parametrize("sub_status", [None, SUB_STATUS.FAILED])
@pytest.mark.parametrize("parts", [0, 1])
def test_a_reply_whose_parts_do_not_come_is_given_up(node, monkeypatch, parts, sub_status):
    node.take_task()
    node.take_message()
    objects = node.hand_over(parts)
    if sub_status is None:
        node.vanish()
    else:
        node.end(sub_status)
    node.push(monkeypatch)
    assert len(node.sent) == 1
    assert not errors_of(node)
    assert len(node.pushed) < len(objects)
    assert not node.state.msg_store


def test_parts_that_come_as_the_task_ends_are_all_sent(node, monkeypatch):
    """The last is stored, and the task over, between a look at the store and one at the task."""
    node.take_task()
    node.take_message()
    objects = node.hand_over(0)
    rest = list(objects.items())

    def one_more():
        if rest:
            node.store.put(*rest.pop(0))
            if not rest:
                node.end(SUB_STATUS.COMPLETED)

    node.meanwhile = one_more
    node.push(monkeypatch)
    assert sorted(node.pushed) == sorted(objects)


def test_a_relay_that_works_is_waited_for(node, monkeypatch):
    node.take_task()
    node.take_message()
    with pytest.raises(StillWaitsError):
        node.push(monkeypatch)
    assert not node.sent


def test_a_task_that_no_relay_has_taken_yet_is_waited_for(node, monkeypatch):
    with pytest.raises(StillWaitsError):
        node.push(monkeypatch)


def test_a_reply_that_waits_to_be_taken_is_none_that_is_lost(node):
    """The task is over, the reply is whole, and the node has not taken it up."""
    now = [0.0]
    watch = LostTasks(node.state, lambda: now[0])
    node.take_task()
    node.take_message()
    node.hand_over(9)
    node.end(SUB_STATUS.COMPLETED)
    for _ in range(3):
        now[0] += PACE_S
        watch.look()
    assert len(node.state.msg_store) == 2
    (reply,) = node.state.get_messages_legacy(is_reply=True)
    assert not reply.has_error()
    now[0] += PACE_S
    watch.look()  # it may have found its last part just now
    now[0] += PACE_S
    with pytest.raises(LostReplyError):
        watch.look()
