"""Running text as CoNLL can hold it: words joined by single blanks, sentences by newlines."""

import unicodedata
from dataclasses import replace

from common.data.conll_layout import token_text
from common.data.encode import document_words
from common.data.records import Document, Entity
from common.errors import DataError

REPLACEMENT = "\ufffd"


def respace(document: Document) -> Document:
    """The same words and entities over a text that `render_conll` takes.

    Control characters, which a column file can't hold, become U+FFFD. Sentences without words
    are left out.

    Raises:
        DataError: not tokenised; an entity that is discontinuous or cuts through a word.
    """
    old = document_words(document)
    sentences = [
        [_printable(document.text[start:end]) for start, end in words]
        for words in document.tokens or ()
        if words
    ]
    text, bounds, tokens = token_text(sentences)
    new = [word for sentence in tokens for word in sentence]
    starts = {o[0]: n[0] for o, n in zip(old, new, strict=True)}
    ends = {o[1]: n[1] for o, n in zip(old, new, strict=True)}
    entities = []
    for entity in document.entities:
        if not entity.is_contiguous or entity.start not in starts or entity.end not in ends:
            raise DataError(
                f"entity {entity.label} at {entity.start} is not made of whole words",
                place=document.doc_id,
            )
        entities.append(Entity(((starts[entity.start], ends[entity.end]),), entity.label))
    return replace(document, text=text, entities=tuple(entities), sentences=bounds, tokens=tokens)


def _printable(word: str) -> str:
    bad = ("Cc", "Cs", "Zl", "Zp")
    return "".join(REPLACEMENT if unicodedata.category(c) in bad else c for c in word)
