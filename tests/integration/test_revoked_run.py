"""A study goes on without an institution that is revoked in the middle of it."""

import pytest

from client.app import make_app
from common.audit.entries import Progress
from common.audit.examine import examine
from common.identity.enrolment import Register, make_request
from common.io.certificate_files import create_node_key, read_node_key
from common.io.register_file import write_register
from server.app import run_study
from server.approvals import Approvals
from tests.secure_runs import NAMES, RecordingGrid, Run, bench_of

GONE = "west"
WHEN = "2026-05-01T12:00:00Z"


class Revoking(Run):
    """Its coordinator looks at a register, in which `GONE` is revoked after the first round."""

    def carry_out(self):
        folder = self.folder / "federation"
        folder.mkdir()
        register = Register(federation="fed")
        for name in NAMES:
            create_node_key(folder / name)
            key = read_node_key(folder / name)
            asked = make_request("fed", self.cast.identities[name], key)
            register = register.approve(asked, NAMES, WHEN)
        write_register(folder, register)

        def on_event(event, _figures):
            if event == "round" and len(self.run.events("round")) == 1:
                self.before = len(self.requests)
                write_register(folder, register.end(GONE, "revoked", WHEN, "laptop stolen"))

        with self._sessions():
            grid = RecordingGrid(make_app(self._exchange_for), [{"name": n} for n in NAMES], {})
            with grid:
                owners = dict(zip(grid.get_node_ids(), NAMES, strict=True))
                run_study(
                    grid, self.run, on_event, self.folder / "coordinator", self.cast.standing,
                    owners, approvals=Approvals(folder),
                )  # fmt: skip
        return self


@pytest.fixture(scope="module")
def done(tiny_study, tmp_path_factory):
    bench = bench_of(tiny_study, tmp_path_factory.mktemp("base"), model="{train: head, dropout: 0}")
    return Revoking(bench, tmp_path_factory.mktemp("revoked")).carry_out()


def test_the_next_round_is_of_all_others_and_the_study_ends_well(done):
    rounds = [event["institutions"] for event in done.run.events("round")]
    assert rounds == [sorted(NAMES), sorted(set(NAMES) - {GONE})]
    assert done.run.status()["state"] == "finished"


def test_nothing_is_asked_of_it_any_more(done):
    asked = [name for name, _ in done.requests]
    assert GONE in asked[: done.before]
    assert GONE not in asked[done.before :]


def test_metrics_and_audit_log_name_it_once(done):
    said = [(e["name"], e["state"]) for e in done.run.events("institution")]
    assert said.count((GONE, "revoked")) == 1
    assert [pair for pair in said if pair[1] != "joined"] == [(GONE, "revoked")]
    found = examine((done.run.path / "audit.jsonl").read_bytes())
    assert found.faults == ()
    told = [e.body for e in found.entries if isinstance(e.body, Progress)]
    assert [p.institutions for p in told if p.what == "revoked"] == [(GONE,)]
