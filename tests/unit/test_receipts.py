"""What the coordinator has countersigned only ever goes forward, also across restarts."""

import fcntl

import pytest

from common.errors import FederationError
from common.identity.signing import Signer
from common.privacy.ledger_codec import verify_receipt
from common.privacy.ledger_entries import Receipt
from server.receipts import LOCK, ReceiptBook
from tests.full_disk import FullDisk

LEDGER, OTHER = "1" * 32, "2" * 32
NAMES = ("north", "east")


def head(seq, ledger=LEDGER):
    return f"{ledger}:{seq}:{seq:064x}"


def seen(book, name="north"):
    receipt = book.receipts(NAMES)[name]
    return receipt["ledger"], receipt["seq"]


def book_in(folder):
    return ReceiptBook(folder / "coordinator", lambda: 1_800_000_000)


def test_a_receipt_is_signed_with_the_key_that_is_kept(tmp_path):
    book = book_in(tmp_path)
    book.see({"north": head(3)})
    receipt = Receipt(**book.receipts(NAMES)["north"])
    assert verify_receipt(receipt, book.public_key)
    assert not verify_receipt(receipt, Signer(bytes(32)).public_key)
    assert book_in(tmp_path).public_key == book.public_key


def test_an_older_head_replaces_nothing(tmp_path):
    book = book_in(tmp_path)
    book.see({"north": head(7)})
    book.see({"north": head(5)})
    assert seen(book) == (LEDGER, 7)


def test_receipts_survive_a_restart(tmp_path):
    book_in(tmp_path).see({"north": head(2), "east": head(9)})
    assert seen(book_in(tmp_path)) == (LEDGER, 2)
    assert seen(book_in(tmp_path), "east") == (LEDGER, 9)


def test_two_studies_of_one_coordinator_do_not_undo_each_other(tmp_path):
    one, two = book_in(tmp_path), book_in(tmp_path)
    one.see({"north": head(4)})
    two.see({"east": head(6)})
    two.see({"north": head(3)})
    assert seen(one) == seen(two) == (LEDGER, 4)
    assert seen(one, "east") == (LEDGER, 6)


def test_another_ledger_is_taken_and_said(tmp_path, caplog):
    book = book_in(tmp_path)
    book.see({"north": head(7)})
    book.see({"north": head(1, OTHER)})
    assert seen(book) == (OTHER, 1)
    assert "another ledger" in caplog.text


def test_what_is_no_head_is_logged_and_left_out(tmp_path, caplog):
    book = book_in(tmp_path)
    book.see({"north": "nonsense"})
    assert book.receipts(NAMES) == {}
    assert "expected a head" in caplog.text


@pytest.fixture
def full(tmp_path, monkeypatch):
    (tmp_path / "coordinator").mkdir()
    return FullDisk(tmp_path / "coordinator", monkeypatch)


def test_what_a_full_disk_does_not_take_is_kept_in_memory_and_said(tmp_path, full, caplog):
    book = book_in(tmp_path)
    book.see({"north": head(2)})
    full.fill()
    book.see({"north": head(12), "east": head(3)})
    assert (seen(book), seen(book, "east")) == ((LEDGER, 12), (LEDGER, 3))
    assert "receipts wait in memory" in caplog.text
    assert seen(book_in(tmp_path)) == (LEDGER, 2)
    with pytest.raises(FederationError, match="No space left") as caught:
        book.keep()
    assert "nobody was asked" in caught.value.remedy
    full.clear()
    book.keep()
    assert seen(book_in(tmp_path)) == (LEDGER, 12)


def test_what_waited_does_not_replace_what_another_study_has_seen_meanwhile(tmp_path, full):
    one, two = book_in(tmp_path), book_in(tmp_path)
    full.fill()
    one.see({"north": head(4), "east": head(4)})
    full.clear()
    two.see({"north": head(9)})
    one.keep()
    assert seen(book_in(tmp_path)) == (LEDGER, 9)
    assert seen(book_in(tmp_path), "east") == (LEDGER, 4)


def test_a_turn_that_another_process_does_not_give_up_is_not_waited_for_without_end(
    tmp_path, monkeypatch, caplog
):
    book = book_in(tmp_path)
    monkeypatch.setattr("server.receipts.TURN_S", 0.2)
    with (tmp_path / "coordinator" / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book.see({"north": head(3)})
        assert "receipts wait in memory" in caplog.text
        assert seen(book) == (LEDGER, 3)
        with pytest.raises(FederationError, match=f"another process has held {LOCK}"):
            book.keep()
    book.keep()
    assert seen(book_in(tmp_path)) == (LEDGER, 3)
