"""The list of who has withdrawn is read whole, or not at all."""

import pytest

from common.data.records import Document
from common.data.withdrawn import Withdrawn, ids_of, parse_withdrawn
from common.errors import DataError

LIST = "# agreed on 3 May\npatient P 7\ndocument\tnote-1\n\n  patient   42  \ndocument note-1\n"


def test_a_list_names_patients_and_documents() -> None:
    found = parse_withdrawn(LIST, "w.txt")
    assert found.patients == {"P 7", "42"}
    assert found.documents == {"note-1"}
    assert len(found) == 3


def test_a_document_is_covered_by_its_own_id_or_its_patients() -> None:
    found = parse_withdrawn("patient 42\ndocument note-1\n", "w.txt")

    def covered(doc_id: str, patient_id: str | None) -> bool:
        return found.covers(Document(doc_id=doc_id, text="x", patient_id=patient_id))

    assert covered("note-1", None)
    assert covered("note-1", "7")
    assert covered("note-9", "42")
    assert not covered("note-9", "7")
    assert not covered("42", "note-1")  # an id of the other kind
    assert not covered("note-10", "4")
    assert not Withdrawn().covers(Document(doc_id="a", text="x"))


def test_a_document_without_a_patient_is_nobodys() -> None:
    found = parse_withdrawn("patient None\n", "w.txt")
    assert not found.covers(Document(doc_id="a", text="x", patient_id=None))


def test_ids_that_nobody_has_are_counted() -> None:
    held = ids_of(
        [
            Document(doc_id="a", text="x", patient_id="1"),
            Document(doc_id="b", text="x", patient_id=None),
        ]
    )
    assert parse_withdrawn("patient 1\ndocument b\n", "w").unknown(held) == 0
    assert parse_withdrawn("patient b\ndocument 1\ndocument a\n", "w").unknown(held) == 2


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", "w.txt", "is empty"),
        ("patient 1\npatient 2", "w.txt", "cut off"),
        ("42\n", "w.txt:1", "expected `patient` or `document`"),
        ("patient 1\npatient\n", "w.txt:2", "and an id"),
        ("patient 1\n# x\ndocument \t \n", "w.txt:3", "and an id"),
        ("patients 1\n", "w.txt:1", "expected `patient`"),
        ("Patient 1\n", "w.txt:1", "expected `patient`"),
        ("patient-1\n", "w.txt:1", "expected `patient`"),
    ],
)
def test_a_list_that_is_not_whole_is_refused(text: str, place: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_withdrawn(text, "w.txt")
    assert caught.value.place == place
    assert said in caught.value.message
    assert caught.value.remedy


def test_every_cut_of_a_list_is_refused_or_ends_with_a_line() -> None:
    for length in range(len(LIST)):
        try:
            parse_withdrawn(LIST[:length], "w")
        except DataError:
            continue
        assert LIST[:length].endswith("\n")


def test_a_comment_is_a_list_of_nobody() -> None:
    assert len(parse_withdrawn("# nobody yet\n", "w")) == 0


def test_ids_do_not_print() -> None:
    assert "secret" not in repr(parse_withdrawn("patient secret\ndocument secret\n", "w"))
