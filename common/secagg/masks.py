"""Masks: the keystream of AES-256 in counter mode, added to a vector in place.

Mask word `i` is the `i`-th little-endian 32-bit word of the keystream of the mask's key, the
counter starting at zero (NIST SP 800-38A, section 6.5). It is added or subtracted modulo `2^32`,
and the sum reduced modulo `2^k`: since `2^k` divides `2^32`, that is the sum modulo `2^k` of the
words' low `k` bits, which are uniform where the words are.

Guarantees:
    * Whole: all 256 bits of the key go into the cipher. Nothing is folded, hashed down or handed to
      a statistical generator.
    * Cancelling: a mask added by one party and subtracted by another leaves the sum as it was.
    * Deterministic: the result depends on neither the number of threads nor the size of pieces.
    * Bounded memory: `PIECE` words a thread, whatever the vector's length.
    * Silent: a key is not shown by `repr`, and is neither pickled nor copied.

A key serves one vector once; who uses it for two gives their difference away. What is checked here
is only that one call has no key twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import CipherContext

from common.errors import ProtocolError
from common.privacy.keystream import counter_mode, write_keystream
from common.secagg.vectors import Parts, Vector, in_parts, pieces, require_bits, require_vector

KEY_BYTES: Final = 32
PIECE: Final = 1 << 15
"""128 KiB of words: the keystream is still in the second-level cache when it is added."""
BLOCK_WORDS: Final = 4

Streams = Sequence[tuple[CipherContext, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """One mask of one vector.

    Attributes:
        key: 32 bytes, uniform and secret, for this vector alone.
        sign: 1 to add it, -1 to subtract it.

    Raises:
        ProtocolError: a key of another size, or another sign.
    """

    key: bytes = field(repr=False)
    sign: int

    def __post_init__(self) -> None:
        if not isinstance(self.key, bytes) or len(self.key) != KEY_BYTES:
            raise ProtocolError(f"a mask's key is {KEY_BYTES} bytes")
        if self.sign not in (1, -1):
            raise ProtocolError(f"a mask of sign {self.sign!r}, expected 1 or -1")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mask is not pickled or copied")


def add_masks_(values: Vector, masks: Sequence[Mask], k: int, threads: int = 1) -> None:
    """Add or subtract each mask in place, modulo `2^k`: what `pipeline` is held against.

    Args:
        values: uint32 `[n]`; left with values below `2^k`.
        masks: with different keys, in any order.
        k: bits of the modulus.
        threads: at most so many.

    Raises:
        ProtocolError: one key twice, whose masks could cancel.
        ConfigError, DataError: another modulus, number of threads or kind of array. In all three
            cases the vector is as it was.
    """
    require_bits(k)
    require_vector(values, np.uint32, writable=True)
    require_distinct(masks)

    def work(parts: Parts) -> None:
        buffer = np.empty(min(PIECE, len(values)), np.uint32)
        for start, stop in parts:
            add_streams_(values[start:stop], open_streams(masks, start // BLOCK_WORDS), k, buffer)

    in_parts(len(values), threads, len(masks), work)


def require_distinct(masks: Sequence[Mask]) -> None:
    """Refuse one key twice.

    Raises:
        ProtocolError: two masks have it.
    """
    if len({mask.key for mask in masks}) < len(masks):
        raise ProtocolError("two masks of one key", remedy="derive one key for each use")


def open_streams(masks: Sequence[Mask], block: int) -> Streams:
    """The masks' ciphers at a 16-byte block of their keystreams, each with its sign."""
    counter = block.to_bytes(16, "big")
    return [(counter_mode(mask.key, counter), mask.sign) for mask in masks]


def add_streams_(values: Vector, streams: Streams, k: int, buffer: Vector) -> None:
    """Add what follows in each stream in place, modulo `2^k`, in pieces of the buffer's length."""
    for first, last in pieces(0, len(values), len(buffer)):
        piece = values[first:last]
        add_piece_(piece, streams, buffer[: last - first])
        np.bitwise_and(piece, np.uint32((1 << k) - 1), out=piece)


def add_piece_(piece: Vector, streams: Streams, words: Vector) -> None:
    """Add what follows in each stream to a piece in place, modulo `2^32`.

    Args:
        piece: uint32 `[n]`; `n` a multiple of 4, unless it is the last.
        streams: at the piece's first value.
        words: uint32 `[n]`, overwritten.
    """
    for stream, sign in streams:
        write_keystream(stream, words.data.cast("B"))
        (np.add if sign == 1 else np.subtract)(piece, words, out=piece)
