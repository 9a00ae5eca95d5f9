"""Requests that come again and again: counted in windows, by kind and code."""

from common.audit.entries import Repeated
from common.audit.repeats import LIMIT, WINDOW_S, Repeats


def full(asked: str = "hello", code: str = "") -> Repeats:
    """As many written as a window takes, entries 1 and on."""
    repeats = Repeats()
    for entry in range(1, LIMIT + 1):
        assert not repeats.is_one_more(asked, code, 0)
        repeats.wrote(asked, code, entry)
    return repeats


def test_what_comes_beyond_the_limit_is_counted_and_said_once_with_the_newest_entry() -> None:
    repeats = full()
    assert [repeats.is_one_more("hello", "", now) for now in (0, 1, WINDOW_S - 1)] == [True] * 3
    assert repeats.over(WINDOW_S - 1) == []
    assert repeats.over(WINDOW_S) == [Repeated(entry=LIMIT, count=3)]
    assert repeats.over(WINDOW_S) == repeats.over() == []


def test_a_window_that_is_over_counts_nothing_more() -> None:
    repeats = full()
    assert repeats.is_one_more("hello", "", WINDOW_S - 1)
    assert not repeats.is_one_more("hello", "", WINDOW_S)


def test_codes_and_kinds_are_counted_each_by_itself() -> None:
    repeats = full("train", "policy")
    assert repeats.is_one_more("train", "policy", 1)
    assert not repeats.is_one_more("train", "stale-round", 1)
    assert not repeats.is_one_more("evaluate", "policy", 1)


def test_of_a_window_without_more_nothing_is_said() -> None:
    assert full().over() == []
