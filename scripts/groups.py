"""Scores by group of patients, as `fedner evaluate --groups` shows and writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from common.data.groups import Groups, parse_groups
from common.data.records import Document
from common.errors import DataError
from common.io.tables import read_table
from common.metrics.entities import as_json
from common.metrics.evaluation import CountVector
from common.metrics.fairness import LEVEL, Fairness, Group, fairness
from scripts.console import cell
from scripts.reporting.figures import NOTHING

SMALLEST: Final = 10
TOO_FEW: Final = "too few"
WITHHELD: Final = "withheld"
"""Of a group whose scores would give away those of one with too few."""
_SEED: Final = 1
"""Of drawing and dealing: the same counts give the same figures."""


def read_groups(path: Path) -> Groups:
    """The table of a file.

    Raises:
        DataError: it can't be read, or is malformed.
    """
    text = read_table(path, "give a table with tabs: docs/fairness.md")
    return parse_groups(text, str(path))


def compare(
    groups: Groups,
    labels: Sequence[str],
    documents: Sequence[Document],
    counts: CountVector,
    smallest: int,
) -> list[Fairness]:
    """Each attribute, over whole patients or documents as the table has them.

    Args:
        counts: `[documents, size]`.

    Raises:
        DataError: the table is by patient, and a document names none; or it knows no document.
    """
    units: dict[str, CountVector] = {}
    for document, row in zip(documents, counts, strict=True):
        unit = groups.unit(document)
        if unit is None:
            raise DataError(
                "names no patient, and the table of groups is by patient",
                place=f"document {document.doc_id}",
                remedy="make the table by document",
            )
        units[unit] = units.get(unit, 0) + row
    if not units.keys() & groups.rows.keys():
        raise DataError(
            f"the table of groups has none of the {len(units)} {groups.key}s that are scored",
            remedy=f"its first column holds {groups.key} ids as in the data",
        )
    rows = np.stack(list(units.values()))
    random = np.random.default_rng(_SEED)
    return [
        fairness(name, labels, rows, [groups.of(unit)[i] for unit in units], smallest, random)
        for i, name in enumerate(groups.attributes)
    ]


def fairness_json(groups: Groups, found: Sequence[Fairness], smallest: int) -> dict[str, Any]:
    """Plain values."""
    attributes = [
        {
            "attribute": one.attribute,
            "unstated": one.unstated,
            "groups": [_group_json(group) for group in one.groups],
            "gaps": {gap.score: {"gap": gap.gap, "p_value": gap.p_value} for gap in one.gaps},
        }
        for one in found
    ]
    figures = {"unit": groups.key, "smallest": smallest, "level": LEVEL}
    return {**figures, "attributes": attributes}


def _group_json(group: Group) -> dict[str, Any]:
    figures: Mapping[str, Any] = {"group": group.name, "units": group.units}
    if group.scores is None:
        return {**figures, "entities": None}
    interval = {"low": group.low, "high": group.high}  # null if nothing is annotated
    return {**figures, "entities": as_json(group.scores), **interval}


def groups_table(found: Fairness, unit: str, smallest: int) -> Table:
    """Groups of one attribute, and the gaps under them."""
    table = Table(title=cell(f"\nby {found.attribute}", "table.title"), title_justify="left")
    table.add_column("group")
    for name in (f"{unit}s", "precision", "recall", "F1", "95 % of F1", "support"):
        table.add_column(name, justify="right")
    for group in found.groups:
        head = (cell(group.name), str(group.units))
        if not group.scores:
            withheld = TOO_FEW if group.units < smallest else WITHHELD
            said = withheld if group.scores is None else NOTHING
            table.add_row(*head, *[said] * 3, "", "")
            continue
        s = group.scores["micro"]
        figures = (f"{v:.4f}" for v in (s.precision, s.recall, s.f1))
        interval = f"{group.low:.3f} to {group.high:.3f}"
        table.add_row(*head, *figures, interval, str(s.support))
    if found.unstated:
        table.add_row("not stated", str(found.unstated), *[""] * 5)
    said = [f"gap in {g.score}: {g.gap:.4f} (p = {g.p_value:.4f})" for g in found.gaps]
    table.caption = "; ".join(said) or "no two groups to compare"
    return table
