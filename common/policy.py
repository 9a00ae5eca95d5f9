"""What an institution allows: decided in its worker, before any data is touched.

Caps on all studies together need the ledger and are decided there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from common.config.canonical import study_hash
from common.config.privacy import LocalPrivacy
from common.config.secagg import SecureAggregation
from common.config.site import Budget, Policy
from common.config.study import Study
from common.errors import BudgetError
from common.privacy.events import UNITS, Unit
from common.privacy.plan import plan_of


@dataclass(frozen=True, slots=True)
class Decision:
    """`reasons` is empty when the study is allowed. Reasons stay at the site."""

    reasons: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


def decide(study: Study, policy: Policy, institution: str) -> Decision:
    """Check a study against an institution's policy. Whatever is not allowed is refused."""
    reasons = []
    if institution not in study.federation.institutions:
        reasons.append(f"{institution} is not on the study's roster")
    found = study_hash(study)
    if policy.study_sha256 is not None and policy.study_sha256 != found:
        reasons.append(f"the site pins study {policy.study_sha256}, this one is {found}")
    if study.local_privacy is None:
        reasons.extend(_without_privacy(policy))
    else:
        reasons.extend(_weaknesses(study.local_privacy, policy))
        reasons.extend(_caps(study, study.local_privacy.unit, policy, institution))
    reasons.extend(_aggregation(study.secure, policy))
    return Decision(tuple(reasons))


def _aggregation(section: SecureAggregation | None, policy: Policy) -> Iterator[str]:
    if section is None:
        if not policy.accept_secure_aggregation_none:
            yield (
                "the study has `secure_aggregation: none`; the site does not "
                "`accept_secure_aggregation_none: true`"
            )
        return
    if section.adversary == "semi_honest" and not policy.accept_semi_honest:
        yield (
            "the study assumes that the coordinator follows the protocol; the site does not "
            "`accept_semi_honest: true`"
        )
    if (section.min_cohort or 0) < policy.min_cohort:
        yield (
            f"the study opens sums of {section.min_cohort} institutions; the site's `min_cohort` "
            f"is {policy.min_cohort}"
        )
    if policy.roster_sha256 is None:
        yield "the study has secure aggregation, and the site pins no roster: `roster_sha256`"
    elif section.roster_sha256 not in {None, policy.roster_sha256}:
        yield (
            f"the study is for roster {section.roster_sha256}, the site pins roster "
            f"{policy.roster_sha256}"
        )


def _without_privacy(policy: Policy) -> Iterator[str]:
    if not policy.accept_privacy_none:
        yield "the study has `privacy: none`; the site does not `accept_privacy_none: true`"
    elif policy.budget:
        yield "the study has `privacy: none`, which no epsilon bounds; the site has a `budget`"


def _weaknesses(privacy: LocalPrivacy, policy: Policy) -> Iterator[str]:
    if _finer(privacy.unit, policy.minimum_unit):
        yield f"the study protects each {privacy.unit}; the site's `minimum_unit` is " + (
            policy.minimum_unit
        )
    if privacy.evaluation == "exact" and not policy.accept_exact_evaluation:
        yield (
            "the study has `evaluation: exact`, which epsilon does not cover; the site does not "
            "`accept_exact_evaluation: true`"
        )
    if privacy.insecure_seed is not None and not policy.accept_insecure_seed:
        yield (
            "the study's noise follows from `insecure_seed`; the site does not "
            "`accept_insecure_seed: true`"
        )
    if privacy.insecure_seed is not None and policy.budget:
        yield "the study has an `insecure_seed`, which no epsilon bounds; the site has a `budget`"


def _caps(study: Study, unit: Unit, policy: Policy, institution: str) -> Iterator[str]:
    """A cap on a coarser unit refuses; a cap on this unit measures; a site with neither refuses."""
    coarser = [b.unit for b in policy.budget if _finer(unit, b.unit)]
    for other in coarser:
        yield f"the study protects each {unit}; the site caps the loss of each {other}"
    own = [b for b in policy.budget if b.unit == unit]
    if policy.budget and not own and not coarser:
        yield f"the study protects each {unit}; the site's `budget` has no cap for that unit"
    if institution in study.federation.institutions:
        for budget in own:
            yield from _over(study, budget, institution)


def _over(study: Study, budget: Budget, institution: str) -> Iterator[str]:
    cap = budget.epsilon_per_study
    if cap is None:
        return
    try:
        epsilon = plan_of(study, institution).epsilon_with_search(budget.delta)
    except BudgetError as error:
        yield f"the study's epsilon can't be found: {error.message}"
        return
    if not epsilon <= cap:
        yield (
            f"the study costs epsilon {epsilon:.4g} at delta {budget.delta:g} for each "
            f"{budget.unit}, with the search for its settings; the site's `epsilon_per_study` is "
            f"{cap:g}"
        )


def _finer(unit: Unit, other: Unit) -> bool:
    return UNITS.index(unit) < UNITS.index(other)
