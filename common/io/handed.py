"""What each node was handed, and what it may store of its replies. Reads Flower's messages only.

Guarantees:
    - A node stores objects of replies to messages that it was handed, and no others.
    - Of one reply it stores at most as many bytes as the message said that a reply may have
      (`common.transport.most_in`), however often it begins it, in at most `MOST_PARTS` objects.
    - At most `REPLIES` of its replies lie there: of the oldest it is said that they may go. A trip
      asks a node for one reply, or the same again, and takes it once it is whole; what else lies
      there came late, and nobody takes it.
    - What is remembered of a node is bounded: the last `HANDED` messages, and objects of `REPLIES`
      replies.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from common.transport import most_in, most_on_the_way

HANDED: Final = 64  # messages a node; it takes and confirms one at a time
REPLIES: Final = 4
MOST_PARTS: Final = 4096  # of a reply, in pieces of 5 MB


@dataclass(slots=True)
class _Message:
    """A message that a node was handed.

    Attributes:
        objects: ids of its own.
        left: bytes that the node may still store of its reply.
        parts: ids of the objects of each reply to it that lies there, by the reply's root.
    """

    name: str
    objects: frozenset[str]
    left: int
    parts: dict[str, frozenset[str]] = field(default_factory=dict)

    def has_part(self, object_id: str) -> bool:
        """Whether it is an object of one of these replies."""
        return any(object_id in ids for ids in self.parts.values())


@dataclass(slots=True)
class Room:
    """For one object.

    Attributes:
        is_there: whether it was left.
        is_kept: whether the object was stored; told by who asked.
    """

    is_there: bool = False
    is_kept: bool = False


class Handed:
    """The last `HANDED` messages that each node was handed, and its replies to them."""

    def __init__(self) -> None:
        self._by_node: dict[int, deque[_Message]] = {}
        self._roots: dict[int, list[str]] = {}
        self._lock = threading.Lock()

    def note(self, node: int, response: Any) -> None:
        """A response to `pull-messages`."""
        with self._lock:
            mine = self._by_node.setdefault(node, deque(maxlen=HANDED))
            trees = zip(response.messages_list, response.message_object_trees, strict=True)
            for message, tree in trees:
                said = message.metadata
                left = most_on_the_way(most_in(said.group_id))
                mine.append(_Message(said.message_id, frozenset(ids_of(tree)), left))

    def has_message(self, node: int, message: str) -> bool:
        """Whether the node was handed it."""
        return any(message == one.name for one in self._of(node))

    def has_object(self, node: int, object_id: str) -> bool:
        """Whether the node was handed a message with it."""
        return any(object_id in one.objects for one in self._of(node))

    def begin(self, node: int, message: str, tree: Any) -> list[str]:
        """Note a reply that is begun; roots of the node's oldest ones, of which it has too many.

        Args:
            message: which it answers; the node was handed it.
            tree: of the reply's objects.
        """
        with self._lock:
            mine = self._by_node.get(node, ())
            for one in mine:
                if one.name == message:
                    one.parts[tree.object_id] = frozenset(ids_of(tree))
            roots = self._roots.setdefault(node, [])
            if tree.object_id in roots:
                return []
            roots.append(tree.object_id)
            past, self._roots[node] = roots[:-REPLIES], roots[-REPLIES:]
            for one in mine:
                for root in past:
                    one.parts.pop(root, None)
            return past

    def has_begun(self, node: int, root: str) -> bool:
        """Whether this is the root of one of the node's replies."""
        with self._lock:
            return root in self._roots.get(node, ())

    def is_part(self, node: int, object_id: str) -> bool:
        """Whether it is an object of a reply that the node has begun."""
        return any(one.has_part(object_id) for one in self._of(node))

    @contextmanager
    def room(self, node: int, object_id: str, size: int) -> Iterator["Room"]:
        """Room for so many bytes of a reply with this object; given back unless they are kept."""
        room = Room()
        with self._lock:
            mine = [one for one in self._by_node.get(node, ()) if one.has_part(object_id)]
            its = next((one for one in reversed(mine) if size <= one.left), None)
            if its is not None:
                its.left -= size
                room.is_there = True
        try:
            yield room
        finally:
            if its is not None and not room.is_kept:
                with self._lock:
                    its.left += size

    def _of(self, node: int) -> tuple[_Message, ...]:
        with self._lock:
            return tuple(self._by_node.get(node, ()))


def ids_of(tree: Any) -> Iterator[str]:
    """Of a tree's objects, each before its children."""
    yield tree.object_id
    for child in tree.children:
        yield from ids_of(child)


def is_too_wide(tree: Any) -> bool:
    """Whether a tree has more than `MOST_PARTS` objects."""
    return sum(1 for _ in islice(ids_of(tree), MOST_PARTS + 1)) > MOST_PARTS


def is_consistent(tree: Any, seen: dict[str, Any]) -> bool:
    """Whether each object stands with the same children wherever it stands.

    Flower takes a known object's children from where it saw it first: a small tree could stand for
    one of 2^50 objects.

    Args:
        seen: trees by id; what is new is added.
    """
    known = seen.setdefault(tree.object_id, tree)
    if known is not tree:
        return bool(known == tree)
    return all(is_consistent(child, seen) for child in tree.children)
