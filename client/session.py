"""The worker's side of a study: opaque request bytes in, reply bytes out.

It alone touches documents and model. What it answers is an allow-listed header and a vector; why
it refuses is logged here and travels as a code.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from client.guard import Guard, Keys
from common import __version__
from common.config.canonical import study_hash
from common.config.site import Policy
from common.config.study import Study
from common.errors import BudgetError, PolicyError, ProtocolError
from common.metrics.evaluation import Evaluation
from common.model.build import Vector
from common.model.ner import NerModel, Prepared
from common.model.private import Randomness, Recipe
from common.model.train import Stage
from common.policy import decide, refuse_what_does_not_run_yet
from common.privacy.counts import noised_counts
from common.privacy.units import Units, group_units, require_unit_ids
from common.wire import (
    MAX_HEADER_BYTES,
    Kind,
    Refusal,
    Reply,
    Request,
    counts_to_bytes,
    decode_reply,
    decode_request,
    encode,
    vector_from_bytes,
    vector_to_bytes,
)

log = logging.getLogger("fedner.worker")

UNKNOWN: Final = "unknown"
Report = Callable[[str, dict[str, float]], None]
"""Told the site's own figures (its loss, its scores); they stay at the site."""


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


class Session:
    """One institution's part in one study.

    Between two requests nothing is kept here but the warm model. Without a privacy mechanism,
    weights, optimiser and random state follow from request and study alone, so a repeated request
    gives the same reply; with one, the guard has kept the reply.

    Args:
        model: may be shared by the institutions of one simulation.
        progress: told steps done and steps in all.
        report: told the site's own figures.
        guard: of a study with a privacy mechanism; exactly then.
    """

    def __init__(
        self,
        study: Study,
        party: Party,
        model: NerModel,
        *,
        progress: Callable[[int, int], None] | None = None,
        report: Report | None = None,
        guard: Guard | None = None,
    ):
        refuse_what_does_not_run_yet(study)
        self._study = study
        self._hash = study_hash(study)
        self._party = party
        self._model = model
        self._progress = progress
        self._report = report or (lambda _kind, _figures: None)
        if (guard is None) != (study.local_privacy is None):
            raise PolicyError(
                "a study with a privacy mechanism needs its guard, and no other has one",
                place=party.name,
            )
        self._guard = guard
        self._units = self._grouped(guard) if guard else Units((), ())

    def _grouped(self, guard: Guard) -> Units:
        """The training side by unit.

        Raises:
            DataError: a document of either side lacks the id that the unit needs.
        """
        test = self._party.test
        require_unit_ids(test.documents, guard.privacy.unit)
        train, per_sentence = self._party.train, self._study.text.context == "sentence"
        return group_units(train.windows, train.documents, guard.privacy.unit, per_sentence)

    @property
    def max_body_bytes(self) -> int:
        """The largest body a request can rightly have."""
        return 4 * self._model.layout.size

    def close(self) -> None:
        """Give back what is held outside this process: the ledger's lock."""
        if self._guard is not None:
            self._guard.close()

    def handle(self, data: bytes) -> bytes:
        """Answer one request. Raises nothing: an error becomes a refusal code."""
        try:
            request = decode_request(data)
        except ProtocolError as error:
            log.warning("refused a request: %s", error)
            return encode(self._refusal("hello", 0, Refusal.MALFORMED))
        try:
            return encode(self._answer(request))
        except ProtocolError as error:
            log.warning("refused %s of round %d: %s", request.kind, request.round, error)
            return encode(self._refusal(request.kind, request.round, Refusal.MALFORMED))
        except BudgetError as error:
            log.error("refused %s of round %d: %s", request.kind, request.round, error)
            return encode(self._refusal(request.kind, request.round, Refusal.BUDGET))
        except Exception:
            log.exception("a %s request of round %d failed", request.kind, request.round)
            return encode(self._refusal(request.kind, request.round, Refusal.INTERNAL))

    def _answer(self, request: Request) -> Reply:
        refusal = self._check(request)
        if refusal is not None:
            return self._refusal(request.kind, request.round, refusal)
        if self._guard is not None:
            self._guard.hear(request.receipts)
        if request.kind == "hello":
            return self._reply(request, facts=self._facts())
        if request.kind == "train":
            return self._reply(request, body=self._train(request))
        return self._reply(request, body=self._evaluate(request))

    def _check(self, request: Request) -> Refusal | None:
        if request.study != self._hash:
            log.warning("refused: study %s asked, this site's is %s", request.study, self._hash)
            return Refusal.STUDY
        decision = decide(self._study, self._party.policy, self._party.name)
        if not decision.allowed:
            log.warning("refused by policy: %s", "; ".join(decision.reasons))
            return Refusal.POLICY
        if request.round > self._study.training.rounds or (request.round < 1) != (
            request.kind == "hello"
        ):
            log.warning("refused: a %s request for round %d", request.kind, request.round)
            return Refusal.STALE
        if len(request.body) not in {0, 4 * self._model.layout.size}:
            log.warning("refused: a model of %d bytes", len(request.body))
            return Refusal.DIMENSION
        return None

    def _facts(self) -> dict[str, str | int]:
        return {
            "version": __version__,
            "dimension": self._model.layout.size,
            "layout": self._model.layout.digest(),
            "initial": self._model.initial_digest,
            "encoder": self._party.encoder,
        }

    def _train(self, request: Request) -> bytes:
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
            return self._update(before, lambda: self._fit(request.round, stage))
        # the ledger first; only then the data
        return guard.train(
            request.round,
            request.body,
            lambda keys: self._update(before, lambda: self._fit_privately(guard, stage, keys)),
        )

    def _update(self, before: Vector | None, fit: Callable[[], None]) -> bytes:
        # 2. local training
        fit()
        # 3. the update (later: quantised and masked)
        update = self._model.delta() if before is None else self._model.delta() - before
        return vector_to_bytes(update)

    def _fit(self, round_: int, stage: Stage) -> None:
        loss = self._model.fit(self._party.train, stage, progress=self._progress)
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

    def _evaluate(self, request: Request) -> bytes:
        self._receive(request)
        guard = self._guard
        if guard is None or guard.plan.counts is None:
            return self._exact_counts(request)
        mechanism, unit = guard.plan.counts, guard.privacy.unit

        def noised(keys: Keys) -> bytes:
            by_unit = self._model.evaluate_by_unit(self._party.test, unit)
            by_unit[:, Evaluation.outside(self._study.task.labels)] = 0
            return counts_to_bytes(noised_counts(by_unit, mechanism, keys("noise")))

        return guard.evaluate(request.round, request.body, noised)

    def _exact_counts(self, request: Request) -> bytes:
        evaluation = self._model.evaluate(self._party.test)
        self._report("evaluate", {"round": request.round, "f1": evaluation.f1})
        return counts_to_bytes(evaluation.counts)

    def _receive(self, request: Request) -> Vector | None:
        size = self._model.layout.size
        delta = vector_from_bytes(request.body, size) if request.body else None
        self._model.set_delta(delta)
        return delta

    def _reply(
        self, request: Request, *, facts: dict[str, str | int] | None = None, body: bytes = b""
    ) -> Reply:
        return Reply(
            kind=request.kind,
            study=self._hash,
            round=request.round,
            institution=self._party.name,
            facts=facts or {},
            ledger=self._guard.head if self._guard else "",
            body=body,
        )

    def _refusal(self, kind: Kind, round_: int, code: Refusal) -> Reply:
        return Reply(
            kind=kind,
            study=self._hash,
            round=round_,
            institution=self._party.name,
            refusal=code.value,
        )


def worth_keeping(reply: bytes) -> bool:
    """Whether a reply may be given again: all but an internal error and a full budget."""
    if len(reply) > MAX_HEADER_BYTES:
        return True
    return decode_reply(reply).refusal not in {Refusal.INTERNAL, Refusal.BUDGET}


def refuse_unexpected(error: BaseException) -> bytes:
    """What the service answers if `handle` itself breaks: a code, never the error's text."""
    log.error("the worker failed outside a session: %s", type(error).__name__)
    reply = Reply(
        kind="hello", study=UNKNOWN, round=0, institution=UNKNOWN, refusal=Refusal.INTERNAL.value
    )
    return encode(reply)
