"""Drivers of the secure sums at both ends: drop-outs, restarts, replays, retries, keys ahead."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from client.sums import SpentError, UnplannedError, WrongModelError, name_of
from common.errors import FederationError
from common.io.freshness import Freshness
from common.secagg import statements
from common.secagg.bundle import join, split
from common.secagg.codec import decode
from common.secagg.errors import (
    MalformedError,
    OpenedError,
    OutOfOrderError,
    SecaggError,
    StaleError,
    UnsignedError,
    WrongSessionError,
)
from common.secagg.messages import Boxes, Kind
from tests.needles import in_binary
from tests.sums_parties import BODY, ROUNDS, STAGES, Federation, body_of


@pytest.fixture
def five(tmp_path):
    return Federation(tmp_path)


def exact(federation, total, names, round_=1):
    assert total.survivors == tuple(n for n in federation.names if n in names)
    assert np.array_equal(total.values, federation.plain_sum(names, round_))
    return True


def errors(federation, kind):
    return [(name, error) for name, error in federation.refused if isinstance(error, kind)]


# --- exactness


def test_the_total_is_the_integer_sum_of_all_vectors(five):
    assert exact(five, five.sum("train", 1), five.names)
    assert five.refused == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("way", ["lost", "deaf"])
def test_who_vanishes_at_any_stage_is_left_behind_and_the_sum_is_exact(five, stage, way):
    gone = five.names[2]
    getattr(five, way).add(("train", 1, stage, gone))
    total = five.sum("train", 1)
    in_the_sum = set(five.names) - ({gone} if stage in STAGES[:3] else set())
    assert exact(five, total, in_the_sum)
    dropped = [gone] if stage == "mask" else []
    assert total.course["dropped"] == dropped
    assert total.course["attempts"] == 1


def test_a_trusted_coordinator_needs_no_signatures(tmp_path):
    federation = Federation(tmp_path, section="{adversary: semi_honest}")
    assert exact(federation, federation.sum("train", 1), federation.names)
    assert "sign" not in [trip[2] for trip in federation.trips]


# --- too few


@pytest.mark.parametrize("stage", STAGES)
def test_below_threshold_no_sum_is_opened_and_the_reason_names_who_is_missing(five, stage):
    gone = five.names[:2]
    five.deaf |= {("train", 1, stage, name) for name in gone}
    with pytest.raises(FederationError, match="round 1: no sum of updates after 3 attempts"):
        five.sum("train", 1)
    first = next(figures for event, figures in five.recorded if event == "abort")
    assert first["rule"] == ("below-cohort" if stage == "mask" else "below-threshold")
    assert all(name in first["reason"] for name in gone)
    opened = [trip for trip in five.trips if trip[2] == "open"]
    assert bool(opened) == (stage == "open")


def test_below_the_studys_quorum_nobody_is_asked_to_sign(tmp_path):
    federation = Federation(tmp_path, quorum=5)
    federation.deaf.add(("train", 1, "mask", federation.names[0]))
    with pytest.raises(FederationError, match="quorum is 5"):
        federation.sum("train", 1)
    assert not {"sign", "open"} & {trip[2] for trip in federation.trips}


# --- keys ahead


def test_in_steady_state_a_sum_takes_three_trips(five):
    order = [("train", 1), ("evaluate", 1), ("train", 2), ("train", 3)]
    for this, following in zip(order, [*order[1:], None], strict=True):
        total = five.sum(*this, following)
        assert total.course["trips"] == (5 if this == order[0] else 3)
        assert total.course["attempts"] == 1
        if this[0] == "train":
            assert exact(five, total, five.names, this[1])


def test_who_missed_a_stage_rejoins_by_a_full_session(five):
    gone = five.names[1]
    five.deaf.add(("train", 1, "sign", gone))
    five.sum("train", 1, ("train", 2))
    total = five.sum("train", 2)
    assert exact(five, total, five.names, 2)
    assert total.course["trips"] == 5
    assert [trip[3] for trip in five.trips if trip[1] == 2] == [2] * 5  # a fresh attempt


def test_who_is_away_does_not_make_keys_ahead_void(five):
    gone = five.names[1]
    five.away.add(gone)
    five.sum("train", 1, ("train", 2))
    total = five.sum("train", 2)
    assert exact(five, total, set(five.names) - {gone}, 2)
    assert total.course["trips"] == 3


def test_a_round_is_tried_again_after_the_next_rounds_keys_came_ahead(tmp_path):
    federation = Federation(tmp_path, noised=True)
    gone = federation.names[:2]

    def before(_purpose, _round, stage):
        lost = {("train", 1, "open", name) for name in gone}
        first = not [t for t in federation.trips[:-1] if t[2] == "open"]
        federation.deaf = lost if stage == "open" and first else set()

    federation.before = before
    total = federation.sum("train", 1, ("train", 2))
    assert total.course["attempts"] == 2
    assert exact(federation, total, federation.names)
    assert exact(federation, federation.sum("train", 2), federation.names, 2)


# --- restarts


@pytest.mark.parametrize("stage", ["share", "mask", "sign", "open"])
def test_a_worker_restarted_in_mid_session_drops_out_and_rejoins_in_the_next_round(five, stage):
    restarted = five.names[3]
    done = []

    def before(_purpose, round_, at):
        if (round_, at) == (1, stage) and not done:
            done.append(five.restart(restarted))

    five.before = before
    total = five.sum("train", 1, ("train", 2))
    left = set(five.names) - ({restarted} if stage in ("share", "mask") else set())
    assert exact(five, total, left)
    if stage != "sign":  # there it answers the next session's invitation, and that alone
        assert {name for name, _ in errors(five, WrongSessionError)} == {restarted}
    assert exact(five, five.sum("train", 2), five.names, 2)


def test_a_session_replayed_after_a_restart_is_stale(five):
    five.sum("train", 1)
    name = five.names[0]
    seen = [bundle for to, *_, bundle in five.requests if to == name]
    five.restart(name)
    with pytest.raises(StaleError):
        five.sites[name].answer(seen[0])
    for bundle in (seen[1], *seen[3:]):
        with pytest.raises(WrongSessionError):
            five.sites[name].answer(bundle)


def test_a_stage_repeated_in_the_same_life_gives_the_same_bytes(five):
    five.sum("train", 1)
    for name, kind, round_, body, bundle in list(five.requests):
        if split_kind(bundle) != Kind.UNMASK:
            continue
        first = five.answer(name, kind, round_, body, bundle)
        assert first in five.sent


def test_only_a_message_that_had_no_answer_yet_is_worked_on(five):
    """The worker logs what it works on: who carries messages can't have it log more."""
    site, worked = five.sites[five.names[0]], []
    answer = site.answer

    def note():
        worked.append("once")

    def counted(bundle):
        before, parts = len(worked), split(bundle)
        reply = answer(bundle, note)
        for again in (bundle, join([*parts, *parts]), join([*parts, b"garbage"])):
            assert set(split(answer(again, note))) == set(split(reply))
        forged = [part[:-1] + bytes([part[-1] ^ 1]) for part in parts]
        for unsigned in (join(forged), join([b"garbage"])):
            with pytest.raises(SecaggError):
                answer(unsigned, note)
        assert len(worked) == before + 1
        return reply

    site.answer = counted
    five.sum("train", 1, ("train", 2))
    five.sum("train", 2)
    assert len(worked) == 6


def split_kind(bundle):
    return decode(split(bundle)[0]).kind


# --- one vector, one session


def fail_the_first_mask(federation, gone):
    def before(_purpose, _round, stage):
        first = not [t for t in federation.trips[:-1] if t[2] == "mask"]
        lost = {("train", 1, "mask", name) for name in gone}
        federation.lost = lost if stage == "mask" and first else set()

    federation.before = before


def test_a_vector_without_noise_is_refused_to_a_second_attempt(five):
    fail_the_first_mask(five, five.names[:2])
    with pytest.raises(FederationError):
        five.sum("train", 1)
    spent = errors(five, SpentError)
    assert {name for name, _ in spent} == set(five.names)
    assert "went into attempt 1 and bears no noise" in spent[0][1].message
    five.before = lambda *_: None
    assert exact(five, five.sum("train", 2), five.names, 2)  # the next round is another vector


def test_a_vector_without_noise_is_refused_to_a_second_attempt_after_a_restart(five):
    five.sum("train", 1)
    for name in five.names:
        five.restart(name)
    five.begin_attempts("train", 1, 7)
    with pytest.raises(FederationError):
        five.sum("train", 1)
    assert len(errors(five, SpentError)) == 3 * len(five.names)


def test_a_noised_vector_goes_under_fresh_keys_in_a_second_attempt(tmp_path):
    federation = Federation(tmp_path, noised=True)
    fail_the_first_mask(federation, federation.names[:2])
    total = federation.sum("train", 1)
    assert total.course["attempts"] == 2
    assert exact(federation, total, federation.names)


MODES = ("malicious", "semi_honest")


def ask_again(federation, restart, lost=True):
    """A coordinator that has the sum asks for it again, over others: what it noted is forgotten."""
    federation.forget()
    if restart:
        for name in federation.names:
            federation.restart(name)
    if lost:
        federation.lost.add(("train", 1, "mask", federation.names[2]))
    return federation.sum("train", 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("restart", [False, True])
def test_noised_vectors_whose_sum_was_opened_are_in_no_sum_over_others(tmp_path, mode, restart):
    """Else the difference of two sums is one institution's noised vector, to the bit."""
    federation = Federation(tmp_path, section=f"{{adversary: {mode}}}", noised=True)
    federation.sum("train", 1)
    with pytest.raises(FederationError):
        ask_again(federation, restart)
    opened = errors(federation, OpenedError)
    assert {name for name, _ in opened} == set(federation.names) - {federation.names[2]}
    assert "an earlier attempt may have opened" in opened[0][1].message
    federation.lost.clear()
    assert exact(federation, federation.sum("train", 2), federation.names, 2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("restart", [False, True])
def test_a_sum_that_was_opened_is_opened_again_over_the_same_institutions(tmp_path, mode, restart):
    federation = Federation(tmp_path, section=f"{{adversary: {mode}}}", noised=True)
    federation.lost.add(("train", 1, "mask", federation.names[2]))
    first = federation.sum("train", 1)
    for _ in range(2):
        again = ask_again(federation, restart)
        assert again.survivors == first.survivors
        assert np.array_equal(again.values, first.values)
    federation.lost.clear()
    with pytest.raises(FederationError):  # nor over more
        ask_again(federation, restart, lost=False)


def test_a_noised_sum_that_was_signed_and_not_opened_is_tried_again_over_others(tmp_path):
    federation = Federation(tmp_path, noised=True)
    federation.deaf = {("train", 1, "sign", name) for name in federation.names[:2]}
    with pytest.raises(FederationError):
        federation.sum("train", 1)
    federation.deaf, federation.away = set(), {federation.names[0]}
    assert exact(federation, federation.sum("train", 1), set(federation.names[1:]))


def counts_again(federation, restart, body=BODY, first=BODY):
    """One model's counts asked in a second round, over other institutions."""
    federation.sum("evaluate", 1, body=first)
    if restart:
        for name in federation.names:
            federation.restart(name)
    federation.away.add(federation.names[0])
    federation.sum("evaluate", 2, body=body)


@pytest.mark.parametrize("restart", [False, True])
def test_one_models_counts_are_not_given_in_a_second_round(five, restart):
    with pytest.raises(FederationError):
        counts_again(five, restart)
    spent = errors(five, SpentError)
    assert {name for name, _ in spent} == set(five.names[1:])
    assert "a model that went into an earlier sum" in spent[0][1].message
    assert not [t for t in five.trips if t[1] == 2 and t[2] in ("sign", "open")]


@pytest.mark.parametrize("restart", [False, True])
def test_one_models_update_is_not_given_in_a_second_round(five, restart):
    five.sum("train", 1)
    if restart:
        for name in five.names:
            five.restart(name)
    with pytest.raises(FederationError):
        five.sum("train", 2, body=BODY)
    assert errors(five, SpentError)


def test_one_model_is_trained_and_evaluated_and_noised_counts_are_given_again(tmp_path):
    (tmp_path / "exact").mkdir()
    federation = Federation(tmp_path / "exact")
    federation.sum("train", 1)
    federation.sum("evaluate", 1, body=BODY)
    assert federation.refused == []
    (tmp_path / "noised").mkdir()
    counts_again(Federation(tmp_path / "noised", noised=True), restart=True)


def test_a_model_that_was_refused_before_its_vector_left_may_be_asked_for_again(five):
    five.deaf = {("evaluate", 1, "mask", name) for name in five.names}
    with pytest.raises(FederationError):
        five.sum("evaluate", 1, body=BODY)
    five.deaf = set()
    five.sum("evaluate", 2, body=BODY)


def test_two_sessions_of_one_model_at_once_give_one_vector(five):
    """Both instructions are accepted before either vector is sent."""
    tasks, name = [], five.names[0]

    def answer(self, _kind, round_, body, bundle):
        tasks.append(self.sites[name].instructed(bundle, "evaluate", round_, body))

    truly = five.answer
    five.answer = lambda to, kind, *more: (
        answer(five, kind, *more) if (to, kind) == (name, "evaluate") else truly(to, kind, *more)
    )
    five.sum("evaluate", 1, body=BODY)
    five.sum("evaluate", 2, body=body_of(2))
    five.answer = truly
    second = replace(tasks[1], model=tasks[0].model)
    five.sites[name].masked(second, lambda: five.vector(name, 2))
    with pytest.raises(SpentError):
        five.sites[name].masked(tasks[0], lambda: five.vector(name, 1))


def test_a_model_is_known_by_its_values():
    zeros = np.zeros(3, np.float32)
    assert name_of(b"") == name_of(zeros.tobytes()) == name_of((-zeros).tobytes())
    one = np.array([1, 0], np.float32)
    assert name_of(one.tobytes()) == name_of(np.array([1, -0.0], np.float32).tobytes())
    names = {name_of(np.array(some, np.float32).tobytes()) for some in ([1], [-1], [2], [1, 0])}
    assert len(names) == 4
    assert name_of(b"") not in names
    with pytest.raises(MalformedError):
        name_of(b"five.")


@pytest.mark.parametrize(
    ("purpose", "round_"),
    [("train", ROUNDS + 1), ("evaluate", ROUNDS + 1), ("evaluate", 3), ("train", 2**20)],
)
def test_a_session_that_the_study_has_not_is_refused_and_leaves_no_trace(tmp_path, purpose, round_):
    federation = Federation(tmp_path, evaluate_every=2)
    federation.sum("train", 1)
    before = files_of(federation)
    with pytest.raises(FederationError):
        federation.sum(purpose, round_)
    assert len(errors(federation, UnplannedError)) == len(federation.refused) > 0
    assert files_of(federation) == before


def test_the_evaluations_that_the_study_has_are_given(tmp_path):
    federation = Federation(tmp_path, evaluate_every=2)
    for round_ in (2, 4, ROUNDS):
        federation.sum("evaluate", round_)
    assert federation.refused == []


def files_of(federation):
    return {path: path.read_bytes() for path in federation.folder.rglob("*.json")}


def test_an_older_attempt_at_the_same_sum_is_forgotten(five):
    five.deaf = {("train", 1, "share", name) for name in five.names[:2]}
    with pytest.raises(FederationError):
        five.sum("train", 1, ("train", 2))
    for site in five.sites.values():
        assert [(s.purpose, s.round, s.attempt) for s in site._machines] == [("train", 1, 3)]


# --- what an institution checks before it does any work


def instruction(federation, name):
    found = [r for r in federation.requests if r[0] == name and r[1] == "train"]
    return found[-1][4]


def test_another_model_than_the_signed_one_is_refused_before_any_work(five):
    five.before = lambda _p, _r, stage: stage == "mask" and stop(five)
    with pytest.raises(StopError):
        five.sum("train", 1)
    name, bundle = five.names[0], five.pending[five.names[0]]
    with pytest.raises(WrongModelError):
        five.sites[name].instructed(bundle, "train", 1, b"another")
    with pytest.raises(WrongSessionError):
        five.sites[name].instructed(bundle, "evaluate", 1, BODY)
    with pytest.raises(WrongSessionError):
        five.sites[name].instructed(bundle, "train", 2, BODY)
    with pytest.raises(OutOfOrderError):
        five.sites[name].answer(bundle)
    forged = bundle[:-64] + bytes(64)
    with pytest.raises(UnsignedError):
        five.sites[name].instructed(forged, "train", 1, BODY)
    assert five.sites[name].instructed(bundle, "train", 1, BODY).reply == b""


class StopError(Exception):
    """The test goes on by hand."""


def stop(federation):
    raise StopError


@pytest.fixture(autouse=True)
def _pending(monkeypatch):
    """What a trip was about to send."""
    asked = Federation.ask

    def ask(self, kind, round_, body, sums, *more):
        self.pending = dict(sums)
        return asked(self, kind, round_, body, sums, *more)

    monkeypatch.setattr(Federation, "ask", ask)


# --- what lies on disk


def test_files_hold_stages_and_hashes_and_no_secret(five):
    five.sum("train", 1, ("evaluate", 1))
    (path,) = (five.folder / five.names[0] / "sums").glob("*.json")
    content = json.loads(path.read_text())
    assert content["train"][0]["round"] == 1
    assert content["models"] == {"train": [name_of(BODY)]}
    assert set(content["train"][0]["stages"]) == {
        "advertised", "shared", "masked", "signed", "opened",
    }  # fmt: skip
    assert set(content["evaluate"][0]["stages"]) == {"advertised", "shared"}
    assert content["train"][0].pop("survivors") == [0, 1, 2, 3, 4]
    for entry in content["train"] + content["evaluate"]:
        assert set(entry) == {"round", "attempt", "stages"}
        assert all(len(bytes.fromhex(digest)) == 32 for digest in entry["stages"].values())
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_secret_of_a_session_is_in_a_file_or_a_log_of_a_site_and_none_outlives_it(five, caplog):
    """Searched for after every trip, with a complaint and an attempt that fails among them."""
    secrets, sites = set(), five.folder

    def held():
        for site in five.sites.values():
            for machine in site._machines.values():
                state = machine._state
                own = getattr(state, "secrets", None)
                yield from () if own is None else (own.box_key, own.mask_key, own.seed)
                for shares in (getattr(state, "own", None), *getattr(state, "shares", {}).values()):
                    yield from () if shares is None else (shares.key, shares.seed)

    def found(needles):
        files = [path for path in sites.rglob("*") if path.is_file()]
        texts = [path.read_bytes() for path in files] + [caplog.text.encode()]
        return [n.form for n in needles if any(n.lies_in(text) for text in texts)]

    def search(*_):
        secrets.update(held())
        assert found(n for one in secrets for n in in_binary("secret", "raw", one)) == []

    caplog.set_level(logging.DEBUG)
    five.before = search
    five.lost = {("train", 1, "mask", name) for name in five.names[:3]}
    with pytest.raises(FederationError):
        five.sum("train", 1)
    five.lost = {("train", 2, "open", five.names[0])}
    five.sum("train", 2, ("evaluate", 2))
    five.sum("evaluate", 2)
    search()
    assert len(secrets) > 3 * 5 * (3 + 2 * 5)  # three sums at least, of all secrets and shares
    assert set(held()) == set()
    (noted,) = (sites / five.names[0] / "sums").glob("*.json")
    digest = json.loads(noted.read_text())["train"][-1]["stages"]["shared"]
    assert found(in_binary("digest", "raw", bytes.fromhex(digest))) == ["hex raw"]


def test_a_reply_is_not_given_where_the_disk_does_not_take_it(five, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.io.freshness.replace_file", full)
    with pytest.raises(FederationError):
        five.sum("train", 1)
    assert five.sent == []
    assert all("No space left" in str(error) for _, error in five.refused)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"x": []}', b'{"train": [{}]}',
               b'{"train": [{"round": 0, "attempt": 1, "stages": {}}]}']
)  # fmt: skip
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, damage):
    (tmp_path / "s.json").write_bytes(damage)
    with pytest.raises(FederationError, match="can't be read"):
        Freshness(tmp_path, "s")
    assert (tmp_path / "s.json").read_bytes() == damage


# --- a box that does not open


def break_the_box(federation, dealer, holder):
    """What the dealer closed for the holder changes on its way."""
    truly = federation.answer

    def answer(name, kind, round_, body, bundle):
        reply = truly(name, kind, round_, body, bundle)
        told = decode(split(reply)[0]) if reply else None
        if name != dealer or not isinstance(told, Boxes):
            return reply
        at = federation.names.index(holder)
        boxes = [replace(b, box=bytes(len(b.box))) if b.peer == at else b for b in told.boxes]
        signer = federation.cast.identities[name].signer
        return join([statements.testified(signer, replace(told, boxes=tuple(boxes)))])

    federation.answer = answer


def test_who_gets_a_box_that_does_not_open_says_whose_and_is_left_behind(five, caplog):
    holder, dealer = five.names[0], five.names[1]
    break_the_box(five, dealer, holder)
    assert exact(five, five.sum("train", 1), set(five.names) - {holder})
    said = f"{holder} says that the box of {dealer} does not open: one of the two is at fault"
    assert said in caplog.text
    assert "broke the secure sum's protocol" not in caplog.text
    refusals = [figures for event, figures in five.recorded if event == "refusal"]
    said = {"institution": holder, "code": "complaint", "accused": dealer}
    assert refusals == [{"round": 1, "asked": "sum", **said}]
    assert "masked" not in stages_of(five, holder)


def test_a_complaint_is_no_vector_and_leaves_no_trace_on_disk(five):
    holder, dealer = five.names[0], five.names[1]
    break_the_box(five, dealer, holder)
    five.sum("train", 1)
    assert stages_of(five, holder) == {"advertised", "shared"}
    five.restart(holder)  # nothing was spent
    assert five.sites[holder]._freshness.masked("train") is None


def stages_of(federation, name):
    (path,) = (federation.folder / name / "sums").glob("*.json")
    return set(json.loads(path.read_text())["train"][0]["stages"])
