"""Groups of patients, such as by sex or age: a table with a row for each patient or document.

    patient<TAB>sex<TAB>age
    p-0017<TAB>f<TAB>65+

The first column is `patient` or `document`, the others are attributes. An empty cell: not stated.
The table is read where a model is scored, and goes no further.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from common.data.records import Document
from common.errors import DataError

KEYS: Final = ("patient", "document")
_REMEDY: Final = (
    "a head such as `patient<TAB>sex<TAB>age`, then a row for each patient; or `document` first"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Who belongs where.

    Attributes:
        key: whose ids the table has, `patient` or `document`.
        rows: a value for each attribute, by id; empty where it is not stated.
    """

    key: str
    attributes: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]] = field(repr=False)

    def unit(self, document: Document) -> str | None:
        """The id by which a document is looked up; `None` if it names no patient."""
        return document.patient_id if self.key == "patient" else document.doc_id

    def of(self, unit: str | None) -> tuple[str, ...]:
        """The values of an id; empty ones if it is not in the table."""
        nothing = ("",) * len(self.attributes)
        return nothing if unit is None else self.rows.get(unit, nothing)


def parse_groups(text: str, place: str) -> Groups:
    """Read a table.

    Args:
        place: its file, for errors.

    Raises:
        DataError: no head, a row of another length or without an id, an id twice.
    """
    lines = text.splitlines()
    key, *attributes = lines[0].split("\t") if lines else [""]
    if key not in KEYS or not attributes or not all(attributes):
        raise DataError("expected a head of at least two columns", place=f"{place}:1",
                        remedy=_REMEDY)  # fmt: skip
    if len(set(attributes)) < len(attributes):
        raise DataError("two columns have one name", place=f"{place}:1", remedy=_REMEDY)
    rows: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines[1:], 2):
        name, *values = line.split("\t")
        if not name or len(values) != len(attributes):
            raise DataError(
                f"{1 + len(values)} columns, or no id; expected {1 + len(attributes)} and an id",
                place=f"{place}:{number}",
                remedy=_REMEDY,
            )
        if name in rows:
            raise DataError("an id that has a row already", place=f"{place}:{number}",
                            remedy="keep one row for each id")  # fmt: skip
        rows[name] = tuple(values)
    return Groups(key=key, attributes=tuple(attributes), rows=rows)
