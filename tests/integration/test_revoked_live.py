"""An institution is revoked while real processes train: the study goes on, and it is shut out."""

import pytest

from common.audit.entries import Progress
from common.audit.examine import examine
from scripts.benchmarks._stage import Stage, fedner

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
GONE = "general-hospital"
ROUNDS = 6
LIMIT_S = 600.0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_study_goes_on_without_who_is_revoked_and_no_server_is_restarted(tiny_study, tmp_path):
    text = tiny_study(
        federation=f"{{institutions: [{', '.join(NAMES)}], quorum: 2, deadline_s: 300}}",
        training=f"{{rounds: {ROUNDS}, learning_rate: 5e-3, precision: float32}}",
    )
    with Stage(tmp_path / "s", text) as stage:
        server = stage.serve()
        stage.start()
        stage.await_event("round", 1, LIMIT_S)
        log = stage.state(GONE) / "supernode.log"
        before = len(log.read_bytes())  # it may have been early, and refused until it was known
        fedner("enrol", "revoke", GONE, "--federation", stage.fed, "--why", "laptop stolen")
        known = len(stage.run.events("round"))
        stage.await_true(lambda: b"code: 2004" in log.read_bytes()[before:], "2004", LIMIT_S)
        assert stage.finish(LIMIT_S) == 0, server.text
        assert stage.server is server
        rounds = [set(event["institutions"]) for event in stage.run.events("round")]
        seen = [(e["name"], e["state"]) for e in stage.run.events("institution")]
        told = [e.body for e in examine(stage.audit().read_bytes()).entries]
        shown = server.text
    assert len(rounds) == ROUNDS
    assert rounds[0] == set(NAMES)
    assert all(GONE not in names for names in rounds[known + 1 :])  # one may have been under way
    assert rounds[-1] == set(NAMES) - {GONE}
    assert seen.count((GONE, "revoked")) == 1
    ended = [p for p in told if isinstance(p, Progress) and p.what == "revoked"]
    assert [p.institutions for p in ended] == [(GONE,)]
    assert f"{GONE}: revoked" in shown
