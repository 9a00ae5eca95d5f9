"""What an institution does with its data for a request: an update, or counts, as bytes.

Guarantees:
    - Without a privacy mechanism they follow from request, study and data alone; with one, the
      guard has charged and kept them.
    - Who was once withdrawn is in nothing that is computed after it, for the life of this object:
      not sampled, not trained on, not counted. Everybody else is drawn with the same chance as
      before, and sums are divided by the same declared number.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from client.guard import Guard, Keys
from client.withdrawals import without
from common.config.site import Policy
from common.config.study import Study
from common.data.withdrawn import Withdrawn, ids_of
from common.errors import PolicyError
from common.io.memory import give_back
from common.metrics.entities import as_json
from common.metrics.evaluation import Evaluation
from common.model.build import Vector
from common.model.ner import NerModel, Prepared
from common.model.private import Randomness, Recipe
from common.model.train import Stage
from common.privacy.counts import noised_counts
from common.privacy.units import Units, group_units, require_unit_ids
from common.wire import Request, counts_to_bytes, vector_from_bytes

log = logging.getLogger("fedner.worker")

Report = Callable[[str, Mapping[str, Any]], None]
"""Told the site's own figures (its loss, its scores); they stay at the site."""
Finish = Callable[[Vector, Keys | None], bytes]
"""Makes of an update what leaves. The keystreams are those of the mechanism, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One institution as its worker holds it.

    Attributes:
        encoder: fingerprint of the base encoder's files.
        train: units to train on; `test` to be evaluated on.
    """

    name: str
    policy: Policy
    encoder: str
    train: Prepared
    test: Prepared


class Work:
    """One institution's data and model in one study; see `client.session.Session` for arguments."""

    def __init__(
        self,
        study: Study,
        party: Party,
        model: NerModel,
        guard: Guard | None,
        report: Report,
        progress: Callable[[int, int], None] | None,
    ):
        if (guard is None) != (study.local_privacy is None):
            raise PolicyError(
                "a study with a privacy mechanism needs its guard, and no other has one",
                place=party.name,
            )
        self._study, self._party, self._model = study, party, model
        self._guard, self._report, self._progress = guard, report, progress
        self._units = self._grouped(guard) if guard else Units((), ())
        self._known: Withdrawn | None = None

    @property
    def party(self) -> Party:
        """As it is now."""
        return self._party

    def unknown(self, withdrawn: Withdrawn) -> int:
        """How many listed ids no document has, nor had before it was withdrawn."""
        if self._known is None:
            self._known = ids_of((*self._party.train.documents, *self._party.test.documents))
        return withdrawn.unknown(self._known)

    def withdraw(self, withdrawn: Withdrawn) -> None:
        """Let go of the data of who has withdrawn, but for their ids."""
        self.unknown(withdrawn)
        before = self._party
        train, test = (without(side, withdrawn) for side in (before.train, before.test))
        if train is before.train and test is before.test:
            return
        self._party = replace(before, train=train, test=test)
        if self._guard is not None:
            self._units = self._grouped(self._guard)
        log.warning(
            "withdrawn: %d of %d training documents, %d of %d held-out documents",
            len(before.train.documents) - len(train.documents),
            len(before.train.documents),
            len(before.test.documents) - len(test.documents),
            len(before.test.documents),
        )

    def _grouped(self, guard: Guard) -> Units:
        """The training side by unit.

        Raises:
            DataError: a document of either side lacks the id that the unit needs.
        """
        test = self._party.test
        require_unit_ids(test.documents, guard.privacy.unit)
        train, per_sentence = self._party.train, self._study.text.context == "sentence"
        return group_units(train.windows, train.documents, guard.privacy.unit, per_sentence)

    def train(self, request: Request, finish: Finish) -> bytes:
        """Train from the request's model; the update, as `finish` makes it."""
        rounds, seed = self._study.training.rounds, self._study.training.seed
        stage = Stage(
            start=(request.round - 1) / rounds,
            end=request.round / rounds,
            seed_text=f"fedner train v1/{seed}/{self._party.name}/{request.round}",
        )
        # 1. the model as the coordinator has it; one that can't be read costs nothing
        before = self._receive(request)
        guard = self._guard
        if guard is None:
            self._fit(request.round, stage)
            return finish(self._update(before), None)

        def compute(keys: Keys) -> bytes:
            self._fit_privately(guard, stage, keys)
            return finish(self._update(before), keys)

        # the ledger first; only then the data
        return guard.train(request.round, request.body, compute)

    def _update(self, before: Vector | None) -> Vector:
        with np.errstate(invalid="ignore", over="ignore"):  # a model that ran away is sent as well
            update: Vector = self._model.delta()
            return update if before is None else update - before

    def _fit(self, round_: int, stage: Stage) -> None:
        loss = self._model.fit(self._party.train, stage, progress=self._progress)
        give_back()
        self._report("train", {"round": round_, "loss": loss})

    def _fit_privately(self, guard: Guard, stage: Stage, keys: Keys) -> None:
        recipe = Recipe(guard.plan.mechanism, guard.privacy, self._study.training)
        self._model.fit_privately(
            self._party.train,
            self._units,
            recipe,
            stage,
            Randomness(keys("sampling"), keys("noise")),
            self._progress,
        )
        give_back()

    def evaluate(self, request: Request) -> bytes:
        """Counts of the request's model on the held-out documents, int64."""
        self._receive(request)
        guard = self._guard
        if guard is None or guard.plan.counts is None:
            return self._exact_counts(request)
        mechanism, unit = guard.plan.counts, guard.privacy.unit

        def noised(keys: Keys) -> bytes:
            by_unit = self._model.evaluate_by_unit(self._party.test, unit)
            labels = self._study.task.labels
            self._report_scores(request.round, Evaluation(labels, by_unit.sum(axis=0)))
            by_unit[:, Evaluation.outside(labels)] = 0
            return counts_to_bytes(noised_counts(by_unit, mechanism, keys("noise")))

        return guard.evaluate(request.round, request.body, noised)

    def _exact_counts(self, request: Request) -> bytes:
        evaluation = self._model.evaluate(self._party.test)
        self._report_scores(request.round, evaluation)
        return counts_to_bytes(evaluation.counts)

    def _report_scores(self, round_: int, evaluation: Evaluation) -> None:
        """The exact ones, which leave with noise or in a sum, or, if the study says so, as such."""
        scores = as_json(evaluation.entity_report())
        self._report("evaluate", {"round": round_, "f1": evaluation.f1, "entities": scores})

    def _receive(self, request: Request) -> Vector | None:
        size = self._model.layout.size
        delta = vector_from_bytes(request.body, size) if request.body else None
        self._model.set_delta(delta)
        return delta
