"""The layout of a column file: options, the documents table, fields of a line, tokens as text."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from common.data.conll_tags import Scheme
from common.data.records import Offsets
from common.data.report import check_content, check_id, parse_number
from common.errors import ConfigError, DataError

DocumentRows = tuple[tuple[str, int, int], ...]
"""Document id, index of its first sentence, number of its sentences."""


@dataclass(frozen=True, kw_only=True)
class ConllOptions:
    """How a column file is laid out.

    Attributes:
        column: the tag; negative counts from the right.
        token_column: the token; negative counts from the right.
        delimiter: one of tab, space, comma, semicolon, bar; `None`: any run of spaces and tabs.
        scheme: see `common.data.conll_tags`.
        doc_start: first column of a document mark.
        documents: the sidecar; ascending rows that follow one another from sentence 0.

    Raises:
        ConfigError: equal columns, an unknown scheme or delimiter, an unusable `doc_start`.
        DataError: rows that leave sentences out or share them, an id twice.
    """

    column: int = -1
    token_column: int = 0
    delimiter: str | None = None
    scheme: Scheme = "iob2"
    doc_start: str = "-DOCSTART-"
    documents: DocumentRows | None = None

    def __post_init__(self) -> None:
        if self.column == self.token_column:
            raise ConfigError("tag and token can't be one column", place="column")
        if self.scheme not in get_args(Scheme):
            raise ConfigError(f"expected one of {get_args(Scheme)}", place="scheme")
        if self.delimiter is not None and self.delimiter not in ("\t", " ", ",", ";", "|"):
            raise ConfigError("expected tab, space, comma, semicolon or bar", place="delimiter")
        if not self.doc_start.isprintable() or set(self.doc_start) & {" ", ",", ";", "|"}:
            raise ConfigError("expected printable, without delimiters", place="doc_start")
        if not self.doc_start:
            raise ConfigError("expected the first column of a mark", place="doc_start")
        _check_rows(self.documents or (), lambda index: f"documents[{index}]")


def parse_documents_table(text: str, source: str) -> DocumentRows:
    """Read the sidecar: document id, first sentence index, number of sentences, tab separated.

    Raises:
        DataError: place `source:line`: not three fields, not numbers, an id twice, a row that
            does not begin where the one before ends.
    """
    check_content(text, source)
    rows = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        place, fields = f"{source}:{number}", line.removesuffix("\r").split("\t")
        if len(fields) != 3:
            raise DataError(
                "expected document id, first sentence, number of sentences, tab separated",
                place=place,
            )
        first = parse_number(fields[1], "the index of the first sentence", place)
        rows.append((fields[0], first, parse_number(fields[2], "a number of sentences", place)))
    _check_rows(rows, lambda index: f"{source}:{index + 1}")
    return tuple(rows)


def _check_rows(rows: Sequence[tuple[str, int, int]], place: Callable[[int], str]) -> None:
    expected, seen = 0, set()
    for index, (name, first, count) in enumerate(rows):
        check_id(name, place(index))
        if name in seen:
            raise DataError("the document id stands twice", place=place(index))
        if first != expected or count < 1:
            raise DataError(
                f"expected first sentence {expected} and at least one sentence, "
                f"got {first} and {count}",
                place=place(index),
            )
        seen.add(name)
        expected = first + count


def split_fields(line: str, delimiter: str | None) -> list[str]:
    """Columns of a line; none for a blank line."""
    if delimiter is not None:
        return line.split(delimiter) if line else []
    return [piece for piece in re.split("[ \t]+", line) if piece]


def least_width(options: ConllOptions) -> int:
    """The least number of columns in which tag and token are two columns."""
    pair = (options.column, options.token_column)
    least = max(index + 1 if index >= 0 else -index for index in pair)
    same = options.column % least == options.token_column % least
    return least + 1 if same else least


def check_token(token: str, place: str) -> None:
    bad = any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in token)
    if bad or not token:
        raise DataError("expected a token without control characters, not empty", place=place)


def token_text(
    sentences: Sequence[Sequence[str]],
) -> tuple[str, tuple[Offsets, ...], tuple[tuple[Offsets, ...], ...]]:
    """Text, sentence offsets and token offsets of tokenised sentences."""
    offset, tokens = 0, []
    for sentence in sentences:
        row = []
        for token in sentence:
            row.append((offset, offset + len(token)))
            offset += len(token) + 1
        tokens.append(tuple(row))
    text = "\n".join(" ".join(sentence) for sentence in sentences)
    return text, tuple((row[0][0], row[-1][1]) for row in tokens), tuple(tokens)
