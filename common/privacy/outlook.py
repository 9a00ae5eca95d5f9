"""How much of a study still fits, at one institution, into all that bounds its charges.

Guarantees:
    - `outlook` measures what is to come as the ledger will: against the study's own target, and
      against the site's caps with the search for settings.
    - Rounds before the newest charged one are over. The newest is still to come if no vector is
      kept for any of its charges: it is charged anew when it is asked for again. Who has the vault
      says what is kept: after a crash a vector may lie there whose commit is missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import BudgetError
from common.privacy.events import GaussianSteps
from common.privacy.ledger import Cap, Charge, check_caps
from common.privacy.ledger_entries import Figure, Purpose
from common.privacy.ledger_spend import Epsilon, pld_epsilon
from common.privacy.ledger_state import LedgerState, Reserved
from common.privacy.plan import Plan, evaluation_due

Events = tuple[GaussianSteps, ...]
Kept = Callable[[Reserved], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What a study still charges.

    Attributes:
        rounds: to be trained in, in order.
        evaluations: after these rounds, noised.
        search: what the search for settings spent, if that is not charged yet.
        begun: whether a round was charged.
    """

    rounds: tuple[int, ...]
    evaluations: tuple[int, ...]
    search: Events
    begun: bool

    def of(self, plan: Plan, rounds: int) -> Events:
        """What the first so many rounds cost, with the evaluations until the next one."""
        ends = self.rounds[rounds] if rounds < len(self.rounds) else plan.rounds + 1
        due = sum(e < ends for e in self.evaluations)
        found = [plan.mechanism.steps(rounds * plan.mechanism.steps_per_round)] if rounds else []
        return (*found, plan.counts.times(due)) if plan.counts and due else tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How the rest of a study stands to the limits.

    Attributes:
        remaining: rounds still to come.
        fitting: how many of them fit, with their evaluations.
        figures: of all limits, where the whole rest fits; empty if nothing is left.
        why: figures and remedy of what stands against the rest; empty if it fits.
        begun: whether anything is charged already.
    """

    remaining: int
    fitting: int
    figures: tuple[Figure, ...] = ()
    why: str = ""
    begun: bool = False


def committed(reserved: Reserved) -> bool:
    """Whether the ledger says that a vector was stored."""
    return reserved.vector is not None


def remaining(
    study: Study, plan: Plan, state: LedgerState | None, is_kept: Kept = committed
) -> Remaining:
    """What a study still charges by a ledger: rounds, noised evaluations, its search once."""
    found = [] if state is None else list(state.reserves.values())
    own = [r for r in found if r.body.study == study_hash(study)]
    charged: dict[Purpose, set[int]] = {"train": set(), "evaluate": set(), "search": set()}
    kept: dict[Purpose, set[int]] = {"train": set(), "evaluate": set(), "search": set()}
    for reserved in own:
        charged[reserved.body.purpose].add(reserved.body.round)
        if is_kept(reserved):
            kept[reserved.body.purpose].add(reserved.body.round)
    newest = max(charged["train"] | charged["evaluate"], default=0)
    trained = newest in kept["train"] or newest in charged["evaluate"]
    rounds = range(1, plan.rounds + 1)
    due = (r for r in rounds if r >= newest and evaluation_due(study, r))
    return Remaining(
        rounds=tuple(r for r in rounds if r > newest or (r == newest and not trained)),
        evaluations=tuple(r for r in due if r not in kept["evaluate"] and plan.counts is not None),
        search=() if charged["search"] else plan.search_events,
        begun=newest > 0,
    )


def outlook(
    study: Study,
    plan: Plan,
    state: LedgerState | None,
    caps: Sequence[Cap],
    is_kept: Kept = committed,
    epsilon: Epsilon = pld_epsilon,
) -> Outlook:
    """How many of the rounds to come fit.

    Args:
        is_kept: whether the vector of a reserve is there to be sent again.
    """
    rest = remaining(study, plan, state, is_kept)
    asked = _charge(study, plan)

    def check(rounds: int) -> tuple[Figure, ...]:
        events = rest.of(plan, rounds)
        figures: tuple[Figure, ...] = ()
        if events:
            figures = check_caps(state, caps, replace(asked, events=events), epsilon)
        if rest.search:
            both = replace(asked, events=(*events, *rest.search), purpose="search", round=0)
            figures = (*figures[:1], *check_caps(state, caps, both, epsilon)[1:])
        return figures

    whole = len(rest.rounds)
    try:
        return Outlook(remaining=whole, fitting=whole, figures=check(whole), begun=rest.begun)
    except BudgetError as error:
        why = f"{error.message}; {error.remedy}"
    fitting = _most(whole, check)
    return Outlook(remaining=whole, fitting=fitting, why=why, begun=rest.begun)


def in_words(found: Outlook) -> str:
    """What no longer fits, with the figures; empty if all does."""
    if not found.why:
        return ""
    short = found.remaining - found.fitting
    if not short:
        return f"the last evaluation no longer fits: {found.why}"
    which = "round no longer fits" if short == 1 else f"{short} rounds no longer fit"
    return f"the last {which}, of {found.remaining} to come: {found.why}"


def _most(whole: int, check: Callable[[int], object]) -> int:
    """The largest number below `whole` that `check` takes; 0 if none."""
    fits, fails = 0, whole
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            check(middle)
            fits = middle
        except BudgetError:
            fails = middle
    return fits


def _charge(study: Study, plan: Plan) -> Charge:
    privacy = study.local_privacy
    asked = 0.0 if privacy is None or privacy.epsilon is None else privacy.epsilon
    return Charge(
        study=study_hash(study),
        name=study.study,
        round=plan.rounds,
        purpose="train",
        request="0" * 64,
        unit=plan.mechanism.unit,
        dataset="all documents",
        events=(),
        delta=plan.delta,
        target=max(plan.epsilon, asked),
    )
