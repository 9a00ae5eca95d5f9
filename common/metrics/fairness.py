"""Whether a model serves groups of patients alike: scores by group, gaps, and chance.

The gap is the best group's score less the worst one's. For recall that is the difference of equal
opportunity (Hardt et al. 2016, arXiv 1610.02413, section 2). Its p value is that of a permutation
test: groups are dealt anew to whole units (patients or documents), whose entities are alike, and it
is counted how often the gap is as large as the one found (Phipson and Smyth 2010, Statistical
Applications in Genetics and Molecular Biology 9(1), equation 2: it is never 0).

A group of which nothing is annotated has no recall, and so no F1: it is in no gap, and its units
are not dealt. A deal that leaves a group nothing is no comparison of the same groups: it is not
counted, neither as larger nor as smaller, so that the test is among those deals which, as the one
found, give every group something. If none of them does, p is 1.

A group of too few units has no scores. Who has those of all units could still subtract the other
groups': what that leaves, units that state nothing included, must be of as many units as a group
has to have, or else the next smallest group has no scores either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.metrics.entities import Scores, averages
from common.metrics.evaluation import CountVector, Evaluation
from common.metrics.interval import micro_f1_interval

LEVEL: Final = 0.95
"""Of the intervals."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group.

    Attributes:
        scores: strict entity scores of the labels of which something is annotated, and their
            averages; empty if nothing is; `None` if there are too few units, or if with them
            those of a group of too few could be found by subtraction.
        low, high: of an interval of the micro F1, of level `LEVEL`.
    """

    name: str
    units: int
    scores: dict[str, Scores] | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Largest less smallest score of the groups that have one."""

    score: str
    gap: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """One attribute.

    Attributes:
        unstated: units without a value.
        gaps: of the micro F1 and of the micro recall; none with fewer than two groups to compare.
    """

    attribute: str
    groups: tuple[Group, ...]
    unstated: int
    gaps: tuple[Gap, ...]


def fairness(
    attribute: str,
    labels: Sequence[str],
    rows: CountVector,
    values: Sequence[str],
    smallest: int,
    random: np.random.Generator,
    permutations: int = 2000,
) -> Fairness:
    """Compare the groups of one attribute.

    Args:
        rows: `[units, Evaluation.size(labels)]`, counts of each unit alone.
        values: of each unit; empty: not stated, and left out.
        smallest: groups of fewer units are named, not scored: their scores would be chance, or
            tell of one patient.
    """
    names = sorted(set(values) - {""})
    member = np.array([[value == name for name in names] for value in values], dtype=bool)
    member = member.reshape(len(values), len(names))
    units = member.sum(axis=0)
    unstated = len(values) - int(units.sum())
    shown = _shown(units, unstated, smallest)
    groups = tuple(
        _group(name, tuple(labels), rows[member[:, i]], random)
        if shown[i]
        else Group(name=name, units=int(units[i]), scores=None)
        for i, name in enumerate(names)
    )
    return Fairness(
        attribute=attribute,
        groups=groups,
        unstated=unstated,
        gaps=_gaps(labels, rows, member[:, shown], random, permutations),
    )


def _shown(units: npt.NDArray[np.int64], unstated: int, smallest: int) -> npt.NDArray[np.bool_]:
    """Which groups are scored."""
    shown = units >= smallest
    while not shown.all() and shown.any() and units[~shown].sum() + unstated < smallest:
        shown[np.where(shown, units, units.max() + 1).argmin()] = False
    return shown


def _group(
    name: str,
    labels: tuple[str, ...],
    rows: CountVector,
    random: np.random.Generator,
) -> Group:
    scores = _defined(labels, Evaluation(labels, rows.sum(axis=0)).entity_report())
    if not scores:
        return Group(name=name, units=len(rows), scores=scores)
    found = micro_f1_interval(rows, labels, random, level=LEVEL)
    return Group(name=name, units=len(rows), scores=scores, low=found.low, high=found.high)


def _defined(labels: Sequence[str], report: Mapping[str, Scores]) -> dict[str, Scores]:
    """Without labels of which nothing is annotated: an average with their 0 would say nothing."""
    there = {label: report[label] for label in labels if report[label].support}
    return {**there, **averages(there, report["micro"])} if there else {}


def _gaps(
    labels: Sequence[str],
    rows: CountVector,
    member: npt.NDArray[np.bool_],
    random: np.random.Generator,
    permutations: int,
) -> tuple[Gap, ...]:
    triples = rows[:, : 3 * len(labels)].reshape(len(rows), -1, 3).sum(axis=1)
    member = member[:, member.T @ triples[:, 2] > 0]
    if member.shape[1] < 2:
        return ()
    here = member.any(axis=1)
    dealt, triples = member[here].astype(np.float64), triples[here]
    found = _spread(dealt, triples)
    drawn = np.stack(
        [_spread(dealt[random.permutation(len(dealt))], triples) for _ in range(permutations)]
    )
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    as_large = (drawn >= found - 1e-12).sum(axis=0)
    p_values = (1 + as_large) / (1 + len(drawn))
    pairs = zip(("f1", "recall"), found, p_values, strict=True)
    return tuple(Gap(score=name, gap=float(g), p_value=float(p)) for name, g, p in pairs)


def _spread(dealt: Numbers, triples: CountVector) -> Numbers:
    """Gaps of F1 and recall: `[2]`; NaN if a group has nothing annotated."""
    correct, predicted, gold = (dealt.T @ triples).T
    gold = np.where(gold > 0, gold, np.nan)
    return np.array([np.ptp(2 * correct / (predicted + gold)), np.ptp(correct / gold)])
