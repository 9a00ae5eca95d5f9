"""Shares open at the threshold, below it they say nothing, and their sizes are constant."""

import itertools

import pytest

from common.errors import ConfigError
from common.secagg.errors import ShareError
from common.secagg.shamir import (
    PRIME,
    SECRET_BYTES,
    SHARE_BYTES,
    Opener,
    deal,
    lagrange_at_zero,
    require_share,
)
from tests.secagg_parties import bytes_of, seed

SECRET = seed("secret")


def drawn(name):
    """A source of bytes, and how many it was asked for."""
    asked = []

    def random(n):
        asked.append(n)
        return bytes_of(n, name, len(asked))

    return random, asked


def dealt(secret=SECRET, threshold=3, holders=range(5), name="a"):
    return deal(secret, threshold, list(holders), drawn(name)[0])


def test_modulus_is_a_prime_above_every_secret():
    assert PRIME == 2**256 + 297
    assert PRIME > 2 ** (8 * SECRET_BYTES) - 1
    # Fermat to several bases, and no smaller candidate that Miller and Rabin would let pass
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        powers = [pow(base, odd << i, PRIME) for i in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers


@pytest.mark.parametrize("secret", [SECRET, bytes(32), b"\xff" * 32])
def test_any_threshold_many_shares_open_the_secret(secret):
    shares = dealt(secret)
    for holders in itertools.combinations(range(5), 3):
        assert Opener(3).open({i: shares[i] for i in holders}) == secret
    assert Opener(3).open(shares) == secret


def test_fewer_shares_fit_every_secret():
    shares = dealt()
    values = {i: int.from_bytes(shares[i], "big") for i in (0, 3)}
    for other in (0, 1, PRIME - 1):
        # the polynomial through these two shares and another secret
        points = [0, 1, 4]
        at = {0: other, 1: values[0], 4: values[3]}
        assert interpolated(points, at, 1) == values[0]
        assert interpolated(points, at, 0) == other


def interpolated(points, at, x):
    total = 0
    for i in points:
        term = at[i]
        for j in points:
            if j != i:
                term = term * (x - j) * pow(i - j, -1, PRIME) % PRIME
        total += term
    return total % PRIME


def test_share_is_the_polynomial_at_the_index_plus_one():
    random, asked = drawn("a")
    shares = deal(SECRET, 2, [0, 7], random)
    slope = int.from_bytes(bytes_of(64, "a", 1), "big") % PRIME
    for holder in (0, 7):
        expected = (int.from_bytes(SECRET, "big") + slope * (holder + 1)) % PRIME
        assert int.from_bytes(shares[holder], "big") == expected
    assert asked == [64]


def test_each_secret_takes_threshold_less_one_coefficients_of_64_bytes():
    random, asked = drawn("a")
    deal(SECRET, 4, [0, 1, 2, 3], random)
    assert asked == [64, 64, 64]


def test_sizes_are_constant():
    assert {len(share) for share in dealt(bytes(32)).values()} == {SHARE_BYTES}


def test_wrong_share_gives_another_secret():
    shares = dealt()
    shares[1] = shares[2]
    assert Opener(3).open(shares) != SECRET


def test_sum_beyond_32_bytes_is_no_secret():
    # a secret of 2^256 itself, which no dealer has
    shares = {i: (2**256 % PRIME).to_bytes(SHARE_BYTES, "big") for i in range(1)}
    assert Opener(1).open(shares) is None


def test_coefficients_of_a_set_of_holders_are_computed_once(monkeypatch):
    opener, shares = Opener(3), dealt()
    opener.open(shares)
    monkeypatch.setattr("common.secagg.shamir.lagrange_at_zero", None)
    assert opener.open(shares) == SECRET


def test_weights_sum_a_constant_to_itself_and_a_line_to_its_start():
    points = [1, 5, 6, 1000]
    weights = lagrange_at_zero(points)
    assert sum(weights) % PRIME == 1
    assert sum(w * (7 + 3 * x) for w, x in zip(weights, points, strict=True)) % PRIME == 7


def test_impossible_deals_are_refused():
    random = drawn("a")[0]
    for secret, threshold, holders in ((bytes(31), 2, [0, 1]), (SECRET, 3, [0, 1]),
                                       (SECRET, 0, [0]), (SECRET, 2, [0, 0])):  # fmt: skip
        with pytest.raises(ConfigError):
            deal(secret, threshold, holders, random)
    with pytest.raises(ConfigError, match="2 shares, expected 3"):
        Opener(3).open({i: s for i, s in dealt().items() if i < 2})


def test_share_outside_the_field_is_refused():
    require_share((PRIME - 1).to_bytes(SHARE_BYTES, "big"), "north")
    for share in (PRIME.to_bytes(SHARE_BYTES, "big"), bytes(32), bytes(34), b"\xff" * 33):
        with pytest.raises(ShareError, match="north"):
            require_share(share, "north")
