"""The coordinator over an exchange in memory: real bytes, institutions of a few numbers each."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import __version__
from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.study import Study
from common.errors import FederationError, ProtocolError
from common.metrics.evaluation import Evaluation
from common.privacy.notice import WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION
from common.wire import (
    Kind,
    Refusal,
    Reply,
    counts_to_bytes,
    decode_reply,
    decode_request,
    encode,
    vector_from_bytes,
    vector_to_bytes,
)
from server.coordinator import Coordinator
from server.mail import Leaving, Letter, Lost, Take
from server.receipts import ReceiptBook
from server.run_dir import RunDir
from tests.unit.test_receipts import head

NAMES = ("north", "east", "south")
DIMENSION = 4
LABELS = ("Disease", "Drug")
SIZE = Evaluation.size(LABELS)


def study_of(*, quorum: int = 3, rounds: int = 2, every: int = 1, aggregation: str = "{}") -> Study:
    return parse_study(
        f"""\
study: zorblax
task: {{labels: [{", ".join(LABELS)}]}}
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
training: {{rounds: {rounds}, learning_rate: 1e-3}}
aggregation: {aggregation}
federation:
  institutions: [{", ".join(NAMES)}]
  quorum: {quorum}
  evaluate_every: {every}
privacy: none
secure_aggregation: none
""",
        "study.yaml",
    )


Forge = Callable[[Reply], Reply | bytes | None]
"""What becomes of a reply on its way: another, raw bytes, or nothing."""


class Institution:
    """Answers as a worker does, with an update that moves its model a fixed way."""

    def __init__(self, name: str, study: Study, number: int) -> None:
        self.name = name
        self.study = study
        self.update = np.arange(DIMENSION, dtype=np.float32) + number
        self.counts = np.full(SIZE, number + 1, np.int64)
        self.facts: dict[str, str | int] = {
            "version": __version__,
            "dimension": DIMENSION,
            "layout": "l" * 64,
            "initial": "i" * 64,
            "encoder": "e" * 64,
        }
        self.forge: dict[str, Forge] = {}
        self.models: list[tuple[Kind, int, list[float]]] = []

    def handle(self, data: bytes) -> bytes | None:
        request = decode_request(data)
        assert request.study == study_hash(self.study)
        reply = Reply(
            kind=request.kind, study=request.study, round=request.round, institution=self.name
        )
        if request.kind == "hello":
            reply = dataclasses.replace(reply, facts=self.facts)
        else:
            body = request.body or bytes(4 * DIMENSION)
            model = vector_from_bytes(body, DIMENSION)
            self.models.append((request.kind, request.round, model.tolist()))
            vector = vector_to_bytes(self.update)
            counts = counts_to_bytes(self.counts)
            reply = dataclasses.replace(reply, body=vector if request.kind == "train" else counts)
        forged = self.forge.get(request.kind, lambda reply: reply)(reply)
        return encode(forged) if isinstance(forged, Reply) else forged


class InMemory:
    """An `Exchange` that asks in the order given and calls `before` with every request."""

    def __init__(self, institutions: list[Institution]) -> None:
        self.institutions = institutions
        self.asked: list[tuple[Kind, int]] = []
        self.before: Callable[[Kind, int], None] = lambda kind, round_: None

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        self.asked.append(("hello", 0))
        for one in self.institutions:
            data = one.handle(request)
            if data is not None and enough({one.name: decode_reply(data)}):
                return

    def present(self) -> list[str]:
        return [one.name for one in self.institutions]

    def ask(
        self,
        kind: Kind,
        round_: int,
        requests: Mapping[str, Letter],
        most: int,
        take: Take,
        leaving: Leaving,
    ) -> None:
        self.asked.append((kind, round_))
        leaving()
        self.before(kind, round_)
        for one in self.institutions:
            data = one.handle(bytes(requests[one.name]))
            if data is not None:
                take(one.name, data if len(data) <= most else Lost.TOO_LARGE)


class Federation:
    """A study, its institutions and its run."""

    def __init__(self, path: Path, study: Study) -> None:
        self.study = study
        self.run_dir = RunDir.create(path / "run", "")
        self.institutions = {
            name: Institution(name, study, number) for number, name in enumerate(NAMES)
        }
        self.exchange = InMemory(list(self.institutions.values()))
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def __getitem__(self, name: str) -> Institution:
        return self.institutions[name]

    def run(self, book: ReceiptBook | None = None) -> None:
        def hear(event: str, figures: Mapping[str, Any]) -> None:
            self.events.append((event, figures))

        Coordinator(self.study, self.exchange, self.run_dir, hear, book).run()

    def recorded(self, kind: str) -> list[dict[str, Any]]:
        return self.run_dir.events(kind)

    @property
    def delta(self) -> list[float]:
        delta: list[float] = self.run_dir.load_delta()[0].tolist()
        return delta


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, study_of())


@pytest.fixture
def lenient(tmp_path: Path) -> Federation:
    """Two of three are enough."""
    return Federation(tmp_path, study_of(quorum=2))


def mean(*updates: np.ndarray) -> list[float]:
    values: list[float] = np.mean(np.stack(updates).astype(np.float64), axis=0).tolist()
    return values


def test_a_study_runs_through_hello_then_train_and_evaluate_each_round(
    federation: Federation,
) -> None:
    federation.run()
    assert federation.exchange.asked == [
        ("hello", 0),
        *[("train", 1), ("evaluate", 1), ("train", 2), ("evaluate", 2)],
    ]
    events = [line["event"] for line in federation.run_dir.events()]
    assert events == ["start", "round", "evaluation", "round", "evaluation"]
    assert [event for event, _ in federation.events] == events


def test_the_model_is_the_sum_of_the_mean_updates(federation: Federation) -> None:
    federation.run()
    one = mean(*(federation[name].update for name in NAMES))
    assert federation.delta == pytest.approx([2 * value for value in one], rel=1e-6)
    assert federation.run_dir.load_delta()[1] == 2


def test_every_institution_is_sent_the_model_so_far_and_evaluates_the_new_one(
    federation: Federation,
) -> None:
    federation.run()
    one = mean(*(federation[name].update for name in NAMES))
    for name in NAMES:
        seen = {(kind, round_): model for kind, round_, model in federation[name].models}
        assert seen["train", 1] == [0.0] * DIMENSION
        assert seen["evaluate", 1] == seen["train", 2] == pytest.approx(one, rel=1e-6)
        assert seen["evaluate", 2] == federation.delta


def test_public_weights_weigh_the_updates(tmp_path: Path) -> None:
    weights = "{weights: {north: 1, east: 2, south: 5}}"
    federation = Federation(tmp_path, study_of(rounds=1, aggregation=weights))
    federation.run()
    parts = [federation[n].update * w for n, w in zip(NAMES, (1 / 8, 2 / 8, 5 / 8), strict=True)]
    assert federation.delta == pytest.approx(np.sum(parts, axis=0).tolist(), rel=1e-6)


def test_the_order_in_which_institutions_answer_never_shows(tmp_path: Path) -> None:
    deltas = []
    for number, step in enumerate((1, -1)):
        federation = Federation(tmp_path / str(number), study_of())
        for k, name in enumerate(NAMES):
            federation[name].update = np.array([0.1, 1e-8, 1e8, -1e7], np.float32) * (k + 0.3)
        federation.exchange.institutions[:] = federation.exchange.institutions[::step]
        federation.run()
        deltas.append(federation.run_dir.load_delta()[0].tobytes())
    assert deltas[0] == deltas[1]


def test_a_round_is_recorded_with_who_took_part_and_what_travelled(
    federation: Federation,
) -> None:
    federation.run()
    for number, line in enumerate(federation.recorded("round"), 1):
        assert line["round"] == number
        assert line["institutions"] == sorted(NAMES)
        assert line["bytes_up"] == 3 * 4 * DIMENSION
        assert line["seconds"] >= 0
    (start,) = federation.recorded("start")
    assert (start["version"], start["dimension"]) == (__version__, DIMENSION)


def test_every_line_of_the_metrics_says_that_there_is_no_privacy(federation: Federation) -> None:
    federation.run()
    lines = federation.run_dir.events()
    assert len(lines) == 5
    for line in lines:
        assert line["privacy"] == line["secure_aggregation"] == "none"
        assert line["study"] == "zorblax"
        assert line["study_sha256"] == study_hash(federation.study)
    assert lines[0]["notices"] == [WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION]


def test_the_log_says_it_too(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedner"):
        federation.run()
    assert caplog.messages[:2] == [WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION]


def test_the_checkpoint_of_a_round_is_there_before_its_evaluation(federation: Federation) -> None:
    rounds = []

    def look(kind: Kind, round_: int) -> None:
        if kind == "evaluate":
            rounds.append((round_, federation.run_dir.load_delta()[1]))
            assert federation.recorded("round")[-1]["round"] == round_

    federation.exchange.before = look
    federation.run()
    assert rounds == [(1, 1), (2, 2)]


def test_a_checkpoint_outlives_a_failure_in_the_next_round(federation: Federation) -> None:
    def fail(kind: Kind, round_: int) -> None:
        if (kind, round_) == ("train", 2):
            raise OSError

    federation.exchange.before = fail
    with pytest.raises(OSError):  # noqa: PT011
        federation.run()
    delta, round_ = federation.run_dir.load_delta()
    assert round_ == 1
    assert delta.tolist() == pytest.approx(mean(*(federation[n].update for n in NAMES)), rel=1e-6)


def test_evaluations_are_added_up_over_the_institutions(federation: Federation) -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    for name in NAMES:
        federation[name].counts = generator.integers(0, 50, SIZE)
    federation.run()
    total = Evaluation(LABELS, sum((federation[n].counts for n in NAMES), np.zeros(SIZE, np.int64)))
    for line in federation.recorded("evaluation"):
        assert line["institutions"] == sorted(NAMES)
        assert line["f1"] == total.f1
        assert set(line["entities"]) == {*LABELS, "micro", "macro", "weighted"}
        for row, scores in total.entity_report().items():
            assert line["entities"][row] == dataclasses.asdict(scores)
        for row, scores in total.token_report().items():
            assert line["tokens"][row] == dataclasses.asdict(scores)


@pytest.mark.parametrize(
    ("every", "rounds", "expected"), [(2, 5, [2, 4, 5]), (3, 3, [3]), (9, 2, [2]), (1, 2, [1, 2])]
)
def test_evaluations_come_every_so_many_rounds_and_after_the_last(
    tmp_path: Path, every: int, rounds: int, expected: list[int]
) -> None:
    federation = Federation(tmp_path, study_of(every=every, rounds=rounds))
    federation.run()
    assert [line["round"] for line in federation.recorded("evaluation")] == expected


OTHER_FACTS: dict[str, str | int] = {
    "version": "0.0.0",
    "dimension": DIMENSION + 1,
    "layout": "m" * 64,
    "initial": "j" * 64,
    "encoder": "f" * 64,
}


@pytest.mark.parametrize("field", OTHER_FACTS)
def test_unlike_institutions_are_refused_naming_both_and_what_differs(
    lenient: Federation, field: str
) -> None:
    lenient["south"].facts[field] = OTHER_FACTS[field]
    with pytest.raises(FederationError) as caught:
        lenient.run()
    assert caught.value.message == f"east and south differ in: {field}"
    assert "fedner encoder verify" in (caught.value.remedy or "")
    assert [kind for kind, _ in lenient.exchange.asked] == ["hello"]


def test_all_that_differs_is_named(federation: Federation) -> None:
    federation["north"].facts |= {"encoder": "x", "layout": "y"}
    with pytest.raises(FederationError, match="east and north differ in: layout, encoder"):
        federation.run()


@pytest.mark.parametrize("facts", [{}, {"version": "1"}])
def test_a_hello_without_its_facts_is_refused_by_name(
    federation: Federation, facts: dict[str, str | int]
) -> None:
    federation["north"].facts = facts
    with pytest.raises(ProtocolError) as caught:
        federation.run()
    assert caught.value.place == "north"


@pytest.mark.parametrize("dimension", [0, -1, 1 << 32, "4"])
def test_an_impossible_dimension_is_refused_before_anything_is_made_of_it(
    federation: Federation, dimension: str | int
) -> None:
    for name in NAMES:
        federation[name].facts["dimension"] = dimension
    with pytest.raises(ProtocolError, match="impossible dimension"):
        federation.run()


def gone(reply: Reply) -> None:
    """Nothing comes back."""


def test_an_institution_that_never_says_hello_may_be_missing_within_the_quorum(
    lenient: Federation,
) -> None:
    lenient["east"].forge = {"hello": gone, "train": gone, "evaluate": gone}
    lenient.run()
    one = mean(lenient["north"].update, lenient["south"].update)
    assert lenient.delta == pytest.approx([2 * value for value in one], rel=1e-6)


def test_too_few_at_the_start_fail_the_study_before_any_training(federation: Federation) -> None:
    federation["east"].forge = {"hello": gone}
    with pytest.raises(FederationError, match="2 institutions answered, the study needs 3"):
        federation.run()
    assert [kind for kind, _ in federation.exchange.asked] == ["hello"]
    assert federation.run_dir.events() == []


def with_(**changes: Any) -> Forge:
    return lambda reply: dataclasses.replace(reply, **changes)


def vector(*values: float) -> bytes:
    return vector_to_bytes(np.array(values, np.float32))


NOT_COUNTED: dict[str, Forge] = {
    "nothing": gone,
    "another round": with_(round=7),
    "an earlier round": with_(round=0),
    "another study": with_(study="cd" * 32),
    "the name of another": with_(institution="north"),
    "a name off the roster": with_(institution="west"),
    "another kind": with_(kind="evaluate"),
    "hello": with_(kind="hello"),
    "an empty body": with_(body=b""),
    "a shorter vector": with_(body=vector(*[1.0] * (DIMENSION - 1))),
    "a longer vector": with_(body=vector(*[1.0] * (DIMENSION + 1))),
    "a broken vector": with_(body=vector(*[1.0] * DIMENSION)[:-1]),
    "NaN": with_(body=vector(1.0, np.nan, 1.0, 1.0)),
    "infinity": with_(body=vector(1.0, 1.0, 1.0, -np.inf)),
    "no message": lambda reply: b"zorblax",
    "no bytes": lambda reply: b"",
    "a truncated message": lambda reply: encode(reply)[:-1],
    "a request": lambda reply: encode(reply).replace(b"institution", b"institutioN"),
    "facts": with_(facts={"version": "1"}),
    **{f"refusal {code.value}": with_(refusal=code.value) for code in Refusal},
}
not_counted = pytest.mark.parametrize("forge", NOT_COUNTED.values(), ids=NOT_COUNTED)


@not_counted
def test_what_is_no_update_of_this_round_is_not_counted(lenient: Federation, forge: Forge) -> None:
    lenient["east"].forge = {"train": forge}
    lenient.run()
    one = mean(lenient["north"].update, lenient["south"].update)
    assert lenient.delta == pytest.approx([2 * value for value in one], rel=1e-6)
    for line in lenient.recorded("round"):
        assert line["institutions"] == ["north", "south"]
        assert line["bytes_up"] == 2 * 4 * DIMENSION


@not_counted
def test_below_the_quorum_the_study_fails_and_no_checkpoint_is_written(
    federation: Federation, forge: Forge
) -> None:
    federation["east"].forge = {"train": forge}
    with pytest.raises(FederationError, match="round 1: 2 institutions sent an update") as caught:
        federation.run()
    assert "log" in (caught.value.remedy or "")
    assert federation.recorded("round") == []
    with pytest.raises(FederationError, match="no round was finished"):
        federation.run_dir.load_delta()


COUNTS_NOT_COUNTED: dict[str, Forge] = {
    "nothing": gone,
    "another round": with_(round=7),
    "another kind": with_(kind="train"),
    "a refusal": with_(refusal=Refusal.INTERNAL.value),
    "a negative count": with_(body=counts_to_bytes(np.full(SIZE, -1))),
    "too few counts": with_(body=counts_to_bytes(np.ones(SIZE - 1, np.int64))),
    "too many counts": with_(body=counts_to_bytes(np.ones(SIZE + 1, np.int64))),
    "no message": lambda reply: b"",
}
bad_counts = pytest.mark.parametrize("forge", COUNTS_NOT_COUNTED.values(), ids=COUNTS_NOT_COUNTED)


@bad_counts
def test_what_is_no_count_of_this_round_is_not_counted(lenient: Federation, forge: Forge) -> None:
    lenient["east"].forge = {"evaluate": forge}
    lenient.run()
    total = Evaluation(LABELS, lenient["north"].counts + lenient["south"].counts)
    for line in lenient.recorded("evaluation"):
        assert line["institutions"] == ["north", "south"]
        assert line["entities"]["micro"]["support"] == total.entity_report()["micro"].support
    assert lenient.recorded("round")[-1]["institutions"] == sorted(NAMES)


@bad_counts
def test_too_few_evaluations_fail_the_study_but_the_checkpoint_stays(
    federation: Federation, forge: Forge
) -> None:
    federation["east"].forge = {"evaluate": forge}
    with pytest.raises(FederationError, match="round 1: 2 institutions were evaluated"):
        federation.run()
    assert federation.run_dir.load_delta()[1] == 1
    assert federation.recorded("evaluation") == []


def test_an_institution_that_was_late_once_is_back_in_the_next_round(lenient: Federation) -> None:
    lenient["east"].forge = {"train": lambda reply: None if reply.round == 1 else reply}
    lenient.run()
    took_part = [line["institutions"] for line in lenient.recorded("round")]
    assert took_part == [["north", "south"], sorted(NAMES)]
    first = np.array(mean(lenient["north"].update, lenient["south"].update))
    second = np.array(mean(*(lenient[name].update for name in NAMES)))
    assert lenient.delta == pytest.approx((first + second).tolist(), rel=1e-6)


def test_fedadam_keeps_its_moments_in_the_checkpoint(tmp_path: Path) -> None:
    settings = "{optimizer: fedadam, learning_rate: 0.1}"
    federation = Federation(tmp_path, study_of(aggregation=settings))
    federation.run()
    with np.load(federation.run_dir.path / "checkpoint.npz", allow_pickle=False) as content:
        assert content["moments"].shape == (2, DIMENSION)
        assert content["moments"].any()


def test_what_is_evaluated_and_saved_is_averaged_and_interpolated_and_training_is_not(
    tmp_path: Path,
) -> None:
    settings = "{average: 0.5, interpolation: 0.75}"
    federation = Federation(tmp_path, study_of(aggregation=settings))
    federation.run()
    one = np.array(mean(*(federation[name].update for name in NAMES)))
    for name in NAMES:
        seen = {(kind, round_): model for kind, round_, model in federation[name].models}
        assert seen["evaluate", 1] == pytest.approx(0.75 * one, rel=1e-6)
        assert seen["train", 2] == pytest.approx(one, rel=1e-6)
        assert seen["evaluate", 2] == federation.delta
    assert federation.delta == pytest.approx(0.75 * (one + 2 * 2 * one) / 3, rel=1e-6)
    with np.load(federation.run_dir.path / "checkpoint.npz", allow_pickle=False) as content:
        assert content["delta"] == pytest.approx(2 * one, rel=1e-6)


def test_no_warning_quotes_what_an_institution_sent(
    lenient: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    lenient["east"].forge = dict.fromkeys(("train", "evaluate"), lambda reply: b"zorblax")
    with caplog.at_level(logging.DEBUG, "fedner"):
        lenient.run()
    assert any("east" in message for message in caplog.messages)
    assert not any("zorblax" in message for message in caplog.messages)


def test_a_reply_larger_than_any_is_refused_by_name_and_costs_nobody_else(tmp_path: Path) -> None:
    federation = Federation(tmp_path, study_of(quorum=2))
    federation["east"].forge["train"] = lambda reply: bytes(4 * DIMENSION + (1 << 16) + 1)
    federation.run()
    refusals = [(r["institution"], r["code"]) for r in federation.recorded("refusal")]
    assert refusals == [("east", "reply-too-large")] * 2
    assert federation.recorded("round")[-1]["institutions"] == ["north", "south"]


def test_too_few_replies_name_who_sent_too_much(tmp_path: Path) -> None:
    federation = Federation(tmp_path, study_of())
    federation["east"].forge["train"] = lambda reply: bytes(1 << 20)
    with pytest.raises(FederationError, match=r"east \(refused: reply-too-large\)"):
        federation.run()


def test_a_trip_that_ends_in_an_error_loses_no_receipt_of_who_had_replied(
    federation: Federation, tmp_path: Path
) -> None:
    def gone(_reply: Reply) -> Reply:
        raise FederationError("the SuperLink is gone")

    book = ReceiptBook(tmp_path / "coordinator", lambda: 1_800_000_000)
    federation["north"].forge["train"] = lambda reply: dataclasses.replace(reply, ledger=head(3))
    federation["south"].forge["train"] = gone
    with pytest.raises(FederationError, match="SuperLink is gone"):
        federation.run(book)
    assert list(book.receipts(NAMES)) == ["north"]
