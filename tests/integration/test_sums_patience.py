"""Institutions that are away when a sum begins are waited for, as long as the study says."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from common.errors import FederationError
from common.secagg.bundle import join, split
from server.attempts import Attempts
from server.collect import SecureCollector
from server.outcome import GivenError
from server.patience import Patience
from tests.sums_parties import Federation

LIMIT_S = 20.0


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, limit_s=LIMIT_S):
        return Patience(limit_s=limit_s, sleep=self.sleep, clock=lambda: self.now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def four(tmp_path, clock):
    """Of four institutions a sum takes three."""
    federation = Federation(tmp_path, n=4)
    federation.coordinator._patience = clock.patience()
    return federation


def away_until(federation, clock, when, names):
    federation.coordinator._present = lambda: [
        name for name in federation.names if clock.now >= when or name not in names
    ]


def test_who_is_away_for_a_moment_costs_no_attempt(four, clock, caplog):
    away_until(four, clock, 3.0, four.names[:2])
    with caplog.at_level(logging.INFO, "fedner.server"):
        total = four.sum("train", 1)
    assert np.array_equal(total.values, four.plain_sum(four.names, 1))
    assert total.course["attempts"] == 1
    assert 3.0 <= clock.now <= 4.0
    said = [
        record.getMessage()
        for record in caplog.records
        if "train of round 1" in record.msg % record.args
    ]
    assert len(said) == 2  # once when it waits, once when it goes on
    assert "2 of 4 institutions can be reached, a sum takes 3; missing: " in said[0]
    assert ", ".join(four.names[:2]) in said[0]
    assert "goes on after 3 s" in said[1]


def test_who_is_not_needed_is_not_waited_for(four, clock):
    away_until(four, clock, 3.0, four.names[:1])
    four.away = {four.names[0]}
    assert four.sum("train", 1).survivors == four.names[1:]
    assert clock.now == 0.0


def test_a_quorum_above_the_cohort_is_waited_for(tmp_path, clock):
    federation = Federation(tmp_path, n=4, quorum=4)
    federation.coordinator._patience = clock.patience()
    away_until(federation, clock, 3.0, federation.names[:1])
    assert federation.sum("train", 1).survivors == federation.names


def test_who_stays_away_ends_the_sum_at_the_deadline_and_is_named(four, clock):
    away_until(four, clock, float("inf"), four.names[:2])
    with pytest.raises(FederationError, match="after 1 attempt; the first ended since") as caught:
        four.sum("train", 1)
    assert clock.now == LIMIT_S
    assert "2 of 4 institutions could be reached within 20 s" in caught.value.message
    assert f"a sum takes 3; missing: {', '.join(four.names[:2])}" in caught.value.message
    assert not isinstance(caught.value, GivenError)
    assert "--resume" in caught.value.remedy
    assert four.trips == []  # nobody was asked for anything
    assert [(event, figures["rule"]) for event, figures in four.recorded] == [
        ("abort", "below-cohort")
    ]


def test_without_patience_nobody_is_waited_for(tmp_path, clock):
    federation = Federation(tmp_path, n=4)  # as drivers are made in tests
    away_until(federation, clock, 3.0, federation.names[:2])
    with pytest.raises(FederationError, match="within 0 s"):
        federation.sum("train", 1)
    assert federation.trips == []


def test_between_attempts_there_is_a_pause(four, clock):
    four.deaf = {("train", 1, "advertise", name) for name in four.names[:2]}
    with pytest.raises(FederationError, match="after 3 attempts"):
        four.sum("train", 1)
    assert clock.slept == [2.0, 2.0]


def test_who_is_back_after_the_pause_is_in_the_next_attempt(four, clock):
    four.deaf = {("train", 1, "advertise", name) for name in four.names[:2]}
    four.before = lambda *_: clock.now and four.deaf.clear()
    total = four.sum("train", 1)
    assert (total.survivors, total.course["attempts"]) == (four.names, 2)


def test_the_longest_pause_is_five_seconds(clock):
    clock.patience(3600.0).pause()
    clock.patience(0.0).pause()
    assert clock.slept == [5.0, 0.0]


def test_a_study_waits_as_long_as_its_deadline(four):
    made = SecureCollector(
        four.study,
        7,
        four.cast.standing,
        ask=four.ask,
        present=lambda: four.names,
        record=lambda *_, **__: None,
        attempts=Attempts(),
    )
    assert made._sums._patience.limit_s == four.study.federation.deadline_s


def test_a_refused_part_leaves_the_part_for_the_session_ahead(four):
    """A damaged signature costs its sum a survivor; the next sum has its keys all the same."""
    victim, ask = four.names[0], four.coordinator._trips._ask

    def damaged(kind, round_, body, sums, most, take, leaving):
        def damage(name, reply):
            parts = split(reply.sums)
            if name == victim and len(parts) == 2 and four.trips[-1][2] == "sign":
                reply = replace(reply, sums=join([parts[0][:-1], parts[1]]))
            take(name, reply)

        return ask(kind, round_, body, sums, most, damage, leaving)

    four.coordinator._trips._ask = damaged
    four.sum("train", 1, ("train", 2))
    assert [figures["institution"] for event, figures in four.recorded if event == "refusal"] == [
        victim
    ]
    after = four.sum("train", 2)
    assert (after.survivors, after.course["trips"]) == (four.names, 3)
