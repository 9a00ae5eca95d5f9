"""From an update to what the secure sum adds up: weighted, rounded to the study's grid, packed.

Guarantees:
    * An update is multiplied by its public weight over the largest one, so that no weight makes it
      longer than the grid was chosen for.
    * How many coordinates were clipped is told to the site, and to nobody else.
    * Values that are not finite count as 0 and are told to the site alone: a refusal, which the
      coordinator sees, would tell it something of private data.
    * The update is left as it was; one copy of it is made, and rounded in place.
    * Rounding is drawn from a fresh keystream of the operating system's randomness, or, in a study
      with an insecure seed, from that of its mechanism.
"""

import os
from collections.abc import Callable
from typing import Final

import numpy as np

from client.guard import Keys
from client.work import Report
from common.config.study import Study
from common.model.build import Vector
from common.privacy.keystream import SEED_BYTES, Keystream
from common.secagg.packing import pack
from common.secagg.quantise import quantise
from common.sums import grid_of, shares_of

USE: Final = "rounding"


class Rounding:
    """One institution's updates in one study.

    Args:
        bits: of the modulus.
        report: told the number of clipped coordinates.
        random: secret uniform bytes.
    """

    def __init__(
        self,
        study: Study,
        institution: str,
        bits: int,
        report: Report,
        random: Callable[[int], bytes] = os.urandom,
    ):
        self._grid, self._share = grid_of(study), np.float32(shares_of(study)[institution])
        self._bits, self._report, self._random = bits, report, random

    def round(self, round_: int, update: Vector, keys: Keys | None) -> bytes:
        """The update as packed levels."""
        weighted = np.ascontiguousarray(update * self._share, dtype=np.float32)
        not_finite = _zero_where_not_finite(weighted)
        stream = keys(USE) if keys else Keystream(self._random(SEED_BYTES), f"fedner {USE} v1")
        room = weighted.view(np.uint32)
        levels = quantise(weighted, self._grid, self._bits, stream.fill, out=room)
        figures = {"round": round_, "clipped": levels.clipped, "not finite": not_finite}
        figures["of"] = len(weighted)
        self._report(USE, figures)
        return pack(levels.values, self._bits)


def _zero_where_not_finite(values: Vector) -> int:
    """Put 0 in place of what is not finite; how many these were."""
    found = ~np.isfinite(values)
    values[found] = 0.0
    return int(np.count_nonzero(found))
