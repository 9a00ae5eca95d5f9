"""A study's privacy section made into a mechanism with figures, for one institution.

The plan is what a study will have spent when all its rounds and evaluations were carried out once,
and all its spare rounds were needed.
What was spent in truth, lost and repeated rounds included, stands in the institution's ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from common.config.privacy import LocalPrivacy, NoisedEvaluation
from common.config.study import Study
from common.errors import ConfigError
from common.privacy.accountant import Accountant
from common.privacy.accountant import epsilon as account
from common.privacy.calibration import calibrate
from common.privacy.events import GaussianSteps, Unit

Events = tuple[GaussianSteps, ...]

ACCOUNTANTS: Final[tuple[Accountant, ...]] = ("pld", "prv", "rdp")
"""The reported one first; the others stand beside it as a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """DP-SGD at one institution (Abadi et al. 2016, arXiv 1607.00133, algorithm 1), by unit.

    One step: each unit joins independently with chance `sampling_rate`; the joint gradient of
    all its rows is cut to L2 norm `clip`; the sum gets N(0, noise_stddev^2) on every coordinate
    and is divided by `divisor`. A step without units is a step: noise alone.
    Neighbouring relation: add or remove one unit.

    Attributes:
        noise_multiplier: standard deviation of the noise on the sum, in `clip`s.
        divisor: sampling rate times the publicly declared number of units; never a true count.
    """

    unit: Unit
    sampling_rate: float
    clip: float
    noise_multiplier: float
    divisor: float
    steps_per_round: int

    @property
    def noise_stddev(self) -> float:
        """Of the noise on each coordinate of the sum of contributions."""
        return self.noise_multiplier * self.clip

    @property
    def event(self) -> GaussianSteps:
        """What one round costs."""
        return self.steps(self.steps_per_round)

    def steps(self, steps: int) -> GaussianSteps:
        """What `steps` of it cost."""
        return GaussianSteps(
            sampling_rate=self.sampling_rate, noise_multiplier=self.noise_multiplier, steps=steps
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedCounts:
    """The Gaussian mechanism on one evaluation's counts.

    Each held-out unit has a vector of counts of its own: the counts of its rows alone. It is
    scaled to L2 norm at most `clip`, the scaled vectors are summed over all units, and
    N(0, noise_stddev^2) is added to every coordinate. Adding or removing a unit changes the sum
    by that unit's vector: L2 sensitivity `clip`, whatever the length of the vector. No sampling.
    """

    clip: int
    noise_multiplier: float

    @property
    def noise_stddev(self) -> float:
        """Of the noise on each coordinate of the summed counts."""
        return self.noise_multiplier * self.clip

    @property
    def event(self) -> GaussianSteps:
        """What one evaluation costs."""
        return self.times(1)

    def times(self, evaluations: int) -> GaussianSteps:
        """What so many evaluations cost."""
        return GaussianSteps(
            sampling_rate=1.0, noise_multiplier=self.noise_multiplier, steps=evaluations
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one institution does in a whole study, and what that costs.

    Attributes:
        spare_rounds: rounds that may be charged again since their vectors were lost.
        evaluations: federated evaluations in the study.
        counts: how they are noised; absent if exact: then `epsilon` does not cover them.
        epsilon: of all rounds, spare ones included, and noised evaluations together, at `delta`,
            by privacy-loss distributions. Training and held-out units are charged as if they were
            the same.
        searches: training runs on private data that found the settings.
        search_events: what those runs spent.
    """

    institution: str
    mechanism: Mechanism
    rounds: int
    spare_rounds: int
    evaluations: int
    counts: NoisedCounts | None
    delta: float
    epsilon: float
    searches: int
    search_events: Events

    @property
    def training_event(self) -> GaussianSteps:
        """What the ledger is charged for one round."""
        return self.mechanism.event

    @property
    def evaluation_event(self) -> GaussianSteps | None:
        """What the ledger is charged for one evaluation."""
        return None if self.counts is None else self.counts.event

    @property
    def events(self) -> Events:
        """The whole study, spare rounds included."""
        return self._events(self.steps)

    @property
    def events_without_spare(self) -> Events:
        """The study, if no vector is ever lost."""
        return self._events(self.rounds * self.mechanism.steps_per_round)

    def _events(self, steps: int) -> Events:
        training = self.mechanism.steps(steps)
        if self.counts is None:
            return (training,)
        return training, self.counts.times(self.evaluations)

    @property
    def steps(self) -> int:
        """Noised steps of training in the whole study, those of spare rounds included."""
        return (self.rounds + self.spare_rounds) * self.mechanism.steps_per_round

    @property
    def noise_draws(self) -> int:
        """Vectors of noise in the whole study, for `noise.check_truncation(dimension, …)`.

        None is longer than the trained weights are many.
        """
        return self.steps + (0 if self.counts is None else self.evaluations)

    @property
    def events_with_search(self) -> Events:
        """The whole study and every run of the search for its settings, composed."""
        return *self.events, *self.search_events

    def epsilon_at(self, delta: float, accountant: Accountant = "pld") -> float:
        """Upper bound on the study's epsilon at another delta, or by another accountant."""
        return _epsilon(self.events, delta, accountant)

    def epsilon_without_spare(self, delta: float) -> float:
        """The same of a study in which no vector is ever lost."""
        return _epsilon(self.events_without_spare, delta, "pld")

    def epsilon_with_search(self, delta: float) -> float:
        """The same with the search, by plain composition of its runs."""
        return _epsilon(self.events_with_search, delta, "pld")


def plan_of(study: Study, institution: str) -> Plan:
    """Size the noise of a study with mechanism `local` for one institution.

    Raises:
        ConfigError: the study has no privacy mechanism, or no such institution.
        BudgetError: no noise multiplier gives the epsilon that is asked for.
    """
    privacy = study.local_privacy
    if privacy is None or institution not in study.federation.institutions:
        raise ConfigError(
            f"study {study.study} has no privacy plan for {institution}",
            remedy="ask only where the study has `mechanism: local` and the name is on its roster",
        )
    evaluations = sum(evaluation_due(study, r) for r in range(1, study.training.rounds + 1))
    counts = _counts(privacy, evaluations)
    prior = () if counts is None else (counts.times(evaluations),)
    steps = (study.training.rounds + privacy.spare_rounds) * privacy.steps_per_round
    mechanism = Mechanism(
        unit=privacy.unit,
        sampling_rate=privacy.sampling_rate,
        clip=privacy.clip,
        noise_multiplier=_noise_multiplier(privacy, steps, prior),
        divisor=privacy.sampling_rate * privacy.declared_at(institution),
        steps_per_round=privacy.steps_per_round,
    )
    return Plan(
        institution=institution,
        mechanism=mechanism,
        rounds=study.training.rounds,
        spare_rounds=privacy.spare_rounds,
        evaluations=evaluations,
        counts=counts,
        delta=privacy.delta,
        epsilon=_epsilon((mechanism.steps(steps), *prior), privacy.delta, "pld"),
        searches=0 if privacy.search is None else privacy.search.runs,
        search_events=_searched(privacy),
    )


def epsilon_after(study: Study, plan: Plan, round_: int) -> float:
    """Upper bound on what is charged up to a round and the evaluation that may be due after it.

    At the study's delta, by privacy-loss distributions, if nothing had to be charged again.
    """
    events: Events = (plan.mechanism.steps(round_ * plan.mechanism.steps_per_round),)
    evaluations = sum(evaluation_due(study, r) for r in range(1, round_ + 1))
    if plan.counts is not None and evaluations:
        events = (*events, plan.counts.times(evaluations))
    return _epsilon(events, plan.delta, "pld")


def evaluation_due(study: Study, round_: int) -> bool:
    """Whether the study evaluates after this round. No other evaluation has a budget."""
    last = round_ == study.training.rounds
    return last or round_ % study.federation.evaluate_every == 0


def _searched(privacy: LocalPrivacy) -> Events:
    trials = () if privacy.search is None else privacy.search.trials
    return tuple(
        GaussianSteps(
            sampling_rate=t.sampling_rate,
            noise_multiplier=t.noise_multiplier,
            steps=t.runs * t.steps,
        )
        for t in trials
    )


def _counts(privacy: LocalPrivacy, evaluations: int) -> NoisedCounts | None:
    if not isinstance(privacy.evaluation, NoisedEvaluation):
        return None
    noise = _calibrated(privacy.evaluation.epsilon, privacy.delta, 1.0, evaluations, ())
    return NoisedCounts(clip=privacy.evaluation.clip, noise_multiplier=noise)


def _noise_multiplier(privacy: LocalPrivacy, steps: int, prior: Events) -> float:
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    if privacy.epsilon is None:
        raise ConfigError("privacy: give `epsilon` or `noise_multiplier`")
    return _calibrated(privacy.epsilon, privacy.delta, privacy.sampling_rate, steps, prior)


@lru_cache(maxsize=64)
def _calibrated(epsilon: float, delta: float, rate: float, steps: int, prior: Events) -> float:
    return calibrate(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=steps, prior=prior)


@lru_cache(maxsize=256)
def _epsilon(events: Sequence[GaussianSteps], delta: float, accountant: Accountant) -> float:
    return account(events, delta, accountant)
