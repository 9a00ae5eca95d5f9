"""Audit logs in memory and on disks for tests; nothing here imports torch."""

from pathlib import Path

from common.audit.chain import Chain
from common.audit.codec import make_entry
from common.audit.entries import (
    Insecure,
    Open,
    Progress,
    Promise,
    Refusal,
    Repeated,
    Reply,
    Request,
    Spend,
    Start,
    Stop,
    Torn,
)
from common.io.audit_file import AuditFile
from tests.ledgers import NOON, SIGNER, Clock, chance, digest

SITE = "north-clinic"
STUDY, ROSTER = digest("study"), digest("roster")
LOG_ID = "0" * 32
HEAD = f"{'a' * 32}:7:{digest('head')}"


def opening(key=SIGNER.public_key, **changes):
    fields = {"format": 1, "side": "site", "name": SITE, "log": LOG_ID, "public_key": key}
    return Open(**{**fields, **changes})


def start(key=SIGNER.public_key, **changes):
    fields = {
        "process": "worker", "version": "0.1.0", "pid": 4711, "uid": 1000, "public_key": key,
        "study": STUDY, "roster": ROSTER,
    }  # fmt: skip
    return Start(**{**fields, **changes})


def request(round_=1, **changes):
    fields = {
        "institution": SITE, "asked": "train", "round": round_, "study": STUDY, "bytes": 4000,
        "sha256": digest(f"request {round_}"),
    }  # fmt: skip
    return Request(**{**fields, **changes})


def reply(round_=1, **changes):
    fields = {
        "institution": SITE, "asked": "train", "round": round_, "bytes": 4200,
        "sha256": digest(f"reply {round_}"), "ledger": HEAD,
    }  # fmt: skip
    return Reply(**{**fields, **changes})


def refused(round_=1, **changes):
    fields = {"code": "policy", "reasons": ("PolicyError: the study has `privacy: none`",)}
    return reply(round_, **{**fields, **changes})


def spend(round_=1, **changes):
    fields = {
        "study": STUDY, "round": round_, "purpose": "train", "attempt": 1, "unit": "patient",
        "epsilon": 0.5 * round_, "delta": 1e-5, "target": 8.0, "ledger": "a" * 32,
        "reserve": 2 * round_,
    }  # fmt: skip
    return Spend(**{**fields, **changes})


def torn(**changes):
    return Torn(**{"file": "audit.torn-1", "bytes": 12, "sha256": digest("torn"), **changes})


def refusal(**changes):
    fields = {"institution": SITE, "asked": "sum", "round": 2, "code": "complaint"}
    return Refusal(**{**fields, **changes})


def promise(**changes):
    fields = {"institution": SITE, "unit": "patient", "epsilon": 8.0, "delta": 1e-5}
    return Promise(**{**fields, **changes})


def progress(**changes):
    return Progress(**{"what": "round", "round": 1, "institutions": (SITE, "east"), **changes})


def one_of_each():
    """A log's bodies, all kinds among them."""
    return [
        opening(), start(), torn(), Insecure(choice="one-user"), request(), spend(), reply(),
        refused(2), Repeated(entry=8, count=3), refusal(accused="east"), promise(), progress(),
        Stop(outcome="failed", error="PolicyError", reasons=("PolicyError: no",)),
    ]  # fmt: skip


class Written:
    """A log in memory, entry by entry, without any check."""

    def __init__(self, bodies=(), signer=SIGNER):
        self.chain, self.lines, self.signer = Chain(), [], signer
        for body in bodies:
            self.add(body)

    def make(self, body, *, time=NOON, **changes):
        fields = {"seq": self.chain.seq + 1, "time": time, "body": body, "prev": self.chain.hash}
        return make_entry(**{**fields, **changes}, signer=self.signer)

    def add(self, body, **changes):
        entry = self.make(body, **changes)
        self.lines.append(entry.line)
        self.chain = self.chain.after(entry)
        return self

    @property
    def file(self):
        return joined(self.lines)


def joined(lines):
    return b"".join(line + b"\n" for line in lines)


def open_log(folder: Path, **changes):
    fields = {
        "side": "site", "name": SITE, "study": STUDY, "signer": SIGNER, "clock": Clock(),
        "random": chance(),
    }  # fmt: skip
    return AuditFile.open(folder, **{**fields, **changes})
