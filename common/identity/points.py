"""Whether 32 bytes are an Ed25519 public key that somebody can hold the private key of.

Signature libraries take any 32 bytes for a key and only fail, or worse, verify too much, later: a
key of low order accepts signatures that nobody made. Checked here once, when a roster is read.

Guarantees:
    - A key that a generator made (RFC 8032, section 5.1.5) is accepted.
    - Refused: bytes that are no point of the curve, a second encoding of a point, a point of low
      order, and a point outside the subgroup of prime order.
"""

from typing import Final

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)

_Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T with x = X / Z, y = Y / Z, x y = T / Z (RFC 8032, 5.1.4)."""

_NEUTRAL: Final = (0, 1, 1, 0)


def why_no_public_key(key: bytes) -> str | None:
    """What is wrong with a public key, in words; `None` if it is one."""
    if len(key) != 32:
        return f"{len(key)} bytes, a public key has 32"
    point = _decode(key)
    if point is None:
        return "not the encoding of a point of the curve"
    if _is_neutral(_times(8, point)):
        return "a point of low order, for which anybody can make signatures"
    if not _is_neutral(_times(_ORDER, point)):
        return "a point outside the group of keys, which no generator makes"
    return None


def _decode(key: bytes) -> _Point | None:
    """RFC 8032, section 5.1.3; `None` also for y >= p, which is a second encoding."""
    number = int.from_bytes(key, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P == -u % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if v * x * x % _P != u or (x == 0 and sign):
        return None
    x = -x % _P if x & 1 != sign else x
    return x, y, 1, x * y % _P


def _add(one: _Point, other: _Point) -> _Point:
    """The complete addition of RFC 8032, section 5.1.4: right for doubling, too."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a, b = (y1 - x1) * (y2 - x2) % _P, (y1 + x1) * (y2 + x2) % _P
    c, d = 2 * t1 * t2 * _D % _P, 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(factor: int, point: _Point) -> _Point:
    """Not in constant time: public keys are no secret."""
    total = _NEUTRAL
    while factor:
        if factor & 1:
            total = _add(total, point)
        point, factor = _add(point, point), factor >> 1
    return total


def _is_neutral(point: _Point) -> bool:
    x, y, z, _ = point
    return x % _P == 0 and (y - z) % _P == 0
