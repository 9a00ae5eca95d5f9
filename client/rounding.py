"""From an update to what the secure sum adds up: weighted, rounded to the study's grid, packed.

Guarantees:
    * An update is multiplied by its public weight over the largest one, so that no weight makes it
      longer than the grid was chosen for.
    * How many coordinates were clipped is told to the site, and to nobody else.
    * Values that are not finite count as 0 and are told to the site alone: a refusal, which the
      coordinator sees, would tell it something of private data.
    * The update is left as it was, and no copy of it is made.
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
from common.secagg.pipeline import round_packed
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
        stream = keys(USE) if keys else Keystream(self._random(SEED_BYTES), f"fedner {USE} v1")
        levels = round_packed(update, self._share, self._grid, self._bits, stream.fill)
        cut = {"clipped": levels.clipped, "not finite": levels.not_finite}
        self._report(USE, {"round": round_, **cut, "of": len(update)})
        return levels.stream
