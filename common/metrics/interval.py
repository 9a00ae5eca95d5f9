"""How far a score would vary with other held-out documents: an interval by drawing them again.

Entities of one document are alike, so that an interval of counts as if each were drawn by itself
would be too narrow. Here whole units are drawn, with replacement (Efron, Bootstrap Methods,
Annals of Statistics 7(1), 1979; the percentile interval).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from common.metrics.evaluation import CountVector


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends, in [0, 1]."""

    low: float
    high: float


def micro_f1_interval(
    rows: CountVector,
    labels: Sequence[str],
    random: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """The percentile interval of the micro-averaged strict entity F1.

    It says nothing of another training seed, nor of documents of another kind; with few units it
    is too narrow. A draw in which nothing is annotated and nothing found has no score, and is left
    out; where all draws are so, both ends are 0, as the score of no entities is elsewhere.

    Args:
        rows: `[units, Evaluation.size(labels)]`, counts of each unit alone.
        resamples: how often as many units are drawn.
        level: how much of the drawn scores lies between the ends.

    Raises:
        DataError: no unit.
    """
    if not len(rows):
        raise DataError("there is no unit to draw from", remedy="hold documents out")
    triples = rows[:, : 3 * len(labels)].reshape(len(rows), -1, 3).sum(axis=1)
    drawn = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    correct, predicted, gold = (drawn @ triples).T
    scored = predicted + gold > 0
    f1 = 2.0 * correct[scored] / (predicted + gold)[scored]
    low, high = np.quantile(f1, [(1 - level) / 2, (1 + level) / 2]) if len(f1) else (0.0, 0.0)
    return Interval(float(low), float(high))
