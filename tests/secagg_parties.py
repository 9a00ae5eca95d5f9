"""Coordinator and institutions of a secure sum, joined in memory; every byte is a test's own.

`Parties` makes identities and agreement; `Federation` runs one session, in which institutions may
vanish before any stage, and a test may rewrite what either side hears.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from common.identity.signing import Signer
from common.secagg import institution, statements
from common.secagg.coordinator import Coordinator
from common.secagg.errors import SecaggError
from common.secagg.params import Parameters, default_collusion, smallest_threshold
from common.secagg.session import Context, Party, Session
from common.secagg.states import Idle, Step
from common.secagg.transitions import Phase

STUDY, ROSTER, MODEL = "1a" * 32, "2b" * 32, b"\x3c" * 32
STAGES = ("advertise", "share", "mask", "sign", "open")
LENGTH = 5


def seed(*name: object) -> bytes:
    """32 bytes of a name, the same always."""
    return hashlib.sha256(repr(name).encode()).digest()


def bytes_of(n: int, *name: object) -> bytes:
    """`n` bytes of a name."""
    return b"".join(seed(*name, block) for block in range(-(-n // 32)))[:n]


def parameters(n: int = 5, **changes: object) -> Parameters:
    """Of `n` institutions, with the defaults of a malicious study."""
    adversary = changes.get("adversary", "malicious")
    collusion = changes.get("collusion", default_collusion(n) if adversary == "malicious" else 1)
    threshold = changes.get("threshold", smallest_threshold(n, collusion, adversary))
    settings = {
        "institutions": tuple(f"site-{i:03d}" for i in range(n)),
        "threshold": threshold,
        "collusion": collusion,
        "adversary": adversary,
        "min_cohort": max(threshold, collusion + 2),
        "value_bits": 12,
        "bits": 24,
    }
    return Parameters(**settings | changes)


class Parties:
    """Identities and agreement of a study.

    Args:
        params: of the study.
        study, roster: hashes.
    """

    def __init__(self, params: Parameters, *, study: str = STUDY, roster: str = ROSTER):
        self.parameters = params
        self.signers = [Signer(seed("identity", i)) for i in range(params.n)]
        self.coordinator = Signer(seed("identity", "coordinator"))
        self.context = Context(
            parameters=params,
            study=study,
            roster=roster,
            public_keys=tuple(signer.public_key for signer in self.signers),
            coordinator=self.coordinator.public_key,
        )

    def party(self, index: int, min_cohort: int = 0) -> Party:
        """One institution."""
        return Party(
            context=self.context, index=index, signer=self.signers[index], min_cohort=min_cohort
        )

    def session(self, round: int = 1, attempt: int = 1, purpose: str = "train") -> Session:
        """A session of the study."""
        return Session(
            study=self.context.study, roster=self.context.roster, purpose=purpose, round=round,
            attempt=attempt,
        )  # fmt: skip

    def machine(self, session: Session | None = None, length: int = LENGTH) -> Coordinator:
        """The coordinator's machine."""
        return Coordinator(
            context=self.context, session=session or self.session(), signer=self.coordinator,
            length=length,
        )  # fmt: skip

    def signed(self, request) -> bytes:
        """The bytes of a request that the coordinator signs as it stands."""
        return statements.signed(self.coordinator, request)

    def testified(self, reply, index: int | None = None) -> bytes:
        """The bytes of a reply that its sender, or another institution, signs as it stands."""
        signer = self.signers[reply.sender if index is None else index]
        return statements.testified(signer, reply)

    def vector(self, index: int, length: int = LENGTH) -> np.ndarray:
        """An institution's quantised values, modulo `2^k`: the largest levels among them."""
        largest = (1 << (self.parameters.value_bits - 1)) - 1
        draw = np.random.default_rng(index)
        values = draw.integers(-largest, largest, size=length, endpoint=True)
        values[: min(2, length)] = (largest, -largest)[: min(2, length)]
        return (values % (1 << self.parameters.bits)).astype(np.uint32)

    def plain_sum(self, indices, length: int = LENGTH) -> np.ndarray:
        """What the secure sum must be, in Python's integers."""
        columns = zip(*(self.vector(i, length).tolist() for i in indices), strict=True)
        return np.array([sum(column) % (1 << self.parameters.bits) for column in columns])


def answered(machine: Coordinator) -> dict[Phase, frozenset[int]]:
    """Whose replies the coordinator holds, by phase."""
    return {phase: frozenset(who) for phase, who in machine._done.items()}


Rewrite = Callable[[int, bytes], bytes]


@dataclass
class Federation:
    """One session of all institutions.

    Attributes:
        parties: identities and agreement.
        machine: the coordinator's.
        states: of institutions, by index.
        stays: how many stages each institution answers; all if absent.
        heard: every request and reply, by stage and index.
        errors: what institutions raised, by index.
        to_institution, to_coordinator: by stage, what a test makes of a message on its way.
        remembered: shared by federations of the same parties: what an institution that heard the
            same requests has answered. States are frozen, so that it is the same answer.
    """

    parties: Parties
    machine: Coordinator = None
    states: dict = field(default_factory=dict)
    stays: Mapping[int, int] = field(default_factory=dict)
    heard: dict = field(default_factory=dict)
    errors: dict = field(default_factory=dict)
    to_institution: dict[str, Rewrite] = field(default_factory=dict)
    to_coordinator: dict[str, Rewrite] = field(default_factory=dict)
    model: bytes = MODEL
    remembered: dict | None = None
    histories: dict = field(default_factory=dict)
    requests: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine = self.machine or self.parties.machine()
        for i in range(self.parties.parameters.n):
            self.states.setdefault(i, Idle(party=self.parties.party(i), newest={}))

    def run(self) -> "Federation":
        """All stages; raises what the coordinator raises."""
        return self.reach(None)

    def reach(self, stop: str | None) -> "Federation":
        """The stages before one, whose requests are then in `requests`; nobody has heard them."""
        self.requests = self.machine.invite()
        for stage in STAGES[: STAGES.index(stop) if stop else None]:
            if stage == "sign" and self.machine.phase is Phase.OPENINGS:
                continue
            self.stage(stage, self.requests)
            self.requests = self.machine.close()
            if self.machine.phase is Phase.MODEL:
                self.requests = self.machine.instruct(self.model)
        return self

    def stage(self, stage: str, requests: Mapping[int, bytes]) -> None:
        """One stage: requests go out, replies come back."""
        for index, request in requests.items():
            if self.stays.get(index, len(STAGES)) <= STAGES.index(stage):
                continue
            rewrite = self.to_institution.get(stage)
            message = rewrite(index, request) if rewrite else request
            self.heard[stage, index, "request"] = message
            try:
                reply = self.answer(stage, index, message)
            except SecaggError as error:
                self.errors[index] = error
                continue
            self.heard[stage, index, "reply"] = reply
            rewrite = self.to_coordinator.get(stage)
            self.machine.receive(index, rewrite(index, reply) if rewrite else reply)

    def answer(self, stage: str, index: int, message: bytes) -> bytes:
        """One institution's reply; raises why there is none."""
        heard = (*self.histories.get(index, ()), hashlib.sha256(message).digest())
        step = self.remembered.get((index, heard)) if self.remembered is not None else None
        step = step or self._step(stage, index, message)
        if self.remembered is not None:
            self.remembered[index, heard] = step
        self.histories[index], self.states[index] = heard, step.state
        if step.aborted is not None:
            raise step.aborted
        return step.reply

    def _step(self, stage: str, index: int, message: bytes) -> Step:
        step = advance(self.states[index], message, index)
        if stage == "mask" and not step.reply and step.aborted is None:
            step = institution.submit(step.state, self.parties.vector(index))
        return step


def advance(state, message: bytes, *name: object) -> Step:
    """`receive`, with random bytes of a name and the stage."""
    random = bytes_of(institution.random_bytes(state), "random", state.stage.value, *name)
    return institution.receive(state, message, random)
