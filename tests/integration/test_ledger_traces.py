"""An old copy that its own folder gives away is refused, and what gives it away is kept."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from client.guard import Guard
from common.errors import BudgetError
from common.io.disk import Disk
from common.io.ledger_folder import read_state
from common.io.ledger_recovery import recover
from common.io.release import release
from common.io.vault import Vault, VaultName
from common.privacy.ledger import Cap
from common.privacy.ledger_codec import countersign
from common.privacy.ledger_entries import Head
from common.privacy.ledger_examine import verify_file
from common.privacy.ledger_state import LedgerState
from common.privacy.ledger_traces import first_bytes
from tests.integration.test_ledger_file import snapshot
from tests.ledgers import (
    COORDINATOR,
    DELTA,
    INSTITUTION,
    NOON,
    STRANGER,
    Clock,
    chance,
    charge,
    digest,
    open_ledger,
    refused,
    toy_epsilon,
)
from tests.unit.test_guard import MADE, POLICY, SIZE, guarded, noise

PATIENT = Cap(unit="patient", delta=DELTA, epsilon_lifetime=10.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger"


def fill(folder: Path, rounds: int = 3, first: int = 1) -> Head:
    """Releases vectors; the ledger is closed again. Its head."""
    with open_ledger(folder) as ledger:
        vault = Vault(folder)
        for number in range(first, first + rounds):
            release(ledger, vault, charge(number), (), lambda _reserved: b"vector")
        return ledger.head


def files(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "ledger.jsonl").read_bytes(), (folder / "ledger.head").read_bytes()


def put_back(folder: Path, old: tuple[bytes, bytes]) -> None:
    (folder / "ledger.jsonl").write_bytes(old[0])
    (folder / "ledger.head").write_bytes(old[1])


def recovered(folder: Path, **changes: object) -> LedgerState:
    fields = {
        "reason": "a test", "caps": (PATIENT,), "assume": {}, "clock": Clock(),
        "random": chance(), "epsilon": toy_epsilon,
    }  # fmt: skip
    return recover(folder, INSTITUTION, **{**fields, **changes})


def rolled_back(folder: Path) -> None:
    """The newest vault beside the ledger of one round."""
    fill(folder, 1)
    old = files(folder)
    fill(folder)
    put_back(folder, old)


def cut_to_one(folder: Path) -> None:
    data = (folder / "ledger.jsonl").read_bytes()
    (folder / "ledger.jsonl").write_bytes(data[: data.index(b"\n") + 1])
    (folder / "ledger.head").unlink()


def without_ledger(folder: Path) -> None:
    (folder / "ledger.jsonl").unlink()
    (folder / "ledger.head").unlink()


def zeros(folder: Path) -> None:
    size = (folder / "ledger.jsonl").stat().st_size
    (folder / "ledger.jsonl").write_bytes(bytes(size))
    (folder / "ledger.head").unlink()


def empty_vault(folder: Path) -> None:
    for path in (folder / "vault").iterdir():
        path.unlink()


def no_key(folder: Path) -> None:
    empty_vault(folder)
    (folder / "vault.key").unlink()


def kept(_folder: Path) -> None:
    pass


@pytest.mark.parametrize("damage", [cut_to_one, without_ledger, zeros])
@pytest.mark.parametrize("vault", [kept, empty_vault])
def test_a_ledger_is_not_begun_where_a_vault_or_its_key_shows_that_one_was(
    folder: Path, damage: Callable[[Path], None], vault: Callable[[Path], None]
) -> None:
    fill(folder)
    damage(folder)
    vault(folder)
    before = snapshot(folder)
    error = refused(open_ledger, folder)
    assert str(folder / "ledger.jsonl") in error.place
    assert "fedner budget recover" in error.remedy
    refused(read_state, folder, INSTITUTION)
    assert snapshot(folder) == before
    recovered(folder)
    open_ledger(folder).close()


def test_no_key_is_made_where_a_ledger_is_missing(folder: Path) -> None:
    fill(folder, 1)
    without_ledger(folder)
    (folder / "signing.key").unlink()
    refused(open_ledger, folder)
    empty_vault(folder)
    (folder / "vault.key").unlink()

    def known(_state: LedgerState | None) -> None:
        raise BudgetError("the log knows more", place="audit.jsonl", remedy="recover")

    refused(open_ledger, folder, check=known)
    assert not (folder / "signing.key").exists()
    open_ledger(folder).close()
    assert (folder / "signing.key").exists()


def test_more_bytes_without_an_entry_than_a_first_start_leaves_are_refused(folder: Path) -> None:
    fill(folder, 1)
    zeros(folder)
    no_key(folder)
    error = refused(open_ledger, folder)
    assert "at most" in error.message
    (folder / "ledger.jsonl").write_bytes(bytes(first_bytes(INSTITUTION)))
    open_ledger(folder).close()


def test_an_unfinished_end_of_a_later_entry_shows_a_ledger_and_one_of_a_first_does_not(
    folder: Path,
) -> None:
    fill(folder, 1)
    line = (folder / "ledger.jsonl").read_bytes().splitlines()[1]
    shutil.copy(folder / "ledger.jsonl", folder / "whole")
    without_ledger(folder)
    no_key(folder)
    (folder / "whole").unlink()
    for torn in (line[:40], bytes(5000)):
        (folder / "ledger.torn-1").write_bytes(torn)
        assert "ledger.torn-1 of an earlier one" in refused(open_ledger, folder).message
    for torn in (b'{"bo', b'{"body":{"format":1,"inst', bytes(100), b""):
        (folder / "ledger.torn-1").write_bytes(torn)
        (folder / "ledger.jsonl").write_bytes(b'{"body":{"form')
        open_ledger(folder).close()
        assert (folder / "ledger.torn-2").exists()
        for name in ("ledger.jsonl", "ledger.head", "ledger.torn-2"):
            (folder / name).unlink()


def test_the_first_entry_of_any_institution_is_as_long_as_is_said(tmp_path: Path) -> None:
    for number, name in enumerate(("n", INSTITUTION, "Zürich \U0001f3e5" * 30)):
        with open_ledger(tmp_path / str(number), institution=name):
            size = (tmp_path / str(number) / "ledger.jsonl").stat().st_size
        assert size == first_bytes(name)


def test_an_old_ledger_beside_a_newer_vault_is_refused_and_the_newest_is_right_again(
    folder: Path,
) -> None:
    rolled_back(folder)
    before = snapshot(folder)
    error = refused(open_ledger, folder)
    assert "is the vector of entry" in error.message
    assert "vault/" in error.place
    refused(read_state, folder, INSTITUTION)
    assert snapshot(folder) == before


def test_a_vector_that_was_moved_aside_shows_an_old_ledger_too(folder: Path) -> None:
    rolled_back(folder)
    for path in (folder / "vault").iterdir():
        path.rename(path.with_name(f"{path.name}.damaged-1"))
    assert "is the vector of entry" in refused(open_ledger, folder).message


def test_another_ledger_beside_vectors_is_refused(folder: Path, tmp_path: Path) -> None:
    fill(folder)
    fill(tmp_path / "other", 1)
    put_back(folder, files(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "signing.key", folder / "signing.key")
    assert "this is another" in refused(open_ledger, folder).message


def test_an_old_ledger_that_the_vault_gave_away_is_recovered_without_a_head(folder: Path) -> None:
    rolled_back(folder)
    vectors = sorted(path.name for path in (folder / "vault").iterdir())
    recovered(folder)
    with open_ledger(folder) as ledger:
        assert not ledger.state.reserves
    assert sorted(path.name for path in (folder / "vault").iterdir()) == vectors


def test_vectors_of_a_lost_ledger_that_nobody_could_name_lock_nothing(folder: Path) -> None:
    fill(folder)
    without_ledger(folder)
    assert recovered(folder).recovered.ledgers == ()
    open_ledger(folder).close()


def test_a_vector_whose_commit_a_crash_took_is_right_at_the_next_start(folder: Path) -> None:
    with open_ledger(folder) as ledger:
        reserved = ledger.reserve(charge(1))
        Vault(folder).put(VaultName.of(reserved), b"finished")
    with open_ledger(folder) as ledger:
        assert release(ledger, Vault(folder), charge(1), (), lambda _: b"new") == b"finished"


# the guard


def test_a_guard_deletes_nothing_of_a_ledger_that_it_refuses(folder: Path) -> None:
    guard = guarded(folder)
    guard.train(1, b"m", noise)
    guard.close()
    old = files(folder)
    guard = guarded(folder)
    sent = guard.train(2, b"m2", noise)
    guard.close()
    newest, vault = files(folder), snapshot(folder / "vault")
    put_back(folder, old)
    with pytest.raises(BudgetError, match="is the vector of entry"):
        guarded(folder)
    assert snapshot(folder / "vault") == vault
    put_back(folder, newest)
    guard = guarded(folder)
    assert guard.train(2, b"m2", noise) == sent
    assert len(guard.state.reserves) == 2
    guard.close()


@pytest.mark.parametrize("known", [True, False])
def test_a_guard_deletes_vectors_of_lost_ledgers_that_were_named_and_no_others(
    folder: Path, known: bool
) -> None:
    head = fill(folder)
    without_ledger(folder)
    recovered(folder, heads=(head,) if known else ())
    with open_ledger(folder) as ledger:
        Guard(MADE, "north", POLICY, ledger, Vault(folder), SIZE)
    assert len(list((folder / "vault").iterdir())) == (0 if known else 3)


# what a receipt has shown


def found_old(folder: Path) -> tuple[Head, dict[Path, bytes]]:
    """A whole folder of before, of which a receipt has shown it; the newest head and files."""
    fill(folder, 1)
    old = snapshot(folder)
    head = fill(folder, 1, first=2)
    newest = snapshot(folder)
    empty_vault(folder)
    for path, data in old.items():
        (folder / path).write_bytes(data)
    with open_ledger(folder) as ledger:
        error = refused(partial(ledger.anchor, vouched=True), countersign(head, COORDINATOR, NOON))
        assert f"--head {head}" in error.remedy
    return head, newest


def test_an_old_copy_that_a_receipt_has_shown_stays_refused_after_a_restart(folder: Path) -> None:
    head, newest = found_old(folder)
    for _ in range(2):
        error = refused(open_ledger, folder)
        assert "this ledger is an older copy" in error.message
        assert f"--head {head}" in error.remedy
    refused(read_state, folder, INSTITUTION)
    for path, data in newest.items():
        (folder / path).write_bytes(data)
    with open_ledger(folder) as ledger:
        assert ledger.head == head


def test_what_a_receipt_has_shown_counts_beside_an_older_head_that_is_known(folder: Path) -> None:
    found_old(folder)
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    held = verify_file(lines[0], open_key(lines[0])).head
    assert "older copy" in refused(open_ledger, folder, known_head=held).message


def open_key(line: bytes) -> str:
    """The public key in a ledger's first line."""
    return str(json.loads(line)["body"]["public_key"])


def test_an_old_copy_that_a_receipt_has_shown_is_recovered(folder: Path) -> None:
    head, _ = found_old(folder)
    recovered(folder)
    with open_ledger(folder) as ledger:
        ledger.anchor(countersign(head, COORDINATOR, NOON))


def test_a_ledger_begun_anew_stays_refused_until_a_recovery_which_keeps_the_head(
    folder: Path,
) -> None:
    head = fill(folder, 1)
    shutil.rmtree(folder)
    with open_ledger(folder) as ledger:
        refused(partial(ledger.anchor, vouched=True), countersign(head, COORDINATOR, NOON))
    assert f"--head {head}" in refused(open_ledger, folder).remedy
    assert str(head) in map(str, recovered(folder).recovered.heads)
    open_ledger(folder).close()


def test_a_damaged_mark_is_refused(folder: Path) -> None:
    found_old(folder)
    (folder / "ledger.seen").write_bytes(b"{")
    error = refused(open_ledger, folder)
    assert "is damaged" in error.message
    assert "ledger.seen" in error.place


class NoMark(Disk):
    """Takes all but the mark."""

    def rename(self, source: Path, target: Path) -> None:
        if target.name == "ledger.seen":
            raise OSError(28, "No space left on device")
        super().rename(source, target)


def test_a_disk_that_does_not_take_the_mark_changes_no_refusal_and_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = fill(folder, 1)
    shutil.rmtree(folder)
    with open_ledger(folder, disk=NoMark()) as ledger:
        error = refused(partial(ledger.anchor, vouched=True), countersign(head, COORDINATOR, NOON))
        assert "this is another" in error.message
        assert "has failed before" in refused(ledger.reserve, charge(1)).message
    assert "ledger.seen: No space left" in caplog.text


# receipts and entries


def test_receipts_without_a_charge_between_them_are_checked_and_not_written(folder: Path) -> None:
    with open_ledger(folder) as ledger:
        ledger.reserve(charge(1))
        for _ in range(50):
            ledger.anchor(countersign(ledger.head, COORDINATOR, NOON))
        assert ledger.state.seq == 3
        beyond = Head(ledger=ledger.head.ledger, seq=9, hash="0" * 64)
        assert (
            "older copy"
            in refused(
                partial(ledger.anchor, vouched=True), countersign(beyond, COORDINATOR, NOON)
            ).message
        )


def test_a_receipt_with_another_pinned_key_is_written_without_a_charge(folder: Path) -> None:
    with open_ledger(folder) as ledger:
        ledger.reserve(charge(1))
        ledger.anchor(countersign(ledger.head, COORDINATOR, NOON))
    with open_ledger(folder, counterpart=STRANGER.public_key) as ledger:
        for _ in range(3):
            ledger.anchor(countersign(ledger.head, STRANGER, NOON))
        assert ledger.state.seq == 4
        assert ledger.state.counterpart == STRANGER.public_key


def test_each_reserve_and_each_commit_is_countersigned_once(folder: Path) -> None:
    with open_ledger(folder) as ledger:
        heads = [ledger.head]
        reserved = ledger.reserve(charge(1))
        heads.append(ledger.head)
        ledger.commit(reserved, digest("vector"))
        heads.append(ledger.head)
        anchored = []
        for head in heads:
            for _ in range(2):
                ledger.anchor(countersign(head, COORDINATOR, NOON))
                anchored.append(ledger.state.anchored.seq)
        assert anchored == [1, 1, 2, 2, 3, 3]
        assert ledger.state.seq == 6
    with open_ledger(folder) as ledger:
        ledger.anchor(countersign(ledger.head, COORDINATOR, NOON))
        assert ledger.state.seq == 6
