"""Masks are the cipher's keystream to the bit, cancel, and depend on nothing but key and length."""

import copy
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from common.errors import ConfigError, DataError, ProtocolError
from common.privacy.keystream import Keystream, Seed
from common.secagg import masks as module
from common.secagg import vectors
from common.secagg.masks import Mask, add_masks_, add_streams_, open_streams
from tests.unit.test_keystream import NIST_COUNTER, NIST_KEY, NIST_OUTPUT

N = 3 * 32768 + 1001


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """Even small vectors are worth all threads that a test asks for."""
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)


def key(number: int) -> bytes:
    return Keystream(Seed.for_tests(number).value, "mask").bytes(32)


def mask(number: int, sign: int = 1) -> Mask:
    return Mask(key=key(number), sign=sign)


def some_values(n: int = N) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).integers(0, 2**32, n, dtype=np.uint32)


def blocks(secret: bytes, first: int, count: int) -> bytes:
    """Counter mode by hand: single blocks under the plain cipher (SP 800-38A, section 6.5)."""
    cipher = Cipher(algorithms.AES(secret), modes.ECB()).encryptor()
    return cipher.update(b"".join(i.to_bytes(16, "big") for i in range(first, first + count)))


def test_nist_counter_mode_vector_is_what_is_added():
    nist = [Mask(key=bytes.fromhex(NIST_KEY), sign=1)]
    values = np.full(16, 7, np.uint32)
    add_streams_(values, open_streams(nist, int(NIST_COUNTER, 16)), 32, np.empty_like(values))
    assert (values - np.uint32(7)).tobytes().hex() == NIST_OUTPUT


def test_nist_counter_mode_vector_is_what_is_subtracted_and_only_its_low_bits_are_left():
    nist = [Mask(key=bytes.fromhex(NIST_KEY), sign=-1)]
    values = np.zeros(16, np.uint32)
    add_streams_(values, open_streams(nist, int(NIST_COUNTER, 16)), 17, np.empty_like(values))
    words = np.frombuffer(bytes.fromhex(NIST_OUTPUT), "<u4")
    assert values.tolist() == [-int(w) % 2**17 for w in words]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mask_is_the_cipher_of_block_numbers_from_zero(threads):
    values = np.zeros(N, np.uint32)
    add_masks_(values, [mask(1)], 32, threads)
    for first in (0, 1, 8191, 8192, 16383, 16384, N // 4 - 2):
        assert values[4 * first : 4 * first + 8].tobytes() == blocks(key(1), first, 2)


@pytest.mark.parametrize("k", [16, 17, 24, 31, 32])
def test_masks_are_added_and_subtracted_modulo_the_modulus(k):
    values = some_values()
    words = [np.zeros(N, np.uint32) for _ in range(2)]
    for number, word in enumerate(words):
        add_masks_(word, [mask(number)], 32)
    expected = (values.astype(object) + words[0] - words[1]) % 2**k
    add_masks_(values, [mask(0), mask(1, -1)], k)
    assert values.tolist() == expected.tolist()


@pytest.mark.parametrize("k", [16, 21, 32])
def test_masks_of_all_parties_cancel(k):
    parties = 5
    own_values = [some_values(1000 + i)[:1000] >> np.uint32(32 - k) for i in range(parties)]
    total = sum(v.astype(np.uint64) for v in own_values) % 2**k
    masked = np.zeros(1000, np.uint32)
    for i, vector in enumerate(own_values):
        own = [
            mask(10 * min(i, j) + max(i, j), 1 if i < j else -1) for j in range(parties) if j != i
        ]
        add_masks_(vector, own, k)
        masked += vector
    assert (masked & np.uint32(2**k - 1)).tolist() == total.tolist()


@pytest.mark.parametrize("n", [0, 1, 3, 32767, 32768, 32769, 65537, N])
def test_result_depends_on_neither_threads_nor_pieces(n, monkeypatch):
    chosen = [mask(1), mask(2, -1), mask(3)]
    expected = some_values(n)
    add_masks_(expected, chosen, 24)
    for threads in (2, 3, 8, 100):
        values = some_values(n)
        add_masks_(values, chosen, 24, threads)
        assert np.array_equal(values, expected)
    for piece in (4, 1000, 1 << 17):
        monkeypatch.setattr(module, "PIECE", piece)
        values = some_values(n)
        add_masks_(values, chosen, 24, 2)
        assert np.array_equal(values, expected)


def test_order_of_masks_does_not_matter():
    first, second = some_values(), some_values()
    add_masks_(first, [mask(1), mask(2, -1)], 20)
    add_masks_(second, [mask(2, -1), mask(1)], 20)
    assert np.array_equal(first, second)


def test_every_bit_of_the_key_changes_half_the_mask():
    plain = np.zeros(4096, np.uint32)
    add_masks_(plain, [mask(1)], 32)
    for bit in range(256):
        other = (int.from_bytes(key(1), "little") ^ 1 << bit).to_bytes(32, "little")
        values = np.zeros(4096, np.uint32)
        add_masks_(values, [Mask(key=other, sign=1)], 32)
        differing = int(np.bitwise_count(values ^ plain).sum()) / (32 * 4096)
        assert 0.49 < differing < 0.51


def test_one_key_twice_is_refused_and_nothing_is_added():
    values = some_values(10)
    with pytest.raises(ProtocolError, match="two masks of one key"):
        add_masks_(values, [mask(1), mask(2), mask(1, -1)], 24)
    assert np.array_equal(values, some_values(10))


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33), bytearray(32), "x" * 32])
def test_key_that_is_not_32_bytes_is_refused(bad):
    with pytest.raises(ProtocolError, match="32 bytes"):
        Mask(key=bad, sign=1)


@pytest.mark.parametrize("sign", [0, 2, -2, 0.5])
def test_sign_that_is_not_one_is_refused(sign):
    with pytest.raises(ProtocolError, match="sign"):
        Mask(key=bytes(32), sign=sign)


@pytest.mark.parametrize("k", [15, 33, 0, 16.0, True, None])
def test_modulus_out_of_range_is_refused(k):
    with pytest.raises(ConfigError, match="modulus"):
        add_masks_(some_values(10), [mask(1)], k)


@pytest.mark.parametrize("threads", [0, -1, 1.0])
def test_fewer_threads_than_one_are_refused(threads):
    with pytest.raises(ConfigError, match="threads"):
        add_masks_(some_values(10), [mask(1)], 24, threads)


def read_only() -> np.ndarray:
    values = some_values(8)
    values.flags.writeable = False
    return values


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4, np.int32),
        np.zeros(4, np.uint64),
        np.zeros((2, 2), np.uint32),
        np.zeros(8, np.uint32)[::2],
        np.zeros(8, ">u4"),
        [1, 2, 3],
        read_only(),
    ],
    ids=["int32", "uint64", "matrix", "strided", "big-endian", "list", "read-only"],
)
def test_only_flat_writable_words_are_masked(values):
    with pytest.raises(DataError, match="expected"):
        add_masks_(values, [mask(1)], 24)


def test_key_is_not_shown_pickled_or_copied():
    secret = mask(1)
    assert key(1).hex() not in repr(secret)
    assert repr(secret) == "Mask(sign=1)"
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            action(secret)
