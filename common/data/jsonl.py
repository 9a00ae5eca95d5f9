"""JSON Lines: one document a line, the one format that holds every document.

    {"doc_id": "a", "patient_id": "p", "text": "...",
     "entities": [{"label": "X", "start": 0, "end": 4}, {"label": "Y", "fragments": [[0, 4]]}],
     "sentences": [[0, 9]], "tokens": [[[0, 4], [5, 9]]]}

`patient_id`, `sentences` and `tokens` may be absent (not null). Strict: other keys, other types,
a key or a document id that stands twice, NaN, a blank line are refused. A byte order mark too.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from common.data.records import Document, Entity, Offsets
from common.data.report import (
    ReadResult,
    check_content,
    check_id,
    check_label,
    check_unique_ids,
    distinct,
    make_entity,
    placed,
)
from common.errors import DataError

_REQUIRED = {"doc_id", "text", "entities"}
_OPTIONAL = {"patient_id", "sentences", "tokens"}


def parse_jsonl(text: str, source: str) -> ReadResult:
    """Read a JSON Lines file.

    Raises:
        DataError: with place `source:line`: no JSON, wrong keys or types, offsets outside the
            text or out of order, a document id twice.
    """
    check_content(text, source)
    notes: Counter[str] = Counter()
    documents: dict[str, Document] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        place = f"{source}:{number}"
        document = _document(_load(line, place), place, notes)
        if document.doc_id in documents:
            raise DataError("the document id stands twice", place=place)
        documents[document.doc_id] = document
    return ReadResult(tuple(documents.values()), notes)


def _load(line: str, place: str) -> Any:
    with placed(place):
        try:
            return json.loads(line, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise DataError(f"no JSON: {error.msg}, column {error.colno}") from None
        except (ValueError, RecursionError):
            raise DataError("JSON with too large a number or too deep a nesting") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise DataError("a key stands twice in one object")
    return keys


def _no_constant(_: str) -> NoReturn:
    raise DataError("NaN and Infinity are no JSON")


def _document(value: Any, place: str, notes: Counter[str]) -> Document:
    keys = _keys(value, place)
    if not _REQUIRED <= keys <= _REQUIRED | _OPTIONAL:
        raise DataError(
            f"expected the keys {sorted(_REQUIRED)}, and at most {sorted(_OPTIONAL)} beside them",
            place=place,
        )
    text = check_content(_string(value["text"], "text", place), f"{place}:text")
    entities = [_entity(item, text, place) for item in _list(value["entities"], "entities", place)]
    document: dict[str, Any] = {
        "doc_id": check_id(_string(value["doc_id"], "doc_id", place), place),
        "text": text,
        "entities": distinct(entities, notes),
    }
    if "patient_id" in value:
        patient = _string(value["patient_id"], "patient_id", place)
        document["patient_id"] = check_id(patient, place, "patient id")
    if "sentences" in value:
        document["sentences"] = _ranges(value["sentences"], "sentences", text, place)
    if "tokens" in value:
        rows = _list(value["tokens"], "tokens", place)
        document["tokens"] = tuple(_ranges(row, "tokens", text, place) for row in rows)
    with placed(place):
        return Document(**document)


def _entity(value: Any, text: str, place: str) -> Entity:
    keys = _keys(value, place)
    if keys == {"label", "start", "end"}:
        fragments = _ranges([[value["start"], value["end"]]], "start and end", text, place)
    elif keys == {"label", "fragments"}:
        fragments = _ranges(value["fragments"], "fragments", text, place)
    else:
        raise DataError(
            "expected an entity with the keys label, start, end or label, fragments", place=place
        )
    return make_entity(fragments, _string(value["label"], "label", place), text, place)


def _ranges(value: Any, what: str, text: str, place: str) -> tuple[Offsets, ...]:
    """A list of `[start, end]` pairs within the text."""
    pairs = []
    for pair in _list(value, what, place):
        if not isinstance(pair, list) or [type(number) for number in pair] != [int, int]:
            raise DataError(f"expected {what} as pairs of whole numbers", place=place)
        if not 0 <= pair[0] < pair[1] <= len(text):
            raise DataError(
                f"expected {what} with 0 <= start < end <= {len(text)} (the length of the text)",
                place=place,
            )
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def _keys(value: Any, place: str) -> set[str]:
    if not isinstance(value, dict):
        raise DataError("expected a JSON object", place=place)
    return set(value)


def _string(value: Any, what: str, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"expected {what} to be a string", place=place)
    return value


def _list(value: Any, what: str, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"expected {what} to be a list", place=place)
    return value


def render_jsonl(documents: Sequence[Document]) -> str:
    """Write a file that `parse_jsonl` reads back equal.

    Raises:
        DataError: an id that stands twice, unusable ids or labels, a text that is no UTF-8.
    """
    check_unique_ids(documents)
    lines = [json.dumps(_as_json(document), ensure_ascii=False) for document in documents]
    return "".join(f"{line}\n" for line in lines)


def _as_json(document: Document) -> dict[str, Any]:
    place = check_id(document.doc_id, "doc_id")
    value: dict[str, Any] = {"doc_id": place}
    if document.patient_id is not None:
        value["patient_id"] = check_id(document.patient_id, place, "patient id")
    value["text"] = check_content(document.text, place)
    value["entities"] = [_entity_as_json(entity, place) for entity in document.entities]
    if document.sentences is not None:
        value["sentences"] = document.sentences
    if document.tokens is not None:
        value["tokens"] = document.tokens
    return value


def _entity_as_json(entity: Entity, place: str) -> dict[str, Any]:
    label = check_label(entity.label, place)
    if entity.is_contiguous:
        return {"label": label, "start": entity.start, "end": entity.end}
    return {"label": label, "fragments": entity.fragments}
