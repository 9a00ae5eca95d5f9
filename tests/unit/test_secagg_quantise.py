"""The quantiser is unbiased, exact on its grid, off by less than a step, and never wraps."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from common.errors import ConfigError, DataError
from common.privacy.keystream import Keystream, Seed
from common.secagg import quantise as module
from common.secagg import vectors
from common.secagg.quantise import (
    Grid,
    dequantise_sum,
    quantise,
    require_no_wrap,
    smallest_bits,
)

ALARM = 1e-6
LOWEST, HIGHEST = -(2**31), 2**31 - 1
"""The smallest and the largest rounding bits."""
ALL_VALUE_BITS = range(2, 25)
N = 2 * 32768 + 1001


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """Even small vectors are worth all threads that a test asks for."""
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)


def stream(number: int = 1) -> Keystream:
    return Keystream(Seed.for_tests(number).value, "quantise")


def exact_grid(value_bits: int) -> Grid:
    """A step of 2^-10, so that float32 holds every grid value."""
    return Grid(clip=(2 ** (value_bits - 1) - 1) / 1024, value_bits=value_bits)


def lifted(values: np.ndarray, k: int) -> np.ndarray:
    """Centred, by definition."""
    wide = values.astype(np.int64)
    return np.where(wide >= 2 ** (k - 1), wide - 2**k, wide)


def levels(vector: np.ndarray, grid: Grid, seed: int = 1) -> np.ndarray:
    return lifted(quantise(vector, grid, 32, stream(seed).fill).values, 32)


@pytest.fixture
def rounded_with(monkeypatch):
    """Levels under chosen rounding bits, one for all values or one for each."""

    def run(vector: np.ndarray, grid: Grid, bits: int | np.ndarray) -> np.ndarray:
        chosen = np.broadcast_to(np.asarray(bits, np.int64), vector.shape).astype(np.int32)

        def write(_stream: object, view: memoryview) -> None:
            view[:] = chosen.data.cast("B")

        monkeypatch.setattr(module, "write_keystream", write)
        return lifted(quantise(vector, grid, 32, stream().fill).values, 32)

    return run


def some_values(grid: Grid, n: int = 500) -> np.ndarray:
    """Within the clip: even over it, near zero, near its ends and near grid values."""
    random = np.random.Generator(np.random.PCG64(grid.value_bits))
    even = random.uniform(-grid.clip, grid.clip, n)
    grid_values = random.integers(-grid.levels, grid.levels + 1, n) * grid.step
    near = grid_values * (1 + 2.0 ** -random.uniform(1, 23, n))
    return np.clip(np.concatenate([even, even / 1e4, near]), -grid.clip, grid.clip).astype("f4")


def exact_steps(vector: np.ndarray, grid: Grid) -> list[Fraction]:
    per_unit = Fraction(grid.levels) / Fraction(grid.clip)
    bound = Fraction(grid.clip)
    return [min(max(Fraction(float(x)), -bound), bound) * per_unit for x in vector]


# rounding


@pytest.mark.parametrize("value_bits", ALL_VALUE_BITS)
def test_chance_of_rounding_up_is_exact_to_2_to_the_minus_24(value_bits, rounded_with):
    grid = Grid(clip=0.1, value_bits=value_bits)
    vector = some_values(grid, 100)
    steps = exact_steps(vector, grid)
    below = np.array([math.floor(y) for y in steps])
    low = np.full(len(vector), LOWEST)  # bisects for the smallest bits that round up
    high = np.full(len(vector), HIGHEST + 1)
    while np.any(low < high):
        middle = (low + high) // 2
        ups = rounded_with(vector, grid, np.minimum(middle, HIGHEST)) > below
        low, high = np.where(ups, low, np.minimum(middle + 1, high)), np.where(ups, middle, high)
    for y, floor, first in zip(steps, below.tolist(), low.tolist(), strict=True):
        chance = Fraction(HIGHEST + 1 - first, 2**32)
        assert abs(chance - (y - floor)) < Fraction(1, 2**24)


@pytest.mark.parametrize("value_bits", ALL_VALUE_BITS)
@pytest.mark.parametrize("bits", [LOWEST, HIGHEST, 0, -1])
def test_value_goes_to_one_of_its_two_neighbours(value_bits, bits, rounded_with):
    grid = Grid(clip=0.3, value_bits=value_bits)
    vector = some_values(grid)
    for y, level in zip(
        exact_steps(vector, grid), rounded_with(vector, grid, bits).tolist(), strict=True
    ):
        assert abs(level - y) < 1
        assert abs(level) <= grid.levels


@pytest.mark.parametrize("value_bits", ALL_VALUE_BITS)
@pytest.mark.parametrize("bits", [LOWEST, HIGHEST])
def test_grid_values_are_kept_whatever_the_bits(value_bits, bits, rounded_with):
    grid = exact_grid(value_bits)
    random = np.random.Generator(np.random.PCG64(1))
    wanted = random.integers(-grid.levels, grid.levels + 1, 5000)
    wanted[:3] = [0, grid.levels, -grid.levels]
    vector = (wanted / 1024).astype(np.float32)
    assert np.array_equal(vector * 1024.0, wanted)
    assert np.array_equal(rounded_with(vector, grid, bits), wanted)


@pytest.mark.parametrize("clip", [0.1, 1 / 3, 1e-7, 1e6])
def test_zero_and_the_clip_itself_are_kept_whatever_the_step(clip, rounded_with):
    grid = Grid(clip=float(np.float32(clip)), value_bits=16)
    vector = np.array([0.0, -0.0, grid.clip, -grid.clip], np.float32)
    for bits in (LOWEST, HIGHEST):
        assert rounded_with(vector, grid, bits).tolist() == [0, 0, 32767, -32767]


def mean_fits(found: np.ndarray, fraction: float) -> bool:
    """Two-sided binomial test of how many were rounded up; false alarm `ALARM`."""
    low, high = stats.binom.ppf([ALARM / 2, 1 - ALARM / 2], len(found), fraction)
    return bool(low <= np.count_nonzero(found) <= high)


@pytest.mark.parametrize("fraction", [2.0**-8, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("level", [-20_000, 0, 20_000])
def test_share_rounded_up_is_the_fraction_and_other_rounding_is_refused(fraction, level):
    grid = exact_grid(16)
    value = np.float32((level + fraction) / 1024)
    fraction = float(value) * 1024 - level
    ups = levels(np.full(400_000, value), grid) - level
    assert set(ups.tolist()) == {0, 1}
    assert mean_fits(ups, fraction)
    assert not mean_fits(np.full(400_000, round(fraction)), fraction)
    assert not mean_fits(np.zeros(400_000), fraction)


def test_variance_is_that_of_a_coin_and_neighbours_are_independent():
    grid = exact_grid(16)
    vector = np.random.Generator(np.random.PCG64(2)).uniform(-31, 31, 1_000_000).astype(np.float32)
    steps = vector.astype(np.float64) * 1024
    below = np.floor(steps)
    fraction = steps - below
    errors = levels(vector, grid) - steps
    variance = fraction * (1 - fraction)
    deviation = np.sum(errors**2 - variance) / math.sqrt(np.sum(variance * (1 - 4 * variance)))
    assert abs(deviation) < 6
    assert abs(np.sum(errors)) < 6 * math.sqrt(np.sum(variance))
    assert abs(np.corrcoef(errors[:-1], errors[1:])[0, 1]) < 6e-3
    assert abs(np.corrcoef(errors, fraction)[0, 1]) < 6e-3


def test_rounding_of_two_draws_is_independent():
    grid = exact_grid(16)
    vector = np.full(1_000_000, 0.5 / 1024, np.float32)
    keystream = stream()
    first, second = (quantise(vector, grid, 32, keystream.fill).values for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 6e-3


# clipping and refusals


def test_clipped_values_are_counted_and_become_the_outermost_levels():
    grid = Grid(clip=0.5, value_bits=16)
    vector = np.zeros(N, np.float32)
    vector[[0, 40_000, N - 1]] = [0.75, -1e30, np.nextafter(np.float32(0.5), np.float32(1))]
    vector[[5, 6]] = [0.5, -0.5]
    for threads in (1, 2):
        result = quantise(vector, grid, 24, stream().fill, threads=threads)
        assert result.clipped == 3
        found = lifted(result.values, 24)
        assert found[[0, 40_000, N - 1, 5, 6]].tolist() == [32767, -32767, 32767, 32767, -32767]
        assert np.count_nonzero(found) == 5


def test_nothing_is_clipped_within_the_clip():
    grid = Grid(clip=0.1, value_bits=16)
    vector = np.full(10, np.nextafter(np.float32(0.1), np.float32(0)))
    assert quantise(vector, grid, 24, stream().fill).clipped == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 33_000, N - 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_value_that_is_not_finite_is_refused(bad, place, threads):
    vector = np.zeros(N, np.float32)
    vector[place] = bad
    with pytest.raises(DataError, match="not finite"):
        quantise(vector, Grid(clip=1.0, value_bits=16), 24, stream().fill, threads=threads)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(4),
        np.zeros(4, np.float16),
        np.zeros((2, 2), np.float32),
        np.zeros(8, np.float32)[::2],
        [0.0],
    ],
)
def test_only_flat_float32_vectors_are_quantised(vector):
    with pytest.raises(DataError, match="expected"):
        quantise(vector, Grid(clip=1.0, value_bits=16), 24, stream().fill)


def test_room_of_another_length_or_type_is_refused():
    vector, grid = np.zeros(8, np.float32), Grid(clip=1.0, value_bits=16)
    for out in (np.zeros(9, np.uint32), np.zeros(8, np.int32)):
        with pytest.raises(DataError, match="expected"):
            quantise(vector, grid, 24, stream().fill, out=out)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan, math.inf, 1e-31, 1e31, "1", None])
def test_clip_out_of_range_is_refused(clip):
    with pytest.raises(ConfigError, match="clip"):
        Grid(clip=clip, value_bits=16)


@pytest.mark.parametrize("value_bits", [1, 25, 0, -3, 16.0, True, None])
def test_value_bits_out_of_range_are_refused(value_bits):
    with pytest.raises(ConfigError, match="bits a value"):
        Grid(clip=1.0, value_bits=value_bits)
    with pytest.raises(ConfigError, match="bits a value"):
        smallest_bits(value_bits, 3)


def test_modulus_below_the_values_own_bits_is_refused():
    vector = np.zeros(3, np.float32)
    assert quantise(vector, Grid(clip=1.0, value_bits=24), 24, stream().fill).clipped == 0
    with pytest.raises(ConfigError, match="sum up to"):
        quantise(vector, Grid(clip=1.0, value_bits=24), 23, stream().fill)


def test_private_counts_and_values_do_not_print():
    result = quantise(np.full(3, 9.0, np.float32), Grid(clip=1.0, value_bits=16), 24, stream().fill)
    assert result.clipped == 3
    assert repr(result) == "Quantised()"


# pieces, threads, memory


@pytest.mark.parametrize("n", [0, 1, 7, 32768, 32769, N])
def test_result_depends_on_neither_threads_nor_pieces(n, monkeypatch):
    grid = Grid(clip=0.02, value_bits=16)
    vector = np.random.Generator(np.random.PCG64(n)).normal(0, 0.01, n).astype(np.float32)
    expected = quantise(vector, grid, 20, stream().fill)
    for piece in (1 << 15, 1000, 1 << 17):
        monkeypatch.setattr(module, "PIECE", piece)
        for threads in (1, 2, 5):
            result = quantise(vector, grid, 20, stream().fill, threads=threads)
            assert np.array_equal(result.values, expected.values)
            assert result.clipped == expected.clipped
        lifted_sum = dequantise_sum(expected.values, grid, 20)
        assert np.array_equal(
            lifted_sum, (lifted(expected.values, 20) * grid.step).astype(np.float32)
        )


def test_a_vector_is_quantised_in_its_own_memory():
    grid = Grid(clip=0.02, value_bits=16)
    vector = np.random.Generator(np.random.PCG64(1)).normal(0, 0.01, N).astype(np.float32)
    expected = quantise(vector, grid, 20, stream().fill)
    room = vector.view(np.uint32)
    result = quantise(vector, grid, 20, stream().fill, out=room)
    assert result.values is room
    assert np.array_equal(room, expected.values)
    assert result.clipped == expected.clipped


def test_thirty_two_bytes_are_drawn_once():
    drawn = []
    quantise(np.zeros(N, np.float32), Grid(clip=1.0, value_bits=16), 24, drawn.append, threads=2)
    assert [len(buffer) for buffer in drawn] == [32]


def test_memory_beside_input_and_output_is_small():
    import tracemalloc

    vector, grid = np.zeros(4_000_000, np.float32), Grid(clip=1.0, value_bits=16)
    tracemalloc.start()
    quantise(vector, grid, 24, stream().fill, threads=2, out=vector.view(np.uint32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


# sums


@pytest.mark.parametrize("k", [16, 17, 24, 31, 32])
def test_sum_is_lifted_to_both_sides_of_zero_and_scaled(k):
    grid = Grid(clip=0.3, value_bits=16)
    half = 2 ** (k - 1)
    total = np.array([0, 1, half - 1, half, half + 1, 2 * half - 1], np.uint32)
    expected = [0, 1, half - 1, -half, 1 - half, -1]
    found = dequantise_sum(total, grid, k)
    assert found.dtype == np.float32
    assert found.tolist() == [float(np.float32(x * grid.step)) for x in expected]


@pytest.mark.parametrize("k", range(16, 33))
def test_scaled_sum_is_the_nearest_to_the_product_in_its_own_memory_too(k):
    grid = Grid(clip=0.3, value_bits=16)
    total = np.random.Generator(np.random.PCG64(k)).integers(0, 2**k, N, dtype=np.uint32)
    expected = (lifted(total, k) * grid.step).astype(np.float32)
    assert np.array_equal(dequantise_sum(total, grid, k), expected)
    room = total.view(np.float32)
    assert dequantise_sum(total, grid, k, out=room) is room
    assert np.array_equal(room, expected)


def test_a_sum_is_scaled_into_floats_of_its_length_only():
    total, grid = np.zeros(8, np.uint32), Grid(clip=0.3, value_bits=16)
    for wrong in (np.zeros(7, np.float32), np.zeros(8), np.zeros(16, np.float32)[::2]):
        with pytest.raises(DataError, match="expected"):
            dequantise_sum(total, grid, 20, out=wrong)


@pytest.mark.parametrize("value_bits", [2, 15, 16, 19, 24])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 31, 32, 33])
def test_extreme_sum_is_exact_in_the_smallest_modulus_and_wraps_with_one_bit_less(value_bits, n):
    k, largest = smallest_bits(value_bits, n), n * (2 ** (value_bits - 1) - 1)
    grid = exact_grid(value_bits)
    extreme = np.array([grid.clip, -grid.clip], np.float32)
    values = quantise(extreme, grid, k, stream().fill).values
    total = sum([values.astype(np.uint64)] * n) % 2**k
    assert lifted(total, k).tolist() == [largest, -largest]
    assert dequantise_sum(total.astype(np.uint32), grid, k).tolist() == [
        float(np.float32(largest / 1024)),
        float(np.float32(-largest / 1024)),
    ]
    assert lifted(total % 2 ** (k - 1), k - 1).tolist() != [largest, -largest] or k == 16
    if k > 16:
        with pytest.raises(ConfigError, match="sum up to"):
            require_no_wrap(k - 1, value_bits, n)


@pytest.mark.parametrize(
    ("value_bits", "n", "k"),
    [(16, 1, 16), (16, 2, 17), (16, 3, 18), (16, 4, 18), (16, 5, 19), (16, 32, 21), (16, 33, 22),
     (19, 32, 24), (19, 33, 25), (2, 3, 16), (24, 256, 32), (16, 65538, 32), (24, 2, 25)],
)  # fmt: skip
def test_smallest_modulus_of_known_cohorts(value_bits, n, k):
    assert smallest_bits(value_bits, n) == k


@pytest.mark.parametrize(("value_bits", "n"), [(24, 257), (16, 65539), (20, 5000)])
def test_cohort_that_no_modulus_holds_is_refused_with_the_arithmetic(value_bits, n):
    with pytest.raises(ConfigError) as caught:
        smallest_bits(value_bits, n)
    largest = n * (2 ** (value_bits - 1) - 1)
    for part in (f"{n} * (2^{value_bits - 1} - 1) = {largest}", "2^31 - 1 = 2147483647", "32 bits"):
        assert part in str(caught.value)


def test_sum_of_exactly_half_the_modulus_is_refused_and_one_less_is_not():
    require_no_wrap(16, 2, 2**15 - 1)
    assert smallest_bits(2, 2**15 - 1) == 16
    with pytest.raises(ConfigError, match="sum up to"):
        require_no_wrap(16, 2, 2**15)
    assert smallest_bits(2, 2**15) == 17


@pytest.mark.parametrize("n", [0, -1, 2.0, True])
def test_number_of_institutions_below_one_is_refused(n):
    with pytest.raises(ConfigError, match="institutions"):
        smallest_bits(16, n)
