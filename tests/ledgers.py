"""Charges, clocks and an accountant for tests of the ledger; nothing here imports torch."""

import hashlib
import math
from itertools import count
from pathlib import Path

import pytest

from common.errors import BudgetError
from common.identity.signing import Signer
from common.io.ledger_file import LedgerFile
from common.privacy.events import GaussianSteps
from common.privacy.ledger import Charge, make_reserve
from common.privacy.ledger_codec import NO_HASH, countersign, make_entry
from common.privacy.ledger_entries import Anchor, Assumed, Commit, Note, Open, Recover
from common.privacy.ledger_state import advance

STEPS = 20
INSTITUTION = "cardiac-centre"
NOON = 1_700_000_000
DELTA = 2.0**-16
SIGNER = Signer(b"institution's key for tests only")
COORDINATOR = Signer(b"coordinator's key for tests only")
STRANGER = Signer(b"somebody else's key for a test..")


def digest(text):
    """A SHA-256 in hexadecimal that stands for something."""
    return hashlib.sha256(text.encode()).hexdigest()


def toy_epsilon(events, delta):
    """Monotone in all, exact in doubles: steps * rate / noise, times log2(1 / delta) / 16."""
    loss = sum(e.steps * e.sampling_rate / e.noise_multiplier for e in events)
    return loss * -math.log2(delta) / 16


def steps(number=STEPS, rate=0.125, noise=1.0):
    return GaussianSteps(sampling_rate=rate, noise_multiplier=noise, steps=number)


TWENTY = (steps(),)


def charge(round_=1, study="heart", *, events=TWENTY, **changes):
    """20 steps, which the toy accountant gives epsilon 2.5 at delta 2^-16."""
    fields = {
        "study": digest(study),
        "name": study,
        "round": round_,
        "purpose": "train",
        "request": digest(f"model of round {round_}"),
        "unit": "patient",
        "dataset": "notes",
        "events": tuple(events),
        "delta": DELTA,
        "target": 1000.0,
    }
    return Charge(**{**fields, **changes})


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


def chance():
    """Bytes that differ from call to call and are the same in every run."""
    numbers = count()
    return lambda size: hashlib.shake_256(str(next(numbers)).encode()).digest(size)


def open_ledger(folder: Path, **changes):
    fields = {"institution": INSTITUTION, "clock": Clock(), "epsilon": toy_epsilon}
    return LedgerFile.open(folder, **{**fields, **changes})


class Chain:
    """A ledger in memory, entry by entry, without any check of caps."""

    def __init__(self, signer=SIGNER, institution=INSTITUTION, ledger="0" * 32):
        self.signer, self.entries, self.state = signer, [], None
        self.add(
            Open(format=1, institution=institution, public_key=signer.public_key, ledger=ledger)
        )

    def make(self, body, *, time=NOON, **changes):
        prev = self.entries[-1].hash() if self.entries else NO_HASH
        fields = {"seq": len(self.entries) + 1, "time": time, "body": body, "prev": prev}
        return make_entry(**{**fields, **changes}, signer=self.signer)

    def add(self, body, **changes):
        entry = self.make(body, **changes)
        self.state = advance(self.state, entry)
        self.entries.append(entry)
        return self

    def commit(self, seq):
        return self.add(Commit(reserve=seq, vector=digest(f"vector {seq}")))

    @property
    def lines(self):
        return [entry.line() for entry in self.entries]

    @property
    def file(self):
        return b"".join(line + b"\n" for line in self.lines)


def reserve(chain, round_=1, study="heart", **changes):
    return make_reserve(chain.state, (), charge(round_, study, **changes), toy_epsilon)


def anchor(chain, signer=COORDINATOR, *, pinned=False, head=None):
    return Anchor(receipt=countersign(head or chain.state.head, signer, NOON), pinned=pinned)


def note():
    return Note(text="a note", file="ledger.torn-1", sha256=digest("torn"))


def recover(**changes):
    fields = {
        "reason": "lost", "heads": (), "ledgers": ("f" * 32,), "carried": (),
        "assumed": (Assumed(unit="patient", epsilon=10.0, delta=DELTA),), "closed": (),
        "kept": (), "counterpart": None,
    }  # fmt: skip
    return Recover(**{**fields, **changes})


def long_chain():
    """open, reserve, commit, anchor, note, reserve, reserve of an evaluation, commit, anchor."""
    chain = Chain()
    chain.add(reserve(chain, 1)).commit(2).add(anchor(chain)).add(note())
    chain.add(reserve(chain, 2)).add(reserve(chain, 2, purpose="evaluate")).commit(6)
    return chain.add(anchor(chain))


def refused(call, *arguments, **keywords):
    """The error of a call that must be refused."""
    with pytest.raises(BudgetError) as caught:
        call(*arguments, **keywords)
    assert caught.value.place is not None
    assert caught.value.remedy
    return caught.value
