"""What quantising, masking and packing share: checks of vectors, and work in parts of them."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, DataError

MIN_BITS: Final = 16
MAX_BITS: Final = 32
PART_UNIT: Final = 1 << 15
"""Parts begin at multiples of this many values: whole cipher blocks, whole bytes of any width."""
PASSES_A_THREAD: Final = 1 << 24
"""About 10 ms of work. On a busy machine a thread can cost as much, waiting for its turn to end."""

MAX_THREADS: Final = 4
"""A few are enough to be as fast as memory is."""

_PARTS_A_THREAD: Final = 8
"""So that one that has a processor to itself does not wait long for one that shares its own."""

T = TypeVar("T")
Vector = npt.NDArray[np.uint32]
Parts = Iterator[tuple[int, int]]

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


def pieces(start: int, stop: int, size: int) -> Parts:
    """Bounds of consecutive pieces of at most `size`."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def in_pieces(parts: Parts, size: int) -> Parts:
    """Bounds of the parts' pieces."""
    return (piece for part in parts for piece in pieces(*part, size))


def in_parts(n: int, threads: int, passes: int, work: Callable[[Parts], T]) -> list[T]:
    """Let threads take contiguous parts that cover `[0, n)`, each the next as soon as it is free.

    Args:
        n: length of the vector; where it is 0, nothing is called.
        threads: at most so many; of a small vector it is fewer, see `threads_for`.
        passes: over the vector in all, each about the work of one mask.
        work: called once by each thread with the parts it is to do, this thread among them; must
            not depend on where parts begin, but that it is a multiple of `PART_UNIT`.

    Returns:
        What the calls returned, in any order. The first error of any is raised, after all have
        ended.

    Raises:
        ConfigError: fewer threads than one.
    """
    used = threads_for(n, threads, passes)
    if used == 1:
        return [work(iter([(0, n)]))] if n else []
    units = -(-n // PART_UNIT)
    size = -(-units // (used * _PARTS_A_THREAD)) * PART_UNIT
    # a deque's popleft is safe between threads; each of them finds an end
    waiting = deque([*pieces(0, n, size), *[None] * used])
    with ThreadPoolExecutor(used - 1) as pool:
        others = [pool.submit(work, iter(waiting.popleft, None)) for _ in range(used - 1)]
        own = work(iter(waiting.popleft, None))
    return [own, *(other.result() for other in others)]


def threads_here(most: int | None = None) -> int:
    """How many threads a process's vectors may have: of its own processors at most `MAX_THREADS`.

    Args:
        most: at most so many, if given.
    """
    return min(MAX_THREADS, len(os.sched_getaffinity(0)), most or MAX_THREADS)


def threads_for(n: int, threads: int, passes: int) -> int:
    """How many threads a vector's work is worth: each has `PASSES_A_THREAD` values to pass over.

    Raises:
        ConfigError: fewer threads than one.
    """
    if type(threads) is not int or threads < 1:
        raise ConfigError(f"{threads!r} threads, expected 1 or more")
    return max(1, min(threads, n * passes // PASSES_A_THREAD, -(-n // PART_UNIT)))
