"""The attack on masks from a folded seed: it recovers an update from Flower's masks, not from ours.

Flower 1.41's SecAgg+ makes a mask of a shared secret in three steps
(`flwr/common/secure_aggregation/secaggplus_utils.py`, `pseudo_rand_gen`): the secret's 32-bit words
are XORed to one, that word seeds MT19937, and its output is the mask. Whatever the secret's length,
there are at most 2^32 masks; and since a pairwise secret is the base64 text of 32 bytes, whose
bytes are ASCII, 2^28. The coordinator gets the self-mask's seed of every survivor by protocol. With
two clients one pairwise mask is left on each update: whoever tries all seeds and keeps the one
under which the first values fall into the quantiser's range has the update.

Reduced here, to end in seconds: the attacker is told all but the low `SEARCHED_BITS` bits of the
folded seed. Nothing else differs from the full attack: the view, the test of a candidate and the
loop are the same, and each further candidate costs the same, some ten microseconds in Python.

Ours is attacked twice with the same candidates, among which is the fold of its true key: expanded
by Flower's generator, and by our own from keys that hold no more than the folded word. A positive
control shows that the second attack does recover an update if a key is one of those.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from common.privacy.keystream import Keystream, Seed
from common.secagg.masks import Mask, add_masks_
from common.secagg.quantise import Grid, dequantise_sum, quantise, smallest_bits

SEARCHED_BITS = 16
PREFIX = 64
"""Values that decide on a candidate; each passes by chance at most one time in eight."""

CLIP, TARGET, MODULUS = 8.0, 1 << 22, 1 << 32
"""Flower's defaults."""

GRID, BITS = Grid(clip=CLIP, value_bits=16), smallest_bits(16, 2)

_MERSENNE = np.random.RandomState(0)

Expand = Callable[[int, int], np.ndarray]
Plausible = Callable[[np.ndarray], bool]


def fold(secret: bytes) -> int:
    """All 32-bit words of a secret, XORed."""
    return int(np.bitwise_xor.reduce(np.frombuffer(secret, "<u4")))


def around(folded: int) -> range:
    """The candidates of an attacker who is told all but the low bits."""
    first = folded >> SEARCHED_BITS << SEARCHED_BITS
    return range(first, first + (1 << SEARCHED_BITS))


def recover(
    masked: np.ndarray, candidates: Iterable[int], expand: Expand, plausible: Plausible
) -> list[tuple[int, np.ndarray]]:
    """The attack: each candidate whose mask leaves a plausible beginning, and all that it leaves.

    Args:
        masked: what the coordinator sees, int64 `[n]`.
        expand: from a candidate and a length to the mask.
        plausible: whether unmasked values may be an update's.
    """
    found = []
    for candidate in candidates:
        if plausible(masked[:PREFIX] - expand(candidate, PREFIX)):
            found.append((candidate, masked - expand(candidate, len(masked))))
    return found


def toy_update(n: int = 500) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).normal(0, 0.5, n).astype(np.float32)


# Flower's side


def flower_secrets() -> tuple[bytes, bytes]:
    """A pairwise secret, by Flower's key agreement, and a self-mask's seed."""
    (private, _), (_, public) = generate_key_pairs(), generate_key_pairs()
    seed = Keystream(Seed.for_tests(5).value, "self-mask").bytes(32)
    return generate_shared_key(private, public), seed


def flower_masked(update: np.ndarray, pairwise: bytes, own: bytes) -> list[np.ndarray]:
    """What one of two clients sends: its steps in stage 2, by Flower's functions."""
    values = factor_combine(TARGET, quantize([update], CLIP, TARGET))
    shapes = [array.shape for array in values]
    values = parameters_addition(values, pseudo_rand_gen(own, MODULUS, shapes))
    values = parameters_addition(values, pseudo_rand_gen(pairwise, MODULUS, shapes))
    return parameters_mod(values, MODULUS)


def flower_view(masked: Sequence[np.ndarray], own: bytes) -> np.ndarray:
    """The coordinator's: the self-mask of a survivor is taken off by protocol."""
    shapes = [array.shape for array in masked]
    left = parameters_subtraction(list(masked), pseudo_rand_gen(own, MODULUS, shapes))
    return np.concatenate(parameters_mod(left, MODULUS))


def flower_expand(candidate: int, n: int) -> np.ndarray:
    """The mask of every secret with this fold, from one generator that is seeded anew."""
    _MERSENNE.seed(candidate)
    return _MERSENNE.randint(0, MODULUS - 1, n, dtype=np.int64)


def flower_plausible(values: np.ndarray) -> bool:
    return bool(np.all(values % MODULUS <= TARGET))


def flower_update(values: np.ndarray) -> np.ndarray:
    return values[1:] % MODULUS * (2 * CLIP / TARGET) - CLIP


# ours


def our_masked(update: np.ndarray, pairwise: bytes, own: bytes) -> np.ndarray:
    rounding = Keystream(Seed.for_tests(6).value, "rounding")
    values = quantise(update, GRID, BITS, rounding.fill).values
    add_masks_(values, [Mask(key=own, sign=1), Mask(key=pairwise, sign=1)], BITS)
    return values


def our_view(masked: np.ndarray, own: bytes) -> np.ndarray:
    left = masked.copy()
    add_masks_(left, [Mask(key=own, sign=-1)], BITS)
    return left.astype(np.int64)


def our_plausible(values: np.ndarray) -> bool:
    lifted = (values + (1 << (BITS - 1))) % (1 << BITS) - (1 << (BITS - 1))
    return bool(np.all(np.abs(lifted) <= GRID.levels // 4))


def our_update(values: np.ndarray) -> np.ndarray:
    return dequantise_sum((values % (1 << BITS)).astype(np.uint32), GRID, BITS)


def folded_key(candidate: int) -> bytes:
    """A key with the 32 bits of the word, and the word itself as its fold."""
    return candidate.to_bytes(4, "little") + bytes(28)


def our_expand(candidate: int, n: int) -> np.ndarray:
    mask = np.zeros(n, np.uint32)
    add_masks_(mask, [Mask(key=folded_key(candidate), sign=1)], 32)
    return mask.astype(np.int64)


@pytest.fixture(scope="module")
def our_keys() -> tuple[bytes, bytes]:
    keystream = Keystream(Seed.for_tests(7).value, "mask keys")
    return keystream.bytes(32), keystream.bytes(32)


# the attack


def test_attack_recovers_an_update_from_flowers_masks():
    update, (pairwise, own) = toy_update(), flower_secrets()
    view = flower_view(flower_masked(update, pairwise, own), own)
    found = recover(view, around(fold(pairwise)), flower_expand, flower_plausible)
    assert [candidate for candidate, _ in found] == [fold(pairwise)]
    assert np.abs(flower_update(found[0][1]) - update).max() <= 2 * CLIP / TARGET


def test_the_same_attack_recovers_nothing_from_our_masks(our_keys):
    pairwise, own = our_keys
    view = our_view(our_masked(toy_update(), pairwise, own), own)
    candidates = around(fold(pairwise))
    assert fold(pairwise) in candidates
    for expand in (flower_expand, our_expand):
        assert recover(view, candidates, expand, our_plausible) == []


def test_the_attack_on_our_masks_would_succeed_were_a_key_one_of_the_candidates(our_keys):
    weak, own = folded_key(fold(our_keys[0])), our_keys[1]
    update = toy_update()
    view = our_view(our_masked(update, weak, own), own)
    found = recover(view, around(fold(weak)), our_expand, our_plausible)
    assert [candidate for candidate, _ in found] == [fold(weak)]
    assert np.abs(our_update(found[0][1]) - update).max() <= GRID.step * (1 + 1e-6)


def test_whoever_knows_our_key_takes_the_mask_off(our_keys):
    pairwise, own = our_keys
    update = toy_update()
    masked = our_masked(update, pairwise, own)
    add_masks_(masked, [Mask(key=own, sign=-1), Mask(key=pairwise, sign=-1)], BITS)
    assert np.abs(our_update(masked.astype(np.int64)) - update).max() <= GRID.step * (1 + 1e-6)


# the causes


def test_expansion_of_the_attack_is_flowers_own():
    for secret in (*flower_secrets(), bytes(range(64))):
        parts = pseudo_rand_gen(secret, MODULUS, [(1,), (10, 20), (99,)])
        mask = np.concatenate([part.ravel() for part in parts])
        assert np.array_equal(flower_expand(fold(secret), 300), mask)


def test_flowers_pairwise_secrets_fold_to_28_bits():
    folds = [fold(flower_secrets()[0]) for _ in range(40)]
    ever, never = int(np.bitwise_or.reduce(folds)), int(np.bitwise_and.reduce(folds))
    assert ever & ~never == 0x7F7F7F7F
    assert ever & 0x80808080 == 0


def test_secrets_of_one_fold_share_a_mask_in_flower_and_not_here(our_keys):
    first = our_keys[0]
    second = first[4:8] + first[:4] + first[8:]
    assert fold(first) == fold(second)
    flower = [pseudo_rand_gen(secret, MODULUS, [(1000,)])[0] for secret in (first, second)]
    assert np.array_equal(*flower)
    ours = np.zeros((2, 1000), np.uint32)
    for row, secret in zip(ours, (first, second), strict=True):
        add_masks_(row, [Mask(key=secret, sign=1)], 32)
    assert np.count_nonzero(ours[0] == ours[1]) <= 1
