"""A worker's session under mechanism `local`: charged before trained, sent twice, charged once."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest

from client.guard import open_guard
from client.session import Party, Session, worth_keeping
from common.config.canonical import study_hash
from common.config.site import Budget, Policy
from common.errors import DataError, PolicyError
from common.io.datasets import simulated_sides
from common.io.ledger_file import LedgerFile
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel
from common.privacy.ledger_spend import pld_epsilon, spent
from common.privacy.plan import plan_of
from common.wire import (
    Refusal,
    Reply,
    Request,
    counts_from_bytes,
    decode_reply,
    encode,
    vector_from_bytes,
    vector_to_bytes,
)
from server.receipts import ReceiptBook
from tests import tiny
from tests.full_disk import FullDisk

NAME = tiny.INSTITUTIONS[0]
ROUNDS = 3
POLICY = Policy(accept_secure_aggregation_none=True)
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 2, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic}"
)
MODEL = "{train: full, dropout: 0}"
TRAINING = f"{{rounds: {ROUNDS}, learning_rate: 1e-3, precision: float32}}"


@pytest.fixture(scope="module")
def study(tiny_encoder):
    return tiny.study(tiny_encoder, privacy=PRIVACY, training=TRAINING, model=MODEL)


@pytest.fixture(scope="module")
def model(study, tiny_encoder):
    return NerModel(tiny_encoder, study, "cpu")


@pytest.fixture(scope="module")
def party(study, model, tmp_path_factory):
    sides = simulated_sides(study, tmp_path_factory.mktemp("base"))[NAME]
    return Party(
        name=NAME,
        policy=POLICY,
        encoder="f" * 64,
        train=model.prepare(sides.train),
        test=model.prepare(sides.test),
    )


@pytest.fixture
def start(study, party, model, tmp_path):
    """Starts a session on the one ledger folder; the one before it is closed first."""
    running = []

    def make(folder=tmp_path / "ledger", study_=study, policy=POLICY, **changes):
        while running:
            running.pop().close()
        guard = open_guard(study_, NAME, policy, folder, model.layout.size)
        who = replace(party, policy=policy, **changes)
        running.append(Session(study_, who, model, guard=guard))
        return running[-1]

    yield make
    while running:
        running.pop().close()


@pytest.fixture
def ask(study):
    def make(session, kind="train", round_=1, body=b"", receipts=None, study_=study):
        request = Request(
            kind=kind, study=study_hash(study_), round=round_, body=body, receipts=receipts or {}
        )
        return decode_reply(session.handle(encode(request)))

    return make


def reserves(folder):
    with LedgerFile.open(folder / "ledger", NAME) as ledger:
        return list(ledger.state.reserves.values())


def test_a_whole_study_spends_what_was_planned_and_no_more(study, start, ask, tmp_path):
    session = start()
    for round_ in range(1, ROUNDS + 1):
        for kind in ("train", "evaluate"):
            assert ask(session, kind, round_).refusal == ""
    session.close()
    with LedgerFile.open(tmp_path / "ledger", NAME) as ledger:
        events = spent(ledger.state, unit="patient")
    plan = plan_of(study, NAME)
    assert pld_epsilon(events, plan.delta) == pytest.approx(plan.epsilon, rel=1e-9)
    assert 5.5 < plan.epsilon <= 6
    assert all(reserved.vector for reserved in reserves(tmp_path))


def test_the_update_is_noise_of_the_planned_size(tiny_encoder, model, start, ask):
    """One step of plain SGD: what all units add together is far below the noise of all weights."""
    one_step = "steps_per_round: 1, optimizer: sgd, schedule: constant"
    privacy = PRIVACY.replace("steps_per_round: 2", one_step)
    study = tiny.study(tiny_encoder, privacy=privacy, training=TRAINING, model=MODEL)
    update = vector_from_bytes(ask(start(study_=study), study_=study).body, model.layout.size)
    mechanism = plan_of(study, NAME).mechanism
    on_the_sum = mechanism.noise_multiplier * study.local_privacy.clip
    planned = study.training.learning_rate * on_the_sum / (0.5 * 8)
    assert (update != 0).mean() > 0.99
    assert update.std() == pytest.approx(planned, rel=0.03)
    assert abs(update.mean()) < 5 * planned / np.sqrt(len(update))


def test_a_retry_after_a_restart_sends_the_same_bytes_and_is_charged_once(start, ask, tmp_path):
    first = ask(start()).body
    again = ask(start()).body
    assert first == again
    assert len(reserves_of(start, tmp_path)) == 1


def reserves_of(start, tmp_path):
    start(tmp_path / "another")  # closes the one on the ledger
    return reserves(tmp_path)


def test_a_lost_vector_is_noised_and_charged_anew(start, ask, tmp_path):
    first = ask(start()).body
    (vector,) = (tmp_path / "ledger" / "vault").glob("*.sealed")
    vector.unlink()
    second = ask(start()).body
    assert first != second
    one, two = reserves_of(start, tmp_path)
    assert (one.body.attempt, two.body.attempt) == (1, 2)
    assert one.body.events == two.body.events


def test_another_model_for_the_same_round_is_charged_anew(model, start, ask, tmp_path):
    session = start()
    other = vector_to_bytes(np.full(model.layout.size, 1e-3, np.float32))
    assert ask(session).body != ask(session, body=other).body
    assert len(reserves_of(start, tmp_path)) == 2


def test_a_coordinator_that_starts_again_gets_every_round_for_nothing(start, ask, tmp_path):
    session = start()
    bodies = [ask(session, round_=r).body for r in (1, 2, 3)]
    session = start()
    assert [ask(session, round_=r).body for r in (1, 2, 3)] == bodies
    assert len(reserves_of(start, tmp_path)) == 3


def test_another_coordinators_receipt_than_the_pinned_one_is_refused(start, ask, tmp_path):
    known, other = (ReceiptBook(tmp_path / name) for name in ("known", "other"))
    session = start(policy=replace(POLICY, coordinator_key=known.public_key))
    head = ask(session).ledger
    for book, refusal in ((other, Refusal.BUDGET), (known, "")):
        book.see({NAME: head})
        assert ask(session, round_=2, receipts=book.receipts((NAME,))).refusal == refusal


@pytest.mark.parametrize("code", [Refusal.BUDGET, Refusal.POLICY, Refusal.STORAGE])
def test_a_refusal_that_depends_on_the_moment_is_not_kept(code):
    refused = Reply(kind="train", study="0" * 64, round=1, institution=NAME, refusal=code.value)
    assert not worth_keeping(encode(refused))
    assert worth_keeping(encode(replace(refused, refusal=Refusal.STALE.value)))


def test_noise_is_never_drawn_twice(start, ask, tmp_path):
    one = ask(start()).body
    two = ask(start(tmp_path / "fresh")).body
    assert one != two


def test_an_insecure_seed_repeats_its_noise_and_says_so(tiny_encoder, start, ask, tmp_path, caplog):
    seeded = PRIVACY.replace("}", "", 1).replace("clip: 3", "clip: 3}")
    seeded = seeded.removesuffix("}") + ", insecure_seed: 5}"
    study = tiny.study(tiny_encoder, privacy=seeded, training=TRAINING, model=MODEL)
    policy = replace(POLICY, accept_insecure_seed=True)
    bodies = [
        ask(start(tmp_path / name, study, policy), study_=study).body for name in ("one", "two")
    ]
    assert bodies[0] == bodies[1]
    assert "INSECURE SEED" in caplog.text
    with LedgerFile.open(tmp_path / "one", NAME) as ledger:
        (reserved,) = ledger.state.reserves.values()
    assert reserved.body.name == f"{study.study} (insecure seed: not private)"
    refusal = ask(start(tmp_path / "three", study, POLICY), study_=study).refusal
    assert refusal == Refusal.POLICY


def test_an_institution_halts_at_its_budget_with_the_figures(study, start, ask, tmp_path, caplog):
    """The cap holds the first round alone."""
    plan = plan_of(study, NAME)
    one = pld_epsilon((plan.training_event,), plan.delta)
    cap = Budget(unit="patient", delta=plan.delta, epsilon_lifetime=one + 1e-6)
    session = start(policy=replace(POLICY, budget=(cap,)))
    assert ask(session, round_=1).refusal == ""
    with caplog.at_level(logging.ERROR):
        assert ask(session, round_=2).refusal == Refusal.BUDGET
    assert f"{one:.4f} is spent" in caplog.text
    assert ask(session, round_=1).refusal == ""  # the stored bytes cost nothing
    assert len(reserves_of(start, tmp_path)) == 1


def test_a_restored_old_copy_is_refused_by_what_the_coordinator_has_seen(start, ask, tmp_path):
    book = ReceiptBook(tmp_path / "coordinator", lambda: 1_800_000_000)
    session = start()
    book.see({NAME: ask(session).ledger})
    session.close()
    shutil.copytree(tmp_path / "ledger", tmp_path / "old")
    session = start()
    reply = ask(session, round_=2, receipts=book.receipts((NAME,)))
    assert reply.refusal == ""
    book.see({NAME: reply.ledger})
    restored = start(tmp_path / "old")
    assert ask(restored, "hello", 0, receipts=book.receipts((NAME,))).refusal == Refusal.BUDGET
    assert ask(restored, round_=3).refusal == Refusal.BUDGET  # a failed ledger stays failed
    assert ask(start(), round_=3, receipts=book.receipts((NAME,))).refusal == ""


def test_a_ledger_begun_anew_is_refused_too(start, ask, tmp_path):
    book = ReceiptBook(tmp_path / "coordinator", lambda: 1_800_000_000)
    book.see({NAME: ask(start()).ledger})
    fresh = start(tmp_path / "fresh")
    assert ask(fresh, "hello", 0, receipts=book.receipts((NAME,))).refusal == Refusal.BUDGET


def test_a_receipt_with_a_key_too_many_is_malformed(start, ask, tmp_path):
    book = ReceiptBook(tmp_path / "coordinator")
    session = start()
    book.see({NAME: ask(session).ledger})
    receipt = {**book.receipts((NAME,))[NAME], "more": 1}
    assert ask(session, round_=2, receipts={NAME: receipt}).refusal == Refusal.MALFORMED


def test_noised_counts_are_near_the_clipped_ones_and_exact_ones_cost_nothing(
    tiny_encoder, study, party, model, start, ask, tmp_path
):
    size = Evaluation.size(study.task.labels)
    noised = counts_from_bytes(ask(start(), "evaluate").body, size, noised=True)
    assert (noised < 0).any()  # epsilon 1 over three evaluations: noise is larger than counts
    exact = tiny.study(
        tiny_encoder,
        privacy=PRIVACY.replace("{epsilon: 1, clip: 3}", "exact"),
        training=TRAINING,
        model=MODEL,
    )
    policy = replace(POLICY, accept_exact_evaluation=True)
    folder = tmp_path / "exact"
    found = ask(start(folder / "ledger", exact, policy), "evaluate", study_=exact)
    model.set_delta(None)
    assert (counts_from_bytes(found.body, size) == model.evaluate(party.test).counts).all()
    start(tmp_path / "another")
    assert reserves(folder) == []


def test_counts_by_unit_add_up_to_the_evaluation(party, model):
    model.set_delta(None)
    whole = model.evaluate(party.test).counts
    for unit in ("record", "document", "patient"):
        by_unit = model.evaluate_by_unit(party.test, unit)
        assert (by_unit.sum(axis=0) == whole).all()
    documents = party.test.documents
    assert len(model.evaluate_by_unit(party.test, "patient")) == len(
        {d.patient_id for d in documents}
    )
    assert len(model.evaluate_by_unit(party.test, "document")) == len(documents)


@pytest.mark.parametrize("side", ["train", "test"])
def test_data_without_the_units_id_is_refused_at_the_start(side, party, start):
    prepared = getattr(party, side)
    documents = tuple(replace(d, patient_id=None) for d in prepared.documents)
    with pytest.raises(DataError, match="patient"):
        start(**{side: replace(prepared, documents=documents)})


def test_a_model_that_is_not_finite_costs_nothing(model, start, ask, tmp_path):
    body = vector_to_bytes(np.full(model.layout.size, np.nan, np.float32))
    for kind in ("train", "evaluate"):
        assert ask(start(), kind, body=body).refusal == Refusal.MALFORMED
    assert reserves_of(start, tmp_path) == []


def test_a_declared_search_is_charged_once_before_the_first_round(
    tiny_encoder, start, ask, tmp_path
):
    searched = PRIVACY.replace(
        "settings_from: synthetic",
        "settings_from: search, search: {description: rates, trials: "
        "[{runs: 3, sampling_rate: 0.5, noise_multiplier: 2.0, steps: 6}]}",
    )
    study = tiny.study(tiny_encoder, privacy=searched, training=TRAINING, model=MODEL)
    session = start(study_=study)
    for round_ in (1, 2):
        assert ask(session, round_=round_, study_=study).refusal == ""
    purposes = [r.body.purpose for r in reserves_of(start, tmp_path)]
    assert purposes == ["search", "train", "train"]


def test_a_private_study_without_a_guard_is_refused(study, party, model):
    with pytest.raises(PolicyError):
        Session(study, party, model)


def test_what_a_reply_says_in_clear_has_no_figure_of_the_data(start, ask):
    session = start()
    for kind in ("hello", "train", "evaluate"):
        reply = ask(session, kind, 0 if kind == "hello" else 1)
        assert reply.ledger.count(":") == 2
        assert json.dumps(reply.facts).count("loss") == 0


# a disk that is full for a moment


@pytest.fixture
def ledgers_disk(tmp_path, monkeypatch):
    (tmp_path / "ledger").mkdir(mode=0o700)
    return FullDisk(tmp_path / "ledger", monkeypatch)


@pytest.fixture
def vaults_disk(tmp_path, monkeypatch):
    (tmp_path / "ledger" / "vault").mkdir(parents=True)
    return FullDisk(tmp_path / "ledger" / "vault", monkeypatch)


def seen(book, reply):
    book.see({NAME: reply.ledger})
    return book.receipts((NAME,))


@pytest.mark.parametrize("more", [0, 900])
def test_a_site_whose_disk_was_full_for_a_moment_goes_on_without_a_restart(
    start, ask, tmp_path, ledgers_disk, caplog, more
):
    """Full when a receipt is to be recorded; the entry may fit while its head does not."""
    session, book = start(), ReceiptBook(tmp_path / "coordinator")
    receipts = seen(book, ask(session))
    ledgers_disk.fill()
    ledgers_disk.capacity += more
    for _ in range(3):
        with caplog.at_level(logging.WARNING):
            assert ask(session, round_=2, receipts=receipts).refusal == Refusal.STORAGE
    assert "No space left" in caplog.text
    assert "failed before" not in caplog.text
    ledgers_disk.clear()
    reply = ask(session, round_=2, receipts=receipts)
    assert reply.refusal == ""
    assert ask(session, round_=3, receipts=seen(book, reply)).refusal == ""
    assert len(session.ledger.reserves) == 3
    assert session.ledger.anchored.seq > 1


def test_a_disk_too_full_for_the_vector_charges_nothing(start, ask, vaults_disk, caplog):
    session = start()
    ask(session)
    vaults_disk.fill()
    before = session.ledger
    for kind in ("train", "evaluate", "train"):
        with caplog.at_level(logging.WARNING):
            assert ask(session, kind, 2).refusal == Refusal.STORAGE
    assert session.ledger == before
    assert "no room for a vector" in caplog.text
    assert ask(session).refusal == ""  # what is kept is sent on a full disk, too
    vaults_disk.clear()
    assert ask(session, round_=2).refusal == ""
    assert len(session.ledger.reserves) == 2


def test_room_is_taken_for_the_vector_that_comes(model, start, ask, vaults_disk, monkeypatch):
    """While it is computed, others take all that is left."""
    session, real = start(), type(model).fit_privately

    def fit(*arguments):
        vaults_disk.fill()
        return real(*arguments)

    monkeypatch.setattr(type(model), "fit_privately", fit)
    assert ask(session).refusal == ""
    assert len(session.ledger.reserves) == 1
