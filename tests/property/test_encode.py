"""Windows hold every word once as its owner, in full context; tags hold flat entities."""

from collections.abc import Iterator, Sequence
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.encode import (
    TagReport,
    Window,
    WindowOptions,
    document_words,
    entities_of,
    make_windows,
    sentence_ranges,
    tags_of,
)
from common.data.labels import bio_tags
from common.data.records import Document, Entity, span
from common.errors import DataError

FIRST, LAST = -1, -2
LABELS = ("X", "Y")
TAGS = bio_tags(LABELS)


class OneIdPerCharacter:
    """Sub-words that never repeat, so that an id tells its word and its place in it."""

    def __init__(self) -> None:
        self._ids = count()
        self.words: list[list[list[int]]] = []

    def __call__(self, words: Sequence[str]) -> list[list[int]]:
        self.words.append([[next(self._ids) for _ in word] for word in words])
        return self.words[-1]


def document_of(sentences: Sequence[Sequence[int]], doc_id: str = "d") -> Document:
    """Words of the given lengths, one blank between them."""
    tokens: list[tuple[tuple[int, int], ...]] = []
    at = 0
    for sizes in sentences:
        row: list[tuple[int, int]] = []
        for size in sizes:
            row.append((at, at + size))
            at += size + 1
        tokens.append(tuple(row))
    kept = [row for row in tokens if row]
    return Document(
        doc_id=doc_id,
        text="x" * at,
        sentences=tuple((row[0][0], row[-1][1]) for row in kept),
        tokens=tuple(kept),
    )


_SIZES = st.one_of(st.integers(1, 4), st.integers(1, 30))
_DOCUMENTS = st.lists(st.lists(_SIZES, max_size=30), max_size=3).map(document_of)


@st.composite
def _options(draw: st.DrawFn) -> WindowOptions:
    max_tokens = draw(st.integers(5, 24))
    return WindowOptions(
        per_sentence=draw(st.booleans()),
        max_tokens=max_tokens,
        overlap_tokens=draw(st.integers(0, (max_tokens - 3) // 2)),
        first_id=FIRST,
        last_id=LAST,
    )


class Cut:
    """Documents, their windows, and what the windows hold: words found by their ids alone."""

    def __init__(self, documents: Sequence[Document], options: WindowOptions) -> None:
        encoder = OneIdPerCharacter()
        self.options = options
        self.room = options.max_tokens - 2
        self.documents = documents
        self.windows = make_windows(documents, encoder, options)
        self.pieces = encoder.words
        self.place = {
            id_: (d, w)
            for d, words in enumerate(self.pieces)
            for w, ids in enumerate(words)
            for id_ in ids
        }

    def held(self, window: Window) -> list[int]:
        """Words of a window, in order."""
        found = [self.place[id_] for id_ in window.input_ids[1:-1]]
        assert {d for d, _ in found} <= {window.document}
        return list(dict.fromkeys(w for _, w in found))

    def groups(self) -> Iterator[tuple[range, list[Window]]]:
        """The words that are cut together (a sentence, or a document), and their windows."""
        for d, document in enumerate(self.documents):
            whole = [(0, len(document_words(document)))]
            for first, last in sentence_ranges(document) if self.options.per_sentence else whole:
                words = range(first, last)
                yield (
                    words,
                    [w for w in self.windows if w.document == d and self.held(w)[0] in words],
                )


cuts = st.builds(Cut, st.lists(_DOCUMENTS, max_size=3), _options())


@given(cuts)
def test_every_word_is_owned_by_exactly_one_window(cut: Cut) -> None:
    owned = [(window.document, word) for window in cut.windows for word in window.words]
    everything = [
        (d, w) for d, document in enumerate(cut.documents) for w in range(len(cut.pieces[d]))
    ]
    assert sorted(owned) == everything


@given(cuts)
def test_windows_are_no_longer_than_asked_and_stand_between_special_tokens(cut: Cut) -> None:
    for window in cut.windows:
        assert 3 <= len(window.input_ids) <= cut.options.max_tokens
        assert (window.input_ids[0], window.input_ids[-1]) == (FIRST, LAST)


@given(cuts)
def test_windows_hold_whole_words_in_order_and_cut_only_one_that_fits_nowhere(cut: Cut) -> None:
    for window in cut.windows:
        held = cut.held(window)
        assert held == list(range(held[0], held[-1] + 1))
        pieces = [cut.pieces[window.document][word][: cut.room] for word in held]
        assert list(window.input_ids[1:-1]) == [id_ for ids in pieces for id_ in ids]


@given(cuts)
def test_positions_point_at_the_first_sub_word_of_their_word(cut: Cut) -> None:
    for window in cut.windows:
        assert len(window.positions) == len(window.words)
        for word, position in zip(window.words, window.positions, strict=True):
            assert window.input_ids[position] == cut.pieces[window.document][word][0]


@given(cuts)
def test_what_is_cut_together_shares_no_window_with_anything_else(cut: Cut) -> None:
    seen = 0
    for words, windows in cut.groups():
        seen += len(windows)
        assert {word for window in windows for word in cut.held(window)} == set(words)
    assert seen == len(cut.windows)


@given(cuts)
def test_what_fits_into_one_window_is_in_one(cut: Cut) -> None:
    for d, document in enumerate(cut.documents):
        sizes = [len(ids) for ids in cut.pieces[d]]
        fits = [sum(sizes[a:b]) <= cut.room for a, b in sentence_ranges(document)]
        if cut.options.per_sentence and all(fits):
            assert sum(window.document == d for window in cut.windows) == len(fits)
        if not cut.options.per_sentence and sizes and sum(sizes) <= cut.room:
            assert sum(window.document == d for window in cut.windows) == 1


@given(cuts)
def test_neighbouring_windows_share_as_many_words_as_overlap_and_room_hold(cut: Cut) -> None:
    for _, windows in cut.groups():
        for left, right in pairwise(windows):
            sizes = {w: len(ids[: cut.room]) for w, ids in enumerate(cut.pieces[left.document])}
            before, after = cut.held(left), cut.held(right)
            shared = [word for word in before if word in after]
            assert shared == before[len(before) - len(shared) :]
            size = sum(sizes[word] for word in shared)
            assert size <= cut.options.overlap_tokens
            more = after[0] - 1
            room = cut.room - sizes[before[-1] + 1]
            limit = min(cut.options.overlap_tokens, room)
            assert size <= limit
            assert more == before[0] or size + sizes[more] > limit


@given(cuts)
def test_every_window_reaches_a_word_that_the_one_before_does_not(cut: Cut) -> None:
    for _, windows in cut.groups():
        for left, right in pairwise(windows):
            assert cut.held(right)[-1] > cut.held(left)[-1]


def test_windows_of_a_long_text_of_short_words_share_the_whole_overlap() -> None:
    options = WindowOptions(
        per_sentence=True, max_tokens=12, overlap_tokens=4, first_id=FIRST, last_id=LAST
    )
    cut = Cut([document_of([[1] * 22])], options)
    assert [cut.held(window)[0] for window in cut.windows] == [0, 6, 12]
    assert [window.words for window in cut.windows] == [
        tuple(range(8)),
        tuple(range(8, 14)),
        tuple(range(14, 22)),
    ]


@given(cuts)
def test_a_word_is_owned_where_it_is_farthest_from_an_inner_edge(cut: Cut) -> None:
    for words, windows in cut.groups():
        held = [cut.held(window) for window in windows]

        def context(
            word: int, inside: list[int], first: int = words.start, last: int = words.stop - 1
        ) -> float:
            left = float("inf") if inside[0] == first else word - inside[0]
            right = float("inf") if inside[-1] == last else inside[-1] - word
            return min(left, right)

        for window, inside in zip(windows, held, strict=True):
            for word in window.words:
                best = max(context(word, other) for other in held if word in other)
                assert context(word, inside) == best


def test_a_document_without_words_has_no_windows() -> None:
    options = WindowOptions(
        per_sentence=False, max_tokens=16, overlap_tokens=0, first_id=FIRST, last_id=LAST
    )
    assert Cut([document_of([])], options).windows == ()


def test_a_document_that_is_not_tokenised_is_refused() -> None:
    with pytest.raises(DataError, match="not tokenised"):
        tags_of(Document(doc_id="d", text="zorblax"), LABELS)


@st.composite
def on_word_boundaries(draw: st.DrawFn) -> Document:
    """A document with flat entities that start and end with words of one sentence."""
    document = draw(_DOCUMENTS)
    words = document_words(document)
    entities: list[Entity] = []
    for first, last in sentence_ranges(document):
        i = first
        while i < last:
            length = draw(st.integers(0, min(3, last - i)))
            if length:
                label = draw(st.sampled_from(LABELS))
                entities.append(span(words[i][0], words[i + length - 1][1], label))
            i += length or 1
    return _with(document, entities)


@st.composite
def anywhere(draw: st.DrawFn) -> Document:
    """A document with flat entities over any characters."""
    document = draw(_DOCUMENTS.filter(lambda d: len(d.text) > 1))
    cut_points = draw(st.lists(st.integers(0, len(document.text)), unique=True, max_size=16))
    pairs = [p for p in pairwise(sorted(cut_points)) if draw(st.booleans())]
    return _with(document, [span(a, b, draw(st.sampled_from(LABELS))) for a, b in pairs])


def _with(document: Document, entities: Sequence[Entity]) -> Document:
    return Document(
        doc_id=document.doc_id,
        text=document.text,
        sentences=document.sentences,
        tokens=document.tokens,
        entities=tuple(entities),
    )


@given(on_word_boundaries())
def test_entities_on_word_boundaries_come_back_as_they_were(document: Document) -> None:
    tags, report = tags_of(document, LABELS)
    assert len(tags) == len(document_words(document))
    assert entities_of(document, tags, LABELS) == document.entities
    assert report == TagReport(entities=len(document.entities))


def _reference(document: Document) -> TagReport:
    """The report by its words: entity by entity, character by character."""
    owner: dict[int, Entity] = {}
    sentence_of = {
        word: number
        for number, (first, last) in enumerate(sentence_ranges(document))
        for word in range(first, last)
    }
    inexact = lost = crossing = 0
    for entity in document.entities:
        mine = [
            i
            for i, (start, end) in enumerate(document_words(document))
            if set(range(start, end)) & set(range(entity.start, entity.end)) and i not in owner
        ]
        owner.update(dict.fromkeys(mine, entity))
        words = [document_words(document)[i] for i in mine]
        lost += not mine
        inexact += bool(mine) and (words[0][0], words[-1][1]) != (entity.start, entity.end)
        crossing += len({sentence_of[i] for i in mine}) > 1
    return TagReport(len(document.entities), inexact, lost, crossing)


@given(anywhere())
def test_what_word_tags_cannot_hold_is_counted(document: Document) -> None:
    tags, report = tags_of(document, LABELS)
    assert report == _reference(document)
    back = entities_of(document, tags, LABELS)
    assert len(back) == report.entities - report.lost
    assert len(set(document.entities) - set(back)) <= report.inexact + report.lost + report.crossing
    if not (report.inexact or report.lost or report.crossing):
        assert back == document.entities


def test_a_boundary_inside_a_word_takes_the_whole_word_and_is_counted() -> None:
    document = _with(document_of([[4, 4, 4]]), [span(1, 7, "X")])
    tags, report = tags_of(document, LABELS)
    assert [TAGS[tag] for tag in tags] == ["B-X", "I-X", "O"]
    assert entities_of(document, tags, LABELS) == (span(0, 9, "X"),)
    assert report == TagReport(entities=1, inexact=1)


def test_an_entity_whose_only_word_is_taken_or_that_is_blank_is_lost_and_counted() -> None:
    document = _with(document_of([[4, 4]]), [span(0, 2, "X"), span(2, 4, "Y"), span(4, 5, "Y")])
    tags, report = tags_of(document, LABELS)
    assert [TAGS[tag] for tag in tags] == ["B-X", "O"]
    assert report == TagReport(entities=3, inexact=1, lost=2)


def test_an_entity_across_sentences_is_tagged_counted_and_predicted_only_to_the_boundary() -> None:
    document = _with(document_of([[2, 2], [2, 2]]), [span(3, 8, "X")])
    tags, report = tags_of(document, LABELS)
    assert [TAGS[tag] for tag in tags] == ["O", "B-X", "I-X", "O"]
    assert report == TagReport(entities=1, crossing=1)
    assert entities_of(document, tags, LABELS) == (span(3, 5, "X"),)


def test_neighbouring_entities_of_one_label_stay_two() -> None:
    document = _with(document_of([[2, 2, 2]]), [span(0, 5, "X"), span(6, 8, "X")])
    tags, _ = tags_of(document, LABELS)
    assert [TAGS[tag] for tag in tags] == ["B-X", "I-X", "B-X"]


@pytest.mark.parametrize(
    "entity", [span(0, 2, "Z"), Entity(((0, 2), (3, 5)), "X")], ids=["label", "discontinuous"]
)
def test_an_entity_that_is_not_flat_or_not_in_the_study_is_refused(entity: Entity) -> None:
    with pytest.raises(DataError, match="discontinuous or not in the study"):
        tags_of(_with(document_of([[2, 2]]), [entity]), LABELS)


def test_stray_inside_tags_belong_to_no_entity() -> None:
    document = document_of([[1, 1, 1, 1], [1]])
    names = ["I-X", "B-Y", "I-X", "B-X", "I-X"]
    found = entities_of(document, [TAGS.index(name) for name in names], LABELS)
    assert found == (span(2, 3, "Y"), span(6, 7, "X"))


def test_reports_add_up() -> None:
    assert TagReport(1, 2, 3, 4) + TagReport(10, 20, 30, 40) == TagReport(11, 22, 33, 44)
