"""What one registered node may do to another's messages, with Flower's own handlers and state."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager

from common.io.flower_internals import HANDED, guard_handlers

HANDLERS = import_module("flwr.superlink.servicer.fleet.fleet_handlers")
NAMES = ("push_messages", "pull_messages", "pull_object", "confirm_message_received")


class Link:
    """Flower's state with a run under way, two nodes, and handlers that are guarded or are not."""

    def __init__(self, monkeypatch, *, guarded):
        factory = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
        )
        self.state = factory.state()
        self.store = self.state.object_store
        self.run = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP
        )
        task = self.state.get_run_info(run_ids=[self.run])[0].primary_task_id
        assert self.state.claim_task(task)
        assert self.state.activate_task(task)
        self.nodes = [self._node(bytes([i])) for i in range(2)]
        for name in ("_run_id", "_node_id", "_task_id"):  # what `Message` reads in a ServerApp
            monkeypatch.setattr(TaskIdentity, name, self.run if name == "_run_id" else 1)
        self.handlers = SimpleNamespace(**{name: getattr(HANDLERS, name) for name in NAMES})
        if guarded:
            guard_handlers(self.handlers)

    def _node(self, key):
        node = self.state.create_node("a", "a", key, 30.0)
        assert self.state.activate_node(node, 30.0)
        return node

    def instruct(self, node):
        """Id of a message that waits for a node, with its objects."""
        content = RecordDict({"c": ConfigRecord({"b": b"instruction"})})
        message = Message(content, node, "query")
        message.metadata.__dict__["_message_id"] = message.object_id
        message.metadata.__dict__["_src_node_id"] = 1
        session = self.state.start_session(self.run)
        tree = get_object_tree(message)
        stored, missing = self.state.store_message_and_object_tree(message, tree, session)
        assert stored
        parts = get_all_nested_objects(message)
        for name in missing:
            assert self.state.store_object(self.run, session, name, parts[name].deflate())
        return message.object_id

    def objects(self, message):
        """Ids of a message's objects, its own included."""
        return [node.object_id for node in iterate_object_tree(self.store.get_object_tree(message))]

    def fetch(self, node, object_id):
        request = PullObjectRequest(run_id=self.run, object_id=object_id)
        request.node.node_id = node
        return self.handlers.pull_object(request=request, state=self.state).object_content

    def pull(self, node):
        request = PullMessagesRequest()
        request.node.node_id = node
        response = self.handlers.pull_messages(request=request, state=self.state, store=self.store)
        return [message.metadata.message_id for message in response.messages_list]

    def confirm(self, node, message):
        request = ConfirmMessageReceivedRequest(run_id=self.run, message_object_id=message)
        request.node.node_id = node
        self.handlers.confirm_message_received(request=request, state=self.state, store=self.store)


@pytest.fixture
def link(monkeypatch):
    return Link(monkeypatch, guarded=True)


def test_flower_itself_lets_any_node_delete_anothers_message(monkeypatch):
    """The positive control: what is guarded against."""
    link = Link(monkeypatch, guarded=False)
    message = link.instruct(link.nodes[0])
    link.confirm(link.nodes[1], message)
    assert message not in link.store
    assert link.pull(link.nodes[0]) == []  # it never comes


def test_a_node_cannot_delete_anothers_message_before_or_after_it_was_handed_over(link):
    mine, other = link.nodes
    message = link.instruct(mine)
    _refused(link, other, message)
    assert link.pull(mine) == [message]
    _refused(link, other, message)
    assert message in link.store
    link.confirm(mine, message)
    assert message not in link.store


def test_a_node_cannot_delete_its_own_message_before_it_was_handed_over(link):
    message = link.instruct(link.nodes[0])
    _refused(link, link.nodes[0], message)
    assert link.pull(link.nodes[0]) == [message]


def test_a_node_cannot_delete_what_was_never_handed_to_it(link):
    for stored in (link.instruct(link.nodes[0]), "f" * 64, ""):
        _refused(link, link.nodes[1], stored)


def test_a_confirmation_that_is_sent_twice_does_no_harm(link):
    """Flower's nodes send it again when its answer got lost; a refusal would lose the message."""
    message = link.instruct(link.nodes[0])
    link.pull(link.nodes[0])
    link.confirm(link.nodes[0], message)
    link.confirm(link.nodes[0], message)


def test_flower_itself_gives_any_object_to_any_node(monkeypatch):
    """The positive control: what is guarded against."""
    link = Link(monkeypatch, guarded=False)
    message = link.instruct(link.nodes[0])
    assert any(b"instruction" in link.fetch(link.nodes[1], one) for one in link.objects(message))


def test_a_node_fetches_all_objects_of_its_messages_and_none_of_anothers(link):
    mine, other = link.nodes
    message = link.instruct(mine)
    objects = link.objects(message)
    assert len(objects) > 2
    for one in objects:
        for node in link.nodes:  # before it was handed over
            _no_object(link, node, one)
    link.pull(mine)
    assert any(b"instruction" in link.fetch(mine, one) for one in objects)
    assert all(link.fetch(mine, one) for one in objects)
    for one in objects:
        _no_object(link, other, one)


def _no_object(link, node, object_id):
    with pytest.raises(HTTPException, match="no message that this node was handed") as caught:
        link.fetch(node, object_id)
    assert caught.value.status_code == 403


def test_what_is_remembered_of_handed_messages_is_bounded(link):
    messages = [link.instruct(link.nodes[0]) for _ in range(HANDED + 1)]
    handed = [link.pull(link.nodes[0])[0] for _ in messages]
    assert sorted(handed) == sorted(messages)
    _refused(link, link.nodes[0], handed[0])
    for message in handed[1:]:
        link.confirm(link.nodes[0], message)


def _refused(link, node, message):
    with pytest.raises(HTTPException, match="was not handed") as caught:
        link.confirm(node, message)
    assert caught.value.status_code == 403


def test_a_node_answers_in_its_own_name_only(link):
    mine, other = link.nodes
    for senders in ((other,), (mine, other)):
        request = PushMessagesRequest()
        request.node.node_id = mine
        for sender in senders:
            request.messages_list.add().metadata.src_node_id = sender
        with pytest.raises(HTTPException, match="another node's name") as caught:
            link.handlers.push_messages(request=request, state=link.state)
        assert caught.value.status_code == 403


def test_a_nodes_own_reply_is_taken(link):
    mine = link.nodes[0]
    asked = link.instruct(mine)
    (message,) = link.state.get_message_ins(mine, 1)
    reply = Message(RecordDict(), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    request = PushMessagesRequest(
        messages_list=[message_to_proto(reply)], message_object_trees=[get_object_tree(reply)]
    )
    request.node.node_id = mine
    link.handlers.push_messages(request=request, state=link.state)
    assert link.state.num_message_res() == 1
    assert asked == reply.metadata.reply_to_message_id


def test_flowers_router_looks_its_handlers_up_when_it_is_asked():
    """Or replacing them in their module would guard nothing."""
    routes = import_module("flwr.superlink.routers.fleet.router")
    for name in NAMES:
        assert f"fleet_handlers.{name}(" in _source(getattr(routes, f"fleet_{name}"))


def _source(function):
    return import_module("inspect").getsource(function)
