"""Stages of secure sums read off an audit log; what the fault table says of a row."""

import json
from pathlib import Path

from scripts.benchmarks._faults_table import outcome, spend
from scripts.benchmarks._stage_moments import Moment, Moments, moments

TWO = ("north", "east")


def entry(kind: str, asked: str = "", round_: int = 0, institution: str = "north") -> str:
    body = {"asked": asked, "round": round_, "institution": institution}
    return json.dumps({"kind": kind, "body": body}) + "\n"


def at_site(*requests: tuple[str, int]) -> str:
    return "".join(
        entry(kind, asked, round_) for asked, round_ in requests for kind in ("request", "reply")
    )


def at_coordinator(*requests: tuple[str, int]) -> str:
    return "".join(
        entry(kind, asked, round_, name)
        for asked, round_ in requests
        for kind in ("request", "reply")
        for name in TWO
    )


FULL = (("sum", 1), ("sum", 1), ("train", 1), ("sum", 1), ("sum", 1))
STEADY = (("train", 2), ("sum", 2), ("sum", 2), ("evaluate", 2), ("sum", 2), ("sum", 2))
STAGES = ("vectors", "signatures", "shares")
WHOLE = [
    Moment("", 1, "keys"),
    Moment("", 1, "boxes"),
    *(Moment("train", 1, stage) for stage in STAGES),
    *(Moment("train", 2, stage) for stage in STAGES),
    *(Moment("evaluate", 2, stage) for stage in STAGES),
]


def test_a_sum_in_full_has_five_moments_and_one_whose_keys_came_ahead_three(tmp_path: Path) -> None:
    for write in (at_site, at_coordinator):
        log = tmp_path / write.__name__
        log.write_text(entry("start") + entry("request", "hello") + write(*FULL, *STEADY))
        assert moments(log) == WHOLE


def test_what_is_unfinished_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log, text = tmp_path / "audit.jsonl", at_coordinator(*FULL, *STEADY)
    found, read = [], Moments(log)
    assert read.new() == []
    for end in range(0, len(text), 97):
        log.write_text(text[:end])
        found += read.new()
    log.write_text(text)
    assert found + read.new() == WHOLE


def test_after_a_start_a_sum_begins_in_full(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(at_site(("train", 1), ("sum", 1)) + entry("start") + at_site(("sum", 2)))
    assert moments(log)[-1] == Moment("", 2, "keys")


def row(charged: dict[str, int], survivors: tuple[str, ...] = TWO) -> dict:
    one = {
        "round": 3,
        "survivors": survivors,
        "attempts": 1,
        "seconds": 2.0,
        "refused": [["south", "train", "secure-sum"]],
        "charged": charged,
    }
    return {"sums": [one], "said": "", "ended": ""}


def test_the_table_says_who_paid_for_nothing_and_what_is_wrong() -> None:
    once = {"north": 1, "east": 1, "south": 0}
    assert spend(row(once)) == "2 once"
    assert spend(row(once | {"south": 1})) == "2 once; south once, not in the sum"
    for wrong in (once | {"east": 0}, once | {"east": 2}, once | {"south": 2}):
        assert spend(row(wrong)).startswith("WRONG")
    assert "without south" in outcome(row(once))
    assert "south: secure-sum" in outcome(row(once))
    assert outcome({"failed": "a | b"}).startswith("NOT SHOWN: a / b")
