"""What a format can't hold is not rendered; options that make no sense are refused."""

from collections.abc import Callable

import pytest

from common.data.brat import render_brat
from common.data.conll import ConllOptions, parse_conll, render_conll
from common.data.jsonl import render_jsonl
from common.data.pubtator import render_pubtator
from common.data.records import Document, Entity, span
from common.data.report import NOTES, ReadResult
from common.errors import ConfigError, DataError
from tests.unit.test_readers_damage import check_message


def document(**changes: object) -> Document:
    keys = {"doc_id": "d1", "text": "Zorblax quimper\nvextol", "entities": (span(0, 7, "K"),)}
    return Document(**{**keys, **changes})


TOKENS = {
    "sentences": ((0, 15), (16, 22)),
    "tokens": (((0, 7), (8, 15)), ((16, 22),)),
}


def as_conll(one: Document, **options: object) -> str:
    return render_conll([one], ConllOptions(**options))


UNRENDERABLE: dict[str, Callable[[], object]] = {
    "conll without tokens": lambda: as_conll(document()),
    "conll with other blanks": lambda: as_conll(
        document(text="Zorblax  quimper", sentences=((0, 16),), tokens=(((0, 7), (9, 16)),))
    ),
    "conll with an empty sentence": lambda: as_conll(
        document(**TOKENS | {"tokens": (((0, 7), (8, 15)), ())})
    ),
    "conll with a nested entity": lambda: as_conll(
        document(entities=(span(0, 7, "K"), span(0, 15, "L")), **TOKENS)
    ),
    "conll with a discontinuous entity": lambda: as_conll(
        document(entities=(Entity(((0, 7), (8, 15)), "K"),), **TOKENS)
    ),
    "conll with a cut token": lambda: as_conll(document(entities=(span(0, 6, "K"),), **TOKENS)),
    "conll with a crossed sentence": lambda: as_conll(
        document(entities=(span(8, 22, "K"),), **TOKENS)
    ),
    "conll with a token that is the mark": lambda: as_conll(
        document(**TOKENS), doc_start="Zorblax"
    ),
    "conll with a delimiter in a label": lambda: as_conll(
        document(entities=(span(0, 7, "K|L"),), **TOKENS), delimiter="|"
    ),
    "conll with a blank in a label": lambda: as_conll(
        document(entities=(span(0, 7, "K L"),), **TOKENS)
    ),
    "conll with another table": lambda: as_conll(document(**TOKENS), documents=(("d1", 0, 1),)),
    "conll with a table and a patient": lambda: as_conll(
        document(patient_id="p", **TOKENS), documents=(("d1", 0, 2),)
    ),
    "brat with tokens": lambda: render_brat(document(**TOKENS)),
    "brat with a blank in a label": lambda: render_brat(document(entities=(span(0, 7, "K L"),))),
    "brat with a byte order mark": lambda: render_brat(document(text="\ufeffZorblax")),
    "pubtator with two line breaks": lambda: render_pubtator([document(text="a\nb\nZorblax")]),
    "pubtator without a line break": lambda: render_pubtator([document(text="Zorblax")]),
    "pubtator with CR": lambda: render_pubtator([document(text="Zorblax\r\nvextol")]),
    "pubtator with a patient": lambda: render_pubtator([document(patient_id="p")]),
    "pubtator with sentences": lambda: render_pubtator([document(sentences=((0, 15),))]),
    "pubtator with a bar in the id": lambda: render_pubtator([document(doc_id="d|1")]),
    "pubtator with a discontinuous entity": lambda: render_pubtator(
        [document(entities=(Entity(((0, 7), (8, 15)), "K"),))]
    ),
    "pubtator with a tab in an entity": lambda: render_pubtator(
        [document(text="Zor\tblax\n", entities=(span(0, 8, "K"),))]
    ),
    "jsonl with an id twice": lambda: render_jsonl([document(), document()]),
    "jsonl with an unprintable id": lambda: render_jsonl([document(doc_id="a\nb")]),
    "jsonl with half a surrogate pair": lambda: render_jsonl([document(text="Zorblax\udfff")]),
}


@pytest.mark.parametrize("case", UNRENDERABLE)
def test_what_a_format_cannot_hold_is_not_rendered(case: str) -> None:
    with pytest.raises(DataError) as caught:
        UNRENDERABLE[case]()
    assert caught.value.place
    check_message(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"column": 0},
        {"scheme": "bilou"},
        {"delimiter": ""},
        {"delimiter": "a"},
        {"doc_start": ""},
        {"doc_start": "a b"},
    ],
    ids=str,
)
def test_unusable_column_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        ConllOptions(**options)


def test_columns_that_fall_together_in_the_file_are_refused() -> None:
    with pytest.raises(DataError, match="one column") as caught:
        parse_conll("a O x\n", "f", ConllOptions(column=1, token_column=-2))
    assert caught.value.place == "f:1"


def test_a_result_counts_only_what_is_explained_and_happened() -> None:
    assert ReadResult((), dict.fromkeys(NOTES, 0)).notes == {}
    assert ReadResult((), {"blank_lines": 2}).lines() == ("2 empty annotation lines",)
    with pytest.raises(KeyError):
        ReadResult((), {"strange": 1})
    with pytest.raises(DataError, match="two documents"):
        ReadResult((document(), document()))
