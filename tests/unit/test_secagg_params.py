"""Unsafe and impossible studies are refused with the arithmetic; the safe ones are not."""

import math

import pytest

from common.errors import ConfigError
from common.secagg.params import Parameters, default_collusion, smallest_threshold
from tests.secagg_parties import parameters


@pytest.mark.parametrize(
    ("n", "h", "t"), [(3, 1, 3), (4, 1, 3), (5, 2, 4), (8, 3, 6), (10, 4, 8), (32, 15, 24)]
)
def test_default_collusion_and_threshold_are_those_of_the_table(n, h, t):
    assert default_collusion(n) == h
    assert smallest_threshold(n, h) == t
    assert parameters(n).threshold == t


def test_smallest_threshold_is_the_smallest_that_is_accepted():
    for adversary in ("malicious", "semi_honest"):
        for n in range(3, 12):
            for h in range(1, n):
                good = [t for t in range(1, n + 1) if accepted(n, h, t, adversary)]
                least = smallest_threshold(n, h, adversary)
                assert good == list(range(least, n + 1)) or (h == n - 1 and not good)


def accepted(n, h, t, adversary):
    try:
        parameters(n, collusion=h, threshold=t, adversary=adversary, min_cohort=n)
    except ConfigError:
        return False
    return True


def test_two_groups_that_could_both_open_are_refused():
    with pytest.raises(ConfigError, match=r"2 t > n \+ h does not hold: 2 \* 3 = 6, 5 \+ 1 = 6"):
        parameters(5, collusion=1, threshold=3)


def test_single_honest_institution_in_a_sum_is_refused():
    # 2 t > n + h alone would allow it
    with pytest.raises(ConfigError, match=r"t - h >= 2 does not hold: 3 - 2 = 1"):
        parameters(3, collusion=2, threshold=3)


def test_cohort_that_holds_one_honest_institution_is_refused():
    with pytest.raises(ConfigError, match=r"min_cohort - h >= 2 does not hold: 2 - 1 = 1"):
        parameters(3, adversary="semi_honest", collusion=1, threshold=2, min_cohort=2)


def test_semi_honest_study_needs_half_of_the_roster_and_more_than_the_colluders():
    with pytest.raises(ConfigError, match=r"2 t > n does not hold: 2 \* 2 = 4, n = 4"):
        parameters(4, adversary="semi_honest", threshold=2, min_cohort=4)
    with pytest.raises(ConfigError, match="t > h does not hold: 3, 3"):
        parameters(5, adversary="semi_honest", collusion=3, threshold=3, min_cohort=5)


def test_remedy_names_the_smallest_threshold_or_says_that_there_is_none():
    with pytest.raises(ConfigError) as caught:
        parameters(8, collusion=3, threshold=5)
    assert caught.value.remedy == "a threshold of 6 or more"
    with pytest.raises(ConfigError) as caught:
        parameters(3, collusion=2, threshold=3)
    assert "assume fewer colluders" in caught.value.remedy


def test_bits_that_could_wrap_are_refused():
    with pytest.raises(ConfigError, match=r"17 \* \(2\^11 - 1\) = 34799"):
        parameters(17, bits=16)
    assert parameters(16, bits=16).bits == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"collusion": 0, "threshold": 4}, "h = 0"), ({"threshold": 6}, "t = 6, of n = 5"),
     ({"min_cohort": 3}, "min_cohort 3"), ({"min_cohort": 6}, "min_cohort 6"),
     ({"adversary": "kind", "threshold": 4, "collusion": 1}, "adversary 'kind'"),
     ({"threshold": 4.0}, "whole numbers"), ({"threshold": True}, "whole numbers"),
     ({"institutions": ("a", "b", "a", "c", "d")}, "distinct"),
     ({"institutions": ["a", "b", "c", "d", "e"]}, "tuple")],
)  # fmt: skip
def test_nonsense_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        parameters(5, **changes)


def test_shares_open_at_the_threshold_or_at_the_neighbourhoods():
    assert parameters(5).share_threshold == 4
    ring = parameters(50, collusion=1, threshold=40, degree=8, neighbour_threshold=7)
    assert ring.share_threshold == 7


@pytest.mark.parametrize(
    ("degree", "least", "words"),
    [(8, None, "exactly with"), (None, 7, "exactly with"), (7, 7, "even"), (0, 7, "even"),
     (40, 30, "cohort of that size has 39"), (8, 5, "6 to"), (8, 10, "= 9")],
)  # fmt: skip
def test_impossible_rings_are_refused(degree, least, words):
    with pytest.raises(ConfigError, match=words):
        parameters(50, collusion=1, threshold=40, degree=degree, neighbour_threshold=least)


def test_ring_that_colluders_could_surround_is_refused():
    # one colluder is always allowed for by k / 2 + 3; two are not
    parameters(50, collusion=1, threshold=40, degree=8, neighbour_threshold=7)
    with pytest.raises(ConfigError, match=r"fail with 2\^-?\d+ at h = 2 of 40"):
        parameters(50, collusion=2, threshold=40, degree=8, neighbour_threshold=7)


def test_parameters_are_frozen_and_named():
    with pytest.raises(TypeError):
        Parameters(("a", "b", "c"), 3, 1, "malicious", 3, 12, 24)
    with pytest.raises(AttributeError):
        parameters(5).threshold = 1
    assert math.isfinite(parameters(5).n)
