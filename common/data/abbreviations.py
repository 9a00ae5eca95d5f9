"""Abbreviations that a document defines, tagged wherever they stand as the name they stand for.

Of `HD` alone a sentence does not tell whether it is a disease; the sentence that writes
`Huntington disease ( HD )` does. Definitions are found as in Schwartz and Hearst 2003 (A simple
algorithm for identifying abbreviation definitions in biomedical text, Pac. Symp. Biocomput.
8:451-462): a short form in parentheses, whose characters stand in this order in the words before.

Guarantees:
    1. A word that has a tag keeps it: only words tagged `O` get another.
    2. Tags change only at words equal, letter by letter, to a short form that the same document
       defines, for a name tagged up to the parenthesis.
    3. Tags that IOB2 allows stay so; none goes on over the end of a sentence.
    4. A short form defined for names of different labels is left alone.
"""

from collections.abc import Iterator, Sequence

from common.data.encode import document_words, sentence_ranges
from common.data.records import Document, Offsets

Words = tuple[str, ...]

_LONGEST = 10
"""Characters of a short form (Schwartz and Hearst 2003, section 2)."""
_MOST_WORDS = 4
"""Words of a short form, as tokenisers cut `A-T` into three."""


def tag_abbreviations(document: Document, tags: Sequence[int]) -> list[int]:
    """The tags with those of abbreviations added.

    Args:
        document: tokenised.
        tags: index into `bio_tags` per word, as IOB2 allows.
    """
    words = tuple(document.text[start:end] for start, end in document_words(document))
    ranges = sentence_ranges(document)
    labels: dict[Words, set[int]] = {}
    for short, last in _definitions(words, ranges):
        if tags[last] > 0:
            labels.setdefault(words[slice(*short)], set()).add(_begin(tags[last]))
    result = list(tags)
    for short_form, (begin, *others) in labels.items():
        if not others:
            for sentence in ranges:
                _tag_all(words, sentence, short_form, begin, result)
    return result


def _begin(tag: int) -> int:
    """`B-X` of a tag of X: odd indices, in the order of `bio_tags`."""
    return tag - 1 + tag % 2


def _tag_all(words: Words, sentence: Offsets, short: Words, begin: int, tags: list[int]) -> None:
    size = len(short)
    for first in range(sentence[0], sentence[1] - size + 1):
        here = slice(first, first + size)
        if words[here] == short and not any(tags[here]):
            tags[here] = [begin, *[begin + 1] * (size - 1)]


def _definitions(words: Words, sentences: Sequence[Offsets]) -> Iterator[tuple[Offsets, int]]:
    """Range of each defined short form, and the last word of its long form."""
    for first, last in sentences:
        for opening in range(first + 1, last):
            short = _parenthesis(words, opening, last)
            if short is None:
                continue
            text = "".join(words[slice(*short)])
            reach = max(first, opening - min(len(text) + 5, 2 * len(text)))
            if _is_short_form(text) and _stands_for(text, words[reach:opening]):
                yield short, opening - 1


def _parenthesis(words: Words, opening: int, last: int) -> Offsets | None:
    """Range of the few words in a parenthesis that opens here."""
    if words[opening] != "(":
        return None
    for closing in range(opening + 2, min(opening + _MOST_WORDS + 2, last)):
        if words[closing] == ")":
            return opening + 1, closing
    return None


def _is_short_form(text: str) -> bool:
    return 2 <= len(text) <= _LONGEST and text[0].isalnum() and any(c.isupper() for c in text)


def _stands_for(short: str, words: Words) -> bool:
    """Whether the characters of the short form stand in the words, the first at a word's start."""
    long = " ".join(words).lower()
    at = len(long)
    for index in range(len(short) - 1, -1, -1):
        char = short[index].lower()
        if not char.isalnum():
            continue
        at = long.rfind(char, 0, at)
        while index == 0 and at > 0 and long[at - 1].isalnum():
            at = long.rfind(char, 0, at)
        if at < 0:
            return False
    return True
