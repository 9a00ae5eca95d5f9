"""Who is away, and comes back or does not: what that costs a trip, and a run.

Time passes only while the exchange waits.
"""

import pytest

from common.io.flower_internals import LocalGrid
from server.absences import Absences
from server.exchange import NodeExchange
from server.mail import Letter
from tests.roll_call import (
    DEADLINE_S,
    STUDY,
    TRAIN,
    Grid,
    a_federation,
    a_study,
    ask,
)
from tests.unit.test_exchange import FOREVER, NORTH, POLL_S, SOUTH, WEST, asked, both_here, discover

THREE = a_study("north, south, west")
TWO_OF_THREE = a_study("north, south, west", ", quorum: 2")
ALL_THREE = dict.fromkeys(("north", "south", "west"), Letter((TRAIN,)))
AWAY_S = Absences(STUDY).away_s


def _three_here(grid: Grid, exchange: NodeExchange) -> None:
    grid.online = (0, 1, 2)
    discover(exchange, "north", "south", "west")


def test_who_fails_is_asked_again_a_moment_later_while_others_are_at_work() -> None:
    with a_federation(NORTH, {**SOUTH, "fails": "train"}) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.slow[0] = 10.0
        node = LocalGrid.get_node_ids(grid)[1]
        grid.time.at(2.0, lambda: grid._contexts[node].node_config.pop("fails"))
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert grid.asked(1) == pytest.approx([0, 1, 3], abs=0.5)


@pytest.mark.parametrize("others_s", [0.0, 5.0, 30.0])
@pytest.mark.parametrize("gone_s", [0.0, 2.0])
def test_a_node_that_is_away_for_a_moment_is_asked_again_when_it_is_back(
    others_s: float, gone_s: float
) -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.slow = {0: others_s, 1: 3.0}
        if gone_s == 0.0:
            grid.online = (0,)
        grid.gone(gone_s, gone_s + 10.0, 1)
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert len(grid.asked(1)) == (1 if gone_s == 0.0 else 2)
        back = gone_s + 10.0 + 1.0  # nodes are looked for once a second
        assert grid.time.now == pytest.approx(max(others_s, back + 3.0), abs=1.0 + POLL_S)


def test_while_too_few_have_replied_an_absence_may_last_as_long_as_the_deadline() -> None:
    with a_federation(NORTH, SOUTH, WEST, study=THREE) as (grid, exchange, _):
        _three_here(grid, exchange)
        grid.online = (0, 1)
        grid.gone(0.0, DEADLINE_S - 5.0, 2)
        assert set(ask(exchange, ALL_THREE)) == {"north", "south", "west"}


def test_a_node_that_is_back_too_late_ends_the_trip_with_the_deadline() -> None:
    with a_federation(NORTH, SOUTH, WEST, study=THREE) as (grid, exchange, _):
        _three_here(grid, exchange)
        grid.online = (0, 1)
        assert set(ask(exchange, ALL_THREE)) == {"north", "south"}
        assert grid.time.now == pytest.approx(DEADLINE_S, abs=POLL_S)


def test_who_has_left_for_good_costs_all_trips_with_a_quorum_one_short_wait() -> None:
    with a_federation(NORTH, SOUTH, WEST, study=TWO_OF_THREE) as (grid, exchange, _):
        _three_here(grid, exchange)
        grid.online = (0, 1)
        for trip in range(20):
            begun = grid.time.now
            assert set(ask(exchange, ALL_THREE)) == {"north", "south"}
            assert grid.time.now - begun <= (0 if trip else AWAY_S + POLL_S)
        assert grid.asked(2) == []


def test_an_institution_that_has_replied_again_is_waited_for_again() -> None:
    with a_federation(NORTH, SOUTH, WEST, study=TWO_OF_THREE) as (grid, exchange, _):
        _three_here(grid, exchange)
        for _ in range(5):
            grid.online = (0, 1)
            grid.gone(0.0, grid.time.now + AWAY_S - 2.0, 2)
            assert set(ask(exchange, ALL_THREE)) == {"north", "south", "west"}


def test_nobody_is_waited_for_who_cannot_make_a_quorum_any_more() -> None:
    """Two have failed for good: the third is waited for as if it were not needed."""
    nodes = (NORTH, {**SOUTH, "fails": "train"}, WEST)
    with a_federation(*nodes, study=THREE) as (grid, exchange, _):
        _three_here(grid, exchange)
        grid.online = (0, 1)
        assert set(ask(exchange, ALL_THREE)) == {"north"}
        assert grid.time.now <= AWAY_S + POLL_S


def test_the_short_wait_is_a_minute_or_a_part_of_a_short_deadline() -> None:
    assert AWAY_S == DEADLINE_S / 4
    assert Absences(a_study(more=", quorum: 1", deadline_s=3600)).away_s == 60.0


def test_an_institution_that_never_was_here_is_not_waited_for() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        grid.online = (0,)
        discover(exchange, "north")
        assert asked(exchange) == {"north": "0"}
        assert grid.time.now == 0


def test_what_gets_lost_on_its_way_is_sent_after_pauses_that_double_and_is_no_try() -> None:
    with a_federation(NORTH, {**SOUTH, "lost": "train"}) as (grid, exchange, _):
        both_here(grid, exchange)
        assert asked(exchange) == {"north": "0"}
        assert grid.asked(1) == pytest.approx([0, 1, 3, 7, 15, 31], abs=1.0)
        assert grid.time.now == pytest.approx(DEADLINE_S, abs=POLL_S)


def test_a_node_that_took_a_request_and_was_started_anew_under_its_number_is_asked_again() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.slow[1] = FOREVER
        grid.time.at(1.0, grid.slow.clear)
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert grid.time.now <= DEADLINE_S / 3 + POLL_S


def test_who_answers_twice_counts_once_and_nothing_more_is_awaited() -> None:
    with a_federation(NORTH, SOUTH) as (grid, exchange, _):
        both_here(grid, exchange)
        grid.slow[0] = DEADLINE_S - 1.0
        grid.slow[1] = DEADLINE_S / 3 + 1.0  # asked again a second before it answers
        assert asked(exchange) == {"north": "0", "south": "1"}
        assert len(grid.asked(1)) == 2
        south = [m for m, seat in grid._to.items() if seat == 1 and m in grid._replies]
        assert len(south) == 1  # the other answer was there, and nobody took it
        assert grid.time.now == pytest.approx(DEADLINE_S - 1.0, abs=POLL_S)
