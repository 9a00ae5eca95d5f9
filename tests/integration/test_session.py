"""A worker's session: what it answers, what it refuses, and what it never says."""

import base64
import itertools
import json
import logging
import struct
from dataclasses import replace

import numpy as np
import pytest

import client.session
from client.session import Party, Session, refuse_unexpected
from common import __version__
from common.config.canonical import study_hash
from common.config.site import Policy
from common.io.datasets import simulated_sides
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel
from common.wire import (
    CLEAR_FACTS,
    CLEAR_FIELDS,
    Refusal,
    Request,
    counts_from_bytes,
    decode_reply,
    encode,
    vector_from_bytes,
    vector_to_bytes,
)
from tests import tiny

NAME = tiny.INSTITUTIONS[0]
OPEN = Policy(accept_privacy_none=True, accept_secure_aggregation_none=True)
PATIENT = "Quirinus Zaragoza, born 1 April 1931"


@pytest.fixture(scope="module")
def study(tiny_encoder):
    return tiny.study(tiny_encoder)


@pytest.fixture(scope="module")
def model(study, tiny_encoder):
    return NerModel(tiny_encoder, study, "cpu")


@pytest.fixture(scope="module")
def sides(study, tmp_path_factory):
    return simulated_sides(study, tmp_path_factory.mktemp("base"))[NAME]


@pytest.fixture(scope="module")
def party(model, sides):
    return Party(
        name=NAME,
        policy=OPEN,
        encoder="f" * 64,
        train=model.prepare(sides.train),
        test=model.prepare(sides.test),
    )


@pytest.fixture
def told():
    return []


@pytest.fixture
def session(study, party, model, told):
    return Session(study, party, model, report=lambda kind, figures: told.append((kind, figures)))


@pytest.fixture(scope="module")
def request_bytes(study):
    """Makes the bytes of a request of this study."""

    def make(kind="train", round_=1, body=b"", study_=None):
        return encode(
            Request(kind=kind, study=study_ or study_hash(study), round=round_, body=body)
        )

    return make


def _header(reply):
    """The clear part of a reply, parsed by hand."""
    (length,) = struct.unpack_from(">I", reply, 4)
    return json.loads(reply[8 : 8 + length])


def _refused(reply, code):
    parsed = decode_reply(reply)
    assert (parsed.refusal, parsed.body, parsed.facts) == (code.value, b"", {})
    return True


# --- what it answers


def test_hello_states_public_constants_of_study_and_encoder_only(
    session, model, party, request_bytes
):
    reply = decode_reply(session.handle(request_bytes("hello", 0)))
    assert reply.facts == {
        "version": __version__,
        "dimension": model.layout.size,
        "layout": model.layout.digest(),
        "initial": model.initial_digest,
        "encoder": party.encoder,
    }
    assert (reply.institution, reply.body, reply.refusal) == (NAME, b"", "")


def test_the_same_request_gives_the_same_bytes_whatever_came_between(
    session, study, party, tiny_encoder, request_bytes
):
    body = vector_to_bytes(np.full(session.max_body_bytes // 4, 1e-3, np.float32))
    train, evaluate = request_bytes(round_=2, body=body), request_bytes("evaluate", 2, body)
    first = [session.handle(train), session.handle(evaluate)]
    session.handle(request_bytes(round_=1))
    session.handle(b"garbage")
    assert [session.handle(train), session.handle(evaluate)] == first
    fresh = Session(study, party, NerModel(tiny_encoder, study, "cpu"))
    assert [fresh.handle(train), fresh.handle(evaluate)] == first


def test_an_update_is_what_training_changed_and_no_part_of_what_was_sent(
    session, model, request_bytes
):
    size = model.layout.size
    given = np.random.default_rng(3).normal(0, 1e-3, size).astype(np.float32)
    from_zero = decode_reply(session.handle(request_bytes(round_=1)))
    zeros = request_bytes(round_=1, body=vector_to_bytes(np.zeros(size, np.float32)))
    assert decode_reply(session.handle(zeros)).body == from_zero.body
    assert np.abs(vector_from_bytes(from_zero.body, size)).max() > 1e-4
    reply = decode_reply(session.handle(request_bytes(round_=1, body=vector_to_bytes(given))))
    update = vector_from_bytes(reply.body, size)
    assert np.array_equal(update, model.delta() - given)
    assert reply.body != from_zero.body


def test_rounds_and_institutions_train_in_orders_of_their_own(study, party, model, request_bytes):
    """Batch order and dropout follow from study seed, name and round: no two alike."""
    other = replace(party, name=tiny.INSTITUTIONS[1])
    bodies = [
        decode_reply(Session(study, who, model).handle(request_bytes(round_=r))).body
        for who, r in itertools.product((party, other), (1, 2))
    ]
    assert len(set(bodies)) == 4


def test_counts_are_those_of_the_models_own_evaluation(session, model, party, request_bytes):
    delta = np.random.default_rng(1).normal(0, 0.05, model.layout.size).astype(np.float32)
    reply = decode_reply(session.handle(request_bytes("evaluate", 1, vector_to_bytes(delta))))
    counts = counts_from_bytes(reply.body, Evaluation.size(model.labels))
    model.set_delta(delta)
    own = model.evaluate(party.test)
    assert counts.tolist() == own.counts.tolist()
    n_words = sum(len(tags) for tags in party.test.tags)
    assert counts[3 * len(model.labels) :].sum() == n_words
    gold = counts[2 : 3 * len(model.labels) : 3].sum()
    assert gold == sum(len(d.entities) for d in party.test.documents) > 0


def test_own_figures_go_to_the_site_alone(session, told, request_bytes):
    replies = [session.handle(request_bytes("train")), session.handle(request_bytes("evaluate"))]
    assert [kind for kind, _ in told] == ["train", "evaluate"]
    assert set(told[0][1]) == {"round", "loss"}
    for reply in replies:
        assert str(told[0][1]["loss"])[:8].encode() not in reply
        assert b"loss" not in reply
        assert struct.pack("<f", told[0][1]["loss"]) not in reply


@pytest.mark.parametrize(
    ("kind", "round_"), [("hello", 0), ("train", 1), ("evaluate", 1), ("train", 99)]
)
def test_the_clear_header_says_nothing_beyond_the_allow_list(
    session, party, request_bytes, kind, round_
):
    header = _header(session.handle(request_bytes(kind, round_)))
    assert set(header) == CLEAR_FIELDS | {"body_sha256", "sums_sha256", "sums_bytes"}
    assert set(header["facts"]) <= CLEAR_FACTS
    assert header["facts"] == {} or kind == "hello"
    numbers = {v for v in header.values() if isinstance(v, int)}
    assert numbers == {round_, 0}
    sizes = {len(party.train.documents), len(party.train.windows), len(party.test.windows)}
    assert not sizes & {v for v in header["facts"].values() if isinstance(v, int)}


# --- what it refuses


@pytest.fixture
def untouchable(study, party, model, monkeypatch):
    """Makes a session whose model and data fail the test when they are touched."""

    def fail(*_, **__):
        raise AssertionError("data or model was touched")

    for name in ("fit", "evaluate", "set_delta", "delta"):
        monkeypatch.setattr(NerModel, name, fail)

    def make(policy=OPEN, name=NAME, study_=study):
        class Guarded:
            def __getattr__(self, _):
                raise AssertionError("data was touched")

        kept = {"train": Guarded(), "test": Guarded()}
        return Session(study_, replace(party, policy=policy, name=name, **kept), model)

    return make


ALL_KINDS = [("hello", 0), ("train", 1), ("evaluate", 1)]


def test_what_is_asked_as_a_study_is_no_text_of_the_sites_log(untouchable, caplog):
    with caplog.at_level("WARNING", logger="fedner.worker"):
        untouchable().handle(encode(Request(kind="hello", study="a\nREFUSED forged", round=0)))
    assert "forged" not in caplog.text
    assert "study that is no hash is asked" in caplog.text


@pytest.mark.parametrize(("kind", "round_"), ALL_KINDS)
def test_another_study_is_refused(untouchable, request_bytes, kind, round_):
    for other in ("0" * 64, "", "tiny", "../tiny"):
        data = encode(Request(kind=kind, study=other, round=round_))
        assert _refused(untouchable().handle(data), Refusal.STUDY)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        replace(OPEN, accept_privacy_none=False),
        replace(OPEN, accept_secure_aggregation_none=False),
        replace(OPEN, study_sha256="0" * 64),
    ],
)
@pytest.mark.parametrize(("kind", "round_"), ALL_KINDS)
def test_what_the_policy_refuses_touches_no_data(
    untouchable, request_bytes, kind, round_, policy, caplog
):
    with caplog.at_level(logging.WARNING, "fedner.worker"):
        reply = untouchable(policy).handle(request_bytes(kind, round_))
    assert _refused(reply, Refusal.POLICY)
    assert f"refused {kind} of round {round_}, policy: [" in caplog.text
    assert b"accept" not in reply


def test_an_institution_off_the_roster_takes_no_part(untouchable, request_bytes):
    session = untouchable(name="somewhere-else")
    assert _refused(session.handle(request_bytes()), Refusal.POLICY)


@pytest.mark.parametrize(
    ("kind", "round_"),
    [("hello", 1), ("train", 0), ("evaluate", 0), ("train", 3), ("evaluate", 2**31 - 1)],
)
def test_a_round_outside_the_study_is_refused(untouchable, request_bytes, kind, round_):
    assert _refused(untouchable().handle(request_bytes(kind, round_)), Refusal.STALE)


def test_an_evaluation_that_is_not_due_touches_no_data(untouchable, study):
    rarely = replace(study, federation=replace(study.federation, evaluate_every=9))
    session = untouchable(study_=rarely)
    asked = Request(kind="evaluate", study=study_hash(rarely), round=1)
    assert _refused(session.handle(encode(asked)), Refusal.STALE)


@pytest.mark.parametrize("change", [-4, -1, 1, 4, 4096])
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_vector_of_another_dimension_is_refused(untouchable, request_bytes, kind, change):
    session = untouchable()
    body = bytes(session.max_body_bytes + change)
    assert _refused(session.handle(request_bytes(kind, body=body)), Refusal.DIMENSION)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(session, model, request_bytes, value):
    model.set_delta(None)
    vector = np.zeros(model.layout.size, np.float32)
    vector[-1] = value
    reply = decode_reply(session.handle(request_bytes(body=vector_to_bytes(vector))))
    assert reply.refusal
    assert reply.body == b""
    assert np.isfinite(model.delta()).all()


def _garbage(good):
    yield b""
    yield b"FDN4"
    yield b"FDN4\xff\xff\xff\xff"
    yield b"FDN1" + good[4:]
    yield good[:-1]
    yield good + b"x"
    yield good.replace(b'"train"', b'"query"')
    yield good.replace(b'"round":1', b'"round":1.0')
    yield good.replace(b'"round":1', b'"round":-1')
    yield b"\x80\x04\x95" + bytes(20)
    yield b"GET / HTTP/1.1\r\n\r\n"
    yield np.random.default_rng(1).bytes(5000)
    yield b"FDN4" + struct.pack(">I", 60_000) + b"[" * 60_000


def test_garbage_is_refused_as_malformed(untouchable, request_bytes):
    session = untouchable()
    for garbage in _garbage(request_bytes()):
        assert _refused(session.handle(garbage), Refusal.MALFORMED)


# --- what it never says


def _disguises(text):
    raw = text.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + raw)[4:-4]
    yield text.encode("utf-16-le")
    yield raw[::-1]


def _planted(error, where, monkeypatch):
    def explode(*_, **__):
        raise error

    monkeypatch.setattr(*where, explode)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"CUDA error while reading '{PATIENT}'"),
        KeyError(PATIENT),
        UnicodeDecodeError("utf-8", PATIENT.encode(), 0, 1, PATIENT),
        type(PATIENT, (Exception,), {})(PATIENT),
        MemoryError(PATIENT),
    ],
    ids=["message", "key", "decode", "type-name", "memory"],
)
@pytest.mark.parametrize("where", [("fit", "train"), ("evaluate", "evaluate")])
def test_a_patients_name_in_an_exception_does_not_travel(
    session, request_bytes, monkeypatch, error, where
):
    _planted(error, (NerModel, where[0]), monkeypatch)
    clean = encode(
        replace(
            decode_reply(session.handle(b"x")), kind=where[1], round=1, refusal="internal-error"
        )
    )
    reply = session.handle(request_bytes(where[1]))
    assert _refused(reply, Refusal.INTERNAL)
    assert reply == clean
    for text in (PATIENT, PATIENT.split(",")[0], "Zaragoza"):
        assert not [d for d in _disguises(text) if d and d in reply]


def test_a_patients_name_in_the_middle_of_training_does_not_travel(
    study, party, model, request_bytes
):
    def progress(done, _of):
        if done == 2:
            raise ValueError(PATIENT)

    session = Session(study, party, model, progress=progress)
    reply = session.handle(request_bytes())
    assert _refused(reply, Refusal.INTERNAL)
    assert not [d for d in _disguises(PATIENT) if d in reply]
    calm = Session(study, party, model)
    again = Session(study, party, model).handle(request_bytes())
    assert calm.handle(request_bytes()) == again  # the half-trained model left no trace


def test_a_failure_outside_a_session_says_a_code_only():
    reply = refuse_unexpected(RuntimeError(PATIENT))
    assert _refused(reply, Refusal.INTERNAL)
    assert not [d for d in _disguises(PATIENT) if d in reply]


def test_no_document_shows_in_any_reply(session, party, request_bytes):
    replies = [session.handle(request_bytes(kind, round_)) for kind, round_ in ALL_KINDS]
    for document in (*party.train.documents, *party.test.documents):
        for text in (document.text[:24], document.doc_id, document.patient_id):
            assert not [r for r in replies for d in _disguises(text) if len(d) > 8 and d in r]


def test_the_log_of_a_refusal_at_the_site_names_why(session, caplog, request_bytes):
    with caplog.at_level(logging.WARNING, client.session.log.name):
        session.handle(request_bytes(study_="0" * 64))
    assert "0" * 64 in caplog.text
