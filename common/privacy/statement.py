"""What a report must say of a study's protection: to whom what is promised, and what is not."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from common.config.privacy import LocalPrivacy
from common.config.study import Study
from common.errors import BudgetError, ConfigError
from common.privacy.accountant import Accountant
from common.privacy.events import Unit
from common.privacy.plan import ACCOUNTANTS, Plan, plan_of

MECHANISM = (
    "DP-SGD at each institution: Poisson sampling of units, the joint gradient of a unit's rows "
    "clipped in L2 norm, Gaussian noise, in every local step"
)
NEIGHBOURS = "add or remove one unit at one institution"
ACCOUNTANT = "privacy-loss distributions (dp-accounting); beside them PRV and RDP (Opacus)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversary:
    """What holds against whom.

    Attributes:
        relies_on: what the promise rests on, and on what it does not.
    """

    who: str
    epsilon: float
    delta: float
    relies_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedCountsStatement:
    """How evaluation counts are noised."""

    evaluations: int
    clip: int
    noise_multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The figures and sentences of one institution's protection in one study.

    Attributes:
        unit_is: the unit in words, for this study's inputs.
        epsilon: reported, by privacy-loss distributions, at `delta`.
        epsilon_by: the same by each accountant; `None` where one of the others has no figure.
        epsilon_without_spare: if no vector is lost, so that no spare round is needed; absent in a
            study without.
        steps: noised steps in the whole study, over all rounds, spare ones included.
        evaluation: `exact`, or how counts are noised.
        epsilon_with_search: with all runs of a search on private data; absent without one.
        insecure_seed: whether noise follows from a seed: then nothing here holds.
    """

    study: str
    institution: str
    mechanism: str
    unit: Unit
    unit_is: str
    neighbours: str
    epsilon: float
    delta: float
    accountant: str
    epsilon_by: Mapping[Accountant, float | None]
    noise_multiplier: float
    sampling_rate: float
    rounds: int
    spare_rounds: int
    epsilon_without_spare: float | None
    steps_per_round: int
    steps: int
    clip: float
    divisor: float
    evaluation: str | NoisedCountsStatement
    settings_from: str
    epsilon_with_search: float | None
    adversaries: tuple[Adversary, ...]
    covered: tuple[str, ...]
    not_covered: tuple[str, ...]
    insecure_seed: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def statement(study: Study, institution: str) -> Statement:
    """State what a study with mechanism `local` promises at one institution.

    Raises:
        ConfigError, BudgetError: as `plan_of` says.
    """
    plan = plan_of(study, institution)
    privacy = study.local_privacy
    if privacy is None:
        raise ConfigError(f"study {study.study} has no privacy mechanism")
    mechanism = plan.mechanism
    return Statement(
        study=study.study,
        institution=institution,
        mechanism=MECHANISM,
        unit=mechanism.unit,
        unit_is=unit_in_words(study, mechanism.unit),
        neighbours=NEIGHBOURS,
        epsilon=plan.epsilon,
        delta=plan.delta,
        accountant=ACCOUNTANT,
        epsilon_by={name: _beside(plan, name) for name in ACCOUNTANTS},
        noise_multiplier=mechanism.noise_multiplier,
        sampling_rate=mechanism.sampling_rate,
        rounds=plan.rounds,
        spare_rounds=plan.spare_rounds,
        epsilon_without_spare=_without_spare(plan),
        steps_per_round=mechanism.steps_per_round,
        steps=plan.steps,
        clip=mechanism.clip,
        divisor=mechanism.divisor,
        evaluation=_evaluation(plan),
        settings_from=_settings(privacy),
        epsilon_with_search=plan.epsilon_with_search(plan.delta) if plan.searches else None,
        adversaries=_adversaries(plan),
        covered=_covered(plan),
        not_covered=_not_covered(study, plan),
        insecure_seed=privacy.insecure_seed is not None,
    )


def steps_in_words(said: Statement) -> str:
    """How many steps, and of which rounds."""
    spare = f" and {said.spare_rounds} spare ones" if said.spare_rounds else ""
    return f"{said.steps} ({said.rounds} rounds{spare} of {said.steps_per_round})"


def _without_spare(plan: Plan) -> float | None:
    return plan.epsilon_without_spare(plan.delta) if plan.spare_rounds else None


def _beside(plan: Plan, accountant: Accountant) -> float | None:
    try:
        return plan.epsilon_at(plan.delta, accountant)
    except BudgetError:
        if accountant == ACCOUNTANTS[0]:
            raise
        return None


def unit_in_words(study: Study, unit: Unit) -> str:
    """What a unit is in this study, at one institution."""
    if unit == "patient":
        return "all records of one patient"
    if unit == "document" or study.text.context == "document":
        return "one document"
    return "one sentence"


def _adversaries(plan: Plan) -> tuple[Adversary, ...]:
    """The rows of the table for mechanism `local`: one figure, each time by the own noise alone."""
    rows = {
        "the public, and later users of the model": "",
        "the coordinator, over all rounds": "; not on secure aggregation",
        "any number of other institutions, colluding with the coordinator": "; not on theirs",
    }
    return tuple(
        Adversary(
            who=who,
            epsilon=plan.epsilon,
            delta=plan.delta,
            relies_on=f"the institution's own noise{and_not_on}",
        )
        for who, and_not_on in rows.items()
    )


def _evaluation(plan: Plan) -> str | NoisedCountsStatement:
    if plan.counts is None:
        return "exact"
    return NoisedCountsStatement(
        evaluations=plan.evaluations,
        clip=plan.counts.clip,
        noise_multiplier=plan.counts.noise_multiplier,
    )


def _settings(privacy: LocalPrivacy) -> str:
    if privacy.search is None:
        return f"found on {privacy.settings_from} data: no cost"
    return (
        f"found by {privacy.search.runs} more runs on the private data "
        f"({privacy.search.description}): composed with this one"
    )


def _covered(plan: Plan) -> tuple[str, ...]:
    training = "every update of every round: the units that are trained on"
    if plan.counts is None:
        return (training,)
    return training, "the counts of every evaluation: the held-out units"


def _not_covered(study: Study, plan: Plan) -> tuple[str, ...]:
    unit = plan.mechanism.unit
    said = [
        "other studies on the same data: the institution's ledger composes them",
        "that an institution takes part, its declared sizes, and the times of its messages",
        f"the missing tail of the noise: at most 1 % of delta {plan.delta:g} on top",
        "facts about a unit that follow from other units",
        "floating-point rounding: in a batch of another size it moves the other units' gradients "
        "and counts, in bfloat16 more than in float32, and more where a model was made for it",
    ]
    if plan.counts is None:
        said.append("held-out units: evaluation counts leave exact")
    if plan.searches:
        said.append("the search for settings: epsilon_with_search covers it")
    if unit != "patient":
        said.append(
            f"a patient's records together: for k {unit}s of one patient epsilon is up to k times "
            f"{plan.epsilon:.4g}, and delta grows by more"
        )
    said.append(
        "a patient treated at several institutions: the losses there compose, at two of them up "
        f"to epsilon {2 * plan.epsilon:.4g}, delta {2 * plan.delta:g}"
    )
    return tuple(said)
