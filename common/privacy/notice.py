"""What every run says, loudly and in the same words, about the protection of what leaves."""

from collections.abc import Iterator

from common.config.privacy import LocalPrivacy
from common.config.secagg import SecureAggregation
from common.config.study import Study
from common.privacy.plan import evaluation_due, plan_of
from common.privacy.statement import unit_in_words
from common.sums import noised_purposes

WITHOUT_PRIVACY = (
    "PRIVACY: NONE. Updates leave each institution without clipping or noise; the model may "
    "reveal training records. Not for real patients' data outside its institution."
)
WITHOUT_SECURE_AGGREGATION = (
    "SECURE AGGREGATION: NONE. The coordinator sees each institution's own update and counts."
)
SEMI_HONEST = (
    "COORDINATOR TRUSTED TO FOLLOW THE PROTOCOL. No check stops it from showing different models "
    "or different survivors to different institutions, which can reveal single updates."
)
ROSTER_NOT_IN_STUDY = (
    "ROSTER: NOT IN THE STUDY. Whose keys take part is fixed by the roster that each site pins, "
    "and by nothing else."
)
INSECURE_SEED = (
    "INSECURE SEED. Sampling and noise follow from a number in the study: whoever reads it can "
    "take the noise off. There is no privacy, whatever is said below. For tests only."
)
EXACT_EVALUATION = (
    "EVALUATION: EXACT. Counts of held-out documents leave without noise; epsilon does not cover "
    "them."
)
EXACT_COUNTS_OF_CHANGING_COHORTS = (
    "EXACT COUNTS OF CHANGING COHORTS. Two evaluations over institutions that differ by one, as "
    "after one drop-out, show how many entities of each label that one's held-out documents have: "
    "that does not depend on the model. Noised counts, or `min_cohort` of all, prevent it."
)


def notices(study: Study) -> tuple[str, ...]:
    """One sentence for each protection that the study does without, and for each that it has.

    Raises:
        BudgetError: the study asks for an epsilon that no noise gives.
    """
    said = [WITHOUT_PRIVACY]
    if study.local_privacy is not None:
        said = list(_of_local(study, study.local_privacy))
    return (*said, *_of_sums(study, study.secure))


def _of_sums(study: Study, section: SecureAggregation | None) -> Iterator[str]:
    if section is None:
        yield WITHOUT_SECURE_AGGREGATION
        return
    if section.adversary == "semi_honest":
        yield SEMI_HONEST
    n, least = len(study.federation.institutions), section.min_cohort
    cohort = f"all {n}" if least == n else f"{least} to {n}"
    lies = "even if it lies" if section.adversary == "malicious" else "if it follows the protocol"
    yield (
        f"SECURE AGGREGATION: {section.adversary.upper().replace('_', '-')}. Of updates and counts "
        f"the coordinator learns sums over {cohort} institutions and nothing "
        f"else, {lies}, as long as at most {section.collusion} of the {n} collude with it. "
        f"{section.threshold} must stay to the end of a round."
    )
    if least != n and _evaluates_exactly_again(study):
        yield EXACT_COUNTS_OF_CHANGING_COHORTS
    if section.roster_sha256 is None:
        yield ROSTER_NOT_IN_STUDY
    heaviest = max(study.public_weights, key=lambda name: study.public_weights[name])
    if study.public_weights[heaviest] > 0.5:
        yield (
            f"ONE WEIGHT OUTWEIGHS THE REST. {heaviest} counts "
            f"{study.public_weights[heaviest]:.0%} of every sum: the sum is nearly its own update."
        )


def _evaluates_exactly_again(study: Study) -> bool:
    """Whether there are two sums of counts without noise to subtract from each other."""
    rounds = range(1, study.training.rounds + 1)
    return (
        "evaluate" not in noised_purposes(study)
        and sum(evaluation_due(study, round_) for round_ in rounds) > 1
    )


def _of_local(study: Study, privacy: LocalPrivacy) -> Iterator[str]:
    if privacy.insecure_seed is not None:
        yield INSECURE_SEED
    # epsilon is the same at all institutions: declared sizes only scale the noised sums
    plan = plan_of(study, study.federation.institutions[0])
    yield (
        f"PRIVACY: LOCAL. At each institution the unit `{privacy.unit}` "
        f"({unit_in_words(study, privacy.unit)}) is protected with epsilon {plan.epsilon:.4g} at "
        f"delta {plan.delta:g} over this whole study, against the public, the coordinator and "
        "all other institutions together."
    )
    if plan.spare_rounds:
        yield (
            f"SPARE ROUNDS: {plan.spare_rounds}, for vectors that are lost, in that figure; if "
            f"none is used, epsilon is {plan.epsilon_without_spare(plan.delta):.4g}."
        )
    if plan.searches:
        yield (
            f"SETTINGS SEARCHED on private data: with its {plan.searches} runs epsilon is "
            f"{plan.epsilon_with_search(plan.delta):.4g} at delta {plan.delta:g}."
        )
    if plan.counts is None:
        yield EXACT_EVALUATION
