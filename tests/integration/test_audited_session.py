"""Both sides' audit logs of whole studies: real sessions of workers, real worker processes."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context
from typer.testing import CliRunner

from client.app import make_app
from client.audit import audited
from client.site_paths import SitePaths
from client.worker import make_session
from common.audit.entries import (
    Insecure,
    Promise,
    Repeated,
    Reply,
    Request,
    Spend,
    Start,
    Stop,
)
from common.audit.errors import AuditError
from common.audit.examine import examine
from common.audit.repeats import LIMIT
from common.audit.report import lacks
from common.config.canonical import study_hash
from common.errors import IdentityError
from common.io.configs import load_site, load_study
from common.io.flower_internals import LocalGrid
from common.io.identity_files import read_public
from common.io.standing import coordinator_standing
from common.privacy.ledger_codec import encode_head
from common.privacy.ledger_examine import verify_file
from common.secagg.bundle import join
from common.wire import Request as WireRequest
from common.wire import decode_reply, encode
from scripts.cli import app
from server.app import run_study
from server.run_dir import RunDir

NAMES = ("north", "east", "south")
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic}"
)
TRAINING = "{rounds: 2, learning_rate: 1e-2, precision: float32}"
FEDERATION = f"{{institutions: [{', '.join(NAMES)}], deadline_s: 60}}"
DATA = "{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}"


class Dealt:
    """A study dealt out to folders on this machine, as `fedner data deal` does it."""

    def __init__(self, folder: Path, text: str):
        self.folder, self.run = folder / "f", folder / "run"
        folder.mkdir(exist_ok=True)
        (folder / "study.yaml").write_text(text)
        deal = ["data", "deal", str(folder / "study.yaml"), "--out", str(self.folder)]
        done = CliRunner().invoke(app, deal)
        assert done.exit_code == 0, done.output
        self.study = load_study(self.folder / "study.yaml")

    def site(self, name):
        """Site file and its content."""
        path = self.folder / name / "site.yaml"
        return path, load_site(path)

    def log(self, name=""):
        """A site's, or the coordinator's."""
        if not name:
            return self.run / "audit.jsonl"
        path, site = self.site(name)
        return SitePaths.of(site, path.parent).state / "audit.jsonl"

    def found(self, name="", **known):
        return examine(self.log(name).read_bytes(), **known)

    def key(self, name):
        folder = self.folder / name
        return read_public(folder if name == "coordinator" else folder / "identity").public_key

    def carry_out(self):
        """The whole study, in this process."""
        sessions = {}

        def exchange_for(context: Context):
            return sessions[str(context.node_config["institution"])]

        with ExitStack() as stack:
            for name in NAMES:
                sessions[name] = self.answering(name, stack)
            nodes = [{"institution": name} for name in NAMES]
            grid = stack.enter_context(LocalGrid(make_app(exchange_for), nodes, {}))
            run = RunDir.create(self.run, (self.folder / "study.yaml").read_text())
            standing = None
            if self.study.secure is not None:
                roster = self.folder / "roster.yaml"
                standing = coordinator_standing(
                    self.folder / "coordinator", None, roster, self.study
                )
            run_study(grid, run, home=self.run / "book", standing=standing)
        return self

    def answering(self, name, stack):
        """A session as a worker makes it, with its log."""
        path, site = self.site(name)
        SitePaths.of(site, path.parent).state.mkdir(parents=True, exist_ok=True)
        audit = stack.enter_context(audited(site, path.parent, self.study))
        session = make_session(site, path.parent, audit, None, audit.check_ledger)
        stack.callback(session.close)
        return audit.answering(session.handle, lambda: session.ledger)


@pytest.fixture(scope="module")
def secure(tiny_study, tmp_path_factory):
    """A finished study with DP and secure aggregation."""
    text = tiny_study(
        privacy=PRIVACY, training=TRAINING, federation=FEDERATION, simulation=DATA,
        secure_aggregation="{}", model="{train: full, dropout: 0}",
    )  # fmt: skip
    return Dealt(tmp_path_factory.mktemp("secure"), text).carry_out()


def bodies(found, kind):
    return [entry.body for entry in found.entries if isinstance(entry.body, kind)]


def test_both_sides_logs_of_a_secure_study_are_whole_and_signed_by_their_identities(secure):
    for name in NAMES:
        found = secure.found(name, keys=[secure.key(name)])
        assert (found.faults, found.notes) == ((), ())
        assert found.chain.opened.name == name
    found = secure.found(keys=[secure.key("coordinator")])
    assert (found.faults, found.notes) == ((), ())


def test_each_site_has_its_spend_by_round_and_the_coordinator_what_was_promised(secure):
    for name in NAMES:
        spends = bodies(secure.found(name), Spend)
        done = [(s.purpose, s.round) for s in spends]
        assert done == [("train", 1), ("evaluate", 1), ("train", 2), ("evaluate", 2)]
        assert [s.epsilon for s in spends] == sorted(s.epsilon for s in spends)
        assert spends[-1].epsilon <= spends[-1].target
    promised = bodies(secure.found(), Promise)
    assert {p.institution for p in promised} == set(NAMES)
    (spent,) = {bodies(secure.found(name), Spend)[-1].epsilon for name in NAMES}
    assert spent == pytest.approx(promised[0].epsilon, rel=0.05)


def test_the_two_sides_logs_bear_each_other_out_and_show_each_others_cut_ends(secure):
    coordinators = secure.found()
    for name in NAMES:
        found = secure.found(name)
        assert list(lacks(found, coordinators)) == []
        lines = secure.log(name).read_bytes().splitlines(keepends=True)
        last = max(e.seq for e in found.entries if isinstance(e.body, Reply))
        cut = examine(b"".join(lines[: last - 1]))
        assert cut.faults == ()
        assert len(list(lacks(cut, coordinators))) == 1
    lines = secure.log().read_bytes().splitlines(keepends=True)
    cut = examine(b"".join(lines[: len(lines) // 2]))
    assert cut.faults == ()
    assert list(lacks(secure.found("north"), cut))


def test_an_old_copy_of_the_ledger_is_refused_by_the_sites_own_log(secure, tmp_path):
    """Nothing in the ledger's own folder shows it: the vault is of the same time."""
    copied = copy.copy(secure)
    copied.folder = tmp_path / "f"
    shutil.copytree(secure.folder, copied.folder, ignore=shutil.ignore_patterns("*.sock"))
    path, site = copied.site("north")
    folder = SitePaths.of(site, path.parent).ledger
    newest = (folder / "ledger.jsonl").read_bytes()
    lines = newest.splitlines(keepends=True)
    old = put_ledger(folder, b"".join(lines[: len(lines) // 2]))
    for file in (folder / "vault").iterdir():
        if int(file.name.split("-")[1].split(".")[0]) not in old.reserves:
            file.unlink()
    code, said = client(path)
    assert (code, "audit.jsonl: has the head" in " ".join(said.split())) == (9, True)
    assert (folder / "ledger.jsonl").read_bytes() == b"".join(lines[: len(lines) // 2])
    with audited(site, path.parent, copied.study) as audit:
        audit.check_ledger(put_ledger(folder, newest))


def put_ledger(folder, data):
    """Put entries back with the head that stood then; their state."""
    state = verify_file(data, json.loads(data.splitlines()[0])["body"]["public_key"])
    (folder / "ledger.jsonl").write_bytes(data)
    (folder / "ledger.head").write_bytes(encode_head(state.head))
    return state


def test_what_each_side_does_without_is_said_and_nothing_else(secure):
    assert {i.choice for i in bodies(secure.found("north"), Insecure)} == {"one-user", "no-tls"}
    assert {i.choice for i in bodies(secure.found(), Insecure)} == {"one-process"}


def test_a_study_without_identities_says_that_nobody_signs(tiny_study, tmp_path):
    text = tiny_study(federation=FEDERATION, simulation=DATA)
    dealt = Dealt(tmp_path, text).carry_out()
    for name in ("", *NAMES):
        found = dealt.found(name)
        assert found.faults == ()
        said = {i.choice for i in bodies(found, Insecure)}
        assert {"unsigned-log", "privacy-none", "secure-aggregation-none"} <= said
    assert list(lacks(dealt.found("north"), dealt.found())) == []


@pytest.fixture
def dealt(tiny_study, tmp_path):
    return Dealt(tmp_path, tiny_study(federation=FEDERATION, simulation=DATA))


def test_no_identity_that_cannot_be_opened_is_passed_over(dealt):
    path, site = dealt.site("north")
    SitePaths.of(site, path.parent).state.mkdir(parents=True)
    with (
        pytest.raises(IdentityError),
        audited(replace(site, identity="nowhere"), path.parent, dealt.study),
    ):
        pass
    assert not dealt.log("north").exists()


def test_what_the_coordinator_did_not_sign_is_counted_and_not_written_without_end(secure):
    """A relay can send it as fast as it likes; the study's hash and its rounds it knows."""
    name = NAMES[0]
    before = len(secure.found(name).entries)
    with ExitStack() as stack:
        answer = secure.answering(name, stack)
        for number in range(60):
            kind = ("sum", "train")[number % 2]
            sums = join([b"x%d" % number])
            asked = WireRequest(kind=kind, study=study_hash(secure.study), round=1, sums=sums)
            assert decode_reply(answer(encode(asked))).refusal == "secure-sum"
    found = secure.found(name)
    new = [entry.body for entry in found.entries[before:]]
    refused = [one for one in new if isinstance(one, Reply)]
    assert len(refused) == 2 * LIMIT
    assert sum(one.count for one in new if isinstance(one, Repeated)) == 60 - 2 * LIMIT
    assert found.faults == ()


def test_a_refusal_of_a_real_session_is_there_with_its_code_and_its_reason(dealt):
    with ExitStack() as stack:
        answer = dealt.answering("north", stack)
        other = encode(WireRequest(kind="train", study="f" * 64, round=1))
        assert decode_reply(answer(other)).refusal == "other-study"
        assert decode_reply(answer(b"FDN4 and more")).refusal == "malformed-request"
    replies = bodies(dealt.found("north"), Reply)
    assert [r.code for r in replies] == ["other-study", "malformed-request"]
    assert "is asked, this site's is" in replies[0].reasons[0]
    assert bodies(dealt.found("north"), Request)[0].study == "f" * 64


def test_a_real_session_touches_no_data_when_its_log_has_been_written_to(dealt):
    path = dealt.log("north")
    with ExitStack() as stack:
        answer = dealt.answering("north", stack)
        with path.open("ab") as file:
            file.write(b"x")
        request = encode(WireRequest(kind="train", study=study_hash(dealt.study), round=1))
        assert decode_reply(answer(request)).refusal == "internal-error"
        path.write_bytes(path.read_bytes()[:-1])
        assert decode_reply(answer(request)).body
    assert [r.code for r in bodies(dealt.found("north"), Reply)] == [""]


class Worker:
    """A real worker process of a site."""

    def __init__(self, path: Path):
        self.path = path
        self.socket = SitePaths.of(load_site(path), path.parent).socket
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client.worker", str(path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"},
        )  # fmt: skip

    def await_ready(self, limit_s=240):
        deadline = time.monotonic() + limit_s
        while not self.socket.exists():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(120)
        self.process.stderr.close()
        return code


def test_a_worker_that_was_killed_leaves_no_end_and_one_that_is_told_to_end_says_so(dealt):
    path, _ = dealt.site("north")
    worker = Worker(path).await_ready()
    worker.end(signal.SIGKILL)
    worker.socket.unlink()
    worker = Worker(path).await_ready()
    assert worker.end(signal.SIGTERM) == 0
    found = dealt.found("north")
    assert found.faults == ()
    assert [note.what for note in found.notes] == [
        "starts a process; the one before ended without a word"
    ]
    assert len(bodies(found, Start)) == 2
    assert bodies(found, Stop) == [Stop(outcome="stopped", error="SystemExit")]


def client(path):
    """`fedner client`, with its real worker, until it ends: its exit code and its last words."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "client", path],
        capture_output=True, text=True, timeout=240, check=False, env=os.environ,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_worker_whose_policy_refuses_the_study_says_why_in_its_log(dealt):
    """`fedner client` ends with the worker's exit code: systemd starts neither again."""
    path, _ = dealt.site("north")
    text = path.read_text()
    assert "accept_privacy_none: true" in text
    path.write_text(text.replace("accept_privacy_none: true", "accept_privacy_none: false"))
    code, said = client(path)
    assert (code, "refused to run (exit code 6)" in said) == (6, True)
    (stop,) = bodies(dealt.found("north"), Stop)
    assert (stop.outcome, stop.error) == ("failed", "PolicyError")
    assert "`privacy: none`" in " ".join(stop.reasons)


def test_a_worker_whose_log_was_changed_does_not_start(dealt):
    path, _ = dealt.site("north")
    with ExitStack() as stack:
        dealt.answering("north", stack)
    log = dealt.log("north")
    log.write_bytes(log.read_bytes().replace(b'"no-tls"', b'"one-user"', 1))
    code, said = client(path)
    assert (code, "the log is broken" in said) == (AuditError.exit_code, True)
