"""Scores by group: the table's reader, gaps by hand, and the permutation test against all deals."""

from itertools import permutations

import numpy as np
import pytest

from common.data.groups import parse_groups
from common.data.records import Document
from common.errors import DataError
from common.metrics.evaluation import Evaluation
from common.metrics.fairness import fairness

LABELS = ("Disease", "Drug")
SIZE = Evaluation.size(LABELS)
TABLE = "patient\tsex\tage\np1\tf\t65+\np2\tm\t\n"


def row(correct, predicted, gold):
    """Counts of a unit, all of the first label."""
    found = np.zeros(SIZE, np.int64)
    found[:3] = correct, predicted, gold
    return found


def compared(rows, values, smallest=1, seed=1, times=2000):
    random = np.random.default_rng(seed)
    return fairness("sex", LABELS, np.array(rows), values, smallest, random, times)


def test_a_table_says_who_belongs_where():
    groups = parse_groups(TABLE, "groups.tsv")
    assert groups.attributes == ("sex", "age")
    one = Document(doc_id="d", text="", patient_id="p1")
    assert groups.of(groups.unit(one)) == ("f", "65+")
    assert groups.of("p2") == ("m", "")
    assert groups.of("nobody") == groups.of(None) == ("", "")
    assert "p1" not in repr(groups)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "a head"),
        ("patient\n", 1, "a head"),
        ("who\tsex\n", 1, "a head"),
        ("patient\tsex\tsex\n", 1, "one name"),
        ("patient\tsex\np1\n", 2, "1 columns"),
        ("patient\tsex\n\tf\n", 2, "no id"),
        ("patient\tsex\np1\tf\np1\tm\n", 3, "a row already"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(text, line, words):
    with pytest.raises(DataError, match=words) as caught:
        parse_groups(text, "groups.tsv")
    assert caught.value.place == f"groups.tsv:{line}"
    assert "p1" not in str(caught.value)


def test_scores_and_gaps_are_those_of_each_groups_counts():
    rows = [row(4, 4, 4), row(2, 2, 4), row(1, 3, 5), row(0, 1, 1)]
    found = compared(rows, ["f", "f", "m", ""])
    assert [(g.name, g.units) for g in found.groups] == [("f", 2), ("m", 1)]
    assert found.unstated == 1
    f, m = (g.scores["micro"] for g in found.groups)
    assert (f.precision, f.recall, f.support) == (1.0, 6 / 8, 8)
    assert (m.precision, m.recall, m.f1) == (1 / 3, 1 / 5, 2 / 8)
    gaps = {g.score: g.gap for g in found.gaps}
    assert gaps == pytest.approx({"f1": 12 / 14 - 2 / 8, "recall": 6 / 8 - 1 / 5})


def test_small_groups_are_named_and_not_scored_nor_compared():
    rows = [row(4, 4, 4)] * 3 + [row(0, 4, 4)]
    found = compared(rows, ["f", "f", "f", "m"], smallest=2)
    assert [g.scores is None for g in found.groups] == [False, True]
    assert found.gaps == ()
    assert compared(rows, [""] * 4).groups == ()


def test_the_p_value_is_that_of_all_deals():
    """Against every permutation of the groups, one by one."""
    rows = [row(3, 3, 3), row(2, 3, 3), row(1, 2, 4), row(0, 1, 3), row(1, 4, 4), row(2, 2, 2)]
    values = ["f", "f", "f", "m", "m", "m"]

    def gap(dealt):
        recalls = []
        for name in ("f", "m"):
            total = sum(r for r, value in zip(rows, dealt, strict=True) if value == name)
            recalls.append(total[0] / total[2])
        return abs(recalls[0] - recalls[1])

    every = [gap(dealt) for dealt in permutations(values)]
    exact = np.mean([g >= gap(values) - 1e-12 for g in every])
    (found,) = [g for g in compared(rows, values, times=20000).gaps if g.score == "recall"]
    assert found.gap == pytest.approx(gap(values))
    assert found.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20000))


def test_groups_that_differ_by_chance_alone_are_seldom_called_unlike():
    """One in twenty at p = 0.05, whatever the units' sizes; within four standard errors."""
    random = np.random.default_rng(7)
    p_values = []
    for seed in range(150):
        gold = random.integers(1, 9, size=24)
        correct = random.binomial(gold, 0.7)
        rows = [row(c, g, g) for c, g in zip(correct, gold, strict=True)]
        found = compared(rows, ["f", "m"] * 12, seed=seed, times=99)
        p_values.append(found.gaps[1].p_value)
    share = np.mean(np.array(p_values) <= 0.05)
    assert share <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)
    assert 0.35 < np.mean(p_values) < 0.65


def test_groups_that_are_served_unlike_are_found():
    random = np.random.default_rng(8)
    rows = [row(random.binomial(6, 0.9 if i % 2 else 0.5), 6, 6) for i in range(40)]
    found = compared(rows, ["f", "m"] * 20)
    assert all(gap.p_value < 0.01 for gap in found.gaps)
