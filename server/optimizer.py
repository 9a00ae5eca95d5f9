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
    """FedAvg or FedAdam, with its state.

    Attributes:
        moments: FedAdam's first and second moment, float32 `[2, dimension]`; empty for FedAvg.
    """

    settings: Aggregation
    delta: Vector
    moments: Vector = field(default_factory=lambda: np.zeros((2, 0), np.float32))

    @classmethod
    def start(cls, settings: Aggregation, dimension: int) -> "ServerOptimizer":
        """State before round 1; FedAdam's second moment starts at tau², the paper's least."""
        width = dimension if settings.optimizer == "fedadam" else 0
        moments = np.zeros((2, width), np.float32)
        moments[1] = settings.tau**2
        return cls(settings, np.zeros(dimension, np.float32), moments)

    def step(self, mean_update: Vector) -> None:
        """Move `delta` by one round.

        FedAvg: `delta += lr * mean`. FedAdam (arXiv 2003.00295, algorithm 2): without bias
        correction, as the paper has it.
        """
        s = self.settings
        if s.optimizer == "fedavg":
            self.delta += np.float32(s.rate) * mean_update
            return
        first, second = self.moments
        first *= np.float32(s.beta1)
        first += np.float32(1 - s.beta1) * mean_update
        second *= np.float32(s.beta2)
        second += np.float32(1 - s.beta2) * mean_update**2
        self.delta += np.float32(s.rate) * first / (np.sqrt(second) + np.float32(s.tau))
