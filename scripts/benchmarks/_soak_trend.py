"""Whether a figure grows with the rounds: a slope within the lives of processes, with confidence.

The model is `y = a_life + b round + error`, one level `a` for each life of a process and one slope
`b` for all of them: a restart is no growth, and what is short-lived can't hide what is not. Errors
of neighbouring rounds hang together; means over `BATCH` rounds hardly do, so that the fit is by
least squares to these, with Student's t (the method of batch means: Law, Simulation Modeling and
Analysis, 5th ed. 2015, section 9.5.3). What the interval is worth is tested.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy import stats

BATCH: Final = 10
"""Points whose mean is one value of the fit."""
LEAST: Final = 2 * BATCH
"""Points that a life must have to count."""
CONFIDENCE: Final = 0.95

Points = Sequence[tuple[float, float]]
"""(round, value), in order."""


class Trend(NamedTuple):
    """Growth a round, with the ends of its 95 % confidence interval.

    Attributes:
        level: mean of all values.
        points, lives: that it rests on.
    """

    slope: float
    low: float
    high: float
    level: float
    points: int
    lives: int

    @property
    def grows(self) -> bool:
        """Whether growth is beyond chance."""
        return self.low > 0


def trend(lives: Mapping[object, Points]) -> Trend | None:
    """The common slope of several lives; `None` where they are too short for an interval.

    Raises:
        ValueError: a value that is not finite.
    """
    kept = [np.asarray(points, float) for points in lives.values() if len(points) >= LEAST]
    if not all(np.isfinite(points).all() for points in kept):
        raise ValueError("expected finite values")
    means = [_batches(points) for points in kept]
    free = sum(len(mean) - 1 for mean in means) - 1
    if free < 1:
        return None
    centred = np.concatenate([mean - mean.mean(axis=0) for mean in means])
    x, y = centred[:, 0], centred[:, 1]
    spread = float(x @ x)
    slope = float(x @ y) / spread
    rest = y - slope * x
    error = math.sqrt(float(rest @ rest) / free / spread)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, free)) * error
    level = float(np.mean(np.concatenate([points[:, 1] for points in kept])))
    points = sum(len(one) for one in kept)
    return Trend(slope, slope - half, slope + half, level, points, len(kept))


def _batches(points: np.ndarray) -> np.ndarray:
    """Means of `BATCH` points each, [batches, 2]; the first points that are over are left out."""
    n = len(points) // BATCH
    return points[len(points) - n * BATCH :].reshape(n, BATCH, 2).mean(axis=1)
