"""Whether a model serves groups of patients alike: scores by group, gaps, and chance.

The gap is the best group's score less the worst one's. For recall that is the difference of equal
opportunity (Hardt et al. 2016, arXiv 1610.02413, section 2). Its p value is that of a permutation
test: groups are dealt anew to whole units (patients or documents), whose entities are alike, and it
is counted how often the gap is as large as the one found (Phipson and Smyth 2010, Statistical
Applications in Genetics and Molecular Biology 9(1), equation 2: it is never 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.metrics.entities import Scores
from common.metrics.evaluation import CountVector, Evaluation
from common.metrics.interval import micro_f1_interval

LEVEL: Final = 0.95
"""Of the intervals."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group.

    Attributes:
        scores: strict entity scores by label and averages; `None` if there are too few units.
        low, high: of an interval of the micro F1, of level `LEVEL`.
    """

    name: str
    units: int
    scores: dict[str, Scores] | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Largest less smallest score of the groups that are scored."""

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
        smallest: groups of fewer units are named, not scored: their scores would be chance.
    """
    names = sorted(set(values) - {""})
    member = np.array([[value == name for name in names] for value in values], dtype=bool)
    member = member.reshape(len(values), len(names))
    units = member.sum(axis=0)
    groups = tuple(
        _group(name, tuple(labels), rows[member[:, i]], smallest, random)
        for i, name in enumerate(names)
    )
    return Fairness(
        attribute=attribute,
        groups=groups,
        unstated=len(values) - int(units.sum()),
        gaps=_gaps(labels, rows, member[:, units >= smallest], random, permutations),
    )


def _group(
    name: str,
    labels: tuple[str, ...],
    rows: CountVector,
    smallest: int,
    random: np.random.Generator,
) -> Group:
    if len(rows) < smallest:
        return Group(name=name, units=len(rows), scores=None)
    found = micro_f1_interval(rows, labels, random, level=LEVEL)
    scores = Evaluation(labels, rows.sum(axis=0)).entity_report()
    return Group(name=name, units=len(rows), scores=scores, low=found.low, high=found.high)


def _gaps(
    labels: Sequence[str],
    rows: CountVector,
    member: npt.NDArray[np.bool_],
    random: np.random.Generator,
    permutations: int,
) -> tuple[Gap, ...]:
    if member.shape[1] < 2:
        return ()
    here = member.any(axis=1)
    dealt = member[here].astype(np.float64)
    triples = rows[here, : 3 * len(labels)].reshape(len(dealt), -1, 3).sum(axis=1)
    found = _spread(dealt, triples)
    drawn = np.stack(
        [_spread(dealt[random.permutation(len(dealt))], triples) for _ in range(permutations)]
    )
    as_large = (drawn >= found - 1e-12).sum(axis=0)
    p_values = (1 + as_large) / (1 + permutations)
    pairs = zip(("f1", "recall"), found, p_values, strict=True)
    return tuple(Gap(score=name, gap=float(g), p_value=float(p)) for name, g, p in pairs)


def _spread(dealt: Numbers, triples: CountVector) -> Numbers:
    """Gaps of F1 and recall: `[2]`."""
    correct, predicted, gold = (dealt.T @ triples).T
    f1 = _ratio(2 * correct, predicted + gold)
    recall = _ratio(correct, gold)
    return np.array([np.ptp(f1), np.ptp(recall)])


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
