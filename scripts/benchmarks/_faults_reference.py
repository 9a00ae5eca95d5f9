"""The undisturbed run that a faulty one is compared with: the same institutions in each sum.

In this process, by the coordinator's and the workers' own code, and with secure sums; who is in a
sum is decided beforehand, and nothing else goes wrong. Under test seeds its weights are those of
any run with the same survivors, to the bit.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from client.session import Session
from common.config.canonical import study_yaml
from common.io.configs import load_study
from common.secagg.bundle import split
from common.secagg.codec import decode
from common.sums import Sum
from common.wire import Kind, Reply, decode_reply, decode_request
from scripts.simulation import Bench, Cast
from server.coordinator import Coordinator
from server.mail import Leaving, Letter, Take
from server.receipts import ReceiptBook
from server.run_dir import RunDir

Purpose = Literal["train", "evaluate"]
Survivors = Mapping[Sum, Collection[str]]
"""Who is in each sum."""


class After(NamedTuple):
    """What a round has come to.

    Attributes:
        weights: SHA-256 of the released model's trained weights.
        noised_f1: of its evaluation, if one was due.
    """

    weights: str
    noised_f1: float | None


def digest(weights: bytes) -> str:
    """SHA-256 of trained weights."""
    return hashlib.sha256(weights).hexdigest()


class _EnoughError(Exception):
    """The coordinator asks for more than is wanted yet."""


class Reference:
    """Goes as far as it is told, and on from there.

    Args:
        study: the file that a federation was dealt from.
        folder: to be made, or one of before, which is gone on with.
    """

    def __init__(self, study: Path, folder: Path):
        self.study = load_study(study)
        self._bench = Bench.of(self.study, study.parent)
        self._model = self._bench.model("cpu")
        self._score = self._bench.model("cpu")
        self._test = self._score.prepare(self._bench.all_test)
        self._folder = folder
        cast = Cast.of(self.study)
        self._cast = cast
        self._sessions = {
            name: self._bench.session(name, self._model, folder / name, cast=cast)
            for name in self.study.federation.institutions
        }
        self.run = RunDir.create(folder / "run", study_yaml(self.study))
        self._done: dict[int, After] = {}

    @property
    def institutions(self) -> tuple[str, ...]:
        """All of the study."""
        return self.study.federation.institutions

    def close(self) -> None:
        """Give back the locks of ledgers and sums."""
        for session in self._sessions.values():
            session.close()

    def after(self, round_: int, survivors: Survivors) -> After:
        """The state after a round and its evaluation, with these in the sums up to it.

        Raises:
            FednerError: no sum comes about over so few.
        """
        if round_ not in self._done:
            exchange = _Decided(self._sessions, survivors, round_)
            self._go(exchange)
            delta, reached = self.run.load_delta()
            found = [e["f1"] for e in self.run.events("evaluation") if e["round"] == round_]
            if reached != round_:
                raise ValueError(f"went to round {reached}, not {round_}: ask for each in order")
            self._done[round_] = After(digest(delta.tobytes()), found[0] if found else None)
        return self._done[round_]

    def _go(self, exchange: "_Decided") -> None:
        book = ReceiptBook(self._folder / "coordinator")
        standing = self._cast.standing
        with suppress(_EnoughError):
            Coordinator(self.study, exchange, self.run, None, book, standing).run()

    def f1(self, weights: Any) -> float:
        """Exact micro F1 of trained weights on all held-out documents, which nobody else has."""
        self._score.set_delta(weights)
        return float(self._score.evaluate(self._test).f1)


class _Decided:
    """Implements `server.asking.Exchange`: who is not in a sum does not answer in it."""

    def __init__(self, sessions: Mapping[str, Session], survivors: Survivors, last: int):
        self._sessions, self._survivors, self._last = sessions, survivors, last

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask all, once."""
        answers = {name: one.handle(request) for name, one in self._sessions.items()}
        enough({name: decode_reply(data) for name, data in answers.items()})

    def present(self) -> Collection[str]:
        """All."""
        return frozenset(self._sessions)

    def ask(
        self,
        kind: Kind,
        round_: int,
        requests: Mapping[str, Letter],
        _most: int,
        take: Take,
        leaving: Leaving,
    ) -> None:
        """Ask those who are in the sum."""
        if round_ > self._last:
            raise _EnoughError
        leaving()
        for name, letter in requests.items():
            request = bytes(letter)
            if name in self._survivors[_sum_of(request)]:
                take(name, self._sessions[name].handle(request))


def _sum_of(request: bytes) -> Sum:
    """Of a bundle's messages the first is of the sum that is due, a second of the next one."""
    session = decode(split(decode_request(request).sums)[0]).session
    return session.purpose, session.round
