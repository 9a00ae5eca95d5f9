"""Flat entities: which of several stays, and how the others are counted."""

from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.flatten import FlattenCounts, flatten, flatten_all
from common.data.records import Document, Entity, Offsets, span

TEXT = "cardiac or limb malformations\nwere seen. H.\ncinaedi"


def flat(
    *entities: Entity, sentences: tuple[Offsets, ...] | None = None
) -> tuple[list[Entity], dict[str, int]]:
    """Entities that stay, and the counts that are not zero."""
    document = Document(doc_id="d", text=TEXT, entities=entities, sentences=sentences)
    result, counts = flatten(document)
    return list(result.entities), {name: n for name, n in asdict(counts).items() if n}


def test_neighbours_do_not_conflict() -> None:
    both = [span(0, 7, "A"), span(7, 10, "A")]
    assert flat(*both) == (both, {"kept": 2})


def test_the_longer_of_nested_entities_stays() -> None:
    kept = span(0, 29, "B")
    assert flat(span(0, 7, "A"), kept, span(16, 29, "A")) == (
        [kept],
        {"kept": 1, "nested_dropped": 2},
    )


def test_the_longer_of_crossing_entities_stays() -> None:
    kept = span(8, 29, "A")
    assert flat(span(0, 15, "A"), kept) == ([kept], {"kept": 1, "overlapping_dropped": 1})


def test_of_equally_long_crossing_entities_the_left_one_stays() -> None:
    kept = span(0, 10, "Z")
    assert flat(span(8, 18, "A"), kept) == ([kept], {"kept": 1, "overlapping_dropped": 1})


def test_of_one_extent_the_first_label_stays() -> None:
    kept = span(0, 7, "A")
    assert flat(span(0, 7, "B"), kept) == ([kept], {"kept": 1, "same_extent_dropped": 1})


def test_a_dropped_entity_displaces_nothing() -> None:
    short, middle, long = span(0, 5, "A"), span(4, 12, "A"), span(11, 29, "A")
    assert flat(short, middle, long) == ([short, long], {"kept": 2, "overlapping_dropped": 1})


def test_a_discontinuous_entity_becomes_its_extent() -> None:
    entity = Entity(((0, 7), (16, 29)), "A")
    assert flat(entity) == ([span(0, 29, "A")], {"kept": 1, "discontinuous_resolved": 1})


def test_a_discontinuous_entity_across_a_line_becomes_its_longest_fragment() -> None:
    entity = Entity(((41, 43), (44, 51)), "A")
    expected = {"kept": 1, "discontinuous_resolved": 1, "crossing_line": 1}
    assert flat(entity) == ([span(44, 51, "A")], expected)


def test_a_discontinuous_entity_across_a_sentence_becomes_its_longest_fragment() -> None:
    entity = Entity(((0, 7), (11, 15), (16, 23)), "A")
    kept, counts = flat(entity, sentences=((0, 15), (16, 51)))
    assert kept == [span(0, 7, "A")]
    assert counts["crossing_sentence"] == 1
    assert flat(entity, sentences=((0, 29),))[0] == [span(0, 23, "A")]


def test_an_extent_that_becomes_equal_to_another_entity_is_dropped_and_counted() -> None:
    kept, counts = flat(Entity(((0, 7), (16, 29)), "A"), span(0, 29, "A"))
    assert kept == [span(0, 29, "A")]
    assert counts == {"kept": 1, "discontinuous_resolved": 1, "same_extent_dropped": 1}


def test_a_contiguous_entity_across_a_line_or_sentence_stays_and_is_counted() -> None:
    entity = span(16, 34, "A")
    expected = {"kept": 1, "crossing_line": 1, "crossing_sentence": 1}
    assert flat(entity, sentences=((0, 29), (30, 51))) == ([entity], expected)


def test_counts_add_up_over_documents() -> None:
    one = Document(doc_id="a", text=TEXT, entities=(span(0, 7, "A"), span(0, 3, "A")))
    two = Document(doc_id="b", text=TEXT, entities=(span(0, 7, "A"),))
    documents, counts = flatten_all([one, two])
    assert [len(document.entities) for document in documents] == [1, 1]
    assert counts == FlattenCounts(kept=2, nested_dropped=1)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    entities = set()
    for _ in range(draw(st.integers(0, 8))):
        cuts = sorted(draw(st.sets(st.integers(0, len(TEXT)), min_size=2, max_size=6)))
        fragments = tuple(zip(cuts[::2], cuts[1::2], strict=False))
        entities.add(Entity(fragments, draw(st.sampled_from("AB"))))
    return Document(doc_id="d", text=TEXT, entities=tuple(entities))


@settings(max_examples=100, deadline=None)
@given(documents())
def test_the_result_is_flat_complete_in_its_counts_and_stable(document: Document) -> None:
    result, counts = flatten(document)
    assert all(entity.is_contiguous for entity in result.entities)
    ends = [0, *(entity.end for entity in result.entities)]
    assert all(e.start >= end for e, end in zip(result.entities, ends, strict=False))
    dropped = counts.nested_dropped + counts.overlapping_dropped + counts.same_extent_dropped
    assert counts.kept == len(result.entities)
    assert counts.kept + dropped == len(document.entities)
    again, second = flatten(result)
    assert again == result
    assert second.kept == counts.kept


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_entities_does_not_matter(order: int) -> None:
    entities = (span(0, 10, "A"), span(8, 18, "B"), span(16, 29, "A"))
    assert flat(*entities[::order])[0] == [span(0, 10, "A"), span(16, 29, "A")]
