"""Abbreviations get the tag of the name that their document defines them for, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.abbreviations import tag_abbreviations
from common.data.encode import document_words, sentence_ranges
from common.data.labels import bio_tags
from common.data.records import Document
from common.data.sentences import tokenise

TAGS = bio_tags(("Disease", "Gene"))


def tagged(text: str, *spans: tuple[str, str]) -> list[str]:
    """`WORD/TAG` of what comes out; each span, an entity's words and label, is tagged at first."""
    document = tokenise(Document(doc_id="d", text=text))
    words = [text[a:b] for a, b in document_words(document)]
    tags = [0] * len(words)
    for name, label in spans:
        parts = name.split()
        first = next(i for i in range(len(words)) if words[i : i + len(parts)] == parts)
        begin = TAGS.index(f"B-{label}")
        tags[first : first + len(parts)] = [begin, *[begin + 1] * (len(parts) - 1)]
    after = tag_abbreviations(document, tags)
    return [
        f"{w}/{TAGS[new]}" for w, old, new in zip(words, tags, after, strict=True) if new != old
    ]


HD = ("Huntington disease", "Disease")


def test_every_place_of_a_defined_abbreviation_gets_the_names_label():
    text = "Huntington disease (HD) is rare.\nHD begins late; juvenile HD does not."
    assert tagged(text, HD) == ["HD/B-Disease"] * 3


def test_places_before_the_definition_count_too():
    assert tagged("HD is rare.\nHuntington disease (HD) begins late.", HD) == ["HD/B-Disease"] * 2


def test_an_abbreviation_of_several_words_is_one_entity():
    text = "Ataxia telangiectasia (A-T) is rare.\nA-T begins early."
    one = ["A/B-Disease", "-/I-Disease", "T/I-Disease"]
    assert tagged(text, ("Ataxia telangiectasia", "Disease")) == one * 2


def test_the_label_is_that_of_the_name():
    text = "Huntington disease (HD) and the huntingtin gene (HTT).\nHTT causes HD."
    diseases, genes = ["HD/B-Disease"] * 2, ["HTT/B-Gene"] * 2
    found = tagged(text, HD, ("huntingtin gene", "Gene"))
    assert sorted(found) == diseases + genes


@pytest.mark.parametrize(
    "text",
    [
        "Huntington disease (OMIM) is rare.",  # other characters
        "Huntington disease (2) is rare.",  # too short
        "Huntington disease (hd) is rare.",  # no capital
        "Huntington disease, HD, is rare.",  # no parenthesis
        "Huntington disease (HD is rare.",  # never closed
        "Huntington disease (also known as HD) is rare.",  # more than an abbreviation
        "Huntington disease is rare (HD).",  # the name ends before
        "Handsome Huntington disease.\n(HD)",  # another sentence
        "Huntington disease (NT) is rare.",  # begins within a word
    ],
)
def test_what_defines_nothing_changes_nothing(text):
    assert tagged(text, HD) == []


def test_a_short_form_of_two_labels_is_left_alone():
    text = "Huntington disease (HD) and huntingtin domain (HD).\nHD."
    assert tagged(text, HD, ("huntingtin domain", "Gene")) == []


def test_a_word_that_has_a_tag_keeps_it():
    text = "Huntington disease (HD) is rare.\nJuvenile HD begins early."
    assert tagged(text, HD, ("Juvenile HD", "Disease")) == ["HD/B-Disease"]


def test_an_abbreviation_of_an_untagged_name_stays_untagged():
    assert tagged("Huntington disease (HD) is rare.") == []


def test_another_spelling_is_another_word():
    assert tagged("Huntington disease (HD) is rare.\nHDs, hd.", HD) == ["HD/B-Disease"]


PIECES = [
    "Huntington disease",
    "HD",
    "A-T",
    "(",
    ")",
    "(HD)",
    "(A-T)",
    "ataxia telangiectasia",
    ".\n",
]


@given(st.lists(st.sampled_from([*PIECES, ".\n"]), max_size=20), st.data())
def test_whatever_the_document_tags_stay_lawful_and_no_tag_is_lost(pieces, data):
    document = tokenise(Document(doc_id="d", text=" ".join(pieces)))
    tags = [tag for sentence in sentence_ranges(document) for tag in lawful(sentence, data)]
    after = tag_abbreviations(document, tags)
    assert all(new == old for new, old in zip(after, tags, strict=True) if old)
    for first, last in sentence_ranges(document):
        before = 0
        for tag in after[first:last]:
            assert tag == 0 or tag % 2 == 1 or before in {tag, tag - 1}
            before = tag


def lawful(sentence: tuple[int, int], data: st.DataObject) -> list[int]:
    tags, before = [], 0
    for _ in range(*sentence):
        inside = [before + before % 2] if before else []
        before = data.draw(st.sampled_from([0, 1, 3, *inside]))
        tags.append(before)
    return tags
