"""Whole studies with secure aggregation through every layer: Flower's messages, worker sessions,
models, files, the coordinator; and institutions that vanish, restart, refuse or are lied to.
"""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import FederationError
from common.identity.signing import Signer
from common.io.ledger_file import LedgerFile
from common.secagg import statements
from common.secagg.bundle import join, split
from common.secagg.codec import decode
from common.secagg.codec import encode as encode_message
from common.sums import grid_of
from common.wire import decode_reply, decode_request, encode
from server.receipts import ReceiptBook
from tests.secure_runs import NAMES, STAGES, Run, bench_of, federation

GONE = NAMES[1]
ROUND = "{rounds: 1, local_epochs: 1, batch_size: 8, learning_rate: 5e-3, precision: float32}"
PRIVATE_ROUND = "{rounds: 1, learning_rate: 1e-2, precision: float32}"
NO_EVALUATION = federation(evaluate_every=9)
PRIVATE = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic}"
)


@pytest.fixture(scope="module")
def make(tiny_study, tmp_path_factory):
    """Benches by what is changed, each made once."""
    made = {}

    def bench(**changes):
        sections = {"training": ROUND, "model": "{train: head, dropout: 0}"} | changes
        key = tuple(sorted(sections.items()))
        if key not in made:
            made[key] = bench_of(tiny_study, tmp_path_factory.mktemp("base"), **sections)
        return made[key]

    return bench


def gone_at(stage, names=(GONE,), way="deaf", purpose="train", round_=1, attempts=(1,)):
    """A fault: these institutions miss one stage."""

    def fault(_run, asked):
        here = (asked.stage, asked.purpose, asked.round) == (stage, purpose, round_)
        return way if here and asked.attempt in attempts and asked.name in names else None

    return fault


def others(*names):
    return [name for name in NAMES if name not in names]


# --- without and with


def test_one_round_equals_that_without_secure_aggregation_up_to_the_grids_step(make, tmp_path):
    run = Run(make(), tmp_path / "secure").carry_out()
    plain = Run(make(secure_aggregation="none"), tmp_path / "plain").carry_out()
    one, other = run.run.load_delta()[0], plain.run.load_delta()[0]
    step = grid_of(run.study).step
    assert np.abs(other).max() > 20 * step
    assert np.abs(one - other).max() < step
    assert one.tobytes() == run.mean_of(NAMES, 1).tobytes()


def test_the_model_is_the_sum_of_all_rounds_integer_sums(make, tmp_path):
    rounds = ROUND.replace("rounds: 1", "rounds: 3")
    run = Run(make(training=rounds), tmp_path).carry_out()
    delta = sum(run.mean_of(NAMES, round_) for round_ in (1, 2, 3))
    assert np.allclose(run.run.load_delta()[0], delta, atol=1e-7)
    # every sum after the first finds its keys fetched ahead
    sums = [e["sum"] for e in run.run.events() if e["event"] in ("round", "evaluation")]
    assert [s["trips"] for s in sums] == [5, 3, 3, 3, 3, 3]
    assert all(s["survivors"] == list(NAMES) and not s["dropped"] for s in sums)


def test_the_mean_is_weighted_by_public_weights_of_those_who_stayed(make, tmp_path):
    weights = dict(zip(NAMES, (4, 1, 2, 1), strict=True))
    said = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
    bench = make(aggregation=f"{{weights: {{{said}}}}}", federation=NO_EVALUATION)
    run = Run(bench, tmp_path, gone_at("mask", way="lost")).carry_out()
    stayed = others(GONE)
    summed = sum(weights[name] * run.updates[name, 1].astype(np.float64) for name in stayed)
    mean = summed / sum(weights[name] for name in stayed)
    found, step = run.run.load_delta()[0], grid_of(run.study).step
    assert np.abs(mean).max() > 20 * step
    assert np.abs(found - mean).max() < len(stayed) * step * 4 / 7


# --- who vanishes


@pytest.mark.parametrize("stage", STAGES.values())
@pytest.mark.parametrize("way", ["deaf", "lost"])
def test_who_vanishes_at_any_stage_is_left_behind_and_back_in_the_next_round(
    make, tmp_path, stage, way
):
    rounds = ROUND.replace("rounds: 1", "rounds: 2")
    bench = make(training=rounds, federation=NO_EVALUATION)
    run = Run(bench, tmp_path, gone_at(stage, way=way)).carry_out()
    late = stage in ("sign", "open")  # its vector is in the sum by then
    first = list(NAMES) if late else others(GONE)
    sums = [e["sum"] for e in run.run.events("round")]
    assert [s["survivors"] for s in sums] == [first, list(NAMES)]
    assert sums[0]["dropped"] == ([GONE] if stage == "mask" else [])
    assert [s["attempts"] for s in sums] == [1, 1]
    delta = run.mean_of(first, 1) + run.mean_of(NAMES, 2)
    assert np.allclose(run.run.load_delta()[0], delta, atol=1e-7)


@pytest.mark.parametrize("stage", STAGES.values())
def test_below_the_threshold_nothing_is_opened_and_the_reason_is_named(make, tmp_path, stage):
    gone = NAMES[1:3]
    fault = gone_at(stage, gone, attempts=(1, 2, 3))
    run = Run(make(federation=NO_EVALUATION), tmp_path, fault)
    with pytest.raises(FederationError, match="round 1: no sum of updates after 3 attempts"):
        run.carry_out()
    abort = run.run.events("abort")[0]
    # where vectors are counted, the study's quorum comes first
    rule, least = (
        ("below-cohort", "quorum") if stage == "mask" else ("below-threshold", "threshold")
    )
    assert (abort["rule"], abort["sum"], abort["round"]) == (rule, "train", 1)
    assert "2 of 4" in abort["reason"]
    assert f"{least} is 3" in abort["reason"]
    assert all(name in abort["reason"] for name in gone)
    assert run.run.status()["state"] == "failed"
    assert run.run.events("round") == []
    assert not (run.run.path / "checkpoint.npz").exists()


def test_the_counts_of_who_vanishes_are_not_in_the_sum(make, tmp_path):
    run = Run(make(), tmp_path, gone_at("mask", purpose="evaluate")).carry_out()
    (event,) = run.run.events("evaluation")
    assert event["institutions"] == sorted(others(GONE))
    support = sum(len(d.entities) for n in others(GONE) for d in run.bench.sides[n].test)
    assert event["entities"]["micro"]["support"] == support


# --- restarts


@pytest.mark.parametrize("stage", ["share", "mask", "sign", "open"])
def test_a_worker_restarted_in_mid_session_drops_out_of_it_and_is_back_in_the_next(
    make, tmp_path, stage
):
    def fault(run, asked):
        here = (asked.stage, asked.round, asked.name) == (stage, 1, GONE)
        if here and run.lives[GONE] == 1:
            run.start(GONE)

    rounds = ROUND.replace("rounds: 1", "rounds: 2")
    run = Run(make(training=rounds, federation=NO_EVALUATION), tmp_path, fault).carry_out()
    first = others(GONE) if stage in ("share", "mask") else list(NAMES)
    sums = [e["sum"] for e in run.run.events("round")]
    assert [s["survivors"] for s in sums] == [first, list(NAMES)]
    refused = {(e["institution"], e["code"]) for e in run.run.events("refusal")}
    if stage == "sign":  # the next session's invitation came along, and was answered
        assert (sums[1]["trips"], refused) == (3, set())
    else:
        assert (sums[1]["trips"], refused) == (5, {(GONE, "secure-sum")})
    delta = run.mean_of(first, 1) + run.mean_of(NAMES, 2)
    assert np.allclose(run.run.load_delta()[0], delta, atol=1e-7)


def test_everything_that_was_asked_is_refused_when_replayed_after_a_restart(make, tmp_path):
    run = Run(make(), tmp_path).carry_out()
    fits, ran = run.fits, [r for r in run.requests if decode_request(r[1]).kind != "hello"]
    for name in NAMES:
        run.start(name)
    for name, request in ran:
        reply = decode_reply(run.sessions[name].handle(request))
        assert (reply.refusal, reply.body, reply.sums) == ("secure-sum", b"", b"")
    assert run.fits == fits


# --- a second attempt


def test_without_noise_a_second_attempt_gets_no_vector_of_who_sent_one(make, tmp_path, caplog):
    fault = gone_at("mask", NAMES[2:], way="lost")
    run = Run(make(federation=NO_EVALUATION), tmp_path, fault)
    with pytest.raises(FederationError):
        run.carry_out()
    assert run.fits == len(NAMES)  # once each
    assert "bears no noise of its own" in caplog.text
    assert {e["code"] for e in run.run.events("refusal")} == {"spent"}


def test_with_noise_a_second_attempt_masks_the_same_integers_and_is_charged_once(make, tmp_path):
    fault = gone_at("mask", NAMES[2:], way="lost")
    bench = make(privacy=PRIVATE, training=PRIVATE_ROUND)
    run = Run(bench, tmp_path, fault).carry_out()
    (event,) = run.run.events("round")
    assert (event["sum"]["attempts"], event["sum"]["survivors"]) == (2, list(NAMES))
    assert set(run.rounded.values()) == {1}  # no institution computed twice
    assert run.run.load_delta()[0].tobytes() == run.mean_of(NAMES, 1).tobytes()
    for name in NAMES:
        with LedgerFile.open(run.state(name) / "ledger", name) as ledger:
            reserves = [(r.body.purpose, r.body.round) for r in ledger.state.reserves.values()]
            assert sorted(reserves) == [("evaluate", 1), ("train", 1)]


# --- lies


def forged(request):
    """The instruction under a signature of zeros, of a stranger, and none at all."""
    asked = decode_request(request)
    (part,) = split(asked.sums)
    told = decode(part)
    unsigned = encode_message(replace(told, signature=bytes(64)))
    for lie in (unsigned, statements.signed(Signer(bytes(32)), told)):
        yield replace(asked, sums=join([lie]))
    yield replace(asked, sums=b"")


@pytest.mark.parametrize("privacy", ["none", PRIVATE])
def test_a_forged_instruction_trains_nothing_charges_nothing_and_the_true_one_goes_on(
    make, tmp_path, privacy
):
    told = []

    def fault(run, asked):
        if (asked.stage, asked.purpose, asked.name) != ("mask", "train", GONE) or told:
            return
        session, fits, head = run.sessions[GONE], run.fits, head_of(run)
        for lie in forged(run.request):
            told.append(decode_reply(session.handle(encode(lie))))
        assert (run.fits, head_of(run)) == (fits, head)

    training = ROUND if privacy == "none" else PRIVATE_ROUND
    run = Run(make(privacy=privacy, training=training), tmp_path, fault).carry_out()
    assert [reply.refusal for reply in told] == ["secure-sum"] * 3
    (event,) = run.run.events("round")
    assert event["sum"]["survivors"] == list(NAMES)


@pytest.mark.parametrize("head", [f"{'7' * 32}:9007199254740992:{'0' * 64}", None, ""])
def test_a_head_that_its_institution_did_not_sign_is_not_countersigned_and_locks_nobody(
    make, tmp_path, head
):
    """Who carries the replies of one institution: with a head of its own, an earlier one, none."""
    first = []

    def relay(name, data):
        reply = decode_reply(data)
        if name != GONE or not reply.ledger:
            return data
        first.append(reply)
        signed = {"ledger": first[0].ledger, "ledger_signature": first[0].ledger_signature}
        return encode(replace(reply, **(signed if head is None else {"ledger": head})))

    run = Run(make(privacy=PRIVATE, training=PRIVATE_ROUND), tmp_path)
    run.relay = relay
    run.carry_out()
    assert len(first) > 2
    assert run.run.events("refusal") == []
    book = ReceiptBook(tmp_path / "coordinator").receipts(NAMES)
    assert set(book) == set(others(GONE))
    assert all(receipt["seq"] > 2 for receipt in book.values())
    said = [line for line in run.logs if f"the head of {GONE}'s ledger is not signed by it" in line]
    assert bool(said) == (head != "")


def head_of(run):
    guard = run.sessions[GONE]._guard
    return None if guard is None else guard.head
