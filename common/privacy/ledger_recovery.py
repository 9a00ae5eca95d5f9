"""A ledger that follows a lost or damaged one: what its spend is taken to be.

Guarantees:
    - All reserves that are readable and rightly signed count, wherever they stand in the old file.
    - For each unit that may have been charged the time before counts as at least its lifetime cap,
      at least what is readable, at least what an earlier recovery assumed, and at least what any
      readable entry states that had been spent by then, charges in the site's audit log that no
      entry covers added: see `stated`. Not these charges where a lifetime cap has bounded them.
    - An entry whose signature can't be checked, or is wrong, adds to that and lowers nothing.
    - Studies that may have spent what is no longer readable take no further charge.
    - Nothing is guessed: without a lifetime cap the operator says what to assume.

Which units may have been charged: those with readable spend, an earlier assumption, a charge in the
audit log or a figure of the operator's. If none has spend or an earlier assumption that is signed
with the institution's own key, all units that the policy caps: each up to its lifetime cap.

Which deltas may be compared: that epsilon e at delta d was spent also holds at each greater delta,
and at no smaller one. So the assumption is made at the greatest delta at which any figure in it
was said; then it is at least the greatest epsilon of them. Epsilons of several studies are
added up only with their deltas added up, too (Dwork and Roth 2014, theorem 3.16).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.errors import BudgetError
from common.privacy.events import UNITS, GaussianSteps, Unit, merge
from common.privacy.ledger import Cap
from common.privacy.ledger_entries import (
    Anchor,
    Assumed,
    Carried,
    Head,
    Recover,
    Reserve,
)
from common.privacy.ledger_salvage import Proof, Readable, Salvage
from common.privacy.ledger_spend import Epsilon, pld_epsilon
from common.privacy.ledger_stated import Charged, Stated, of_lifetime, stated, uncovered

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the operator says to assume for a unit; `delta` may follow from cap or ledger."""

    epsilon: float
    delta: float | None = None


def plan_recovery(
    found: Salvage,
    *,
    reason: str,
    caps: Sequence[Cap],
    assume: Mapping[Unit, Given],
    heads: Sequence[Head],
    studies: Sequence[str],
    charges: Sequence[Charged] = (),
    epsilon: Epsilon = pld_epsilon,
) -> Recover:
    """The second entry of the new ledger; which files are kept is for the caller to add.

    Args:
        caps: of the site's policy.
        assume: the operator's figures; a lower one than cap or ledger does not count.
        heads: of the old ledger, from wherever they are known.
        studies: hashes of studies that may have spent what is not readable.
        charges: by the audit log; they add, close their studies and lower nothing.

    Raises:
        BudgetError: there is a unit for which neither a lifetime cap nor the operator says what to
            assume, or no unit at all; two units would count as spent, one of them for its cap alone
            or by an unproven entry; or what is readable has no finite epsilon.
    """
    earlier, carried = found.bodies(Recover), _carried(found)
    all_heads = _unique([*(h for e in earlier for h in e.heads), *found.heads, *heads])
    units = [unit for unit in UNITS if unit in _units(found, caps, assume, charges)]
    if not units:
        raise _unknown(UNITS[0])
    assumed = tuple(_assumed(unit, found, caps, assume, charges, epsilon) for unit in units)
    _check_usable(assumed, found, assume, charges)
    keys = [anchor.receipt.public_key for anchor in found.bodies(Anchor)]
    keys = keys or [e.counterpart for e in earlier if e.counterpart]
    return Recover(
        reason=reason,
        heads=all_heads,
        ledgers=_unique(
            [
                *(i for e in earlier for i in e.ledgers),
                *(h.ledger for h in all_heads),
                *(c.ledger for c in charges),
            ]
        ),
        carried=carried,
        assumed=assumed,
        closed=_unique([*_closed(found), *studies, *(c.study for c in charges)]),
        kept=(),
        counterpart=keys[-1] if keys else None,
    )


def _units(
    found: Salvage,
    caps: Sequence[Cap],
    assume: Mapping[Unit, Given],
    charges: Sequence[Charged],
) -> set[Unit]:
    """Those that may have been charged.

    A cap is no sign of spend where that of some unit is proven: a charge that a lifetime cap
    bounds is refused as soon as the ledger holds spend on another unit.
    """
    readable = {*assume, *_spent_units(found, Proof.NONE), *(c.unit for c in charges)}
    proven = _spent_units(found, Proof.KEY)
    return readable if proven else {*readable, *(cap.unit for cap in caps)}


def _spent_units(found: Salvage, proof: Proof) -> set[Unit]:
    earlier = found.bodies(Recover, proof)
    carried = {c.unit for e in earlier for c in e.carried}
    lost = {a.unit for e in earlier for a in e.assumed if a.epsilon > 0}
    return {*carried, *lost, *(r.unit for r in found.bodies(Reserve, proof))}


def _assumed(
    unit: Unit,
    found: Salvage,
    caps: Sequence[Cap],
    assume: Mapping[Unit, Given],
    charges: Sequence[Charged],
    epsilon: Epsilon,
) -> Assumed:
    given = [assume[unit]] if unit in assume else []
    lifetime = [c for c in caps if c.unit == unit and c.epsilon_lifetime is not None]
    figures = [g.epsilon for g in given] + [c.epsilon_lifetime or 0.0 for c in lifetime]
    if not figures:
        raise _unknown(unit)
    said = [g.delta for g in given if g.delta is not None] + [c.delta for c in lifetime]
    delta = _delta(unit, found, said, (*caps, *charges))
    spoken = _spoken(unit, found, lifetime, charges, epsilon)
    value = max(*figures, epsilon(_events(unit, found), delta), *(s.epsilon for s in spoken))
    delta = max([delta, *(s.delta for s in spoken)])
    if not (value < math.inf and delta < 1):
        raise _endless(unit, value, delta)
    return Assumed(unit=unit, epsilon=value, delta=delta)


def _spoken(
    unit: Unit,
    found: Salvage,
    lifetime: Sequence[Cap],
    charges: Sequence[Charged],
    epsilon: Epsilon,
) -> list[Stated]:
    """What is stated; by the log only where no lifetime cap is known to have bounded it."""
    entries, own = found.entries, [c for c in charges if c.unit == unit]
    spoken = stated(unit, entries, (), epsilon)
    figures = [*spoken, *(Stated(c.epsilon, c.delta) for c in own)]
    _, later = uncovered(unit, entries, own, epsilon)
    if any(_bounded(cap, entries, figures, later) for cap in lifetime):
        return spoken
    return stated(unit, entries, own, epsilon)


def _bounded(
    cap: Cap, entries: Sequence[Readable], figures: Iterable[Stated], later: Iterable[Charged]
) -> bool:
    """Whether nothing speaks against it that a cap has stood all along.

    Against it speak a figure above it, the newest reserve if it was held to a higher limit or to
    none, and a charge in a ledger before a recovery that did not know of it.
    """
    limit = cap.epsilon_lifetime or 0.0
    own = [one for one in entries if one.proof is Proof.KEY]
    begun = next((i for i, e in reversed([*enumerate(own)]) if isinstance(e.body, Recover)), None)
    present = None if begun is None else own[begun].ledger
    since = [e.body for e in own[(begun or 0) :] if isinstance(e.body, Reserve)]
    newest = [body for body in since if body.unit == cap.unit][-1:]
    held = [f.limit for body in newest for f in body.figures if f.scope == "lifetime cap"]
    return (
        not any(f.epsilon > limit and f.delta >= cap.delta for f in figures)
        and len(held) == len(newest)
        and all(one <= limit for one in held)
        and (begun is None or all(c.ledger == present for c in later))
    )


def _delta(
    unit: Unit, found: Salvage, said: Sequence[float], of_studies: Iterable[Cap | Charged]
) -> float:
    """The greatest delta at which anything was said of a unit's lifetime; else of its studies."""
    deltas = [*said, *(s.delta for one in found.entries for s in of_lifetime(unit, one.body))]
    deltas = deltas or [r.delta for r in found.bodies(Reserve, Proof.NONE) if r.unit == unit]
    deltas = deltas or [one.delta for one in of_studies if one.unit == unit]
    if not deltas:
        raise _unknown(unit, "@DELTA")
    return max(deltas)


def _events(unit: Unit, found: Salvage) -> tuple[GaussianSteps, ...]:
    """All that is readable, proven or not."""
    parts: list[Carried | Reserve] = [
        c for e in found.bodies(Recover, Proof.NONE) for c in e.carried
    ]
    parts += found.bodies(Reserve, Proof.NONE)
    return merge(event for part in parts if part.unit == unit for event in part.events)


def _check_usable(
    assumed: Sequence[Assumed],
    found: Salvage,
    assume: Mapping[Unit, Given],
    charges: Sequence[Charged],
) -> None:
    """Refuse to count spend on a second unit that nobody vouches for: it would end all charges."""
    positive = [a.unit for a in assumed if a.epsilon > 0]
    sure = {
        *_spent_units(found, Proof.OPEN),
        *(u for u, given in assume.items() if given.epsilon),
        *(c.unit for c in charges if c.epsilon),
    }
    loose = [unit for unit in positive if unit not in sure]
    if len(positive) < 2 or not loose:
        return
    named = _spent_units(found, Proof.NONE)
    grounds = [f"per {u} ({_ground(u, sure, named)})" for u in positive]
    raise BudgetError(
        f"spend would count {' and '.join(grounds)}: these do not add up, and nothing could ever "
        "be charged again",
        place="recovery",
        remedy="; or ".join(_which_file(u) if u in named else _which_cap(u) for u in loose),
    )


def _ground(unit: Unit, sure: Collection[Unit], named: Collection[Unit]) -> str:
    if unit in sure:
        return "it was charged"
    return "an entry that nobody vouches for" if unit in named else "its cap"


def _which_cap(unit: Unit) -> str:
    return (
        f"if no study on {unit} was ever charged, take its entry out of policy.budget in the site "
        "file, on purpose, and recover then"
    )


def _which_file(unit: Unit) -> str:
    return (
        f"if the entry on {unit} is not of this institution, move the file that holds it out of "
        f"the folder; if it is, say so: --assume {unit}=EPSILON, above 0"
    )


def _closed(found: Salvage) -> Iterable[str]:
    """Studies of which anything at all is readable, and those closed before."""
    for proof in (found.bodies, found.unproven):
        for earlier in proof(Recover):
            yield from (*earlier.closed, *(c.study for c in earlier.carried))
        yield from (reserve.study for reserve in proof(Reserve))


def _carried(found: Salvage) -> tuple[Carried, ...]:
    """All that is proven, merged by study."""
    readable: list[Carried | Reserve] = [c for e in found.bodies(Recover) for c in e.carried]
    parts: dict[str, list[Carried | Reserve]] = {}
    for part in (*readable, *found.bodies(Reserve)):
        parts.setdefault(part.study, []).append(part)
    return tuple(
        Carried(
            study=study,
            name=of[0].name,
            unit=of[0].unit,
            delta=of[0].delta,
            events=merge(event for part in of for event in part.events),
        )
        for study, of in parts.items()
    )


def _unique(values: Iterable[_Value]) -> tuple[_Value, ...]:
    return tuple(dict.fromkeys(values))


def _unknown(unit: Unit, more: str = "") -> BudgetError:
    return BudgetError(
        f"what was spent per {unit} is not known: the policy has no lifetime cap for it",
        place="recovery",
        remedy=f"say what to assume, rather too much: --assume {unit}=EPSILON{more}; 0 only if no "
        f"study on {unit} was ever charged",
    )


def _endless(unit: Unit, epsilon: float, delta: float) -> BudgetError:
    return BudgetError(
        f"what is readable per {unit} comes to epsilon {epsilon:g} at delta {delta:g}, expected a "
        "finite one at a delta below 1",
        place="recovery",
        remedy="look for the line that says so; if it is not of this institution, move the file "
        "that holds it out of the folder",
    )
