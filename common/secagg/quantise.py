"""Real values to integers modulo `2^k` by unbiased stochastic rounding, and their sum back.

A value `x`, clipped to `[-clip, clip]`, is `y = x / step` steps long. With `f` its part above the
integer below, it is rounded up with probability `f`, so that its expectation is `y` and its
variance `f (1 - f)` steps squared, at most a quarter. It is computed as `rint(y + u)` in float64,
`u` being a signed 32-bit integer of a keystream times `2^-32 (1 - 2^-24)`.

Guarantees:
    * Unbiased to `2^-24` of a step, whatever the value. The shrunken `u` ends `2^-25` before one
      half at either side, the 32-bit spacing adds at most `2^-32`, and the float64 roundings of
      `y` and `y + u`, where `|y| < 2^23`, at most `2^-28`: in all below `2^-24`.
    * Off by less than one step; a value within `2^-26` of a step from the grid goes to that grid
      value always. So what float32 holds exactly of the grid is kept exactly.
    * Never silent: the number of clipped values is returned, and values that are not finite are
      refused.
    * No wrap: with `k = smallest_bits(...)`, `n` institutions' sum lies within `2^(k-1) - 1`.
    * Deterministic in the 32 bytes drawn: neither threads nor pieces change the result.
    * Bounded memory: `PIECE` values a thread beside input and output.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, DataError
from common.privacy.keystream import counter_mode, write_keystream
from common.secagg.vectors import (
    MAX_BITS,
    MIN_BITS,
    Parts,
    Vector,
    in_parts,
    pieces,
    require_bits,
    require_vector,
)

MIN_VALUE_BITS: Final = 2
MAX_VALUE_BITS: Final = 24
"""float32 has a significand of 24 bits: a finer grid would resolve nothing but its rounding."""
PIECE: Final = 1 << 15

_PASSES: Final = 3
"""Rounding is about the work of three masks."""
_UNIFORM_STEP: Final = 2.0**-32 * (1 - 2.0**-24)
_CLIP_RANGE: Final = (2.0**-100, 2.0**100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers that one institution's value may become.

    Attributes:
        clip: values are clipped to [-clip, clip], in the unit of the values.
        value_bits: `v`: the levels are the integers within `2^(v-1) - 1` of zero.

    Raises:
        ConfigError: a clip that is not in 2^-100 to 2^100, or bits that are not in 2 to 24.
    """

    clip: float
    value_bits: int

    def __post_init__(self) -> None:
        lowest, highest = _CLIP_RANGE
        if not isinstance(self.clip, int | float) or not lowest <= self.clip <= highest:
            raise ConfigError(f"a clip of {self.clip!r}, expected 2^-100 to 2^100")
        _require_value_bits(self.value_bits)

    @property
    def levels(self) -> int:
        """The largest level, `2^(v-1) - 1`; the smallest is its negative."""
        return _largest_level(self.value_bits)

    @property
    def step(self) -> float:
        """Distance of neighbouring levels, in the unit of the values."""
        return self.clip / self.levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """A vector of levels modulo `2^k`, and how many values lay beyond the clip. Both are private.

    Attributes:
        values: uint32 `[n]`.
        clipped: of these.
    """

    values: Vector = field(repr=False)
    clipped: int = field(repr=False)


def quantise(
    vector: npt.NDArray[np.float32],
    grid: Grid,
    k: int,
    random: Callable[[Any], None],
    *,
    threads: int = 1,
    out: Vector | None = None,
) -> Quantised:
    """Round a vector to the grid.

    Args:
        vector: float32 `[n]`.
        grid: clip and levels.
        k: bits of the modulus, at least the grid's.
        random: fills a buffer with secret uniform bits; is asked for 32 bytes, once.
        threads: at most so many.
        out: uint32 `[n]`, overwritten; `vector.view("uint32")` quantises in place.

    Raises:
        DataError: a value that is not finite (what `out` then holds is undefined), or another kind
            of array.
        ConfigError: another modulus, or one below the grid's.
    """
    require_bits(k)
    require_no_wrap(k, grid.value_bits, 1)
    require_vector(vector, np.float32)
    values = np.empty(len(vector), np.uint32) if out is None else out
    require_vector(values, np.uint32, writable=True)
    if len(values) != len(vector):
        raise DataError(f"room for {len(values)} values, expected {len(vector)}")
    key, mask = rounding_key(random), np.uint32((1 << k) - 1)

    def work(parts: Parts) -> int:
        rounding = Rounding(grid, key, len(vector))
        for start, stop in parts:
            rounding.seek(start)
            for first, last in pieces(start, stop, PIECE):
                rounding.round(vector[first:last], values[first:last])
                np.bitwise_and(values[first:last], mask, out=values[first:last])
        return rounding.clipped

    return Quantised(values=values, clipped=sum(in_parts(len(vector), threads, _PASSES, work)))


def dequantise_sum(
    total: Vector, grid: Grid, k: int, *, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """The sum of levels as real values: lifted to `[-2^(k-1), 2^(k-1))`, times the step.

    Args:
        total: uint32 `[n]`, below `2^k`.
        grid, k: those of the vectors summed.
        out: float32 `[n]`, overwritten; `total.view("float32")` computes in place.

    Returns:
        `out`, or float32 `[n]`; each the nearest to the product.

    Raises:
        DataError: another kind of array, or `out` of another length.
        ConfigError: another modulus.
    """
    require_bits(k)
    require_vector(total, np.uint32)
    values = np.empty(len(total), np.float32) if out is None else out
    require_vector(values, np.float32, writable=True)
    if len(values) != len(total):
        raise DataError(f"room for {len(values)} values, expected {len(total)}")
    # lifted by 2^(32-k), the top bit is the sign; the step undoes that, exactly
    step, lift = grid.step * 2.0 ** (k - MAX_BITS), np.uint32(MAX_BITS - k)
    lifted = np.empty(min(PIECE, len(total)), np.uint32)
    scaled = np.empty(len(lifted), np.float64)
    for first, last in pieces(0, len(total), PIECE):
        n = last - first
        np.left_shift(total[first:last], lift, out=lifted[:n])
        np.copyto(scaled[:n], lifted[:n].view(np.int32))
        np.multiply(scaled[:n], step, out=scaled[:n])
        values[first:last] = scaled[:n]
    return values


def smallest_bits(value_bits: int, n_institutions: int) -> int:
    """The smallest modulus, in bits, that the sum of so many institutions can't wrap; at least 16.

    Raises:
        ConfigError: none of up to 32 bits is enough; or nonsensical arguments.
    """
    largest = _largest_sum(value_bits, n_institutions)
    k = max(MIN_BITS, largest.bit_length() + 1)
    require_no_wrap(min(k, MAX_BITS), value_bits, n_institutions)
    return k


def require_no_wrap(k: int, value_bits: int, n_institutions: int) -> None:
    """Refuse a modulus that the sum could wrap.

    Raises:
        ConfigError: with the arithmetic.
    """
    require_bits(k)
    largest, room = _largest_sum(value_bits, n_institutions), (1 << (k - 1)) - 1
    if largest > room:
        raise ConfigError(
            f"{n_institutions} institutions of {value_bits} bits a value sum up to "
            f"{n_institutions} * (2^{value_bits - 1} - 1) = {largest}, a modulus of {k} bits holds "
            f"2^{k - 1} - 1 = {room}",
            remedy="fewer bits a value, or more bits of the modulus (32 at most)",
        )


def _largest_sum(value_bits: int, n_institutions: int) -> int:
    _require_value_bits(value_bits)
    if type(n_institutions) is not int or n_institutions < 1:
        raise ConfigError(f"{n_institutions!r} institutions, expected 1 or more")
    return n_institutions * _largest_level(value_bits)


def _largest_level(value_bits: int) -> int:
    return int((1 << (value_bits - 1)) - 1)


def _require_value_bits(value_bits: int) -> None:
    if type(value_bits) is not int or not MIN_VALUE_BITS <= value_bits <= MAX_VALUE_BITS:
        raise ConfigError(
            f"{value_bits!r} bits a value, expected {MIN_VALUE_BITS} to {MAX_VALUE_BITS}"
        )


def rounding_key(random: Callable[[Any], None]) -> bytes:
    """The key of one vector's rounding: 32 secret bytes, drawn once."""
    drawn = bytearray(32)
    random(drawn)
    return bytes(drawn)


class Rounding:
    """Consecutive pieces of one vector's rounding, through working memory of one thread.

    Args:
        grid: clip and levels.
        key: of the keystream whose word `i` rounds value `i`.
        n: values of the vector; a piece has at most so many, and at most `PIECE`.

    Attributes:
        clipped: how many values have been, so far.
    """

    def __init__(self, grid: Grid, key: bytes, n: int):
        self.clipped = 0
        self._clip, self._per_unit = grid.clip, grid.levels / grid.clip
        self._key, size = key, min(PIECE, n)
        self._bits = np.empty(size, np.int32)
        self._uniform, self._scaled = np.empty(size), np.empty(size)
        self.seek(0)

    def seek(self, start: int) -> None:
        """Go on at value `start`, a multiple of 4: four words of the keystream are a block."""
        self._stream = counter_mode(self._key, (start // 4).to_bytes(16, "big"))

    def round(self, values: npt.NDArray[np.float32], out: Vector) -> None:
        """Round the next values to levels modulo 2^32.

        Raises:
            DataError: a value that is not finite.
        """
        n = len(values)
        bits, scaled = self._bits[:n], self._scaled[:n]
        write_keystream(self._stream, bits.data.cast("B"))
        self.clipped += self._load(values, scaled)
        round_(scaled, bits, self._uniform[:n])
        np.copyto(out.view(np.int32), scaled, casting="unsafe")

    def _load(self, values: npt.NDArray[np.float32], scaled: npt.NDArray[np.float64]) -> int:
        """Values in steps, within the levels; the number that had to be clipped."""
        lowest, highest = float(values.min()), float(values.max())
        if not math.isfinite(lowest) or not math.isfinite(highest):
            raise DataError("an update has values that are not finite", remedy="train in float32")
        np.copyto(scaled, values)
        clipped = 0
        if lowest < -self._clip or highest > self._clip:
            clipped = int(np.count_nonzero(np.abs(scaled) > self._clip))
            np.clip(scaled, -self._clip, self._clip, out=scaled)
        np.multiply(scaled, self._per_unit, out=scaled)
        return clipped


def round_(
    scaled: npt.NDArray[np.float64],
    bits: npt.NDArray[np.int32],
    uniform: npt.NDArray[np.float64],
) -> None:
    """Round in place to the integer below or above, by 32 uniform bits each.

    Args:
        scaled: float64 `[n]`, within 2^23 of zero.
        bits: int32 `[n]`, any.
        uniform: float64 `[n]`, overwritten.
    """
    np.copyto(uniform, bits)
    np.multiply(uniform, _UNIFORM_STEP, out=uniform)
    np.add(scaled, uniform, out=scaled)
    np.rint(scaled, out=scaled)
