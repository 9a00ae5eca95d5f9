"""Both drivers of the secure sums joined in memory: real identities, machines and files, no model.

`Federation` asks each institution's `client.sums.Sums` directly and gives what comes back to
`server.sums.SecureSums`; a test may drop, restart or rewrite at any stage.
"""

from dataclasses import replace

import numpy as np

from client.sums import SpentError, Sums, open_sums
from common.config.site import Policy
from common.errors import FednerError
from common.secagg.bundle import split
from common.secagg.codec import decode
from common.secagg.session import PURPOSES
from common.sums import contexts_of
from common.wire import Refusal, Reply
from scripts.simulation import Cast
from server.attempts import Attempts
from server.sums import Answers, SecureSums
from tests.unit.test_secagg_config import secure

LENGTH = 7
ROUNDS = 9


def body_of(round_):
    """A model, another one in each round."""
    return np.array([round_, 0.5], np.float32).tobytes()


BODY = body_of(1)
STAGES = ("advertise", "share", "mask", "sign", "open")
_STAGE_OF_KIND = dict(zip((1, 3, 5, 7, 9), STAGES, strict=True))


class Federation:
    """All parties of one study.

    Attributes:
        lost: (purpose, round, stage, name) whose reply never arrives.
        deaf: the same, but the request never arrives either.
        before: called with (purpose, round, stage) before each trip, when it is about to leave.
        sent: every message that came to the coordinator.
        refused: (name, error) of what institutions refused.
        recorded: events.
    """

    def __init__(self, folder, n=5, section="{}", quorum=None, noised=False, evaluate_every=1):
        study = secure(section, n=n)
        study = replace(study, training=replace(study.training, rounds=ROUNDS))
        often = replace(study.federation, evaluate_every=evaluate_every)
        self.study = replace(study, federation=often)
        self.names = self.study.federation.institutions
        self.cast, self.folder = Cast.of(self.study), folder
        self.noised = noised
        self.lost, self.deaf, self.away = set(), set(), set()
        self.before = lambda *_: None
        self.trips, self.sent, self.requests, self.refused, self.recorded = [], [], [], [], []
        self.masked = {}
        self.sites = {name: self.fresh(name) for name in self.names}
        self.quorum = self.study.secure.min_cohort if quorum is None else quorum
        self.coordinator = self.make_coordinator()

    def make_coordinator(self, attempts=None) -> SecureSums:
        return SecureSums(
            contexts=contexts_of(self.study, self.cast.roster),
            signer=self.cast.coordinator.signer,
            lengths={"train": LENGTH, "evaluate": LENGTH},
            quorum=self.quorum,
            ask=self.ask,
            present=lambda: [name for name in self.names if name not in self.away],
            record=lambda event, **figures: self.recorded.append((event, figures)),
            attempts=attempts,
            noised=frozenset(PURPOSES if self.noised else ()),
        )

    def fresh(self, name) -> Sums:
        """An institution's worker as it is after a start: nothing but its files."""
        state = self.folder / name
        state.mkdir(exist_ok=True)
        policy = Policy(roster_sha256=self.cast.roster.sha256)
        signer = self.cast.identities[name].signer
        made = open_sums(self.study, self.cast.roster, name, signer, policy, state / "sums")
        if self.noised:
            made._noised = frozenset({"train", "evaluate"})
        return made

    def restart(self, name):
        self.sites[name].close()
        self.sites[name] = self.fresh(name)

    def forget(self, path=None):
        """Another coordinator: of what was tried it knows what the file says, and that it was."""
        self.coordinator = self.make_coordinator(Attempts(path))
        self.begin_attempts("train", 1, 3)

    def begin_attempts(self, purpose, round_, count):
        """Use numbers of attempts up; nobody hears of them."""
        for _ in range(count):
            self.coordinator._begin(purpose, round_)

    def vector(self, name, round_):
        """Levels modulo 2^k, the same for the same round."""
        draw = np.random.default_rng([self.names.index(name), round_])
        levels = draw.integers(-(2**15) + 1, 2**15 - 1, LENGTH)
        return (levels % (1 << self.bits)).astype(np.uint32)

    @property
    def bits(self):
        return self.study.secure.bits

    def plain_sum(self, names, round_):
        total = sum(self.vector(name, round_).astype(np.uint64) for name in names)
        return (total % (1 << self.bits)).astype(np.uint32)

    def ask(self, kind, round_, body, sums, most, take, leaving) -> Answers:
        if not sums:  # nobody is there
            return Answers(replied=(), down=0, up=0)
        first = decode(split(next(iter(sums.values())))[0])
        at = (first.session.purpose, first.session.round, _STAGE_OF_KIND[int(first.kind)])
        self.trips.append((*at, first.session.attempt, tuple(sums)))
        if any((*at, name) not in self.deaf and name not in self.away for name in sums):
            leaving()
        self.before(*at)
        replied, refused = [], {}
        for name, bundle in sums.items():
            if (*at, name) in self.deaf or name in self.away:
                continue
            self.requests.append((name, kind, round_, body, bundle))
            reply = self.answer(name, kind, round_, body, bundle)
            if (*at, name) in self.lost:
                continue
            if reply is None:
                refused |= {n: code_of(e) for n, e in self.refused[-1:] if n == name}
            else:
                assert len(reply) <= most
                self.sent.append(reply)
                replied.append(name)
                take(name, Reply(kind=kind, study="", round=round_, institution=name, sums=reply))
        down = sum(map(len, sums.values()))
        return Answers(replied=replied, refused=refused, down=down, up=0)

    def answer(self, name, kind, round_, body, bundle):
        """What a worker's session does with a request's bundle."""
        site = self.sites[name]
        try:
            if kind == "sum":
                return site.answer(bundle)
            task = site.instructed(bundle, kind, round_, body)
            return task.reply or site.masked(task, lambda: self.vector(name, round_))
        except FednerError as error:
            self.refused.append((name, error))
            return None

    def sum(self, purpose, round_, following=None, body=None):
        body = body_of(round_) if body is None else body
        return self.coordinator.sum(purpose, round_, body, following)


def code_of(error) -> str:
    """As a worker's session tells it."""
    return (Refusal.SPENT if isinstance(error, SpentError) else Refusal.SUMS).value
