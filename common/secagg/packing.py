"""Values below `2^k` as one stream of bits, and back.

Value `i` stands in bits `i k` to `(i + 1) k - 1`; bit `b` is bit `b mod 8` of byte `b // 8`, so
that the stream is `sum(value[i] 2^(i k))` in little-endian. What the last byte has over is zero.

Eight values take `k` bytes. Neighbours are joined to pairs of `2 k` bits first; in a group of eight
the four pairs begin at fixed bytes and bits, and each is read or written for all groups at once, as
a 64-bit word that recurs every `k` bytes. For k = 31 a pair and its shift exceed the word, and the
eight values are taken one by one.

Guarantees:
    * One value, one form: `unpack` refuses any length but `ceil(n k / 8)` and any stray bit.
    * Bounded memory: buffers of `PIECE` values a thread beside input and output.
"""

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.errors import DataError, ProtocolError
from common.secagg.vectors import Vector, in_parts, pieces, require_bits, require_vector

PIECE: Final = 1 << 15

_GROUP: Final = 8
_WORD_BYTES: Final = 8
_Words = npt.NDArray[np.uint64]
_Bytes = npt.NDArray[np.uint8]


def packed_size(n: int, k: int) -> int:
    """Bytes of `n` packed values."""
    return (n * k + 7) // 8


def pack(values: Vector, k: int, *, threads: int = 1) -> bytes:
    """The stream of a vector's bits; arguments and errors are those of `pack_into`."""
    require_bits(k)
    require_vector(values, np.uint32)
    size = packed_size(len(values), k)
    # a BytesIO gives its memory up as bytes without a copy
    stream = io.BytesIO()
    if size:
        stream.seek(size - 1)
        stream.write(b"\0")
    with stream.getbuffer() as out:
        pack_into(out, values, k, threads=threads)
    return stream.getvalue()


def pack_into(out: Any, values: Vector, k: int, *, threads: int = 1) -> None:
    """Overwrite a buffer with the stream of a vector's bits.

    Args:
        out: contiguous and writable, `packed_size(n, k)` bytes.
        values: uint32 `[n]`.
        k: bits of each.
        threads: how many parts of the vector are worked on at once.

    Raises:
        DataError: a value of `2^k` or more (what `out` then holds is undefined), a buffer of
            another size, or another kind of array.
        ConfigError: another modulus or number of threads.
    """
    require_bits(k)
    require_vector(values, np.uint32)
    stream = np.frombuffer(out, np.uint8)
    if len(stream) != packed_size(len(values), k) or not stream.flags.writeable:
        raise DataError(f"room for {len(stream)} bytes, expected {packed_size(len(values), k)}")
    in_parts(len(values), threads, lambda start, stop: _pack_part(values, k, stream, start, stop))


def unpack(data: bytes | memoryview, n: int, k: int, *, threads: int = 1) -> Vector:
    """The vector of a stream: uint32 `[n]`.

    Raises:
        ProtocolError: another length, or stray bits after the last value.
        ConfigError: another modulus.
    """
    stream = _checked(data, n, k)
    values = np.empty(n, np.uint32)

    def part(start: int, stop: int) -> None:
        for first, last, piece in _unpacked(stream, k, start, stop):
            values[first:last] = piece

    in_parts(n, threads, part)
    return values


def add_packed_(total: Vector, data: bytes | memoryview, k: int, *, threads: int = 1) -> None:
    """Add a stream's values to a vector in place, modulo `2^k`.

    Args:
        total: uint32 `[n]`; left with values below `2^k`.
        data: the stream of `n` values.
        k: bits of each.
        threads: how many parts of the vector are worked on at once.

    Raises:
        ProtocolError, ConfigError, DataError: as `unpack`, or another kind of array. The vector is
            as it was.
    """
    require_bits(k)
    require_vector(total, np.uint32, writable=True)
    stream = _checked(data, len(total), k)

    def part(start: int, stop: int) -> None:
        for first, last, piece in _unpacked(stream, k, start, stop):
            np.add(total[first:last], piece, out=total[first:last])
            np.bitwise_and(total[first:last], np.uint32((1 << k) - 1), out=total[first:last])

    in_parts(len(total), threads, part)


def _checked(data: bytes | memoryview, n: int, k: int) -> _Bytes:
    require_bits(k)
    stream = np.frombuffer(data, np.uint8)
    expected = packed_size(n, k)
    if len(stream) != expected:
        raise ProtocolError(f"{len(stream)} bytes of packed values, expected {expected}")
    used = n * k % 8
    if used and int(stream[-1]) >> used:
        raise ProtocolError("packed values are followed by bits that are not zero")
    return stream


class _Buffers:
    """Working memory of one thread: a piece as values, as lanes and as bytes.

    A lane is what is shifted into place as one word: a pair of values, or one. `places` are, for
    each lane of a group, its column of lanes, its words among the bytes, and its shift.
    """

    def __init__(self, n: int, k: int):
        groups = -(-min(n, PIECE) // _GROUP)
        self.k = k
        self.paired = k != 31
        count = _GROUP // 2 if self.paired else _GROUP
        self.values = np.zeros(groups * _GROUP, np.uint32)
        self.lanes = np.empty(groups * count, np.uint64)
        self.spare = np.empty(groups * count, np.uint64)
        self.columns = np.empty((2, groups), np.uint64)
        self.bytes = np.zeros(groups * k + _WORD_BYTES, np.uint8)
        starts = [divmod(lane * k * _GROUP // count, 8) for lane in range(count)]
        self.places: list[tuple[_Words, _Words, np.uint64]] = [
            (self.lanes[lane::count], self._words(byte), np.uint64(shift))
            for lane, (byte, shift) in enumerate(starts)
        ]

    def _words(self, byte: int) -> _Words:
        """The unaligned word at a byte of each group; it may reach into the next group."""
        groups = self.columns.shape[1]
        return np.ndarray((groups,), np.uint64, self.bytes.data, offset=byte, strides=(self.k,))


def _pack_part(values: Vector, k: int, out: _Bytes, start: int, stop: int) -> None:
    buffers = _Buffers(stop - start, k)
    for first, last in pieces(start, stop, PIECE):
        piece = values[first:last]
        if int(piece.max()) >> k:
            raise DataError(f"a value of 2^{k} or more can't be packed in {k} bits")
        if len(piece) < len(buffers.values):
            buffers.values[: len(piece)] = piece
            buffers.values[len(piece) :] = 0
            piece = buffers.values
        _join(buffers, piece)
        _scatter(buffers)
        place = first * k // 8
        size = packed_size(last - first, k)
        out[place : place + size] = buffers.bytes[:size]


def _join(buffers: _Buffers, values: Vector) -> None:
    """Values to lanes: the odd one of a pair right above the even one."""
    if not buffers.paired:
        np.copyto(buffers.lanes, values)
        return
    words, odd = values.view(np.uint64), buffers.spare
    np.right_shift(words, 32, out=odd)
    # even + 2^32 odd, less (2^32 - 2^k) odd
    np.multiply(odd, np.uint64((1 << 32) - (1 << buffers.k)), out=odd)
    np.subtract(words, odd, out=buffers.lanes)


def _scatter(buffers: _Buffers) -> None:
    """Lanes to bytes. Unaligned words are copied out and in: numpy computes slowly on them."""
    shifted, before = buffers.columns
    buffers.bytes.fill(0)
    for lanes, words, shift in buffers.places:
        np.left_shift(lanes, shift, out=shifted)
        if lanes is not buffers.places[0][0]:  # the first meets nothing but zeros
            np.copyto(before, words)
            np.bitwise_or(shifted, before, out=shifted)
        np.copyto(words, shifted)


def _unpacked(stream: _Bytes, k: int, start: int, stop: int) -> Iterator[tuple[int, int, Vector]]:
    """Bounds and values of each piece; the next piece overwrites them."""
    buffers = _Buffers(stop - start, k)
    for first, last in pieces(start, stop, PIECE):
        size = packed_size(last - first, k)
        buffers.bytes[:size] = stream[first * k // 8 :][:size]
        _gather(buffers)
        _part(buffers)
        yield first, last, buffers.values[: last - first]


def _gather(buffers: _Buffers) -> None:
    """Bytes to lanes; above a lane's own bits stands what follows it."""
    read, _ = buffers.columns
    for lanes, words, shift in buffers.places:
        np.copyto(read, words)
        np.right_shift(read, shift, out=lanes)


def _part(buffers: _Buffers) -> None:
    """Lanes to values, of each the low `k` bits."""
    low = np.uint64((1 << buffers.k) - 1)
    if not buffers.paired:
        np.bitwise_and(buffers.lanes, low, out=buffers.lanes)
        np.copyto(buffers.values, buffers.lanes, casting="unsafe")
        return
    words, odd = buffers.values.view(np.uint64), buffers.spare
    np.left_shift(buffers.lanes, np.uint64(32 - buffers.k), out=odd)
    np.bitwise_and(odd, low << np.uint64(32), out=odd)
    np.bitwise_and(buffers.lanes, low, out=words)
    np.bitwise_or(words, odd, out=words)
