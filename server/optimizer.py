"""The coordinator's step: from the round's updates to the next model. numpy only.

The model is `delta`, the sum of all steps, float32 `[dimension]`; it starts at zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from common.config.study import Aggregation

Vector = npt.NDArray[np.float32]


def weighted_mean(updates: Mapping[str, Vector], weights: Mapping[str, float]) -> Vector:
    """Mean of the survivors' updates by their public weights, rescaled to sum to one.

    Summed in the order of `weights` (the roster), so that the order of arrival never shows.
    """
    present = [name for name in weights if name in updates]
    total = sum(weights[name] for name in present)
    mean: Vector | None = None
    for name in present:
        part = updates[name] * np.float32(weights[name] / total)
        mean = part if mean is None else np.add(mean, part, out=mean)
    if mean is None:
        raise ValueError("no updates")
    return mean


@dataclass(slots=True)
class ServerOptimizer:
    """FedAvg, FedAdam or Adam, with its state. Works on what has already left: post-processing.

    Attributes:
        moments: first and second moment, float32 `[2, dimension]`; empty for FedAvg.
        mean: moving average of `delta` over the rounds, `[dimension]`; empty without one.
        rounds: steps taken.
    """

    settings: Aggregation
    delta: Vector
    moments: Vector = field(default_factory=lambda: np.zeros((2, 0), np.float32))
    mean: Vector = field(default_factory=lambda: np.zeros(0, np.float32))
    rounds: int = 0

    @classmethod
    def start(cls, settings: Aggregation, dimension: int) -> "ServerOptimizer":
        """State before round 1; FedAdam's second moment starts at tau², the paper's least."""
        width = 0 if settings.optimizer == "fedavg" else dimension
        moments = np.zeros((2, width), np.float32)
        if settings.optimizer == "fedadam":
            moments[1] = settings.tau**2
        mean = np.zeros(0 if settings.average is None else dimension, np.float32)
        return cls(settings, np.zeros(dimension, np.float32), moments, mean)

    @property
    def released(self) -> Vector:
        """The model that is evaluated and handed out: the average, or `delta` itself, interpolated.

        The average starts at zero and is divided by the weight it has seen, as Adam's moments.
        Interpolation: arXiv 2109.01903v3, equation 1, whose alpha it is.
        """
        trained = self.delta
        if self.settings.average is not None and self.rounds:
            trained = self.mean / np.float32(1 - self.settings.average**self.rounds)
        share = self.settings.interpolation
        return trained if share == 1 else trained * np.float32(share)

    def step(self, mean_update: Vector, factor: float = 1.0) -> None:
        """Move `delta` by one round.

        FedAvg: `delta += lr * mean`. FedAdam (arXiv 2003.00295, algorithm 2): without bias
        correction, as the paper has it. Adam (arXiv 1412.6980, algorithm 1): with it.

        Args:
            factor: of the learning rate, by its schedule.
        """
        self.rounds += 1
        if self.settings.optimizer == "fedavg":
            self.delta += np.float32(self.settings.rate * factor) * mean_update
        else:
            self._adaptive(mean_update, factor)
        if self.settings.average is not None:
            self.mean *= np.float32(self.settings.average)
            self.mean += np.float32(1 - self.settings.average) * self.delta

    def _adaptive(self, mean_update: Vector, factor: float) -> None:
        s = self.settings
        first, second = self.moments
        first *= np.float32(s.beta1)
        first += np.float32(1 - s.beta1) * mean_update
        second *= np.float32(s.beta2)
        second += np.float32(1 - s.beta2) * mean_update**2
        correct = s.optimizer == "adam"
        scale1 = 1 - s.beta1**self.rounds if correct else 1.0
        scale2 = 1 - s.beta2**self.rounds if correct else 1.0
        rate = np.float32(s.rate * factor / scale1)
        self.delta += rate * first / (np.sqrt(second / np.float32(scale2)) + np.float32(s.tau))
