"""An institution's levels into the packed bytes of its message, masked, in one pass.

For each piece of the vector: its levels, from a vector or a packed stream; all masks added; packed
straight into the message. A piece stays in the processor's cache throughout, and no vector of
masked values is ever whole in memory.

Guarantees:
    * The bytes are those of `add_masks_` and `pack` one after the other; neither threads nor pieces
      change them.
    * What is masked is only read, and no level leaves without all masks.
    * Bounded memory: buffers of `PIECE` values a thread, whatever the vector's length.

Where an error is raised, the buffer holds nothing that may be sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from common.secagg.masks import Mask, add_piece_, open_streams, require_distinct
from common.secagg.packing import Packer, checked_stream, room_for
from common.secagg.vectors import Parts, Vector, in_parts, pieces, require_bits, require_vector

PIECE: Final = 1 << 15

_PASSES: Final = 4
"""Unpacking and packing are about the work of four masks."""
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
    require_distinct(masks)

    def work(parts: Parts) -> None:
        packer, words = Packer(room, n, k), np.empty(min(PIECE, n), np.uint32)
        for start, stop in parts:
            streams = open_streams(masks, start // _BLOCK_WORDS)
            for first, last in pieces(start, stop, PIECE):
                piece = load(packer, first, last - first)
                add_piece_(piece, streams, words[: last - first])
                packer.write(first, last - first)

    in_parts(n, threads, len(masks) + _PASSES, work)


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
