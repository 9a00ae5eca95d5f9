"""Noised counts: no unit moves the sum by more than the clip, and the noise is of the stated size.

Each checker is a function, and is also called on what it must refuse. Where noise is tested, its
false-alarm level is that of `test_noise`. Seeds are fixed: a test passes always or never.
"""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from common.privacy.counts import clipped_sum, noised_counts
from common.privacy.noise import grid_step
from common.privacy.plan import NoisedCounts
from tests.statistical.test_noise import gaussian, looks_normal, stream, uncorrelated, variance_fits

SIZE = 58
"""Of the vector of a study with three labels."""
WIDE = 20_000
"""Coordinates enough for a test of the variance in one release."""
CLIPS = [1, 3, 125]
HOSTILE = {
    "none": np.zeros(SIZE, np.int64),
    "one count of one": np.eye(1, SIZE, 7, dtype=np.int64)[0],
    "all ones": np.ones(SIZE, np.int64),
    "one huge count": np.eye(1, SIZE, 7, dtype=np.int64)[0] * 2**40,
    "all huge": np.full(SIZE, 2**40),
    "at the clip": np.array([75, 100] + [0] * (SIZE - 2)),
    "just above it": np.array([75, 100, 1] + [0] * (SIZE - 3)),
    "negative": -np.arange(SIZE),
}

Sum = Callable[[np.ndarray, float], np.ndarray]


def units(seed: int = 1, n: int = 40) -> np.ndarray:
    """Counts of which some units have few, some many, and some none: int64 `[units, SIZE]`."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.choice([0.0, 0.02, 0.5, 20.0], (n, 1)), (n, SIZE)).astype(np.int64)


def norm(row: np.ndarray) -> mpmath.mpf:
    """L2."""
    return mpmath.sqrt(sum(int(x) ** 2 for x in row))


def slow_sum(by_unit: np.ndarray, clip: float) -> np.ndarray:
    """The clipped sum, unit by unit and count by count, in 100 bits."""
    total = [mpmath.mpf(0)] * by_unit.shape[1]
    with mpmath.workprec(100):
        for row in by_unit:
            factor = min(mpmath.mpf(1), clip / norm(row)) if row.any() else 0
            for place in np.flatnonzero(row):
                total[place] += int(row[place]) * factor
    return np.array([float(t) for t in total])


def is_the_clipped_sum(found: np.ndarray, by_unit: np.ndarray, clip: float) -> bool:
    """Within 2^-39 of each unit's clip: the margin below it is 2^-40."""
    allowed = len(by_unit) * clip * 2.0**-39
    return bool(np.linalg.norm(found - slow_sum(by_unit, clip)) <= allowed)


def within_the_clip(row: np.ndarray, clip: float) -> bool:
    """Whether an L2 norm is at most the clip; exactly, no number is rounded."""
    return sum(Fraction(float(x)) ** 2 for x in row) <= Fraction(clip) ** 2


def moved_at_most_by_the_clip(sum_: Sum, before: np.ndarray, clip: float) -> bool:
    """Whether each of the hostile units, and each that is there, moves the sum by no more."""
    there = sum_(before, clip)
    more = [sum_(np.vstack([before, row]), clip) for row in HOSTILE.values()]
    less = [sum_(np.delete(before, i, axis=0), clip) for i in range(len(before))]
    return all(within_the_clip(x - there, clip) for x in (*more, *less))


OTHER_SUMS: dict[str, Sum] = {
    "unclipped": lambda by_unit, clip: by_unit.astype(np.float64).sum(axis=0),
    "count by count": lambda by_unit, clip: np.clip(by_unit, -clip, clip).sum(axis=0) * 1.0,
    "a hundredth more": lambda by_unit, clip: clipped_sum(by_unit, clip * 1.01),
    "each unit in two parts": lambda by_unit, clip: (
        clipped_sum(by_unit // 2, clip) + clipped_sum(by_unit - by_unit // 2, clip)
    ),
}
"""Sums that the checkers must refuse."""


# the sum


@pytest.mark.parametrize("clip", CLIPS)
def test_the_sum_is_that_of_units_clipped_one_at_a_time(clip):
    by_unit = units()
    norms = [norm(row) for row in by_unit]
    assert min(norms) == 0
    assert sum(n > clip for n in norms) > 5
    assert is_the_clipped_sum(clipped_sum(by_unit, clip), by_unit, clip)


@pytest.mark.parametrize("name", OTHER_SUMS)
def test_other_sums_are_refused_by_the_reference(name):
    assert not is_the_clipped_sum(OTHER_SUMS[name](units(), 3), units(), 3)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", HOSTILE)
def test_one_unit_alone_is_within_the_clip_exactly(name, clip):
    assert within_the_clip(clipped_sum(HOSTILE[name][None], clip), clip)


@pytest.mark.parametrize("clip", CLIPS)
def test_units_of_any_counts_are_within_the_clip_exactly(clip):
    assert all(within_the_clip(clipped_sum(row[None], clip), clip) for row in units(2, 200))


@pytest.mark.parametrize("clip", CLIPS)
def test_one_unit_moves_the_sum_by_at_most_the_clip(clip):
    assert moved_at_most_by_the_clip(clipped_sum, units(3), clip)
    assert moved_at_most_by_the_clip(clipped_sum, units(3)[:0], clip)


@pytest.mark.parametrize("name", OTHER_SUMS)
def test_sums_that_one_unit_moves_by_more_are_refused(name):
    assert not moved_at_most_by_the_clip(OTHER_SUMS[name], units(3), 3)


def test_units_below_the_clip_are_added_exactly():
    by_unit = units(4)
    largest = max(float(norm(row)) for row in by_unit)
    clip = int(largest) + 1
    assert np.array_equal(clipped_sum(by_unit, clip), by_unit.sum(axis=0))
    assert not np.array_equal(clipped_sum(by_unit, clip - 1), by_unit.sum(axis=0))


# the noise


def released(mechanism: NoisedCounts, by_unit: np.ndarray, seed: int = 1) -> np.ndarray:
    """What leaves less the reference: noise alone, if all is well."""
    return noised_counts(by_unit, mechanism, stream(seed)) - slow_sum(by_unit, mechanism.clip)


def wide(n: int) -> np.ndarray:
    """Units with two hundred counts or so each: int64 `[n, WIDE]`."""
    return np.random.default_rng(5).poisson(0.01, (n, WIDE)).astype(np.int64)


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize(("clip", "multiplier"), [(3, 20.0), (50, 1.3)])
def test_sigma_is_accepted_and_two_thirds_and_three_halves_of_it_are_refused(clip, multiplier, n):
    mechanism = NoisedCounts(clip=clip, noise_multiplier=multiplier)
    noise, sigma = released(mechanism, wide(n)), clip * multiplier
    assert variance_fits(noise, sigma)
    assert not variance_fits(noise, sigma * 2 / 3)
    assert not variance_fits(noise, sigma * 3 / 2)


@pytest.mark.parametrize("share", [1 / 3, 2 / 3, 3 / 2])
def test_other_noise_than_planned_is_refused(share):
    planned, other = (NoisedCounts(clip=3, noise_multiplier=20.0 * x) for x in (1.0, share))
    assert not variance_fits(released(other, wide(2)), planned.noise_stddev)


def test_noise_of_the_planned_size_about_an_unclipped_sum_is_refused():
    by_unit = wide(2) * 1000
    unclipped = NoisedCounts(clip=3 * 2**20, noise_multiplier=20.0 / 2**20)
    noise = noised_counts(by_unit, unclipped, stream()) - slow_sum(by_unit, 3)
    assert not variance_fits(noise, unclipped.noise_stddev)


def test_noise_is_normal_and_each_release_has_its_own():
    mechanism = NoisedCounts(clip=1000, noise_multiplier=5.0)
    first, second = (released(mechanism, wide(1), seed) / 5000 for seed in (1, 2))
    assert looks_normal(first)
    assert not looks_normal(first * 1.1)
    assert uncorrelated(first, second)
    assert not uncorrelated(first, released(mechanism, wide(2)) / 5000)


def test_a_release_is_the_clipped_sum_and_its_noise_rounded_to_whole_numbers():
    mechanism = NoisedCounts(clip=3, noise_multiplier=1.7)
    found = noised_counts(units(), mechanism, stream())
    exact = slow_sum(units(), 3) + 5.1 * gaussian(SIZE, stream())
    assert found.dtype == np.int64
    assert np.abs(found - exact).max() <= 0.5 + grid_step(5.1)
