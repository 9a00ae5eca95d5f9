"""What is rendered is read back equal, in every format and every tagging scheme."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqeval.scheme import IOB2, Entities

from common.data.brat import parse_brat, render_brat
from common.data.conll import (
    ConllOptions,
    parse_conll,
    parse_documents_table,
    render_conll,
)
from common.data.conll_layout import token_text
from common.data.conll_tags import decode_tags, encode_tags
from common.data.jsonl import parse_jsonl, render_jsonl
from common.data.pubtator import parse_pubtator, render_pubtator
from common.data.records import Document, Entity, span
from common.errors import DataError
from common.io.corpus import load_documents, save_documents

ODD = "ab O-#*|;.\"'\\{}\t\n\r\u00a0\u2009\u2028\x85\u200b\ufeffé😀漢\u0301"
LETTERS = st.one_of(
    st.sampled_from(ODD),
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
)
PRINTABLE = LETTERS.filter(str.isprintable)
IDS = st.text(PRINTABLE, min_size=1, max_size=12).filter(lambda name: name == name.strip())
LABELS = st.text(PRINTABLE.filter(lambda char: char != " "), min_size=1, max_size=8)
TEXTS = st.text(LETTERS, max_size=40).filter(lambda text: not text.startswith("\ufeff"))
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
SCHEMES = ["iob1", "iob2", "iobes"]


@st.composite
def entities(draw: st.DrawFn, text: str, fragments: int = 3) -> tuple[Entity, ...]:
    """Nested, overlapping, and discontinuous if `fragments` allows it."""
    if not text:
        return ()
    found = set()
    for _ in range(draw(st.integers(0, 4))):
        offsets = st.integers(0, len(text))
        cuts = sorted(draw(st.sets(offsets, min_size=2, max_size=2 * fragments)))
        pairs = tuple(zip(cuts[::2], cuts[1::2], strict=False))
        found.add(Entity(pairs, draw(LABELS)))
    return tuple(found)


@st.composite
def plain_documents(draw: st.DrawFn) -> Document:
    text = draw(TEXTS)
    patient = draw(st.none() | IDS)
    return Document(doc_id=draw(IDS), text=text, entities=draw(entities(text)), patient_id=patient)


@st.composite
def pubtator_documents(draw: st.DrawFn) -> Document:
    passage = TEXTS.map(lambda text: text.translate(dict.fromkeys(map(ord, "\n\r"), " ")))
    text = f"{draw(passage)}\n{draw(passage)}"
    safe = [e for e in draw(entities(text, 1)) if "\t" not in text[e.start : e.end]]
    return Document(
        doc_id=draw(IDS.filter(lambda name: "|" not in name)), text=text, entities=tuple(safe)
    )


@st.composite
def token_spans(draw: st.DrawFn, tokens: int, labels: st.SearchStrategy[str] = LABELS) -> list:
    cuts = sorted(draw(st.sets(st.integers(0, tokens), max_size=5)))
    spans = [(*pair, draw(labels)) for pair in pairwise(cuts)]
    return [one for one in spans if draw(st.booleans())]


@cache
def conll_parts(banned: str, least: int) -> tuple[st.SearchStrategy, st.SearchStrategy]:
    """Sentences of tokens, and labels, without the banned characters."""
    odd = "".join(char for char in ODD if char.isprintable() or char in "\u00a0\u2009\u200b")
    letters = st.sampled_from(sorted(set(odd) - set(banned))) | st.characters(
        exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters=f"\ufeff{banned}"
    )
    words = st.text(letters, min_size=1, max_size=6)
    sentences = st.lists(words, min_size=1, max_size=5)
    labels = LABELS.filter(lambda label: not set(label) & set(banned))
    return st.lists(sentences, min_size=least, max_size=3), labels


@st.composite
def conll_documents(draw: st.DrawFn, banned: str, with_patient: bool = True) -> Document:
    rows, labels = conll_parts(banned, 0 if with_patient else 1)
    text, sentences, tokens = token_text(draw(rows))
    found = []
    for offsets in tokens:
        for first, last, label in draw(token_spans(len(offsets), labels)):
            found.append(span(offsets[first][0], offsets[last - 1][1], label))
    return Document(
        doc_id=draw(IDS),
        patient_id=draw(st.none() | IDS) if with_patient else None,
        text=text,
        entities=tuple(found),
        sentences=sentences,
        tokens=tokens,
    )


def corpora(one: st.SearchStrategy[Document]) -> st.SearchStrategy[tuple[Document, ...]]:
    return st.lists(one, max_size=3, unique_by=lambda document: document.doc_id).map(tuple)


@SETTINGS
@given(plain_documents())
def test_brat_reads_back_what_it_renders(document: Document) -> None:
    text, annotations = render_brat(document)
    result = parse_brat(text, annotations, "a.ann", document.doc_id, document.patient_id)
    assert result.documents == (document,)
    assert not result.notes


@SETTINGS
@given(corpora(pubtator_documents()))
def test_pubtator_reads_back_what_it_renders(documents: tuple[Document, ...]) -> None:
    result = parse_pubtator(render_pubtator(documents), "a.txt")
    assert result.documents == documents
    assert not result.notes


@SETTINGS
@given(corpora(plain_documents() | conll_documents("")))
def test_jsonl_reads_back_what_it_renders(documents: tuple[Document, ...]) -> None:
    result = parse_jsonl(render_jsonl(documents), "a.jsonl")
    assert result.documents == documents
    assert not result.notes


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("delimiter", [None, "\t", "|", " "])
@settings(SETTINGS, max_examples=15)
@given(data=st.data())
def test_conll_reads_back_what_it_renders(scheme: str, delimiter: str, data: st.DataObject) -> None:
    documents = data.draw(corpora(conll_documents(delimiter or " \t")))
    column, token_column = data.draw(
        st.sampled_from([(-1, 0), (0, 1), (0, -1), (3, 0), (-2, 1), (-1, 1)])
    )
    options = ConllOptions(
        scheme=scheme, delimiter=delimiter, column=column, token_column=token_column
    )
    result = parse_conll(render_conll(documents, options), "a.tsv", options)
    assert result.documents == documents
    assert not result.notes


@SETTINGS
@given(corpora(conll_documents("\t", with_patient=False)))
def test_conll_with_a_documents_table_reads_back_what_it_renders(
    documents: tuple[Document, ...],
) -> None:
    rows, first = [], 0
    for document in documents:
        rows.append((document.doc_id, first, len(document.sentences or ())))
        first += rows[-1][2]
    table = "".join(f"{name}\t{at}\t{count}\n" for name, at, count in rows)
    assert parse_documents_table(table, "t.tsv") == tuple(rows)
    options = ConllOptions(delimiter="\t", documents=tuple(rows))
    assert parse_conll(render_conll(documents, options), "a.tsv", options).documents == documents


@pytest.mark.parametrize("scheme", SCHEMES)
@SETTINGS
@given(data=st.data())
def test_tags_decode_to_the_spans_they_encode(scheme: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 12))
    spans = data.draw(token_spans(length, st.sampled_from(["X", "Y", "X-Y"])))
    tags = encode_tags(spans, length, scheme)
    assert decode_tags(tags, scheme, str) == tuple(spans)


@SETTINGS
@given(st.lists(st.sampled_from(["O", "I-X", "I-Y", "B-X", "B-Y"]), max_size=8))
def test_iob2_accepts_a_sentence_exactly_if_seqeval_finds_no_stray_tag(tags: list[str]) -> None:
    stray = any(
        tag[0] == "I" and (before == "O" or before[2:] != tag[2:])
        for before, tag in zip(["O", *tags], tags, strict=False)
    )
    if stray:
        with pytest.raises(DataError):
            decode_tags(tags, "iob2", str)
        return
    expected = [(e.start, e.end, e.tag) for e in Entities([tags], IOB2).entities[0]]
    assert list(decode_tags(tags, "iob2", str)) == expected


@pytest.mark.parametrize("format", ["conll", "brat", "pubtator", "jsonl"])
@pytest.mark.parametrize("tables", [False, True])
@settings(SETTINGS, max_examples=8)
@given(data=st.data())
def test_a_saved_corpus_loads_equal(format: str, tables: bool, data: st.DataObject) -> None:
    kinds = {
        "conll": conll_documents("\t", with_patient=False),
        "brat": plain_documents(),
        "pubtator": pubtator_documents(),
        "jsonl": plain_documents(),
    }
    drawn = data.draw(corpora(kinds[format]).filter(bool))
    documents = tuple(
        Document(
            doc_id=f"d{index}",
            patient_id=f"p {index % 2}" if tables else None,
            text=document.text,
            entities=document.entities,
            sentences=document.sentences,
            tokens=document.tokens,
        )
        for index, document in enumerate(drawn)
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        given_tables = {"patients_table": folder / "patients.tsv"} if tables else {}
        if format == "conll":
            given_tables["conll"] = ConllOptions(delimiter="\t")
            if tables:
                given_tables["documents_table"] = folder / "documents.tsv"
        save_documents(documents, folder / "corpus", format, **given_tables)
        result = load_documents(folder / "corpus", format, **given_tables)
        assert result.documents == documents
        assert not result.notes
        assert not list(folder.glob(".*"))
