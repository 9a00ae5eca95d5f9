"""What the gate remembers of a node is bounded, whatever the node begins."""

from types import SimpleNamespace

from common.io.handed import REPLIES, Handed
from common.transport import group_of

NODE = 7


def a_tree(root: str, parts: int) -> SimpleNamespace:
    leaves = [SimpleNamespace(object_id=f"{root}-{i}", children=[]) for i in range(parts)]
    return SimpleNamespace(object_id=root, children=leaves)


def handed_one_message() -> Handed:
    handed = Handed()
    said = SimpleNamespace(message_id="asked", group_id=group_of(1, 1 << 20))
    response = SimpleNamespace(
        messages_list=[SimpleNamespace(metadata=said)], message_object_trees=[a_tree("request", 0)]
    )
    handed.note(NODE, response)
    return handed


def test_parts_of_replies_that_went_are_forgotten():
    """A node may begin as many replies to one message as it likes: Flower refuses them later."""
    handed = handed_one_message()
    gone = [root for i in range(50) for root in handed.begin(NODE, "asked", a_tree(f"r{i}", 40))]
    assert gone == [f"r{i}" for i in range(50 - REPLIES)]
    known = [i for i in range(50) if handed.is_part(NODE, f"r{i}-0")]
    assert known == list(range(50 - REPLIES, 50))
    with handed.room(NODE, "r0-0", 1) as room:
        assert not room.is_there
    with handed.room(NODE, "r49-0", 1) as room:
        assert room.is_there
