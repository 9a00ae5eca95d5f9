"""Scores by group: the table's reader, gaps by hand, and the permutation test against all deals."""

import io
import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from rich.console import Console

from common.data.groups import Groups, parse_groups
from common.data.records import Document
from common.errors import DataError
from common.metrics.evaluation import Evaluation
from common.metrics.fairness import fairness
from scripts.console import comparison_table, report_table
from scripts.groups import fairness_json, groups_table
from scripts.reporting.groups_section import groups_section

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
    rows = [row(4, 4, 4)] * 3 + [row(0, 4, 4)] * 2
    found = compared(rows, ["f", "f", "f", "m", ""], smallest=2)
    assert [g.scores is None for g in found.groups] == [False, True]
    assert found.gaps == ()
    assert compared(rows, [""] * 5).groups == ()


@pytest.mark.parametrize(
    ("sizes", "unstated", "withheld"),
    [
        ({"f": 40, "m": 30, "x": 20, "y": 2}, 0, "xy"),
        ({"f": 40, "m": 30, "x": 20, "y": 2}, 7, "xy"),
        ({"f": 40, "m": 30, "x": 20, "y": 2}, 8, "y"),
        ({"f": 40, "m": 30, "x": 6, "y": 4}, 0, "xy"),
        ({"f": 40, "m": 30, "x": 5, "y": 4}, 0, "mxy"),
        ({"f": 40, "m": 9}, 0, "fm"),
        ({"f": 40, "m": 10}, 3, ""),
        ({"f": 4, "m": 3}, 0, "fm"),
    ],
)
def test_no_small_groups_scores_come_out_by_subtraction(sizes, unstated, withheld):
    """Those of all less those that are shown are of ten units or more."""
    values = [name for name, count in sizes.items() for _ in range(count)] + [""] * unstated
    found = compared([row(1, 2, 2)] * len(values), values, smallest=10, times=1)
    assert "".join(g.name for g in found.groups if g.scores is None) == withheld
    assert bool(found.gaps) == (len(sizes) - len(withheld) > 1)
    shown = printed(groups_table(found, "patient", 10))
    few = sum(count < 10 for count in sizes.values())
    assert shown.count("too few") == 3 * few
    assert shown.count("withheld") == 3 * (len(withheld) - few)


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


def test_a_group_of_which_nothing_is_annotated_has_no_score_and_is_in_no_gap():
    """With a score of 0 it would be the worst served, beyond any doubt."""
    rows = [row(9, 10, 10)] * 20 + [row(0, 0, 0)] * 19 + [row(0, 2, 0)]
    found = compared(rows, ["f"] * 20 + ["m"] * 20)
    f, m = found.groups
    assert (m.units, m.scores, m.low, m.high) == (20, {}, None, None)
    assert found.gaps == ()
    assert set(f.scores) == {"Disease", "micro", "macro", "weighted"}
    assert f.scores["macro"].f1 == f.scores["micro"].f1 == pytest.approx(0.9)
    rows += [row(8, 10, 10)] * 20
    three = compared(rows, ["f"] * 20 + ["m"] * 20 + ["x"] * 20)
    assert {g.score: g.gap for g in three.gaps} == pytest.approx({"f1": 0.1, "recall": 0.1})


def test_a_deal_that_leaves_a_group_nothing_is_not_counted():
    """Against every permutation that gives each group something, one by one."""
    rows = [row(3, 3, 3), row(0, 1, 2), row(1, 2, 2), *[row(0, 1, 0)] * 3]
    values = ["f", "m", "f", "f", "m", "m"]

    def recalls(dealt):
        totals = [sum(r for r, v in zip(rows, dealt, strict=True) if v == n) for n in ("f", "m")]
        return [t[0] / t[2] for t in totals if t[2]]

    every = [found for dealt in permutations(values) if len(found := recalls(dealt)) == 2]
    assert len(every) < 720
    gap = abs(np.subtract(*recalls(values)))
    exact = np.mean([abs(one - other) >= gap - 1e-12 for one, other in every])
    (found,) = [g for g in compared(rows, values, times=20000).gaps if g.score == "recall"]
    assert 0 < exact < 1
    assert found.p_value == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 20000))


@pytest.mark.parametrize("annotated", [1.0, 0.25])
def test_groups_that_differ_by_chance_alone_are_seldom_called_unlike(annotated):
    """One in twenty at p = 0.05, whatever the units' sizes; within four standard errors."""
    random = np.random.default_rng(7)
    p_values = []
    for seed in range(150):
        gold = random.integers(1, 9, size=24) * (random.random(24) < annotated)
        correct = random.binomial(gold, 0.7)
        rows = [row(c, g, g) for c, g in zip(correct, gold, strict=True)]
        found = compared(rows, ["f", "m"] * 12, seed=seed, times=99)
        p_values += [gap.p_value for gap in found.gaps if gap.score == "recall"]
    assert len(p_values) > 140
    share = np.mean(np.array(p_values) <= 0.05)
    assert share <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(p_values))
    assert 0.35 < np.mean(p_values) < 0.65


def test_groups_that_are_served_unlike_are_found():
    random = np.random.default_rng(8)
    rows = [row(random.binomial(6, 0.9 if i % 2 else 0.5), 6, 6) for i in range(40)]
    found = compared(rows, ["f", "m"] * 20)
    assert all(gap.p_value < 0.01 for gap in found.gaps)


def printed(table):
    console = Console(file=io.StringIO(), width=130, emoji=False)
    console.print(table)
    return console.file.getvalue()


def test_what_stands_in_a_table_of_groups_is_text():
    hostile = "[/x][red]f\x1b[2J\x07"
    found = replace(compared([row(1, 1, 1)] * 2, [hostile, hostile]), attribute=hostile)
    scores = found.groups[0].scores
    renamed = {hostile: scores["micro"], "micro": scores["micro"]}
    for table in (
        groups_table(found, "patient", 1),
        report_table(hostile, renamed),
        comparison_table(hostile, {hostile: renamed}, [hostile]),
    ):
        shown = printed(table)
        assert "[/x][red]f\u241b[2J\u2407" in shown
        assert not set("\x1b\x07") & set(shown)


def test_a_group_with_nothing_annotated_is_shown_and_reported_as_such():
    found = compared([row(9, 10, 10)] * 2 + [row(0, 1, 0)] * 2, ["f", "f", "m", "m"])
    line = next(
        one for one in printed(groups_table(found, "patient", 1)).splitlines() if " m " in one
    )
    assert line.count("nothing to find") == 3
    groups = Groups(key="patient", attributes=("sex",), rows={})
    said = {"weights_sha256": "ab", "groups": fairness_json(groups, [found], 1)}
    content = json.loads(json.dumps(said, allow_nan=False))
    f, m = content["groups"]["attributes"][0]["groups"]
    assert (m["entities"], m["low"], m["high"]) == ({}, None, None)
    assert f["entities"]["micro"]["support"] == 20
    (table,) = groups_section(content).tables
    assert table.rows[1][2:4] == ("nothing to find", "nothing to find")
    assert table.rows[0][2].value == 0.9
