"""The worker's side of a study: opaque request bytes in, reply bytes out.

It alone touches documents and model. What it answers is an allow-listed header and a vector, or, in
a study with secure aggregation, messages of the secure sum and no vector; why it refuses is logged
here and travels as a code.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from client.consent import Consent, Denied, Witness
from client.guard import Guard
from client.rounding import Rounding
from client.sums import SpentError, Sums
from client.watch import Watch, Watches
from client.work import Party, Report, Work
from common import __version__
from common.audit.words import name_of
from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import BudgetError, PolicyError, ProtocolError, StorageError
from common.identity.signing import verify
from common.io.withdrawn_file import ReadWithdrawn
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel
from common.policy import Facts
from common.privacy.ledger_state import LedgerState
from common.privacy.plan import evaluation_due
from common.secagg.errors import OutOfOrderError, SecaggError, UnsignedError
from common.secagg.pipeline import Levels, Packed
from common.sums import counts_to_sum
from common.wire import (
    HEADS,
    MAX_HEADER_BYTES,
    RECEIPTS,
    UNKNOWN,
    Kind,
    Refusal,
    Reply,
    Request,
    counts_from_bytes,
    decode_reply,
    decode_request,
    encode,
    head_text,
    is_hash,
    receipts_text,
    vector_to_bytes,
)

__all__ = ["Party", "Report", "Session", "refuse_unexpected", "worth_keeping"]

log = logging.getLogger("fedner.worker")

_SUMS_BYTES: Final = 1 << 12
_SUMS_BYTES_EACH: Final = 1 << 10
"""More than all that a bundle holds for one institution of the roster."""


class Session:
    """One institution's part in one study.

    Between two requests nothing is kept here but the warm model and the machines of secure sums.
    Without a privacy mechanism, weights, optimiser and random state follow from request and study
    alone, so a repeated request gives the same update as long as nobody else has withdrawn; with
    one, the guard has kept it.

    Args:
        model: may be shared by the institutions of one simulation.
        progress: told steps done and steps in all.
        report: told the site's own figures.
        guard: of a study with a privacy mechanism; exactly then.
        sums: of a study with secure aggregation; exactly then.
        witness: shows the facts that the policy is decided by; nothing is shown if absent.
        read_withdrawn: reads who has withdrawn; absent if the site has no such list.
        watch: told how each request fares; nobody if absent.

    Raises:
        PolicyError: a guard or sums too many or too few.
        DataError: who has withdrawn can't be read.
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
        sums: Sums | None = None,
        witness: Witness = lambda asked: Facts(asked=asked),
        read_withdrawn: ReadWithdrawn | None = None,
        watch: Watch | None = None,
    ):
        if (sums is None) != (study.secure is None):
            raise PolicyError(
                "a study with secure aggregation needs its sums, and no other has them",
                place=party.name,
            )
        self._study = study
        self._hash = study_hash(study)
        self._model = model
        self._guard = guard
        self._sums = sums
        self._watch: Watch = watch or Watches()
        report = report or (lambda _kind, _figures: None)
        self._work = Work(study, party, model, guard, report, progress)
        self._consent = Consent(study, party, self._work, witness, read_withdrawn)
        self._rounding = None
        if sums is not None:
            bits = sums.party.context.parameters.bits
            self._rounding = Rounding(study, party.name, bits, report)

    @property
    def _party(self) -> Party:
        """Without the data of who has withdrawn: nothing else holds any here."""
        return self._work.party

    @property
    def ledger(self) -> LedgerState | None:
        """What the institution's privacy ledger says; `None` without a mechanism."""
        return None if self._guard is None else self._guard.state

    @property
    def max_body_bytes(self) -> int:
        """The largest body a request can rightly have."""
        return 4 * self._model.layout.size

    @property
    def max_request_bytes(self) -> int:
        """The largest request that is not refused unread."""
        n = len(self._study.federation.institutions)
        sums = 0 if self._sums is None else _SUMS_BYTES + n * _SUMS_BYTES_EACH
        return self.max_body_bytes + MAX_HEADER_BYTES + 8 + sums

    def close(self) -> None:
        """Give back what is held outside this process: locks of ledger and secure sums."""
        if self._sums is not None:
            self._sums.close()
        if self._guard is not None:
            self._guard.close()

    def handle(self, data: bytes) -> bytes:
        """Answer one request. Raises nothing: an error becomes a refusal code."""
        try:
            request = decode_request(data)
        except ProtocolError as error:
            return self._refuse("hello", 0, Refusal.MALFORMED, str(error))
        self._watch.heard(request)
        try:
            return encode(self._answer(request))
        except Exception as error:  # noqa: BLE001 - logged in full, sent as a code
            code, why = self._reason(request, error)
            return self._refuse(request.kind, request.round, code, why)

    def _reason(self, request: Request, error: Exception) -> tuple[Refusal, str]:
        """Code and reason of what went wrong."""
        match error:
            case Denied():
                return error.code, error.why
            case SecaggError():
                spent = isinstance(error, SpentError)
                return Refusal.SPENT if spent else Refusal.SUMS, str(error)
            case ProtocolError():
                return Refusal.MALFORMED, str(error)
            case StorageError():
                return Refusal.STORAGE, str(error)
            case BudgetError():
                return Refusal.BUDGET, str(error)
        log.error(
            "a %s request of round %d failed", request.kind, request.round,
            exc_info=error, extra={"about": f"{request.kind}, {name_of(error)}"},
        )  # fmt: skip
        return Refusal.INTERNAL, name_of(error)

    def _refuse(self, kind: Kind, round_: int, code: Refusal, why: str) -> bytes:
        """The one place that every refusal passes: in full to the site's log, a code to outside.

        Of one kind and code the log takes a few a minute (`client.worker_log`), as the audit log.

        Args:
            why: with figures, names and ids; never a document's text.
        """
        level = logging.ERROR if code in {Refusal.BUDGET, Refusal.STORAGE} else logging.WARNING
        line = "; ".join(why.splitlines())
        about = {"about": f"{kind}, {code.value}"}
        log.log(
            level, "refused %s of round %d, %s: %s", kind, round_, code.value, line, extra=about
        )
        self._watch.refused(kind, round_, code, why)
        return encode(self._refusal(kind, round_, code))

    def _answer(self, request: Request) -> Reply:
        self._check(request)
        if self._sums is not None and request.kind != "hello":
            return self._reply(request, sums=self._summed(request, self._sums))
        self._watch.working()
        if request.sums or request.kind == "sum":
            raise ProtocolError("a message of a secure sum, in a study without")
        if self._sums is None:  # else it is heard only what the coordinator's identity signed
            self._hear(request)
        if request.kind == "hello":
            return self._reply(request, facts=self._facts())
        return self._reply(request, body=self._plain(request))

    def _hear(self, request: Request) -> None:
        if self._guard is not None:
            self._guard.hear(request.receipts, vouched=self._sums is not None)

    def _plain(self, request: Request) -> bytes:
        """What leaves in a study that shows the coordinator each institution's own."""
        if request.kind == "evaluate":
            return self._work.evaluate(request)
        return self._work.train(request, lambda update, _keys: vector_to_bytes(update))

    def _summed(self, request: Request, sums: Sums) -> bytes:
        """The messages of the secure sum that answer a request's.

        What the coordinator did not sign is not worked on, and what was answered before is not
        worked on again: else whoever carries messages could fill the disk with the log of it.
        """
        if not request.sums:
            raise OutOfOrderError("an instruction that nobody signed", peer="coordinator")
        if request.kind == "sum":
            return sums.answer(request.sums, self._watch.working)
        coordinator, text = sums.party.context.coordinator, receipts_text(request)
        if not verify(coordinator, RECEIPTS, text, request.receipts_signature):
            raise UnsignedError("receipts that the coordinator did not sign", peer="coordinator")
        self._hear(request)
        purpose = "evaluate" if request.kind == "evaluate" else "train"
        task = sums.instructed(request.sums, purpose, request.round, request.body)
        if task.reply:
            return task.reply
        self._watch.working()
        return sums.masked(task, lambda: self._levels(request))

    def _levels(self, request: Request) -> Levels:
        """What goes under the masks."""
        if request.kind == "evaluate":
            size = Evaluation.size(self._study.task.labels)
            counts = counts_from_bytes(self._work.evaluate(request), size, noised=True)
            levels, cut = counts_to_sum(counts, len(self._study.federation.institutions))
            if cut:
                log.error("round %d: %d counts are too large and were cut", request.round, cut)
            return levels
        rounding = self._rounding
        if rounding is None:
            raise PolicyError("a study without secure aggregation rounds nothing")
        packed = self._work.train(
            request, lambda update, keys: rounding.round(request.round, update, keys)
        )
        return Packed(stream=packed, length=self._model.layout.size)

    def _check(self, request: Request) -> None:
        """Nothing of the data is touched before this.

        Raises:
            Denied: another study, the policy, or a request that this study has not.
        """
        if request.study != self._hash:
            asked = request.study if is_hash(request.study) else "that is no hash"
            raise Denied(Refusal.STUDY, f"study {asked} is asked, this site's is {self._hash}")
        self._consent.require(request.kind)
        if request.round > self._study.training.rounds or (request.round < 1) != (
            request.kind == "hello"
        ):
            raise Denied(Refusal.STALE, "the study has no such round")
        if request.kind == "evaluate" and not evaluation_due(self._study, request.round):
            raise Denied(Refusal.STALE, "no evaluation is due after this round")
        if len(request.body) not in {0, 4 * self._model.layout.size}:
            raise Denied(Refusal.DIMENSION, f"a model of {len(request.body)} bytes")

    def _facts(self) -> dict[str, str | int]:
        return {
            "version": __version__,
            "dimension": self._model.layout.size,
            "layout": self._model.layout.digest(),
            "initial": self._model.initial_digest,
            "encoder": self._party.encoder,
        }

    def _reply(
        self,
        request: Request,
        *,
        facts: dict[str, str | int] | None = None,
        body: bytes = b"",
        sums: bytes = b"",
    ) -> Reply:
        reply = Reply(
            kind=request.kind,
            study=self._hash,
            round=request.round,
            institution=self._party.name,
            facts=facts or {},
            ledger=self._guard.head if self._guard else "",
            body=body,
            sums=sums,
        )
        if self._sums is None or not reply.ledger:
            return reply
        signed = self._sums.party.signer.sign(HEADS, head_text(reply))
        return replace(reply, ledger_signature=signed)

    def _refusal(self, kind: Kind, round_: int, code: Refusal) -> Reply:
        return Reply(
            kind=kind,
            study=self._hash,
            round=round_,
            institution=self._party.name,
            refusal=code.value,
        )


def worth_keeping(reply: bytes) -> bool:
    """Whether a reply may be given again: all but an internal error, and refusals that depend on
    the moment: by the policy, for a full budget, for a full disk, and of a secure sum.
    """
    if len(reply) > MAX_HEADER_BYTES:
        return True
    passing = {
        Refusal.INTERNAL, Refusal.POLICY, Refusal.BUDGET, Refusal.STORAGE, Refusal.SUMS,
        Refusal.SPENT,
    }  # fmt: skip
    return decode_reply(reply).refusal not in passing


def refuse_unexpected(error: BaseException) -> bytes:
    """What the service answers if `handle` itself breaks: a code, never the error's text."""
    log.error("the worker failed outside a session: %s", name_of(error))
    reply = Reply(
        kind="hello", study=UNKNOWN, round=0, institution=UNKNOWN, refusal=Refusal.INTERNAL.value
    )
    return encode(reply)
