"""What may be written into the coordinator's log for what strangers and nodes send."""

import io
import logging

from server.refusals import (
    BURST,
    EVERY_S,
    FIRST_WINDOW_S,
    KINDS,
    LAST_WINDOW_S,
    LINE_CHARACTERS,
    TRACEBACK_CHARACTERS,
    LineBudget,
    Refusals,
    shown,
)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def counted():
    clock, lines = Clock(), []
    return Refusals(lines.append, clock), clock, lines


def test_the_first_of_a_kind_is_said_at_once_and_the_rest_as_one_sum():
    refusals, clock, lines = counted()
    for _ in range(5000):
        refusals.note("404 not served here", "GET /a from 1.2.3.4")
    refusals.note("401 unauthenticated", "POST /b from 1.2.3.5")
    assert lines == [
        "public port: 404 not served here: GET /a from 1.2.3.4",
        "public port: 401 unauthenticated: POST /b from 1.2.3.5",
    ]
    clock.now += FIRST_WINDOW_S
    refusals.look()
    assert lines[2:] == ["public port: 404 not served here: 4,999 times more within 60 s"]


def test_a_day_of_refusals_is_a_hundred_lines_and_a_quiet_window_begins_anew():
    refusals, clock, lines = counted()
    for _ in range(24 * 60):
        clock.now += 60
        for _ in range(10):
            refusals.note("404 not served here", "GET /a")
    assert 24 < len(lines) < 100
    for _ in range(2):
        clock.now += LAST_WINDOW_S
        refusals.look()
    del lines[:]
    refusals.note("404 not served here", "GET /a")
    refusals.note("404 not served here", "GET /a")
    clock.now += FIRST_WINDOW_S
    refusals.look()
    assert len(lines) == 2


def test_there_are_only_so_many_kinds():
    refusals, _, lines = counted()
    for number in range(1000):
        refusals.note(f"kind {number}", "x")
    assert len(lines) == KINDS + 1


def test_what_a_stranger_sent_is_shown_short_printable_and_on_one_line():
    assert shown(b"/v1/fleet") == "/v1/fleet"
    assert shown(b"/" + b"A" * 60_000) == "/" + "A" * 99 + "…"
    assert shown(b"a\nb\x1b[31m\xff\x00") == r"a\nb\x1b[31m\xff\x00"


def logged(budget, message, *arguments, line=1, error=None):
    """What comes through of one record; `None` if nothing does."""
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("flwr", logging.INFO, "/f.py", line, message, arguments, info)
    return logging.Formatter("%(message)s").format(record) if budget.filter(record) else None


def test_one_place_in_the_code_writes_a_burst_and_then_a_line_in_ten_seconds():
    clock = Clock()
    budget = LineBudget(clock)
    through = [logged(budget, "run %s", n) for n in range(10 * BURST)]
    assert through[:BURST] == [f"run {n}" for n in range(BURST)]
    assert through[BURST:] == [None] * 9 * BURST
    assert logged(budget, "another place", line=2) == "another place"
    clock.now += EVERY_S
    assert logged(budget, "run x") == "run x (900 like it were left out)"
    assert logged(budget, "run x") is None
    clock.now += 1e6
    assert sum(logged(budget, "later") is not None for _ in range(10 * BURST)) == BURST


def test_a_record_of_two_handlers_costs_one_line_and_is_written_by_both_or_neither():
    clock = Clock()
    budget = LineBudget(clock)
    logger, texts = logging.Logger("doubled"), (io.StringIO(), io.StringIO())
    for text in texts:
        logger.addHandler(logging.StreamHandler(text))
        logger.handlers[-1].addFilter(budget)

    def write(message):
        logger.info(message)

    for number in range(2 * BURST):
        write(f"run {number}")
    clock.now += EVERY_S
    write("A" * 2 * LINE_CHARACTERS)
    lines = [text.getvalue().splitlines() for text in texts]
    assert lines[0] == lines[1]
    assert len(lines[0]) == BURST + 1
    assert lines[0][-1].endswith(
        f"({2 * LINE_CHARACTERS:,} characters) ({BURST} like it were left out)"
    )


def test_a_line_is_cut_and_no_line_can_be_forged():
    budget = LineBudget(Clock())
    long = logged(budget, "fab_hash=%s", "A" * (16 << 20))
    assert len(long) < LINE_CHARACTERS + 100
    assert long.endswith("… (16,777,225 characters)")
    forged = logged(budget, "hash %s", "x\n2026 INFO all is well\x1b[2J")
    assert forged == "hash x\n  2026 INFO all is well\\x1b[2J"
    try:
        raise ValueError("B" * 100_000)
    except ValueError as error:
        traced = logged(budget, "failed", error=error)
    assert len(traced) < LINE_CHARACTERS + TRACEBACK_CHARACTERS + 100
    assert traced.startswith("failed\n…B")
