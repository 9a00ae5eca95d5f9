"""One pass gives the bytes of three steps, reads only, refuses what they do, in little memory."""

import tracemalloc

import numpy as np
import pytest

from common.errors import ConfigError, DataError, ProtocolError
from common.privacy.keystream import Keystream, Seed
from common.secagg import pipeline as module
from common.secagg.masks import Mask, add_masks_
from common.secagg.packing import pack, packed_size
from common.secagg.pipeline import Packed, mask_levels, mask_update
from common.secagg.quantise import Grid, quantise

WIDTHS = range(16, 33)
LENGTHS = (0, 1, 7, 8, 1003, 32768, 2 * 32768 + 1001)
GRID = Grid(clip=0.5, value_bits=16)


def random():
    return Keystream(Seed.for_tests(7).value, "rounding").fill


def masks(n: int = 3) -> list[Mask]:
    stream = Keystream(Seed.for_tests(8).value, "masks")
    return [Mask(key=stream.bytes(32), sign=(-1, 1)[i % 2]) for i in range(n)]


def some_update(n: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).normal(0, 0.3, n).astype(np.float32)


def some_levels(n: int, k: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).integers(0, 2**k, n, dtype=np.uint32)


def three_steps(levels: np.ndarray, k: int, added: list[Mask]) -> bytes:
    values = levels.copy()
    add_masks_(values, added, k)
    return pack(values, k)


@pytest.mark.parametrize("k", WIDTHS)
def test_an_update_becomes_the_bytes_of_rounding_masking_and_packing(k):
    for n in LENGTHS:
        update, room = some_update(n), bytearray(packed_size(n, k))
        rounded = quantise(update, GRID, k, random())
        expected = three_steps(rounded.values, k, masks())
        for threads in (1, 2, 3):
            room[:] = bytes(len(room))
            clipped = mask_update(room, update, GRID, k, random(), masks(), threads=threads)
            assert room == expected
            assert clipped == rounded.clipped
        assert np.array_equal(update, some_update(n))


@pytest.mark.parametrize("k", WIDTHS)
def test_levels_packed_or_not_become_the_bytes_of_masking_and_packing(k):
    for n in LENGTHS:
        levels, room = some_levels(n, k), bytearray(packed_size(n, k))
        expected = three_steps(levels, k, masks())
        for source in (levels, Packed(stream=pack(levels, k), length=n)):
            for threads in (1, 2, 3):
                room[:] = bytes(len(room))
                mask_levels(room, source, k, masks(), threads=threads)
                assert room == expected
        assert np.array_equal(levels, some_levels(n, k))


@pytest.mark.parametrize("k", WIDTHS)
def test_bytes_do_not_depend_on_pieces(k, monkeypatch):
    n = 70_001
    update, room = some_update(n), bytearray(packed_size(n, k))
    expected = three_steps(quantise(update, GRID, k, random()).values, k, masks(2))
    for piece in (8, 1 << 12, 1 << 14):
        # so small a piece that a group is one; the rest in ordinary ones
        few = 1003 if piece == 8 else n
        monkeypatch.setattr(module, "PIECE", piece)
        room[:] = bytes(len(room))
        part = memoryview(room)[: packed_size(few, k)]
        mask_update(part, update[:few], GRID, k, random(), masks(2), threads=2)
        if few == n:
            assert room == expected
        else:
            rounded = quantise(update[:few], GRID, k, random()).values
            assert part == three_steps(rounded, k, masks(2))


@pytest.mark.parametrize("k", WIDTHS)
def test_of_a_level_the_low_bits_count(k):
    levels = some_levels(1003, 32)
    low = levels & np.uint32(2**k - 1)
    room = bytearray(packed_size(1003, k))
    mask_levels(room, levels, k, masks())
    assert room == three_steps(low, k, masks())
    mask_levels(room, levels, k, [])
    assert room == pack(low, k)


def test_the_buffer_is_all_that_is_written():
    room = bytearray(b"\xa5" * (packed_size(1003, 19) + 8))
    with memoryview(room) as view:
        mask_levels(view[4:-4], some_levels(1003, 19), 19, masks())
    assert room == b"\xa5" * 4 + three_steps(some_levels(1003, 19), 19, masks()) + b"\xa5" * 4


def test_a_buffer_of_another_size_or_read_only_is_refused_before_anything_is_drawn():
    size = packed_size(1003, 18)
    for room in (bytearray(size - 1), bytearray(size + 1), bytes(size)):
        with pytest.raises(DataError, match="room"):
            mask_levels(room, some_levels(1003, 18), 18, masks())
        with pytest.raises(DataError, match="room"):
            mask_update(room, some_update(1003), GRID, 18, None, masks())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", [0, 50_000])
def test_values_that_are_not_finite_are_refused(threads, place):
    update, room = some_update(65_537), bytearray(packed_size(65_537, 18))
    for wrong in (np.nan, np.inf, -np.inf):
        update[place] = wrong
        with pytest.raises(DataError, match="not finite"):
            mask_update(room, update, GRID, 18, random(), masks(), threads=threads)


def test_one_key_twice_is_refused_and_nothing_is_written():
    twice = [*masks(2), masks(1)[0]]
    room = bytearray(packed_size(8, 18))
    for work in (
        lambda: mask_levels(room, some_levels(8, 18), 18, twice),
        lambda: mask_update(room, some_update(8), GRID, 18, random(), twice),
    ):
        with pytest.raises(ProtocolError, match="two masks of one key"):
            work()
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
        with pytest.raises(ConfigError, match="modulus"):
            mask_update(room, some_update(8), GRID, k, random(), masks())
    with pytest.raises(ConfigError, match="a modulus of 16 bits holds"):
        mask_update(room, some_update(8), Grid(clip=1.0, value_bits=17), 16, random(), masks())
    with pytest.raises(ConfigError, match="threads"):
        mask_levels(room, levels, 16, masks(), threads=0)
    for wrong in (levels.astype(np.int64), levels.reshape(2, 4), levels[::2], [1, 2]):
        with pytest.raises(DataError, match="expected"):
            mask_levels(room, wrong, 16, masks())
    with pytest.raises(DataError, match="expected float32"):
        mask_update(room, np.zeros(8), GRID, 16, random(), masks())


def test_levels_do_not_show():
    assert "stream" not in repr(Packed(stream=b"\x01\x02", length=1))


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_beside_values_and_bytes_is_small(threads):
    n, k = 4_000_000, 18
    update, room = some_update(n), bytearray(packed_size(n, k))
    packed = Packed(stream=pack(some_levels(n, k), k), length=n)
    for work in (
        lambda: mask_update(room, update, GRID, k, random(), masks(), threads=threads),
        lambda: mask_levels(room, packed, k, masks(), threads=threads),
    ):
        tracemalloc.start()
        work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < threads << 21
