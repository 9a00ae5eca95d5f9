r"""brat standoff: the text in one file, `T` lines in another.

    T1<TAB>Sign_symptom 38 46;50 61<TAB>cardiac malformations

Lines end at `\n` only (a text may hold other line ends), only the first three fields of a `T`
line are read. Offsets are code points of the text as it is, CR included. The third field must
be the text at the offsets: fragments joined by a space, line ends as spaces.

Checked for an id that stands once, then counted and ignored: events (E), relations (R),
attributes (A, M), normalisations (N), comments (#), equivalences (`*`, which have no id).
brat has no document ids and no patients: both are arguments. CRLF is accepted in `.ann`; a byte
order mark is refused in both files.
"""

import re
from collections import Counter
from pathlib import PurePath

from common.data.records import Document, Entity, Offsets
from common.data.report import (
    ReadResult,
    check_content,
    check_id,
    check_label,
    distinct,
    make_entity,
    parse_number,
)
from common.errors import DataError

_ID = re.compile(r"([TERAMN#])[0-9]{1,9}|(\*)")
_KINDS = {
    "E": "ignored_events",
    "R": "ignored_relations",
    "A": "ignored_attributes",
    "M": "ignored_attributes",
    "N": "ignored_normalizations",
    "#": "ignored_comments",
    "*": "ignored_equivalences",
}


def parse_brat(
    text: str,
    annotations: str,
    source: str,
    doc_id: str | None = None,
    patient_id: str | None = None,
) -> ReadResult:
    """Read one document.

    Args:
        text: the whole `.txt` file.
        annotations: the whole `.ann` file.
        source: name of the `.ann` file, for errors.
        doc_id: the stem of `source` if absent.
        patient_id: whom the document is about.

    Returns:
        One document without sentences and tokens.

    Raises:
        DataError: with place `source:line`: an unknown or repeated id, a `T` line that is not
            three fields, offsets out of order or outside the text, a surface that is not the
            text there.
    """
    check_content(text, f"{source.removesuffix('.ann')}.txt")
    check_content(annotations, source)
    name = check_id(doc_id if doc_id is not None else PurePath(source).stem, source)
    if patient_id is not None:
        check_id(patient_id, source, "patient id")
    notes: Counter[str] = Counter()
    entities, seen = [], set()
    for number, line in enumerate(annotations.removesuffix("\n").split("\n"), 1):
        place, row = f"{source}:{number}", line.removesuffix("\r")
        if not row.strip():
            notes["blank_lines"] += bool(annotations)
            continue
        line_id, kind, rest = _head(row, place)
        if line_id in seen:
            raise DataError("the id stands twice in this file", place=place)
        seen.update({line_id} - {"*"})
        if kind == "T":
            entities.append(_entity(rest, text, place, notes))
        else:
            notes[_KINDS[kind]] += 1
    document = Document(
        doc_id=name, text=text, entities=distinct(entities, notes), patient_id=patient_id
    )
    return ReadResult((document,), notes)


def _head(row: str, place: str) -> tuple[str, str, str]:
    """Id, kind and the fields behind the first tab."""
    line_id, tab, rest = row.partition("\t")
    match = _ID.fullmatch(line_id)
    if match is None or not tab or not rest:
        raise DataError(
            "expected an id (T, E, R, A, M, N or # with a number, or *), a tab and fields",
            place=place,
        )
    return line_id, match[1] or match[2], rest


def _entity(rest: str, text: str, place: str, notes: Counter[str]) -> Entity:
    head, tab, surface = rest.partition("\t")
    label, blank, offsets = head.partition(" ")
    if not tab or not blank:
        raise DataError(
            "expected id, `LABEL START END[;START END]` and surface, tab separated", place=place
        )
    fragments = tuple(_fragment(piece, place) for piece in offsets.split(";"))
    entity = make_entity(fragments, label, text, place)
    expected = _surface(text, fragments)
    found = _one_line(surface)
    if found.startswith(f"{expected}\t"):
        notes["ignored_fields"] += 1
    elif found != expected:
        raise DataError(
            f"the surface ({len(found)} characters) is not the text at the offsets "
            f"({len(expected)} characters)",
            place=place,
            remedy="the .txt file was changed after annotation, or the offsets are not code points",
        )
    return entity


def _fragment(piece: str, place: str) -> Offsets:
    numbers = piece.split(" ")
    if len(numbers) != 2:
        raise DataError("expected fragments as `START END;START END`", place=place)
    return (
        parse_number(numbers[0], "a start offset", place),
        parse_number(numbers[1], "an end offset", place),
    )


def _surface(text: str, fragments: tuple[Offsets, ...]) -> str:
    return _one_line(" ".join(text[start:end] for start, end in fragments))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def render_brat(document: Document) -> tuple[str, str]:
    """Text and annotations that `parse_brat` reads back equal, given the same ids.

    Raises:
        DataError: a document with sentences or tokens (brat holds neither), an unusable label, a
            text that is no UTF-8.
    """
    place = document.doc_id
    if document.sentences is not None or document.tokens is not None:
        raise DataError(
            "brat holds no sentences or tokens",
            place=place,
            remedy="drop them from the document, or write jsonl",
        )
    lines = []
    for number, entity in enumerate(document.entities, 1):
        offsets = ";".join(f"{start} {end}" for start, end in entity.fragments)
        surface = _surface(document.text, entity.fragments)
        lines.append(f"T{number}\t{check_label(entity.label, place)} {offsets}\t{surface}\n")
    return check_content(document.text, place), "".join(lines)
