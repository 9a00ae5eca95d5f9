r"""PubTator: a title line, an abstract line, one tab-separated line per mention.

    10192393|t|A common human skin tumour ...
    10192393|a|WNT signalling ...
    10192393<TAB>15<TAB>26<TAB>skin tumour<TAB>DiseaseClass<TAB>D012878

Documents are separated by blank lines. The text is title + `\n` + abstract: offsets count one
character between the two. Nothing is stripped but a CR at the end of a line; a byte order mark
is refused.

    a document that stands twice          merged and counted if equal, refused if not
    a surface with other trailing blanks  accepted and counted; any other difference is refused
    a concept identifier                  ignored and counted (`-`, `-1` and nothing are none)
    a seventh field (composite mentions)  ignored and counted
    a relation (4 fields)                 ignored and counted
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from common.data.records import Document, Entity
from common.data.report import (
    ReadResult,
    check_content,
    check_id,
    check_label,
    check_unique_ids,
    distinct,
    make_entity,
    parse_number,
)
from common.errors import DataError

_Lines = list[tuple[int, str]]


def parse_pubtator(text: str, source: str) -> ReadResult:
    """Read a PubTator file.

    Raises:
        DataError: with place `source:line`: a block without title and abstract of one id, a
            line of another document, a wrong number of fields, offsets outside the text, a
            surface that is not the text there, one id with two contents.
    """
    check_content(text, source)
    notes: Counter[str] = Counter()
    documents: dict[str, Document] = {}
    for block in _blocks(text):
        document = _document(block, source, notes)
        known = documents.setdefault(document.doc_id, document)
        if known != document:
            raise DataError(
                "the document id stands twice, with different contents",
                place=f"{source}:{block[0][0]}",
                remedy="remove one of the two",
            )
        notes["duplicate_documents"] += known is not document
    return ReadResult(tuple(documents.values()), notes)


def _blocks(text: str) -> Iterator[_Lines]:
    """Numbered lines between blank lines."""
    block: _Lines = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            block.append((number, line.removesuffix("\r")))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _document(block: _Lines, source: str, notes: Counter[str]) -> Document:
    first = f"{source}:{block[0][0]}"
    doc_id, title = _passage(block[0][1], "t", first)
    if len(block) < 2:
        raise DataError("expected an abstract line (`ID|a|...`) behind the title", place=first)
    second = f"{source}:{block[1][0]}"
    abstract_id, abstract = _passage(block[1][1], "a", second)
    if abstract_id != doc_id:
        raise DataError("expected the abstract of the document that has begun", place=second)
    text = f"{title}\n{abstract}"
    entities = []
    for number, line in block[2:]:
        entity = _annotation(line.split("\t"), doc_id, text, f"{source}:{number}", notes)
        if entity is not None:
            entities.append(entity)
    return Document(doc_id=doc_id, text=text, entities=distinct(entities, notes))


def _passage(line: str, kind: str, place: str) -> tuple[str, str]:
    """Document id and content of a title (`t`) or abstract (`a`) line."""
    doc_id, _, rest = line.partition("|")
    if not rest.startswith(f"{kind}|"):
        raise DataError(f"expected `ID|{kind}|...`", place=place)
    return check_id(doc_id, place), rest[2:]


def _annotation(
    fields: list[str], doc_id: str, text: str, place: str, notes: Counter[str]
) -> Entity | None:
    """The entity of a line, `None` for a relation."""
    if fields[0] != doc_id:
        raise DataError("expected a line of the document that has begun", place=place)
    if len(fields) == 4 and not fields[1].isdigit():
        notes["ignored_relations"] += 1
        return None
    if not 5 <= len(fields) <= 7:
        raise DataError(
            f"expected id, start, end, surface, type and concept, found {len(fields)} fields",
            place=place,
        )
    start = parse_number(fields[1], "a start offset", place)
    end = parse_number(fields[2], "an end offset", place)
    entity = make_entity(((start, end),), fields[4], text, place)
    _check_surface(fields[3], text[start:end].replace("\n", " "), place, notes)
    notes["ignored_concepts"] += fields[5:6] not in ([], [""], ["-"], ["-1"])
    notes["ignored_fields"] += len(fields) == 7
    return entity


def _check_surface(found: str, expected: str, place: str, notes: Counter[str]) -> None:
    if found == expected:
        return
    if found.rstrip() != expected.rstrip():
        raise DataError(
            f"the surface ({len(found)} characters) is not the text at the offsets "
            f"({len(expected)} characters)",
            place=place,
            remedy="correct the offsets; title and abstract are one character apart",
        )
    notes["trailing_blanks"] += 1


def render_pubtator(documents: Sequence[Document]) -> str:
    r"""Write a file that `parse_pubtator` reads back equal; the concept of a mention is `-`.

    Renderable: a text with exactly one `\n` (title and abstract) and no CR, contiguous entities
    without a tab in them, no `|` or tab in the id, no sentences, tokens or patient.

    Raises:
        DataError: any other document, or an id that stands twice.
    """
    check_unique_ids(documents)
    return "\n".join(_render(document) for document in documents)


def _render(document: Document) -> str:
    place = document.doc_id
    if fault := _unrenderable(document):
        raise DataError(f"PubTator can't hold {fault}", place=place, remedy="write jsonl")
    title, _, abstract = check_content(document.text, place).partition("\n")
    lines = [f"{place}|t|{title}", f"{place}|a|{abstract}"]
    for entity in document.entities:
        surface = document.text[entity.start : entity.end].replace("\n", " ")
        label = check_label(entity.label, place)
        lines.append(f"{place}\t{entity.start}\t{entity.end}\t{surface}\t{label}\t-")
    return "".join(f"{line}\n" for line in lines)


def _unrenderable(document: Document) -> str | None:
    check_id(document.doc_id, "doc_id")
    faults = {
        "this id": "|" in document.doc_id,
        "a text without exactly one line break": document.text.count("\n") != 1,
        "a carriage return": "\r" in document.text,
        "sentences": document.sentences is not None,
        "a patient id": document.patient_id is not None,
        "a discontinuous entity": not all(e.is_contiguous for e in document.entities),
        "a tab in an entity": any(
            "\t" in document.text[e.start : e.end] for e in document.entities
        ),
    }
    return next((name for name, holds in faults.items() if holds), None)
