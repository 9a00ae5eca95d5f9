"""A policy that is stricter than the study, field by field: what the worker says, and to whom.

The worker's own process is started on a provisioned site whose file has that one field changed; its
exit code and the code in its log are what it said at the start. Then a session that began before
the change is asked to train: the reply's bytes are what the coordinator would get. For that second
half no process is started anew and no file is read again: the session is made in a child of this
process under the lenient policy, and the stricter one is put into it by hand, since a worker reads
its policy only at its start. What is charged is read from the ledger that this session had.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import torch

from client import worker
from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.io.configs import load_site, load_study
from common.io.ledger_folder import read_state
from common.policy import Code
from common.privacy.ledger import caps_of
from common.wire import Request, decode_reply, encode
from scripts.benchmarks import _stage_tiny as tiny
from scripts.benchmarks._faults_campaign import NAMES
from scripts.benchmarks._stage import Stage, StageError

SITE: Final = "north"
LIMIT_S: Final = 240.0
_OTHER: Final = "ab" * 32
_LIST: Final = "withdrawn.txt"
_NOBODY: Final = "patient nobody-of-this-name\n"

_LOCAL: Final = (
    "{{mechanism: local, unit: {unit}, noise_multiplier: 1.5, delta: 1e-3, clip: 0.5, "
    "sampling_rate: 0.5, steps_per_round: 2, declared_units: 8, evaluation: {evaluation}, "
    "settings_from: synthetic{more}}}"
)
_NOISED: Final = "{epsilon: 20, clip: 3}"
STUDIES: Final[Mapping[str, Mapping[str, str]]] = {
    "private": {"privacy": _LOCAL.format(unit="patient", evaluation=_NOISED, more="")},
    "seeded": {
        "privacy": _LOCAL.format(unit="record", evaluation=_NOISED, more=", insecure_seed: 7")
    },
    "trusting": {
        "privacy": _LOCAL.format(unit="patient", evaluation="exact", more=""),
        "secure_aggregation": "{collusion: 1, threshold: 4, adversary: semi_honest}",
    },
    "shown": {
        "privacy": _LOCAL.format(unit="patient", evaluation=_NOISED, more=""),
        "secure_aggregation": "none",
    },
    "open": {"privacy": "none", "secure_aggregation": "none"},
}
"""Of different protection: each field is tried where there is something to refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One row of the policy's table, stricter than the study.

    Attributes:
        name: of the policy's field.
        code: the refusal's, in the site's log.
        row: of the table; as `name` if it is the only one.
        refusal: what the coordinator gets.
        logged: what the site's log must have, if not the code.
        policy: what is changed in the site's policy.
        site: what is changed beside it.
        at_start: whether the start already refuses.
        listed: the list of the withdrawn at the start; what it is when the request comes is
            `then`, and it is gone if that is `None`.
    """

    name: str
    code: Code
    study: str = "private"
    policy: Mapping[str, Any] = field(default_factory=dict)
    site: Mapping[str, Any] = field(default_factory=dict)
    at_start: bool = True
    listed: str = ""
    then: str | None = None
    row: str = ""
    refusal: str = "policy"
    logged: str = ""

    @property
    def title(self) -> str:
        """Of the row."""
        return self.row or self.name

    @property
    def said(self) -> str:
        """What the site's log must have."""
        return self.logged or f"[{self.code}]"


def _budget(**caps: float) -> dict[str, Any]:
    return {"budget": [{"unit": "patient", "delta": 1e-3, **caps}]}


_CLOSED: Final = {"start": "00:00", "end": "00:01"}
_SOMEBODY: Final = [{"role": "ethics committee", "public_key": _OTHER}]

FIELDS: Final = (
    Field(name="(roster)", code=Code.INSTITUTION, site={"institution": "elsewhere"}),
    Field(name="study_sha256", code=Code.STUDY, policy={"study_sha256": _OTHER}),
    Field(name="sign_offs", code=Code.SIGN_OFF, policy={"sign_offs": _SOMEBODY},
          site={"sign_offs": "."}),
    Field(name="roster_sha256", code=Code.ROSTER, policy={"roster_sha256": None}),
    Field(name="code_sha256", code=Code.CODE, policy={"code_sha256": _OTHER}),
    Field(name="accept_one_user", code=Code.USERS, policy={"accept_one_user": False}),
    Field(name="labels", code=Code.LABELS, policy={"labels": ["Disease"]}),
    Field(name="max_rounds", code=Code.ROUNDS, policy={"max_rounds": 1}),
    Field(name="hours", code=Code.HOURS, policy={"hours": [_CLOSED]}, at_start=False),
    Field(name="accept_privacy_none", code=Code.PRIVACY_NONE, study="open",
          policy={"accept_privacy_none": False}),
    Field(name="minimum_unit", code=Code.UNIT, study="seeded",
          policy={"minimum_unit": "patient"}),
    Field(name="accept_exact_evaluation", code=Code.EVALUATION, study="trusting",
          policy={"accept_exact_evaluation": False}),
    Field(name="accept_insecure_seed", code=Code.SEED, study="seeded",
          policy={"accept_insecure_seed": False}),
    Field(name="min_noise_multiplier", code=Code.NOISE, policy={"min_noise_multiplier": 99.0}),
    Field(name="budget", code=Code.BUDGET, policy=_budget(epsilon_per_study=0.1)),
    Field(name="budget", row="budget-lifetime", code=Code.BUDGET, study="shown",
          policy=_budget(epsilon_lifetime=0.1), at_start=False, refusal="privacy-budget",
          logged="over the site's lifetime cap of 0.1 per patient"),
    Field(name="accept_secure_aggregation_none", code=Code.AGGREGATION_NONE, study="open",
          policy={"accept_secure_aggregation_none": False}),
    Field(name="accept_semi_honest", code=Code.SEMI_HONEST, study="trusting",
          policy={"accept_semi_honest": False}),
    Field(name="min_cohort", code=Code.COHORT, policy={"min_cohort": 5}),
    Field(name="exclude", code=Code.EXCLUDE, site={"exclude": _LIST}, at_start=False,
          listed="# nobody\n", then=None),
    Field(name="accept_unknown_exclusions", code=Code.EXCLUDE_UNKNOWN, site={"exclude": _LIST},
          at_start=False, listed=_NOBODY, then=_NOBODY),
)  # fmt: skip
"""`tasks` has one value in this version, so none is stricter; `coordinator_key` is a test's row."""


def policy_rows(folder: Path, only: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """A line of the table for each field.

    Args:
        folder: to be made.
        only: whether a row of this name is wanted.

    Raises:
        StageError: a site can't be set up.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    stages: dict[str, Stage] = {}
    for one in FIELDS:
        if only(f"policy-{one.title}"):
            if one.study not in stages:
                stages[one.study] = _stage(folder / one.study, one.study)
            yield {"row": f"policy-{one.title}", **_tried(stages[one.study], one)}


def _stage(folder: Path, study: str) -> Stage:
    encoder = tiny.bert_folder(folder.with_name(f"{folder.name}-encoder"))
    sections = {
        "study": study,
        "model": "{train: full, dropout: 0}",
        "training": "{rounds: 2, learning_rate: 5e-3, precision: float32}",
        "federation": f"{{institutions: [{', '.join(NAMES)}], quorum: 4}}",
        "secure_aggregation": "{collusion: 1, threshold: 4}",
        "simulation": "{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    }
    return Stage(folder, tiny.study_text(encoder, **{**sections, **STUDIES[study]}))


def _tried(stage: Stage, one: Field) -> dict[str, Any]:
    path = stage.sites[SITE]
    before, listed = path.read_bytes(), path.parent / _LIST
    state = path.parent / f"s{FIELDS.index(one)}"  # of its own: an audit log has one name for ever
    if one.listed:
        listed.write_text(one.listed)
    try:
        stage.change(SITE, **one.site, state=state.name)
        lenient = path.with_name("lenient.yaml")
        shutil.copy(path, lenient)
        stage.change(SITE, policy=dict(one.policy))
        code, at_start = _started(path, state / "worker.log")
        reply = _asked(lenient, path, one)
    finally:
        path.write_bytes(before)
    answer = decode_reply(reply)
    log = at_start if one.at_start else (state / "worker.log").read_text("utf-8", "replace")
    rest = reply.replace(one.refusal.encode(), b"")
    told = [word for word in (one.code.value, one.name) if word.encode() in rest]
    charged = _charged(state / "ledger")
    return {
        "fault": f"policy `{one.title}` stricter than the study",
        "exit": code,
        "logged": one.said in log,
        "code": one.said.strip("[]"),
        "replied": answer.refusal,
        "charged": charged,
        "as_expected": code == (6 if one.at_start else None)
        and answer.refusal == one.refusal
        and one.said in log
        and not charged
        and not told,
    }


def _charged(ledger: Path) -> int:
    """Reserves; of a study without a mechanism there is no ledger, and none."""
    found = read_state(ledger, SITE)[0].state
    return 0 if found is None else len(found.reserves)


def _started(site: Path, log: Path) -> tuple[int | None, str]:
    """Exit code of the worker, `None` if it serves, and what it logged."""
    child = _forked(lambda: worker.main([str(site)]))
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        said = log.read_text("utf-8", "replace") if log.exists() else ""
        if done:
            return os.waitstatus_to_exitcode(status), said
        if ": ready" in said:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            return None, said
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise StageError(f"{site}: the worker did neither serve nor end in {LIMIT_S:g} s")


def _asked(lenient: Path, strict: Path, one: Field) -> bytes:
    """The bytes of a reply to a request to train, of a session that began before the change."""
    into, out = os.pipe()

    def ask() -> int:
        os.write(out, _reply_of(lenient, strict, one))
        return 0

    child = _forked(ask)
    os.close(out)
    with os.fdopen(into, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) or not said:
        raise StageError(f"{strict}: {one.name}: the session did not answer")
    return said


def _reply_of(lenient: Path, strict: Path, one: Field) -> bytes:
    began, changed = load_site(lenient), load_site(strict)
    study = load_study(lenient.parent / began.study)
    worker._log_to(SitePaths.of(began, lenient.parent))
    session = worker.make_session(replace(began, institution=SITE), lenient.parent)
    session._consent._policy, session._consent._name = changed.policy, changed.institution
    if session._guard is not None:
        session._guard._caps = caps_of(changed.policy.budget)
    if one.listed:
        listed = lenient.parent / _LIST
        listed.unlink() if one.then is None else listed.write_text(one.then)
    request = Request(kind="train", study=study_hash(study), round=1, receipts={})
    return session.handle(encode(request))


def _forked(work: Callable[[], int]) -> int:
    """A child of this process, in which torch is loaded already."""
    child = os.fork()
    if child == 0:
        _end_with(work)
    return child


def _end_with(work: Callable[[], int]) -> NoReturn:
    code = 70
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        code = work()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)
