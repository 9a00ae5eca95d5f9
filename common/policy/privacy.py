"""What a policy says of a study's privacy: unit, noise, and what it may cost."""

from collections.abc import Iterator

from common.config.privacy import LocalPrivacy
from common.config.site import Budget, Policy
from common.config.study import Study
from common.errors import BudgetError
from common.policy.terms import Code, Facts, Refused, no
from common.privacy.events import UNITS, Unit
from common.privacy.plan import Plan, plan_of


def on_privacy(study: Study, policy: Policy, institution: str) -> Iterator[Refused]:
    """What the study's own settings allow or not."""
    if study.local_privacy is None:
        yield from _without_privacy(policy)
        return
    yield from _weaknesses(study.local_privacy, policy)
    yield from _units(study.local_privacy.unit, policy)
    if institution in study.federation.institutions:
        yield from _strength(study, study.local_privacy, policy, institution)


def _without_privacy(policy: Policy) -> Iterator[Refused]:
    none = "the study has `privacy: none`"
    if not policy.accept_privacy_none:
        yield no(Code.PRIVACY_NONE, f"{none}; the site does not `accept_privacy_none: true`")
    elif policy.budget:
        yield no(Code.BUDGET, f"{none}, which no epsilon bounds; the site has a `budget`")
    elif policy.min_noise_multiplier is not None:
        yield no(Code.NOISE, f"{none}; the site has a `min_noise_multiplier`")


def _weaknesses(privacy: LocalPrivacy, policy: Policy) -> Iterator[Refused]:
    if _finer(privacy.unit, policy.minimum_unit):
        yield no(
            Code.UNIT,
            f"the study protects each {privacy.unit}; the site's `minimum_unit` is "
            f"{policy.minimum_unit}",
        )
    if privacy.evaluation == "exact" and not policy.accept_exact_evaluation:
        yield no(
            Code.EVALUATION,
            "the study has `evaluation: exact`, which epsilon does not cover; the site does not "
            "`accept_exact_evaluation: true`",
        )
    if privacy.insecure_seed is not None and not policy.accept_insecure_seed:
        yield no(
            Code.SEED,
            "the study's noise follows from `insecure_seed`; the site does not "
            "`accept_insecure_seed: true`",
        )
    if privacy.insecure_seed is not None and policy.min_noise_multiplier is not None:
        yield no(
            Code.NOISE,
            "the study has an `insecure_seed`, whose noise can be taken off; the site has a "
            "`min_noise_multiplier`",
        )
    if privacy.insecure_seed is not None and policy.budget:
        yield no(
            Code.BUDGET,
            "the study has an `insecure_seed`, which no epsilon bounds; the site has a `budget`",
        )


def _units(unit: Unit, policy: Policy) -> Iterator[Refused]:
    """A cap on a coarser unit refuses; a cap on this unit measures; a site with neither refuses."""
    coarser = [b.unit for b in policy.budget if _finer(unit, b.unit)]
    for other in coarser:
        yield no(
            Code.BUDGET, f"the study protects each {unit}; the site caps the loss of each {other}"
        )
    if policy.budget and not coarser and all(b.unit != unit for b in policy.budget):
        yield no(
            Code.BUDGET,
            f"the study protects each {unit}; the site's `budget` has no cap for that unit",
        )


def _strength(
    study: Study, privacy: LocalPrivacy, policy: Policy, institution: str
) -> Iterator[Refused]:
    """What needs the study's plan: its noise, and its cost where a cap measures it."""
    budgets = [b for b in policy.budget if b.unit == privacy.unit and b.epsilon_per_study]
    if not budgets and policy.min_noise_multiplier is None:
        return
    try:
        plan = plan_of(study, institution)
        if policy.min_noise_multiplier is not None:
            yield from _noise(plan, policy.min_noise_multiplier)
        for budget in budgets:
            yield from _over(plan, budget, budget.epsilon_per_study or 0.0)
    except BudgetError as error:
        yield no(Code.BUDGET, f"the study's epsilon can't be found: {error.message}")


def _noise(plan: Plan, least: float) -> Iterator[Refused]:
    counts = 0.0 if plan.counts is None else plan.counts.noise_multiplier
    found = {"updates": plan.mechanism.noise_multiplier, "counts": counts}
    for what, value in found.items():
        if not value >= least:
            yield no(
                Code.NOISE,
                f"the study's {what} have noise multiplier {value:.4g}; the site's "
                f"`min_noise_multiplier` is {least:g}",
            )


def _over(plan: Plan, budget: Budget, cap: float) -> Iterator[Refused]:
    epsilon = plan.epsilon_with_search(budget.delta)
    if not epsilon <= cap:
        yield no(
            Code.BUDGET,
            f"the study costs epsilon {epsilon:.4g} at delta {budget.delta:g} for each "
            f"{budget.unit}, with the search for its settings; the site's `epsilon_per_study` is "
            f"{cap:g}",
        )


def on_lifetimes(policy: Policy, facts: Facts) -> Iterator[Refused]:
    """A cap that lies below what is spent already, as after it was lowered, ends all studies."""
    for budget in policy.budget:
        spent, cap = facts.spent.get(budget.unit, 0.0), budget.epsilon_lifetime
        if cap is not None and not spent <= cap:
            yield no(
                Code.BUDGET,
                f"epsilon {spent:.4g} at delta {budget.delta:g} is spent for each {budget.unit}; "
                f"the site's `epsilon_lifetime` is {cap:g}",
            )


def _finer(unit: Unit, other: Unit) -> bool:
    return UNITS.index(unit) < UNITS.index(other)
