"""Exact for whoever stays, nothing for too few: institutions vanish before every stage."""

import itertools
import random

import numpy as np
import pytest

from common.secagg.codec import decode
from common.secagg.errors import Aborted, BelowThresholdError, OutOfOrderError
from common.secagg.transitions import Phase
from tests.secagg_parties import STAGES, Federation, Parties, parameters

SITES = 5
EVER = len(STAGES)


def subsets(members):
    """All of them, the whole first."""
    for size in range(len(members), -1, -1):
        yield from itertools.combinations(members, size)


def patterns_below(stage, alive):
    """Drop-out patterns of the later stages."""
    return (EVER - stage) ** len(alive)


def assert_nothing_opened(federation, error):
    """The session has failed with a reason, and no secret has as many shares as open it."""
    assert "threshold" in error.message
    assert "missing: " in error.message
    assert federation.machine.phase is Phase.FAILED
    with pytest.raises(OutOfOrderError):
        _ = federation.machine.total
    opened = [decode(data) for (stage, *_, kind), data in federation.heard.items()
              if (stage, kind) == ("open", "reply")]  # fmt: skip
    assert len(opened) < federation.parties.parameters.threshold


def assert_one_secret_of_each(federation):
    """Nobody gave out both secrets of a peer, and all gave the same one."""
    kinds = {}
    for (stage, _, what), data in federation.heard.items():
        if (stage, what) == ("open", "reply"):
            opening = decode(data)
            for kind in ("seeds", "keys"):
                for owner, _share in getattr(opening, kind):
                    kinds.setdefault(owner, set()).add(kind)
    assert all(len(found) == 1 for found in kinds.values())


def run(parties, stays, remembered):
    """One session; the error that ended it, if any."""
    federation = Federation(parties, stays=stays, remembered=remembered)
    try:
        federation.run()
    except Aborted as error:
        return federation, error
    return federation, None


def walk(parties, remembered, stage=0, alive=tuple(range(SITES)), stays=None):
    """Every pattern below a node of the tree; yields how many, and whether they end in a sum."""
    for there in subsets(alive):
        gone = {i: stage for i in alive if i not in there}
        pattern = {**(stays or {}), **gone}
        enough = len(there) >= parties.parameters.threshold
        if enough and stage + 1 < EVER:
            yield from walk(parties, remembered, stage + 1, there, pattern)
            continue
        federation, error = run(parties, pattern, remembered)
        if enough:
            assert error is None
            survivors = tuple(i for i in range(SITES) if pattern.get(i, EVER) > 2)
            assert federation.machine.survivors == survivors
            assert np.array_equal(federation.machine.total, parties.plain_sum(survivors))
            assert_one_secret_of_each(federation)
        else:
            assert type(error) is BelowThresholdError
            assert_nothing_opened(federation, error)
        yield patterns_below(stage, there), enough


def test_every_pattern_of_five_is_exact_or_aborts_with_a_reason():
    counts = {True: 0, False: 0}
    for patterns, summed in walk(Parties(parameters(SITES)), {}):
        counts[summed] += patterns
    # at most one of five vanishes, before one of five stages
    assert counts[True] == 1 + 5 * 5
    assert sum(counts.values()) == 6**5 == 7776


def test_every_pattern_of_five_under_a_semi_honest_coordinator_is_exact_or_aborts():
    parties = Parties(parameters(SITES, adversary="semi_honest", threshold=3))
    remembered, counts = {}, {True: 0, False: 0}
    # nobody is asked to sign: vanishing before that stage is vanishing before the next
    for stays in itertools.product((0, 1, 2, 4, 5), repeat=SITES):
        pattern = {i: stage for i, stage in enumerate(stays) if stage < EVER}
        federation, error = run(parties, pattern, remembered)
        counts[error is None] += 1
        if error is None:
            survivors = tuple(i for i in range(SITES) if stays[i] > 2)
            assert np.array_equal(federation.machine.total, parties.plain_sum(survivors))
        else:
            assert_nothing_opened(federation, error)
    # at most two of five vanish, before one of four stages
    assert counts == {True: 1 + 5 * 4 + 10 * 16, False: 5**5 - 181}


def drawn_patterns(n, most, count, draw):
    """Drop-outs of `count` sessions: up to `most` institutions, each before a random stage.

    Those who vanish early are the same in ten sessions, which then have their first stages in
    common.
    """
    for number in range(count):
        if number % 10 == 0:
            early = {
                i: draw.randrange(2) for i in draw.sample(range(n), draw.randint(0, most // 2))
            }
        others = [i for i in range(n) if i not in early]
        late = draw.sample(others, draw.randint(0, most - len(early)))
        yield early | {i: draw.randrange(2, EVER) for i in late}


def check_fifty(count, seed):
    parties = Parties(parameters(50))
    most = 50 - parties.parameters.threshold
    remembered = {}
    for number, pattern in enumerate(drawn_patterns(50, most, count, random.Random(seed))):
        if number % 10 == 0:
            remembered.clear()
        federation, error = run(parties, pattern, remembered)
        survivors = tuple(i for i in range(50) if pattern.get(i, EVER) > 2)
        assert error is None
        assert federation.machine.survivors == survivors
        assert np.array_equal(federation.machine.total, parties.plain_sum(survivors))
        assert_one_secret_of_each(federation)


def test_random_patterns_of_fifty_are_exact():
    check_fifty(10, seed=50)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_hundred_random_patterns_of_fifty_are_exact(part):
    check_fifty(20, seed=part)


def test_random_patterns_of_fifty_on_a_ring_are_exact_or_too_few_neighbours_are_left():
    parties = Parties(parameters(50, collusion=2, threshold=40, degree=16, neighbour_threshold=12))
    remembered, exact = {}, 0
    for pattern in drawn_patterns(50, 6, 10, random.Random(51)):
        federation, error = run(parties, pattern, remembered)
        survivors = tuple(i for i in range(50) if pattern.get(i, EVER) > 2)
        if error is None:
            exact += 1
            assert np.array_equal(federation.machine.total, parties.plain_sum(survivors))
        else:
            assert error.rule == "below-neighbourhood"
        assert_one_secret_of_each(federation)
    assert exact >= 8
