"""Sentence and word offsets: complete, ascending, repeatable; and the rules one by one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.records import Document, span
from common.data.sentences import split_sentences, split_words, tokenise

_PIECES = [
    *("Dr.", "e.g.", "mg.", "3.5", "No.", "A.", "...", "!", "?", "\n", "\t", "\r\n", "\u2028"),
    *(".", ",", "fever", "Pain", "über", "naïve", "e\u0301", "2.", "肺炎", "1.5mg", "²", ")", '"'),
    *("(see", "vs.", "b.d.", "Fig.", "\u200b", "-", "/", "°C", "µg", "", "\x1c", "\u0301"),
]
_CLINICAL = st.lists(st.sampled_from(_PIECES), max_size=40).map(" ".join)
_TEXT = st.one_of(st.text(max_size=200), _CLINICAL)


def _visible(text: str, start: int, end: int) -> list[int]:
    return [i for i in range(start, end) if not text[i].isspace()]


def _covered(pieces: tuple[tuple[int, int], ...]) -> list[int]:
    return [i for start, end in pieces for i in range(start, end)]


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


def _words(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text, 0, len(text))]


@given(_TEXT)
def test_sentences_cover_every_non_blank_character_once_and_in_order(text: str) -> None:
    covered = _covered(split_sentences(text))
    assert covered == sorted(set(covered))
    assert [i for i in covered if not text[i].isspace()] == _visible(text, 0, len(text))


@given(_TEXT)
def test_sentences_hold_no_line_break_and_no_blank_at_their_ends(text: str) -> None:
    for sentence in _sentences(text):
        assert sentence == sentence.strip()
        assert len(sentence.splitlines()) == 1


@given(_TEXT, st.data())
def test_words_cover_exactly_the_non_blank_characters_asked_for(
    text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    assert _covered(split_words(text, start, end)) == _visible(text, start, end)


@given(_TEXT)
def test_splitting_again_gives_the_same(text: str) -> None:
    assert split_sentences(text) == split_sentences(text)
    assert split_words(text, 0, len(text)) == split_words(text, 0, len(text))


@given(_TEXT)
def test_a_tokenised_document_is_valid_and_tokenising_it_again_changes_nothing(text: str) -> None:
    once = tokenise(Document(doc_id="d", text=text))
    assert once.sentences == split_sentences(text)
    assert tokenise(once) == once


@given(_TEXT, st.data())
def test_entities_do_not_influence_the_split(text: str, data: st.DataObject) -> None:
    if text:
        start = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(start + 1, len(text)))
        marked = tokenise(Document(doc_id="d", text=text, entities=(span(start, end, "X"),)))
        plain = tokenise(Document(doc_id="d", text=text))
        assert (marked.sentences, marked.tokens) == (plain.sentences, plain.tokens)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He fell. She ran.", ["He fell.", "She ran."]),
        ("no fever. denies cough.", ["no fever.", "denies cough."]),
        ("Seen by Dr. Osk today.", ["Seen by Dr. Osk today."]),
        ("Seen by J. K. Osk. Well.", ["Seen by J. K. Osk.", "Well."]),
        ("Opioids, e.g. Morphine, i.e. MST.", ["Opioids, e.g. Morphine, i.e. MST."]),
        ("See Fig. 2 and no. 3. Fine.", ["See Fig. 2 and no. 3.", "Fine."]),
        ("Pain? No. Cough.", ["Pain?", "No.", "Cough."]),
        ("CT vs. MRI.", ["CT vs. MRI."]),
        (
            "Took 5 mg. twice. Then 10 mg. Felt well.",
            ["Took 5 mg. twice.", "Then 10 mg.", "Felt well."],
        ),
        ("Given p.o. daily. b.d. Now stop.", ["Given p.o. daily.", "b.d.", "Now stop."]),
        ("Temp 38.5 and .5 mg given.", ["Temp 38.5 and .5 mg given."]),
        ("1. pneumonia\n2. AF", ["1. pneumonia", "2. AF"]),
        ("She has MS. He has not.", ["She has MS.", "He has not."]),
        ("Ms. Osk came.", ["Ms. Osk came."]),
        ('He said "stop." Then left.', ['He said "stop."', "Then left."]),
        ("Really?! Yes... maybe so", ["Really?!", "Yes... maybe so"]),
        ("PMH: AF\r\nMEDS: none", ["PMH: AF", "MEDS: none"]),
        ("  \n\t\n ", []),
        ("", []),
    ],
)
def test_sentence_rules(text: str, sentences: list[str]) -> None:
    assert _sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("co-amoxiclav 1.5mg/24h", ["co", "-", "amoxiclav", "1", ".", "5mg", "/", "24h"]),
        ("Ménière's", ["Ménière", "'", "s"]),
        ("Me\u0301nie\u0300re", ["Me\u0301nie\u0300re"]),
        ("38°C µg ²", ["38", "°", "C", "µg", "²"]),
        ("肺炎を", ["肺", "炎", "を"]),
        ("a肺b", ["a", "肺", "b"]),
        ("snake_case", ["snake", "_", "case"]),
        ("x\u00a0y", ["x", "y"]),
        ("𝛼1 😀😀", ["𝛼1", "😀", "😀"]),
    ],
)
def test_word_rules(text: str, words: list[str]) -> None:
    assert _words(text) == words


def test_sentences_and_tokens_of_the_source_are_kept() -> None:
    text = "One. Two three."
    given_all = Document(doc_id="d", text=text, sentences=((0, 15),), tokens=(((0, 3), (5, 8)),))
    assert tokenise(given_all) is given_all
    given_sentences = Document(doc_id="d", text=text, sentences=((0, 15),))
    assert tokenise(given_sentences).sentences == ((0, 15),)
    assert len((tokenise(given_sentences).tokens or ((),))[0]) == 5


@pytest.mark.parametrize("piece", ["a. B", ". ", ".", "x", " ", '."', "e.g. "])
def test_a_long_line_takes_time_in_proportion_to_its_length(piece: str) -> None:
    text = piece * 50_000
    start = time.process_time()
    split_sentences(text)
    assert time.process_time() - start < 3
