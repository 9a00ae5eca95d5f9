"""Sentences and words as character offsets, by rule, without looking at any annotation.

Guarantees:
    1. Offsets are ascending and disjoint, and index the text as given: nothing is normalised.
    2. Sentences cover every non-blank character (`not c.isspace()`), and neither begin nor end
       with a blank. A line break always ends a sentence.
    3. Words cover every non-blank character between the bounds they are asked for.
    4. The annotated entities have no influence: at test time there are none.

A full stop too few joins two sentences, which costs little; one too many may cut through an
entity, so doubt is settled for joining.
"""

import re
import unicodedata
from dataclasses import replace

from common.data.records import Document, Offsets

_LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_STOP = re.compile(r"(?<![.!?…])([.!?…]+)[\"'”’»)\]]*(?=\s+(\S))")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«/]*$")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_LIST_NUMBER = re.compile(r"\d{1,2}|[ivx]{1,4}|[IVX]{1,4}")
_WINDOW = 24  # how many characters before a full stop decide on it


def _abbreviations(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LAST = _abbreviations(
    """
    dr drs prof mr mrs ms st sr jr dipl rev e.g i.e eg ie cf vs viz ca approx resp incl excl esp
    fig figs eq ref refs al spp sp subsp var nr pt pts dx hx rx tx
    """
)
"""Abbreviations that a sentence hardly ends with."""

_RARELY_LAST = _abbreviations(
    """
    mg g kg mcg ug µg μg ng ml dl l mm cm mmol mol iu hr hrs h min mins sec wk wks mo yr yrs
    tab tabs cap caps inj susp dept hosp temp resp wt ht max avg est etc co inc ltd
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun
    """
)
"""Abbreviations that end a sentence only if a capital follows."""

_BEFORE_NUMBER = _abbreviations("no nos p pp vol art sec ch")
"""Abbreviations when a number follows, words otherwise."""


def split_sentences(text: str) -> tuple[Offsets, ...]:
    """The sentences of `text`."""
    return tuple(
        offsets
        for line in _LINE.finditer(text)
        for offsets in _split_line(text, line.start(), line.end())
    )


def split_words(text: str, start: int, end: int) -> tuple[Offsets, ...]:
    """The words of `text[start:end]`, as offsets into `text`.

    A word is a run of letters, digits and combining marks; every other non-blank character
    stands alone, and so does a Chinese character, as in BERT's basic tokenizer.
    """
    words: list[Offsets] = []
    open_until = -1  # end of the last word, if the next character may still join it
    for index in range(start, end):
        char = text[index]
        if char.isspace():
            continue
        joins = _joins(char)
        if joins and open_until == index:
            words[-1] = (words[-1][0], index + 1)
        else:
            words.append((index, index + 1))
        if joins:
            open_until = index + 1
    return tuple(words)


def tokenise(document: Document) -> Document:
    """The document with sentences and tokens; those its source gave are kept."""
    if document.tokens is not None:
        return document
    sentences = document.sentences
    if sentences is None:
        sentences = split_sentences(document.text)
    tokens = tuple(split_words(document.text, start, end) for start, end in sentences)
    return replace(document, sentences=sentences, tokens=tokens)


def _split_line(text: str, start: int, end: int) -> list[Offsets]:
    sentences: list[Offsets] = []
    for stop in _STOP.finditer(text, start, end):
        if _ends_sentence(text, start, stop):
            sentences += _trimmed(text, start, stop.end())
            start = stop.end()
    return sentences + _trimmed(text, start, end)


def _trimmed(text: str, start: int, end: int) -> list[Offsets]:
    """The piece without blanks at its ends, or nothing if it is blank."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end = start + len(piece.strip())
    return [(start, end)] if start < end else []


def _ends_sentence(text: str, start: int, stop: re.Match[str]) -> bool:
    marks, following = stop.groups()
    if marks != ".":
        return not following.islower()
    before = text[max(start, stop.start() - _WINDOW) : stop.start()]
    return not (_LIST_NUMBER.fullmatch(before.strip()) or _is_abbreviation(before, following))


def _is_abbreviation(before: str, following: str) -> bool:
    """Whether the full stop between the two belongs to the last word of `before`."""
    match = _LAST_WORD.search(before)
    word = match.group() if match else ""
    key = word.lower()
    if key in _NEVER_LAST:
        return not (word.isupper() and word.isalpha())  # `MS` is no `Ms.`
    if key in _RARELY_LAST or _DOTTED.fullmatch(word):
        return not following.isupper()
    if key in _BEFORE_NUMBER:
        return following.isdigit()
    return len(word) == 1 and word.isalpha()


def _joins(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM" and not _is_chinese(ord(char))


def _is_chinese(code: int) -> bool:
    """The CJK ideograph blocks that BERT's basic tokenizer names."""
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )
