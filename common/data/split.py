"""Split documents into sides, such as train and test, by a keyed hash of their unit.

Guarantees:
    1. Every document lands on exactly one side, and all documents of one unit
       (`Document.unit_id`: the patient if known, else the document) on the same side.
    2. A unit's side depends on the key, the fractions and the unit's id only: adding or removing
       other documents moves nothing.
    3. Without the key, nobody who knows a unit's id can tell its side.

Sizes are met in expectation: a unit falls on a side with that side's fraction as probability.
Splitting a side again needs another key; with the same key the two splits are not independent.
"""

import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping

from common.data.records import Document
from common.errors import DataError

_USE = b"fedner/split/v1\0"
_RANGE = 2**64


def split(
    documents: Iterable[Document], fractions: Mapping[str, float], key: bytes
) -> dict[str, tuple[Document, ...]]:
    """Split `documents` over the sides named in `fractions`, keeping their order.

    Args:
        documents: the documents, in any order.
        fractions: side to fraction, each above 0, together 1. Their order matters.
        key: the secret of the split; the same key gives the same split.

    Raises:
        DataError: bad fractions, an empty key, a side that ends empty.
    """
    _check_fractions(fractions)
    if not key:
        raise DataError("the split's key is empty", remedy="give a random key of 16 bytes or more")
    limits = _limits(fractions)
    sides: dict[str, list[Document]] = {side: [] for side in fractions}
    for document in documents:
        sides[_side(document.unit_id, limits, key)].append(document)
    _check_filled(sides)
    return {side: tuple(members) for side, members in sides.items()}


def _side(unit_id: str, limits: Mapping[str, int], key: bytes) -> str:
    tag = hmac.new(key, _USE + unit_id.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    place = int.from_bytes(tag[:8], "big")
    return next(side for side, limit in limits.items() if place < limit)


def _limits(fractions: Mapping[str, float]) -> dict[str, int]:
    """Each side's upper limit on the hash, ascending; the last one is the hash's whole range."""
    limits: dict[str, int] = {}
    total = 0.0
    for side, fraction in fractions.items():
        total += fraction
        limits[side] = round(total * _RANGE)
    limits[side] = _RANGE
    return limits


def _check_fractions(fractions: Mapping[str, float]) -> None:
    if not fractions:
        raise DataError("a split needs at least one side", remedy="name the sides, e.g. train")
    for side, fraction in fractions.items():
        if not (math.isfinite(fraction) and fraction > 0):
            raise DataError(
                f"the fraction must be above 0, got {fraction}",
                place=side,
                remedy="leave the side out or give it a positive fraction",
            )
    if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
        raise DataError(
            f"the fractions must sum to 1, got {sum(fractions.values())}",
            remedy="e.g. train: 0.8, test: 0.2",
        )


def _check_filled(sides: Mapping[str, list[Document]]) -> None:
    for side, members in sides.items():
        if not members:
            raise DataError(
                f"no document falls on this side (others: {sum(map(len, sides.values()))})",
                place=side,
                remedy="use more patients or documents, a larger fraction, or another key",
            )
