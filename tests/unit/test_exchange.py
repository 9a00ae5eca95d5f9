"""What silent, slow and foreign nodes cost a trip, and a run. Time passes only while it waits."""

import pytest

from common.io.flower_internals import LocalGrid
from common.wire import decode_reply
from server.exchange import NodeExchange
from server.mail import Lost, Pace, doubled
from tests.roll_call import ALL, DEADLINE_S, HELLO, MOST, Grid, a_federation, ask

NORTH, SOUTH, WEST = {"name": "north"}, {"name": "south"}, {"name": "west"}
GRACE_S = Pace().grace(DEADLINE_S)
POLL_S = 0.2
FOREVER = float("inf")


def discover(exchange: NodeExchange, *names: str) -> None:
    found: set[str] = set()
    exchange.discover(HELLO, lambda replies: found.update(replies) or found >= set(names))


def asked(exchange: NodeExchange) -> dict[str, str]:
    replies = ask(exchange)
    return {name: decode_reply(data).body.decode() for name, data in replies.items()}


def both_here(grid: Grid, exchange: NodeExchange) -> None:
    grid.online = (0, 1)
    discover(exchange, "north", "south")


def _with_a_mute(grid: Grid, exchange: NodeExchange) -> None:
    """North is taken in; then south's node appears, and never says anything."""
    grid.online = (0,)
    discover(exchange, "north")
    grid.slow[1] = FOREVER
    grid.online = (0, 1)


def test_a_mute_node_costs_the_first_trip_its_grace_and_no_other_anything() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        for trip in range(20):
            begun = grid.time.now
            assert asked(exchange) == {"north": "0"}
            assert grid.time.now - begun <= (0 if trip else GRACE_S + POLL_S)
        assert grid.time.now <= GRACE_S + POLL_S


def test_a_mute_node_does_not_hold_up_the_requests_to_the_others() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        begun = grid.time.now
        asked(exchange)
        assert [when for kind, _, when in grid.sent if kind == "train"] == [begun]


def test_an_institution_that_is_back_a_moment_later_than_the_others_reply_is_waited_for() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.awake[1] = GRACE_S - 1.0
        grid.online = (0, 1)
        assert asked(exchange) == {"north": "0", "south": "1"}
        grid.online = (0,)
        assert exchange.present() == {"north"}


def test_looking_who_is_there_waits_for_who_is_just_back() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.awake[1] = GRACE_S - 1.0
        grid.online = (0, 1)
        assert exchange.present() == {"north", "south"}


def test_nobody_waits_for_a_mute_node_where_all_have_replied() -> None:
    with a_federation(NORTH, SOUTH, {"name": "west"}) as (grid, exchange, _):
        grid.online = (0, 1)
        discover(exchange, "north", "south")
        grid.slow[2] = FOREVER
        grid.online = (0, 1, 2)
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert exchange.present() == {"north", "south"}
        assert grid.time.now == 0


def test_looking_who_is_there_waits_no_longer_than_the_same_grace() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        for _ in range(20):
            assert exchange.present() == {"north"}
            asked(exchange)
        assert grid.time.now <= GRACE_S + POLL_S


def test_a_mute_node_that_comes_and_goes_gets_no_second_grace() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        for _ in range(20):
            grid.online = (0, 1)
            asked(exchange)
            grid.online = (0,)
            asked(exchange)
        assert grid.time.now <= GRACE_S + POLL_S


def test_the_grace_is_a_part_of_a_short_deadline() -> None:
    assert Pace().grace(8.0) == 2.0
    assert Pace().grace(3600.0) == 20.0


def test_a_node_that_answers_with_errors_only_costs_no_more() -> None:
    failing = {**SOUTH, "failing": "yes"}
    with a_federation(NORTH, failing) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.online = (0, 1)
        for _ in range(20):
            assert asked(exchange) == {"north": "0"}
        assert grid.time.now <= GRACE_S + POLL_S


@pytest.mark.parametrize("slow_s", [5.0, 100.0, 400.0])
def test_a_node_that_is_slow_in_its_first_hello_is_taken_in_later(slow_s: float) -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, seen):
        grid.online = (0,)
        discover(exchange, "north")
        grid.awake[1] = slow_s
        grid.online = (0, 1)
        for _ in range(100):
            replies = asked(exchange)
            if "south" in replies:
                break
            grid.time.sleep(10.0)
        assert replies == {"north": "0", "south": "1"}
        assert seen[-1] == "south: joined"


def test_a_node_that_joins_while_a_trip_is_under_way_is_asked_in_that_trip() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.slow = {0: 50.0, 1: 15.0}  # a hello of 15 s, and the request as long again
        grid.online = (0, 1)
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert grid.time.now == pytest.approx(50.0, abs=POLL_S)


def test_a_node_that_appears_while_a_trip_waits_is_asked_in_that_trip() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.slow[0] = 10.0
        sleep = grid.time.sleep
        object.__setattr__(exchange._pace, "sleep", lambda s: (sleep(s), _appear(grid)))
        assert asked(exchange) == {"north": "0", "south": "1"}


def _appear(grid: Grid) -> None:
    if grid.time.now > 3:
        grid.online = (0, 1)


def test_a_trip_ends_with_the_deadline_whoever_joined_in_it() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.slow = {0: FOREVER, 1: 29.0}  # joins after 29 s, and replies as long after
        grid.online = (0, 1)
        assert asked(exchange) == {"south": "1"}
        assert grid.time.now == pytest.approx(DEADLINE_S, abs=POLL_S)


def test_a_silent_node_is_greeted_seldom_and_anew_once_it_has_been_away() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        for _ in range(120):
            exchange.present()
            grid.time.sleep(5.0)
        first = grid.hellos(1)
        assert first == pytest.approx([0, 30, 90, 210, 450], abs=16)
        grid.online = (0,)
        exchange.present()
        grid.online = (0, 1)
        exchange.present()
        assert len(grid.hellos(1)) == len(first) + 1


def test_a_node_that_answers_with_errors_is_greeted_after_pauses_that_double() -> None:
    with a_federation(NORTH, {**SOUTH, "failing": "yes"}) as (grid, exchange, _):
        grid.online = (0, 1)
        discover(exchange, "north")
        for _ in range(100):
            exchange.present()
            grid.time.sleep(1.0)
        assert grid.hellos(1) == pytest.approx([0, 1, 3, 7, 15, 31, 61, 91], abs=3)


@pytest.mark.parametrize("times", [0, 1, 5, 2000])
def test_a_wait_doubles_up_to_its_longest_however_often(times: int) -> None:
    assert doubled(1.0, 30.0, times) == {0: 1.0, 1: 2.0, 5: 30.0, 2000: 30.0}[times]


def test_a_node_that_answers_with_errors_for_a_day_ends_no_run() -> None:
    with a_federation(NORTH, {**SOUTH, "failing": "yes"}) as (grid, exchange, _):
        grid.online = (0, 1)
        discover(exchange, "north")
        for _ in range(1200):
            grid.time.sleep(35.0)
            exchange.present()
        assert len(grid.hellos(1)) > 1100


def test_a_node_whose_institution_is_not_in_the_study_is_not_greeted_and_said_once() -> None:
    owners = ("north", "south", "west")
    with a_federation(NORTH, SOUTH, {"name": "west"}, owners=owners) as (grid, exchange, seen):
        grid.slow[2] = FOREVER
        grid.online = (0, 1, 2)
        discover(exchange, "north", "south")
        for _ in range(5):
            asked(exchange)
        assert grid.hellos(2) == []
        assert seen.count("west: not on the roster") == 1


def test_a_trip_waits_only_for_nodes_of_those_who_are_missing_in_it() -> None:
    """Where nodes authenticate it is known whose node is silent."""
    owners = ("north", "south")
    with a_federation(NORTH, SOUTH, owners=owners) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        assert list(ask(exchange, {"north": ALL["north"]})) == ["north"]
        assert grid.time.now == 0
        grid._contexts[LocalGrid.get_node_ids(grid)[0]].node_config["failing"] = "yes"
        assert ask(exchange, {"north": ALL["north"]}) == {}
        assert grid.time.now < 5  # three tries, and nobody else who could answer


def test_a_second_node_of_a_name_is_greeted_once_and_again_when_the_first_has_gone() -> None:
    with a_federation(NORTH, SOUTH, NORTH) as (grid, exchange, seen):
        grid.online = (0, 1)
        discover(exchange, "north", "south")
        grid.online = (0, 1, 2)
        for _ in range(50):
            asked(exchange)
            grid.time.sleep(5.0)
        assert len(grid.hellos(2)) == 1
        grid.online = (1, 2)
        assert asked(exchange) == {"north": "2", "south": "1"}
        assert seen[-2:] == ["north: another node has this name", "north: back"]


def test_a_failed_request_is_sent_three_times() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0, 1)
        discover(exchange, "north", "south")
        node = LocalGrid.get_node_ids(grid)[1]
        grid._contexts[node].node_config["failing"] = "yes"
        assert asked(exchange) == {"north": "0"}
        assert sorted(seat for kind, seat, _ in grid.sent if kind == "train") == [0, 1, 1, 1]
        assert grid.time.now == 0


@pytest.mark.parametrize("others_s", [0.0, 30.0, DEADLINE_S - 0.05])
def test_a_node_that_stalls_in_the_middle_of_its_reply_costs_the_others_nothing(
    others_s: float,
) -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.halves, grid.slow = {1}, {0: others_s}
        assert asked(exchange) == {"north": "0"}
        assert DEADLINE_S <= grid.time.now <= DEADLINE_S + POLL_S


def test_a_reply_by_half_is_taken_if_it_is_whole_before_the_deadline() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.halves = {1}
        grid.time.at(DEADLINE_S - 10.0, grid.halves.clear)
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert grid.time.now <= DEADLINE_S - 10.0 + POLL_S


def test_a_hello_that_is_answered_by_half_costs_no_more_than_silence() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.halves = {1}
        grid.online = (0, 1)
        for _ in range(20):
            assert asked(exchange) == {"north": "0"}
        assert grid.time.now <= GRACE_S + POLL_S


def test_not_even_a_hello_by_half_lets_a_trip_outlast_its_deadline() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        grid.halves, grid.slow = {1}, {0: FOREVER}
        grid.online = (0, 1)
        grid.awake[1] = DEADLINE_S - 1.0
        assert asked(exchange) == {}
        assert grid.time.now <= DEADLINE_S + POLL_S


@pytest.mark.parametrize("hello_s", [0.0, 0.5, GRACE_S - 1.0])
def test_a_node_under_a_new_number_is_waited_for_when_the_one_it_stood_behind_has_gone(
    hello_s: float,
) -> None:
    with a_federation(NORTH, SOUTH, SOUTH) as (grid, exchange, seen):
        both_here(grid, exchange)
        grid.online = (0, 1, 2)
        exchange.present()
        assert seen[-1] == "south: another node has this name"
        grid.time.sleep(100.0)
        grid.online = (0, 2)
        grid.slow = {2: hello_s}
        assert exchange.present() == {"north", "south"}
        assert asked(exchange) == {"north": "0", "south": "2"}


def test_nodes_that_nobody_knows_have_one_grace_together_and_are_forgotten_when_they_leave() -> (
    None
):
    with a_federation(NORTH, *[SOUTH] * 20) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        for seat in range(1, 21):
            grid.slow[seat] = FOREVER
            grid.online = (0, seat)
            assert asked(exchange) == {"north": "0"}
            grid.time.sleep(100.0)
        assert grid.time.now <= 20 * 100.0 + GRACE_S + POLL_S
        assert len(exchange._greeter._silent) == 1
        assert len(exchange._greeter._grace_ends) == 1


def test_whoever_is_taken_in_gives_the_unknown_another_grace() -> None:
    with a_federation(NORTH, SOUTH, SOUTH, SOUTH) as (grid, exchange, _):
        _with_a_mute(grid, exchange)
        asked(exchange)
        grid.slow.clear()
        grid.online = (0, 2)
        assert asked(exchange) == {"north": "0", "south": "2"}
        grid.time.sleep(100.0)
        grid.online = (0, 1, 2)
        exchange.present()
        grid.awake[3] = grid.time.now + GRACE_S - 1.0
        grid.online = (0, 3)
        assert exchange.present() == {"north", "south"}


def test_what_is_awaited_no_longer_is_dropped() -> None:
    """Or the parts of replies that never become whole would stay in memory."""
    with a_federation(NORTH, SOUTH, WEST) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.slow, grid.halves = {1: FOREVER}, {2}
        grid.online = (0, 1, 2)
        dropped: list[str] = []
        exchange._mail.drop = dropped.extend
        asked(exchange)
        _hello, *requests = [message for message, seat in grid._to.items() if seat == 1]
        *hellos, last = [message for message, seat in grid._to.items() if seat == 2]
        assert (len(requests), len(hellos)) == (3, 1)  # both were asked again
        assert {*requests, *hellos} <= {*dropped}
        assert last not in dropped


def test_each_reply_is_handed_over_when_it_comes_and_not_with_the_last() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.slow[1] = 10.0
        taken: dict[str, float] = {}
        exchange.ask(
            "train", 1, ALL, MOST, lambda n, _: taken.update({n: grid.time.now}), lambda: None
        )
        assert taken["north"] == 0
        assert taken["south"] == pytest.approx(10.0, abs=POLL_S)


def test_a_reply_larger_than_any_costs_its_institution_the_trip_and_the_others_nothing() -> None:
    with a_federation(NORTH, {**SOUTH, "large": "train"}) as (grid, exchange, _):
        both_here(grid, exchange)
        replies = ask(exchange)
        assert decode_reply(replies["north"]).body == b"0"
        assert replies["south"] is Lost.TOO_LARGE
        assert grid.time.now == 0
        assert len(grid.asked(1)) == 1  # it would say the same again
        assert len(ask(exchange)) == 2
        assert len(grid.asked(1)) == 2


def test_an_answer_to_a_hello_that_is_too_large_is_not_taken_and_it_is_greeted_again() -> None:
    with a_federation(NORTH, {**SOUTH, "large": "hello"}) as (grid, exchange, _):
        grid.online = (0, 1)
        discover(exchange, "north", "south")
        assert exchange.present() == {"north"}
        assert len(grid.hellos(1)) > 1


def test_that_a_request_leaves_is_told_once_and_before_the_first_does() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        before = len(grid.sent)
        grid.online = ()
        told: list[tuple[float, int]] = []
        grid.gone(5.0, 6.0, 0)
        grid.gone(5.0, 12.0, 1)
        answers = ask(
            exchange, leaving=lambda: told.append((grid.time.now, len(grid.sent) - before))
        )
        assert len(answers) == 2
        assert told == [(pytest.approx(6.0, abs=1.5), 0)]


def test_that_a_request_leaves_is_not_told_where_nobody_can_be_reached() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.online = ()
        told: list[str] = []
        assert ask(exchange, leaving=lambda: told.append("left")) == {}
        assert told == []
