"""Splits by keyed hash: whole units, stable, refused when a side stays empty."""

import pytest

from common.data.records import Document
from common.data.split import split
from common.errors import DataError

KEY = b"a key of the test"
FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def _corpus(patients: int, notes: int = 2) -> tuple[Document, ...]:
    return tuple(
        Document(doc_id=f"p{p}-n{n}", text="x", patient_id=f"p{p}")
        for p in range(patients)
        for n in range(notes)
    )


def _sides(documents: tuple[Document, ...], key: bytes = KEY) -> dict[str, str]:
    parts = split(documents, FRACTIONS, key)
    return {document.doc_id: side for side, part in parts.items() for document in part}


def test_every_document_lands_on_exactly_one_side() -> None:
    corpus = _corpus(60)
    parts = split(corpus, FRACTIONS, KEY)
    assert list(parts) == list(FRACTIONS)
    assert sorted(d.doc_id for part in parts.values() for d in part) == sorted(
        d.doc_id for d in corpus
    )


def test_a_patient_is_on_one_side_only() -> None:
    patients = [
        {d.patient_id for d in part} for part in split(_corpus(60), FRACTIONS, KEY).values()
    ]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


def test_added_documents_move_no_other() -> None:
    few, many = _sides(_corpus(60)), _sides(_corpus(200, notes=3))
    assert all(many[doc_id] == side for doc_id, side in few.items())


def test_the_order_of_documents_does_not_matter() -> None:
    corpus = _corpus(60)
    assert _sides(corpus) == _sides(corpus[::-1])


def test_another_key_gives_another_split() -> None:
    assert _sides(_corpus(60)) != _sides(_corpus(60), b"another key")


def test_sides_have_about_their_fraction() -> None:
    parts = split(_corpus(4000, notes=1), FRACTIONS, KEY)
    for side, fraction in FRACTIONS.items():
        deviation = (fraction * (1 - fraction) / 4000) ** 0.5
        assert abs(len(parts[side]) / 4000 - fraction) < 4 * deviation


def test_the_split_is_the_same_everywhere() -> None:
    parts = split(_corpus(12, notes=1), {"train": 0.5, "test": 0.5}, KEY)
    assert [d.doc_id for d in parts["test"]] == GOLDEN_TEST_SIDE


def test_thirds_sum_to_one_closely_enough() -> None:
    assert len(split(_corpus(60), {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, KEY)) == 3


def test_one_side_takes_all() -> None:
    corpus = _corpus(5)
    assert split(corpus, {"all": 1.0}, KEY) == {"all": corpus}


def test_an_empty_side_is_refused_with_a_remedy() -> None:
    with pytest.raises(DataError) as caught:
        split(_corpus(1), FRACTIONS, KEY)
    assert caught.value.place in FRACTIONS
    assert caught.value.remedy


@pytest.mark.parametrize(
    "fractions",
    [
        {},
        {"train": 0.0, "test": 1.0},
        {"train": -0.2, "test": 1.2},
        {"train": float("nan"), "test": 1.0},
        {"train": float("inf")},
        {"train": 0.8, "test": 0.1},
        {"train": 0.8, "test": 0.3},
    ],
)
def test_bad_fractions_are_refused_with_a_remedy(fractions: dict[str, float]) -> None:
    with pytest.raises(DataError) as caught:
        split(_corpus(60), fractions, KEY)
    assert caught.value.remedy


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(DataError, match="key"):
        split(_corpus(60), FRACTIONS, b"")


GOLDEN_TEST_SIDE = ["p1-n0", "p3-n0", "p8-n0", "p10-n0", "p11-n0"]
