"""The study's section `secure_aggregation`: how the sum stays the only thing that anyone learns.

What a study leaves out is filled in when it is loaded, and is part of its hash like everything
else; what can't be safe is refused then. The rules themselves stand in `common.secagg.params`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.config.privacy import LocalPrivacy, refusal, shape
from common.errors import ConfigError
from common.secagg.graph import choose_degree
from common.secagg.params import Adversary, Parameters, default_collusion, smallest_threshold
from common.secagg.quantise import smallest_bits

SECTION: Final = "secure_aggregation"
CLIP_STEPS: Final = 256
"""Optimiser steps, all in one direction, that the default clip has room for."""
ADAM_BOUND: Final = 3.2
"""Longest step of Adam in learning rates: (1 - beta1) / sqrt(1 - beta2) = 3.16 with 0.9 and 0.999
(Kingma and Ba 2015, arXiv 1412.6980v9, section 2.1)."""
NOISE_ROOM: Final = 2.0
EXPECTED_DROPOUT: Final = 0.05
"""Share of institutions that a graph chosen here survives to lose in one session."""


def _degree_kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "number"


Degree = Annotated[
    Annotated[Literal["complete"], Tag("word")]
    | Annotated[Annotated[int, Field(ge=2)], Tag("number")],
    Discriminator(_degree_kind),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SecureAggregation:
    """Secure sums. With `n` institutions, what is left out becomes the default named here.

    Attributes:
        adversary: what the coordinator may do: `malicious`, anything; `semi_honest`, read what it
            gets, but follow the protocol. The latter needs fewer survivors and one stage less,
            each site must accept it, and a coordinator that lies can learn single updates.
        collusion: institutions that may side with the coordinator; by default fewer than half,
            `(n - 1) // 2`.
        threshold: institutions that must stay to the end of a round; by default the fewest that
            `2 t > n + h` and `t - h >= 2` allow, or `2 t > n` and `t > h` if `semi_honest`.
        min_cohort: fewest institutions in a sum; by default the threshold, and two more than
            `collusion`.
        clip: largest absolute value of one coordinate of an update; what lies beyond is cut to it
            and counted at the institution. By default what a round's steps have room for
            (docs/identity.md).
        value_bits: bits of one quantised coordinate.
        bits: bits of one coordinate on the wire; by default the fewest that no sum can wrap.
        degree: neighbours with whom each institution shares keys, or `complete`: all. By default
            `complete` up to 32 institutions; above that the fewest that are safe, which takes a
            `collusion` well below half, else `complete`.
        neighbour_threshold: neighbours that open a secret; with a number as `degree`.
        roster_sha256: the one roster of this study. Each site pins a roster's hash in any case.
    """

    adversary: Adversary = "malicious"
    collusion: int | None = Field(default=None, ge=1)
    threshold: int | None = Field(default=None, ge=1)
    min_cohort: int | None = Field(default=None, ge=1)
    clip: float | None = Field(default=None, gt=0)
    value_bits: int = Field(default=16, ge=2, le=24)
    bits: int | None = Field(default=None, ge=16, le=32)
    degree: Degree | None = None
    neighbour_threshold: int | None = Field(default=None, ge=1)
    roster_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


Choice = Annotated[
    Annotated[Literal["none"], Tag("scalar")] | Annotated[SecureAggregation, Tag("mapping")],
    Discriminator(shape),
]
"""`none`, in so many words, or a mapping."""


def default_clip(learning_rate: float, privacy: LocalPrivacy | None) -> float:
    """Largest absolute value of one coordinate that one round's update is given room for.

    * No mechanism: 256 learning rates. One step of AdamW moves a weight by about one learning
      rate, so that 256 steps in one direction fit, and at 16 bits rounding errs with a standard
      deviation of less than 0.004 of a step. The true number of steps is private.
    * `local` with `adam`: `ADAM_BOUND` learning rates a step: nothing is ever cut.
    * `local` with `sgd`: twice the learning rate times the mechanism's clip, for each step. Once
      for the mean of the contributions, if all of them pull at one weight; once more for its
      noise: eight standard deviations where the noise multiplier is below an eighth of the
      expected batch. What is cut has been noised, so privacy does not depend on it.
    """
    if privacy is None:
        return CLIP_STEPS * learning_rate
    if privacy.optimizer == "adam":
        return ADAM_BOUND * learning_rate * privacy.steps_per_round
    return NOISE_ROOM * learning_rate * privacy.clip * privacy.steps_per_round


def resolve(
    section: SecureAggregation,
    institutions: Sequence[str],
    learning_rate: float,
    privacy: LocalPrivacy | None,
) -> SecureAggregation:
    """The section with every default filled in; the same again if given its own result.

    Raises:
        PydanticCustomError: an impossible combination, with the arithmetic.
    """
    n = len(institutions)
    if n < 3:
        raise refusal(
            f"with {n} institutions the sum gives one the other's update: at least 3 are needed",
            "write `secure_aggregation: none` in so many words; nothing weaker is put in its place",
            at=(SECTION,),
        )
    try:
        filled = _filled(section, n, learning_rate, privacy)
        parameters_of(filled, institutions)
    except ConfigError as error:
        raise refusal(error.message, error.remedy or "change it", at=(SECTION,)) from None
    return filled


def parameters_of(section: SecureAggregation, institutions: Sequence[str]) -> Parameters:
    """What the protocol needs of a resolved section.

    Raises:
        ConfigError: an impossible combination, with the arithmetic, or an unresolved section.
    """
    numbers = (section.threshold, section.collusion, section.min_cohort, section.bits)
    threshold, collusion, min_cohort, bits = (n if n is not None else 0 for n in numbers)
    return Parameters(
        institutions=tuple(institutions),
        threshold=threshold,
        collusion=collusion,
        adversary=section.adversary,
        min_cohort=min_cohort,
        value_bits=section.value_bits,
        bits=bits,
        degree=section.degree if isinstance(section.degree, int) else None,
        neighbour_threshold=section.neighbour_threshold,
    )


def require_quorum(section: SecureAggregation, quorum: int) -> None:
    """A round that the federation accepts must be one that can be unmasked.

    Raises:
        PydanticCustomError: the quorum is below the resolved section's threshold or cohort.
    """
    least = max(section.threshold or 0, section.min_cohort or 0)
    if quorum < least:
        raise refusal(
            f"{quorum} is below threshold {section.threshold} or min_cohort {section.min_cohort} "
            "of secure_aggregation: a sum of so few is never opened",
            f"a quorum of {least} or more, or leave it out",
            at=("federation", "quorum"),
        )


def _filled(
    section: SecureAggregation, n: int, learning_rate: float, privacy: LocalPrivacy | None
) -> SecureAggregation:
    h = default_collusion(n) if section.collusion is None else section.collusion
    t = section.threshold
    t = _threshold(n, h, section.adversary) if t is None else t
    degree, least = section.degree, section.neighbour_threshold
    if degree is None and least is None:
        degree, least = _graph(t, h, n)
    bits, cohort, clip = section.bits, section.min_cohort, section.clip
    return replace(
        section,
        collusion=h,
        threshold=t,
        min_cohort=max(t, h + 2) if cohort is None else cohort,
        clip=default_clip(learning_rate, privacy) if clip is None else clip,
        bits=smallest_bits(section.value_bits, n) if bits is None else bits,
        degree=degree,
        neighbour_threshold=least,
    )


def _threshold(n: int, h: int, adversary: Adversary) -> int:
    least = smallest_threshold(n, h, adversary)
    if least > n:
        rules = "2 t > n + h and t - h >= 2" if adversary == "malicious" else "2 t > n and t > h"
        raise ConfigError(
            f"collusion h = {h} of n = {n} leaves no threshold: {rules} take t >= {least}",
            remedy=f"a smaller collusion; the default is {default_collusion(n)}",
        )
    return least


@lru_cache(maxsize=64)
def _graph(threshold: int, collusion: int, n: int) -> tuple[Literal["complete"] | int, int | None]:
    degree, least = choose_degree(threshold, collusion, EXPECTED_DROPOUT, n)
    return ("complete", None) if degree is None else (degree, least)
