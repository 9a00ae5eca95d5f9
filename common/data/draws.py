"""Repeatable random draws for simulation data, one stream per named purpose.

Guarantees:
    1. The same seed and purpose give the same draws on every machine and Python version. Only
       `random.Random.random` is used, the one method whose sequence Python promises to keep
       ("Notes on Reproducibility", docs.python.org/3/library/random.html); `choice`, `shuffle`
       and `sample` carry no such promise. `dirichlet` also needs the platform's logarithm and
       cosine: its results may differ in the last digit.
    2. Different purposes give unrelated streams: the generator is seeded with the SHA-256 of
       an unambiguous encoding of (seed, purpose).

Not for secrets or for privacy noise: the generator is predictable.
"""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def digest(*parts: str | int) -> bytes:
    """The SHA-256 of an unambiguous encoding of `parts`."""
    return hashlib.sha256(json.dumps(parts).encode("ascii")).digest()


class Draws:
    """One stream of draws.

    Args:
        seed: the run's seed.
        purpose: what the stream is for, such as `"patient", "north", 12`.
    """

    def __init__(self, seed: int, *purpose: str | int):
        self._random = random.Random(int.from_bytes(digest(seed, *purpose), "big"))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def below(self, bound: int) -> int:
        """A whole number in [0, bound)."""
        return int(self.uniform() * bound)

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in a drawn order (Fisher-Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items; all of them if there are no more than `count`."""
        return self.shuffled(items)[:count]

    def dirichlet(self, alpha: float, size: int) -> list[float]:
        """`size` proportions that sum to 1, from a symmetric Dirichlet distribution.

        Works with logarithms, so a small `alpha` does not underflow to 0/0.
        """
        logs = [self._log_gamma_variate(alpha) for _ in range(size)]
        top = max(logs)
        weights = [math.exp(value - top) for value in logs]
        return [weight / sum(weights) for weight in weights]

    def _log_gamma_variate(self, shape: float) -> float:
        """The logarithm of a Gamma(shape, 1) variate.

        Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 26(3),
        2000: section 2 for shape + 1 >= 1, section 6 for the step down by U**(1/shape).
        """
        d = shape + 1 - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self._normal()
            v = (1 + c * x) ** 3
            if v > 0 and math.log(1 - self.uniform()) < 0.5 * x * x + d - d * v + d * math.log(v):
                return math.log(d * v) + math.log(1 - self.uniform()) / shape

    def _normal(self) -> float:
        """A standard normal variate (Box-Muller)."""
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())
