"""The best tag sequence that IOB2 allows, found exactly."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.data.labels import bio_tags
from common.metrics.decode import Scores2D, allowed, viterbi

TAGS = bio_tags(["X", "Y"])
TABLE = allowed(TAGS)


def is_allowed(path: list[int] | tuple[int, ...]) -> bool:
    """By the words of IOB2, not by the table."""
    names = ["start", *(TAGS[i] for i in path)]
    return all(
        not after.startswith("I-") or before in {f"B-{after[2:]}", f"I-{after[2:]}"}
        for before, after in pairwise(names)
    )


def total(log_probs: Scores2D, path: list[int] | tuple[int, ...]) -> float:
    return sum(float(log_probs[i, tag]) for i, tag in enumerate(path))


def scores(max_words: int) -> st.SearchStrategy[Scores2D]:
    return st.integers(0, max_words).flatmap(
        lambda n: hnp.arrays(np.float32, (n, len(TAGS)), elements=st.floats(-30, 0, width=32))
    )


def test_the_table_allows_an_inside_tag_only_after_its_own_label() -> None:
    assert TABLE.shape == (len(TAGS) + 1, len(TAGS))
    for row, before in enumerate([*TAGS, "start"]):
        for column, after in enumerate(TAGS):
            expected = not after.startswith("I-") or before in {f"B-{after[2:]}", after}
            assert TABLE[row, column] == expected


@given(scores(4))
def test_no_allowed_sequence_scores_better(log_probs: Scores2D) -> None:
    path = viterbi(log_probs, TABLE)
    sequences = product(range(len(TAGS)), repeat=len(log_probs))
    best = max(total(log_probs, s) for s in sequences if is_allowed(s))
    assert len(path) == len(log_probs)
    assert total(log_probs, path) == pytest.approx(best, abs=1e-9)


@given(scores(40))
def test_no_stray_inside_tag_is_ever_predicted(log_probs: Scores2D) -> None:
    path = viterbi(log_probs, TABLE)
    assert is_allowed(path)
    assert all(type(tag) is int for tag in path)


@given(scores(40))
def test_the_best_tag_of_each_word_is_kept_where_iob2_allows_it(log_probs: Scores2D) -> None:
    best = log_probs.argmax(axis=1).tolist() if len(log_probs) else []
    path = viterbi(log_probs, TABLE)
    if is_allowed(best):
        assert total(log_probs, path) == pytest.approx(total(log_probs, best), abs=1e-9)
        unique = (log_probs == log_probs.max(axis=1, keepdims=True)).sum(axis=1) == 1
        assert not unique.all() or path == best


def test_a_stray_inside_tag_is_mended_by_what_scores_best_as_a_whole() -> None:
    far = -20.0
    log_probs = np.full((2, len(TAGS)), far, np.float32)
    log_probs[0, [TAGS.index("O"), TAGS.index("B-X")]] = [-0.1, -3.0]
    log_probs[1, [TAGS.index("I-X"), TAGS.index("O")]] = [-0.1, -5.0]
    assert [TAGS[i] for i in viterbi(log_probs, TABLE)] == ["B-X", "I-X"]


def test_ties_go_to_the_lower_index() -> None:
    assert viterbi(np.zeros((5, len(TAGS)), np.float32), TABLE) == [0] * 5


def test_a_sentence_without_words_has_no_tags() -> None:
    assert viterbi(np.zeros((0, len(TAGS)), np.float32), TABLE) == []
