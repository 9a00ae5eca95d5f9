"""The soak's trend: finds a leak, finds none where there is none, and is not fooled by restarts."""

import numpy as np
import pytest

from scripts.benchmarks._soak_trend import LEAST, trend


def series(seed: int, rounds: int, slope: float, level: float = 100.0, keeps: float = 0.6):
    """Values with errors that hang together from round to round."""
    random, error, points = np.random.default_rng(seed), 0.0, []
    for round_ in range(rounds):
        error = keeps * error + random.normal()
        points.append((float(round_), level + slope * round_ + error))
    return points


def test_a_leak_is_found_and_its_size_is_within_the_interval() -> None:
    found = trend({0: series(1, 200, 0.05)})
    assert found is not None
    assert found.grows
    assert found.low < 0.05 < found.high


def test_where_nothing_grows_the_interval_holds_zero_about_as_often_as_it_says() -> None:
    """Of 400 series without growth; errors that hang together for long make it a little short."""
    held = sum(
        found.low <= 0 <= found.high
        for seed in range(400)
        if (found := trend({0: series(seed, 200, 0.0)})) is not None
    )
    assert 0.87 * 400 < held < 0.98 * 400


def test_a_restart_at_another_level_is_no_growth() -> None:
    lives = {life: series(life, 50, 0.0, level=100.0 + 50 * life) for life in range(4)}
    shifted = {
        life: [(50 * life + round_, value) for round_, value in points]
        for life, points in lives.items()
    }
    found = trend(shifted)
    assert found is not None
    assert found.low <= 0 <= found.high
    assert found.lives == 4
    whole = trend({0: [point for points in shifted.values() for point in points]})
    assert whole is not None
    assert whole.grows  # what looking past the restarts would say


def test_a_leak_that_restarts_hide_is_found() -> None:
    lives = {life: series(life, 50, 0.2) for life in range(4)}
    found = trend(lives)
    assert found is not None
    assert found.low < 0.2 < found.high
    assert found.grows


def test_short_lives_do_not_count_and_nothing_is_said_without_long_ones() -> None:
    assert trend({0: series(0, LEAST - 1, 9.0)}) is None
    found = trend({0: series(0, LEAST - 1, 99.0), 1: series(1, 100, 0.0)})
    assert found is not None
    assert (found.lives, found.points) == (1, 100)


def test_a_figure_that_never_changes_has_no_slope() -> None:
    found = trend({0: [(float(r), 7.0) for r in range(50)]})
    assert found is not None
    assert (found.slope, found.low, found.high, found.grows) == (0.0, 0.0, 0.0, False)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        trend({0: [(float(r), np.inf) for r in range(20)]})
