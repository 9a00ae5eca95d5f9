"""What the coordinator's audit log says of a run, and when: over an exchange in memory."""

import dataclasses
import json
from pathlib import Path

import pytest

from common.audit.entries import Insecure, Progress, Refusal, Reply, Request, Start, Stop
from common.audit.errors import AuditError
from common.audit.examine import Examined, examine
from common.audit.words import digest_of
from common.config.canonical import study_hash
from common.errors import FederationError
from common.identity.enrolment import Register
from common.identity.identity import Identity
from common.identity.roster import Member, Roster
from common.io.register_file import write_register
from common.io.standing import Standing
from common.wire import encode
from server.audit import RunAudit
from server.origin import Origin
from tests.ledgers import SIGNER
from tests.unit.test_coordinator import NAMES, Federation, study_of


def log_of(federation: Federation) -> Examined:
    found = examine((federation.run_dir.path / "audit.jsonl").read_bytes())
    assert found.faults == ()
    return found


def bodies(federation: Federation, kind: type) -> list:
    return [entry.body for entry in log_of(federation).entries if isinstance(entry.body, kind)]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, study_of(rounds=1))


def test_a_run_is_told_from_its_beginning_to_its_end(federation: Federation) -> None:
    federation.run()
    found = log_of(federation)
    assert (found.chain.opened.side, found.chain.opened.name) == ("coordinator", "coordinator")
    (started,) = bodies(federation, Start)
    assert (started.study, started.process) == (study_hash(federation.study), "coordinator")
    assert found.entries[-1].body == Stop(outcome="finished")
    assert [(p.what, p.round, set(p.institutions)) for p in bodies(federation, Progress)] == [
        ("begun", 0, set()), ("round", 1, set(NAMES)), ("evaluation", 1, set(NAMES))
    ]  # fmt: skip


def test_each_request_and_reply_is_there_with_its_size_and_its_digest(
    federation: Federation,
) -> None:
    sent, came = {}, {}
    for name in NAMES:
        federation[name].forge["train"] = lambda reply: came.setdefault(reply.institution, reply)
    ask = federation.exchange.ask

    def ask_and_keep(kind, round_, requests, *more):
        sent.update({(kind, name): bytes(letter) for name, letter in requests.items()})
        ask(kind, round_, requests, *more)

    federation.exchange.ask = ask_and_keep
    federation.run()
    requests = {(r.asked, r.institution): r for r in bodies(federation, Request)}
    assert {key for key in requests if key[0] != "hello"} == set(sent)
    for key, data in sent.items():
        assert (requests[key].bytes, requests[key].sha256) == (len(data), digest_of(data))
    replies = {r.institution: r for r in bodies(federation, Reply) if r.asked == "train"}
    for name, reply in came.items():
        data = encode(reply)
        assert (replies[name].bytes, replies[name].sha256) == (len(data), digest_of(data))


def test_a_request_is_in_the_log_before_it_leaves_and_a_reply_before_it_is_used(
    federation: Federation,
) -> None:
    seen = []

    def look(kind, round_):
        last = log_of(federation).entries[-1].body
        seen.append(isinstance(last, Request) and (last.asked, last.round) == (kind, round_))

    federation.exchange.before = look
    federation.run()
    assert seen == [True, True]
    kinds = [(e.kind, getattr(e.body, "what", "")) for e in log_of(federation).entries]
    assert kinds.index(("progress", "round")) > [k for k, _ in kinds].index("reply") + 3


def test_of_a_refusal_there_is_the_code_and_what_is_no_reply_is_named_so(tmp_path: Path) -> None:
    lenient = Federation(tmp_path, study_of(quorum=1, rounds=1))
    refuse = {"train": lambda reply: dataclasses.replace(reply, body=b"", refusal="policy")}
    lenient["north"].forge = refuse
    lenient["east"].forge = {"train": lambda reply: b"Jane Doe denies chest pain"}
    lenient.run()
    codes = {r.institution: r.code for r in bodies(lenient, Reply) if r.asked == "train"}
    assert codes == {"north": "policy", "east": "malformed-reply", "south": ""}
    assert bodies(lenient, Refusal) == [
        Refusal(institution="north", asked="train", round=1, code="policy")
    ]
    assert b"Jane" not in (lenient.run_dir.path / "audit.jsonl").read_bytes()
    assert all(not r.reasons for r in bodies(lenient, Reply))


def test_what_the_study_and_the_run_do_without_is_there(federation: Federation) -> None:
    federation.run()
    choices = {i.choice for i in bodies(federation, Insecure)}
    assert choices == {"privacy-none", "secure-aggregation-none", "one-process", "unsigned-log"}
    Origin.of(federation.study, None, "127.0.0.1:9192").save(federation.run_dir)
    federation.run()
    assert "no-tls" in {i.choice for i in bodies(federation, Insecure)}


def test_a_run_that_failed_says_so_and_one_that_goes_on_follows_it(federation: Federation) -> None:
    def fail(kind, round_):
        if kind == "evaluate":
            raise FederationError("the network is gone: Jane Doe")

    federation.exchange.before = fail
    with pytest.raises(FederationError):
        federation.run()
    assert log_of(federation).entries[-1].body == Stop(outcome="failed", error="FederationError")
    federation.exchange.before = lambda *_: None
    federation.run()
    assert len(bodies(federation, Start)) == 2
    assert ("resumed", 1) in [(p.what, p.round) for p in bodies(federation, Progress)]


def test_a_coordinator_that_cannot_log_asks_nobody_anything_more(federation: Federation) -> None:
    path = federation.run_dir.path / "audit.jsonl"

    def write_to_it(kind, round_):
        with path.open("ab") as file:
            file.write(b"x")

    federation.exchange.before = write_to_it
    with pytest.raises(AuditError, match="someone else"):
        federation.run()
    assert federation.exchange.asked == [("hello", 0), ("train", 1)]
    with pytest.raises(FileNotFoundError):
        (federation.run_dir.path / "checkpoint.npz").stat()


def test_a_log_that_was_changed_ends_the_run_before_anyone_is_asked(federation: Federation) -> None:
    federation.run()
    path = federation.run_dir.path / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":2', 1))
    federation.exchange.asked.clear()
    with pytest.raises(AuditError, match="broken"):
        federation.run()
    assert federation.exchange.asked == []


def test_the_coordinators_identity_signs_where_there_is_one(federation: Federation) -> None:
    members = [Member(name=n, public_key=Identity.of(n, n.encode() * 8).signer.public_key)
               for n in ("east", "west")]  # fmt: skip
    identity = Identity(name="coordinator", signer=SIGNER)
    roster = Roster(coordinator=SIGNER.public_key, institutions=tuple(members), note="for a test")
    standing = Standing(identity=identity, roster=roster)
    with RunAudit(federation.run_dir, federation.study, standing) as audit:
        audit.event("abort", {"round": 1, "rule": "below-threshold", "reason": "x"})
    found = examine(
        (federation.run_dir.path / "audit.jsonl").read_bytes(), keys=[SIGNER.public_key]
    )
    assert found.faults == ()
    assert found.entries[1].body.roster == roster.sha256
    assert "unsigned-log" not in {getattr(e.body, "choice", "") for e in found.entries}


def test_a_log_that_is_not_open_takes_nothing(federation: Federation) -> None:
    audit = RunAudit(federation.run_dir, federation.study, None)
    with pytest.raises(AuditError, match="not open"):
        audit.event("resume", {"round": 1})


def test_the_head_of_an_institutions_ledger_is_there_with_its_reply(
    federation: Federation,
) -> None:
    head = f"{'a' * 32}:7:{'b' * 64}"
    federation["north"].forge = {"train": lambda reply: dataclasses.replace(reply, ledger=head)}
    federation.run()
    heads = {r.institution: r.ledger for r in bodies(federation, Reply) if r.asked == "train"}
    assert heads == {"north": head, "east": "", "south": ""}


def test_an_end_that_can_not_be_logged_hides_no_error_and_is_no_success(
    federation: Federation,
) -> None:
    path = federation.run_dir.path / "audit.jsonl"

    def run(error: Exception | None) -> None:
        with RunAudit(federation.run_dir, federation.study, None):
            with path.open("ab") as file:
                file.write(b"x")
            if error is not None:
                raise error

    with pytest.raises(AuditError, match="someone else"):
        run(None)
    path.unlink()
    with pytest.raises(FederationError, match="network"):
        run(FederationError("the network is gone"))


def test_keys_that_one_machine_made_are_said(federation: Federation, tmp_path: Path) -> None:
    for demo in (True, False):
        write_register(tmp_path, Register(federation="fed", demo=demo))
        origin = Origin.of(federation.study, None, "127.0.0.1:9192", str(tmp_path))
        origin.save(federation.run_dir)
        with RunAudit(federation.run_dir, federation.study, None):
            pass
        choices = [i.choice for i in bodies(federation, Insecure)]
        assert choices.count("demo-keys") == 1
        assert "no-tls" not in choices


def test_each_event_is_told_in_its_own_words(federation: Federation) -> None:
    refused = {"institution": "north", "asked": "sum", "round": 2, "code": "complaint"}
    with RunAudit(federation.run_dir, federation.study, None) as audit:
        before = len(log_of(federation).entries)
        audit.event("institution", {"name": "north", "state": "joined"})
        audit.event("resume", {"round": 1, "version": "1"})
        audit.event("refusal", {**refused, "accused": "east"})
        audit.event("abort", {"round": 2, "sum": "train", "rule": "below-threshold", "reason": "x"})
        audit.event("evaluation_missing", {"round": 2, "reason": "x"})
        audit.event("institution", {"name": "east", "state": "revoked"})
        audit.event("institution", {"name": "south", "state": "left"})
        told = [entry.body for entry in log_of(federation).entries[before:]]
    assert told == [
        Progress(what="resumed", round=1),
        Refusal(**refused, accused="east"),
        Progress(what="abort", round=2, rule="below-threshold"),
        Progress(what="evaluation-missing", round=2),
        Progress(what="revoked", round=0, institutions=("east",)),
        Progress(what="left", round=0, institutions=("south",)),
    ]


def test_every_line_of_the_metrics_that_an_auditor_asks_for_is_in_the_log(
    federation: Federation,
) -> None:
    federation.run()
    lines = (federation.run_dir.path / "metrics.jsonl").read_text().splitlines()
    events = {json.loads(line)["event"] for line in lines}
    said = {p.what for p in bodies(federation, Progress)}
    assert events == {"start", "round", "evaluation"}
    assert said == {"begun", "round", "evaluation"}
