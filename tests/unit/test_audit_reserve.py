"""Room for a sum's entries is taken before vectors are asked for, and serves on a full disk."""

import errno
import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from common.audit.entries import Reply, Stop
from common.audit.errors import AuditError
from common.audit.examine import examine
from common.errors import FederationError, FednerError
from common.identity.identity import Identity
from common.identity.roster import Member, Roster
from common.io import journal
from common.io.disk import Disk
from common.io.standing import Standing
from common.wire import Reply as WireReply
from server.audit import RunAudit
from server.mail import Letter
from server.optimizer import ServerOptimizer
from server.receipts import ReceiptBook
from server.reserve import CHECKPOINT_RESERVE, RESERVE, Reserve
from tests.full_disk import FullDisk
from tests.ledgers import SIGNER
from tests.unit.test_coordinator import NAMES, Federation, study_of

CHECKPOINT_ROOM = (1 << 20) + 1000
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
        full.capacity = full.used() + CHECKPOINT_ROOM + (1 << 15)
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
    path = tmp_path / RESERVE
    assert not Reserve(path, 10, "a test", FederationError).release()
    held = Reserve(path, 10, "a test", FederationError)
    held.hold()
    held.hold()
    assert path.stat().st_size == 10
    assert held.release()
    assert not held.release()


def test_no_vector_is_asked_for_without_room_for_a_checkpoint(
    federation: Federation, full: FullDisk
) -> None:
    full.capacity = full.used() + CHECKPOINT_ROOM // 2
    with pytest.raises(FederationError, match="no room for a checkpoint") as caught:
        federation.run()
    assert "nobody was asked" in (caught.value.remedy or "")
    assert federation.exchange.asked == [("hello", 0)]


def test_no_vector_is_asked_for_while_receipts_wait_for_room(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = ReceiptBook(tmp_path / "coordinator")
    full = FullDisk(tmp_path / "coordinator", monkeypatch)
    full.fill()
    book.see({"north": f"{'1' * 32}:1:{'a' * 64}"})
    with pytest.raises(FederationError, match="receipts can't be written"):
        federation.run(book)
    assert federation.exchange.asked == [("hello", 0)]
    full.clear()
    federation.run(book)
    assert federation.exchange.asked[-1] == ("evaluate", 2)


def test_large_room_is_of_its_size_to_the_byte(tmp_path: Path) -> None:
    size = (5 << 20) + 7
    Reserve(tmp_path / RESERVE, size, "a test", FederationError).hold()
    data = (tmp_path / RESERVE).read_bytes()
    assert len(data) == size
    assert len(zlib.compress(data, 1)) > size


def _full_from(federation: Federation, full: FullDisk, kind: str, round_: int, left: int) -> None:
    """From the moment when this is asked for, so many bytes are left."""

    def before(*asked: object) -> None:
        if asked == (kind, round_):
            full.capacity = full.used() + left

    federation.exchange.before = before


def test_a_disk_that_is_full_once_updates_come_costs_no_checkpoint(
    federation: Federation, full: FullDisk
) -> None:
    _full_from(federation, full, "train", 1, 0)
    with pytest.raises(FednerError, match="no room for") as caught:
        federation.run()
    assert "nobody was asked" in (caught.value.remedy or "")
    assert federation.exchange.asked[-1] == ("train", 1)
    assert federation.run_dir.load_delta()[1] == 1
    assert [line["round"] for line in federation.recorded("round")] == [1]
    full.clear()
    federation.exchange.asked.clear()
    federation.exchange.before = lambda *_: None
    federation.run()
    assert ("train", 1) not in federation.exchange.asked
    assert not (federation.run_dir.path / CHECKPOINT_RESERVE).exists()


@pytest.mark.parametrize(
    "aggregation", ["{}", "{optimizer: fedadam, learning_rate: 1e-3, average: 0.5}"]
)
def test_a_checkpoint_fits_into_the_room_that_was_held_for_it(
    federation: Federation, full: FullDisk, aggregation: str
) -> None:
    run, optimizer = (
        federation.run_dir,
        ServerOptimizer.start(study_of(aggregation=aggregation).aggregation, 200_000),
    )
    room = run.checkpoint_room(optimizer)
    run.save_checkpoint(optimizer, 1, {"round": 1})
    room.hold()
    full.fill()
    with pytest.raises(FederationError, match="the checkpoint can't be written"):
        run.save_checkpoint(optimizer, 2, {"round": 2})
    assert run.load_delta()[1] == 1
    run.save_checkpoint(optimizer, 2, {"round": 2}, room)
    assert run.load_delta()[1] == 2
    room.hold()  # as much is free again
    full.fill()
    assert room.release()
    full.fill()
    with pytest.raises(FederationError, match="no room for a checkpoint"):
        room.hold()


@pytest.mark.parametrize("left", range(0, 4800, 400))
def test_a_refusal_that_comes_on_a_full_disk_costs_nobody_elses_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Whichever file finds it full first: the audit log or the metrics."""
    federation = Federation(tmp_path, study_of(quorum=2))
    full = FullDisk(federation.run_dir.path, monkeypatch)
    federation["north"].forge["train"] = lambda reply: replace(reply, refusal="policy", body=b"")
    _full_from(federation, full, "train", 1, left)
    with pytest.raises(FednerError, match="no room for"):
        federation.run()
    assert federation.recorded("round")[0]["institutions"] == ["east", "south"]
    assert [line["institution"] for line in federation.recorded("refusal")] == ["north"]
    full.clear()
    bodies(federation, Reply)


def test_a_line_of_the_metrics_that_fits_by_half_is_taken_back(
    federation: Federation, full: FullDisk
) -> None:
    path = federation.run_dir.path / "metrics.jsonl"
    journal.append(path, {"event": "a"})
    before, write = path.read_bytes(), Disk.write

    def by_half(disk: Disk, descriptor: int, data: memoryview, offset: int) -> int:
        if len(data) > 5:
            return write(disk, descriptor, data[:5], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "write", by_half)
        with pytest.raises(FederationError, match="No space left"):
            journal.append(path, {"event": "b"})
    assert path.read_bytes() == before
    journal.append(path, {"event": "c"})
    assert [line["event"] for line in journal.read(path)] == ["a", "c"]
