"""The audit log's lines: what they can say, and that nothing done to them goes unseen."""

import dataclasses
import json
import time

import pytest

from common.audit.choices import choices_of
from common.audit.codec import Head, MalformedError, hash_of, parse_entry
from common.audit.entries import Insecure, Stop
from common.audit.examine import MAX_UNFINISHED, examine
from common.audit.words import digest_of, name_of, reasons_of, sayable
from common.errors import BudgetError, ConfigError, DataError, PolicyError, ProtocolError
from common.identity.signing import verify
from common.privacy import ledger_codec
from common.secagg.errors import SecaggError
from common.wire import Request as WireRequest
from common.wire import encode
from tests.audits import (
    LOG_ID,
    STUDY,
    Written,
    joined,
    one_of_each,
    opening,
    refused,
    reply,
    request,
    start,
)
from tests.ledgers import NOON, SIGNER, STRANGER, digest
from tests.unit.test_plan import NOISED
from tests.unit.test_plan import study as private
from tests.unit.test_secagg_config import secure

HOSTILE = (
    "Mrs. Jane Doe, 54, denies chest pain; on metoprolol 50 mg.",
    "jane doe",
    "Jane",
    "Müller",
    "a\nb",
    "north-clinic\n",
    '{"body":1}',
    "\x1b[31mred",
    "",
    " ",
    "../../etc/passwd",
    "-----BEGIN PRIVATE KEY-----",
    "correct horse battery staple",
    "x" * 300,
    "A" * 64,
    None,
    7,
    True,
    b"bytes",
    ["a"],
)
"""Nothing of these is a name, a code, a hash, a head or a known word."""


def lines():
    return Written(one_of_each()).lines


@pytest.fixture
def log():
    exchanges = [body(n) for n in range(1, 6) for body in (request, reply)]
    return Written([opening(), start(), *exchanges])


def first_fault(data, **known):
    return examine(data, **known).faults[0]


def test_every_kind_of_entry_reads_back_as_it_was_written():
    assert {parse_entry(line).kind for line in lines()} == {
        "open", "start", "stop", "insecure", "torn", "request", "reply", "repeated", "refusal",
        "spend", "promise", "progress",
    }  # fmt: skip
    found = examine(Written(one_of_each()).file, keys=[SIGNER.public_key])
    assert [entry.body for entry in found.entries] == one_of_each()
    assert (found.faults, found.notes, found.unfinished) == ((), (), b"")


@pytest.mark.parametrize("body", one_of_each(), ids=lambda body: type(body).__name__)
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: repr(value)[:20])
def test_no_field_but_reasons_takes_anything_but_its_own_kind_of_value(body, hostile):
    for field in dataclasses.fields(body):
        if _is_right(field.name, hostile):
            continue
        for value in (hostile, (hostile,)) if field.name == "institutions" else (hostile,):
            with pytest.raises(ValueError, match=field.name):
                dataclasses.replace(body, **{field.name: value})


def _is_right(name, value):
    """The few values of the hostile ones that a field rightly takes."""
    numbers = ("pid", "uid", "bytes", "count", "entry", "round", "attempt", "reserve")
    figures = ("epsilon", "target")
    if value == 7:
        return name in numbers + figures
    if value is None:
        return name in ("public_key", "roster", "accused", "study")
    return value == "" and name in ("code", "error", "ledger", "rule")


def test_a_reason_is_printable_ascii_of_limited_length():
    for text in ("Müller", "a\nb", "\x1b[31mred", "tab\there", "", "x" * 601, 7, None):
        with pytest.raises(ValueError, match="reasons"):
            refused(reasons=(text,))
    with pytest.raises(ValueError, match="reasons"):
        refused(reasons=("why",) * 33)
    assert refused(reasons=("x" * 600,) * 32)


def test_what_is_said_of_an_error_is_its_own_words_only_if_it_is_about_policy_or_protocol():
    note = "Mrs. Doe denies chest pain"
    for error in (DataError(note), ConfigError(note), ValueError(note), KeyError(note)):
        assert reasons_of(error) == (type(error).__name__,)
    for error in (PolicyError("why"), BudgetError("why"), ProtocolError("why"), SecaggError("why")):
        assert reasons_of(error) == (f"{type(error).__name__}: why",)


def test_the_class_of_an_error_is_said_only_if_it_reads_like_one():
    odd = type("Mrs Doe", (Exception,), {})
    assert [name_of(e) for e in (KeyboardInterrupt(), SystemExit(), odd(), DataError("x"))] == [
        "KeyboardInterrupt", "SystemExit", "Exception", "DataError"
    ]  # fmt: skip


def test_words_of_an_error_are_made_fit_for_an_entry_whatever_they_are():
    texts = ["Müller\n\x1b[31m", "y" * 1000, "", *map(str, range(40))]
    found = sayable(texts)
    assert found[0] == "M?ller??[31m"
    assert (len(found[1]), found[1][-6:]) == (600, " [...]")
    assert len(found) == 32
    assert refused(reasons=found)


def test_the_digest_of_a_message_changes_with_every_byte_of_it():
    message = encode(WireRequest(kind="train", study=STUDY, round=1, body=b"model", sums=b"sum"))
    other = encode(WireRequest(kind="train", study=STUDY, round=1, body=b"mode1", sums=b"sum"))
    assert digest_of(message) != digest_of(other)
    assert digest_of(message) == digest_of(bytes(bytearray(message)))
    for data in (b"", b"FDN4", message[:7], message[:40], b"else" + message[4:]):
        assert digest_of(data) == digest(data.decode("latin1")) if not data else digest_of(data)
        assert digest_of(data) != digest_of(message)
    assert digest_of(b"else" + message[4:]) != digest_of(b"else" + other[4:])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"seq":1', b'"seq": 1'),
        (b'"seq":1', b'"seq":1.0'),
        (b'"seq":1', b'"seq":true'),
        (b'"time":1', b'"time":-1'),
        (b'"time":1', b'"time":9999999999999999'),
        (b'"kind":"open"', b'"kind":"close"'),
        (b'"kind":"open"', b'"kind":"start"'),
        (b'"side":"site"', b'"side":"else"'),
        (b'"side":"site"', b'"side":"site","side":"site"'),
        (b'"format":1', b'"format":2'),
        (b'"prev"', b'"previous"'),
        (b'"signature":"', b'"signature":"F'),
    ],
)
def test_a_line_in_any_other_form_is_malformed(before, after):
    line = lines()[0]
    assert line.count(before) >= 1
    with pytest.raises(MalformedError):
        parse_entry(line.replace(before, after, 1))


def test_any_changed_byte_is_found_with_its_line(log):
    tried = 0
    for position in range(0, len(log.file), 11):
        for change in (1, 32):
            changed = bytearray(log.file)
            changed[position] ^= change
            found = first_fault(bytes(changed))
            line = log.file[:position].count(b"\n") + 1
            assert found.line in (line, line + 1), found
            tried += 1
    assert tried > 500


def test_lines_left_out_doubled_or_moved_are_found_at_the_first_of_them(log):
    for i in range(len(log.lines) - 1):
        for changed in (
            [*log.lines[:i], *log.lines[i + 1 :]],
            [*log.lines[: i + 1], *log.lines[i:]],
            [*log.lines[:i], *reversed(log.lines[i : i + 2]), *log.lines[i + 2 :]],
        ):
            assert first_fault(joined(changed)).line in (i + 1, i + 2)


def test_a_line_put_in_by_someone_without_the_key_is_found(log):
    forger = Written(signer=STRANGER)
    forger.chain, forger.lines = log.chain, list(log.lines)
    assert "wrong signature" in first_fault(forger.add(request(9)).file).what
    forger.signer = None
    forger.chain, forger.lines = log.chain, list(log.lines)
    assert "not signed" in first_fault(forger.add(request(9)).file).what


def test_each_cut_tail_is_found_by_a_head_from_elsewhere_and_by_nothing_else(log):
    for n in range(1, len(log.lines)):
        cut = joined(log.lines[:n])
        assert examine(cut).faults == ()
        found = first_fault(cut, heads=[log.chain.head])
        assert found.line == n + 1
        assert "missing" in found.what
    assert first_fault(b"", heads=[log.chain.head]).line == 1
    assert examine(log.file, heads=[log.chain.head]).faults == ()
    past = Written([opening(), start()]).chain.head
    assert examine(log.file, heads=[past]).faults == ()


def test_another_history_or_another_log_is_found_by_a_head_from_elsewhere(log):
    other = Written([opening(), start(), request(3)])
    assert first_fault(log.file, heads=[other.chain.head]).line == 3
    another = Written([opening(log="1" * 32)]).chain.head
    assert "another log" in first_fault(log.file, heads=[another]).what


def test_a_head_reads_back_from_text_and_nothing_else_is_one(log):
    head = log.chain.head
    assert Head.from_text(str(head)) == head
    for text in ("", "1:2", f"{LOG_ID}:0:{head.hash}", f"{head}0", f"{head}\n", str(head).upper()):
        assert Head.from_text(text) is None


def test_a_log_of_another_key_is_found_by_who_knows_the_right_one(log):
    forged = Written([opening(STRANGER.public_key), start(STRANGER.public_key)], STRANGER)
    assert examine(forged.file).faults == ()
    found = examine(forged.file, keys=[SIGNER.public_key]).faults
    assert [f.line for f in found] == [1, 2]
    assert STRANGER.public_key in found[0].what
    assert examine(log.file, keys=[STRANGER.public_key, SIGNER.public_key]).faults == ()


def test_a_change_of_keys_is_noted_and_the_new_key_must_sign(log):
    log.signer = STRANGER
    log.add(start(STRANGER.public_key)).add(request(6))
    found = examine(log.file)
    assert found.faults == ()
    assert [note.line for note in found.notes] == [13, 13]
    assert STRANGER.public_key in found.notes[0].what
    assert [f.line for f in examine(log.file, keys=[SIGNER.public_key]).faults] == [13, 14]
    log.signer = SIGNER
    assert first_fault(log.add(request(7)).file).line == 15


def test_an_unsigned_log_is_whole_and_yet_signed_by_nobody():
    bodies = [opening(None), start(None), Insecure(choice="unsigned-log"), request()]
    unsigned = Written(bodies, signer=None)
    assert examine(unsigned.file).faults == ()
    found = examine(unsigned.file, keys=[SIGNER.public_key]).faults
    assert [f.what for f in found] == ["is signed by nobody"] * 4
    signed = Written([opening(None)], signer=SIGNER)
    assert "no key stands" in first_fault(signed.file).what


def test_a_wrong_number_is_found_though_the_rest_is_right(log):
    for number in (len(log.lines), len(log.lines) + 2):
        entry = log.make(request(6), seq=number)
        wrong = examine(log.file + entry.line + b"\n").faults
        assert [(f.line, "says it is number" in f.what) for f in wrong] == [(13, True)]


def test_open_stands_first_and_only_there():
    assert first_fault(Written([start()]).file).line == 1
    assert first_fault(Written([opening(), opening()]).file).line == 2


def test_a_clock_that_was_set_back_and_a_killed_process_are_noted():
    log = Written([opening(), start()]).add(start(), time=NOON - 5)
    notes = examine(log.file).notes
    assert [note.line for note in notes] == [3, 3]
    assert "5 s older" in notes[0].what
    assert "without a word" in notes[1].what


def test_a_process_that_said_its_end_is_followed_by_another_without_a_note():
    log = Written([opening(), start(), Stop(outcome="finished"), start()])
    assert (examine(log.file).faults, examine(log.file).notes) == ((), ())


@pytest.mark.parametrize(
    "end", [b"{", b'{"body"', bytes(40), b"\xff" * 3, b"{}\n", bytes(9) + b"\n"]
)
def test_an_unfinished_end_is_told_apart_from_damage(log, end):
    found = examine(log.file + end)
    assert (found.unfinished, found.broken, found.whole) == (end, (), len(log.file))
    assert (found.chain, found.lines) == (log.chain, len(log.lines))
    assert found.faults[0].line == len(log.lines) + 1


def test_lost_pages_are_what_a_crash_leaves_only_near_the_end(log):
    lost = bytes(5000) + joined(log.lines[-3:])
    assert examine(log.file + lost).unfinished == lost
    damaged = log.file + b"{}\n" + joined(log.lines[-3:])
    found = examine(damaged)
    assert (found.unfinished, found.broken[0].line) == (b"", len(log.lines) + 1)
    much = bytes(MAX_UNFINISHED) + b"\n" + log.file
    assert examine(log.file + much).broken


def test_a_damaged_line_before_an_unfinished_one_is_damage(log):
    found = examine(log.file + b"{}\n" + b"{")
    assert [f.line for f in found.broken] == [len(log.lines) + 1]
    assert found.unfinished == b"{"


def test_an_entry_is_signed_under_a_label_of_its_own(log):
    """So that no line of a ledger, which the same key signs, is one of a log."""
    entry = parse_entry(log.lines[2])
    assert entry.is_signed_by(SIGNER.public_key)
    for label in (ledger_codec.ENTRY_LABEL, ledger_codec.HEAD_LABEL, b""):
        assert not verify(SIGNER.public_key, label, entry.signed, entry.signature)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (private(), {"exact-evaluation", "secure-aggregation-none"}),
        (private(evaluation=NOISED), {"secure-aggregation-none"}),
        (
            private(evaluation=NOISED, insecure_seed="1"),
            {"insecure-seed", "secure-aggregation-none"},
        ),
        (secure("{}"), {"privacy-none"}),
        (secure("{adversary: semi_honest}"), {"privacy-none", "semi-honest"}),
    ],
)
def test_each_weakness_of_a_study_is_said(study, said):
    assert set(choices_of(study)) == said


def test_reading_goes_on_after_a_broken_line(log):
    changed = list(log.lines)
    changed[4] = changed[4].replace(b'"bytes":4000', b'"bytes":4001')
    changed[8] = b"{}"
    found = examine(joined(changed))
    assert [f.line for f in found.broken] == [5, 6, 9, 10]
    assert len(found.entries) == len(log.lines) - 1


def test_the_chain_is_under_a_label_of_its_own(log):
    assert hash_of(log.lines[0]) != digest(log.lines[0].decode())
    assert json.loads(log.lines[1])["prev"] == hash_of(log.lines[0])


@pytest.mark.parametrize("signer", [SIGNER, None], ids=["signed", "unsigned"])
def test_what_an_entry_costs(signer):
    """`pytest -s`: processor time of one entry. `docs/audit-log.md` has the figures."""
    key, number = signer and signer.public_key, 500
    begun = time.process_time()
    log = Written([opening(key), start(key), *map(request, range(number))], signer)
    made = time.process_time()
    assert examine(log.file).faults == ()
    read = time.process_time()
    each = [f"{s / number * 1e6:.0f} us" for s in (made - begun, read - made)]
    print(f"\n{each[0]} to make, {each[1]} to check, {len(log.file) // number} bytes")  # noqa: T201
    assert made - begun < number * 0.02


def test_each_reason_of_a_refused_start_is_one_of_its_own_and_none_cuts_another():
    error = PolicyError("\n".join(f"[sign-off] {role} {'x' * 580}" for role in "abc"))
    found = reasons_of(error)
    assert [reason.split()[2] for reason in found] == ["a", "b", "c"]
