"""The running total of packed vectors, modulo `2^k` each value; it stays packed itself.

Streams of `common.secagg.packing` are added as they are, many values to a 64-bit word. With `H` the
top bit of each value and `M` all other bits, `((a & M) + (b & M)) ^ ((a ^ b) & H)` is the sum of
each value of `a` and `b` modulo `2^k`: without their top bits two values sum up to less than `2^k`,
and a top bit is the carry into it and the two that were there (Warren, Hacker's Delight, 2nd
edition, section 2-18). A value may begin in one word and end in the next, whose sum then takes the
first one's carry before top bits are put in. Places of values in words recur every 64 values, which
are `k` words; pieces begin there, so that none has a carry for another.

Guarantees:
    * The total is the stream that `pack` makes of the sums, to the bit, at any time; what is
      refused leaves it as it was. Neither threads nor pieces change it.
    * Bounded memory: the total and buffers of `PIECE` values a thread.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from common.secagg.packing import checked_stream, packed_size
from common.secagg.vectors import Parts, in_parts, in_pieces, require_bits

PIECE: Final = 1 << 16
"""Values; a multiple of 64."""

_PASSES: Final = 1
"""Adding is about the work of one mask."""
_WORD_BITS: Final = 64
_WORD_BYTES: Final = 8
_Words = npt.NDArray[np.uint64]
_Bytes = npt.NDArray[np.uint8]


class RunningTotal:
    """The sum of streams so far; of none it is zeros.

    Args:
        n: values.
        k: bits of each.

    Raises:
        ConfigError: another modulus.
        DataError: fewer values than none.
    """

    def __init__(self, n: int, k: int):
        require_bits(k)
        if n < 0:
            raise DataError(f"a total of {n} values, expected 0 or more")
        self._n, self._k = n, k
        self._words = np.zeros(-(-n * k // _WORD_BITS), np.uint64)
        self._tops = _tops(k, min(len(self._words), PIECE * k // _WORD_BITS))
        self._rest = ~self._tops

    def __len__(self) -> int:
        return self._n

    @property
    def stream(self) -> memoryview:
        """The total itself, packed; it changes with what is added."""
        return self._words.view(np.uint8).data[: packed_size(self._n, self._k)].toreadonly()

    def add(self, data: bytes | memoryview, *, threads: int = 1) -> None:
        """Add a stream's values, modulo `2^k`.

        Args:
            data: the stream of `n` values.
            threads: at most so many.

        Raises:
            ProtocolError: another length, or stray bits after the last value.
            ConfigError: another number of threads. In both cases the total is as it was.
        """
        stream = checked_stream(data, self._n, self._k)
        in_parts(self._n, threads, _PASSES, lambda parts: self._add_parts(stream, parts))

    def _add_parts(self, stream: _Bytes, parts: Parts) -> None:
        added, tops = np.empty_like(self._tops), np.empty_like(self._tops)
        carried = np.empty(len(self._tops), np.bool_)
        for first, last in in_pieces(parts, PIECE):
            start, stop = first * self._k // _WORD_BITS, -(-last * self._k // _WORD_BITS)
            total, n = self._words[start:stop], stop - start
            _load(added[:n], stream[start * _WORD_BYTES : stop * _WORD_BYTES])
            self._add_words(total, added[:n], tops[:n], carried[:n])

    def _add_words(
        self, total: _Words, added: _Words, tops: _Words, carried: npt.NDArray[np.bool_]
    ) -> None:
        """Words `[n]` from one on where a value begins; all but the total are overwritten."""
        n = len(total)
        np.bitwise_xor(total, added, out=tops)
        np.bitwise_and(tops, self._tops[:n], out=tops)
        np.bitwise_and(added, self._rest[:n], out=added)
        np.bitwise_and(total, self._rest[:n], out=total)
        np.add(total, added, out=total)
        if _WORD_BITS % self._k:
            np.less(total, added, out=carried)
            np.add(total[1:], carried[:-1], out=total[1:])
        np.bitwise_xor(total, tops, out=total)


def _tops(k: int, n: int) -> _Words:
    """Words `[n]` of a stream in which each value's top bit is set, and no other."""
    period = sum(1 << (value * k + k - 1) for value in range(_WORD_BITS))
    words = np.frombuffer(period.to_bytes(k * _WORD_BYTES, "little"), np.uint64)
    return np.resize(words, n)


def _load(words: _Words, data: _Bytes) -> None:
    """Bytes to words, wherever they lie; what the last word has over is zero."""
    words[-1:] = 0
    words.view(np.uint8)[: len(data)] = data
