"""The running total is the packed stream of the sums, to the bit; a refusal leaves it as it was."""

import tracemalloc

import numpy as np
import pytest

from common.errors import ConfigError, DataError, ProtocolError
from common.secagg import adding as module
from common.secagg import vectors
from common.secagg.adding import RunningTotal
from common.secagg.packing import pack, packed_size

WIDTHS = range(16, 33)
LENGTHS = (0, 1, 3, 7, 63, 64, 65, 1000, 65_535, 65_536, 65_537, 2 * 65_536 + 1001)


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """Even small vectors are worth all threads that a test asks for."""
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)


def some_vectors(n: int, k: int, count: int = 3) -> list[np.ndarray]:
    """Random ones; and one of the largest value, which carries through every bit of each."""
    random = np.random.Generator(np.random.PCG64(n))
    drawn = [random.integers(0, 2**k, n, dtype=np.uint32) for _ in range(count)]
    return [*drawn, np.full(n, 2**k - 1, np.uint32)]


@pytest.mark.parametrize("k", WIDTHS)
def test_the_total_is_the_stream_of_the_sums_at_each_length(k):
    for n in LENGTHS:
        total, sums = RunningTotal(n, k), np.zeros(n, np.uint64)
        assert (len(total), total.stream) == (n, bytes(packed_size(n, k)))
        for vector in some_vectors(n, k):
            total.add(pack(vector, k))
            sums = (sums + vector) % 2**k
            assert total.stream == pack(sums.astype(np.uint32), k)


@pytest.mark.parametrize("k", WIDTHS)
def test_the_total_depends_on_neither_threads_nor_pieces_nor_where_the_message_lies(k, monkeypatch):
    n = 6 * 32_768 + 1003
    streams = [pack(vector, k) for vector in some_vectors(n, k, 2)]
    expected = RunningTotal(n, k)
    for stream in streams:
        expected.add(stream)
    for piece, threads, head in ((1 << 16, 2, 0), (1 << 16, 3, 5), (1 << 15, 5, 0), (64, 1, 3)):
        monkeypatch.setattr(module, "PIECE", piece)
        total = RunningTotal(n, k)
        for stream in streams:
            total.add(memoryview(bytes(head) + stream)[head:], threads=threads)
        assert total.stream == expected.stream


@pytest.mark.parametrize("k", WIDTHS)
def test_a_stream_of_another_length_is_refused_and_the_total_is_as_it_was(k):
    stream = pack(some_vectors(1000, k)[0], k)
    total = RunningTotal(1000, k)
    total.add(stream)
    for wrong in (stream[:-1], stream + b"\0", b"", stream + stream):
        with pytest.raises(ProtocolError, match=f"expected {len(stream)}"):
            total.add(wrong)
    assert total.stream == stream


def test_each_stray_bit_after_the_last_value_is_refused():
    refused = 0
    for k in WIDTHS:
        for n in range(1, 9):
            stream, total = pack(np.ones(n, np.uint32), k), RunningTotal(n, k)
            for bit in range(n * k, 8 * len(stream)):
                number = int.from_bytes(stream, "little") | 1 << bit
                with pytest.raises(ProtocolError, match="bits that are not zero"):
                    total.add(number.to_bytes(len(stream), "little"))
                assert not any(total.stream)
                refused += 1
    assert refused > 300


def test_moduli_lengths_and_threads_out_of_range_are_refused():
    for k in (15, 33, 24.0, None):
        with pytest.raises(ConfigError, match="modulus"):
            RunningTotal(8, k)
    with pytest.raises(DataError, match="-1 values"):
        RunningTotal(-1, 24)
    total = RunningTotal(8, 24)
    with pytest.raises(ConfigError, match="threads"):
        total.add(b"\1" * 24, threads=0)
    assert not any(total.stream)


def test_the_stream_can_be_read_only():
    total = RunningTotal(8, 24)
    with pytest.raises(TypeError):
        total.stream[0] = 1
    total.add(b"\2" * 24)
    assert total.stream == b"\2" * 24


def test_memory_beside_the_total_is_small():
    n, k = 4_000_000, 21
    stream = pack(some_vectors(n, k, 1)[0], k)
    tracemalloc.start()
    total = RunningTotal(n, k)
    total.add(stream, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - len(stream) < 2 << 20
