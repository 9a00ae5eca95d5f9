"""Values below `2^k` as one stream of bits, and back.

Value `i` stands in bits `i k` to `(i + 1) k - 1`; bit `b` is bit `b mod 8` of byte `b // 8`, so
that the stream is `sum(value[i] 2^(i k))` in little-endian. What the last byte has over is zero.

Eight values take `k` bytes. Neighbours are joined to pairs of `2 k` bits first; in a group of eight
the four pairs begin at fixed bytes and bits, and each is read or written for all groups at once, as
a 64-bit word that recurs every `k` bytes; for an even k more often, since groups of four or two are
whole bytes. For k = 31 a pair and its shift exceed the word, and the eight values are taken one by
one. For an even k below 32 four values are written as two words: first the one from bit 64 on,
whose surplus the next four's first word covers.

Guarantees:
    * One value, one form: `unpack` refuses any length but `ceil(n k / 8)` and any stray bit.
    * Bounded memory: buffers of `PIECE` values a thread beside input and output.
"""

import io
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.errors import DataError, ProtocolError
from common.secagg.vectors import (
    MAX_BITS,
    Parts,
    Vector,
    in_parts,
    in_pieces,
    require_bits,
    require_vector,
)

PIECE: Final = 1 << 15

_PASSES: Final = 2
"""Packing or unpacking is about the work of two masks."""
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
    stream = fresh(packed_size(len(values), k))
    with stream.getbuffer() as out:
        pack_into(out, values, k, threads=threads)
    return stream.getvalue()


def fresh(size: int) -> io.BytesIO:
    """Zeros to be written through `getbuffer` and had by `getvalue`, without a copy.

    A BytesIO takes the bytes over, whose pages nobody has touched, and gives them up again.
    """
    return io.BytesIO(bytes(size))


def pack_into(out: Any, values: Vector, k: int, *, threads: int = 1) -> None:
    """Overwrite a buffer with the stream of a vector's bits.

    Args:
        out: contiguous and writable, `packed_size(n, k)` bytes.
        values: uint32 `[n]`.
        k: bits of each.
        threads: at most so many.

    Raises:
        DataError: a value of `2^k` or more (what `out` then holds is undefined), a buffer of
            another size, or another kind of array.
        ConfigError: another modulus or number of threads.
    """
    require_bits(k)
    require_vector(values, np.uint32)
    stream = room_for(out, len(values), k)
    in_parts(len(values), threads, _PASSES, lambda parts: _pack_parts(values, k, stream, parts))


def room_for(out: Any, n: int, k: int) -> _Bytes:
    """A buffer for `n` values as an array of bytes.

    Raises:
        DataError: of another size, or read-only.
    """
    stream = np.frombuffer(out, np.uint8)
    if len(stream) != packed_size(n, k) or not stream.flags.writeable:
        raise DataError(f"room for {len(stream)} bytes, expected {packed_size(n, k)}")
    return stream


def unpack(data: bytes | memoryview, n: int, k: int, *, threads: int = 1) -> Vector:
    """The vector of a stream: uint32 `[n]`.

    Raises:
        ProtocolError: another length, or stray bits after the last value.
        ConfigError: another modulus.
    """
    stream = checked_stream(data, n, k)
    values = np.empty(n, np.uint32)

    def work(parts: Parts) -> None:
        unpacker = Unpacker(stream, n, k)
        for first, last in in_pieces(parts, PIECE):
            unpacker.read_into(values[first:last], first)

    in_parts(n, threads, _PASSES, work)
    return values


def checked_stream(data: bytes | memoryview, n: int, k: int) -> _Bytes:
    """A stream of `n` values as an array of bytes; raises as `unpack` does."""
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

    A lane is what is shifted into place as one word: a pair of values, or one. After one, two, four
    or eight of them the next begins at a whole byte again; `places` are, for each of so many, its
    column of lanes, its words among the bytes, and its shift. `fours` are, for an even `k`, the
    words at bit 0 and those at bit 64 of each four values.
    """

    def __init__(self, n: int, k: int):
        groups = -(-min(n, PIECE) // _GROUP)
        self.k = k
        self.paired = k != 31
        lanes = groups * (_GROUP // 2 if self.paired else _GROUP)
        width = 2 * k if self.paired else k
        count = 8 // math.gcd(8, width)
        self.values = np.zeros(groups * _GROUP, np.uint32)
        self.lanes = np.empty(lanes, np.uint64)
        self.spare = np.empty(lanes, np.uint64)
        self.bytes = np.zeros(groups * k + _WORD_BYTES, np.uint8)
        starts = [divmod(lane * width, 8) for lane in range(count)]
        self.places: list[tuple[_Words, _Words, np.uint64]] = [
            (self.lanes[lane::count], self._words(byte, count * width // 8), np.uint64(shift))
            for lane, (byte, shift) in enumerate(starts)
        ]
        self.fours: tuple[_Words, _Words] | None = None
        if k % 2 == 0 and k < MAX_BITS:
            self.fours = self._words(0, k // 2), self._words(_WORD_BYTES, k // 2)

    def _words(self, byte: int, stride: int) -> _Words:
        """The unaligned words at a byte of each `stride`; they may reach into the next one."""
        n = (len(self.bytes) - _WORD_BYTES) // stride
        return np.ndarray((n,), np.uint64, self.bytes.data, offset=byte, strides=(stride,))


class Packer:
    """Writes a vector into a stream piece by piece, through working memory of one thread.

    Args:
        out: the whole stream.
        n: its values; a piece is at most so long, and at most `PIECE`.
        k: bits of each value, already checked.
    """

    def __init__(self, out: _Bytes, n: int, k: int):
        self._out, self._buffers = out, _Buffers(n, k)

    def room(self, n: int) -> Vector:
        """uint32 `[n]`, where the next piece is to be put before it is written."""
        values = self._buffers.values
        values[n:] = 0
        return values[:n]

    def refill(self, stream: _Bytes, first: int, n: int) -> Vector:
        """The room, with values `first`, a multiple of 8, and so on of another stream."""
        _read(self._buffers, stream, first, n)
        return self.room(n)

    def write(self, first: int, n: int) -> None:
        """Write the piece in the room as values `first` and so on; of each its low `k` bits.

        Args:
            first: a multiple of 8.
            n: of the room.
        """
        self.write_groups(first, n, self._buffers.values)

    def write_groups(self, first: int, n: int, values: Vector) -> None:
        """The same of a piece elsewhere, as long as the longest one and a multiple of 8."""
        _join(self._buffers, values)
        if self._buffers.fours:
            _scatter_fours(self._buffers, *self._buffers.fours)
        else:
            _scatter(self._buffers)
        place, size = first * self._buffers.k // 8, packed_size(n, self._buffers.k)
        self._out[place : place + size] = self._buffers.bytes[:size]


class Unpacker:
    """Reads a stream's values piece by piece, through working memory of one thread.

    Args:
        stream: checked.
        n: its values; a piece is at most so long, and at most `PIECE`.
        k: bits of each.
    """

    def __init__(self, stream: _Bytes, n: int, k: int):
        self._stream, self._buffers = stream, _Buffers(n, k)
        self._low = np.uint32((1 << k) - 1)

    def read(self, first: int, n: int) -> Vector:
        """Values `first`, a multiple of 8, and so on: uint32 `[n]`, of each the low `k` bits.

        They may be changed, and are overwritten by the next.
        """
        _read(self._buffers, self._stream, first, n)
        return self._buffers.values[:n]

    def read_into(self, out: Vector, first: int) -> None:
        """The same to an array of their number, and nothing above the low bits."""
        np.bitwise_and(self.read(first, len(out)), self._low, out=out)


def _pack_parts(values: Vector, k: int, out: _Bytes, parts: Parts) -> None:
    packer = Packer(out, len(values), k)
    for first, last in in_pieces(parts, PIECE):
        piece = values[first:last]
        if int(piece.max()) >> k:
            raise DataError(f"a value of 2^{k} or more can't be packed in {k} bits")
        if len(piece) == PIECE:
            packer.write_groups(first, PIECE, piece)
            continue
        packer.room(len(piece))[:] = piece
        packer.write(first, len(piece))


def _join(buffers: _Buffers, values: Vector) -> None:
    """Low bits of values to lanes: the odd one of a pair right above the even one."""
    low = (1 << buffers.k) - 1
    if not buffers.paired:
        np.copyto(buffers.lanes, values)
        np.bitwise_and(buffers.lanes, np.uint64(low), out=buffers.lanes)
        return
    words, odd = values.view(np.uint64), buffers.spare
    np.bitwise_and(words, np.uint64(low << 32), out=odd)
    np.right_shift(odd, np.uint64(32 - buffers.k), out=odd)
    np.bitwise_and(words, np.uint64(low), out=buffers.lanes)
    np.bitwise_or(buffers.lanes, odd, out=buffers.lanes)


def _scatter(buffers: _Buffers) -> None:
    """Lanes to bytes. Unaligned words are copied out and in: numpy computes slowly on them."""
    column = len(buffers.places[0][0])
    shifted, before = buffers.spare[:column], buffers.spare[column : 2 * column]
    buffers.bytes.fill(0)
    for lanes, words, shift in buffers.places:
        np.left_shift(lanes, shift, out=shifted)
        if lanes is not buffers.places[0][0]:  # the first meets nothing but zeros
            np.copyto(before, words)
            np.bitwise_or(shifted, before, out=shifted)
        np.copyto(words, shifted)


def _scatter_fours(buffers: _Buffers, first: _Words, rest: _Words) -> None:
    """Lanes of an even `k` to bytes, two at a time; they are copied first, as above."""
    odd, word = buffers.spare.reshape(2, -1)
    np.copyto(odd, buffers.lanes[1::2])
    np.right_shift(odd, np.uint64(64 - 2 * buffers.k), out=word)
    np.copyto(rest, word)
    np.left_shift(odd, np.uint64(2 * buffers.k), out=odd)
    np.copyto(word, buffers.lanes[::2])
    np.bitwise_or(word, odd, out=word)
    np.copyto(first, word)


def _read(buffers: _Buffers, stream: _Bytes, first: int, n: int) -> None:
    """A stream's values `first`, a multiple of 8, and so on; after them others may stand.

    Of each the low `k` bits count; above them stands what follows it.
    """
    size = packed_size(n, buffers.k)
    buffers.bytes[:size] = stream[first * buffers.k // 8 :][:size]
    _gather(buffers)
    _part(buffers)


def _gather(buffers: _Buffers) -> None:
    """Bytes to lanes; above a lane's own bits stands what follows it."""
    if len(buffers.places) == 1:
        np.copyto(buffers.lanes, buffers.places[0][1])
        return
    for lanes, words, shift in buffers.places:
        read = buffers.spare[: len(lanes)]
        np.copyto(read, words)
        np.right_shift(read, shift, out=lanes)


def _part(buffers: _Buffers) -> None:
    """Lanes to values; above a value's own bits stands what follows it."""
    if not buffers.paired:
        np.copyto(buffers.values, buffers.lanes, casting="unsafe")
        return
    words, even = buffers.values.view(np.uint64), buffers.lanes.view(np.uint32)[::2]
    np.left_shift(buffers.lanes, np.uint64(32 - buffers.k), out=words)
    np.copyto(buffers.values[::2], even)
