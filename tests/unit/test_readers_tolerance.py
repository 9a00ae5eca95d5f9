"""What readers accept though it is odd, and how they count it."""

import pytest

from common.data.brat import parse_brat
from common.data.conll import ConllOptions, parse_conll
from common.data.jsonl import parse_jsonl
from common.data.pubtator import parse_pubtator
from common.data.records import Entity, span
from tests.unit.test_readers_damage import ANN, JSONL, PUBTATOR, READERS, TEXT


def tags(text: str, **options: str) -> list[tuple[str, str]]:
    """Surface and label of each entity of one document, tokens and tags as `a/O b/B-X`."""
    lines = "\n".join(text.replace("/", "\t").split(" "))
    (document,) = parse_conll(lines, "f", ConllOptions(**options)).documents
    return [(document.text[e.start : e.end], e.label) for e in document.entities]


@pytest.mark.parametrize("reader", ["conll", "table", "patients", "brat", "pubtator", "jsonl"])
def test_crlf_changes_nothing(reader: str) -> None:
    text, parse = READERS[reader]
    assert parse(text.replace("\n", "\r\n")) == parse(text)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_last_newline_changes_nothing(reader: str) -> None:
    text, parse = READERS[reader]
    if reader != "text":
        assert parse(text.rstrip("\n")) == parse(text)


def test_iob1_opens_with_i_and_splits_neighbours_with_b() -> None:
    text = "a/I-X b/I-X c/B-X d/I-Y e/O f/I-Y g/B-X"
    expected = [("a b", "X"), ("c", "X"), ("d", "Y"), ("f", "Y"), ("g", "X")]
    assert tags(text, scheme="iob1") == expected


def test_iob2_splits_neighbours() -> None:
    assert tags("a/B-X b/B-X c/I-X d/B-Y") == [("a", "X"), ("b c", "X"), ("d", "Y")]


def test_iobes_reads_single_and_long_entities() -> None:
    text = "a/S-X b/B-X c/I-X d/E-X e/S-Y"
    assert tags(text, scheme="iobes") == [("a", "X"), ("b c d", "X"), ("e", "Y")]


def test_a_label_may_hold_dashes() -> None:
    assert tags("a/B-X-Y b/I-X-Y") == [("a b", "X-Y")]


def test_a_thin_space_does_not_separate_columns() -> None:
    assert tags("8\u2005mg/B-X") == [("8\u2005mg", "X")]


def test_a_file_without_marks_is_one_document_named_after_it() -> None:
    result = parse_conll("a O\n\n\n\nb O\n", "folder/train.tsv", ConllOptions())
    (document,) = result.documents
    assert (document.doc_id, document.text) == ("train", "a\nb")
    assert document.sentences == ((0, 1), (2, 3))
    assert document.tokens == (((0, 1),), ((2, 3),))
    assert result.notes == {"unnamed_documents": 1}


def test_marks_without_ids_number_the_documents() -> None:
    text = "-DOCSTART- -X- -X- O\n\na NN I-NP O\n\n-DOCSTART- -X- -X- O\n\nb NN I-NP B-X\n"
    result = parse_conll(text, "eng.testa", ConllOptions())
    assert [document.doc_id for document in result.documents] == ["eng-1", "eng-2"]
    assert result.notes == {"unnamed_documents": 2}


def test_brat_counts_what_it_ignores() -> None:
    result = parse_brat(TEXT, ANN + "N1\tRef T1 D:1\tx\nM1\tNeg E1\n\n", "f")
    assert result.notes == {
        "ignored_events": 1,
        "ignored_relations": 1,
        "ignored_attributes": 2,
        "ignored_comments": 1,
        "ignored_equivalences": 1,
        "ignored_normalizations": 1,
        "blank_lines": 1,
    }


def test_brat_merges_entities_with_two_ids() -> None:
    result = parse_brat("ab", "T1\tX 0 2\tab\nT2\tX 0 2\tab\n", "f")
    assert result.documents[0].entities == (span(0, 2, "X"),)
    assert result.notes == {"duplicate_entities": 1}


def test_brat_reads_three_fields_and_counts_more() -> None:
    result = parse_brat("8\u2005mg\u2005", "T1\tX 0 4\t8\u2005mg\t\u2005\n", "f")
    assert result.documents[0].entities == (span(0, 4, "X"),)
    assert result.notes == {"ignored_fields": 1}


def test_brat_offsets_count_code_points_and_carriage_returns() -> None:
    text = "😀\r\nab\r\ncd"
    result = parse_brat(text, "T1\tX 3 5;7 9\tab cd\nT2\tX 3 9\tab  cd\n", "f")
    assert set(result.documents[0].entities) == {span(3, 9, "X"), Entity(((3, 5), (7, 9)), "X")}
    assert result.documents[0].text == text


def test_pubtator_counts_what_it_ignores() -> None:
    result = parse_pubtator(PUBTATOR, "f")
    assert [document.doc_id for document in result.documents] == ["11", "12"]
    assert result.notes == {"ignored_relations": 1, "ignored_concepts": 3}


def test_pubtator_merges_a_document_that_stands_twice() -> None:
    result = parse_pubtator(f"\n{PUBTATOR}\n{PUBTATOR}", "f")
    assert len(result.documents) == 2
    assert result.notes["duplicate_documents"] == 2


@pytest.mark.parametrize("surface", ["Zorblax ", "Zorblax  "])
def test_pubtator_accepts_trailing_blanks_only(surface: str) -> None:
    result = parse_pubtator(PUBTATOR.replace("\tZorblax\t", f"\t{surface}\t"), "f")
    assert result.notes["trailing_blanks"] == 1
    assert result.documents == parse_pubtator(PUBTATOR, "f").documents


def test_pubtator_accepts_an_empty_abstract_and_a_composite_mention() -> None:
    result = parse_pubtator("1|t|a b\n1|a|\n1\t0\t3\ta b\tX\tD1|D2\ta|b\n", "f")
    assert result.documents[0].text == "a b\n"
    assert result.notes == {"ignored_concepts": 1, "ignored_fields": 1}


def test_jsonl_merges_equal_entities() -> None:
    line = JSONL.split("\n")[0].replace('"fragments": [[0, 3], [8, 15]]', '"fragments": [[0, 7]]')
    result = parse_jsonl(line, "f")
    assert result.documents[0].entities == (span(0, 7, "K"),)
    assert result.notes == {"duplicate_entities": 1}
