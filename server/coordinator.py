"""The study as the coordinator runs it, in numbered steps. How it asks: `server.asking`.

Guarantees:
    * It goes on from the run's folder: with the round after the checkpoint's, or with that round's
      evaluation if it was due and is not recorded. A fresh folder begins at round 1.
    * A round's checkpoint, with its line for the metrics, is on disk before anyone sees its model.
    * A disk that is full once vectors have come loses none for want of a checkpoint, of a line in
      the metrics or of a receipt: room for both of the former is taken before anybody is asked for
      a vector, and receipts wait in memory; without either, nobody is asked.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from common.config.study import Study
from common.errors import FederationError, IdentityError
from common.io.standing import Standing
from common.metrics.entities import as_json
from common.metrics.evaluation import Evaluation
from common.privacy.notice import notices
from common.privacy.plan import epsilon_after, evaluation_due, plan_of
from common.privacy.statement import statement
from common.schedule import rate_factor
from common.wire import vector_to_bytes
from server.asking import Asking, Exchange
from server.attempts import ATTEMPTS_FILE, Attempts
from server.audit import RunAudit
from server.collect import Collected, Collector, PlainCollector, SecureCollector
from server.optimizer import ServerOptimizer, Vector
from server.progress import Progress
from server.receipts import ReceiptBook
from server.run_dir import RunDir
from server.sums import GivenError
from server.terms import Terms, common_terms, require_as_begun

log = logging.getLogger("fedner.server")


class Coordinator:
    """Runs one study.

    Args:
        run: where metrics and checkpoints go.
        on_event: told each recorded event, for a display.
        book: where heads of privacy ledgers are countersigned; absent without a mechanism.
        standing: the coordinator's key and roster, in a study with secure aggregation.
    """

    def __init__(
        self,
        study: Study,
        exchange: Exchange,
        run: RunDir,
        on_event: Callable[[str, Mapping[str, Any]], None] | None = None,
        book: ReceiptBook | None = None,
        standing: Standing | None = None,
    ):
        self._standing = standing
        self._book = book
        self._study = study
        self._exchange = exchange
        self._run = run
        self._audit = RunAudit(run, study, standing)
        self._on_event = on_event or (lambda _event, _figures: None)
        self._progress = Progress(run.path)
        self._asking = Asking(
            study, exchange, self._audit, self._progress, self._record, book, standing
        )

    def run(self) -> None:
        """Carry the study through.

        Raises:
            FederationError: institutions missing or unlike, or fewer updates than the quorum.
            IdentityError: a study with secure aggregation, and no key or roster.
            AuditError: the audit log can't be written, or is not what it was.
        """
        self._require_standing()
        with self._audit:
            self._carry_out()

    def seen(self, name: str, state: str) -> None:
        """Note what became of an institution: joined, back, why it is not taken in, or revoked."""
        self._record("institution", name=name, state=state)

    def _carry_out(self) -> None:
        for notice in notices(self._study):
            log.warning(notice)
        # 1. find the institutions, and refuse a study whose base weights differ
        terms = common_terms(self._asking.gather())
        optimizer, done = self._begin(terms)
        collect = self._collector(terms.dimension)
        try:
            for round_ in range(max(done, 1), self._study.training.rounds + 1):
                if round_ > done:
                    self._train(collect, optimizer, round_)
                # 4. federated evaluation on each institution's own held-out data
                if evaluation_due(self._study, round_) and not self._evaluated(round_):
                    self._evaluate(collect, optimizer, round_)
        finally:
            self._run.checkpoint_room(optimizer).release()

    def _begin(self, terms: Terms) -> tuple[ServerOptimizer, int]:
        """The state to go on from, and the last finished round; 0 before the first.

        Raises:
            FederationError: the institutions are not those of the run's start, or the checkpoint is
                damaged.
        """
        checkpoint = self._run.checkpoint(self._study.aggregation, terms.dimension)
        started = self._run.events("start")
        if not started:
            self._record("start", **asdict(terms), **self._protection())
            return ServerOptimizer.start(self._study.aggregation, terms.dimension), 0
        require_as_begun(terms, started[0])
        done = 0 if checkpoint is None else checkpoint.round
        log.warning("going on after round %d", done)
        self._record("resume", round=done, **asdict(terms))
        if checkpoint is None:
            return ServerOptimizer.start(self._study.aggregation, terms.dimension), 0
        if not any(event["round"] == done for event in self._run.events("round")):
            self._record("round", **checkpoint.figures)
        return checkpoint.optimizer, done

    def _train(self, collect: Collector, optimizer: ServerOptimizer, round_: int) -> None:
        started = time.monotonic()
        room = self._run.checkpoint_room(optimizer)
        room.hold()
        # 2. local training, and the sum of what comes back
        trained = collect.updates(round_, _body(optimizer.delta))
        optimizer.step(trained.values, self._rate_factor(round_))
        figures = {
            "round": round_,
            "institutions": sorted(trained.institutions),
            "seconds": round(time.monotonic() - started, 3),
            **self._spent(round_),
            **trained.figures,
        }
        # 3. checkpoint before anything is said about the new model
        self._run.save_checkpoint(optimizer, round_, figures, room)
        self._record("round", **figures)

    def _evaluated(self, round_: int) -> bool:
        """Whether the evaluation is recorded, or that there is none."""
        events = self._run.events("evaluation") + self._run.events("evaluation_missing")
        return any(event["round"] == round_ for event in events)

    def _protection(self) -> dict[str, Any]:
        """What each institution's mechanism promises; nothing without one."""
        if self._study.local_privacy is None:
            return {}
        names = self._study.federation.institutions
        protection = {name: statement(self._study, name).as_dict() for name in names}
        key = self._book.public_key if self._book else None
        return {"protection": protection, "coordinator_key": key}

    def _spent(self, round_: int) -> dict[str, float]:
        """Epsilon by the plan once this round is over; nothing without a mechanism."""
        if self._study.local_privacy is None:
            return {}
        study, names = self._study, self._study.federation.institutions
        return {"epsilon": max(epsilon_after(study, plan_of(study, n), round_) for n in names)}

    def _require_standing(self) -> None:
        if (self._standing is None) != (self._study.secure is None):
            raise IdentityError(
                "a study with secure aggregation needs the coordinator's identity and roster, and "
                "no other has them",
                place=self._study.study,
                remedy="fedner server STUDY --identity FOLDER --roster FILE: docs/identity.md",
            )

    def _collector(self, dimension: int) -> Collector:
        """How updates and counts come together in this study."""
        if self._standing is None:
            return PlainCollector(
                self._study, dimension, self._asking.tell_all, self._asking.require
            )
        return SecureCollector(
            self._study,
            dimension,
            self._standing,
            ask=self._asking.ask,
            present=self._exchange.present,
            record=self._record,
            attempts=Attempts(self._run.path / ATTEMPTS_FILE),
            stage=self._progress.stage,
        )

    def _rate_factor(self, round_: int) -> float:
        training = self._study.training
        if self._study.aggregation.schedule == "constant":
            return 1.0
        return rate_factor((round_ - 0.5) / training.rounds, training.warmup)

    def _evaluate(self, collect: Collector, optimizer: ServerOptimizer, round_: int) -> None:
        try:
            counted = collect.counts(round_, _body(optimizer.released))
        except GivenError as error:  # exact counts are given once; the model does not need them
            log.warning("round %d: no evaluation: %s", round_, error.message)
            self._record("evaluation_missing", round=round_, reason=error.message)
            return
        self._record_evaluation(counted, round_)

    def _record_evaluation(self, counted: Collected[Evaluation], round_: int) -> None:
        privacy = self._study.local_privacy
        noised = privacy is not None and privacy.evaluation != "exact"
        total = counted.values.made_consistent() if noised else counted.values
        self._record(
            "evaluation",
            round=round_,
            institutions=sorted(counted.institutions),
            noised=noised,
            f1=total.f1,
            entities=as_json(total.entity_report()),
            tokens=as_json(total.token_report()),
            **counted.figures,
        )

    def _record(self, event: str, **figures: Any) -> None:
        try:
            self._run.record(event, self._study, **figures)
        except FederationError as error:
            if not self._audit.give_way():
                raise
            log.error("room that was kept for the audit log is given up: %s", error)
            self._run.mend()  # of the line that did not fit, if a part of it is there
            self._run.record(event, self._study, **figures)
        self._audit.event(event, figures)
        self._on_event(event, figures)


def _body(delta: Vector) -> bytes:
    return vector_to_bytes(delta) if delta.any() else b""
