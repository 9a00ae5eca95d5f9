"""The study's privacy section: what is protected, how strongly, and at which settings."""

from dataclasses import is_dataclass
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from common.config.data import STRICT
from common.errors import ConfigError
from common.privacy.events import Unit

SMALLEST_CLIP: Final = 1e-6
"""Far above what underflows in the norms of gradients; see `common.privacy.layers`."""


def refusal(message: str, remedy: str, *, at: tuple[str, ...] = ()) -> PydanticCustomError:
    """What a check of several keys raises; `parse_study` and `parse_site` show all of it.

    Args:
        at: the key to point at, from the section that checks.
    """
    context = {"message": message, "remedy": remedy, "at": at}
    return PydanticCustomError("refusal", "{message}", context)


def shape(value: object) -> str:
    """Tag of a key that is either one word or number, or a mapping: each has its own errors."""
    return "mapping" if isinstance(value, dict) or is_dataclass(value) else "scalar"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoisedEvaluation:
    """Evaluation counts leave with Gaussian noise, at a cost.

    Attributes:
        epsilon: budget of all evaluations of the study together, at the study's delta.
        clip: largest L2 norm of the vector of counts of one unit; a longer one is scaled down.
    """

    epsilon: float = Field(gt=0)
    clip: int = Field(ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trials:
    """Some runs of a search, each of them DP-SGD on the study's own unit.

    Attributes:
        runs: how many were made with these figures.
        sampling_rate: chance of each unit to be part of a step.
        noise_multiplier: as in the study: standard deviation of the noise, in clips.
        steps: of each run.
    """

    runs: int = Field(ge=1)
    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(gt=0)
    steps: int = Field(ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Search:
    """A search for settings on the private data. Its cost is composed, printed and charged.

    Attributes:
        trials: all runs on the private data besides this one.
        description: what was tried, and who did it.
    """

    trials: tuple[Trials, ...] = Field(min_length=1)
    description: str = Field(min_length=1)

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(part.runs for part in self.trials)


DeclaredUnits = Annotated[
    Annotated[int, Field(ge=1), Tag("scalar")]
    | Annotated[dict[str, Annotated[int, Field(ge=1)]], Tag("mapping")],
    Discriminator(shape),
]
EvaluationPrivacy = Annotated[
    Annotated[Literal["exact"], Tag("scalar")] | Annotated[NoisedEvaluation, Tag("mapping")],
    Discriminator(shape),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LocalPrivacy:
    """DP-SGD at each institution (Abadi et al. 2016, arXiv 1607.00133), by unit.

    Under it `training.batch_size`, `max_gradient_norm` and `weight_decay` have no use:
    `sampling_rate`, `clip` and this section's `weight_decay` stand in their place.
    `training.learning_rate` and `warmup` are those of the local optimiser.

    Attributes:
        mechanism: `local`: noise is added at each institution, before anything leaves.
        unit: what neighbouring data sets differ by. A record is one sentence with
            `text.context: sentence`, else one document.
        epsilon: target for the whole study at each institution, training and noised evaluation
            together; or give `noise_multiplier`, and epsilon follows from it.
        noise_multiplier: standard deviation of the noise on a sum of contributions, in `clip`s.
        delta: less than one over the declared number of units.
        clip: L2 norm to which the contribution of one unit is cut.
        sampling_rate: chance of each unit to be part of a step, independently, in (0, 1].
        steps_per_round: local steps in one round.
        declared_units: number of training units, as each institution declares it publicly: one
            number for all, or one per institution. Never the true count: `sampling_rate` times
            this is what noised sums are divided by.
        physical_tokens: padded sub-words computed at once, at most: speed and memory, not the
            guarantee. Units of unlike length or number of records are never computed at once.
        optimizer: what the institution does with its noised gradients.
        schedule: of its learning rate: `linear` as without a mechanism, or `constant`, where the
            coordinator's own optimiser has a schedule.
        weight_decay: of that optimiser.
        evaluation: `exact` counts, which epsilon then does not cover, or noised ones.
        settings_from: where the other settings were found: on `synthetic` or declared-`public`
            data, which costs nothing, or by a `search` on private data.
        search: what that search was; exactly with `settings_from: search`.
        spare_rounds: rounds of noise and budget beyond the study's own, for vectors that are lost
            and have to be computed and charged anew. Epsilon covers them, used or not.
        insecure_seed: TESTS ONLY. Sampling and noise follow from this number, so that anyone
            who knows it can subtract the noise. There is no privacy then.
    """

    mechanism: Literal["local"]
    unit: Unit
    epsilon: float | None = Field(default=None, gt=0)
    noise_multiplier: float | None = Field(default=None, gt=0)
    delta: float = Field(gt=0, lt=1)
    clip: float = Field(ge=SMALLEST_CLIP)
    sampling_rate: float = Field(gt=0, le=1)
    steps_per_round: int = Field(ge=1, le=1_000_000)
    declared_units: DeclaredUnits
    physical_tokens: int = Field(default=4096, ge=16)
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["linear", "constant"] = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    evaluation: EvaluationPrivacy
    settings_from: Literal["synthetic", "public", "search"]
    search: Search | None = None
    insecure_seed: int | None = Field(default=None, ge=0)
    spare_rounds: int = Field(default=0, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _strength_once(self) -> "LocalPrivacy":
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise refusal(
                "epsilon and noise_multiplier: exactly one is expected",
                "give `epsilon`, and the noise is sized for it, or `noise_multiplier`, and "
                "`fedner config check` prints the epsilon that follows",
            )
        counts = self.evaluation.epsilon if isinstance(self.evaluation, NoisedEvaluation) else 0
        if self.epsilon is not None and counts >= self.epsilon:
            raise refusal(
                f"{counts:g} leaves nothing of the study's epsilon {self.epsilon:g} for training",
                "lower evaluation.epsilon, or write `evaluation: exact`",
                at=("evaluation", "epsilon"),
            )
        return self

    @model_validator(mode="after")
    def _fits_the_declared_sizes(self) -> "LocalPrivacy":
        declared = self.declared_units
        sizes = list(declared.values()) if isinstance(declared, dict) else [declared]
        if not sizes:
            return self  # the study refuses a mapping that does not name its roster
        if self.delta * max(sizes) >= 1:
            raise refusal(
                f"{self.delta:g} is not less than 1 / {max(sizes)} declared units: it would "
                "allow to publish a unit whole",
                f"lower delta well below {1 / max(sizes):.1e}",
                at=("delta",),
            )
        if self.sampling_rate * min(sizes) < 1:
            raise refusal(
                f"{self.sampling_rate:g} of {min(sizes)} declared units is less than one unit "
                "a step",
                f"raise sampling_rate above {1 / min(sizes):.1e}",
                at=("sampling_rate",),
            )
        return self

    @model_validator(mode="after")
    def _search_when_searched(self) -> "LocalPrivacy":
        if (self.settings_from == "search") != (self.search is not None):
            raise refusal(
                "give `search` exactly with `settings_from: search`",
                "write `search: {trials: [{runs: …, sampling_rate: …, noise_multiplier: …, "
                "steps: …}], description: …}` with all runs on private data, or say that settings "
                "came from `synthetic` or `public` data",
                at=("settings_from",),
            )
        return self

    def declared_at(self, institution: str) -> int:
        """Publicly declared number of training units of an institution.

        Raises:
            ConfigError: the mapping does not name it.
        """
        if not isinstance(self.declared_units, dict):
            return self.declared_units
        if institution not in self.declared_units:
            raise ConfigError(
                f"privacy.declared_units does not name {institution}",
                remedy="ask for an institution of the study's roster",
            )
        return self.declared_units[institution]


def _mechanism(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("mechanism")
    elif isinstance(value, LocalPrivacy):
        return value.mechanism
    elif value != "none":
        return None
    return value if isinstance(value, str) else None


Privacy = Annotated[
    Annotated[Literal["none"], Tag("none")] | Annotated[LocalPrivacy, Tag("local")],
    Discriminator(
        _mechanism,
        custom_error_type="refusal",
        custom_error_message="expected `none`, or a mapping with a `mechanism` of this version",
    ),
]
"""`none`, or a mapping with its `mechanism`."""
