"""The interval of a score: whole units are drawn, and what is known of them comes out."""

import numpy as np
import pytest

from common.errors import DataError
from common.metrics.evaluation import Evaluation
from common.metrics.interval import micro_f1_interval

LABELS = ("X", "Y")


def rows(triples):
    """One unit a row: correct, predicted, gold of label X, and words that no score uses."""
    counts = np.full((len(triples), Evaluation.size(LABELS)), 7, np.int64)
    counts[:, : 3 * len(LABELS)] = 0
    counts[:, :3] = np.reshape(triples, (-1, 3))
    return counts


def interval(triples, **options):
    return micro_f1_interval(rows(triples), LABELS, np.random.default_rng(5), **options)


def test_units_that_are_all_alike_leave_no_width():
    found = interval([(1, 2, 2)] * 9)
    assert (found.low, found.high) == (0.5, 0.5)


def test_the_width_is_that_of_the_mean_of_as_many_units():
    units = [(1, 1, 1)] * 150 + [(0, 1, 1)] * 50  # F1 is the share of right units
    found = interval(units, resamples=4000)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 200)
    assert found.low == pytest.approx(0.75 - half, abs=0.008)
    assert found.high == pytest.approx(0.75 + half, abs=0.008)


def test_entities_that_fall_together_make_it_wider():
    apart = interval([(1, 1, 1)] * 150 + [(0, 1, 1)] * 50)
    together = interval([(10, 10, 10)] * 15 + [(0, 10, 10)] * 5)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_all_labels_count_and_words_do_not():
    counts = rows([(1, 1, 1)] * 4)
    counts[:, 3:6] = (0, 1, 1)
    found = micro_f1_interval(counts, LABELS, np.random.default_rng(5))
    assert (found.low, found.high) == (0.5, 0.5)


def test_units_without_any_entity_score_nothing():
    found = interval([(0, 0, 0)] * 3)
    assert (found.low, found.high) == (0.0, 0.0)


def test_draws_without_any_entity_are_left_out():
    found = interval([(1, 1, 1)] + [(0, 0, 0)] * 9)  # a third of the draws miss the one that counts
    assert (found.low, found.high) == (1.0, 1.0)


def test_the_level_is_how_much_lies_between_the_ends():
    units = [(1, 1, 1)] * 30 + [(0, 1, 1)] * 30
    narrow, wide = interval(units, level=0.5), interval(units, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_no_unit_is_refused():
    with pytest.raises(DataError, match="no unit"):
        interval([])
