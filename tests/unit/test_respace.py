"""Running text as a column file can hold it."""

import pytest

from common.data.conll import ConllOptions, parse_conll, render_conll
from common.data.records import Document, span
from common.data.respace import respace
from common.data.sentences import tokenise
from common.errors import DataError

TEXT = "Pt c/o chest pain, 10/10.\n\nOn metoprolol\x07  today."


def _document(*entities: tuple[int, int, str]) -> Document:
    spans = tuple(span(*e) for e in entities)
    return tokenise(Document(doc_id="d", text=TEXT, entities=spans))


def test_a_respaced_document_survives_a_column_file() -> None:
    pain, drug = TEXT.index("chest pain"), TEXT.index("metoprolol")
    before = respace(_document((pain, pain + 10, "Symptom"), (drug, drug + 10, "Medication")))
    (after,) = parse_conll(render_conll([before], ConllOptions()), "x", ConllOptions()).documents
    surfaces = [(after.text[e.start : e.end], e.label) for e in after.entities]
    assert surfaces == [("chest pain", "Symptom"), ("metoprolol", "Medication")]
    assert after == before


def test_respace_refuses_an_entity_that_cuts_a_word() -> None:
    with pytest.raises(DataError, match="whole words"):
        respace(_document((TEXT.index("hest"), TEXT.index("hest") + 4, "Symptom")))


def test_respace_refuses_a_document_without_tokens() -> None:
    with pytest.raises(DataError, match="tokenised"):
        respace(Document(doc_id="d", text="a"))
