"""Annotated documents: the one form that every reader produces and every writer takes.

Offsets are Python string indices (code points), half open: `text[start:end]`.
The `repr` of a document never shows its text.
"""

from dataclasses import dataclass, field

from common.errors import DataError

Offsets = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """One annotated entity: a label over one or more fragments of the text.

    Attributes:
        fragments: ascending, disjoint, non-empty `[start, end)` pairs; more than one makes the
            entity discontinuous.
        label: the entity's type.

    Raises:
        DataError: no fragments, an empty or reversed fragment, fragments out of order, no label.
    """

    fragments: tuple[Offsets, ...]
    label: str

    def __post_init__(self) -> None:
        if not self.label:
            raise DataError("an entity needs a label")
        if not self.fragments:
            raise DataError("an entity needs at least one fragment")
        previous_end = 0
        for start, end in self.fragments:
            if start < previous_end or end <= start:
                raise DataError(
                    f"fragments must be ascending, disjoint and non-empty, got {self.fragments}"
                )
            previous_end = end

    @property
    def start(self) -> int:
        return self.fragments[0][0]

    @property
    def end(self) -> int:
        return self.fragments[-1][1]

    @property
    def is_contiguous(self) -> bool:
        return len(self.fragments) == 1


def span(start: int, end: int, label: str) -> Entity:
    """A contiguous entity over `[start, end)`."""
    return Entity(((start, end),), label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text with its entities.

    Attributes:
        doc_id: unique within a corpus.
        text: the raw text.
        entities: sorted on construction; an exact duplicate (same fragments, same label) is
            refused, readers merge and count them.
        patient_id: whom the document is about, if known.
        sentences: sentence boundaries given by the source, ascending and disjoint; `None` if the
            source does not split sentences.
        tokens: word boundaries given by the source, one tuple per sentence; `None` if the
            source does not tokenise.

    Raises:
        DataError: an offset outside the text, unordered sentences, a token outside its sentence.
    """

    doc_id: str
    text: str = field(repr=False)
    entities: tuple[Entity, ...] = ()
    patient_id: str | None = None
    sentences: tuple[Offsets, ...] | None = None
    tokens: tuple[tuple[Offsets, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not self.doc_id:
            raise DataError("a document needs an id")
        object.__setattr__(self, "entities", tuple(sorted(self.entities)))
        if len(set(self.entities)) != len(self.entities):
            raise DataError("the same entity stands twice", place=self.doc_id)
        for entity in self.entities:
            if entity.end > len(self.text):
                raise DataError(
                    f"entity {entity.label} ends at {entity.end}, "
                    f"the text has {len(self.text)} characters",
                    place=self.doc_id,
                )
        if self.sentences is not None:
            self._check_ascending(self.sentences, 0, len(self.text), "sentence")
        if self.tokens is not None:
            self._check_tokens()

    def _check_tokens(self) -> None:
        if self.sentences is None or len(self.tokens or ()) != len(self.sentences):
            raise DataError("tokens need one tuple per sentence", place=self.doc_id)
        for (start, end), tokens in zip(self.sentences, self.tokens or (), strict=True):
            self._check_ascending(tokens, start, end, "token")

    def _check_ascending(self, pieces: tuple[Offsets, ...], low: int, high: int, what: str) -> None:
        for start, end in pieces:
            if not low <= start < end <= high:
                raise DataError(
                    f"{what} [{start}, {end}) is empty, out of order or outside [{low}, {high})",
                    place=self.doc_id,
                )
            low = end

    @property
    def unit_id(self) -> str:
        """The patient if known, else the document: what a split or partition keeps whole."""
        return self.patient_id if self.patient_id is not None else self.doc_id


Corpus = tuple[Document, ...]
