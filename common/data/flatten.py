"""Nested, overlapping and discontinuous entities to flat ones.

The rule, in this order:
    1. A discontinuous entity becomes its full extent, unless that crosses a line or a sentence;
       then it becomes its longest fragment (ties: the first).
    2. Of entities that share a character, the longest stays; ties: the leftmost, then the
       alphabetically first label. Greedy over all entities in that order.

Why the full extent: a flat tagger is scored on exact boundaries. The extent keeps both boundaries
that the annotator drew ("cardiac or limb malformations"), while a fragment alone ("malformations",
"dysfunction") is a mention nobody annotated; NCBI annotates such coordinations as one composite
mention. Across a line or a sentence no tagger can predict the extent, so there the fragment is
the larger part that still can be found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from common.data.records import Document, Entity, span


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenCounts:
    """What became of the entities; `kept` and the three `*_dropped` add up to all of them.

    Attributes:
        kept: entities in the flat document.
        discontinuous_resolved: discontinuous ones made contiguous (kept or dropped later).
        same_extent_dropped: had the extent of one that stays.
        nested_dropped: lay within one that stays.
        overlapping_dropped: crossed one that stays.
        crossing_line: original entities whose extent holds a line break.
        crossing_sentence: original entities within no single sentence; 0 without sentences.
    """

    kept: int = 0
    discontinuous_resolved: int = 0
    same_extent_dropped: int = 0
    nested_dropped: int = 0
    overlapping_dropped: int = 0
    crossing_line: int = 0
    crossing_sentence: int = 0

    def __add__(self, other: "FlattenCounts") -> "FlattenCounts":
        return FlattenCounts(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


def flatten(document: Document) -> tuple[Document, FlattenCounts]:
    """The document with contiguous entities of which no two share a character.

    Entities that cross a line or sentence in one piece stay and are counted. Flattening a flat
    document changes nothing.
    """
    resolved = [_resolve(entity, document) for entity in document.entities]
    kept: list[Entity] = []
    dropped = {"same_extent_dropped": 0, "nested_dropped": 0, "overlapping_dropped": 0}
    for entity in sorted(resolved, key=_priority):
        blockers = [k for k in kept if k.start < entity.end and entity.start < k.end]
        if blockers:
            dropped[_conflict(entity, blockers)] += 1
        else:
            kept.append(entity)
    counts = FlattenCounts(
        kept=len(kept),
        discontinuous_resolved=sum(not e.is_contiguous for e in document.entities),
        crossing_line=sum(_crosses_line(e, document) for e in document.entities),
        crossing_sentence=sum(_crosses_sentence(e, document) for e in document.entities),
        **dropped,
    )
    return replace(document, entities=tuple(kept)), counts


def flatten_all(documents: Iterable[Document]) -> tuple[tuple[Document, ...], FlattenCounts]:
    """Every document flat, and the counts added up."""
    flat, total = [], FlattenCounts()
    for document in documents:
        one, counts = flatten(document)
        flat.append(one)
        total += counts
    return tuple(flat), total


def _priority(entity: Entity) -> tuple[int, int, str]:
    return entity.start - entity.end, entity.start, entity.label


def _resolve(entity: Entity, document: Document) -> Entity:
    if entity.is_contiguous:
        return entity
    if _crosses_line(entity, document) or _crosses_sentence(entity, document):
        start, end = max(entity.fragments, key=lambda piece: piece[1] - piece[0])
        return span(start, end, entity.label)
    return span(entity.start, entity.end, entity.label)


def _crosses_line(entity: Entity, document: Document) -> bool:
    return "\n" in document.text[entity.start : entity.end]


def _crosses_sentence(entity: Entity, document: Document) -> bool:
    if document.sentences is None:
        return False
    return not any(start <= entity.start and entity.end <= end for start, end in document.sentences)


def _conflict(entity: Entity, blockers: Sequence[Entity]) -> str:
    """How an entity lies to those that displace it, none of them shorter."""
    if any((k.start, k.end) == (entity.start, entity.end) for k in blockers):
        return "same_extent_dropped"
    if any(k.start <= entity.start and entity.end <= k.end for k in blockers):
        return "nested_dropped"
    return "overlapping_dropped"
