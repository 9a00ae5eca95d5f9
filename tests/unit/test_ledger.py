"""The ledger without its file: which bytes, entries and files are accepted."""

import json
from dataclasses import replace

import pytest

from common.errors import BudgetError
from common.privacy.events import GaussianSteps
from common.privacy.ledger_codec import (
    MalformedError,
    countersign,
    encode_head,
    head_from_text,
    parse_entry,
    parse_head,
    verify_receipt,
)
from common.privacy.ledger_entries import Commit
from common.privacy.ledger_examine import examine, verify_file
from common.privacy.ledger_salvage import salvage
from common.privacy.ledger_state import advance, check_receipt, fold
from tests.ledgers import (
    COORDINATOR,
    INSTITUTION,
    NOON,
    SIGNER,
    STRANGER,
    Chain,
    anchor,
    digest,
    long_chain,
    note,
    recover,
    refused,
    reserve,
)


@pytest.fixture
def chain():
    return long_chain()


def test_every_kind_of_entry_reads_back_the_same(chain):
    for entry in [*chain.entries, chain.make(recover())]:
        again = parse_entry(entry.line())
        assert again == entry
        assert again.line() == entry.line()
        assert again.is_signed_by(SIGNER.public_key)


@pytest.mark.parametrize("key", ["kind", "prev", "signature"])
@pytest.mark.parametrize("value", [["reserve"], {}, int("1" * 128), None])
def test_a_text_of_another_type_is_damage_and_no_crash(chain, key, value):
    changed = {**json.loads(chain.lines[1]), key: value}
    line = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(MalformedError):
        parse_entry(line)
    file = chain.lines[0] + b"\n" + line + b"\n"
    assert refused(verify_file, file, SIGNER.public_key).place == "entry 2"
    assert len(salvage([file], INSTITUTION, SIGNER.public_key).entries) == 1


def test_a_line_is_canonical_json_of_seven_bit_text(chain):
    line = chain.make(replace(note(), text="größer")).line()
    assert line.isascii()
    assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode() == line


def test_floats_read_back_exactly():
    event = GaussianSteps(sampling_rate=1 / 3, noise_multiplier=0.1 + 0.2, steps=7)
    chain = Chain()
    entry = chain.make(reserve(chain, events=(event,)))
    assert parse_entry(entry.line()).body.events == (event,)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"seq":2', b'"seq": 2'),
        (b'"seq":2', b'"seq":2.0'),
        (b'"seq":2', b'"seq":true'),
        (b'"seq":2', b'"seq":0'),
        (b'"steps":20', b'"steps":20.0'),
        (b'"noise_multiplier":1.0', b'"noise_multiplier":1'),
        (b'"noise_multiplier":1.0', b'"noise_multiplier":1e0'),
        (b'"noise_multiplier":1.0', b'"noise_multiplier":NaN'),
        (b'"attempt":1', b'"attempt":1,"attempt":1'),
        (b'"attempt":1', b'"attempts":1'),
        (b'"attempt":1', b'"attempt":0'),
        (b'"unit":"patient"', b'"unit":"person"'),
        (b'"kind":"reserve"', b'"kind":"refund"'),
        (b'"purpose":"train"', b'"purpose":"tr\\u0061in"'),
    ],
)
def test_a_line_in_any_other_form_is_malformed(before, after):
    chain = Chain()
    line = chain.make(reserve(chain)).line()
    assert line.count(before) >= 1
    with pytest.raises(MalformedError):
        parse_entry(line.replace(before, after, 1))


def test_an_upper_case_digit_in_a_signature_is_malformed(chain):
    entry = chain.entries[1]
    with pytest.raises(MalformedError):
        parse_entry(replace(entry, signature=entry.signature.upper()).line())


def test_a_head_reads_back_from_its_file_and_from_text(chain):
    head = chain.state.head
    assert parse_head(encode_head(head)) == head
    assert head_from_text(str(head)) == head
    for text in ("", "1:2", f"{head.ledger}:x:{head.hash}", f"{head}0", str(head).upper()):
        refused(head_from_text, text)


def test_folding_the_lines_gives_the_state_that_grew_entry_by_entry(chain):
    assert fold(chain.lines) == chain.state
    assert chain.state.seq == len(chain.lines)
    assert verify_file(chain.file, SIGNER.public_key) == chain.state


def test_an_entry_is_refused_unless_number_chain_time_and_signature_are_right(chain):
    state, body = chain.state, note()
    wrong = [
        chain.make(body, seq=state.seq),
        chain.make(body, seq=state.seq + 2),
        chain.make(body, prev=state.hashes[-2]),
        chain.make(body, time=NOON - 1),
        replace(chain.make(body), signature=chain.entries[-1].signature),
        replace(chain.make(body), body=replace(body, text="another")),
    ]
    for entry in wrong:
        error = refused(advance, state, entry)
        assert error.place == f"entry {entry.seq}" or "number" in error.message
    assert advance(state, chain.make(body)).seq == state.seq + 1


def test_an_entry_signed_with_another_key_is_refused(chain):
    chain.signer = STRANGER
    assert "signature" in refused(advance, chain.state, chain.make(note())).message


def test_only_the_order_of_kinds_that_the_protocol_has_is_accepted(chain):
    first = Chain()
    second = Chain(ledger="1" * 32)
    wrong = [
        (chain, chain.entries[0].body, "opens"),
        (chain, recover(), "not the second"),
        (chain, Commit(reserve=1, vector=digest("v")), "no reserve"),
        (chain, Commit(reserve=99, vector=digest("v")), "no reserve"),
        (chain, Commit(reserve=2, vector=digest("v")), "again"),
        (chain, replace(reserve(chain, 3), attempt=2), "attempt"),
        (chain, replace(reserve(chain, 2), attempt=1), "attempt"),
        (chain, replace(reserve(chain, 3), unit="record"), "unit"),
        (chain, replace(reserve(chain, 3), delta=1e-7), "delta"),
        (chain, anchor(chain, STRANGER), "another key"),
        (chain, anchor(first), "anchors"),
        (first, anchor(second), "history"),
    ]
    for ledger, body, said in wrong:
        assert said in refused(advance, ledger.state, ledger.make(body)).message
    assert "expected open" in refused(advance, None, chain.entries[1]).message


def test_a_ledger_may_go_on_from_a_recovery_and_its_counterpart_is_remembered():
    chain = Chain().add(recover(counterpart=COORDINATOR.public_key))
    assert (
        "another key" in refused(advance, chain.state, chain.make(anchor(chain, STRANGER))).message
    )
    assert chain.add(anchor(chain)).state.anchored.seq == 2


def test_any_changed_byte_of_any_entry_is_found(chain):
    file, head = chain.file, encode_head(chain.state.head)
    tried = 0
    for position in range(0, len(file), 5):
        for change in (1, 32):
            changed = bytearray(file)
            changed[position] ^= change
            refused(examine, bytes(changed), head)
            tried += 1
    assert tried > 1500


def test_any_changed_byte_of_the_head_is_found(chain):
    file, head = chain.file, encode_head(chain.state.head)
    assert examine(file, head).state == chain.state
    for position in range(len(head)):
        for change in (1, 2, 32):
            changed = bytearray(head)
            changed[position] ^= change
            refused(examine, file, bytes(changed))


def test_any_changed_byte_of_an_unacknowledged_entry_leaves_at_least_what_was_acknowledged(chain):
    before = Chain()
    before.entries, before.state = chain.entries[:-1], fold(chain.lines[:-1])
    head, start = encode_head(before.state.head), len(before.file)
    torn = 0
    for position in range(start, len(chain.file)):
        changed = bytearray(chain.file)
        changed[position] ^= 1
        try:
            found = examine(bytes(changed), head)
        except BudgetError:
            continue
        torn += 1
        assert found.state == before.state
        assert found.torn == bytes(changed)[start:]
    assert torn > 0


def test_any_cut_tail_is_found(chain):
    file, head = chain.file, encode_head(chain.state.head)
    ends = [i + 1 for i, byte in enumerate(file) if byte == 10]
    for size in sorted({*ends[:-1], *range(0, len(file) - 1, 97), len(file) - 1}):
        error = refused(examine, file[:size], head)
        whole = sum(end <= size for end in ends)
        assert error.place == f"entry {whole + 1}"


def test_entries_in_another_order_doubled_or_left_out_are_found(chain):
    lines, head = chain.lines, encode_head(chain.state.head)
    for i in range(len(lines)):
        for changed in (
            [*lines[:i], *lines[i + 1 :]],
            [*lines[: i + 1], *lines[i:]],
            [*lines[:i], *reversed(lines[i : i + 2]), *lines[i + 2 :]],
        ):
            if changed != lines:
                refused(examine, b"".join(line + b"\n" for line in changed), head)


def test_a_restored_old_copy_is_found_by_the_head_or_by_what_the_counterpart_knows(chain):
    old = Chain()
    old.entries, old.state = chain.entries[:4], fold(chain.lines[:4])
    new_head, old_head = chain.state.head, old.state.head
    assert "entry 9" in refused(examine, old.file, encode_head(new_head)).message
    assert examine(old.file, encode_head(old_head)).state == old.state  # nothing here can tell
    error = refused(examine, old.file, encode_head(old_head), known_head=new_head)
    assert "older copy" in error.message
    assert "docs/ledger.md" in error.remedy
    refused(examine, None, None, known_head=new_head)
    assert examine(chain.file, encode_head(new_head), known_head=old_head).state == chain.state


def test_an_old_head_with_a_newer_ledger_is_found(chain):
    heads = [encode_head(fold(chain.lines[:n]).head) for n in range(1, 10)]
    for n, head in enumerate(heads, 1):
        if n < 8:
            assert "old copy" in refused(examine, chain.file, head).message
    assert examine(chain.file, heads[7]).unacknowledged
    assert not examine(chain.file, heads[8]).unacknowledged


def test_a_missing_ledger_or_head_is_found(chain):
    head = encode_head(chain.state.head)
    assert "missing" in refused(examine, None, head).message
    assert "no readable entry" in refused(examine, b"", head).message
    assert "ledger.head is missing" in refused(examine, chain.file, None).message
    refused(examine, chain.file, b"")
    fresh = examine(None, None)
    assert (fresh.state, fresh.torn) == (None, b"")


def test_the_ledger_of_another_institution_or_with_another_key_is_refused(chain):
    head = encode_head(chain.state.head)
    stranger = Chain(STRANGER)
    examine(chain.file, head, institution=INSTITUTION, public_key=SIGNER.public_key)
    assert INSTITUTION in refused(examine, chain.file, head, institution="north-clinic").message
    refused(examine, chain.file, head, public_key=STRANGER.public_key)
    refused(examine, stranger.file, encode_head(stranger.state.head), public_key=SIGNER.public_key)
    assert "another ledger" in refused(examine, Chain(ledger="1" * 32).file, head).message


def test_another_history_with_the_same_key_is_found(chain):
    fork = Chain()
    fork.add(reserve(fork, 7))
    known = fork.state.head
    head = encode_head(chain.state.head)
    assert "another entry" in refused(examine, chain.file, head, known_head=known).message
    refused(examine, fork.file, head)


@pytest.mark.parametrize(
    "torn", [b"{", b'{"body"', bytes(40), b"\xff" * 3, b"{}\n", bytes(9) + b"\n"]
)
def test_an_unfinished_end_is_told_apart_from_damage(chain, torn):
    file, head = chain.file, encode_head(chain.state.head)
    found = examine(file + torn, head)
    assert found.state == chain.state
    assert (found.torn, found.good_bytes) == (torn, len(file))
    refused(examine, file + torn, encode_head(fold(chain.lines[:-1]).head))
    refused(examine, file + torn + b"\n" + torn, head)
    refused(verify_file, file + torn, SIGNER.public_key)


def test_an_auditor_needs_the_file_and_the_public_key(chain):
    export = json.dumps({"entries": [json.loads(line) for line in chain.lines]}).encode()
    for data in (chain.file, export):
        assert verify_file(data, SIGNER.public_key, chain.state.head) == chain.state
        refused(verify_file, data, STRANGER.public_key)
    changed = export.replace(b'"round": 2', b'"round": 3', 1)
    assert changed != export
    assert refused(verify_file, changed, SIGNER.public_key).place == "entry 6"
    for data in (b"", b"\n", b"[]", b"{}", chain.file[:-1], b"\n" + chain.file):
        refused(verify_file, data, SIGNER.public_key)


def test_a_receipt_verifies_only_for_its_key_head_and_time(chain):
    head, key = chain.state.head, COORDINATOR.public_key
    receipt = countersign(head, COORDINATOR, NOON)
    assert verify_receipt(receipt, key)
    assert receipt.head == head
    for other in (
        replace(receipt, time=NOON + 1),
        replace(receipt, seq=head.seq - 1),
        replace(receipt, hash=digest("other")),
        replace(receipt, ledger="1" * 32),
        replace(receipt, public_key=STRANGER.public_key),
    ):
        assert not verify_receipt(other, key)
    assert not verify_receipt(receipt, STRANGER.public_key)


def test_the_first_counterparts_key_is_kept_unless_one_is_pinned(chain):
    state = chain.state
    ours = countersign(state.head, COORDINATOR, NOON)
    theirs = countersign(state.head, STRANGER, NOON)
    check_receipt(Chain().state, theirs, None)
    check_receipt(state, ours, None)
    assert COORDINATOR.public_key in refused(check_receipt, state, theirs, None).message
    check_receipt(state, theirs, STRANGER.public_key)
    refused(check_receipt, state, ours, STRANGER.public_key)
    forged = replace(ours, seq=1)
    assert "wrong" in refused(check_receipt, state, forged, None).message


def test_a_pinned_key_replaces_the_first_one(chain):
    chain.add(note())
    state = advance(chain.state, chain.make(anchor(chain, STRANGER, pinned=True)))
    assert state.counterpart == STRANGER.public_key
