"""Column files: one token a line, a tag in one column, a blank line after each sentence.

The text of a document is its tokens joined by one space, sentences joined by a newline;
`sentences` and `tokens` are always set.

Where documents begin:
    marks      `-DOCSTART- doc=ID [patient=ID]`, ids percent-encoded: our own rendering. A mark
               without ids (CoNLL 2003: `-DOCSTART- -X- -X- O`) opens a document `<stem>-<n>`,
               n counted from 1 over all documents; counted as `unnamed_documents`.
    a sidecar  `ConllOptions.documents`; the file then may not have marks.
    neither    the whole file is one document with the stem of the source's name as its id,
               counted as `unnamed_documents`; a file without tokens has no document.

CRLF is accepted. A byte order mark is refused. With `delimiter=None` columns are separated by
spaces and tabs only: a no-break or thin space is part of a token.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import unquote

from common.data.conll_layout import (
    ConllOptions,
    DocumentRows,
    check_token,
    least_width,
    parse_documents_table,
    split_fields,
    token_text,
)
from common.data.conll_tags import Scheme, decode_tags
from common.data.conll_write import render_conll
from common.data.records import Document, span
from common.data.report import ReadResult, check_content, check_id
from common.errors import DataError

__all__ = ["ConllOptions", "DocumentRows", "parse_conll", "parse_documents_table", "render_conll"]

_NO_IDS = {"-X-", "O", "-", "_"}


@dataclass(slots=True)
class _Row:
    line: int
    token: str
    tag: str


@dataclass(slots=True)
class _Section:
    """One document as read: `line` of its mark, 0 if it has none."""

    line: int
    doc_id: str | None = None
    patient_id: str | None = None
    sentences: list[list[_Row]] = field(default_factory=list)


def parse_conll(text: str, source: str, options: ConllOptions) -> ReadResult:
    """Read a column file.

    Args:
        text: the whole file.
        source: its name, for errors and for ids of unnamed documents.

    Raises:
        DataError: with place `source:line`: a line with another number of columns than the
            first, an empty or unprintable token, a tag the scheme does not allow there, a mark
            with something else than ids, an id twice, a sidecar that does not fit.
    """
    check_content(text, source)
    sections = _sections(text, source, options)
    if options.documents is not None:
        sections = _cut(sections, source, options.documents)
    notes: Counter[str] = Counter()
    documents: dict[str, Document] = {}
    for number, section in enumerate(sections, 1):
        place = f"{source}:{section.line or 1}"
        doc_id = section.doc_id or _numbered_id(source, number if section.line else None)
        if check_id(doc_id, place) in documents:
            raise DataError("the document id stands twice", place=place)
        notes["unnamed_documents"] += section.doc_id is None
        documents[doc_id] = _document(section, doc_id, source, options.scheme)
    return ReadResult(tuple(documents.values()), notes)


def _numbered_id(source: str, number: int | None) -> str:
    stem = PurePath(source).stem
    return stem if number is None else f"{stem}-{number}"


def _sections(text: str, source: str, options: ConllOptions) -> list[_Section]:
    sections: list[_Section] = []
    sentence: list[_Row] = []
    width = 0
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{source}:{number}"
        fields = split_fields(line.removesuffix("\r"), options.delimiter)
        if not fields:
            sentence = []
        elif fields[0] == options.doc_start:
            sections.append(_mark(fields[1:], number, place))
            sentence = []
        else:
            width = width or max(len(fields), least_width(options))
            row = _row(fields, width, number, place, options)
            if not sentence:
                sections = sections or [_Section(0)]
                sections[-1].sentences.append(sentence)
            sentence.append(row)
    if len(sections) > 1 and not sections[0].line:
        raise DataError(
            f"expected {options.doc_start} before the first sentence, as later ones have it",
            place=f"{source}:{sections[0].sentences[0][0].line}",
        )
    return sections


def _row(fields: list[str], width: int, number: int, place: str, options: ConllOptions) -> _Row:
    if options.token_column % width == options.column % width:
        raise DataError(
            f"token and tag are one column of the {width} found",
            place=place,
            remedy="check `column`: negative ones count from the right",
        )
    if len(fields) != width:
        raise DataError(
            f"expected {width} columns (token, tag), found {len(fields)}",
            place=place,
            remedy="check `delimiter`, and that each token has its tag",
        )
    row = _Row(number, fields[options.token_column], fields[options.column])
    check_token(row.token, place)
    return row


def _mark(fields: list[str], number: int, place: str) -> _Section:
    if all(piece in _NO_IDS for piece in fields):
        return _Section(number)
    keys = [piece.partition("=")[0] for piece in fields]
    if keys not in (["doc"], ["doc", "patient"]):
        raise DataError("expected `doc=ID`, or `doc=ID patient=ID`, after the mark", place=place)
    try:
        ids = [unquote(piece.partition("=")[2], errors="strict") for piece in fields]
    except UnicodeDecodeError:
        raise DataError("expected ids as percent-encoded UTF-8", place=place) from None
    for name in ids:
        check_id(name, place)
    return _Section(number, ids[0], ids[1] if len(ids) > 1 else None)


def _cut(sections: list[_Section], source: str, rows: DocumentRows) -> list[_Section]:
    """The sentences of an unmarked file, dealt out by the sidecar."""
    if sections and sections[0].line:
        raise DataError(
            "the file has document marks and a documents table; expected one of the two",
            place=f"{source}:{sections[0].line}",
        )
    sentences = sections[0].sentences if sections else []
    covered = rows[-1][1] + rows[-1][2] if rows else 0
    if covered != len(sentences):
        raise DataError(
            f"the documents table covers {covered} sentences, the file has {len(sentences)}",
            place=source,
            remedy="give the table that belongs to this file",
        )
    return [_Section(0, name, None, sentences[at : at + count]) for name, at, count in rows]


def _document(section: _Section, doc_id: str, source: str, scheme: Scheme) -> Document:
    text, sentences, tokens = token_text(
        [[row.token for row in rows] for rows in section.sentences]
    )
    entities = []
    for rows, offsets in zip(section.sentences, tokens, strict=True):
        places = [f"{source}:{row.line}" for row in rows]
        for first, last, label in decode_tags([r.tag for r in rows], scheme, places.__getitem__):
            entities.append(span(offsets[first][0], offsets[last - 1][1], label))
    return Document(
        doc_id=doc_id,
        patient_id=section.patient_id,
        text=text,
        entities=tuple(entities),
        sentences=sentences,
        tokens=tokens,
    )
