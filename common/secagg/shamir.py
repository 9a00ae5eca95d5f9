"""Shamir's secret sharing (1979, CACM 22) of 32 bytes over the prime field of `2^256 + 297`.

A secret is the value at zero of a polynomial of degree `t - 1` whose other coefficients are
uniform; holder `i` of the roster gets its value at `x = i + 1`.

Guarantees:
    * Any `t` shares give the secret; fewer are independent of it.
    * Every secret of 32 bytes can be shared: the prime is above `2^256`.
    * Constant sizes: a share is `SHARE_BYTES`, whatever its value.
    * A coefficient is 64 secret bytes modulo the prime, uniform to `2^-255`.

Not in constant time: Python's integers are not. Whoever can time a step of the institution's own
machine is inside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from common.errors import ConfigError
from common.secagg.errors import ShareError

PRIME: Final = 2**256 + 297
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33
_WIDE_BYTES: Final = 64


def deal(
    secret: bytes, threshold: int, holders: Sequence[int], random: Callable[[int], bytes]
) -> dict[int, bytes]:
    """Shares of a secret by holder.

    Args:
        secret: 32 bytes.
        threshold: how many shares open it.
        holders: roster indices, distinct.
        random: secret uniform bytes; is asked for 64 at a time, `threshold - 1` times.

    Raises:
        ConfigError: another size, or fewer holders than the threshold.
    """
    if len(secret) != SECRET_BYTES:
        raise ConfigError(f"a shared secret is {SECRET_BYTES} bytes")
    if not 1 <= threshold <= len(holders) or len(set(holders)) != len(holders):
        raise ConfigError(f"a threshold of {threshold} for {len(holders)} holders")
    wide = [int.from_bytes(random(_WIDE_BYTES), "big") % PRIME for _ in range(threshold - 1)]
    coefficients = [*wide, int.from_bytes(secret, "big")]
    return {holder: _value(coefficients, holder + 1) for holder in holders}


def _value(coefficients: Sequence[int], x: int) -> bytes:
    """Horner's rule, the highest power first."""
    total = 0
    for coefficient in coefficients:
        total = (total * x + coefficient) % PRIME
    return total.to_bytes(SHARE_BYTES, "big")


def require_share(share: bytes, peer: str) -> None:
    """Refuse what is not a field element.

    Raises:
        ShareError: another size, or not below the prime.
    """
    if len(share) != SHARE_BYTES or int.from_bytes(share, "big") >= PRIME:
        raise ShareError("a share that is not in the field", peer=peer)


class Opener:
    """Opens secrets; the coefficients of a set of holders are computed once.

    Args:
        threshold: how many shares open a secret.
    """

    def __init__(self, threshold: int):
        self._threshold = threshold
        self._weights: dict[tuple[int, ...], list[int]] = {}

    def open(self, shares: Mapping[int, bytes]) -> bytes | None:
        """The secret of the first `threshold` holders' shares; `None` if it is not of 32 bytes.

        Raises:
            ConfigError: fewer shares than the threshold.
        """
        holders = tuple(sorted(shares))[: self._threshold]
        if len(holders) < self._threshold:
            raise ConfigError(f"{len(holders)} shares, expected {self._threshold}")
        if holders not in self._weights:
            self._weights[holders] = lagrange_at_zero([holder + 1 for holder in holders])
        weights = self._weights[holders]
        values = (int.from_bytes(shares[holder], "big") for holder in holders)
        secret = sum(w * y for w, y in zip(weights, values, strict=True)) % PRIME
        return None if secret >> (8 * SECRET_BYTES) else secret.to_bytes(SECRET_BYTES, "big")


def lagrange_at_zero(points: Sequence[int]) -> list[int]:
    """Weights with which values at distinct points sum to the value at zero."""
    whole = 1
    for x in points:
        whole = whole * -x % PRIME
    below = [_differences(x, points) * -x % PRIME for x in points]
    return [whole * inverse % PRIME for inverse in _inverses(below)]


def _differences(x: int, points: Sequence[int]) -> int:
    product = 1
    for other in points:
        if other != x:
            product = product * (x - other) % PRIME
    return product


def _inverses(numbers: Sequence[int]) -> list[int]:
    """All inverses for the price of one (Montgomery 1987, Math. Comp. 48, section 10.3.1)."""
    before = [1]
    for number in numbers:
        before.append(before[-1] * number % PRIME)
    inverse = pow(before[-1], -1, PRIME)
    found = []
    for number, product in zip(reversed(numbers), reversed(before[:-1]), strict=True):
        found.append(inverse * product % PRIME)
        inverse = inverse * number % PRIME
    return found[::-1]
