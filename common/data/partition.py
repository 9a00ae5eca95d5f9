"""Spread one corpus over simulated institutions.

Guarantees:
    1. Every document lands at exactly one institution, and all documents of one unit
       (`Document.unit_id`: the patient if known, else the document) at the same one.
    2. No institution is left empty; where that cannot be had, `DataError`.
    3. The outcome depends on the documents as a set, the names, and the options; never on the
       documents' order. Within an institution documents keep the order they came in.

Kinds:
    document   units in the order of a keyed hash of their id, dealt round in turn: unit counts
               differ by at most one.
    iid        units in a shuffled order, each to the institution with the fewest documents so
               far: document counts differ by at most the largest unit.
    dirichlet  label skew: each class of units is spread by proportions ~ Dirichlet(alpha), by
               largest remainder. A unit's class is its dominant label (most mentions, ties to the
               alphabetically first); units without entities are a class of their own. If all
               other units share one dominant label, their class is instead the tercile of their
               entity density (mentions per character). An institution left empty takes one unit
               from the institution that holds most (the first such), repeatedly.
    size       units in a shuffled order, cut by the given proportions of units, by largest
               remainder. A proportion too small for one unit is refused.
"""

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from common.data.draws import Draws, digest
from common.data.records import Document
from common.errors import DataError

Kind = Literal["document", "iid", "dirichlet", "size"]
Units = Mapping[str, Sequence[Document]]
Shares = list[list[str]]
"""Unit ids, one list per institution."""

_ALPHA_RANGE = (1e-3, 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOptions:
    """How to spread units over institutions.

    Attributes:
        kind: see the module.
        seed: of every draw and hash.
        alpha: for `dirichlet` only: small means strong skew, from 0.001 to 1e6.
        proportions: for `size` only: one per institution, each above 0, together 1.

    Raises:
        DataError: an option out of range, missing, or given to a kind that has no use for it.
    """

    kind: Kind
    seed: int
    alpha: float | None = None
    proportions: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise DataError(f"unknown partition {self.kind!r}", remedy=f"one of {list(_KINDS)}")
        self._check_use("alpha", self.alpha, "dirichlet")
        self._check_use("proportions", self.proportions, "size")
        low, high = _ALPHA_RANGE
        if self.alpha is not None and not low <= self.alpha <= high:
            raise DataError(
                f"alpha must be from {low} to {high}, got {self.alpha}",
                remedy="0.1 is strong skew, 1 moderate, 100 nearly none",
            )
        if self.proportions is not None:
            _check_proportions(self.proportions)

    def _check_use(self, name: str, value: object, kind: Kind) -> None:
        if (value is not None) != (self.kind == kind):
            problem = "is missing" if value is None else "has no use"
            remedy = "give" if value is None else "remove"
            raise DataError(
                f"{name} {problem} in a partition of kind {self.kind!r}",
                remedy=f"{remedy} {name}, or change the kind",
            )


def partition(
    documents: Iterable[Document], names: Sequence[str], options: PartitionOptions
) -> dict[str, tuple[Document, ...]]:
    """Spread `documents` over the institutions `names`.

    Raises:
        DataError: names or document ids that repeat, fewer units than institutions, as many
            proportions as institutions not given, an institution left empty by `size`.
    """
    documents = tuple(documents)
    _check_names(names)
    units = _units(documents)
    if len(units) < len(names):
        raise DataError(
            f"{len(units)} patients or documents cannot fill {len(names)} institutions",
            remedy="name fewer institutions or use more documents",
        )
    shares = _KINDS[options.kind](units, len(names), options)
    _check_filled(shares, names)
    home = {unit: name for name, share in zip(names, shares, strict=True) for unit in share}
    return {name: tuple(d for d in documents if home[d.unit_id] == name) for name in names}


def _units(documents: Sequence[Document]) -> dict[str, list[Document]]:
    """The documents by unit, sorted by the unit's id."""
    repeated = [name for name, n in Counter(d.doc_id for d in documents).items() if n > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} document ids stand more than once",
            place=repeated[0],
            remedy="give every document its own id",
        )
    units: dict[str, list[Document]] = {}
    for document in documents:
        units.setdefault(document.unit_id, []).append(document)
    return dict(sorted(units.items()))


def _by_document(units: Units, count: int, options: PartitionOptions) -> Shares:
    key = digest("fedner/partition/document", options.seed)
    ranked = sorted(units, key=lambda unit: (_tag(key, unit), unit))
    return [ranked[start::count] for start in range(count)]


def _tag(key: bytes, unit_id: str) -> bytes:
    return hmac.new(key, unit_id.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _by_iid(units: Units, count: int, options: PartitionOptions) -> Shares:
    shares: Shares = [[] for _ in range(count)]
    sizes = [0] * count
    for unit in _shuffled(units, options.seed, "iid"):
        smallest = sizes.index(min(sizes))
        shares[smallest].append(unit)
        sizes[smallest] += len(units[unit])
    return shares


def _by_size(units: Units, count: int, options: PartitionOptions) -> Shares:
    proportions = options.proportions or ()
    if len(proportions) != count:
        raise DataError(
            f"{len(proportions)} proportions for {count} institutions",
            remedy="give one proportion per institution",
        )
    return _cut(_shuffled(units, options.seed, "size"), proportions)


def _by_dirichlet(units: Units, count: int, options: PartitionOptions) -> Shares:
    shares: Shares = [[] for _ in range(count)]
    for name, members in sorted(_classes(units).items()):
        draws = Draws(options.seed, "partition", "dirichlet", name)
        proportions = draws.dirichlet(options.alpha or 1.0, count)
        for share, part in zip(shares, _cut(draws.shuffled(members), proportions), strict=True):
            share.extend(part)
    _fill_empty(shares)
    return shares


def _fill_empty(shares: Shares) -> None:
    """Move one unit at a time from the largest share to an empty one."""
    for share in shares:
        if not share:
            share.append(max(shares, key=len).pop())


def _classes(units: Units) -> dict[str, list[str]]:
    """Unit ids by class, each list sorted; see `dirichlet` in the module."""
    classes: dict[str, list[str]] = {}
    for unit, documents in units.items():
        classes.setdefault(_dominant_label(documents), []).append(unit)
    labelled = [name for name in classes if name]
    if len(labelled) == 1:
        classes.update(_terciles(units, classes.pop(labelled[0])))
    return classes


def _dominant_label(documents: Sequence[Document]) -> str:
    """The label with most mentions, ties to the alphabetically first; "" without entities."""
    counts = Counter(entity.label for d in documents for entity in d.entities)
    return min(counts, key=lambda label: (-counts[label], label), default="")


def _terciles(units: Units, members: Sequence[str]) -> dict[str, list[str]]:
    ranked = sorted(members, key=lambda unit: (_density(units[unit]), unit))
    classes: dict[str, list[str]] = {}
    for rank, unit in enumerate(ranked):
        classes.setdefault(f"tercile {3 * rank // len(ranked) + 1}", []).append(unit)
    return classes


def _density(documents: Sequence[Document]) -> float:
    """Mentions per character; a unit with a mention has text."""
    return sum(len(d.entities) for d in documents) / sum(len(d.text) for d in documents)


def _cut(units: Sequence[str], proportions: Sequence[float]) -> Shares:
    """Consecutive pieces of `units`, sized by largest remainder, ties to the first."""
    exact = [share * len(units) for share in proportions]
    sizes = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (round(sizes[i] - exact[i], 9), i))
    for index in by_remainder[: len(units) - sum(sizes)]:
        sizes[index] += 1
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [list(units[start : start + n]) for start, n in zip(starts, sizes, strict=True)]


def _shuffled(units: Units, seed: int, kind: Kind) -> list[str]:
    return Draws(seed, "partition", kind).shuffled(list(units))


_KINDS = {
    "document": _by_document,
    "iid": _by_iid,
    "dirichlet": _by_dirichlet,
    "size": _by_size,
}


def _check_proportions(proportions: Sequence[float]) -> None:
    if not proportions or not all(math.isfinite(p) and p > 0 for p in proportions):
        raise DataError(
            f"proportions must be above 0, got {proportions}",
            remedy="leave out the institution or give it a positive proportion",
        )
    if not math.isclose(sum(proportions), 1.0, abs_tol=1e-6):
        raise DataError(
            f"proportions must sum to 1, got {sum(proportions)}",
            remedy="divide each by their sum",
        )


def _check_names(names: Sequence[str]) -> None:
    if not names or not all(names) or len(set(names)) != len(names):
        raise DataError(
            f"institutions need different, non-empty names, got {list(names)}",
            remedy="name each institution once",
        )


def _check_filled(shares: Shares, names: Sequence[str]) -> None:
    for name, share in zip(names, shares, strict=True):
        if not share:
            raise DataError(
                "the proportion is too small for one patient or document",
                place=name,
                remedy="raise this institution's proportion or use more documents",
            )
