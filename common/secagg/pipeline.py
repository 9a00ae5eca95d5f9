"""An institution's values into the packed bytes of its message, masked, in one pass.

For each piece of the vector: its levels, from wherever they come; all masks added; packed straight
into the message. A piece stays in the processor's cache throughout, and no vector of levels or of
masked values is ever whole in memory.

Guarantees:
    * The bytes are those of `quantise`, `add_masks_` and `pack` one after the other, for the same
      random bytes; neither threads nor pieces change them.
    * What is masked is only read, and no level leaves without all masks.
    * Bounded memory: buffers of `PIECE` values a thread, whatever the vector's length.

Where an error is raised, the buffer holds nothing that may be sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from common.secagg.masks import Mask, add_piece_, open_streams, require_distinct
from common.secagg.packing import Packer, Unpacker, checked_stream, room_for
from common.secagg.quantise import Grid, Rounder, require_no_wrap
from common.secagg.vectors import Vector, in_parts, pieces, require_bits, require_vector

PIECE: Final = 1 << 15

_BLOCK_WORDS: Final = 4


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


class _Reader(Protocol):
    """Consecutive pieces of levels."""

    def fill(self, first: int, out: Vector) -> None:
        """Write levels `first` and so on, modulo 2^32."""


R = TypeVar("R", bound=_Reader)


def mask_update(
    out: Any,
    update: npt.NDArray[np.float32],
    grid: Grid,
    k: int,
    random: Callable[[Any], None],
    masks: Sequence[Mask],
    *,
    threads: int = 1,
) -> int:
    """Write an update, rounded to the grid and masked.

    Args:
        out: contiguous and writable, `packed_size(n, k)` bytes.
        update: float32 `[n]`.
        grid, k, random: as `quantise` takes them.
        masks: as `add_masks_` takes them.
        threads: how many parts of the vector are worked on at once.

    Returns:
        How many values were clipped, which is private.

    Raises:
        DataError: a value that is not finite, a buffer of another size, or another kind of array.
        ProtocolError: one key twice.
        ConfigError: another modulus, one below the grid's, or another number of threads.
    """
    require_no_wrap(k, grid.value_bits, 1)
    require_vector(update, np.float32)
    room_for(out, len(update), k)
    rounder = Rounder(update, grid, random)
    parts = _write(out, len(update), k, masks, threads, rounder.part)
    return sum(part.clipped for part in parts)


def mask_levels(
    out: Any, levels: Levels, k: int, masks: Sequence[Mask], *, threads: int = 1
) -> None:
    """Write levels, masked.

    Args:
        levels: uint32 `[n]`, of which the low `k` bits count; or a stream of `k` bits a value.
        out, k, masks, threads: as `mask_update` takes them.

    Raises:
        DataError, ProtocolError, ConfigError: as `mask_update`; or a stream that `unpack` refuses.
    """
    require_levels(levels, k)
    if isinstance(levels, Packed):
        stream = checked_stream(levels.stream, len(levels), k)
        _write(out, len(levels), k, masks, threads,
               lambda _, size: _Unpacked(Unpacker(stream, size, k)))  # fmt: skip
        return
    _write(out, len(levels), k, masks, threads, lambda _, size: _Plain(levels))


def require_levels(levels: Levels, k: int) -> None:
    """Refuse what can't be masked; raises as `mask_levels` does."""
    require_bits(k)
    if isinstance(levels, Packed):
        checked_stream(levels.stream, len(levels), k)
    else:
        require_vector(levels, np.uint32)


def _write(
    out: Any,
    n: int,
    k: int,
    masks: Sequence[Mask],
    threads: int,
    levels: Callable[[int, int], R],
) -> list[R]:
    """The pass. `levels(start, size)` reads a part in pieces of at most `size`."""
    stream = room_for(out, n, k)
    require_distinct(masks)

    def part(start: int, stop: int) -> R:
        size = min(PIECE, stop - start)
        source, packer = levels(start, size), Packer(stream, size, k)
        streams = open_streams(masks, start // _BLOCK_WORDS)
        words = np.empty(size, np.uint32)
        for first, last in pieces(start, stop, PIECE):
            piece = packer.room(last - first)
            source.fill(first, piece)
            add_piece_(piece, streams, words[: last - first])
            packer.write(first, last - first)
        return source

    return in_parts(n, threads, part)


class _Plain:
    """Levels that lie in a vector."""

    def __init__(self, vector: Vector):
        self._vector = vector

    def fill(self, first: int, out: Vector) -> None:
        np.copyto(out, self._vector[first : first + len(out)])


class _Unpacked:
    """Levels that lie in a stream."""

    def __init__(self, unpacker: Unpacker):
        self._unpacker = unpacker

    def fill(self, first: int, out: Vector) -> None:
        np.copyto(out, self._unpacker.read(first, len(out)))
