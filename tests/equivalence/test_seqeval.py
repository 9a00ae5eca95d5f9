"""Our scores are those of seqeval (entities, strict IOB2) and of scikit-learn (word tags)."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report as seqeval_report
from seqeval.scheme import IOB2
from sklearn.metrics import classification_report as sklearn_report

from common.data.encode import entities_of
from common.data.labels import bio_tags
from common.data.records import Document
from common.metrics.entities import (
    Counts,
    LabelCounts,
    Scores,
    count_entities,
    report,
    scores,
)
from common.metrics.evaluation import Evaluation
from common.metrics.tokens import confusion

LABELS = ("Disease", "B-cell", "Drug")
TAGS = bio_tags(LABELS)

Side = list[list[str]]
Pair = tuple[Side, Side]
"""Gold and predicted tags, sentence by sentence."""


@st.composite
def pairs(draw: st.DrawFn, min_size: int = 1) -> Pair:
    tags = st.sampled_from(TAGS)
    gold = draw(st.lists(st.lists(tags, min_size=1, max_size=8), min_size=min_size, max_size=4))
    near = draw(st.booleans())
    predicted = [
        [tag if near and draw(st.booleans()) else draw(tags) for tag in sentence]
        for sentence in gold
    ]
    return gold, predicted


def document_of(side: Side) -> Document:
    """One letter per word, a blank between."""
    tokens, at = [], 0
    for sentence in side:
        tokens.append(tuple((at + 2 * i, at + 2 * i + 1) for i in range(len(sentence))))
        at += 2 * len(sentence)
    return Document(
        doc_id="d",
        text="w " * (at // 2),
        sentences=tuple((row[0][0], row[-1][1]) for row in tokens),
        tokens=tuple(tokens),
    )


def indices(side: Side) -> list[int]:
    return [TAGS.index(tag) for sentence in side for tag in sentence]


def evaluation_of(pair: Pair) -> Evaluation:
    document = document_of(pair[0])
    gold, predicted = (entities_of(document, indices(side), LABELS) for side in pair)
    matrix = confusion(indices(pair[0]), indices(pair[1]), len(TAGS))
    return Evaluation.of(LABELS, count_entities(gold, predicted, LABELS), matrix)


def assert_same(ours: Scores, theirs: Mapping[str, float]) -> None:
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-12)
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-12)
    assert ours.f1 == pytest.approx(theirs["f1-score"], abs=1e-12)
    assert ours.support == theirs["support"]


def by_seqeval(pair: Pair) -> dict[str, Any]:
    theirs: dict[str, Any] = seqeval_report(
        pair[0], pair[1], mode="strict", scheme=IOB2, output_dict=True, zero_division=0
    )
    return theirs


def occurring(pair: Pair) -> list[str]:
    """Labels that start somewhere; seqeval fails where there is none."""
    return [k for k in LABELS if any(f"B-{k}" in s for side in pair for s in side)]


@settings(max_examples=150)
@given(pairs())
def test_entity_scores_per_label_are_those_of_seqeval(pair: Pair) -> None:
    assume(occurring(pair))
    ours, theirs = evaluation_of(pair).entity_report(), by_seqeval(pair)
    for label in LABELS:
        nothing = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
        assert_same(ours[label], theirs.get(label, nothing))
    assert_same(ours["micro"], theirs["micro avg"])
    assert evaluation_of(pair).f1 == ours["micro"].f1


@settings(max_examples=150)
@given(pairs())
def test_averages_over_labels_are_those_of_seqeval(pair: Pair) -> None:
    names = occurring(pair)
    assume(names)
    document = document_of(pair[0])
    gold, predicted = (entities_of(document, indices(side), LABELS) for side in pair)
    # seqeval knows only the labels that occur; ours means all of the labels it is given
    ours, theirs = report(count_entities(gold, predicted, names)), by_seqeval(pair)
    assert set(ours) == {*names, "micro", "macro", "weighted"}
    for average in ("micro", "macro", "weighted"):
        assert_same(ours[average], theirs[f"{average} avg"])


def test_a_label_that_never_occurs_counts_as_zero_in_the_macro_average_only() -> None:
    pair = [["B-Disease", "O"]], [["B-Disease", "O"]]
    ours = evaluation_of(pair).entity_report()
    assert ours["macro"].f1 == pytest.approx(1 / 3)
    assert ours["micro"].f1 == ours["weighted"].f1 == 1.0


@settings(max_examples=100)
@given(pairs())
def test_token_scores_are_those_of_scikit_learn(pair: Pair) -> None:
    gold, predicted = (sum(side, ["O"]) for side in pair)
    matrix = confusion(indices([gold]), indices([predicted]), len(TAGS))
    ours = Evaluation.of(LABELS, LabelCounts(), matrix).token_report()
    theirs = sklearn_report(
        gold, predicted, labels=list(TAGS[1:]), output_dict=True, zero_division=0
    )
    assert set(ours) == {*TAGS[1:], "micro", "macro", "weighted"}
    for tag in TAGS[1:]:
        assert_same(ours[tag], theirs[tag])
    for average in ("micro", "macro", "weighted"):
        assert_same(ours[average], theirs[f"{average} avg"])


@given(pairs())
def test_the_confusion_matrix_has_gold_rows_and_predicted_columns(pair: Pair) -> None:
    gold, predicted = (indices(side) for side in pair)
    matrix = confusion(gold, predicted, len(TAGS))
    both = list(zip(gold, predicted, strict=True))
    for row in range(len(TAGS)):
        for column in range(len(TAGS)):
            assert matrix[row, column] == both.count((row, column))


@given(st.lists(pairs(), min_size=1, max_size=4))
def test_evaluations_of_parts_add_up_to_that_of_the_union(parts: list[Pair]) -> None:
    union = [s for gold, _ in parts for s in gold], [s for _, found in parts for s in found]
    total = reduce(add, [evaluation_of(part) for part in parts])
    whole = evaluation_of(union)
    assert total.labels == whole.labels
    assert total.counts.tolist() == whole.counts.tolist()
    assert total.entity_report() == whole.entity_report()
    assert total.token_report() == whole.token_report()


def test_the_vector_is_counts_per_label_then_the_confusion_matrix_row_by_row() -> None:
    found = LabelCounts({"Drug": Counts(1, 2, 3), "Disease": Counts(4, 5, 6)})
    matrix = np.arange(49).reshape(7, 7)
    evaluation = Evaluation.of(LABELS, found, matrix)
    assert evaluation.counts.dtype == np.int64
    assert evaluation.counts.tolist() == [4, 5, 6, 0, 0, 0, 1, 2, 3, *range(49)]
    assert Evaluation.size(LABELS) == len(evaluation.counts) == 9 + 49


def test_an_entity_with_another_boundary_or_label_is_not_correct() -> None:
    rows: Sequence[tuple[Side, int]] = [
        ([["B-Drug", "I-Drug", "O"]], 1),
        ([["B-Drug", "O", "O"]], 0),
        ([["B-Drug", "I-Drug", "I-Drug"]], 0),
        ([["B-Disease", "I-Disease", "O"]], 0),
        ([["B-Drug", "B-Drug", "O"]], 0),
        ([["I-Drug", "I-Drug", "O"]], 0),
    ]
    for predicted, correct in rows:
        pair = [["B-Drug", "I-Drug", "O"]], predicted
        assert evaluation_of(pair).entity_report()["micro"].f1 == correct


def test_scores_of_nothing_are_zero() -> None:
    assert scores(Counts()) == Scores(0.0, 0.0, 0.0, 0)
    assert report(LabelCounts({"X": Counts()}))["weighted"] == Scores(0.0, 0.0, 0.0, 0)
