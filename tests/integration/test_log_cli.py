"""`fedner log`: what people see of an audit log, and how each change to it is named."""

import json
import sys

import pytest

from common.audit.errors import AuditError
from common.audit.examine import examine
from common.errors import IdentityError, UsageError
from common.identity.identity import Identity
from scripts import cli
from tests.audits import SITE, Written, joined, one_of_each, opening, refused, reply, request, start
from tests.ledgers import NOON, SIGNER, STRANGER

COORDINATOR = {"side": "coordinator", "name": "coordinator"}


class Result:
    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err
        self.said = " ".join(self.err.split())


@pytest.fixture
def fedner(monkeypatch, capsys):
    """Runs `fedner log …` in this process, through its entry point."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedner", "log", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
        else:
            code = 0
        return Result(code, capsys.readouterr())

    return run


def exchange(n, **changes):
    return [request(n, **changes), reply(n, **changes)]


@pytest.fixture
def log():
    return Written([opening(), start(), *(body for n in range(1, 5) for body in exchange(n))])


@pytest.fixture
def path(tmp_path, log):
    return write(tmp_path / "audit.jsonl", log.file)


def write(path, data):
    path.write_bytes(data)
    return path


def test_verify_says_how_many_entries_from_when_to_when_and_signed_by_whom(fedner, path, log):
    log.add(request(5), time=NOON + 3600)
    write(path, log.file)
    result = fedner("verify", path, "--key", SIGNER.public_key, "--head", log.chain.head)
    assert result.code == 0
    assert f"11 entries of site {SITE}" in result.out
    assert "from 2023-11-14 22:13:20 to 2023-11-14 23:13:20 UTC" in result.out
    assert f"entries 1 to 11: signed with {SIGNER.public_key}" in result.out
    assert "no line is broken" in result.out
    assert f"head {log.chain.head}" in result.out


def test_verify_takes_the_public_file_of_an_identity_for_a_key(fedner, path, tmp_path):
    public = Identity(name=SITE, signer=SIGNER).public
    right = write(tmp_path / "public.json", public.to_bytes())
    other = Identity(name=SITE, signer=STRANGER).public
    wrong = write(tmp_path / "other.json", other.to_bytes())
    assert fedner("verify", path, "--key", right).code == 0
    result = fedner("verify", path, "--key", wrong)
    assert result.code == AuditError.exit_code
    assert f"line 1 is signed with {SIGNER.public_key}" in result.said
    assert fedner("verify", path, "--key", wrong, "--key", right).code == 0


def test_verify_names_the_first_broken_line_and_why(fedner, path, log):
    lines = log.lines
    changes = {
        "line 4 has a wrong signature": [
            *lines[:3], lines[3].replace(b'"bytes":4200', b'"bytes":4201'), *lines[4:]
        ],
        "line 5 says it is number 6": [*lines[:4], *lines[5:]],
        "line 6 says it is number 7": [*lines[:5], lines[6], lines[5], *lines[7:]],
        "line 10 is unfinished or damaged": [*lines[:9], lines[9][:100]],
        "line 7 is no entry": [*lines[:6], b"{}", *lines[7:]],
    }  # fmt: skip
    for said, changed in changes.items():
        result = fedner("verify", write(path, joined(changed)))
        assert result.code == AuditError.exit_code, said
        assert said in result.said
        assert "docs/audit-log.md" in result.said


def test_verify_finds_a_cut_tail_by_a_head_from_earlier(fedner, path, log):
    head = log.chain.head
    assert "a cut end shows only against" in fedner("verify", path).out
    write(path, joined(log.lines[:-2]))
    assert fedner("verify", path).code == 0
    result = fedner("verify", path, "--head", head)
    assert result.code == AuditError.exit_code
    assert "line 9 is missing" in result.said


def test_verify_says_loudly_that_a_log_is_signed_by_nobody(fedner, path):
    unsigned = Written([opening(None), start(None), request()], signer=None)
    result = fedner("verify", write(path, unsigned.file))
    assert result.code == 0
    assert "entries 1 to 3: SIGNED BY NOBODY" in result.out
    assert fedner("verify", path, "--key", SIGNER.public_key).code == AuditError.exit_code


def test_verify_refuses_what_is_no_log_head_or_key(fedner, path, tmp_path):
    assert fedner("verify", tmp_path / "none").code == UsageError.exit_code
    assert fedner("verify", path, "--head", "1:2").code == UsageError.exit_code
    assert fedner("verify", path, "--key", "12").code == IdentityError.exit_code
    assert fedner("verify", path, "--key", path).code == IdentityError.exit_code
    for content in (b"", b"\n", b"[]", b"\xff\n\xff"):
        assert fedner("verify", write(path, content)).code == AuditError.exit_code


def test_verify_prints_what_a_reader_should_know_though_nothing_is_wrong(fedner, path, log):
    write(path, log.add(start(), time=NOON - 30).file)
    result = fedner("verify", path)
    assert result.code == 0
    assert "note: line 11 is 30 s older" in result.out
    assert "note: line 11 starts a process; the one before ended without a word" in result.out


@pytest.fixture
def coordinators(tmp_path):
    """The log of the coordinator that the site's log above tells of."""
    bodies = [
        opening(STRANGER.public_key, **COORDINATOR),
        start(STRANGER.public_key, process="coordinator"), request(0, asked="hello"),
        *(body for n in range(1, 5) for body in exchange(n)),
        *(body for n in range(1, 5) for body in exchange(n, institution="east", sha256="e" * 64)),
    ]  # fmt: skip
    log = Written(bodies, STRANGER)
    log.path = write(tmp_path / "coordinator.jsonl", log.file)
    return log


def test_two_sides_logs_bear_each_other_out(fedner, path, coordinators):
    for one, other in ((path, coordinators.path), (coordinators.path, path)):
        said = fedner("verify", one, "--other", other)
        assert said.code == 0
        assert f"no line is broken; {other} bears it out\n" in said.out


def test_a_sites_cut_end_shows_against_the_coordinators_log(fedner, path, log, coordinators):
    for lines in (log.lines[:-1], log.lines[:-3]):
        write(path, joined(lines))
        assert fedner("verify", path).code == 0
        result = fedner("verify", path, "--other", coordinators.path)
        assert result.code == AuditError.exit_code
        missing = 1 if len(lines) == 9 else 2
        assert result.said.count(f"a reply of {SITE} to train of round") == missing
        assert "broken" not in result.said


def test_a_coordinators_cut_end_shows_against_a_sites_log(fedner, path, coordinators):
    write(coordinators.path, joined(coordinators.lines[:-10]))
    result = fedner("verify", coordinators.path, "--other", path)
    assert result.code == AuditError.exit_code
    assert "line 9 of the site's log: a request to train in round 4" in result.said


def test_what_a_site_did_in_another_study_or_before_this_run_shows_nothing(
    fedner, tmp_path, coordinators
):
    bodies = [
        opening(), start(), *exchange(7), *(body for n in range(1, 5) for body in exchange(n)),
        request(8, study="f" * 64), reply(8), request(0, asked="hello"), refused(3),
    ]  # fmt: skip
    path = write(tmp_path / "site.jsonl", Written(bodies).file)
    assert fedner("verify", path, "--other", coordinators.path).code == 0


def test_a_log_is_not_compared_with_one_of_the_same_side_nor_with_a_broken_one(
    fedner, path, log, coordinators
):
    assert fedner("verify", path, "--other", path).code == UsageError.exit_code
    write(coordinators.path, joined([*coordinators.lines[:3], *coordinators.lines[4:]]))
    assert "the other side's log is broken" in (
        fedner("verify", path, "--other", coordinators.path).said
    )


def test_show_prints_each_entry_in_a_line_and_whole_on_request(fedner, path):
    log = Written(one_of_each())
    write(path, log.file)
    result = fedner("show", path)
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) == len(log.lines)
    assert lines[4].startswith("2023-11-14 22:13:20     5 request   institution=north-clinic")
    assert "reasons=[PolicyError: the study has `privacy: none`]" in lines[7]
    assert "epsilon=0.5" in lines[5]
    raw = fedner("show", path, "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in raw] == list(range(1, 14))
    assert examine("".join(f"{line}\n" for line in raw).encode()).faults == ()
    only = fedner("show", path, "--kind", "spend", "--kind", "stop").out.splitlines()
    assert [line.split()[3] for line in only] == ["spend", "stop"]
    none = fedner("show", path, "--kind", "insecurity")
    assert (none.code, none.out) == (0, "")
    assert none.err == f"{path}: no such entry among 13\n"


def test_show_says_that_a_log_is_broken_after_what_can_be_read(fedner, path, log):
    write(path, joined([*log.lines[:4], *log.lines[5:]]))
    result = fedner("show", path)
    assert result.code == AuditError.exit_code
    assert len(result.out.splitlines()) == 9
    assert "line 5 says it is number 6" in result.err
