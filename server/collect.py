"""How updates and counts of a round come together: each institution's own, or only their sum."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from common.config.study import Study
from common.errors import ProtocolError
from common.io.standing import Standing
from common.metrics.evaluation import Evaluation
from common.secagg.quantise import dequantise_sum
from common.secagg.session import PURPOSES, Purpose
from common.sums import (
    Sum,
    contexts_of,
    counts_of_sum,
    grid_of,
    length_of,
    noised_purposes,
    shares_of,
    sums_of,
)
from common.wire import Kind, Reply, counts_from_bytes, vector_from_bytes
from server.attempts import Attempts
from server.optimizer import Vector, weighted_mean
from server.outcome import Take
from server.patience import Patience
from server.sums import Ask, SecureSums, Stage, Total

log = logging.getLogger("fedner.server")

Values = TypeVar("Values")
Tell = Callable[[Kind, int, bytes, int, Take], object]
"""The same request to all, the most bytes of a reply's body, and what takes each."""
Require = Callable[[Collection[str], str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected(Generic[Values]):
    """What came together.

    Attributes:
        values: the weighted mean of the updates, or the sum of the counts.
        institutions: whose.
        figures: what else there is to record.
    """

    values: Values = field(repr=False)
    institutions: tuple[str, ...]
    figures: Mapping[str, Any]


class Collector(Protocol):
    """One way. `body` is the model, as `common.wire.Request` has it."""

    def updates(self, round_: int, body: bytes) -> Collected[Vector]:
        """Have all train; the mean of their updates by public weights."""

    def counts(self, round_: int, body: bytes) -> Collected[Evaluation]:
        """Have all evaluate; the sum of their counts."""


class PlainCollector:
    """Each institution's own update and counts come to the coordinator.

    Args:
        tell: the same request to all; hands over replies of those who did as they were asked.
        require: refuses fewer than the quorum.
    """

    def __init__(self, study: Study, dimension: int, tell: Tell, require: Require):
        self._study, self._dimension = study, dimension
        self._tell, self._require = tell, require

    def updates(self, round_: int, body: bytes) -> Collected[Vector]:
        """See `Collector`."""
        found: dict[str, Vector] = {}

        def take(name: str, reply: Reply) -> None:
            try:
                found[name] = vector_from_bytes(reply.body, self._dimension)
            except ProtocolError as error:
                log.warning("round %d: %s sent no update: %s", round_, name, error.message)

        self._tell("train", round_, body, 4 * self._dimension, take)
        self._require(found, "sent an update", round_)
        mean = weighted_mean(found, self._study.public_weights)
        figures = {"bytes_up": 4 * self._dimension * len(found)}
        return Collected(values=mean, institutions=tuple(found), figures=figures)

    def counts(self, round_: int, body: bytes) -> Collected[Evaluation]:
        """See `Collector`."""
        labels, privacy = self._study.task.labels, self._study.local_privacy
        noised = privacy is not None and privacy.evaluation != "exact"
        size, found = Evaluation.size(labels), dict[str, Evaluation]()

        def take(name: str, reply: Reply) -> None:
            try:
                counts = counts_from_bytes(reply.body, size, noised=noised)
            except ProtocolError as error:
                log.warning("round %d: %s sent no counts: %s", round_, name, error.message)
            else:
                found[name] = Evaluation(labels, counts)

        self._tell("evaluate", round_, body, 8 * size, take)
        self._require(found, "were evaluated", round_)
        zero = Evaluation(labels, np.zeros(size, np.int64))
        return Collected(values=sum(found.values(), zero), institutions=tuple(found), figures={})


class SecureCollector:
    """Only sums come to the coordinator.

    Args:
        attempts: kept in the run's folder.
        stage: told what a sum is at.
    """

    def __init__(
        self,
        study: Study,
        dimension: int,
        standing: Standing,
        *,
        ask: Ask,
        present: Callable[[], Collection[str]],
        record: Callable[..., None],
        attempts: Attempts,
        stage: Stage = lambda _purpose, _stage, _round: None,
    ):
        self._study, self._grid, self._shares = study, grid_of(study), shares_of(study)
        contexts = contexts_of(study, standing.roster)
        self._bits = contexts["train"].parameters.bits
        order = list(sums_of(study))
        self._following: dict[Sum, Sum] = dict(pairwise(order))
        self._sums = SecureSums(
            contexts=contexts,
            signer=standing.identity.signer,
            lengths={purpose: length_of(study, purpose, dimension) for purpose in PURPOSES},
            quorum=study.federation.required,
            ask=ask,
            present=present,
            record=record,
            attempts=attempts,
            stage=stage,
            noised=noised_purposes(study),
            patience=Patience(limit_s=study.federation.deadline_s),
        )

    def updates(self, round_: int, body: bytes) -> Collected[Vector]:
        """See `Collector`."""
        total = self._sum("train", round_, body)
        room = total.values.view(np.float32)  # in the levels' place
        summed = dequantise_sum(total.values, self._grid, self._bits, out=room)
        summed /= np.float32(sum(self._shares[name] for name in total.survivors))
        return _collected(summed, total)

    def counts(self, round_: int, body: bytes) -> Collected[Evaluation]:
        """See `Collector`."""
        total = self._sum("evaluate", round_, body)
        counts = Evaluation(self._study.task.labels, counts_of_sum(total.values))
        return _collected(counts, total)

    def _sum(self, purpose: Purpose, round_: int, body: bytes) -> Total:
        return self._sums.sum(purpose, round_, body, self._following.get((purpose, round_)))


def _collected(values: Values, total: Total) -> Collected[Values]:
    figures = {"bytes_up": total.course["bytes_up"], "sum": total.course}
    return Collected(values=values, institutions=total.survivors, figures=figures)
