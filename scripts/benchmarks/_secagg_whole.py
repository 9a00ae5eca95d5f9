"""One whole session of a secure sum: every institution and the coordinator are the real machines.

Before each of four stages (boxes, vectors, signatures, shares) a part of the roster vanishes, drawn
at random. The sum has to be that of the survivors in integers, to the bit, and the survivors those
who were there; else `WrongSumError` is raised. Keys are drawn from the operating system.
"""

import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.errors import FednerError
from common.identity.signing import Signer
from common.secagg.coordinator import Coordinator
from common.secagg.machine import Machine
from common.secagg.params import Parameters
from common.secagg.session import Context, Party, Session
from common.secagg.transitions import Stage

MODEL = bytes(32)
STAGES = ("keys", "boxes", "vectors", "signatures", "shares")


class WrongSumError(FednerError):
    """What came out is not the sum of the survivors."""


@dataclass
class Timed:
    """Processor seconds of one stage.

    Attributes:
        institutions: of each that answered.
        receiving: of the coordinator, taking all replies.
        closing: of the coordinator, ending the stage and making the next requests.
        sent, received: bytes of all requests and all replies.
    """

    institutions: list[float] = field(default_factory=list)
    receiving: float = 0.0
    closing: float = 0.0
    sent: int = 0
    received: int = 0


class Whole:
    """A study's parties, and one session of theirs.

    Args:
        parameters: of the study.
        length: values of a vector.
        dropout: share of the roster that vanishes before each stage but the first.
        seed: of the vectors and of who vanishes; not of keys.
        progress: told what is done, now and then.
    """

    def __init__(
        self,
        parameters: Parameters,
        length: int,
        dropout: float,
        seed: int = 0,
        progress: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ):
        self.parameters, self.length, self._progress = parameters, length, progress
        self._random = np.random.Generator(np.random.PCG64(seed))
        signers = [Signer(os.urandom(32)) for _ in range(parameters.n)]
        coordinator = Signer(os.urandom(32))
        context = Context(
            parameters=parameters, study="1a" * 32, roster="2b" * 32,
            public_keys=tuple(signer.public_key for signer in signers),
            coordinator=coordinator.public_key,
        )  # fmt: skip
        session = Session(study="1a" * 32, roster="2b" * 32, purpose="train", round=1, attempt=1)
        self._coordinator = Coordinator(
            context=context, session=session, signer=coordinator, length=length
        )
        self._machines = [
            Machine(Party(context=context, index=i, signer=signer), {}, os.urandom)
            for i, signer in enumerate(signers)
        ]
        self.leaving = self._draw_leaving(dropout)
        self.vectors = self._draw_vectors()
        self.times = {stage: Timed() for stage in STAGES}

    def _draw_leaving(self, dropout: float) -> dict[str, frozenset[int]]:
        """Who vanishes before each stage."""
        each = int(dropout * self.parameters.n)
        order = self._random.permutation(self.parameters.n)[: 4 * each].tolist()
        return {
            stage: frozenset(order[i * each : (i + 1) * each]) for i, stage in enumerate(STAGES[1:])
        }

    def _draw_vectors(self) -> np.ndarray:
        """Levels, int64 `[n, length]`, the largest of either sign among them."""
        largest = (1 << (self.parameters.value_bits - 1)) - 1
        shape = (self.parameters.n, self.length)
        vectors = self._random.integers(-largest, largest, shape, endpoint=True)
        vectors[:, :1], vectors[:, 1:2] = largest, -largest
        return vectors

    def run(self) -> None:
        """All stages.

        Raises:
            WrongSumError: the sum or the survivors are others than they must be.
            SecaggError: what a machine refuses; nothing must be.
        """
        requests, gone = self._coordinator.invite(), frozenset[int]()
        for stage in STAGES:
            gone |= self.leaving.get(stage, frozenset())
            self._stage(stage, requests, gone)
            closing = self._coordinator.close
            requests, self.times[stage].closing = _timed(closing)
            if stage == "boxes":
                requests, took = _timed(self._coordinator.instruct, MODEL)
                self.times[stage].closing += took
        self._check()

    def _stage(self, stage: str, requests: dict[int, bytes], gone: Iterable[int]) -> None:
        timed, there = self.times[stage], sorted(set(requests) - set(gone))
        for done, index in enumerate(there, 1):
            reply, took = _timed(self._answer, index, requests[index])
            timed.institutions.append(took)
            timed.sent += len(requests[index])
            timed.received += len(reply)
            timed.receiving += _timed(self._coordinator.receive, index, reply)[1]
            if done % 100 == 0 or done == len(there):
                self._progress(f"{stage}: {done} of {len(there)}, {len(requests)} asked")

    def _answer(self, index: int, request: bytes) -> bytes:
        machine = self._machines[index]
        step = machine.receive(request)
        if step.aborted is None and machine.stage is Stage.INSTRUCTED:
            modulus = 1 << self.parameters.bits
            step = machine.submit((self.vectors[index] % modulus).astype(np.uint32))
        if step.aborted is not None:
            raise step.aborted
        return step.reply

    def _check(self) -> None:
        """The survivors' sum in integers, modulo `2^k`."""
        gone = self.leaving["boxes"] | self.leaving["vectors"]
        expected = [i for i in range(self.parameters.n) if i not in gone]
        if list(self._coordinator.survivors) != expected:
            raise WrongSumError("the survivors are not those who sent a vector")
        total = self.vectors[expected].sum(axis=0) % (1 << self.parameters.bits)
        if not np.array_equal(self._coordinator.total, total):
            wrong = int(np.count_nonzero(self._coordinator.total != total))
            raise WrongSumError(f"{wrong} of {self.length} values are not the survivors' sum")

    @property
    def digest(self) -> str:
        """SHA-256 of the sum, to print."""
        return hashlib.sha256(self._coordinator.total.tobytes()).hexdigest()


def table(whole: Whole) -> str:
    """Seconds and bytes by stage, in Markdown."""
    rows = [
        "| stage | answered | s an institution, median | most | coordinator, s receiving "
        "| s closing | bytes to one | bytes from one |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stage, timed in whole.times.items():
        n, seconds = len(timed.institutions), timed.institutions
        rows.append(
            f"| {stage} | {n} | {statistics.median(seconds):.4f} | {max(seconds):.4f} "
            f"| {timed.receiving:.3f} | {timed.closing:.3f} "
            f"| {timed.sent // n:,} | {timed.received // n:,} |"
        )
    times = list(whole.times.values())
    one = sum(statistics.median(timed.institutions) for timed in times)
    receiving, closing = (sum(getattr(t, name) for t in times) for name in ("receiving", "closing"))
    rows.append(f"| all | | {one:.4f} | | {receiving:.3f} | {closing:.3f} | | |")
    return "\n".join(rows)


def _timed(step: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Processor time, so that what else the machine does does not count."""
    started = time.process_time()
    done = step(*arguments)
    return done, time.process_time() - started
