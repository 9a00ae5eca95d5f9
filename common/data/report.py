"""What the four readers share: their result, their notes and the checks of names and offsets.

Guarantees:
    - A reader gives every document of its input or raises `DataError`; never a part.
    - What it merged or ignored is counted in the notes under a name of `NOTES`; a note that is
      not there is zero.
    - No message quotes the input: only places, expectations and numbers.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from common.data.records import Document, Entity, Offsets
from common.errors import DataError

NOTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "duplicate_documents": "documents that stood twice, word for word, and were merged",
        "duplicate_entities": "entities with the fragments and label of another, merged",
        "trailing_blanks": "surfaces that differed from the text in trailing blanks only",
        "unnamed_documents": "documents without an id, numbered by their place in the file",
        "blank_lines": "empty annotation lines",
        "ignored_relations": "relation lines",
        "ignored_events": "event lines",
        "ignored_attributes": "attribute and modification lines",
        "ignored_equivalences": "`*` lines",
        "ignored_normalizations": "normalisation lines",
        "ignored_comments": "`#` lines",
        "ignored_fields": "entity lines with more fields than the format has",
        "ignored_concepts": "concept identifiers of entities",
        "ignored_files": "files beside the documents of a folder",
        "unused_patients": "rows of the patients table without a document",
    }
)

_NUMBER = re.compile(r"[0-9]{1,9}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ReadResult:
    """All documents of one source, and what the reader merged or ignored.

    Attributes:
        documents: in the order of the source, `doc_id` unique.
        notes: name in `NOTES` to a count above zero; read only.

    Raises:
        DataError: a document id stands twice.
        KeyError: a note that `NOTES` does not explain (a fault of the reader).
    """

    documents: tuple[Document, ...]
    notes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_unique_ids(self.documents)
        for name in self.notes:
            if name not in NOTES:
                raise KeyError(name)
        counted = {name: count for name, count in sorted(self.notes.items()) if count}
        object.__setattr__(self, "notes", MappingProxyType(counted))

    def lines(self) -> tuple[str, ...]:
        """One readable line per note."""
        return tuple(f"{count} {NOTES[name]}" for name, count in self.notes.items())


def join_results(results: Iterable[ReadResult]) -> ReadResult:
    """Documents in order, notes added up."""
    documents: list[Document] = []
    notes: Counter[str] = Counter()
    for result in results:
        documents.extend(result.documents)
        notes.update(result.notes)
    return ReadResult(tuple(documents), notes)


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Give a `DataError` from inside this place, in front of the one it has."""
    try:
        yield
    except DataError as error:
        inner = f"{error.place}: " if error.place else ""
        raise DataError(inner + error.message, place=place, remedy=error.remedy) from None


def check_unique_ids(documents: Sequence[Document]) -> None:
    """Refuse two documents with one id."""
    seen: set[str] = set()
    for document in documents:
        if document.doc_id in seen:
            raise DataError(
                "two documents have this id", place=document.doc_id, remedy="give each its own id"
            )
        seen.add(document.doc_id)


def check_id(value: str, place: str, what: str = "document id") -> str:
    """Refuse an identifier that is empty, not printable, or has blanks around it."""
    if not value or not value.isprintable() or value != value.strip():
        raise DataError(f"expected a {what}: printable, without blanks around it", place=place)
    return value


def check_label(value: str, place: str) -> str:
    """Refuse a label that is empty, not printable, or has blanks in it."""
    if not value or not value.isprintable() or " " in value:
        raise DataError("expected a label: printable, without blanks", place=place)
    return value


def check_content(text: str, place: str) -> str:
    """Refuse what no UTF-8 text file should hold: a byte order mark, NUL, lone surrogates."""
    if text.startswith("\ufeff"):
        raise DataError(
            "a byte order mark stands at the start; it would shift every offset",
            place=f"{place}:1",
            remedy="save the file as UTF-8 without BOM",
        )
    if (at := text.find("\0")) >= 0:
        raise DataError(
            f"a NUL character at offset {at}",
            place=f"{place}:{text.count(chr(10), 0, at) + 1}",
            remedy="save the file as UTF-8",
        )
    if found := _SURROGATE.search(text):
        raise DataError(
            f"half a surrogate pair at offset {found.start()}; it can't be written as UTF-8",
            place=f"{place}:{text.count(chr(10), 0, found.start()) + 1}",
        )
    return text


def parse_number(value: str, what: str, place: str) -> int:
    """A non-negative decimal of ASCII digits, nine at most."""
    if not _NUMBER.fullmatch(value):
        raise DataError(f"expected {what}: a number of one to nine digits", place=place)
    return int(value)


def make_entity(fragments: tuple[Offsets, ...], label: str, text: str, place: str) -> Entity:
    """An entity of `text`; offsets, order of fragments and label are checked."""
    check_label(label, place)
    for start, end in fragments:
        if not 0 <= start < end <= len(text):
            raise DataError(
                f"expected offsets 0 <= start < end <= {len(text)} (the length of the text)",
                place=place,
            )
    with placed(place):
        return Entity(fragments, label)


def distinct(entities: Sequence[Entity], notes: Counter[str]) -> tuple[Entity, ...]:
    """Entities without exact duplicates; merged ones are counted."""
    unique = tuple(dict.fromkeys(entities))
    notes["duplicate_entities"] += len(entities) - len(unique)
    return unique
