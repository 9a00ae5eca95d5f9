"""Room for a sum's entries is taken before vectors are asked for, and serves on a full disk."""

from pathlib import Path

import pytest

from common.audit.entries import Reply, Stop
from common.audit.errors import AuditError
from common.audit.examine import examine
from common.identity.identity import Identity
from common.identity.roster import Member, Roster
from common.io.standing import Standing
from common.wire import Reply as WireReply
from server.audit import RunAudit
from server.mail import Letter
from server.reserve import RESERVE, Reserve
from tests.full_disk import FullDisk
from tests.ledgers import SIGNER
from tests.unit.test_coordinator import NAMES, Federation, study_of

LONGEST = [f"{'n' * 62}{i}" for i in range(len(NAMES))]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, study_of())


@pytest.fixture
def full(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(federation.run_dir.path, monkeypatch)


def bodies(federation: Federation, kind: type) -> list:
    found = examine((federation.run_dir.path / "audit.jsonl").read_bytes())
    assert found.faults == ()
    return [entry.body for entry in found.entries if isinstance(entry.body, kind)]


def standing() -> Standing:
    members = [Member(name=n, public_key=Identity.of(n, n.encode() * 8).signer.public_key)
               for n in ("east", "west")]  # fmt: skip
    roster = Roster(coordinator=SIGNER.public_key, institutions=tuple(members), note="for a test")
    return Standing(identity=Identity(name="coordinator", signer=SIGNER), roster=roster)


def test_replies_that_came_on_a_full_disk_are_logged_and_used(
    federation: Federation, full: FullDisk
) -> None:
    with RunAudit(federation.run_dir, federation.study, None) as audit:
        audit.sent("train", 1, dict.fromkeys(NAMES, Letter((b"request",))))
        full.fill()
        replies = {n: WireReply(kind="train", study="s", round=1, institution=n) for n in NAMES}
        audit.came("train", 1, dict.fromkeys(NAMES, b"reply"), replies)
        audit.sent("sum", 1, dict.fromkeys(NAMES, Letter((b"sign",))))
        audit.came("sum", 1, dict.fromkeys(NAMES, b"signed"), replies)
    assert len(bodies(federation, Reply)) == 2 * len(NAMES)
    assert bodies(federation, Stop) == [Stop(outcome="finished")]


def test_no_vector_is_asked_for_without_room_for_what_follows(
    federation: Federation, full: FullDisk
) -> None:
    discover = federation.exchange.discover

    def discover_and_fill(request, enough):
        full.capacity = full.used() + (1 << 15)
        discover(request, enough)

    federation.exchange.discover = discover_and_fill
    with pytest.raises(AuditError, match="no room for the log of a sum") as caught:
        federation.run()
    assert "nobody was asked" in (caught.value.remedy or "")
    assert federation.exchange.asked == [("hello", 0)]
    full.clear()
    federation.exchange.discover = discover
    federation.run()
    assert federation.exchange.asked[-1] == ("evaluate", 2)


def test_room_that_was_given_up_is_taken_again_before_the_next_vectors(
    federation: Federation, full: FullDisk
) -> None:
    with RunAudit(federation.run_dir, federation.study, None) as audit:
        audit.sent("train", 1, dict.fromkeys(NAMES, Letter((b"request",))))
        full.fill()
        audit.sent("sum", 1, dict.fromkeys(NAMES, Letter((b"sign",))))
        assert not (federation.run_dir.path / RESERVE).exists()
        with pytest.raises(AuditError, match="no room"):
            audit.sent("evaluate", 1, dict.fromkeys(NAMES, Letter((b"request",))))
        full.clear()
        audit.sent("evaluate", 1, dict.fromkeys(NAMES, Letter((b"request",))))
        assert (federation.run_dir.path / RESERVE).exists()
    assert not (federation.run_dir.path / RESERVE).exists()


def test_the_room_holds_all_entries_of_a_sum_of_the_longest_names(
    federation: Federation, full: FullDisk
) -> None:
    head = f"{'a' * 32}:{10**9}:{'b' * 64}"
    data = dict.fromkeys(LONGEST, b"data")
    with RunAudit(federation.run_dir, federation.study, standing()) as audit:
        before = full.used()
        for kind in ("train", "sum", "sum"):
            audit.sent(kind, 10**9, dict.fromkeys(LONGEST, Letter((b"data",))))
            replies = {
                n: WireReply(
                    kind=kind, study="s", round=1, institution=n, ledger=head, refusal="dimension"
                )
                for n in LONGEST
            }
            audit.came(kind, 10**9, data, replies)
            for name in LONGEST:
                said = {"institution": name, "asked": kind, "round": 10**9, "code": "dimension"}
                audit.event("refusal", {**said, "accused": LONGEST[0]})
        room = (federation.run_dir.path / RESERVE).stat().st_size
        assert room - (1 << 16) == len(LONGEST) << 14
        assert full.used() - before - room < (room - (1 << 16)) / 1.5


def test_what_cannot_be_removed_gives_no_room(tmp_path: Path) -> None:
    assert not Reserve(tmp_path, 10).release()
    held = Reserve(tmp_path, 10)
    held.hold()
    held.hold()
    assert (tmp_path / RESERVE).stat().st_size == 10
    assert held.release()
    assert not held.release()
