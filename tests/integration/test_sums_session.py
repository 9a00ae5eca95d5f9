"""Worker sessions under mechanism `local` in a secure sum: what is charged, and what is not."""

from dataclasses import replace

import numpy as np
import pytest

from client.rounding import Rounding
from common.config.canonical import study_hash
from common.config.load import parse_study
from common.io.ledger_file import LedgerFile
from common.secagg.bundle import join, split
from common.secagg.packing import unpack
from common.secagg.session import PURPOSES
from common.sums import contexts_of, length_of
from common.wire import CLEAR_FIELDS, RECEIPTS, Request, decode_reply, encode, receipts_text
from scripts.simulation import Bench, Cast
from server.receipts import ReceiptBook
from server.sums import Answers, SecureSums
from tests.full_disk import FullDisk

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic}"
)


class Run:
    """Three real sessions, asked by the coordinator's driver over the bytes of `common.wire`."""

    def __init__(self, bench, model, folder):
        self.bench, self.model, self.folder = bench, model, folder
        self.study, self.cast = bench.study, Cast.of(bench.study)
        self.hash = study_hash(bench.study)
        self.sessions = {name: self.start(name) for name in NAMES}
        self.requests, self.replies, self.lost = [], [], set()
        self.before = lambda kind: None
        self.sums = SecureSums(
            contexts=contexts_of(self.study, self.cast.roster),
            signer=self.cast.coordinator.signer,
            lengths={p: length_of(self.study, p, model.layout.size) for p in PURPOSES},
            quorum=3,
            ask=self.ask,
            present=lambda: NAMES,
            record=lambda *_, **__: None,
        )

    def start(self, name):
        return self.bench.session(name, self.model, self.folder / name, cast=self.cast)

    def restart(self, name):
        self.sessions[name].close()
        self.sessions[name] = self.start(name)

    def close(self):
        for session in self.sessions.values():
            session.close()

    def ask(self, kind, round_, body, sums, most, take, leaving):
        leaving()
        self.before(kind)
        found, refused = [], {}
        for name, bundle in sums.items():
            reply = self.tell(name, kind, round_, body, bundle)
            self.requests.append((name, kind, bundle))
            if reply.refusal:
                refused[name] = reply.refusal
            elif (kind, name) not in self.lost:
                assert len(reply.body) + len(reply.sums) <= most
                found.append(name)
                take(name, reply)
        return Answers(replied=found, refused=refused, down=0, up=0)

    def tell(self, name, kind, round_, body, bundle):
        request = self.signed(kind, round_, body, bundle)
        data = self.sessions[name].handle(encode(request))
        self.replies.append((name, decode_reply(data)))
        return self.replies[-1][1]

    def signed(self, kind, round_, body, bundle, receipts=None, by=None):
        """A request as the coordinator makes it, or with receipts that another signs."""
        signer = by or self.cast.coordinator.signer
        plain = Request(
            kind=kind, study=self.hash, round=round_, receipts=receipts or {}, body=body,
            sums=bundle,
        )  # fmt: skip
        return replace(plain, receipts_signature=signer.sign(RECEIPTS, receipts_text(plain)))

    def charged(self, name):
        """(purpose, round) of every charge of an institution."""
        self.sessions[name].close()
        with LedgerFile.open(self.folder / name / "ledger", name) as ledger:
            return [(r.body.purpose, r.body.round) for r in ledger.state.reserves.values()]


@pytest.fixture(scope="module")
def bench(tiny_study, tmp_path_factory):
    text = tiny_study(
        privacy=PRIVACY,
        model="{train: head, dropout: 0}",
        training="{rounds: 2, learning_rate: 1e-2, precision: float32}",
        federation=f"{{institutions: [{', '.join(NAMES)}], deadline_s: 60}}",
        secure_aggregation="{}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )
    return Bench.of(parse_study(text, "study.yaml"), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(bench):
    return bench.model("cpu")


@pytest.fixture
def run(bench, model, tmp_path):
    made = Run(bench, model, tmp_path)
    yield made
    made.close()


@pytest.fixture
def rounded(monkeypatch):
    """What each update was rounded to, in order."""
    packed, real = [], Rounding.round
    monkeypatch.setattr(
        Rounding, "round", lambda self, *a: packed.append(real(self, *a)) or packed[-1]
    )
    return packed


def test_a_retry_masks_the_same_noised_vector_under_fresh_keys_and_is_charged_once(run, rounded):
    trips = []

    def before(kind):
        trips.append(kind)
        again = trips.count("train") > 1
        run.lost = set() if again else {("train", NAMES[0])}
        if kind == "sum" and trips.count("train") == 1 and len(trips) == 4:
            run.restart(NAMES[1])  # between the attempts: the vector comes from the vault

    run.before = before
    total = run.sums.sum("train", 1, b"")
    assert total.course["attempts"] == 2
    assert len(rounded) == len(NAMES)  # each computed once
    size, bits = run.model.layout.size, run.study.secure.bits
    vectors = [unpack(packed, size, bits).astype(np.uint64) for packed in rounded]
    assert np.array_equal(total.values, sum(vectors) % (1 << bits))
    sent = [r.sums for name, r in run.replies if name == NAMES[1] and r.kind == "train"]
    assert len(sent) == 2
    assert sent[0] != sent[1]
    assert all(run.charged(name) == [("train", 1)] for name in NAMES)


def test_counts_are_noised_charged_and_only_summed(run):
    total = run.sums.sum("evaluate", 1, b"")
    assert total.survivors == NAMES
    assert all(reply.body == b"" for _, reply in run.replies)
    assert all(run.charged(name) == [("evaluate", 1)] for name in NAMES)


def test_no_instruction_that_the_coordinator_did_not_sign_charges_the_ledger(run):
    name = NAMES[0]
    bundle = _instruction(run, name, 1)
    (instruction,) = split(bundle)
    forged = join([instruction[:-64] + bytes(64)])
    other = np.zeros(run.model.layout.size, np.float32).tobytes()
    for kind, round_, body, sent in (
        ("train", 1, b"", b""),  # as in a study without secure aggregation
        ("evaluate", 1, b"", b""),
        ("train", 1, b"", forged),
        ("train", 1, other, bundle),  # another model
        ("train", 2, b"", bundle),  # another round
        ("evaluate", 1, b"", bundle),  # other work
        ("sum", 1, b"", bundle),
        ("train", 1, b"", b"garbage"),
    ):
        reply = run.tell(name, kind, round_, body, sent)
        assert (reply.refusal, reply.body, reply.sums) == ("secure-sum", b"", b"")
    assert run.charged(name) == []


def test_receipts_that_the_coordinator_did_not_sign_leave_the_ledger_as_it_is(run, tmp_path):
    """Who carries a genuine instruction sees the ledger's head, and could countersign it itself."""
    name = NAMES[0]
    run.sums.sum("train", 1, b"")
    head = next(r.ledger for who, r in run.replies if who == name and r.kind == "train")
    books = [ReceiptBook(tmp_path / who) for who in ("stranger", "coordinator")]
    for book in books:
        book.see({name: head})
    strange, own = (book.receipts((name,)) for book in books)
    bundle = _instruction(run, name, 2)
    signed = run.signed("train", 2, b"", bundle, own)
    stranger = Cast.of(run.study).coordinator.signer
    for request in (
        replace(signed, receipts=strange),
        replace(signed, receipts={}),  # so that an old copy would not be noticed
        replace(signed, receipts_signature=""),
        run.signed("train", 2, b"", bundle, strange, by=stranger),
        replace(run.signed("train", 1, b"", bundle, own), round=2),
        replace(run.signed("train", 2, b"", b"of an earlier attempt", own), sums=bundle),
    ):
        reply = decode_reply(run.sessions[name].handle(encode(request)))
        assert (reply.refusal, reply.sums) == ("secure-sum", b"")
        assert run.sessions[name].ledger.counterpart is None
    reply = decode_reply(run.sessions[name].handle(encode(signed)))
    assert reply.refusal == ""
    assert run.sessions[name].ledger.counterpart == books[1].public_key


def _instruction(run, name, round_):
    """The coordinator's genuine one, which it does not come to send."""
    keep, asked = {}, run.sums._trips._ask

    def ask(kind, round_, body, sums, *more):
        if kind == "train":
            keep["bundle"] = sums[name]
            raise StopIteration
        return asked(kind, round_, body, sums, *more)

    run.sums._trips._ask = ask
    with pytest.raises(StopIteration):
        run.sums.sum("train", round_, b"")
    return keep["bundle"]


def test_a_poisoned_update_gives_a_reply_of_the_same_kind_and_size(run, monkeypatch):
    real, calls = type(run.model).delta, []

    def delta(self):
        calls.append(real(self))
        return np.full_like(calls[-1], np.nan) if len(calls) == 2 else calls[-1]

    monkeypatch.setattr(type(run.model), "delta", delta)
    total = run.sums.sum("train", 1, b"")
    assert total.survivors == NAMES
    replies = [reply for _, reply in run.replies if reply.kind == "train"]
    assert [reply.refusal for reply in replies] == [""] * len(NAMES)
    assert len({len(reply.sums) for reply in replies}) == 1
    assert len({len(encode(reply)) - len(reply.institution) for reply in replies}) == 1


def test_the_clear_header_is_the_allow_list_in_a_secure_sum_too(run):
    run.sums.sum("evaluate", 1, b"")
    for name, reply in run.replies:
        said = {key: getattr(reply, key) for key in CLEAR_FIELDS}
        assert said.pop("ledger").count(":") == 2
        assert len(said.pop("ledger_signature")) == 128
        assert said == {
            "kind": reply.kind, "study": run.hash, "round": 1, "institution": name,
            "refusal": "", "facts": {},
        }  # fmt: skip


@pytest.mark.parametrize("trip", ["keys", "shares", "masked"])
def test_a_full_disk_under_what_is_remembered_is_refused_as_storage_and_passes(
    run, monkeypatch, caplog, trip
):
    full, trips = FullDisk(run.folder / NAMES[0] / "sums", monkeypatch), []

    def before(kind):
        trips.append(kind)
        if len(trips) == 1 + ("keys", "shares", "masked").index(trip):
            full.fill()
        elif full.capacity is not None:
            full.clear()

    run.before = before
    total = run.sums.sum("train", 1, b"")
    refused = [(name, reply.refusal) for name, reply in run.replies if reply.refusal]
    assert refused == [(NAMES[0], "storage")]
    assert total.course["attempts"] == 2
    assert not [record for record in caplog.records if record.exc_info]
    assert "No space left on device" in caplog.text
