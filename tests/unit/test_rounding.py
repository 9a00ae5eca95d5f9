"""From an update to packed levels: weighted, on the grid; what is cut is told to the site alone."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from client.rounding import USE, Rounding
from common.privacy.keystream import Keystream
from common.secagg.packing import pack, unpack
from common.secagg.quantise import PIECE, dequantise_sum, quantise
from common.sums import grid_of
from tests.unit.test_secagg_config import secure

N = 400
SECTION = "{clip: 0.5}"
FIRST, SECOND = "north", "site-2"


@pytest.fixture
def study():
    """Four institutions of one weight."""
    return secure(SECTION)


def rounding(study, name=FIRST, random=None, told=None):
    bits = study.secure.bits
    report = (lambda kind, figures: told.append((kind, figures))) if told is not None else quiet
    more = {} if random is None else {"random": random}
    return Rounding(study, name, bits, report, **more)


def quiet(_kind, _figures):
    """Nobody listens."""


def values_of(study, packed, n=N):
    bits = study.secure.bits
    return dequantise_sum(unpack(packed, n, bits), grid_of(study), bits)


def updates(largest=0.4):
    return np.random.default_rng(3).uniform(-largest, largest, N).astype(np.float32)


def seeded(byte):
    return lambda count: bytes([byte]) * count


def test_what_is_packed_is_the_update_up_to_one_step_of_the_grid(study):
    update = updates()
    found = values_of(study, rounding(study).round(1, update, None))
    assert np.abs(found - update).max() < grid_of(study).step
    assert not np.array_equal(found, update)


def test_rounding_has_no_bias(study):
    update = np.full(4_000, 0.3 * grid_of(study).step, np.float32)
    found = values_of(study, rounding(study).round(1, update, None), len(update))
    share_up = np.count_nonzero(found) / len(found)
    assert abs(share_up - 0.3) < 0.04  # five standard deviations


def test_an_update_is_multiplied_by_its_weight_over_the_largest(study):
    weights = dict.fromkeys(study.federation.institutions, 2.0) | {SECOND: 0.5}
    study = replace(study, aggregation=replace(study.aggregation, weights=weights))
    update, step = updates(), grid_of(study).step
    first, second = (
        values_of(study, rounding(study, name).round(1, update, None)) for name in (FIRST, SECOND)
    )
    assert np.abs(first - update).max() < step
    assert np.abs(second - update / 4).max() < step


def test_each_rounding_is_drawn_from_fresh_secret_bytes(study):
    update, asked = updates(), []

    def random(count):
        asked.append(count)
        return bytes([len(asked)]) * count

    made = rounding(study, random=random)
    first, second = (made.round(1, update, None) for _ in range(2))
    assert asked == [32, 32]
    assert first != second
    assert first == rounding(study, random=seeded(1)).round(1, update, None)


def test_under_a_mechanism_rounding_is_drawn_from_its_keystream_and_no_other(study):
    uses = []

    def keys(use):
        uses.append(use)
        return Keystream(b"k" * 32, use)

    def random(_count):
        pytest.fail("the operating system was asked")

    made = rounding(study, random=random)
    assert made.round(1, updates(), keys) == made.round(1, updates(), keys)
    assert uses == [USE, USE]


def test_clipped_coordinates_are_cut_to_the_grid_and_told_to_the_site(study):
    told = []
    update = updates()
    update[:3] = [0.7, -0.9, 0.6]
    found = values_of(study, rounding(study, told=told).round(5, update, None))
    assert found[:3].tolist() == pytest.approx([0.5, -0.5, 0.5])
    assert told == [(USE, {"round": 5, "clipped": 3, "not finite": 0, "of": N})]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_count_as_zero_and_are_told_to_the_site_alone(study, bad):
    told, update = [], updates()
    update[[7, 9]] = bad
    packed = rounding(study, told=told).round(1, update, None)
    assert told == [(USE, {"round": 1, "clipped": 0, "not finite": 2, "of": N})]
    assert len(packed) == len(rounding(study).round(1, updates(), None))
    found, whole = values_of(study, packed), updates()
    whole[[7, 9]] = 0
    assert found[[7, 9]].tolist() == [0, 0]
    assert np.abs(found - whole).max() < grid_of(study).step


def test_an_update_without_one_finite_value_is_sent_as_zeros(study):
    told = []
    packed = rounding(study, told=told).round(1, np.full(N, np.nan, np.float32), None)
    assert not values_of(study, packed).any()
    assert told[0][1]["not finite"] == N


def test_rounding_in_one_pass_gives_what_rounding_and_packing_give(study):
    values = np.random.default_rng(5).normal(0, 0.3, 3 * PIECE + 7).astype(np.float32)
    before, bits = values.copy(), study.secure.bits
    stream = Keystream(b"k" * 32, USE)
    apart = quantise(values, grid_of(study), bits, stream.fill)
    assert np.array_equal(values, before)
    assert apart.clipped > PIECE // 10
    found = rounding(study).round(1, values, lambda use: Keystream(b"k" * 32, use))
    assert found == pack(apart.values, bits)


def test_rounding_makes_no_copy_of_the_update_beside_what_it_returns(study):
    update = np.zeros(1 << 22, np.float32)
    tracemalloc.start()
    packed = rounding(study).round(1, update, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(packed) + (2 << 20)


def test_the_update_itself_is_left_as_it_was(study):
    update = updates()
    before = update.copy()
    rounding(study).round(1, update, None)
    assert np.array_equal(update, before)
