"""Passes over a vector: an update to packed levels, levels to a message, and the total to levels.

For each piece of the vector an institution either weights, rounds and packs; or reads levels, adds
all masks and packs, straight into the message; and the coordinator reads the total and takes masks
off. A piece stays in the processor's cache throughout, and no vector of weighted, rounded or masked
values is ever whole in memory.

Guarantees:
    * The result is that of `quantise` and `pack`, of `add_masks_` and `pack`, or of `unpack` and
      `add_masks_`, one after the other; neither threads nor pieces change it.
    * What is masked is only read, and no level leaves without all masks.
    * Bounded memory: buffers of `PIECE` values a thread, whatever the vector's length.

Where an error is raised, the buffer holds nothing that may be sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.secagg.masks import BLOCK_WORDS, Mask, add_piece_, open_streams, require_distinct
from common.secagg.packing import Packer, Unpacker, checked_stream, fresh, packed_size, room_for
from common.secagg.quantise import Grid, Rounding, require_no_wrap, rounding_key
from common.secagg.vectors import Parts, Vector, in_parts, pieces, require_bits, require_vector

PIECE: Final = 1 << 15

_ROUNDING: Final = 5
_REPACKING: Final = 4
_UNPACKING: Final = 1
"""About the work of so many masks: rounding and packing, unpacking and packing, unpacking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Levels as the stream that `common.secagg.packing.pack` makes of them. They are private.

    Attributes:
        stream: of values of the modulus's bits.
        length: how many.
    """

    stream: bytes | memoryview = field(repr=False)
    length: int

    def __len__(self) -> int:
        return self.length


Levels = Vector | Packed
_Load = Callable[[int, int], Vector]
"""Values `first` and so on, `n` of them, which may be changed."""
_Store = Callable[[int, Vector], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """An update's levels, and how many values were cut, or counted as 0. All three are private."""

    stream: bytes = field(repr=False)
    clipped: int = field(repr=False)
    not_finite: int = field(repr=False)


def round_packed(
    update: npt.NDArray[np.float32],
    share: np.float32,
    grid: Grid,
    k: int,
    random: Callable[[Any], None],
    *,
    threads: int = 1,
) -> Rounded:
    """Round an update times a share to the grid; a product that is not finite counts as 0.

    Args:
        update: float32 `[n]`, only read.
        share: of it.
        grid, k, random: as `quantise` takes them.
        threads: at most so many.

    Raises:
        DataError: another kind of array.
        ConfigError: another modulus, one below the grid's, or another number of threads.
    """
    require_no_wrap(k, grid.value_bits, 1)
    require_vector(update, np.float32)
    stream = fresh(packed_size(len(update), k))
    with stream.getbuffer() as out:
        clipped, not_finite = _round_into(
            out, update, share, grid, k, rounding_key(random), threads
        )
    return Rounded(stream=stream.getvalue(), clipped=clipped, not_finite=not_finite)


def _round_into(
    out: Any,
    update: npt.NDArray[np.float32],
    share: np.float32,
    grid: Grid,
    k: int,
    key: bytes,
    threads: int,
) -> tuple[int, int]:
    """How many values were clipped, and not finite."""
    n, room = len(update), room_for(out, len(update), k)

    def work(parts: Parts) -> tuple[int, int]:
        packer, rounding, not_finite = Packer(room, n, k), Rounding(grid, key, n), 0
        weighted = np.empty(min(PIECE, n), np.float32)
        for start, stop in parts:
            rounding.seek(start)
            for first, last in pieces(start, stop, PIECE):
                piece = weighted[: last - first]
                np.multiply(update[first:last], share, out=piece)
                not_finite += _zero_where_not_finite(piece)
                rounding.round(piece, packer.room(last - first))
                packer.write(first, last - first)
        return rounding.clipped, not_finite

    cut = in_parts(n, threads, _ROUNDING, work)
    return sum(clipped for clipped, _ in cut), sum(zeroed for _, zeroed in cut)


def _zero_where_not_finite(values: npt.NDArray[np.float32]) -> int:
    """How many these were."""
    finite = np.isfinite(values)
    if finite.all():
        return 0
    values[~finite] = 0.0
    return int(np.count_nonzero(~finite))


def mask_levels(
    out: Any, levels: Levels, k: int, masks: Sequence[Mask], *, threads: int = 1
) -> None:
    """Write levels, masked.

    Args:
        out: contiguous and writable, `packed_size(n, k)` bytes.
        levels: uint32 `[n]`, of which the low `k` bits count; or a stream of `k` bits a value.
        k: bits of the modulus.
        masks: as `add_masks_` takes them.
        threads: at most so many.

    Raises:
        DataError: a buffer of another size, or another kind of array.
        ProtocolError: one key twice, or a stream that `unpack` refuses.
        ConfigError: another modulus or number of threads.
    """
    n, load = len(levels), _loader(levels, k)
    room = room_for(out, n, k)

    def begin() -> tuple[_Load, _Store]:
        packer = Packer(room, n, k)
        return partial(load, packer), lambda first, piece: packer.write(first, len(piece))

    _mask_pieces(n, masks, threads, _REPACKING, begin)


def unmask(packed: Packed, k: int, masks: Sequence[Mask], *, threads: int = 1) -> Vector:
    """The values of a stream with masks added to them, modulo `2^k`.

    Args:
        packed: the sum of masked vectors; only read.
        k: bits of the modulus.
        masks: as `add_masks_` takes them, each with the sign that takes it off.
        threads: at most so many.

    Returns:
        uint32 `[n]`, below `2^k`.

    Raises:
        ProtocolError: one key twice, or a stream that `unpack` refuses.
        ConfigError: another modulus or number of threads.
    """
    n = len(packed)
    stream = checked_stream(packed.stream, n, k)
    values, low = np.empty(n, np.uint32), np.uint32((1 << k) - 1)

    def store(first: int, piece: Vector) -> None:
        np.bitwise_and(piece, low, out=values[first : first + len(piece)])

    _mask_pieces(n, masks, threads, _UNPACKING, lambda: (Unpacker(stream, n, k).read, store))
    return values


def _mask_pieces(
    n: int,
    masks: Sequence[Mask],
    threads: int,
    passes: int,
    begin: Callable[[], tuple[_Load, _Store]],
) -> None:
    """Read each piece, add all masks to it modulo 2^32, and store it.

    Args:
        passes: of reading and storing.
        begin: called by each thread for what reads and what stores.

    Raises:
        ProtocolError: one key twice; nothing was read.
    """
    require_distinct(masks)

    def work(parts: Parts) -> None:
        (load, store), words = begin(), np.empty(min(PIECE, n), np.uint32)
        for start, stop in parts:
            streams = open_streams(masks, start // BLOCK_WORDS)
            for first, last in pieces(start, stop, PIECE):
                piece = load(first, last - first)
                add_piece_(piece, streams, words[: last - first])
                store(first, piece)

    in_parts(n, threads, len(masks) + passes, work)


def require_levels(levels: Levels, k: int) -> None:
    """Refuse what can't be masked; raises as `mask_levels` does."""
    _loader(levels, k)


def _loader(levels: Levels, k: int) -> Callable[[Packer, int, int], Vector]:
    """What puts `n` levels from one on into a packer's room, modulo 2^32; else as above."""
    require_bits(k)
    if isinstance(levels, Packed):
        stream = checked_stream(levels.stream, len(levels), k)
        return lambda packer, first, n: packer.refill(stream, first, n)
    vector = levels
    require_vector(vector, np.uint32)

    def load(packer: Packer, first: int, n: int) -> Vector:
        piece = packer.room(n)
        np.copyto(piece, vector[first : first + n])
        return piece

    return load
