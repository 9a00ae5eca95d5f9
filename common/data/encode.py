"""Documents into windows of sub-words, and word tags back into character spans.

Tags live on words. A word's tag is read at its first sub-word; the other sub-words carry none.
A long input is cut into overlapping windows; each word is *owned* by the one window in which it
is farthest from an edge, so it is trained on once and predicted once.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.data.labels import bio_tags
from common.data.records import Document, Entity, Offsets, span
from common.errors import DataError

EncodeWords = Callable[[Sequence[str]], list[list[int]]]
"""Words to the sub-word ids of each, without special tokens; never an empty list for a word."""


@dataclass(frozen=True, slots=True)
class Window:
    """One model input.

    Attributes:
        document: index of the document in its corpus.
        input_ids: sub-word ids, special tokens included.
        words: index, within the document, of each word owned by this window.
        positions: index into `input_ids` of the first sub-word of each owned word.
    """

    document: int
    input_ids: tuple[int, ...]
    words: tuple[int, ...]
    positions: tuple[int, ...]


class Cutting(Protocol):
    """How a study says that documents are cut: `common.config.study.Text` is one."""

    @property
    def context(self) -> str: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def overlap_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions:
    """How documents are cut, with the ids of a tokenizer: see `common.config.study.Text`."""

    per_sentence: bool
    max_tokens: int
    overlap_tokens: int
    first_id: int
    last_id: int


def document_words(document: Document) -> tuple[Offsets, ...]:
    """All words of a tokenised document, sentence after sentence."""
    if document.tokens is None:
        raise DataError("the document is not tokenised", place=document.doc_id)
    return tuple(word for sentence in document.tokens for word in sentence)


def sentence_ranges(document: Document) -> tuple[Offsets, ...]:
    """Half-open ranges of word indices, one per sentence."""
    ranges, start = [], 0
    for sentence in document.tokens or ():
        ranges.append((start, start + len(sentence)))
        start += len(sentence)
    return tuple(ranges)


def make_windows(
    documents: Sequence[Document], encode_words: EncodeWords, options: WindowOptions
) -> tuple[Window, ...]:
    """Cut tokenised documents into windows; every word is owned by exactly one of them."""
    windows: list[Window] = []
    for index, document in enumerate(documents):
        words = document_words(document)
        pieces = encode_words([document.text[start:end] for start, end in words])
        ranges = sentence_ranges(document) if options.per_sentence else ((0, len(words)),)
        for first, last in ranges:
            if first < last:
                windows.extend(_cut(index, pieces, first, last, options))
    return tuple(windows)


def _cut(
    document: int, pieces: list[list[int]], first: int, last: int, options: WindowOptions
) -> Iterator[Window]:
    room = options.max_tokens - 2
    clipped = {i: pieces[i][:room] for i in range(first, last)}
    spans = list(_spans({i: len(p) for i, p in clipped.items()}, first, last, room, options))
    owners = _owners(spans, first, last)
    for number, (begin, end) in enumerate(spans):
        ids, words, positions = [options.first_id], [], []
        for word in range(begin, end):
            if owners[word] == number:
                words.append(word)
                positions.append(len(ids))
            ids.extend(clipped[word])
        ids.append(options.last_id)
        yield Window(document, tuple(ids), tuple(words), tuple(positions))


def _spans(
    sizes: Mapping[int, int], first: int, last: int, room: int, options: WindowOptions
) -> Iterator[Offsets]:
    begin = first
    while True:
        end, used = begin, 0
        while end < last and used + sizes[end] <= room:
            used += sizes[end]
            end += 1
        yield begin, end
        if end == last:
            return
        back, shared = end, 0
        while back - 1 > begin and shared + sizes[back - 1] <= options.overlap_tokens:
            back -= 1
            shared += sizes[back]
        while shared + sizes[end] > room:
            shared -= sizes[back]
            back += 1
        begin = back


def _owners(spans: Sequence[Offsets], first: int, last: int) -> dict[int, int]:
    """The window of each word in which its distance to the nearer inner edge is largest."""

    def distance(word: int, number: int) -> int:
        begin, end = spans[number]
        left = last if begin == first else word - begin
        right = last if end == last else end - 1 - word
        return min(left, right)

    owners: dict[int, int] = {}
    for number, (begin, end) in enumerate(spans):
        for word in range(begin, end):
            if word not in owners or distance(word, number) > distance(word, owners[word]):
                owners[word] = number
    return owners


@dataclass(frozen=True, slots=True)
class TagReport:
    """How far word tags can hold the gold entities.

    Attributes:
        entities: entities given.
        inexact: boundaries inside a word; the word counts as a whole, so the round trip widens.
        lost: no word left to hold them (blank extent, or a word another entity has).
        crossing: entities that cross a sentence boundary; tagged, but never predicted whole.
    """

    entities: int = 0
    inexact: int = 0
    lost: int = 0
    crossing: int = 0

    def __add__(self, other: "TagReport") -> "TagReport":
        return TagReport(
            self.entities + other.entities,
            self.inexact + other.inexact,
            self.lost + other.lost,
            self.crossing + other.crossing,
        )


def tags_of(document: Document, labels: Sequence[str]) -> tuple[tuple[int, ...], TagReport]:
    """IOB2 tag index of every word of a flat, tokenised document.

    Raises:
        DataError: an entity that is discontinuous or of a label the study does not have.
    """
    index = {tag: i for i, tag in enumerate(bio_tags(labels))}
    words = document_words(document)
    sentence_of = [n for n, (a, b) in enumerate(sentence_ranges(document)) for _ in range(a, b)]
    tags = [0] * len(words)
    inexact = lost = crossing = 0
    for entity in document.entities:
        if not entity.is_contiguous or entity.label not in labels:
            raise DataError(
                f"entity {entity.label} at {entity.start} is discontinuous or not in the study",
                place=document.doc_id,
                remedy="map labels with `label_map` in a site or study file",
            )
        covered = [i for i in _covered(words, entity) if tags[i] == 0]
        if not covered:
            lost += 1
            continue
        exact = words[covered[0]][0] == entity.start and words[covered[-1]][1] == entity.end
        inexact += not exact
        crossing += sentence_of[covered[0]] != sentence_of[covered[-1]]
        for i in covered:
            tags[i] = index[f"{'B' if i == covered[0] else 'I'}-{entity.label}"]
    return tuple(tags), TagReport(len(document.entities), inexact, lost, crossing)


def _covered(words: Sequence[Offsets], entity: Entity) -> Iterator[int]:
    first = bisect_right(words, entity.start, key=lambda word: word[1])
    for i in range(first, len(words)):
        if words[i][0] >= entity.end:
            return
        yield i


def entities_of(
    document: Document, tags: Sequence[int], labels: Sequence[str]
) -> tuple[Entity, ...]:
    """Character spans of IOB2 word tags, by the strict rule, within sentences.

    An entity starts at a `B-` tag and goes on over `I-` tags of the same label. A stray `I-`
    belongs to none (seqeval, `mode="strict", scheme=IOB2`).
    """
    names = bio_tags(labels)
    words = document_words(document)
    found: list[Entity] = []
    for first, last in sentence_ranges(document):
        i = first
        while i < last:
            name = names[tags[i]]
            i += 1
            if not name.startswith("B-"):
                continue
            begin = i - 1
            while i < last and names[tags[i]] == f"I-{name[2:]}":
                i += 1
            found.append(span(words[begin][0], words[i - 1][1], name[2:]))
    return tuple(found)
