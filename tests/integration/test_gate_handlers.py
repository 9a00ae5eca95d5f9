"""What one registered node may do to another's messages, with Flower's own handlers and state."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
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

from common.io.flower_internals import guard_handlers
from common.io.handed import HANDED, MOST_PARTS, REPLIES
from common.transport import UNSAID_BYTES, group_of, most_in, most_on_the_way

HANDLERS = import_module("flwr.superlink.servicer.fleet.fleet_handlers")
NAMES = (
    "push_messages", "pull_messages", "push_object", "pull_object", "confirm_message_received",
)  # fmt: skip


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
        self.replies = {}
        self.handlers = SimpleNamespace(**{name: getattr(HANDLERS, name) for name in NAMES})
        if guarded:
            guard_handlers(self.handlers)

    def _node(self, key):
        node = self.state.create_node("a", "a", key, 30.0)
        assert self.state.activate_node(node, 30.0)
        return node

    def instruct(self, node, most=1 << 16):
        """Id of a message that waits for a node, with its objects.

        Args:
            most: bytes of a reply.
        """
        content = RecordDict({"c": ConfigRecord({"b": b"instruction"})})
        message = Message(content, node, "query", group_id=group_of(1, most))
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

    def hand(self, node):
        """The messages that wait for a node; one at a time, as Flower does."""
        request = PullMessagesRequest()
        request.node.node_id = node
        response = self.handlers.pull_messages(request=request, state=self.state, store=self.store)
        return [message_from_proto(message) for message in response.messages_list]

    def pull(self, node):
        return [message.metadata.message_id for message in self.hand(node)]

    def begin(self, node, asked, content, tree=None):
        """Push a reply's head; what there is to push, and the session."""
        reply = self.replies.setdefault(asked.metadata.message_id, Message(content, reply_to=asked))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        head, parts = message_to_proto(reply), get_all_nested_objects(reply)
        head.metadata.reply_to_message_id = asked.metadata.message_id
        request = PushMessagesRequest(
            messages_list=[head], message_object_trees=[tree or get_object_tree(reply)]
        )
        request.node.node_id = node
        pushed = self.handlers.push_messages(request=request, state=self.state)
        rest = {name: parts[name].deflate() for name in pushed.objects_to_push if name in parts}
        return rest, pushed.session_id

    def put(self, node, session, name, data):
        """Push one object; whether it was stored."""
        request = PushObjectRequest(
            run_id=self.run, session_id=session, object_id=name, object_content=data
        )
        request.node.node_id = node
        return self.handlers.push_object(request=request, state=self.state).stored

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
    link.instruct(mine)
    (asked,) = link.hand(mine)
    for _ in range(2):  # its answer may have got lost
        rest, session = link.begin(mine, asked, _said(b"x" * 1000))
        assert len(rest) == 3
    for name, data in rest.items():
        assert link.put(mine, session, name, data)
    assert link.state.num_message_res() == 1


def _said(*texts):
    return RecordDict({str(i): ConfigRecord({"b": text}) for i, text in enumerate(texts)})


def _status(status, reason, call, *arguments):
    with pytest.raises(HTTPException, match=reason) as caught:
        call(*arguments)
    assert caught.value.status_code == status


# --- what a node may have stored


@pytest.mark.parametrize("guarded", [False, True])
def test_a_node_stores_objects_of_its_own_replies_only(monkeypatch, guarded):
    """Flower itself takes them from any node."""
    link = Link(monkeypatch, guarded=guarded)
    mine, other = link.nodes
    link.instruct(mine)
    (asked,) = link.hand(mine)
    rest, session = link.begin(mine, asked, _said(b"x"))
    for (name, data), node in zip(rest.items(), (other, other, mine), strict=True):
        if guarded and node == other:
            _status(403, "no reply that this node has begun", link.put, node, session, name, data)
        else:
            assert link.put(node, session, name, data)


def test_a_reply_to_a_message_that_the_node_was_not_handed_is_refused(link):
    mine = link.nodes[0]
    link.instruct(mine)
    (asked,) = link.state.get_message_ins(mine, 1)  # past the handlers
    _status(403, "was not handed", link.begin, mine, asked, _said(b"x"))


@pytest.mark.parametrize("guarded", [False, True])
def test_a_reply_of_more_bytes_than_it_may_have_is_not_stored(monkeypatch, guarded):
    link = Link(monkeypatch, guarded=guarded)
    node, most = link.nodes[0], most_on_the_way(1000)
    link.instruct(node, most=1000)
    (asked,) = link.hand(node)
    texts = [bytes([i]) * (most // 4) for i in range(5)]
    stored = 0
    for _ in range(2):  # beginning it again gives it no more
        rest, session = link.begin(node, asked, _said(*texts))
        for name, data in rest.items():
            if not guarded or stored + len(data) <= most:
                assert link.put(node, session, name, data)
                stored += len(data)
            else:
                _status(413, "more bytes", link.put, node, session, name, data)
    assert (stored > most) == (not guarded)


def test_what_was_not_stored_takes_no_room(link):
    node = link.nodes[0]
    link.instruct(node, most=1000)
    (asked,) = link.hand(node)
    rest, session = link.begin(node, asked, _said(b"x"))
    for name, data in rest.items():
        for _ in range(9):  # Flower refuses what has another hash
            assert not link.put(node, session, name, bytes(1 << 16))
        assert link.put(node, session, name, data)


def test_of_replies_that_nobody_takes_the_oldest_are_forgotten(link):
    node, roots = link.nodes[0], []
    for i in range(REPLIES + 2):
        link.instruct(node)
        (asked,) = link.hand(node)
        rest, session = link.begin(node, asked, _said(b"reply %d" % i))
        assert all(link.put(node, session, name, data) for name, data in rest.items())
        roots.append(list(rest)[-1])
    assert [root in link.store for root in roots] == [False] * 2 + [True] * REPLIES


def test_a_reply_of_too_many_objects_is_refused(link):
    node = link.nodes[0]
    link.instruct(node)
    (asked,) = link.hand(node)
    children = [ObjectTree(object_id=f"{i:064x}") for i in range(MOST_PARTS)]
    wide = ObjectTree(object_id="f" * 64, children=children)
    _status(413, "more objects", link.begin, node, asked, _said(b"x"), wide)
    assert len(link.store) == len(link.objects(asked.metadata.message_id))


def _doubling(depth):
    """A tree of 3 objects a level that stands for 2^depth: the second of two has no children."""
    tree = ObjectTree(object_id="f" * 64)
    for level in range(depth):
        inner = ObjectTree(object_id=f"{level:063x}c", children=[tree])
        bare = ObjectTree(object_id=tree.object_id)
        other = ObjectTree(object_id=f"{level:063x}d", children=[bare])
        tree = ObjectTree(object_id=f"{level:063x}e", children=[inner, other])
    return tree


def test_flower_itself_makes_a_large_tree_of_a_small_one(monkeypatch):
    """The positive control: what is guarded against."""
    link = Link(monkeypatch, guarded=False)
    link.instruct(link.nodes[0])
    (asked,) = link.hand(link.nodes[0])
    tree = _doubling(10)
    link.begin(link.nodes[0], asked, _said(b"x"), tree)
    assert len(list(iterate_object_tree(tree))) < 50
    assert len(list(iterate_object_tree(link.store.get_object_tree(tree.object_id)))) > 1000


def test_a_small_tree_that_stands_for_a_large_one_is_refused(link):
    node = link.nodes[0]
    link.instruct(node)
    (asked,) = link.hand(node)
    _status(403, "other children", link.begin, node, asked, _said(b"x"), _doubling(2))
    link.begin(node, asked, _said(b"x"), _doubling(1))  # no object stands twice with children


def test_an_object_that_is_there_already_stands_with_the_children_it_has(link):
    node = link.nodes[0]
    link.instruct(node)
    (asked,) = link.hand(node)
    leaf, inner = ObjectTree(object_id="1" * 64), ObjectTree(object_id="2" * 64)
    inner.children.append(leaf)
    link.begin(node, asked, _said(b"x"), ObjectTree(object_id="3" * 64, children=[inner]))
    link.instruct(node)
    (asked,) = link.hand(node)
    bare = ObjectTree(object_id="2" * 64)
    twice = [bare, ObjectTree(object_id="4" * 64, children=[leaf])]
    tree = ObjectTree(object_id="5" * 64, children=twice)
    _status(403, "other children", link.begin, node, asked, _said(b"x"), tree)
    twice[0].CopyFrom(inner)
    link.begin(node, asked, _said(b"x"), ObjectTree(object_id="5" * 64, children=twice))


def test_no_reply_is_taken_under_the_name_of_anothers_message(link):
    mine, other = link.nodes
    theirs = link.instruct(other)
    link.instruct(mine)
    (asked,) = link.hand(mine)
    tree = link.store.get_object_tree(theirs)
    _status(403, "another's message", link.begin, mine, asked, _said(b"x"), tree)


def test_how_large_a_reply_may_be_is_said_with_the_round():
    assert most_in(group_of(7, 123456)) == 123456
    for group in ("", "7", "a b", "7 -1", "7 1 1", "7 " + "9" * 16):
        assert most_in(group) == UNSAID_BYTES


def test_flowers_router_looks_its_handlers_up_when_it_is_asked():
    """Or replacing them in their module would guard nothing."""
    routes = import_module("flwr.superlink.routers.fleet.router")
    for name in NAMES:
        assert f"fleet_handlers.{name}(" in _source(getattr(routes, f"fleet_{name}"))


def _source(function):
    return import_module("inspect").getsource(function)
