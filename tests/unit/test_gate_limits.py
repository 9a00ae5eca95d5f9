"""Counting of connections by address, and of bodies by node."""

import pytest

from server.limits import Crowd, Limits, Room, block_of

TIGHT = Limits(max_body=4, node_bodies=8, bodies=16, per_address=2, connections=3)


def test_a_crowd_forgets_who_left_and_counts_all() -> None:
    crowd = Crowd(TIGHT)
    assert [crowd.enter(a) for a in "aaabc"] == [True, True, False, True, False]
    crowd.leave("a")
    assert crowd.enter("c")
    for address in "abc":
        crowd.leave(address)
    assert not crowd._open


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_address_counts_by_its_64_and_a_mapped_one_as_ipv4(
    address: str, block: str
) -> None:
    assert block_of(address) == block


def test_one_machine_with_many_ipv6_addresses_has_the_connections_of_one() -> None:
    crowd = Crowd(TIGHT)
    assert [crowd.enter(f"2001:db8::{i:x}") for i in range(4)] == [True, True, False, False]
    assert crowd.enter("2001:db8:0:1::1")
    for i in range(2):
        crowd.leave(f"2001:db8::{i + 7:x}")
    crowd.leave("2001:db8:0:1::2")
    assert not crowd._open


def test_ipv4_written_as_ipv6_is_not_one_crowd() -> None:
    crowd = Crowd(TIGHT)
    assert [crowd.enter(f"::ffff:192.0.2.{i}") for i in range(3)] == [True, True, True]


def test_room_is_bounded_for_a_node_and_for_all_and_given_back() -> None:
    room = Room(TIGHT)
    with room.body(1, 4) as first, room.body(1, 4) as second, room.body(1, 1) as third:
        assert (first, second, third) == (True, True, False)
        with room.body(2, 8) as other, room.body(3, 1) as full, room.body(3, 0) as empty:
            assert (other, full, empty) == (True, False, True)
            assert room.held == 16
    assert room.held == 0
    assert not room._held


def test_room_is_given_back_when_a_request_fails() -> None:
    room = Room(TIGHT)
    with pytest.raises(OSError), room.body(1, 4):  # noqa: PT011
        raise OSError
    assert room.held == 0


@pytest.mark.parametrize("wrong", [{"max_body": 9}, {"bodies": 7}])
def test_limits_that_leave_no_room_for_a_body_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_body <= node_bodies <= bodies"):
        Limits(**{"max_body": 4, "node_bodies": 8, "bodies": 16, **wrong})


def test_a_nodes_share_holds_the_pieces_it_sends_at_once() -> None:
    limits, piece, at_once = Limits(), 5 << 20, 2
    assert at_once * (piece + (64 << 10)) <= limits.node_bodies
    assert limits.bodies // limits.node_bodies == 8
