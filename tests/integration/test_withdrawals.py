"""Who has withdrawn is in nothing that is computed from the next round on."""

import gc
import logging
from dataclasses import replace

import pytest

from client.guard import open_guard
from client.session import Party, Session
from client.withdrawals import without
from common.config.canonical import study_hash
from common.config.site import Policy
from common.data.withdrawn import Withdrawn, parse_withdrawn
from common.errors import DataError
from common.io.datasets import Sides, simulated_sides
from common.io.ledger_file import LedgerFile
from common.io.withdrawn_file import read_withdrawn
from common.model.ner import NerModel, Prepared
from common.privacy.events import UNITS
from common.wire import Refusal, Request, decode_reply, encode
from tests import tiny

NAME = tiny.INSTITUTIONS[0]
POLICY = Policy(
    accept_privacy_none=True, accept_secure_aggregation_none=True, accept_insecure_seed=True
)
PRIVACY = (
    "{mechanism: local, unit: %s, noise_multiplier: 0.5, delta: 1e-3, clip: 0.5, "
    "sampling_rate: 0.9, steps_per_round: 4, declared_units: 8, "
    "evaluation: {epsilon: 1, clip: 3}, settings_from: synthetic, insecure_seed: 5}"
)
TRAINING = "{rounds: 2, learning_rate: 1e-3, precision: float32}"


class Bench:
    """One institution's data and a model, with a list of the withdrawn in a file."""

    def __init__(self, study, folder, encoder):
        self.study, self.folder = study, folder
        self.model = NerModel(encoder, study, "cpu")
        self.sides = simulated_sides(study, folder)[NAME]
        self.list = folder / "withdrawn.txt"
        self.running = []
        self.withdraw()

    def withdraw(self, *lines):
        self.list.write_text("".join(f"{line}\n" for line in ("# nobody else", *lines)))

    @property
    def patient(self):
        """One with documents to train on."""
        return self.sides.train[0].patient_id

    @property
    def held_out(self):
        return self.sides.test[0].patient_id

    def session(self, sides=None, policy=POLICY, listed=True, ledger="ledger"):
        self.close()
        sides = sides or self.sides
        party = Party(
            name=NAME,
            policy=policy,
            encoder="f" * 64,
            train=self.model.prepare(sides.train),
            test=self.model.prepare(sides.test),
        )
        guard = None
        if self.study.local_privacy is not None:
            size = self.model.layout.size
            guard = open_guard(self.study, NAME, policy, self.folder / ledger, size)
        read = (lambda: read_withdrawn(self.list)) if listed else None
        session = Session(self.study, party, self.model, guard=guard, read_withdrawn=read)
        self.running.append(session)
        return session

    def less(self, *covered):
        """The data without those of some patients, or some documents."""

        def kept(documents):
            return tuple(d for d in documents if {d.patient_id, d.doc_id}.isdisjoint(covered))

        return Sides(kept(self.sides.train), kept(self.sides.test))

    def ask(self, session, kind="train", round_=1):
        request = Request(kind=kind, study=study_hash(self.study), round=round_)
        return decode_reply(session.handle(encode(request)))

    def bodies(self, session, round_=1):
        return [self.ask(session, kind, round_).body for kind in ("train", "evaluate")]

    def close(self):
        while self.running:
            self.running.pop().close()


@pytest.fixture
def bench(tiny_encoder, tmp_path):
    made = Bench(tiny.study(tiny_encoder), tmp_path, tiny_encoder)
    yield made
    made.close()


@pytest.fixture
def private(tiny_encoder, tmp_path):
    """Makes a bench of a study with privacy."""
    made = []

    def make(unit):
        study = tiny.study(
            tiny_encoder,
            privacy=PRIVACY % unit,
            training=TRAINING,
            model="{train: full, dropout: 0}",
        )
        made.append(Bench(study, tmp_path, tiny_encoder))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- what is computed


def test_updates_and_counts_are_those_of_the_data_without_who_has_withdrawn(bench):
    bench.withdraw(f"patient {bench.patient}", f"document {bench.sides.test[0].doc_id}")
    found = bench.bodies(bench.session())
    left = bench.less(bench.patient, bench.sides.test[0].doc_id)
    assert len(left.train) < len(bench.sides.train)
    assert len(left.test) < len(bench.sides.test)
    assert found == bench.bodies(bench.session(left, listed=False))
    assert found != bench.bodies(bench.session(listed=False))


def test_a_patient_who_withdraws_is_out_from_the_next_round_without_a_restart(bench):
    session = bench.session()
    first = bench.bodies(session)
    bench.withdraw(f"patient {bench.patient}", f"patient {bench.held_out}")
    second = bench.bodies(session, 2)
    left = bench.less(bench.patient, bench.held_out)
    assert second == bench.bodies(bench.session(left, listed=False), 2)
    everybody = bench.session(listed=False)
    assert first == bench.bodies(everybody)
    assert second[0] != bench.ask(everybody, round_=2).body


def test_an_evaluation_reads_the_list_by_itself(bench):
    session = bench.session()
    bench.withdraw(f"patient {bench.held_out}")
    found = bench.ask(session, "evaluate").body
    left = bench.session(bench.less(bench.held_out), listed=False)
    assert found == bench.ask(left, "evaluate").body
    assert found != bench.ask(bench.session(listed=False), "evaluate").body


def test_who_was_out_once_stays_out_until_a_restart(bench):
    session = bench.session()
    bench.withdraw(f"patient {bench.patient}")
    out = bench.ask(session).body
    bench.withdraw()
    assert bench.ask(session).body == out
    assert bench.ask(bench.session()).body != out


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", ["patient", "document"])
def test_units_that_withdrew_are_not_sampled_and_the_others_are_as_before(private, unit, kind):
    """The same seed draws the same: so does an institution that never held that data."""
    bench = private(unit)
    gone = bench.patient if kind == "patient" else bench.sides.train[0].doc_id
    bench.withdraw(f"{kind} {gone}")
    found = bench.bodies(bench.session())
    left = bench.less(gone)
    assert found == bench.bodies(bench.session(left, listed=False, ledger="other"))
    assert found[0] != bench.ask(bench.session(listed=False, ledger="third")).body


@pytest.mark.parametrize("unit", UNITS)
def test_a_round_costs_the_same_whoever_has_withdrawn(private, unit):
    bench = private(unit)
    session = bench.session()
    bench.ask(session)
    bench.withdraw(f"patient {bench.patient}")
    bench.ask(session, round_=2)
    bench.close()
    with LedgerFile.open(bench.folder / "ledger", NAME) as ledger:
        one, two = (reserved.body for reserved in ledger.state.reserves.values())
    assert (one.events, one.delta) == (two.events, two.delta)


def test_a_vector_that_was_finished_before_is_sent_again_as_it_was(private):
    """It is noised and charged; to compute it anew would cost, and say more."""
    bench = private("patient")
    session = bench.session()
    first = bench.ask(session).body
    bench.withdraw(f"patient {bench.patient}")
    assert bench.ask(session).body == first


def test_a_round_of_nobody_is_noise_and_counts_are_noise(private):
    bench = private("patient")
    bench.withdraw(*(f"patient {d.patient_id}" for d in (*bench.sides.train, *bench.sides.test)))
    session = bench.session()
    for kind in ("train", "evaluate"):
        reply = bench.ask(session, kind)
        assert reply.refusal == ""
        assert len(reply.body) > 0


def test_a_study_without_privacy_does_not_train_on_nobody(bench):
    bench.withdraw(*(f"patient {d.patient_id}" for d in bench.sides.train))
    session = bench.session()
    assert bench.ask(session).refusal == Refusal.INTERNAL
    assert bench.ask(session, "evaluate").refusal == ""


# --- the list itself


def _vanish(path):
    path.unlink()


def _cut(path):
    path.write_text("patient 1")


def _empty(path):
    path.write_text("")


def _garbage(path):
    path.write_bytes(b"\xff\xfe\x00")


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_vanish, _cut, _empty, _garbage, _folder])
def test_a_list_that_can_not_be_read_refuses_the_round_and_costs_nothing(private, spoil, caplog):
    bench = private("patient")
    session = bench.session()
    spoil(bench.list)
    for kind in ("train", "evaluate"):
        assert bench.ask(session, kind).refusal == Refusal.POLICY
    assert "[exclude-unreadable]" in caplog.text
    assert str(bench.list) in caplog.text
    assert bench.ask(session, "hello", 0).refusal == ""
    bench.close()
    with LedgerFile.open(bench.folder / "ledger", NAME) as ledger:
        assert not ledger.state.reserves


def test_a_list_that_comes_back_is_read_again(bench):
    session = bench.session()
    text = bench.list.read_text()
    bench.list.unlink()
    assert bench.ask(session).refusal == Refusal.POLICY
    bench.list.write_text(text)
    assert bench.ask(session).refusal == ""


def test_without_its_list_a_session_does_not_begin(bench):
    bench.list.unlink()
    with pytest.raises(DataError, match="can't be read"):
        bench.session()


def test_an_id_that_nobody_has_refuses_the_round_until_it_is_accepted(bench, caplog):
    bench.withdraw("patient nobody-here", f"patient {bench.patient}")
    assert bench.ask(bench.session()).refusal == Refusal.POLICY
    assert "[exclude-unknown] 1 ids" in caplog.text
    assert "nobody-here" not in caplog.text
    accepting = bench.session(policy=replace(POLICY, accept_unknown_exclusions=True))
    found = bench.ask(accepting)
    left = bench.session(bench.less(bench.patient), listed=False)
    assert found.body == bench.ask(left).body != b""


def test_an_id_that_was_known_before_its_data_went_stays_known(bench):
    session = bench.session()
    bench.withdraw(f"patient {bench.patient}")
    assert [bench.ask(session, round_=r).refusal for r in (1, 2)] == ["", ""]


def test_what_was_taken_out_first_and_asked_after_is_known_as_well(bench):
    work = bench.session(listed=False)._work
    gone = Withdrawn(patients=frozenset({bench.patient}))
    work.withdraw(gone)
    assert work.unknown(gone) == 0
    assert work.unknown(Withdrawn(patients=frozenset({"nobody"}))) == 1


def test_the_site_counts_what_it_took_out_and_the_coordinator_hears_nothing(bench, caplog):
    bench.withdraw(f"patient {bench.patient}")
    with caplog.at_level(logging.INFO, "fedner.worker"):
        reply = bench.session().handle(
            encode(Request(kind="hello", study=study_hash(bench.study), round=0))
        )
    n = sum(d.patient_id == bench.patient for d in bench.sides.train)
    assert f"withdrawn: {n} of {len(bench.sides.train)} training documents" in caplog.text
    assert bench.patient not in caplog.text
    assert b"withdrawn" not in reply


def test_nothing_here_holds_the_data_of_who_has_withdrawn_any_more(private):
    bench = private("patient")

    def holders():
        gc.collect()
        held = (o for o in gc.get_objects() if type(o) is Prepared)
        return {id(o) for o in held if any(d.patient_id == bench.patient for d in o.documents)}

    before = holders()
    session = bench.session()
    assert holders() - before
    bench.withdraw(f"patient {bench.patient}")
    assert bench.ask(session).refusal == ""
    assert not holders() - before


# --- taking out


def test_what_is_kept_is_what_would_have_been_prepared_without_the_rest(bench):
    documents = bench.sides.train
    whole = bench.model.prepare(documents)
    for gone in range(len(documents)):
        listed = Withdrawn(documents=frozenset({documents[gone].doc_id}))
        kept = without(whole, listed)
        fresh = bench.model.prepare(documents[:gone] + documents[gone + 1 :])
        assert (kept.documents, kept.windows, kept.tags) == (
            fresh.documents,
            fresh.windows,
            fresh.tags,
        )
    assert without(whole, parse_withdrawn("patient nobody\n", "w")) is whole
