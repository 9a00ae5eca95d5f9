"""What must hold of packing, masks and the quantised sum, whatever the numbers are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.privacy.keystream import Keystream, Seed
from common.secagg.adding import RunningTotal
from common.secagg.masks import Mask, add_masks_
from common.secagg.packing import pack, packed_size, unpack
from common.secagg.pipeline import Packed, unmask
from common.secagg.quantise import Grid, dequantise_sum, quantise, smallest_bits

_widths = st.integers(16, 32)


@st.composite
def _vectors(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    k = draw(_widths)
    elements = st.integers(0, 2**k - 1)
    return k, draw(arrays.arrays(np.uint32, st.integers(0, 70), elements=elements))


def _key(*parts: int) -> bytes:
    return Keystream(Seed.for_tests(1).value, f"mask {parts}").bytes(32)


@settings(max_examples=300, deadline=None)
@given(_vectors())
def test_packed_values_come_back_in_the_smallest_number_of_bytes(vector):
    k, values = vector
    stream = pack(values, k)
    assert len(stream) == packed_size(len(values), k) == -(-len(values) * k // 8)
    assert unpack(stream, len(values), k).tolist() == values.tolist()


@settings(max_examples=300, deadline=None)
@given(_widths, st.binary(max_size=120))
def test_every_accepted_stream_is_the_one_of_its_values(k, data):
    n = len(data) * 8 // k
    last = data[: packed_size(n, k)]
    spare = 8 * len(last) - n * k
    number = int.from_bytes(last, "little") & ((1 << (8 * len(last) - spare)) - 1)
    stream = number.to_bytes(len(last), "little")
    assert pack(unpack(stream, n, k), k) == stream


@st.composite
def _cohorts(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    """Vectors `[cohort, n]`. All carries come about: of a value no, few or all bits are set."""
    k, shape = draw(_widths), (draw(st.integers(1, 3)), draw(st.integers(0, 140)))
    extreme = st.sampled_from([0, 1, 2 ** (k - 1) - 1, 2 ** (k - 1), 2**k - 2, 2**k - 1])
    values = extreme | st.integers(0, 2**k - 1)
    return k, draw(arrays.arrays(np.uint32, shape, elements=values, fill=extreme))


@settings(max_examples=300, deadline=None)
@given(_cohorts())
def test_the_running_total_is_the_stream_of_the_sums_of_whole_numbers(cohort):
    k, vectors = cohort
    n = vectors.shape[1]
    total, sums = RunningTotal(n, k), [0] * n
    for vector in vectors:
        total.add(pack(vector, k))
        sums = [(old + new) % 2**k for old, new in zip(sums, vector.tolist(), strict=True)]
        number = sum(value << (i * k) for i, value in enumerate(sums))
        assert int.from_bytes(total.stream, "little") == number
    assert unpack(total.stream, n, k).tolist() == sums


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(2, 20),
    st.integers(0, 100),
    st.integers(0, 2**31),
    st.integers(1, 3),
)
def test_sum_of_masked_packed_vectors_is_the_sum_of_levels(parties, value_bits, n, seed, threads):
    grid, k = Grid(clip=0.25, value_bits=value_bits), smallest_bits(value_bits, parties)
    random = np.random.Generator(np.random.PCG64(seed))
    running, expected = RunningTotal(n, k), np.zeros(n, np.int64)
    keystream = Keystream(Seed.for_tests(seed).value, "rounding")
    for i in range(parties):
        vector = random.normal(0, 0.2, n).astype(np.float32)
        values = quantise(vector, grid, k, keystream.fill, threads=threads).values
        expected += np.where(values >= 2 ** (k - 1), values.astype(np.int64) - 2**k, values)
        pairs = [(min(i, j), max(i, j), 1 if i < j else -1) for j in range(parties) if i != j]
        masks = [Mask(key=_key(low, high), sign=sign) for low, high, sign in pairs]
        add_masks_(values, [*masks, Mask(key=_key(i), sign=1)], k, threads)
        running.add(pack(values, k, threads=threads), threads=threads)
    masked = Packed(stream=running.stream, length=n)
    own = [Mask(key=_key(i), sign=-1) for i in range(parties)]
    total = unmask(masked, k, own, threads=threads)
    assert total.tolist() == (expected % 2**k).tolist()
    assert np.abs(expected).max(initial=0) <= parties * grid.levels
    assert dequantise_sum(total, grid, k).tolist() == (expected * grid.step).astype("f4").tolist()


@settings(max_examples=100, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.integers(1, 50),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False),
    ),
    st.floats(2.0**-90, 2.0**90),
    st.integers(2, 24),
    st.integers(0, 1000),
)
def test_quantised_value_is_within_one_step_of_the_clipped_one(vector, clip, value_bits, seed):
    grid = Grid(clip=clip, value_bits=value_bits)
    result = quantise(vector, grid, 32, Keystream(Seed.for_tests(seed).value, "r").fill)
    steps = np.clip(vector.astype(np.float64), -clip, clip) / grid.step
    found = result.values.view(np.int32).astype(np.float64)
    assert np.all(np.abs(found - steps) < 1 + 1e-8)
    assert np.all(np.abs(found) <= grid.levels)
    assert result.clipped == int(np.count_nonzero(np.abs(vector.astype(np.float64)) > clip))
