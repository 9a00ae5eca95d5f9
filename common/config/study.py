"""The study: what all institutions agree on. Its canonical hash names it everywhere."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from common.config.data import STRICT, Data
from common.config.privacy import LocalPrivacy, Privacy, refusal
from common.config.secagg import Choice, SecureAggregation, parameters_of, require_quorum, resolve
from common.secagg.params import Parameters

Name = str
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Task:
    """What is predicted.

    Attributes:
        kind: named-entity recognition, which is all that this version does.
        labels: the entity types, distinct and without blanks; tags are their IOB2 expansion.
        abbreviations: as the model finds them, each by its own sentence; or `as_defined`: wherever
            they stand in a document, as the name that it defines them for (`Huntington disease
            (HD)`).
    """

    kind: Literal["ner"] = "ner"
    labels: tuple[str, ...] = ("Disease", "Symptom", "Medication")
    abbreviations: Literal["as_found", "as_defined"] = "as_found"

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("labels must be distinct, and at least one")
        if any(not label or any(c.isspace() for c in label) for label in labels):
            raise ValueError("a label must not be empty or hold blanks")
        return labels


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Encoder:
    """The base encoder, by the name it was imported under, pinned by its weights.

    Attributes:
        name: as in `fedner encoder list`, or the path of a local folder.
        weights_sha256: SHA-256 of its `model.safetensors`.
    """

    name: str = Field(min_length=1)
    weights_sha256: str = Field(pattern=SHA256_PATTERN)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Text:
    """How documents become model inputs.

    Attributes:
        context: one input per sentence, or windows over the whole document.
        max_tokens: longest input in sub-words, special tokens included.
        overlap_tokens: sub-words that neighbouring windows of a long input share; less than half
            of `max_tokens` - 2.
    """

    context: Literal["sentence", "document"] = "sentence"
    max_tokens: int = Field(default=128, ge=16, le=4096)
    overlap_tokens: int = Field(default=32, ge=0)

    @model_validator(mode="after")
    def _overlap_fits(self) -> "Text":
        if self.overlap_tokens * 2 >= self.max_tokens - 2:
            raise ValueError("overlap_tokens must be less than half of max_tokens - 2")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + (alpha / rank) B A.

    Attributes:
        rank: rows of A, columns of B.
        alpha: what B A is multiplied by, over `rank`.
        dropout: chance that an input of the adapters is left out; 0 with a privacy mechanism.
        targets: names of linear layers within a transformer layer (`query`), or all of them.
        freeze_a: A stays as it was drawn and B alone is trained (FFA-LoRA, Sun et al. 2024,
            arXiv 2403.12313): a mean of B is then the mean of the products B A.
        layers: indices of the transformer layers that get adapters; all if absent.
        directions_sha256: A starts from the encoder's `directions.safetensors`, which has this
            hash, instead of random numbers.
        core: both sides stay as the directions give them, and only a `rank x rank` core between
            them is trained (LoRA-XS, Balazy et al. 2024, arXiv 2405.17604). Needs
            `directions_sha256`, and goes with neither `freeze_a` nor `dropout`.
    """

    rank: int = Field(default=8, ge=1, le=512)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    freeze_a: bool = False
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    directions_sha256: str | None = Field(default=None, pattern=SHA256_PATTERN)
    core: bool = False

    @model_validator(mode="after")
    def _core_has_both_sides(self) -> "Lora":
        if self.core and (self.directions_sha256 is None or self.freeze_a or self.dropout):
            raise ValueError(
                "`core` needs `directions_sha256`, and goes with neither `freeze_a` nor `dropout`"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """Which weights are trained; only these travel.

    Attributes:
        train: every weight; all but the embeddings; adapters and head; the head alone.
        lora: the adapters; exactly with `train: lora`.
        dropout: replaces the encoder's own dropout probabilities if given; 0 with a privacy
            mechanism.
    """

    train: Literal["full", "frozen_embeddings", "lora", "head"] = "frozen_embeddings"
    lora: Lora | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _lora_when_asked(self) -> "Model":
        if (self.train == "lora") != (self.lora is not None):
            raise ValueError("give `lora` exactly when `train: lora`")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Training:
    """Local training at each institution. A privacy mechanism puts some settings aside.

    Attributes:
        rounds: communication rounds.
        local_epochs: passes over the institution's own training set per round.
        batch_size: inputs per optimiser step.
        learning_rate: peak of AdamW's rate; it warms up over `warmup` of the whole study and
            then falls linearly to zero at its end.
        weight_decay: of AdamW, on matrices alone.
        warmup: share of the whole study in which the rate rises from zero.
        max_gradient_norm: L2 norm to which the gradient of one step is cut.
        precision: `auto` takes bfloat16 autocast where the hardware computes in it.
        seed: of head and adapter initialisation, batch order and dropout.
    """

    rounds: int = Field(ge=1, le=100_000)
    local_epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=1, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Aggregation:
    """How the coordinator turns updates into the next model.

    Attributes:
        optimizer: `fedavg` (McMahan et al. 2017, arXiv 1602.05629), `fedadam` (Reddi et al.
            2021, arXiv 2003.00295, algorithm 2), or `adam` (Kingma and Ba 2015, arXiv
            1412.6980, algorithm 1: with bias correction) on the mean update. With one local
            step of `sgd` a round the latter is DP-Adam, its state at the coordinator.
        learning_rate: the server's: 1 if absent for `fedavg`; the others need it.
        schedule: `linear`: the server's rate warms up over `training.warmup` of the study and
            then falls linearly to zero at its end.
        beta1: decay of the mean of updates, of `fedadam` and `adam`.
        beta2: decay of the mean of their squares.
        tau: FedAdam's degree of adaptivity, Adam's epsilon.
        average: decay of an exponential moving average of the models of all rounds, which is
            then evaluated and released; post-processing of what has left already.
        interpolation: how far from the start towards the trained model (or its average) lies what
            is evaluated and released, 1 being all the way (Wortsman et al. 2022, arXiv
            2109.01903v3, equation 1): less keeps more of what the start could do. In the weights
            that are trained: of adapters the two sides, not their product. Post-processing.
        weights: public constant per institution, above 0, for each of them; equal if absent. Never
            a private count.
    """

    optimizer: Literal["fedavg", "fedadam", "adam"] = "fedavg"
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "linear"] = "constant"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)
    average: float | None = Field(default=None, gt=0, lt=1)
    interpolation: float = Field(default=1.0, gt=0, le=1)
    weights: dict[Name, float] | None = None

    @model_validator(mode="after")
    def _rate_when_needed(self) -> "Aggregation":
        if self.optimizer != "fedavg" and self.learning_rate is None:
            raise ValueError(f"{self.optimizer} needs a learning_rate; 1e-3 is a usual one")
        return self

    @property
    def rate(self) -> float:
        """The server's learning rate."""
        return 1.0 if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Federation:
    """Who takes part, and how long the coordinator waits.

    Attributes:
        institutions: their names, distinct: lower-case letters, digits, `-` and `_`.
        quorum: fewest institutions whose updates make a round; all if absent.
        deadline_s: longest wait for one trip's replies, an absence included; choose it at least
            three times as long as a round takes. The start waits as long for the whole roster, and
            then goes on with the quorum; a secure sum, for enough institutions.
        evaluate_every: rounds between federated evaluations; the last round always is one.
    """

    institutions: tuple[Name, ...] = Field(min_length=1)
    quorum: int | None = Field(default=None, ge=1)
    deadline_s: float = Field(default=3600.0, gt=0)
    evaluate_every: int = Field(default=1, ge=1)

    @field_validator("institutions")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("institutions must be distinct")
        for name in names:
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(f"{name!r} is not a name: lower-case letters, digits, - and _")
        return names

    @model_validator(mode="after")
    def _quorum_fits(self) -> "Federation":
        if self.quorum is not None and self.quorum > len(self.institutions):
            raise ValueError("quorum is larger than the number of institutions")
        return self

    @property
    def required(self) -> int:
        """Fewest institutions whose updates make a round."""
        return self.quorum if self.quorum is not None else len(self.institutions)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Synthetic:
    """Generated clinical notes for a simulation. No person stands behind them.

    Attributes:
        patients_per_institution: made-up patients of each institution.
        notes_per_patient: fewest and most, both included.
        test_fraction: expected share of patients that are held out.
        seed: of the notes, and of who is held out.
    """

    patients_per_institution: int = Field(ge=2)
    notes_per_patient: tuple[int, int] = (2, 4)
    test_fraction: float = Field(default=0.25, gt=0, lt=1)
    seed: int = Field(default=1, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Partition:
    """How a simulation deals one corpus out: all documents of a patient to one institution.

    Attributes:
        kind: `document`: by a keyed hash, evenly; `iid`: at random, to equal numbers of documents;
            `dirichlet`: skewed by label; `size`: at random, by `proportions`.
        seed: of every draw and hash.
        alpha: exactly with `dirichlet`: 0.1 is strong skew, 1 moderate, 100 nearly none.
        proportions: exactly with `size`: a share for each institution, together 1.
    """

    kind: Literal["document", "iid", "dirichlet", "size"] = "document"
    seed: int = Field(default=1, ge=0)
    alpha: float | None = Field(default=None, gt=0)
    proportions: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _options_of_its_kind(self) -> "Partition":
        if (self.alpha is not None) != (self.kind == "dirichlet"):
            raise ValueError("give `alpha` exactly with `kind: dirichlet`")
        if (self.proportions is not None) != (self.kind == "size"):
            raise ValueError("give `proportions` exactly with `kind: size`")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Simulation:
    """What `fedner simulate` stands in for the institutions. Not part of the study's hash.

    Attributes:
        synthetic: made-up notes; or give `data`.
        data: a corpus, which is dealt out by `partition`; see the site file for its keys.
        partition: exactly with `data`.
    """

    synthetic: Synthetic | None = None
    data: Data | None = None
    partition: Partition | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "Simulation":
        if (self.synthetic is None) == (self.data is None):
            raise ValueError("give exactly one of `synthetic` and `data`")
        if (self.data is None) != (self.partition is None):
            raise ValueError("`partition` goes with `data`, and only with it")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Study:
    """A whole study.

    Attributes:
        study: its name, in run folders, ledgers and logs.
        privacy: which mechanism protects what leaves; `none` must be said in so many words.
        secure_aggregation: on unless the study says `none` in so many words; its defaults are
            filled in.
        simulation: stand-ins for the institutions' data; outside the hash.
    """

    study: Name = Field(pattern=NAME_PATTERN)
    task: Task = Field(default_factory=Task)
    encoder: Encoder
    text: Text = Field(default_factory=Text)
    model: Model = Field(default_factory=Model)
    training: Training
    aggregation: Aggregation = Field(default_factory=Aggregation)
    federation: Federation
    privacy: Privacy
    secure_aggregation: Choice = Field(default_factory=SecureAggregation)
    simulation: Simulation | None = None

    @model_validator(mode="after")
    def _weights_name_the_roster(self) -> "Study":
        weights = self.aggregation.weights
        if weights is None:
            return self
        if set(weights) != set(self.federation.institutions):
            raise ValueError("aggregation.weights must name every institution, and no other")
        if min(weights.values()) <= 0:
            raise ValueError("aggregation.weights must be positive")
        return self

    @model_validator(mode="after")
    def _privacy_fits(self) -> "Study":
        privacy = self.local_privacy
        if privacy is None:
            return self
        declared = privacy.declared_units
        if isinstance(declared, dict) and set(declared) != set(self.federation.institutions):
            raise refusal(
                "must name every institution, and no other",
                f"declare for: {', '.join(self.federation.institutions)}; or one number for all",
                at=("privacy", "declared_units"),
            )
        if self.model.dropout != 0 or (self.model.lora and self.model.lora.dropout):
            raise refusal(
                "a unit's gradient must not depend on who else was drawn, and dropout's random "
                "numbers do",
                "write `model.dropout: 0`, and leave `lora.dropout` at 0",
                at=("model",),
            )
        if self.training.local_epochs != 1:
            raise refusal(
                "a study with privacy takes steps on random batches, it has no epochs",
                "leave local_epochs out, and set privacy.steps_per_round",
                at=("training", "local_epochs"),
            )
        linked = self.task.abbreviations == "as_defined" and self.text.context == "sentence"
        if linked and privacy.unit == "record" and privacy.evaluation != "exact":
            raise refusal(
                "a record's own counts then depend on the other records of its document, and their "
                "noise is for one record",
                "write `abbreviations: as_found`, or `privacy.evaluation: exact`, or another unit",
                at=("task", "abbreviations"),
            )
        if privacy.physical_tokens < self.text.max_tokens:
            raise refusal(
                f"{privacy.physical_tokens} does not hold one input of text.max_tokens "
                f"{self.text.max_tokens}",
                "raise physical_tokens",
                at=("privacy", "physical_tokens"),
            )
        return self

    @model_validator(mode="after")
    def _secure_aggregation_fits(self) -> "Study":
        section = self.secure
        if section is None:
            return self
        names, rate = self.federation.institutions, self.training.learning_rate
        filled = resolve(section, names, rate, self.local_privacy)
        require_quorum(filled, self.federation.required)
        object.__setattr__(self, "secure_aggregation", filled)  # nobody has seen it unfilled
        return self

    @property
    def secure(self) -> SecureAggregation | None:
        """The settings of secure aggregation, if the study has it; all of them are given."""
        section = self.secure_aggregation
        return section if isinstance(section, SecureAggregation) else None

    @property
    def secure_parameters(self) -> Parameters | None:
        """The protocol's public constants, if the study has secure aggregation."""
        section = self.secure
        return None if section is None else parameters_of(section, self.federation.institutions)

    @property
    def secure_adversary(self) -> Literal["none", "malicious", "semi_honest"]:
        """Against which coordinator updates are summed securely, for reports."""
        return "none" if self.secure is None else self.secure.adversary

    @property
    def local_privacy(self) -> LocalPrivacy | None:
        """The settings of mechanism `local`, if that is the study's."""
        return self.privacy if isinstance(self.privacy, LocalPrivacy) else None

    @property
    def privacy_mechanism(self) -> Literal["none", "local"]:
        """The mechanism by name, for reports."""
        return "none" if self.local_privacy is None else self.local_privacy.mechanism

    @property
    def public_weights(self) -> dict[Name, float]:
        """Weight per institution, summing to 1 over the roster."""
        names = self.federation.institutions
        weights = self.aggregation.weights or dict.fromkeys(names, 1.0)
        total = sum(weights.values())
        return {name: weights[name] / total for name in names}
