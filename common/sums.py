"""What both ends of a study's secure sums derive from study and roster: nothing is told by message.

Updates go through sessions of purpose `train` under the study's modulus and grid, evaluation counts
through sessions of purpose `evaluate` as they are, modulo `2^32`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import ConfigError
from common.identity.roster import Roster, require_names
from common.metrics.evaluation import Evaluation
from common.privacy.plan import evaluation_due
from common.secagg.quantise import Grid
from common.secagg.session import PURPOSES, Context, Purpose
from common.secagg.vectors import Vector

COUNT_BITS: Final = 32
"""Modulus of evaluation counts."""

Sum = tuple[Purpose, int]
"""A sum of the study: whose, and of which round."""


def contexts_of(study: Study, roster: Roster) -> dict[Purpose, Context]:
    """What all parties agree on, by purpose.

    Raises:
        ConfigError: a study without secure aggregation.
        IdentityError: a roster of other institutions, or in another order.
    """
    parameters = study.secure_parameters
    if parameters is None:
        raise ConfigError(f"study {study.study} has no secure aggregation")
    require_names(roster, study.federation.institutions)
    train = Context(
        parameters=parameters,
        study=study_hash(study),
        roster=roster.sha256,
        public_keys=tuple(roster.public_keys.values()),
        coordinator=roster.coordinator,
    )
    evaluate = replace(train, parameters=replace(parameters, bits=COUNT_BITS))
    return dict(zip(PURPOSES, (train, evaluate), strict=True))


def grid_of(study: Study) -> Grid:
    """The grid to which updates are rounded.

    Raises:
        ConfigError: a study without secure aggregation.
    """
    section = study.secure
    if section is None or section.clip is None:
        raise ConfigError(f"study {study.study} has no secure aggregation")
    return Grid(clip=section.clip, value_bits=section.value_bits)


def shares_of(study: Study) -> dict[str, float]:
    """What each institution multiplies its update by: its public weight over the largest, <= 1."""
    weights = study.public_weights
    largest = max(weights.values())
    return {name: weight / largest for name, weight in weights.items()}


def length_of(study: Study, purpose: Purpose, dimension: int) -> int:
    """Values of a vector; `dimension` is the number of trained weights."""
    return dimension if purpose == "train" else Evaluation.size(study.task.labels)


def sums_of(study: Study) -> Iterator[Sum]:
    """All sums of the study, in order."""
    for round_ in range(1, study.training.rounds + 1):
        yield "train", round_
        if evaluation_due(study, round_):
            yield "evaluate", round_


def noised_purposes(study: Study) -> frozenset[Purpose]:
    """Whose vectors bear noise of their own: sites keep these and give them again."""
    privacy = study.local_privacy
    if privacy is None:
        return frozenset()
    return frozenset({"train"} if privacy.evaluation == "exact" else {"train", "evaluate"})


def counts_to_sum(counts: npt.NDArray[np.int64], n_institutions: int) -> tuple[Vector, int]:
    """Counts, which noise may have made negative, modulo `2^32`, and how many were cut.

    A count with which the sum over so many institutions could wrap around is cut to the largest
    one that can't: a refusal would tell the coordinator that there is one.
    """
    room = ((1 << (COUNT_BITS - 1)) - 1) // n_institutions
    cut = np.clip(counts, -room, room)
    return cut.astype(np.int32).view(np.uint32), int(np.count_nonzero(cut != counts))


def counts_of_sum(total: Vector) -> npt.NDArray[np.int64]:
    """The sum of counts, lifted to `[-2^31, 2^31)`."""
    return total.view(np.int32).astype(np.int64)
