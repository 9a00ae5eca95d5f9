"""What quantising, masking and packing share: checks of vectors, and work in parts of them."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, DataError

MIN_BITS: Final = 16
MAX_BITS: Final = 32
PART_UNIT: Final = 1 << 15
"""Parts begin at multiples of this many values: whole cipher blocks, whole bytes of any width."""

Vector = npt.NDArray[np.uint32]

if sys.byteorder != "little":
    raise ImportError("secure aggregation reads its words as they lie: little-endian hosts only")


def require_bits(k: int) -> None:
    """Refuse a modulus `2^k` outside the package's range.

    Raises:
        ConfigError: not an integer of 16 to 32.
    """
    if type(k) is not int or not MIN_BITS <= k <= MAX_BITS:
        raise ConfigError(f"a modulus of {k!r} bits, expected {MIN_BITS} to {MAX_BITS}")


def require_vector(values: Any, dtype: type[np.generic], *, writable: bool = False) -> None:
    """Refuse what is not a flat contiguous array of the type.

    Raises:
        DataError: another type, shape or layout, or one that can't be written.
    """
    name = np.dtype(dtype).name
    if not isinstance(values, np.ndarray) or values.dtype != dtype:
        kind = getattr(values, "dtype", type(values).__name__)
        raise DataError(f"a vector of {kind}, expected {name}")
    if values.ndim != 1 or not values.flags.c_contiguous or not values.flags.aligned:
        raise DataError(f"an array {values.shape}, expected a flat contiguous {name} vector")
    if writable and not values.flags.writeable:
        raise DataError("a read-only vector, expected one that can be changed in place")


def pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Bounds of consecutive pieces of at most `size`."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def in_parts(n: int, threads: int, work: Callable[[int, int], Any]) -> list[Any]:
    """Call `work(start, stop)` on contiguous parts that cover `[0, n)`, one for each thread.

    Args:
        n: length of the vector; where it is 0, nothing is called.
        threads: at most so many parts, each at least `PART_UNIT` long but the last.
        work: must not depend on where the parts begin, but that it is a multiple of `PART_UNIT`.

    Returns:
        What the calls returned, in order of the parts. The first error of any is raised, after all
        have ended.

    Raises:
        ConfigError: fewer threads than one.
    """
    if type(threads) is not int or threads < 1:
        raise ConfigError(f"{threads!r} threads, expected 1 or more")
    units = -(-n // PART_UNIT)
    size = -(-units // threads) * PART_UNIT if units else 1
    parts = list(pieces(0, n, size))
    if len(parts) <= 1:
        return [work(*part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return [done.result() for done in [pool.submit(work, *part) for part in parts]]
