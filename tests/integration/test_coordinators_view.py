"""All that a coordinator ever has, searched for what one institution alone knows.

Searched are the messages that reach it, the run's folder, its own folder and its log; for an
institution's update, its levels, its counts, its loss and its F1, in the forms of `tests.needles`.
With `secure_aggregation: none` the same search finds update and counts; with masks that are zeros
the packed levels; where sites report to the coordinator, loss and F1. `test_coordinators_disk` does
the same with real processes.
"""

import base64
import json
import logging

import numpy as np
import pytest

from common.secagg.bundle import split
from common.secagg.codec import decode
from common.secagg.messages import Masked
from common.secagg.packing import pack
from common.wire import decode_reply
from tests.needles import F1, LOSS, SHORTEST, Known, Needle, PlantedEvaluation, found_in, needles
from tests.secure_runs import NAMES, Run, bench_of

PLANTED = "east"


class PlantedRun(Run):
    """A run in which one institution's counts, loss and F1 are distinctive.

    Attributes:
        known: what that institution alone knows.
        tells: what the coordinator is told of each institution's own figures: nothing, if honest.
    """

    def __init__(self, bench, folder, tells=None):
        super().__init__(bench, folder)
        self.known, self.tells = Known(), tells

    def start(self, name):
        super().start(name)
        work = self.sessions[name]._work
        if name == PLANTED:
            work._model = self.sessions[name]._model = PlantedModel(self)
        if self.tells:
            work._report = lambda kind, figures: self.tells(self.run, figures)

    def carry_out(self):
        super().carry_out()
        if self.packed:
            self.known.update = self.updates[PLANTED, 1]
            self.known.levels = self.levels(PLANTED, 1)
            self.known.bits = self.study.secure.bits
        return self

    def masked_vectors(self):
        """As they left."""
        for _, reply in self.replies:
            bundle = decode_reply(reply).sums
            for message in map(decode, split(bundle) if bundle else ()):
                if isinstance(message, Masked):
                    yield bytes(message.packed)

    def found(self):
        """What the search finds in all that the coordinator has."""
        random = list(self.masked_vectors()) if self.packed else ()
        return found_in(self.coordinators_view(), list(needles(self.known)), random)


class PlantedModel:
    """The run's model with a loss and counts of its own."""

    def __init__(self, run):
        self._model, self._run = run.model, run

    def __getattr__(self, name):
        return getattr(self._model, name)

    def fit(self, *args, **kwargs):
        self._model.fit(*args, **kwargs)
        return LOSS

    def delta(self):
        self._run.known.update = self._model.delta()
        return self._run.known.update

    def evaluate(self, *args, **kwargs):
        planted = PlantedEvaluation.for_labels(self._run.study.task.labels)
        self._run.known.counts = planted.counts
        return planted


ONE_ROUND = "{rounds: 1, local_epochs: 1, batch_size: 4, learning_rate: 5e-3, precision: float32}"


@pytest.fixture(scope="module")
def benches(tiny_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    changes = {"training": ONE_ROUND}
    return {
        "secure": bench_of(tiny_study, folder, **changes),
        "none": bench_of(tiny_study, folder, secure_aggregation="none", **changes),
    }


@pytest.fixture(scope="module")
def secure(benches, tmp_path_factory):
    return PlantedRun(benches["secure"], tmp_path_factory.mktemp("secure")).carry_out()


def test_nothing_of_one_institution_is_anywhere_at_the_coordinator(secure):
    view = list(secure.coordinators_view())
    assert {where.split()[0] for where, _ in view} >= {"message", "log", "run/metrics.jsonl"}
    assert sum(len(data) for _, data in view) > 3 * 2 * secure.model.layout.size
    assert secure.found() == {}


def test_only_masked_vectors_are_cut_out_before_the_shortest_needles_are_looked_for(secure):
    masked = list(secure.masked_vectors())
    assert len(masked) == 2 * len(NAMES)  # updates and counts
    short = [needle for needle in needles(secure.known) if len(needle.raw) < SHORTEST]
    assert {(needle.what, needle.form[:3]) for needle in short} == {
        ("loss", "f4<"), ("loss", "f4>"), ("f1", "f4<"), ("f1", "f4>"),
        ("counts", "cbo"), ("counts", "msg"),
    }  # fmt: skip
    loss = np.float32(LOSS).tobytes()
    vector = masked[0] + loss + masked[0]
    assert found_in([("message", b"head" + vector + b"tail")], short, [vector]) == {}
    assert found_in([("message", vector + loss)], short, [vector]) == {"loss": {"f4<": "message"}}


def test_the_search_finds_each_form_of_each_thing_if_it_is_there(secure):
    things = list(needles(secure.known))
    assert {thing.what for thing in things} == {"update", "levels", "counts", "loss", "f1"}
    for thing in things:
        hay = [("planted", b"x" * 5 + thing.raw + b"y" * 5)]
        assert found_in(hay, [thing]) == {thing.what: {thing.form: "planted"}}


def in_base64(raw, before):
    """As a longer text of other bytes around it has it."""
    return base64.b64encode(bytes(before) + raw + b"abcde")


WRITTEN = {
    "json": lambda x: json.dumps({"loss": x, "round": 1}).encode(),
    "python": lambda x: f"loss {x!r}, next".encode(),
    "numpy": lambda x: repr(np.float64(x)).encode(),
    "numpy float32": lambda x: str(np.float32(x)).encode(),
    "four digits": lambda x: f"own train: loss {x:.4g}\n".encode(),
    "four places": lambda x: f"loss={x:.4f};".encode(),
    "six places": lambda x: f"loss={x:f};".encode(),
    "exponent": lambda x: f"{x:e}".encode(),
    "percent": lambda x: f"{x:.4%}".encode(),
    "float32": lambda x: np.float32(x).tobytes(),
    "float32, big endian": lambda x: np.array(x, ">f4").tobytes(),
    "float64": lambda x: np.float64(x).tobytes(),
    "float64, big endian": lambda x: np.array(x, ">f8").tobytes(),
    "hexadecimal": lambda x: np.float64(x).tobytes().hex().encode(),
    "base64, float32": lambda x: base64.b64encode(np.float32(x).tobytes()),
    **{
        f"base64, {n} before": lambda x, n=n: in_base64(np.float64(x).tobytes(), n)
        for n in range(4)
    },
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize(("what", "value"), [("loss", LOSS), ("f1", F1)])
def test_a_scalar_is_found_however_it_is_written(secure, form, what, value):
    hay = [("planted", b"\x00 " + WRITTEN[form](value))]
    assert set(found_in(hay, list(needles(secure.known)))) == {what}


ROWS = {
    "array": lambda v: v.tobytes(),
    "array, big endian": lambda v: v.astype(v.dtype.newbyteorder(">")).tobytes(),
    "array in base64": lambda v: base64.b64encode(b"a" + v.tobytes()),
    "list in JSON": lambda v: json.dumps(v.tolist()).encode(),
    "lines": lambda v: "\n".join(map(str, v.tolist())).encode(),
    "as float64": lambda v: v.astype(np.float64).tobytes(),
    "as int64, or float16": lambda v: v.astype("i8" if v.dtype.kind in "ui" else "f2").tobytes(),
}


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("what", ["update", "levels", "counts"])
def test_a_vector_is_found_however_it_is_written(secure, form, what):
    vector = getattr(secure.known, what)[:1024]
    assert what in found_in([("planted", ROWS[form](vector))], list(needles(secure.known)))


def test_packed_levels_and_packed_counts_are_found(secure):
    known, things = secure.known, list(needles(secure.known))
    packed = pack(known.levels, known.bits)
    assert "packed" in found_in([("planted", packed)], things)["levels"]
    text = base64.b64encode(b"ab" + packed)
    assert "base64 packed" in found_in([("planted", text)], things)["levels"]
    assert "u4<" in found_in([("planted", pack(known.counts.astype("u4"), 32))], things)["counts"]


def test_one_count_by_itself_is_found(secure):
    things = list(needles(secure.known))
    for count in secure.known.counts.tolist()[::20]:
        for hay in (f'{{"support": {count}}}'.encode(), count.to_bytes(8, "little")):
            assert set(found_in([("planted", hay)], things)) == {"counts"}


def test_a_number_that_stands_in_a_longer_one_is_none():
    rounded = Needle("f1", "decimal", b"0.4183")
    assert rounded.lies_in(b"f1 0.4183,")
    assert rounded.lies_in(b"10.4183 0.4183")
    assert not rounded.lies_in(b"10.4183")
    assert not rounded.lies_in(b"0.41832")
    start = Needle("f1", "decimal", b"0.418263", starts=True)
    assert start.lies_in(b"0.41826373")
    assert not start.lies_in(b"1764055340.41826373")


def test_without_secure_aggregation_the_same_search_finds_update_and_counts(benches, tmp_path):
    found = PlantedRun(benches["none"], tmp_path).carry_out().found()
    assert "f4<" in found["update"]
    assert "i8<" in found["counts"]
    assert set(found) == {"update", "counts"}  # loss and F1 leave in neither case


def test_with_masks_of_zeros_the_same_search_finds_the_packed_levels(
    benches, tmp_path, monkeypatch
):
    """What keeps the levels out of the coordinator's view is the masks, and nothing else."""
    monkeypatch.setattr("common.secagg.pipeline.add_piece_", lambda *_: None)
    found = PlantedRun(benches["secure"], tmp_path).carry_out().found()
    assert "packed" in found["levels"]
    assert "u4<" in found["counts"]


def test_where_sites_tell_the_coordinator_their_own_figures_the_same_search_finds_them(
    benches, tmp_path
):
    """What a site reports to itself, in the coordinator's metrics, in its log and in a file."""

    def told(run, figures):
        run.record("told", run.study(), **figures)
        logging.getLogger("fedner.server").info("told: %s", list(figures.values()))
        values = np.array([figures.get("loss", figures.get("f1", 0.0))], np.float32)
        with (run.path / "told.f4").open("ab") as file:
            file.write(values.tobytes())

    found = PlantedRun(benches["secure"], tmp_path, told).carry_out().found()
    assert set(found) == {"loss", "f1", "counts"}  # supports are counts
    for what in ("loss", "f1"):
        assert found[what]["decimal"] == "run/metrics.jsonl"
        assert found[what]["f4<"] == "run/told.f4"


def test_no_reply_of_a_study_with_secure_aggregation_has_a_body(secure):
    replies = [decode_reply(reply) for _, reply in secure.replies]
    assert {reply.kind for reply in replies} == {"hello", "sum", "train", "evaluate"}
    assert all(reply.body == b"" for reply in replies)
    assert all(reply.facts == {} for reply in replies if reply.kind != "hello")
