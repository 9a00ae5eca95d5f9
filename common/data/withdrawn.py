"""Patients and documents that have withdrawn: a list of lines, `patient ID` or `document ID`.

Guarantees:
    - A list that is cut off, empty or malformed is refused, never read as a shorter one. Who has
      nobody to list writes a comment.
    - Ids are compared exactly, and do not print.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from common.data.records import Document
from common.errors import DataError

_REMEDY = "write `patient ID` or `document ID` on each line; lines that begin with # are comments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Who takes no part any more."""

    patients: frozenset[str] = field(default=frozenset(), repr=False)
    documents: frozenset[str] = field(default=frozenset(), repr=False)

    def __len__(self) -> int:
        """How many ids are listed."""
        return len(self.patients) + len(self.documents)

    def covers(self, document: Document) -> bool:
        """Whether a document is listed, or the patient whom it is about."""
        return document.doc_id in self.documents or document.patient_id in self.patients

    def unknown(self, known: "Withdrawn") -> int:
        """How many ids are not among those of `known`."""
        return len(self.patients - known.patients) + len(self.documents - known.documents)


def ids_of(documents: Iterable[Document]) -> Withdrawn:
    """All ids that a list may name."""
    held = tuple(documents)
    return Withdrawn(
        patients=frozenset(d.patient_id for d in held if d.patient_id is not None),
        documents=frozenset(d.doc_id for d in held),
    )


def parse_withdrawn(text: str, place: str) -> Withdrawn:
    """Read a list.

    Args:
        place: its file, for errors.

    Raises:
        DataError: a line that is none of the three, or the last without its end; an empty file.
    """
    if not text.endswith("\n"):
        raise DataError(
            "is empty" if not text else "the last line has no end: the file may be cut off",
            place=place,
            remedy="end each line; where nobody has withdrawn, write a comment",
        )
    listed: dict[str, set[str]] = {"patient": set(), "document": set()}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        kind, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
        if not kind or kind.startswith("#"):
            continue
        if kind not in listed or not rest.strip():
            raise DataError(
                "expected `patient` or `document`, and an id",
                place=f"{place}:{number}",
                remedy=_REMEDY,
            )
        listed[kind].add(rest.strip())
    return Withdrawn(patients=frozenset(listed["patient"]), documents=frozenset(listed["document"]))
