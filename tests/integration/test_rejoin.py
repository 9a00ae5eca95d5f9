"""Institutions that vanish and come back as other nodes, and nodes that are not taken in."""

import pytest

from common.io.flower_internals import LocalGrid
from common.wire import Reply, decode_reply
from server.exchange import NodeExchange
from tests.roll_call import DEADLINE_S, HELLO, a_federation, a_study, ask


def _seats(exchange: NodeExchange) -> dict[str, str]:
    replies = ask(exchange)
    return {name: decode_reply(data).body.decode() for name, data in replies.items()}


def _both(found: dict[str, Reply]) -> object:
    def enough(replies: dict[str, Reply]) -> bool:
        found.update(replies)
        return len(found) == 2

    return enough


def test_an_institution_that_comes_back_as_another_node_is_asked_there() -> None:
    with a_federation({"name": "north"}, {"name": "south"}, {"name": "north"}) as parts:
        grid, exchange, seen = parts
        grid.online = (0, 1)
        exchange.discover(HELLO, _both({}))
        assert _seats(exchange) == {"north": "0", "south": "1"}
        grid.online = (1, 2)
        assert _seats(exchange) == {"north": "2", "south": "1"}
        assert seen[-1] == "north: back"


def test_a_second_node_with_a_living_name_is_not_asked() -> None:
    with a_federation({"name": "north"}, {"name": "south"}, {"name": "north"}) as parts:
        grid, exchange, seen = parts
        grid.online = (0, 1)
        exchange.discover(HELLO, _both({}))
        grid.online = (0, 1, 2)
        assert _seats(exchange) == {"north": "0", "south": "1"}
        assert seen[-1] == "north: another node has this name"


def test_an_institution_that_comes_back_with_another_encoder_is_not_asked() -> None:
    nodes = ({"name": "north"}, {"name": "south"}, {"name": "north", "encoder": "other"})
    with a_federation(*nodes) as (grid, exchange, seen):
        grid.online = (0, 1)
        exchange.discover(HELLO, _both({}))
        grid.online = (1, 2)
        ask(exchange)
        assert seen[-1] == "north: came with another model"


def test_a_latecomer_with_another_encoder_is_not_asked() -> None:
    with a_federation({"name": "north"}, {"name": "south", "encoder": "other"}) as parts:
        grid, exchange, seen = parts
        grid.online = (0,)
        exchange.discover(HELLO, lambda replies: bool(replies))
        assert _seats(exchange) == {"north": "0"}
        grid.online = (0, 1)
        assert _seats(exchange) == {"north": "0"}
        assert seen[-1] == "south: came with another model"


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        ({"name": "west"}, "not on the roster"),
        ({"name": "north", "study": "f" * 64}, "answered something else"),
        ({"name": "north", "refusal": "policy"}, "policy"),
    ],
)
def test_a_stranger_is_not_taken_in_and_the_reason_is_told(
    stranger: dict[str, str], reason: str
) -> None:
    with a_federation(stranger, {"name": "south"}) as (grid, exchange, seen):
        grid.online = (0, 1)
        found: dict[str, Reply] = {}

        def enough(replies: dict[str, Reply]) -> bool:
            found.update(replies)
            return True

        exchange.discover(HELLO, enough)
        assert list(found) == ["south"]
        assert f"{stranger['name']}: {reason}" in seen


# --- who refuses finally is not waited for


def _lasting(*nodes: dict[str, str]) -> tuple[float, dict[str, Reply]]:
    """Seconds that `discover` took, of `DEADLINE_S`, and who was taken in."""
    found: dict[str, Reply] = {}
    with a_federation(*nodes) as (grid, exchange, _seen):
        grid.online = tuple(range(len(nodes)))
        exchange.discover(HELLO, _both(found))
        return grid.time.now, found


@pytest.mark.parametrize("code", ["policy", "other-study"])
def test_a_final_refusal_that_leaves_too_few_ends_the_wait(code: str) -> None:
    seconds, found = _lasting({"name": "north", "refusal": code})
    assert (seconds < 3, found) == (True, {})


def test_when_all_have_answered_or_refused_the_wait_ends() -> None:
    seconds, found = _lasting({"name": "north", "refusal": "policy"}, {"name": "south"})
    assert (seconds < 3, list(found)) == (True, ["south"])


@pytest.mark.parametrize(
    "stranger",
    [{"name": "west", "refusal": "policy"}, {"name": "north", "refusal": "internal-error"}],
)
def test_a_stranger_or_a_passing_refusal_does_not_end_it(stranger: dict[str, str]) -> None:
    seconds, _ = _lasting(stranger, {"name": "south"})
    assert seconds >= DEADLINE_S


def _greet(exchange: NodeExchange) -> None:
    """Once, whoever comes of it."""
    exchange.discover(HELLO, lambda _: True)


def test_a_registered_node_that_claims_anothers_name_is_refused_and_named() -> None:
    owners = (
        "north",
        "south",
    )
    with a_federation({"name": "south"}, {"name": "south"}, owners=owners) as (
        grid,
        exchange,
        seen,
    ):
        grid.online = (0,)
        _greet(exchange)
        assert seen == ["north: claims to be south"]
        grid.online = (0, 1)
        _greet(exchange)
        assert _seats(exchange) == {"south": "1"}
        assert seen == ["north: claims to be south", "south: joined"]


def test_a_refusal_under_anothers_name_does_not_count_as_its_refusal() -> None:
    """Or one institution could have another left out, or end the study."""
    owners = (
        "north",
        "south",
    )
    with a_federation({"name": "south", "refusal": "policy"}, {"name": "south"}, owners=owners) as (
        grid,
        exchange,
        seen,
    ):
        grid.online = (0,)
        _greet(exchange)
        assert seen == ["north: claims to be south"]
        assert not exchange._greeter.hopeless


def test_a_node_that_nobody_registered_is_not_taken_in() -> None:
    owners = ("north",)
    with a_federation({"name": "north"}, {"name": "south"}, owners=owners) as (
        grid,
        exchange,
        seen,
    ):
        grid.online = (0, 1)
        _greet(exchange)
        assert _seats(exchange) == {"north": "0"}
        assert f"node {LocalGrid.get_node_ids(grid)[1]}: not on the roster" in seen


@pytest.mark.parametrize(
    ("code", "lasts_s", "within_s"), [("storage", 50.0, 100.0), ("policy", 50.0, 400.0)]
)
def test_a_site_that_is_mended_is_taken_in_though_its_node_never_went_away(
    code: str, lasts_s: float, within_s: float
) -> None:
    """Nor is it waited for meanwhile, nor is why it is left out said again and again."""
    study = a_study(more=", quorum: 1", deadline_s=3600)
    owners = ("north", "south")
    nodes = ({"name": "north", "refusal": code}, {"name": "south"})
    with a_federation(*nodes, owners=owners, study=study) as (grid, exchange, seen):
        config = grid._contexts[LocalGrid.get_node_ids(grid)[0]].node_config
        grid.online = (0, 1)
        _greet(exchange)
        grid.time.at(lasts_s, lambda: config.pop("refusal"))
        while "north: joined" not in seen and grid.time.now < within_s:
            before = grid.time.now
            ask(exchange)
            assert grid.time.now - before < 2
            grid.time.sleep(5.0)
        assert sorted(seen) == ["north: joined", f"north: {code}", "south: joined"]
        assert len(grid.hellos(0)) < 10


def test_a_final_refusal_that_became_a_passing_one_counts_no_more() -> None:
    study = a_study("north, south, west", ", quorum: 2")
    nodes = ({"name": "north", "refusal": "policy"}, {"name": "south"}, {"name": "west"})
    with a_federation(*nodes, owners=("north", "south", "west"), study=study) as parts:
        grid, exchange, seen = parts
        grid.online = (0, 1, 2)
        _greet(exchange)
        assert exchange._greeter.hopeless
        grid._contexts[LocalGrid.get_node_ids(grid)[0]].node_config["refusal"] = "storage"
        grid.time.sleep(301.0)
        _greet(exchange)
        assert seen[-1] == "north: storage"
        assert not exchange._greeter.hopeless


def test_a_worker_that_can_not_say_its_name_is_not_said_to_claim_another() -> None:
    node = {"name": "unknown", "refusal": "internal-error"}
    with a_federation(node, {"name": "south"}, owners=("north", "south")) as parts:
        grid, exchange, seen = parts
        grid.online = (0,)
        _greet(exchange)
        assert seen == ["north: internal-error"]
        grid.time.sleep(40.0)
        _greet(exchange)
        assert len(grid.hellos(0)) > 1


def test_a_node_that_was_refused_is_asked_anew_once_it_has_been_away() -> None:
    """A registered node keeps its number: without this, a mended site could never come back."""
    node = {"name": "north", "refusal": "policy"}
    owners = (
        "north",
        "south",
    )
    with a_federation(node, {"name": "south"}, owners=owners) as (grid, exchange, seen):
        grid.online = (0, 1)
        _greet(exchange)
        del grid._contexts[LocalGrid.get_node_ids(grid)[0]].node_config["refusal"]
        assert _seats(exchange) == {"south": "1"}
        grid.online = (1,)
        assert _seats(exchange) == {"south": "1"}
        grid.online = (0, 1)
        assert _seats(exchange) == {"north": "0", "south": "1"}
        assert sorted(seen) == ["north: joined", "north: policy", "south: joined"]
