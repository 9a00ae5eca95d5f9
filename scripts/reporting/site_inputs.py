"""What a site's own report is given beside its figures, checked to be of the same things."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from common.config.site import Site
from common.config.study import Study
from common.errors import UsageError
from scripts.reporting.figures import Lines
from scripts.reporting.source import MICRO
from server.run_dir import METRICS, RunDir

ALONE: Final = f"alone/{METRICS}"
"""How the run that trained on this site's documents alone is named in sources."""
_AVERAGES: Final = frozenset({MICRO, "macro", "weighted"})


def latest(lines: Lines, event: str) -> list[int]:
    """Lines of an event since the study was last begun: a lower round than the one before."""
    found: list[int] = []
    for number in lines.of(event):
        if found and lines.value(number, "round") < lines.value(found[-1], "round"):
            found = []
        found.append(number)
    return found


def alone_of(site: Site, run: RunDir, names: Sequence[str], supports: Mapping[str, Any]) -> Lines:
    """The lines of the run that trained on this site's documents alone.

    Args:
        names: labels of the study, and `micro`.
        supports: what there was to find of each in the shared model's evaluation; empty if there
            was none.

    Raises:
        UsageError: it is no such run, was tested on other documents, or knows other labels.
    """
    lines = Lines(run.events(), ALONE)
    numbers = lines.of("baseline")
    found = run.events("baseline")[-1] if numbers else {}
    entities = found.get("entities", {})
    known = {name: entities[name]["support"] for name in names if name in entities}
    same = set(known) == set(names) and (not supports or known == dict(supports))
    if found.get("tested_on") != site.institution or not same:
        raise UsageError(
            "not a run that trained and was tested on this site's documents alone, with the "
            "study's labels",
            place=str(run.path),
            remedy="make one: `fedner train SITE --out RUN`",
        )
    return lines


def require_groups_of(site: Site, study: Study, groups: Mapping[str, Any] | None) -> None:
    """Refuse scores by group that are another site's, or of other labels.

    Raises:
        UsageError: they are.
    """
    if groups is None:
        return
    labels = set(groups.get("entities", {})) - _AVERAGES
    if groups.get("institution") != site.institution or labels != set(study.task.labels):
        raise UsageError(
            f"scores of {groups.get('institution') or 'no single institution'}, with the labels "
            f"{', '.join(sorted(labels)) or 'none'}",
            place="--groups",
            remedy="make them with this site's file: `fedner evaluate MODEL SITE --groups TABLE "
            "--json`",
        )
