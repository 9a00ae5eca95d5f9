"""What an institution's audit log says of each request, and when; what happens if it can't."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from client.audit import SiteAudit, audited
from client.site_paths import SitePaths
from common.audit.entries import Insecure, Repeated, Reply, Request, Spend, Stop
from common.audit.errors import AuditError
from common.audit.examine import examine
from common.audit.repeats import LIMIT, WINDOW_S
from common.audit.words import digest_of
from common.config.load import parse_site
from common.errors import DataError, PolicyError
from common.wire import Refusal, decode_reply, decode_request, encode
from common.wire import Reply as WireReply
from common.wire import Request as WireRequest
from tests.audits import SITE, STUDY, open_log
from tests.disks import MemoryDisk
from tests.ledgers import NOON, Chain, Clock, recover, refused, reserve
from tests.unit.test_plan import study

FOLDER = Path("/state")
LOG = FOLDER / "audit.jsonl"


class Site:
    """An institution that does as its `script` says: work, or refuse with a code and a reason."""

    def __init__(self, disk=None):
        self.disk = disk or MemoryDisk(folders=[FOLDER])
        self.clock = Clock()
        self.log = open_log(FOLDER, disk=self.disk, clock=self.clock)
        self.audit = SiteAudit(self.log, SITE, STUDY)
        self.ledger, self.worked, self.refuse = None, [], None
        self.at_work = lambda request: None
        self.handle = self.audit.answering(self._answer, lambda: self.ledger)

    def _answer(self, data):
        """As a session does it."""
        request = decode_request(data)
        self.audit.heard(request)
        try:
            if self.refuse is None:
                self.audit.working()
                self.worked.append(request)
                self.at_work(request)
        except AuditError:
            return self._refused(request, Refusal.INTERNAL, "AuditError")
        if self.refuse is not None:
            return self._refused(request, *self.refuse)
        return encode(reply_to(request, body=b"v" * 400))

    def _refused(self, request, code, why):
        self.audit.refused(request.kind, request.round, code, why)
        return encode(reply_to(request, refusal=code.value))

    @property
    def found(self):
        found = examine(self.disk.read(LOG), heads=[self.log.head])
        assert found.faults == ()
        return found

    def bodies(self, kind):
        return [e.body for e in self.found.entries if isinstance(e.body, kind)]


def reply_to(request, **changes):
    return WireReply(
        kind=request.kind, study=request.study, round=request.round, institution=SITE, **changes
    )


def train(round_=1, **changes):
    return encode(WireRequest(**{"kind": "train", "study": STUDY, "round": round_, **changes}))


@pytest.fixture
def site():
    return Site()


def test_work_is_in_the_log_before_it_is_done_and_its_reply_before_it_leaves(site):
    seen = []
    site.at_work = lambda request: seen.append(site.found.entries[-1].body)
    data = train()
    reply = site.handle(data)
    request = Request(
        institution=SITE, asked="train", round=1, study=STUDY, bytes=len(data),
        sha256=digest_of(data),
    )  # fmt: skip
    assert seen == [request]
    last = site.found.entries[-1].body
    assert (last.bytes, last.sha256, last.code) == (len(reply), digest_of(reply), "")
    assert len(site.bodies(Request)) == 1


def test_a_refusal_is_there_with_all_its_reasons(site):
    site.refuse = (Refusal.POLICY, "study-none: the study has none\nhours: the time is 3:00")
    site.handle(train())
    (said,) = site.bodies(Reply)
    assert said.code == "policy"
    assert said.reasons == ("study-none: the study has none", "hours: the time is 3:00")
    assert [type(e.body) for e in site.found.entries[-2:]] == [Request, Reply]


def test_a_study_that_is_no_hash_is_not_copied_into_the_log(site):
    site.refuse = (Refusal.STUDY, "another study is asked")
    site.handle(train(study="Jane Doe denies chest pain"))
    assert site.bodies(Request)[0].study is None
    assert b"Jane" not in site.disk.read(LOG)


def full(called, path):
    if called == "write" and path == LOG:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_site_that_cannot_log_does_no_work(site):
    site.disk.fault = full
    reply = decode_reply(site.handle(train()))
    assert (reply.refusal, reply.institution, reply.round) == ("internal-error", SITE, 1)
    assert site.worked == []


def test_a_reply_that_cannot_be_logged_does_not_leave_and_leaves_once_it_can(site):
    site.at_work = lambda request: setattr(site.disk, "fault", full)
    reply = decode_reply(site.handle(train()))
    assert (reply.refusal, reply.body, reply.study) == ("internal-error", b"", STUDY)
    site.at_work, site.disk.fault = lambda request: None, lambda *_: None
    assert decode_reply(site.handle(train())).body
    assert [r.code for r in site.bodies(Reply)] == [""]
    assert len(site.bodies(Request)) == 2


def test_each_reserve_of_the_ledger_is_there_once_before_its_reply(site):
    chain = Chain()
    for n in (1, 2):
        site.at_work = lambda request, n=n: chain.add(reserve(chain, n))
        site.ledger = chain.state
        site.handle(train(n))
    assert [s.reserve for s in site.bodies(Spend)] == [2]
    site.at_work, site.ledger = lambda request: None, chain.state
    site.handle(train(3))
    spends = site.bodies(Spend)
    assert [(s.reserve, s.round, s.epsilon) for s in spends] == [(2, 1, 2.5), (3, 2, 5.0)]
    assert spends[0].ledger == chain.state.opened.ledger
    kinds = [e.kind for e in site.found.entries]
    assert kinds[-3:] == ["request", "spend", "reply"]
    assert site.bodies(Reply)[-1].ledger == str(chain.state.head)


def test_reserves_that_a_crash_kept_out_of_the_log_come_with_the_next_reply():
    site = Site()
    chain = Chain()
    site.ledger = chain.add(reserve(chain, 1)).state
    site.handle(train())
    chain.add(reserve(chain, 2))
    again = Site(MemoryDisk(site.disk.killed(), folders=[FOLDER]))
    again.ledger = chain.state
    again.handle(train(2))
    assert [s.reserve for s in again.bodies(Spend)] == [2, 3]


def test_a_ledger_that_follows_a_lost_one_is_told_from_its_beginning(site):
    first, second = Chain(), Chain(ledger="1" * 32)
    for n in (1, 2):
        first.add(reserve(first, n))
    site.ledger = first.state
    site.handle(train())
    site.ledger = second.add(reserve(second, 1)).state
    site.handle(train(2))
    assert [(s.ledger[0], s.reserve) for s in site.bodies(Spend)] == [("0", 2), ("0", 3), ("1", 2)]


def seen_by(site, chain):
    """The site's log after one request with a ledger; opened again, as at a start."""
    site.ledger = chain.state
    site.handle(train())
    return Site(MemoryDisk(site.disk.killed(), folders=[FOLDER])).audit


def test_a_ledger_is_right_if_it_has_what_the_log_has_of_it(site):
    site.audit.check_ledger(None)
    chain = Chain()
    site.audit.check_ledger(chain.add(reserve(chain, 1)).state)
    again = seen_by(site, chain)
    again.check_ledger(chain.state)
    again.check_ledger(chain.commit(2).add(reserve(chain, 2)).state)


def test_a_ledger_that_lacks_what_the_log_has_of_it_is_refused(site):
    chain, before = Chain(), Chain()
    before.add(reserve(before, 1))
    chain.add(reserve(chain, 1)).add(reserve(chain, 2)).commit(3)
    head = chain.state.head
    again = seen_by(site, chain)
    for state in (before.state, Chain().state, Chain(ledger="1" * 32).state, None):
        error = refused(again.check_ledger, state)
        assert f"has the head {head}" in error.message
        assert f"--head {head}" in error.remedy


def test_a_charge_whose_reply_was_refused_is_missed_in_an_old_ledger(site):
    """No head is in such a reply; and nothing of another ledger is taken for it."""
    chain = Chain()
    old = chain.add(reserve(chain, 1)).state
    seen_by(site, chain)
    again = Site(MemoryDisk(site.disk.killed(), folders=[FOLDER]))
    again.refuse = (Refusal.INTERNAL, "MemoryError")
    audit = seen_by(again, chain.add(reserve(chain, 2)))
    audit.check_ledger(chain.state)
    error = refused(audit.check_ledger, old)
    assert "the charge of entry 3" in error.message
    assert "--old-copy" in error.remedy  # else recovery finds nothing wrong
    other = Chain()
    other.add(reserve(other, 1)).add(reserve(other, 3))
    assert "the charge of entry 3" in refused(audit.check_ledger, other.state).message


def test_a_ledger_that_follows_the_lost_one_is_right(site):
    first, second = Chain(), Chain(ledger="1" * 32)
    again = seen_by(site, first.add(reserve(first, 1)))
    again.check_ledger(second.add(recover()).state)


def test_refusals_that_repeat_are_counted_and_do_not_fill_the_disk(site):
    site.refuse = (Refusal.STALE, "the study has no such round")
    site.handle(train(9))
    size = len(site.disk.read(LOG))
    for n in range(1000):
        site.handle(train(10 + n))
    assert len(site.bodies(Reply)) == LIMIT
    assert len(site.disk.read(LOG)) < LIMIT * size
    newest = [e.seq for e in site.found.entries if isinstance(e.body, Reply)][-1]
    site.clock.now = NOON + WINDOW_S
    site.handle(train(9))
    assert site.bodies(Repeated) == [Repeated(entry=newest, count=1001 - LIMIT)]
    assert len(site.bodies(Reply)) == LIMIT + 1


def test_other_refusals_and_all_work_are_written_beside_what_repeats(site):
    for n in range(20):
        site.refuse = (Refusal.STALE, "the study has no such round")
        site.handle(train(100 + n))
        site.refuse = None
        site.handle(train(1 + n))
    site.refuse = (Refusal.BUDGET, "epsilon would be 9")
    site.handle(train(50))
    codes = [r.code for r in site.bodies(Reply)]
    assert codes.count("") == 20
    assert codes.count("stale-round") == LIMIT
    assert codes[-1] == "privacy-budget"


def test_greetings_that_repeat_are_counted_too_and_all_is_said_at_the_end(site):
    hello = encode(WireRequest(kind="hello", study=STUDY, round=0))
    for _ in range(10):
        site.handle(hello)
    assert len(site.bodies(Reply)) == len(site.bodies(Request)) == LIMIT
    site.audit.stop(None)
    assert [r.count for r in site.bodies(Repeated)] == [10 - LIMIT]
    assert site.found.entries[-1].body == Stop(outcome="finished")


@pytest.mark.parametrize(
    ("error", "outcome", "reasons"),
    [
        (SystemExit(0), "stopped", ()),
        (KeyboardInterrupt(), "stopped", ()),
        (PolicyError("hours: it is 3:00"), "failed", ("PolicyError: hours: it is 3:00",)),
        (DataError("Jane Doe denies chest pain"), "failed", ("DataError",)),
        (RuntimeError("Jane Doe denies chest pain"), "failed", ("RuntimeError",)),
    ],
)
def test_the_end_is_there_with_its_reason_but_no_text_of_data(site, error, outcome, reasons):
    site.audit.stop(error)
    said = site.found.entries[-1].body
    assert said == Stop(outcome=outcome, error=type(error).__name__, reasons=reasons)
    assert b"Jane" not in site.disk.read(LOG)


def test_what_the_process_does_without_is_there(site):
    site.audit.insecure("one-user", "no-tls")
    assert site.bodies(Insecure) == [Insecure(choice="one-user"), Insecure(choice="no-tls")]


def test_a_session_that_answers_elsewhere_is_not_watched(site):
    with pytest.raises(AuditError, match="does not answer through this log"):
        site.audit.heard(decode_request(train()))


def test_a_greeting_is_written_with_its_answer_and_not_before(site):
    seen = []
    site.at_work = lambda request: seen.append(len(site.bodies(Request)))
    site.handle(encode(WireRequest(kind="hello", study=STUDY, round=0)))
    assert seen == [0]
    assert [type(e.body) for e in site.found.entries[-2:]] == [Request, Reply]


def test_a_refusal_has_no_head_of_the_ledger(site):
    chain = Chain()
    site.ledger = chain.add(reserve(chain, 1)).state
    site.refuse = (Refusal.POLICY, "why")
    site.handle(train())
    (said,) = site.bodies(Reply)
    assert said.ledger == ""


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "finished"), (DataError("Jane Doe"), "failed")]
)
def test_a_site_says_how_its_worker_ended(tmp_path, error, outcome):
    data = "{train: {path: a.jsonl, format: jsonl}, test: {path: b.jsonl, format: jsonl}}"
    text = f"institution: {SITE}\nstudy: study.yaml\ncoordinator: 127.0.0.1:9192\nstate: state\n"
    site = parse_site(f"{text}data: {data}\n", "site.yaml")
    SitePaths.of(site, tmp_path).state.mkdir()
    with suppress(DataError), audited(site, tmp_path, study()):
        if error is not None:
            raise error
    found = examine((SitePaths.of(site, tmp_path).state / "audit.jsonl").read_bytes())
    said = found.entries[-1].body
    assert (type(said), said.outcome) == (Stop, outcome)


def test_reasons_of_a_request_do_not_print_with_it(site):
    site.refuse = (Refusal.POLICY, "why")
    site.handle(train())
    assert "why" not in repr(site.audit._now)


def test_a_closed_log_lets_nothing_leave(site):
    site.log.close()
    assert decode_reply(site.handle(train())).refusal == "internal-error"
