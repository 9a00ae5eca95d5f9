"""Each pass gives the bytes of its steps, reads only, refuses what they do, in little memory."""

import tracemalloc

import numpy as np
import pytest

from common.errors import ConfigError, DataError, ProtocolError
from common.privacy.keystream import Keystream, Seed
from common.secagg import pipeline as module
from common.secagg import vectors
from common.secagg.masks import Mask, add_masks_
from common.secagg.packing import pack, packed_size
from common.secagg.pipeline import Packed, mask_levels, round_packed, unmask
from common.secagg.quantise import Grid, quantise

WIDTHS = range(16, 33)
LENGTHS = (0, 1, 7, 8, 1003, 32768, 2 * 32768 + 1001)
GRID = Grid(clip=0.5, value_bits=16)
SHARE = np.float32(0.7)


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """Even small vectors are worth all threads that a test asks for."""
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)


def masks(n: int = 3) -> list[Mask]:
    stream = Keystream(Seed.for_tests(8).value, "masks")
    return [Mask(key=stream.bytes(32), sign=(-1, 1)[i % 2]) for i in range(n)]


def random():
    return Keystream(Seed.for_tests(7).value, "rounding").fill


def some_update(n: int) -> np.ndarray:
    """Some of it is beyond the clip."""
    return np.random.Generator(np.random.PCG64(n)).normal(0, 0.6, n).astype(np.float32)


def some_levels(n: int, k: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).integers(0, 2**k, n, dtype=np.uint32)


def two_steps(levels: np.ndarray, k: int, added: list[Mask]) -> bytes:
    values = levels.copy()
    add_masks_(values, added, k)
    return pack(values, k)


@pytest.mark.parametrize("k", WIDTHS)
def test_an_update_becomes_the_bytes_of_weighting_rounding_and_packing(k, monkeypatch):
    for n in LENGTHS:
        update = some_update(n)
        expected = quantise(update * SHARE, GRID, k, random())
        for piece, threads in ((1 << 15, 1), (1 << 15, 2), (1 << 15, 3), (1 << 12, 2)):
            monkeypatch.setattr(module, "PIECE", piece)
            found = round_packed(update, SHARE, GRID, k, random(), threads=threads)
            assert found.stream == pack(expected.values, k)
            assert (found.clipped, found.not_finite) == (expected.clipped, 0)
        assert np.array_equal(update, some_update(n))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_count_as_zero_and_are_told(threads, wrong):
    update = some_update(65_537)
    update[[0, 3, 50_000]] = 0
    expected = quantise(update * SHARE, GRID, 18, random())
    update[[0, 3, 50_000]] = wrong
    found = round_packed(update, SHARE, GRID, 18, random(), threads=threads)
    assert found.stream == pack(expected.values, 18)
    assert (found.clipped, found.not_finite) == (expected.clipped, 3)


def test_rounding_refuses_other_moduli_threads_and_kinds_of_arrays():
    for k in (15, 33, 16.0, None):
        with pytest.raises(ConfigError, match="modulus"):
            round_packed(some_update(8), SHARE, GRID, k, random())
    with pytest.raises(ConfigError, match="a modulus of 16 bits holds"):
        round_packed(some_update(8), SHARE, Grid(clip=1.0, value_bits=17), 16, random())
    with pytest.raises(ConfigError, match="threads"):
        round_packed(some_update(8), SHARE, GRID, 18, random(), threads=0)
    with pytest.raises(DataError, match="expected float32"):
        round_packed(np.zeros(8), SHARE, GRID, 18, random())


def test_what_was_rounded_and_cut_does_not_show():
    found = round_packed(np.full(8, 9.0, np.float32), SHARE, GRID, 18, random())
    assert repr(found) == "Rounded()"


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_of_rounding_beside_update_and_levels_is_small(threads):
    update = some_update(4_000_000)
    tracemalloc.start()
    found = round_packed(update, SHARE, GRID, 18, random(), threads=threads)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - len(found.stream) < threads << 21


@pytest.mark.parametrize("k", WIDTHS)
def test_levels_packed_or_not_become_the_bytes_of_masking_and_packing(k):
    for n in LENGTHS:
        levels, room = some_levels(n, k), bytearray(packed_size(n, k))
        expected = two_steps(levels, k, masks())
        for source in (levels, Packed(stream=pack(levels, k), length=n)):
            for threads in (1, 2, 3):
                room[:] = bytes(len(room))
                mask_levels(room, source, k, masks(), threads=threads)
                assert room == expected
        assert np.array_equal(levels, some_levels(n, k))


@pytest.mark.parametrize("k", WIDTHS)
def test_bytes_do_not_depend_on_pieces(k, monkeypatch):
    for piece in (8, 1 << 12, 1 << 14):
        # so small a piece that a group is one; the rest in ordinary ones
        n = 1003 if piece == 8 else 70_001
        levels, room = some_levels(n, k), bytearray(packed_size(n, k))
        expected = two_steps(levels, k, masks(2))
        monkeypatch.setattr(module, "PIECE", piece)
        for source in (levels, Packed(stream=pack(levels, k), length=n)):
            room[:] = bytes(len(room))
            mask_levels(room, source, k, masks(2), threads=2)
            assert room == expected


@pytest.mark.parametrize("k", WIDTHS)
def test_of_a_level_the_low_bits_count(k):
    levels = some_levels(1003, 32)
    low = levels & np.uint32(2**k - 1)
    room = bytearray(packed_size(1003, k))
    mask_levels(room, levels, k, masks())
    assert room == two_steps(low, k, masks())
    mask_levels(room, levels, k, [])
    assert room == pack(low, k)


def test_the_buffer_is_all_that_is_written():
    room = bytearray(b"\xa5" * (packed_size(1003, 19) + 8))
    with memoryview(room) as view:
        mask_levels(view[4:-4], some_levels(1003, 19), 19, masks())
    assert room == b"\xa5" * 4 + two_steps(some_levels(1003, 19), 19, masks()) + b"\xa5" * 4


def test_a_buffer_of_another_size_or_read_only_is_refused():
    size = packed_size(1003, 18)
    for room in (bytearray(size - 1), bytearray(size + 1), bytes(size)):
        with pytest.raises(DataError, match="room"):
            mask_levels(room, some_levels(1003, 18), 18, masks())


def test_one_key_twice_is_refused_and_nothing_is_written():
    twice = [*masks(2), masks(1)[0]]
    room = bytearray(packed_size(8, 18))
    with pytest.raises(ProtocolError, match="two masks of one key"):
        mask_levels(room, some_levels(8, 18), 18, twice)
    assert not any(room)


def test_a_stream_of_another_length_or_with_stray_bits_is_refused():
    stream, room = pack(some_levels(1001, 19), 19), bytearray(packed_size(1001, 19))
    for wrong in (stream[:-1], stream + b"\0", stream[:-1] + b"\xff"):
        with pytest.raises(ProtocolError):
            mask_levels(room, Packed(stream=wrong, length=1001), 19, masks())
    assert not any(room)


def test_moduli_threads_and_kinds_of_arrays_are_those_of_the_steps():
    room, levels = bytearray(16), some_levels(8, 16)
    for k in (15, 33, 16.0, None):
        with pytest.raises(ConfigError, match="modulus"):
            mask_levels(room, levels, k, masks())
    with pytest.raises(ConfigError, match="threads"):
        mask_levels(room, levels, 16, masks(), threads=0)
    for wrong in (levels.astype(np.int64), levels.reshape(2, 4), levels[::2], [1, 2]):
        with pytest.raises(DataError, match="expected"):
            mask_levels(room, wrong, 16, masks())


def test_levels_do_not_show():
    assert "stream" not in repr(Packed(stream=b"\x01\x02", length=1))


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_beside_levels_and_bytes_is_small(threads):
    n, k = 4_000_000, 18
    levels, room = some_levels(n, k), bytearray(packed_size(n, k))
    for source in (levels, Packed(stream=pack(levels, k), length=n)):
        tracemalloc.start()
        mask_levels(room, source, k, masks(), threads=threads)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < threads << 20


@pytest.mark.parametrize("k", WIDTHS)
def test_what_is_unmasked_are_the_values_with_masks_added_whatever_pieces_and_threads(
    k, monkeypatch
):
    for n in LENGTHS:
        values = some_levels(n, k)
        stream, expected = pack(values, k), values.copy()
        add_masks_(expected, masks(), k)
        for piece, threads in ((1 << 15, 1), (1 << 15, 2), (1 << 15, 3), (1 << 12, 2)):
            monkeypatch.setattr(module, "PIECE", piece)
            packed = Packed(stream=memoryview(stream).toreadonly(), length=n)
            assert np.array_equal(unmask(packed, k, masks(), threads=threads), expected)
            assert np.array_equal(unmask(packed, k, [], threads=threads), values)


def test_masks_of_one_key_wrong_streams_moduli_and_threads_are_not_unmasked():
    stream = pack(some_levels(1001, 19), 19)
    packed = Packed(stream=stream, length=1001)
    with pytest.raises(ProtocolError, match="two masks of one key"):
        unmask(packed, 19, [*masks(2), masks(1)[0]])
    for wrong in (stream[:-1], stream + b"\0", stream[:-1] + b"\xff"):
        with pytest.raises(ProtocolError, match="packed values"):
            unmask(Packed(stream=wrong, length=1001), 19, masks())
    for k in (15, 33, 19.0, None):
        with pytest.raises(ConfigError, match="modulus"):
            unmask(packed, k, masks())
    with pytest.raises(ConfigError, match="threads"):
        unmask(packed, 19, masks(), threads=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_of_unmasking_beside_total_and_values_is_small(threads):
    n, k = 4_000_000, 18
    packed = Packed(stream=pack(some_levels(n, k), k), length=n)
    tracemalloc.start()
    values = unmask(packed, k, masks(), threads=threads)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - values.nbytes < threads << 20
