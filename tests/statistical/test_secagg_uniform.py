"""Masked vectors look uniform, whatever is under the mask; each checker refuses planted bias.

Every checker is two-sided, has a stated false-alarm level, and is also called on what it must
refuse. Seeds are fixed: a test passes always or never.
"""

import numpy as np
import pytest
from scipy import stats

from common.privacy.keystream import Keystream, Seed
from common.secagg.masks import Mask, add_masks_
from common.secagg.packing import pack

ALARM = 1e-6
N = 1 << 21


def key(number: int) -> bytes:
    return Keystream(Seed.for_tests(number).value, "mask").bytes(32)


def masked(values: np.ndarray, k: int, *numbers: int) -> np.ndarray:
    out = values.copy()
    add_masks_(out, [Mask(key=key(i), sign=1 if i % 2 else -1) for i in numbers], k, threads=2)
    return out


def bytes_fit(data: np.ndarray) -> bool:
    """Chi-square over the 256 byte values: neither too uneven nor too even; false alarm `ALARM`."""
    counts = np.bincount(data.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    statistic = float(np.sum((counts - expected) ** 2) / expected)
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], 255)
    return bool(low < statistic < high)


def bits_fit(values: np.ndarray, k: int) -> bool:
    """Each of the `k` bits is one in half of the words, within binomial bounds; `ALARM` in all."""
    low, high = stats.binom.ppf([ALARM / 2 / k, 1 - ALARM / 2 / k], len(values), 0.5)
    ones = [int(np.count_nonzero(values >> np.uint32(bit) & np.uint32(1))) for bit in range(k)]
    return all(low <= count <= high for count in ones)


def independent(first: np.ndarray, second: np.ndarray, k: int) -> bool:
    """Each bit agrees with its twin in half of the words; false alarm `ALARM`."""
    return bits_fit(first ^ second, k)


def random_words() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(1)).integers(0, 2**32, N, dtype=np.uint32)


PLAIN = {
    "zeros": np.zeros(N, np.uint32),
    "ones": np.full(N, 2**32 - 1, np.uint32),
    "counter": np.arange(N, dtype=np.uint32),
    "alternating": np.tile(np.array([1, 2**15], np.uint32), N // 2),
}


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2, 3)])
def test_masked_words_are_uniform_in_every_byte_and_bit(plain, numbers):
    words = masked(PLAIN[plain], 32, *numbers)
    assert bytes_fit(words)
    assert bits_fit(words, 32)
    assert independent(words[:-1], words[1:], 32)


@pytest.mark.parametrize("k", [16, 17, 21, 24, 31])
def test_masked_values_are_uniform_below_the_modulus_and_so_is_their_stream(k):
    values = masked(PLAIN["zeros"], k, 1)
    assert int(values.max()) < 2**k
    assert bits_fit(values, k)
    assert bytes_fit(np.frombuffer(pack(values, k), np.uint8))


@pytest.mark.parametrize("k", [18, 32])
def test_two_keys_two_places_and_two_signs_give_unrelated_masks(k):
    first, second = masked(PLAIN["zeros"], k, 1), masked(PLAIN["zeros"], k, 3)
    assert independent(first, second, k)
    assert independent(first[:-8192], first[8192:], k)
    assert independent(first, first[::-1], k)
    bits = np.uint32(2**k - 1)
    assert bits_fit((first - second) & bits, k)
    assert bits_fit((first + second) & bits, k)


def test_keys_that_differ_in_one_bit_give_unrelated_masks():
    other = bytes([key(1)[0] ^ 1]) + key(1)[1:]
    values = np.zeros(N, np.uint32)
    add_masks_(values, [Mask(key=other, sign=1)], 32)
    assert independent(values, masked(PLAIN["zeros"], 32, 1), 32)


def test_mask_is_independent_of_what_it_hides():
    update = np.random.Generator(np.random.PCG64(2)).normal(0, 2000, N)
    plain = np.abs(update).astype(np.uint32)
    assert not bits_fit(plain, 32)
    assert independent(masked(plain, 32, 1), plain, 32)
    assert not independent(masked(plain, 32, 1), masked(np.zeros(N, np.uint32), 32, 1), 32)


def test_byte_test_refuses_planted_bias():
    words = random_words()
    assert bytes_fit(words)
    biased = words.view(np.uint8).copy()
    biased[biased == 255] = 254  # as of numbers taken modulo 255
    assert not bytes_fit(biased)
    slightly = words.view(np.uint8).copy()
    slightly[: len(slightly) // 50] |= 1
    assert not bytes_fit(slightly)
    assert not bytes_fit(np.arange(N, dtype=np.uint32) & np.uint32(0xFF))


def test_byte_test_refuses_what_is_too_even():
    even = np.tile(np.arange(256, dtype=np.uint8), N // 64)
    assert not bytes_fit(even)


@pytest.mark.parametrize("bit", [0, 13, 31])
def test_bit_test_refuses_one_bit_that_is_set_in_51_percent(bit):
    words = random_words()
    assert bits_fit(words, 32)
    words[: N // 50] |= np.uint32(1 << bit)
    assert not bits_fit(words, 32)


def test_independence_test_refuses_a_mask_used_twice():
    words = random_words()
    assert not independent(words, words ^ np.uint32(1), 32)
    assert not independent(masked(PLAIN["zeros"], 32, 1), masked(PLAIN["counter"], 32, 1), 32)
    repeated = np.concatenate([words[: N // 2]] * 2)
    assert not independent(repeated[: -N // 2], repeated[N // 2 :], 32)
