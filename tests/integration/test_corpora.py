"""The real corpora load, with the counts of `../shared/data/SOURCES.md`."""

from collections import Counter
from pathlib import Path

import pytest

from common.data.conll import ConllOptions
from common.data.flatten import FlattenCounts, flatten_all
from common.data.labels import map_labels
from common.data.records import Document
from common.data.report import ReadResult
from common.io.corpus import load_documents, save_documents

DATA = Path(__file__).parents[2].parent / "shared" / "data"
PUBTATOR = DATA / "ncbi-disease" / "pubtator"
IOB = DATA / "ncbi-disease" / "iob-mtl"
MACCROBAT = DATA / "maccrobat2020"

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the corpora are not at {DATA}"),
]


def load_iob(split: str) -> ReadResult:
    return load_documents(
        IOB / f"{split}.tsv",
        "conll",
        conll=ConllOptions(delimiter="\t"),
        documents_table=IOB / f"{split}.pmids.tsv",
    )


@pytest.fixture(scope="module")
def maccrobat() -> ReadResult:
    return load_documents(MACCROBAT, "brat")


def count_entities(documents: tuple[Document, ...]) -> int:
    return sum(len(document.entities) for document in documents)


@pytest.mark.parametrize(
    ("name", "documents", "entities", "notes"),
    [
        (
            "train",
            592,
            5134,
            {"duplicate_documents": 1, "trailing_blanks": 1, "ignored_concepts": 5145},
        ),
        ("develop", 100, 787, {"ignored_concepts": 787}),
        ("test", 100, 960, {"ignored_concepts": 960}),
    ],
)
def test_ncbi_pubtator_has_its_documents_and_mentions(
    name: str, documents: int, entities: int, notes: dict[str, int], tmp_path: Path
) -> None:
    result = load_documents(PUBTATOR / f"NCBI{name}set_corpus.txt", "pubtator")
    assert len(result.documents) == documents
    assert count_entities(result.documents) == entities
    assert result.notes == notes
    save_documents(result.documents, tmp_path / "again.txt", "pubtator")
    assert load_documents(tmp_path / "again.txt", "pubtator").documents == result.documents


def test_the_mention_with_trailing_blanks_ends_at_its_offset() -> None:
    result = load_documents(PUBTATOR / "NCBItrainset_corpus.txt", "pubtator")
    (document,) = [one for one in result.documents if one.doc_id == "10923035"]
    surfaces = {document.text[entity.start : entity.end] for entity in document.entities}
    assert 'generalized epilepsy and febrile seizures " plus "' in surfaces


def test_the_four_subtypes_of_ncbi_merge_into_one() -> None:
    subtypes = ("SpecificDisease", "DiseaseClass", "Modifier", "CompositeMention")
    result = load_documents(PUBTATOR / "NCBItrainset_corpus.txt", "pubtator")
    mapping = dict.fromkeys(subtypes, "Disease")
    documents, counts = map_labels(result.documents, mapping, ["Disease"], "refuse")
    assert count_entities(documents) == 5134
    assert not counts
    assert flatten_all(documents)[1] == FlattenCounts(kept=5134)


@pytest.mark.parametrize(
    ("split", "documents", "sentences", "tokens", "entities"),
    [
        ("train", 592, 5424, 135701, 5134),
        ("devel", 100, 923, 23969, 787),
        ("test", 100, 940, 24497, 960),
    ],
)
def test_ncbi_iob_has_its_documents_sentences_tokens_and_entities(
    split: str, documents: int, sentences: int, tokens: int, entities: int, tmp_path: Path
) -> None:
    result = load_iob(split)
    assert len(result.documents) == documents
    assert sum(len(one.sentences or ()) for one in result.documents) == sentences
    assert sum(len(row) for one in result.documents for row in one.tokens or ()) == tokens
    assert count_entities(result.documents) == entities
    assert not result.notes
    for scheme in ("iob1", "iob2", "iobes"):
        options = ConllOptions(delimiter="\t", scheme=scheme)
        save_documents(result.documents, tmp_path / scheme, "conll", conll=options)
        again = load_documents(tmp_path / scheme, "conll", conll=options)
        assert again.documents == result.documents


@pytest.mark.parametrize(
    ("split", "name"), [("train", "train"), ("devel", "develop"), ("test", "test")]
)
def test_both_forms_of_ncbi_hold_the_same_documents(split: str, name: str) -> None:
    pubtator = load_documents(PUBTATOR / f"NCBI{name}set_corpus.txt", "pubtator").documents
    iob = load_iob(split).documents
    entities = {one.doc_id: len(one.entities) for one in pubtator}
    assert {one.doc_id: len(one.entities) for one in iob} == entities


def test_maccrobat_has_its_documents_labels_and_notes(maccrobat: ReadResult) -> None:
    entities = [entity for one in maccrobat.documents for entity in one.entities]
    labels = Counter(entity.label for entity in entities)
    assert len(maccrobat.documents) == 160
    assert len(entities) == 19948
    assert len(labels) == 41
    assert labels["Sign_symptom"] == 2663
    assert labels["Disease_disorder"] == 1086
    assert labels["Medication"] == 871
    assert sum(not entity.is_contiguous for entity in entities) == 40
    assert maccrobat.notes == {
        "ignored_attributes": 1097,
        "ignored_comments": 279,
        "ignored_equivalences": 1621,
        "ignored_events": 11321,
        "ignored_fields": 1,
        "ignored_relations": 12834,
    }


def test_the_maccrobat_line_with_a_trailing_tab_is_read(maccrobat: ReadResult) -> None:
    (document,) = [one for one in maccrobat.documents if one.doc_id == "25661749"]
    (entity,) = [one for one in document.entities if one.start == 2837]
    assert (document.text[2837:2841], entity.end) == ("8\u2005mg", 2841)


def test_all_types_of_maccrobat_flatten_with_these_counts(maccrobat: ReadResult) -> None:
    assert flatten_all(maccrobat.documents)[1] == FlattenCounts(
        kept=19570,
        discontinuous_resolved=40,
        same_extent_dropped=105,
        nested_dropped=272,
        overlapping_dropped=1,
        crossing_line=5,
    )


def test_three_types_of_maccrobat_flatten_with_these_counts(maccrobat: ReadResult) -> None:
    labels = ["Disease_disorder", "Sign_symptom", "Medication"]
    documents, dropped = map_labels(maccrobat.documents, None, labels, "drop")
    assert dropped.total() == 19948 - 2663 - 1086 - 871
    assert flatten_all(documents)[1] == FlattenCounts(
        kept=4614,
        discontinuous_resolved=5,
        same_extent_dropped=1,
        nested_dropped=5,
        crossing_line=1,
    )


def test_maccrobat_saves_and_loads_equal(maccrobat: ReadResult, tmp_path: Path) -> None:
    for format in ("brat", "jsonl"):
        save_documents(maccrobat.documents, tmp_path / format, format)
        again = load_documents(tmp_path / format, format)
        assert again.documents == maccrobat.documents
        assert not again.notes
