"""The ring is what the argument in `common.secagg.graph` needs, and its numbers are right."""

import itertools
import math
import random

import pytest

from common.errors import ConfigError
from common.secagg.graph import (
    FAILURE_BITS,
    GRINDING_BITS,
    choose_degree,
    liveness_failure_log2,
    make_graph,
    privacy_failure_log2,
)
from common.secagg.params import smallest_threshold
from tests.secagg_parties import seed

MEMBERS = tuple(range(3, 63))


def ring(adverts=b"a", members=MEMBERS, degree=8):
    return make_graph(members, degree, seed("session"), adverts)


def test_without_a_degree_all_are_neighbours():
    graph = make_graph((0, 2, 5), None, b"", b"")
    assert graph.neighbours(2) == {0, 5}


def test_every_member_has_as_many_neighbours_as_the_degree_and_is_theirs():
    graph = ring()
    for member in MEMBERS:
        near = graph.neighbours(member)
        assert len(near) == 8
        assert member not in near
        assert all(member in graph.neighbours(other) for other in near)


def test_neighbours_stand_next_to_one_another_on_the_ring():
    graph = ring()
    order = graph.members
    assert sorted(order) == list(MEMBERS)
    for place, member in enumerate(order):
        steps = {order[(place + d) % 60] for d in (-4, -3, -2, -1, 1, 2, 3, 4)}
        assert graph.neighbours(member) == steps


def test_order_depends_on_session_and_adverts_and_on_nothing_else():
    assert ring().members == ring().members
    assert ring(b"b").members != ring().members
    assert make_graph(MEMBERS, 8, seed("other"), b"a").members != ring().members


def test_places_are_uniform():
    counts = [0] * 10
    for number in range(2000):
        counts[make_graph(tuple(range(10)), 4, b"", str(number).encode()).members.index(3)] += 1
    chi_square = sum((count - 200) ** 2 / 200 for count in counts)
    assert chi_square < 27.9  # 0.1% of 9 degrees of freedom


def test_ring_needs_more_members_than_a_neighbourhood():
    with pytest.raises(ConfigError, match="degree"):
        ring(members=tuple(range(9)))


@pytest.mark.parametrize("c", [0, 1, 2])
def test_no_partial_sum_is_free_of_masks_whoever_drops_out(c):
    """The second step of the argument, over all views of a small ring."""
    n, degree = 11, 6
    least = degree // 2 + c + 2
    graph = make_graph(tuple(range(n)), degree, b"", b"")
    near = {i: graph.neighbours(i) for i in range(n)}
    colluders = set(graph.members[:c])
    for size in range(2, n - c + 1):
        for view in map(set, itertools.combinations(set(range(n)) - colluders, size)):
            # holders that can open the seed of i: itself, colluders near it, honest ones in view
            opened = {i for i in view if 1 + len(near[i] & (colluders | view)) >= least}
            pieces = closed_pieces(view, near)
            for piece in pieces:
                if piece != view:
                    assert not piece <= opened


def closed_pieces(view, near):
    left, pieces = set(view), []
    while left:
        piece, edge = set(), {left.pop()}
        while edge:
            piece |= edge
            edge = {j for i in edge for j in near[i] & view} - piece
        left -= piece
        pieces.append(piece)
    return pieces


def test_a_lower_threshold_would_open_a_partial_sum():
    """What (1) is for: with half the neighbours as threshold, a ring falls apart."""
    n, degree = 30, 6
    graph = make_graph(tuple(range(n)), degree, b"", b"")
    near = {i: graph.neighbours(i) for i in range(n)}
    view = set(graph.members[:10]) | set(graph.members[15:25])
    pieces = closed_pieces(view, near)
    least = degree // 2 + 1
    opened = {i for i in view if 1 + len(near[i] & view) >= least}
    assert any(piece != view and piece <= opened for piece in pieces)


def test_privacy_failure_is_the_hypergeometric_tail_times_the_cohort():
    cohort, h, degree, least = 20, 5, 6, 7
    allowed = least - degree // 2 - 2
    whole = math.comb(cohort - 1, degree)
    tail = sum(
        math.comb(h, x) * math.comb(cohort - 1 - h, degree - x) for x in range(allowed + 1, h + 1)
    )
    expected = math.log2(cohort * tail / whole)
    assert privacy_failure_log2(cohort, h, degree, least) == pytest.approx(expected)


def test_privacy_failure_agrees_with_drawn_colluders():
    cohort, h, degree, least = 40, 12, 8, 8
    draw, bad, trials = random.Random(1), 0, 20_000
    for _ in range(trials):
        neighbours = draw.sample(range(cohort - 1), degree)
        bad += sum(i < h for i in neighbours) > least - degree // 2 - 2
    share = 2 ** privacy_failure_log2(cohort, h, degree, least) / cohort
    assert bad / trials == pytest.approx(share, abs=0.02)


def test_liveness_failure_is_the_binomial_tail_times_the_roster():
    expected = math.log2(100 * sum(math.comb(9, x) * 0.1**x * 0.9 ** (9 - x) for x in range(3, 10)))
    assert liveness_failure_log2(100, 0.1, 8, 7) == pytest.approx(expected)
    assert liveness_failure_log2(100, 0.0, 8, 7) == -math.inf


@pytest.mark.parametrize("n", [100, 316, 1000])
def test_chosen_degree_keeps_both_promises_and_a_smaller_one_does_not(n):
    h = n // 20
    t = max(smallest_threshold(n, h), n * 4 // 5)
    degree, least = choose_degree(t, h, 0.05, n)
    assert privacy_failure_log2(t, h, degree, least) <= -FAILURE_BITS - GRINDING_BITS
    assert liveness_failure_log2(n, 0.05, degree, least) <= -40
    assert degree % 2 == 0
    assert degree < t - 1
    smaller = degree - 2
    for other in range(smaller // 2 + 2, smaller + 2):
        safe = privacy_failure_log2(t, h, smaller, other) <= -80
        assert not (safe and liveness_failure_log2(n, 0.05, smaller, other) <= -40)


def test_small_rosters_and_hopeless_ones_are_complete():
    assert choose_degree(24, 15, 0.05, 32) == (None, None)
    assert choose_degree(667, 333, 0.3, 1000) == (None, None)
    with pytest.raises(ConfigError, match="drop-out"):
        choose_degree(60, 3, 1.0, 100)
