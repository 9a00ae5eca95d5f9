"""Entities in their text, as a terminal shows them: readable without colour.

Guarantees:
    * No character of a document commands the terminal: controls are shown as pictures, marks that
      turn the direction of writing as U+FFFD.
    * Each entity stands between brackets with its label's name, in colour or without.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from common.data.records import Document
from common.errors import DataError

Piece = tuple[str, str | None]
"""A part of a text, and its label if it is an entity."""

NOT_A_DEVICE: Final = "Not a medical device: no output of this model is a diagnosis."
_STYLES: Final = ("cyan", "yellow", "magenta", "green", "blue", "red")
_PICTURES: Final = 0x2400
_DELETE: Final = "\x7f"
_REPLACEMENT: Final = "\ufffd"
_TURNS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def pieces(document: Document) -> Iterator[Piece]:
    """The text from its beginning to its end, entity by entity.

    Raises:
        DataError: entities overlap, or one has several fragments; a fedner model finds none such.
    """
    at = 0
    for entity in document.entities:
        if not entity.is_contiguous or entity.start < at:
            raise DataError(
                f"the entity {entity.label} at {entity.start} overlaps another, or has several "
                "fragments: it can't be highlighted",
                place=document.doc_id,
                remedy="--to jsonl or brat holds such entities",
            )
        yield document.text[at : entity.start], None
        yield document.text[entity.start : entity.end], entity.label
        at = entity.end
    yield document.text[at:], None


def visible(text: str) -> str:
    """The same without anything that a terminal or a browser would obey; line ends are kept."""
    return "".join(map(_seen, text.replace("\r\n", "\n")))


def _seen(char: str) -> str:
    if char in "\n\t" or (unicodedata.category(char) not in _HIDDEN and char not in _TURNS):
        return char
    if char == _DELETE:
        return chr(_PICTURES + 0x21)
    return chr(_PICTURES + ord(char)) if char < " " else _REPLACEMENT


def counted(documents: Sequence[Document], labels: Sequence[str]) -> dict[str, int]:
    """Entities of each label, in the order of the labels."""
    found = Counter(entity.label for document in documents for entity in document.entities)
    return {label: found[label] for label in labels}


def highlighted(document: Document, labels: Sequence[str]) -> Text:
    """The text with its entities, as `[chest pain|Symptom]`."""
    text = Text()
    for piece, label in pieces(document):
        if label is None:
            text.append(visible(piece))
        else:
            text.append(f"[{visible(piece)}|{label}]", style=_style(label, labels))
    return text


def legend(documents: Sequence[Document], labels: Sequence[str]) -> Text:
    """Every label in its colour, and how many were found."""
    text = Text("found: ")
    for index, (label, count) in enumerate(counted(documents, labels).items()):
        text.append(", " if index else "")
        text.append(label, style=_style(label, labels))
        text.append(f" {count}")
    return text


def _style(label: str, labels: Sequence[str]) -> str:
    return f"bold {_STYLES[labels.index(label) % len(_STYLES)]} reverse"
