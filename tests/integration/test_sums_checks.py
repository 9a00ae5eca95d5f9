"""What the drivers of the secure sums refuse at each end, one by one."""

import errno
import io
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest

import client.sums
import common.io.freshness
from client.worker_log import LIMIT, dressed
from common.errors import FederationError
from common.io.freshness import Freshness
from common.secagg.bundle import join, split
from common.secagg.errors import BelowCohortError, MalformedError, UnsignedError
from common.secagg.states import Durable
from common.secagg.transitions import Stage
from tests.sums_parties import BODY, Federation


@pytest.fixture
def five(tmp_path):
    return Federation(tmp_path)


def exact(federation, total, names, round_=1):
    assert set(total.survivors) == set(names)
    assert np.array_equal(total.values, federation.plain_sum(names, round_))
    return True


def bundles(federation, name):
    """What an institution was asked, in order."""
    return [bundle for to, *_, bundle in federation.requests if to == name]


# --- at the institution


def test_a_round_whose_vector_was_sent_is_refused_at_the_invitation(five):
    five.sum("train", 1)
    five.begin_attempts("train", 1, 1)
    before = len(five.trips)
    with pytest.raises(FederationError):
        five.sum("train", 1)
    assert {trip[2] for trip in five.trips[before:]} == {"advertise"}


def test_nothing_is_computed_for_a_model_whose_vector_was_sent(five):
    five.sum("evaluate", 1, body=BODY)
    computed = []
    five.vector = lambda name, _round: computed.append(name)
    with pytest.raises(FederationError):
        five.sum("evaluate", 2, body=BODY)
    assert "mask" in [trip[2] for trip in five.trips if trip[1] == 2]
    assert computed == []


def fail_the_disk_at_the_vector(federation, monkeypatch):
    """As often as there are entries in the list that is given back, it takes no vector."""
    real, faults = common.io.freshness.replace_file, []

    def replace_file(disk, path, data):
        if faults and b'"masked"' in data:
            raise OSError(errno.ENOSPC, faults.pop())
        return real(disk, path, data)

    monkeypatch.setattr(common.io.freshness, "replace_file", replace_file)
    return faults


def test_a_model_is_used_though_the_disk_failed_when_its_vector_was_about_to_leave(
    five, monkeypatch
):
    """The same instruction again gives the vector: that its model is used must be known by then."""
    name, truly = five.names[0], five.answer
    faults = fail_the_disk_at_the_vector(five, monkeypatch)

    def answer(to, kind, round_, body, bundle):
        if (to, kind, round_) != (name, "evaluate", 1):
            return truly(to, kind, round_, body, bundle)
        faults.extend(["full"] * 2)
        replies = [truly(to, kind, round_, body, bundle) for _ in range(3)]
        assert replies[:2] == [None, None]
        return replies[2]

    five.answer = answer
    assert five.sum("evaluate", 1, body=BODY).survivors == five.names
    assert faults == []
    five.restart(name)
    five.refused.clear()
    with pytest.raises(FederationError):
        five.sum("evaluate", 2, body=BODY)
    said = [error.message for to, error in five.refused if to == name]
    assert said
    assert all("a model that went into an earlier sum" in message for message in said)


@pytest.mark.parametrize("error", [FederationError("no budget is left"), KeyboardInterrupt()])
def test_where_the_work_fails_the_secrets_of_its_session_are_gone(five, error):
    name = five.names[0]

    def vector(of, round_):
        if of == name:
            raise error
        return Federation.vector(five, of, round_)

    five.vector = vector
    if isinstance(error, FederationError):
        assert exact(five, five.sum("train", 1), five.names[1:])
    else:
        with pytest.raises(KeyboardInterrupt):
            five.sum("train", 1)
    (machine,) = five.sites[name]._machines.values()
    assert machine.stage is Stage.FAILED
    assert not hasattr(machine._state, "secrets")
    assert not hasattr(machine._state, "shares")


def test_where_a_vector_cannot_be_masked_the_secrets_of_its_session_are_gone(five):
    name = five.names[0]

    def vector(of, round_):
        made = Federation.vector(five, of, round_)
        return made.astype("float64") if of == name else made

    five.vector = vector
    assert exact(five, five.sum("train", 1), five.names[1:])
    (machine,) = five.sites[name]._machines.values()
    assert machine.stage is Stage.FAILED
    assert not hasattr(machine._state, "secrets")


def test_a_site_that_gives_up_says_why_and_answers_nothing(five):
    strict, away = five.names[0], five.names[4]
    parties = five.sites[strict]._parties
    five.sites[strict]._parties = {
        purpose: replace(party, min_cohort=5) for purpose, party in parties.items()
    }
    five.away.add(away)
    with pytest.raises(FederationError):
        five.sum("train", 1)
    refused = [(name, error) for name, error in five.refused if name == strict]
    assert {type(error) for _, error in refused} == {BelowCohortError}
    assert away in refused[0][1].message


def test_the_vector_is_let_go_before_its_message_is_copied(five, monkeypatch):
    """Else vector, message and reply are in memory at once."""
    made, alive, real = [], [], client.sums.join

    def vector(name, round_):
        found = Federation.vector(five, name, round_)
        made.append(weakref.ref(found))
        return found

    def join(parts):
        alive.extend(ref() is not None for ref in made)
        return real(parts)

    five.vector = vector
    monkeypatch.setattr(client.sums, "join", join)
    five.sum("train", 1)
    assert (len(made), any(alive)) == (5, False)


def test_two_sessions_are_alive_at_most(five):
    for this in (("train", 1), ("evaluate", 1), ("train", 2), ("evaluate", 2)):
        five.sum(*this)
        for site in five.sites.values():
            assert len(site._machines) <= 2


def test_an_invitation_that_nobody_signed_ends_no_session(five):
    name, site = five.names[0], five.sites[five.names[0]]
    five.sum("train", 1)
    alive = dict(site._machines)
    (invitation,) = split(bundles(five, name)[0])
    # the next attempt at the same sum, of a noised study, in which it may be tried again
    site._noised = frozenset({"train"})
    at = len(invitation) - 64
    forged = invitation[: at - 4] + (2).to_bytes(4, "big") + invitation[at:]
    with pytest.raises(UnsignedError):
        site.answer(join([forged]))
    assert site._machines == alive


def test_garbage_does_not_hide_a_refusal_of_another_rule_in_the_log(five):
    five.sum("train", 1)
    name = five.names[0]
    invitation, *_ = split(bundles(five, name)[0])
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    dressed(handler)
    client.sums.log.addHandler(handler)
    try:
        for _ in range(2 * LIMIT):
            with pytest.raises(MalformedError):
                five.sites[name].answer(join([b"garbage"]))
        with pytest.raises(UnsignedError) as caught:
            five.sites[name].answer(join([invitation[:-1] + bytes([invitation[-1] ^ 1])]))
    finally:
        client.sums.log.removeHandler(handler)
    assert text.getvalue().count("secure sum: refused") == LIMIT + 1
    assert str(caught.value) in text.getvalue()


def test_an_instruction_comes_alone_and_is_one(five):
    five.sum("train", 1)
    asked = bundles(five, five.names[0])
    site = five.sites[five.names[0]]
    invitation, instruction = split(asked[0])[0], split(asked[2])[0]
    for parts in ([instruction, invitation], [instruction, instruction], [invitation]):
        with pytest.raises(MalformedError, match="not one instruction"):
            site.instructed(join(parts), "train", 1, BODY)


def test_a_site_whose_memory_is_gone_gives_the_lock_back(tmp_path):
    folder = tmp_path / "sums"
    Freshness(folder, "s").close()
    (folder / "s.json").unlink()
    for _ in range(2):  # the second time it is not "in use"
        with pytest.raises(FederationError, match="is gone"):
            Freshness(folder, "s")


# --- at the coordinator


def test_keys_ahead_of_another_sum_are_not_used(five):
    five.sum("train", 1, ("evaluate", 1))
    total = five.sum("train", 2)
    assert exact(five, total, five.names, 2)
    assert total.course["trips"] == 5


def test_a_reply_with_a_body_is_refused_and_recorded(five):
    name, asked = five.names[1], five.coordinator._trips._ask

    def ask(kind, *more):
        *before, take, leaving = more

        def talk(sender, reply):
            talks = kind == "train" and sender == name
            take(sender, replace(reply, body=b"in clear") if talks else reply)

        return asked(kind, *before, talk, leaving)

    five.coordinator._trips._ask = ask
    assert exact(five, five.sum("train", 1), set(five.names) - {name})
    refusals = [figures for event, figures in five.recorded if event == "refusal"]
    assert refusals == [{"round": 1, "institution": name, "asked": "sum", "code": "malformed"}]


def test_who_is_away_is_not_invited(five):
    away = five.names[2]
    five.away.add(away)
    five.sum("train", 1)
    assert all(away not in names for *_, names in five.trips)


def test_keys_ahead_of_too_few_are_void_and_this_sum_goes_on(five):
    session = replace(five.coordinator._begin("evaluate", 1).session, attempt=9)
    for name in five.names[:2]:
        noted = Durable(session=session, stage=Stage.ADVERTISED, reply_sha256="ab" * 32)
        five.sites[name]._freshness.note(noted)
    total = five.sum("train", 1, ("evaluate", 1))
    assert exact(five, total, five.names)
    assert total.course["attempts"] == 1
    assert five.coordinator._ahead is None
