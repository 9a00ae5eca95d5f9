"""Spend and caps of one institution: what a reserve must fit into before anything is written.

Guarantees:
    - Spend is the sum of all reserves, committed or not. Nothing lowers it.
    - `check_caps` refuses a charge unless the composed epsilon with it is at most every limit:
      the study's own target at the study's delta, and the caps of its unit at theirs.
    - What no cap can measure is refused where there are caps: a unit without a cap, a unit finer
      than a capped one (a patient's records add up unseen), a lifetime that mixes units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Final

from common.errors import BudgetError
from common.privacy.events import UNITS, GaussianSteps, Unit, merge
from common.privacy.ledger_entries import Figure, Purpose, Reserve, Scope
from common.privacy.ledger_spend import (
    PURPOSES,
    Epsilon,
    EpsilonWith,
    assumed,
    lifetime_epsilon,
    pld_epsilon,
    spent,
)
from common.privacy.ledger_state import LedgerState

_NAMES: Final = {
    "study": "study's own target",
    "cap per study": "site's cap per study",
    "lifetime cap": "site's lifetime cap",
}

_REMEDIES: Final = {
    "study": "the study is over for this institution, and goes on without it; a longer one is "
    "another study, agreed on by all",
    "cap per study": "the study goes on without this institution, unless a person there raises "
    "epsilon_per_study in the site's policy.budget on purpose",
    "lifetime cap": "the study goes on without this institution, unless a person there raises "
    "epsilon_lifetime (after a recovery also delta) in the site's policy.budget on purpose",
}

_MIXED: Final = (
    "with spend on two units it takes no more charges at all; data that no study has used yet may "
    "take part as an institution of another name, with a `state` of its own"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What an institution allows for one unit.

    Attributes:
        delta: at which both are read.
        epsilon_lifetime: on all studies together; `None` is no such cap.
        epsilon_per_study: on each study by itself; `None` is no such cap.
    """

    unit: Unit
    delta: float
    epsilon_lifetime: float | None = None
    epsilon_per_study: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a study asks for, before its data is touched.

    Attributes:
        study, name: the study's hash and its name.
        round: from 1; 0 for a search for settings.
        request: SHA-256, in hexadecimal, of the model bytes to be trained or evaluated.
        unit, delta, target: of the study; `target` is its own epsilon, for training and noised
            evaluation together.
        dataset: name of the institution's data set.
    """

    study: str
    name: str
    round: int
    purpose: Purpose
    request: str
    unit: Unit
    dataset: str
    events: tuple[GaussianSteps, ...]
    delta: float
    target: float


def caps_of(budget: Iterable[object]) -> tuple[Cap, ...]:
    """Caps from the entries of a site's `policy.budget`."""
    names = ("unit", "delta", "epsilon_lifetime", "epsilon_per_study")
    return tuple(Cap(**{name: getattr(entry, name) for name in names}) for entry in budget)


def check_caps(
    state: LedgerState | None,
    caps: Sequence[Cap],
    proposed: Charge,
    epsilon: Epsilon = pld_epsilon,
) -> tuple[Figure, ...]:
    """How a charge stands to every limit it must fit into: the study's own first.

    Raises:
        BudgetError: it fits not; with the figures. Nothing has been written.
    """
    if not proposed.events:
        raise _refused(proposed, "asks for no event at all", "charge what it will spend")
    _check_study_is_open(state, proposed)
    _check_unit_is_capped(caps, proposed)
    _check_lifetime_is_known(state, caps, proposed)
    return tuple(limit.check(proposed) for limit in _limits(state, caps, proposed, epsilon))


def make_reserve(
    state: LedgerState | None,
    caps: Sequence[Cap],
    proposed: Charge,
    epsilon: Epsilon = pld_epsilon,
) -> Reserve:
    """The reserve of a charge that fits.

    Raises:
        BudgetError: it does not, or it is not a well-formed charge.
    """
    figures = check_caps(state, caps, proposed, epsilon)
    c = proposed
    earlier = state.attempts(c.study, c.round, c.purpose, c.request) if state else ()
    try:
        return Reserve(
            study=c.study, name=c.name, round=c.round, purpose=c.purpose, request=c.request,
            attempt=1 + len(earlier), unit=c.unit, dataset=c.dataset, events=c.events,
            delta=c.delta, target=c.target, epsilon=figures[0].after, figures=figures,
        )  # fmt: skip
    except ValueError as error:
        text = str(error).replace("\n", "; ")
        raise _refused(proposed, f"is malformed: {text}", "a fault of fedner's") from None


def charge_of(body: Reserve) -> Charge:
    """What a reserve was asked for."""
    return Charge(**{one.name: getattr(body, one.name) for one in fields(Charge)})


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit: epsilon as a function of what is asked, and what it may at most be."""

    scope: Scope
    unit: Unit
    delta: float
    value: float
    epsilon_with: EpsilonWith

    def check(self, proposed: Charge) -> Figure:
        before, after = self.epsilon_with(()), self.epsilon_with(proposed.events)
        if not after <= self.value:
            raise self._over(proposed, before, after)
        return Figure(
            scope=self.scope, unit=self.unit, delta=self.delta,
            before=before, after=after, limit=self.value,
        )  # fmt: skip

    def _over(self, proposed: Charge, before: float, after: float) -> BudgetError:
        asked = " and ".join(
            f"{e.steps} steps of rate {e.sampling_rate:g} and noise {e.noise_multiplier:g}"
            for e in proposed.events
        )
        return _refused(
            proposed,
            f"asks {asked}: epsilon would be {after:.4f}, over the {_NAMES[self.scope]} of "
            f"{self.value:g} per {self.unit} at delta {self.delta:g}; {before:.4f} is spent"
            f"{self._left(proposed)}",
            _REMEDIES[self.scope],
        )

    def _left(self, proposed: Charge) -> str:
        """How many steps of the event would still fit."""
        if len(proposed.events) != 1:
            return ""
        event, fits, fails = proposed.events[0], 0, proposed.events[0].steps
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.epsilon_with((replace(event, steps=middle),)) <= self.value:
                fits = middle
            else:
                fails = middle
        return f", {fits} more such steps would fit"


def _limits(
    state: LedgerState | None, caps: Sequence[Cap], proposed: Charge, epsilon: Epsilon
) -> list[_Limit]:
    """The study's own target, then the caps of its unit."""
    unit, study, own = proposed.unit, proposed.study, proposed.purpose != "search"

    def of_study(delta: float, purposes: Sequence[Purpose] = PURPOSES) -> EpsilonWith:
        before = spent(state, unit=unit, study=study, purposes=purposes)
        return lambda more: epsilon(merge((*before, *more)), delta)

    released = of_study(proposed.delta, ("train", "evaluate"))
    target = released if own else lambda _more: released(())
    limits = [_Limit("study", unit, proposed.delta, proposed.target, target)]
    for cap in (c for c in caps if c.unit == unit):
        if (value := cap.epsilon_per_study) is not None:
            limits.append(_Limit("cap per study", unit, cap.delta, value, of_study(cap.delta)))
        if (value := cap.epsilon_lifetime) is not None:
            whole = partial(lifetime_epsilon, state, unit, cap.delta, epsilon=epsilon)
            limits.append(_Limit("lifetime cap", unit, cap.delta, value, whole))
    return limits


def _check_study_is_open(state: LedgerState | None, proposed: Charge) -> None:
    if state and state.recovered and proposed.study in state.recovered.closed:
        raise _refused(
            proposed,
            "the study ran before the ledger was lost, and what it spent is not known",
            "agree on a new study, with its own file and hash",
        )


def _check_unit_is_capped(caps: Sequence[Cap], proposed: Charge) -> None:
    if not caps:
        return
    rank, unit = UNITS.index, proposed.unit
    if coarser := [cap for cap in caps if rank(cap.unit) > rank(unit)]:
        raise _refused(
            proposed,
            f"protects one {unit}, but the site caps the loss per {coarser[-1].unit} "
            f"({_told(coarser[-1])}), which an epsilon per {unit} does not bound",
            f"agree on a study on unit {coarser[-1].unit}, or remove that cap on purpose",
        )
    if all(cap.unit != unit for cap in caps):
        raise _refused(
            proposed,
            f"protects one {unit}, and the site has caps for another unit only ({_told(caps[0])})",
            f"add a cap for unit {unit} to the site's policy.budget",
        )


def _check_lifetime_is_known(
    state: LedgerState | None, caps: Sequence[Cap], proposed: Charge
) -> None:
    """A lifetime cap needs a ledger whose whole spend is in its unit, and a recovery needs one.

    That a recovery assumed epsilon 0 for a unit is no spend on it.
    """
    if state is None:
        return
    lifetime = [c for c in caps if c.unit == proposed.unit and c.epsilon_lifetime is not None]
    others = [u for u in UNITS if u != proposed.unit and _is_spent(state, u)]
    if state.recovered and others:
        mixed = len(others) > 1 or _is_spent(state, proposed.unit)
        raise _refused(
            proposed,
            f"this ledger follows a lost one and holds spend per {' and '.join(others)}: no cap "
            f"can take that into account per {proposed.unit}",
            _MIXED if mixed else f"agree on a study on unit {others[0]}, under a lifetime cap",
        )
    if lifetime and others:
        raise _refused(
            proposed,
            f"the lifetime cap per {proposed.unit} ({_told(lifetime[0])}) can't be kept: the "
            f"ledger holds spend per {others[0]}, and the two do not add up",
            "cap this unit per study only, and say so to whoever relies on the lifetime cap",
        )
    if state.recovered and not lifetime:
        raise _refused(
            proposed,
            "this ledger follows a lost one, whose spend only a lifetime cap can take into account",
            f"add epsilon_lifetime for unit {proposed.unit} to the site's policy.budget, above "
            "what was assumed: `fedner budget show` has the figures",
        )


def _is_spent(state: LedgerState, unit: Unit) -> bool:
    lost = assumed(state, unit)
    return bool(spent(state, unit=unit)) or (lost is not None and lost.epsilon > 0)


def _told(cap: Cap) -> str:
    parts = [("lifetime", cap.epsilon_lifetime), ("per study", cap.epsilon_per_study)]
    said = [f"epsilon {value:g} {name}" for name, value in parts if value is not None]
    return f"{' and '.join(said)} at delta {cap.delta:g}"


def _refused(proposed: Charge, why: str, remedy: str) -> BudgetError:
    place = f"study {proposed.name}, {proposed.purpose} of round {proposed.round}"
    return BudgetError(why, place=place, remedy=remedy)
