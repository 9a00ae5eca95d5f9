"""Documents as a column file; the inverse of `common.data.conll.parse_conll`."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from common.data.conll_layout import (
    ConllOptions,
    DocumentRows,
    check_token,
    least_width,
    split_fields,
    token_text,
)
from common.data.conll_tags import Scheme, TokenSpan, encode_tags
from common.data.records import Document
from common.data.report import check_content, check_id, check_label, check_unique_ids
from common.errors import DataError


def render_conll(documents: Sequence[Document], options: ConllOptions) -> str:
    """Write a column file that `parse_conll` with the same options reads back equal.

    Columns other than token and tag hold `_`. With `options.documents` no marks are written and
    the table must be that of the documents.

    Raises:
        DataError: a document without tokens; a text that is not its tokens joined by spaces and
            newlines; an entity that is discontinuous, overlaps another, cuts a token or crosses
            a sentence; a token or label that holds the delimiter; ids that can't be written.
    """
    check_unique_ids(documents)
    if options.documents is not None:
        _check_table(documents, options.documents)
    lines: list[str] = []
    for document in documents:
        if options.documents is None:
            lines += [_render_mark(document, options), ""]
        for tokens, tags in _tagged(document, options.scheme):
            for token, tag in zip(tokens, tags, strict=True):
                lines.append(_render_row(token, tag, document.doc_id, options))
            lines.append("")
    return check_content("".join(f"{line}\n" for line in lines), "rendered")


def _check_table(documents: Sequence[Document], expected: DocumentRows) -> None:
    rows, first = [], 0
    for document in documents:
        rows.append((document.doc_id, first, len(document.sentences or ())))
        first += rows[-1][2]
        if document.patient_id is not None:
            raise DataError("a file without marks can't hold a patient id", place=document.doc_id)
    if tuple(rows) != expected:
        raise DataError("the documents are not those of the documents table", place="documents")


def _render_mark(document: Document, options: ConllOptions) -> str:
    fields = [options.doc_start, "doc=" + quote(check_id(document.doc_id, "doc_id"), safe="")]
    if document.patient_id is not None:
        patient = check_id(document.patient_id, document.doc_id, "patient id")
        fields.append("patient=" + quote(patient, safe=""))
    return (options.delimiter or " ").join(fields)


def _render_row(token: str, tag: str, place: str, options: ConllOptions) -> str:
    check_token(token, place)
    fields = ["_"] * least_width(options)
    fields[options.token_column], fields[options.column] = token, tag
    line = (options.delimiter or "\t").join(fields)
    if split_fields(line, options.delimiter) != fields or fields[0] == options.doc_start:
        raise DataError("a token or label holds the delimiter or is the mark", place=place)
    return line


def _tagged(document: Document, scheme: Scheme) -> Iterator[tuple[list[str], list[str]]]:
    """Tokens and tags of each sentence."""
    place = document.doc_id
    if document.tokens is None:
        raise DataError("the document is not tokenised", place=place)
    words = [[document.text[start:end] for start, end in row] for row in document.tokens]
    same = (document.text, document.sentences, document.tokens)
    if not all(words) or token_text(words) != same:
        raise DataError(
            "expected a text that is its tokens joined by spaces, its sentences by newlines",
            place=place,
        )
    spans = _token_spans(document)
    for index, row in enumerate(words):
        yield row, encode_tags(spans[index], len(row), scheme)


def _token_spans(document: Document) -> list[list[TokenSpan]]:
    """Entities by sentence, in token indices; `[sentences][entities]`."""
    starts, ends = {}, {}
    for number, row in enumerate(document.tokens or ()):
        starts.update({start: (number, index) for index, (start, _) in enumerate(row)})
        ends.update({end: (number, index + 1) for index, (_, end) in enumerate(row)})
    spans: list[list[TokenSpan]] = [[] for _ in document.tokens or ()]
    for entity in document.entities:
        number, first = starts.get(entity.start, (-1, 0))
        end_number, last = ends.get(entity.end, (-2, 0))
        flat = entity.is_contiguous and number == end_number
        if not flat or (spans[number] and spans[number][-1][1] > first):
            raise DataError(
                f"a tag file can't hold the entity at [{entity.start}, {entity.end}): it is "
                "discontinuous, overlaps another, cuts a token or crosses a sentence",
                place=document.doc_id,
                remedy="flatten the document first",
            )
        spans[number].append((first, last, check_label(entity.label, document.doc_id)))
    return spans
