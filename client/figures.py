"""An institution's own figures: its loss, its scores, its spend. They stay at the institution.

    state/figures/STUDY/metrics.jsonl   what was done, a line each: docs/metrics.md
    state/figures/STUDY/progress.json   what the worker is at, this moment

STUDY is the beginning of the study's hash: a site may take part in one study after another.

Guarantees:
    * No figure here is part of any reply; both files are for this user alone.
    * Whoever carries messages can't fill the disk: refusals are only counted, and of one kind and
      round a worker writes `MOST` lines, however often it is asked.
    * Whatever goes wrong here stops no study and changes no reply: it is said once.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from client.audit import Ledger
from client.service import Handle
from client.site_paths import SitePaths
from common.audit.words import name_of
from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import FednerError
from common.io import journal
from common.io.display_file import DisplayFile
from common.privacy.ledger_spend import pld_epsilon, spent
from common.privacy.ledger_state import LedgerState
from common.privacy.plan import plan_of
from common.wire import Kind, Refusal, Request

log = logging.getLogger("fedner.worker")

MOST: Final = 5
_SHOW_EVERY_S: Final = 0.5
_REMEDY: Final = "free some space; no study depends on it"


@dataclass(slots=True)
class Doing:
    """What the worker is at.

    Attributes:
        since: Unix seconds.
        step: of `steps`, in training.
        bytes_down: of all requests since the start; `bytes_up` of all replies.
        refused: how often, by code, since the start.
    """

    asked: str = "start"
    round: int = 0
    since: float = 0.0
    step: int = 0
    steps: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    last_refusal: str = ""


class SiteFigures:
    """A `client.watch.Watch` that writes them down.

    Args:
        clock: Unix seconds.
    """

    def __init__(
        self,
        study: Study,
        institution: str,
        paths: SitePaths,
        clock: Callable[[], float] = time.time,
    ):
        self._study, self._name, self._clock = study, institution, clock
        self._hash = study_hash(study)
        self._path = paths.metrics(self._hash)
        self._file = DisplayFile(paths.progress(self._hash), log)
        self._now = Doing(since=clock())
        self._shown, self._failed = 0.0, False
        self._worked = False
        self._written: Counter[tuple[str, int]] = Counter()

    def begin(self, train: int, test: int, ledger: LedgerState | None = None) -> None:
        """The worker is ready.

        Args:
            train, test: documents to train on, and held out.
            ledger: with a mechanism.
        """
        documents = {"train_documents": train, "held_out_documents": test}
        with self._harmless():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal.mend(self._path)
            self._line("start", **documents, **self._promised(), **self._spent(ledger))
        self._rest()

    def heard(self, request: Request) -> None:
        """A request that can be read."""
        self._now.asked, self._now.round = request.kind, request.round
        self._now.since, self._now.step, self._now.steps = self._clock(), 0, 0

    def working(self) -> None:
        """It is allowed."""
        self._worked = self._now.asked != "hello"
        self._show()

    def refused(self, kind: Kind, round_: int, code: Refusal, why: str) -> None:
        """It is refused."""
        self._now.refused[code.value] = self._now.refused.get(code.value, 0) + 1
        self._now.last_refusal = f"{kind} of round {round_}: {code.value}: {why}"
        self._worked = False

    def step(self, done: int, total: int) -> None:
        """A step of training was taken."""
        self._now.step, self._now.steps = done, total
        self._show()

    def report(self, kind: str, figures: Mapping[str, Any]) -> None:
        """Loss, scores, or what rounding cut."""
        with self._harmless():
            if self._is_due(kind, figures["round"]):
                self._line(kind, **figures)

    def answering(self, answer: Handle, ledger: Ledger) -> Handle:
        """`answer`, with what went in and out counted, and a line for what was worked on."""

        def handle(data: bytes) -> bytes:
            self._worked, started = False, self._clock()
            reply = answer(data)
            with self._harmless():
                self._now.bytes_down += len(data)
                self._now.bytes_up += len(reply)
                asked = self._now.asked
                worked = self._worked and asked in ("train", "evaluate")
                if worked and self._is_due(f"reply to {asked}", self._now.round):
                    seconds = self._clock() - started
                    self._answered(len(data), len(reply), seconds, ledger())
            self._rest()
            return reply

        return handle

    def _answered(self, down: int, up: int, seconds: float, state: LedgerState | None) -> None:
        now = self._now
        self._line(
            "reply", asked=now.asked, round=now.round, bytes_down=down, bytes_up=up,
            seconds=round(seconds, 3), refused=dict(now.refused), **self._spent(state),
        )  # fmt: skip

    def _promised(self) -> dict[str, Any]:
        privacy = self._study.local_privacy
        if privacy is None:
            return {}
        plan = plan_of(self._study, self._name)
        return {"unit": privacy.unit, "delta": plan.delta, "epsilon_planned": plan.epsilon}

    def _spent(self, state: LedgerState | None) -> dict[str, float]:
        """Epsilon of all that this study was charged here, by the ledger."""
        privacy = self._study.local_privacy
        if state is None or privacy is None:
            return {}
        events = spent(state, unit=privacy.unit, study=self._hash, purposes=("train", "evaluate"))
        with self._harmless():  # without the figure the line is worth writing
            return {"epsilon": pld_epsilon(events, privacy.delta) if events else 0.0}
        return {}

    def _is_due(self, kind: str, round_: int) -> bool:
        """Whether a line of this kind and round is written still."""
        self._written[kind, round_] += 1
        return self._written[kind, round_] <= MOST

    def _line(self, event: str, **figures: Any) -> None:
        line = {
            "event": event,
            "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "institution": self._name,
            "study": self._study.study,
            "study_sha256": self._hash,
            "privacy": self._study.privacy_mechanism,
        }
        journal.append(self._path, {**line, **figures}, _REMEDY)

    def _rest(self) -> None:
        """Nothing is asked now."""
        self._now.asked, self._now.since, self._shown = "", self._clock(), 0.0
        self._show()

    def _show(self) -> None:
        """Not more often than anybody can see."""
        with self._harmless():
            if abs(self._clock() - self._shown) >= _SHOW_EVERY_S:
                self._shown = self._clock()
                self._file.write(asdict(self._now))

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Nothing that goes wrong in the block leaves it: a loss that is no number, a full disk."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a display is not worth a study
            if not self._failed:
                known = isinstance(error, FednerError)
                why = str(error) if known else name_of(error)
                log.warning("this site's own figures are not whole: %s", why)
            self._failed = True
