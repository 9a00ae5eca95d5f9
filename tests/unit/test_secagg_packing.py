"""Packed values are the stated stream of bits, come back, and have no second form."""

import tracemalloc

import numpy as np
import pytest

from common.errors import ConfigError, DataError, ProtocolError
from common.secagg import packing as module
from common.secagg import vectors
from common.secagg.packing import pack, pack_into, packed_size, unpack

WIDTHS = range(16, 33)
SIZES = (0, 1, 2, 7, 8, 9, 31, 1000)


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """Even small vectors are worth all threads that a test asks for."""
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)


def some_values(n: int, k: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).integers(0, 2**k, n, dtype=np.uint32)


def stream_of(values: np.ndarray, k: int) -> bytes:
    """The definition itself: one large integer."""
    number = sum(value << (k * i) for i, value in enumerate(values.tolist()))
    return number.to_bytes(packed_size(len(values), k), "little")


@pytest.mark.parametrize("k", WIDTHS)
def test_stream_is_the_sum_of_shifted_values_in_little_endian(k):
    for n in SIZES:
        for values in (some_values(n, k), np.full(n, 2**k - 1, np.uint32)):
            stream = pack(values, k)
            assert type(stream) is bytes
            assert stream == stream_of(values, k)
            assert unpack(stream, n, k).tolist() == values.tolist()


def test_known_streams():
    assert pack(np.array([0x123456, 0xABCDEF], np.uint32), 24).hex() == "563412efcdab"
    assert pack(np.array([1, 1, 1], np.uint32), 17).hex() == "01000200040000"
    assert pack(np.array([2**31 - 1, 0, 1], np.uint32), 31).hex() == "ffffff7f0000004000000000"


@pytest.mark.parametrize("k", WIDTHS)
def test_stream_depends_on_neither_threads_nor_pieces(k, monkeypatch):
    n = 2 * 32768 + 1003
    values = some_values(n, k)
    stream = pack(values, k)
    for piece in (1 << 15, 1 << 12, 1 << 17):
        monkeypatch.setattr(module, "PIECE", piece)
        for threads in (1, 2, 3):
            assert pack(values, k, threads=threads) == stream
            assert np.array_equal(unpack(stream, n, k, threads=threads), values)


@pytest.mark.parametrize("k", WIDTHS)
def test_another_length_is_refused(k):
    stream = pack(some_values(1000, k), k)
    for wrong in (stream[:-1], stream + b"\0", b"", stream + stream):
        with pytest.raises(ProtocolError, match=f"expected {len(stream)}"):
            unpack(wrong, 1000, k)


def test_each_stray_bit_after_the_last_value_is_refused():
    refused = 0
    for k in WIDTHS:
        for n in range(1, 9):
            stream = pack(some_values(n, k), k)
            for bit in range(n * k, 8 * len(stream)):
                changed = (int.from_bytes(stream, "little") | 1 << bit).to_bytes(
                    len(stream), "little"
                )
                with pytest.raises(ProtocolError, match="bits that are not zero"):
                    unpack(changed, n, k)
                refused += 1
    assert refused > 300


@pytest.mark.parametrize("k", range(16, 32))
@pytest.mark.parametrize("place", [0, 999])
def test_value_that_needs_more_bits_is_refused(k, place):
    values = some_values(1000, k)
    values[place] = 2**k
    with pytest.raises(DataError, match=f"2\\^{k} or more") as caught:
        pack(values, k)
    assert str(2**k) not in str(caught.value)


def test_stream_is_written_into_a_buffer_of_its_size_only():
    values = some_values(1001, 21)
    room = bytearray(packed_size(1001, 21) + 8)
    with memoryview(room) as view:
        pack_into(view[4:-4], values, 21)
        with pytest.raises(DataError, match="room"):
            pack_into(view[4:-5], values, 21)
        with pytest.raises(DataError, match="room"):
            pack_into(bytes(view[4:-4]), values, 21)
    assert room == bytes(4) + pack(values, 21) + bytes(4)


def test_memoryview_is_unpacked_like_bytes():
    values = some_values(1001, 19)
    message = b"head" + pack(values, 19)
    assert np.array_equal(unpack(memoryview(message)[4:], 1001, 19), values)


@pytest.mark.parametrize("k", [15, 33, 24.0, None])
def test_modulus_out_of_range_is_refused(k):
    for action in (
        lambda: pack(some_values(8, 16), k),
        lambda: unpack(bytes(24), 8, k),
    ):
        with pytest.raises(ConfigError, match="modulus"):
            action()


@pytest.mark.parametrize(
    "values", [np.zeros(8, np.int64), np.zeros((2, 4), np.uint32), np.zeros(16, np.uint32)[::2]]
)
def test_only_flat_words_are_packed(values):
    with pytest.raises(DataError, match="expected"):
        pack(values, 24)


def test_memory_beside_vector_and_stream_is_small():
    n, k = 4_000_000, 21
    values = some_values(n, k)
    tracemalloc.start()
    stream = pack(values, k, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    unpacked = unpack(stream, n, k, threads=2)
    _, unpacking = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - len(stream) < 4 << 20
    assert unpacking - before - unpacked.nbytes < 4 << 20
