"""All that a coordinator ever has, searched for what one institution alone knows.

Searched are the messages that reach it, the run's folder, its own folder and its log; for an
institution's update, its levels, its counts, its loss and its F1, as numbers of several widths, as
packed levels, in decimal and in base64. With `secure_aggregation: none` the same search finds them;
with masks that are zeros it finds the packed levels.
"""

import base64

import numpy as np
import pytest

from common.metrics.evaluation import Evaluation
from common.secagg.packing import pack
from tests.secure_runs import Run, bench_of

PLANTED = "east"
LOSS = 0.7305918263541
WINDOW = 8
"""Values in a row: 16 bytes and more, which chance does not make."""
WINDOWS = 24


class Known:
    """What the planted institution alone knows."""

    def __init__(self):
        self.update, self.levels, self.counts, self.f1 = None, None, None, 0.0


def forms(numbers, kinds):
    """A row of numbers in binary, little and big endian, and as base64 of it at any offset."""
    for kind in kinds:
        for order in "<>":
            raw = np.asarray(numbers).astype(np.dtype(kind).newbyteorder(order)).tobytes()
            yield f"{kind}{order}", raw
            yield from ((f"base64 {kind}{order}", text) for text in in_base64(raw))


def in_base64(raw):
    """The middle of what base64 makes of it, at each of three offsets."""
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw)
        yield text[4 : len(text) // 4 * 4 - 4]


def decimals(numbers):
    """A row of numbers as Python, JSON and numpy write it."""
    row = list(numbers)
    for write in (repr, "{:.6g}".format, "{:.6f}".format):
        for gap in (", ", ",", " "):
            yield "decimal", gap.join(write(n) for n in row).encode()


def windows(vector):
    """Starts of rows without a repeated value, spread over the vector; multiples of eight."""
    starts = [
        start
        for start in range(0, len(vector) - WINDOW, 8)
        if len(set(vector[start : start + WINDOW].tolist()) - {0}) == WINDOW
    ]
    return starts[:: max(1, len(starts) // WINDOWS)][:WINDOWS]


def needles(known, bits):
    """(what, form, bytes) of all that must not be found."""
    for start in windows(known.update):
        row = known.update[start : start + WINDOW]
        for form, raw in forms(row, ("f4", "f8", "f2")):
            yield "update", form, raw
        for form, raw in decimals(row.tolist()):
            yield "update", form, raw
    for start in windows(known.levels) if known.levels is not None else ():
        row = known.levels[start : start + WINDOW]
        for form, raw in (*forms(row, ("u4", "i4", "i8")), *decimals(row.tolist())):
            yield "levels", form, raw
        packed = pack(row, bits)
        yield "levels", "packed", packed
        yield from (("levels", "base64 packed", text) for text in in_base64(packed))
    some = known.counts[-4:]
    for form, raw in (*forms(some, ("u4", "i8", "f4", "f8")), *decimals(some.tolist())):
        yield "counts", form, raw
    for count in known.counts:
        yield "counts", "decimal", str(count).encode()
    for what, value in (("loss", LOSS), ("f1", known.f1)):
        yield what, "decimal", f"{value:.6f}".encode()
        yield from ((what, f"f8{order}", np.array(value, f"{order}f8").tobytes()) for order in "<>")


def found_in(view, things):
    """What is found of `needles`: {what: {form: where}}."""
    found = {}
    assert all(len(raw) >= 7 for _, _, raw in things)
    for where, data in view:
        for what, form, raw in things:
            if raw in data:
                found.setdefault(what, {}).setdefault(form, where)
    return found


def planted_counts(size):
    """Seven-digit primes and the like: no two alike, and no institution has as many words."""
    return np.arange(size, dtype=np.int64) ** 2 * 7_919 + 1_234_577


def run_with_plants(bench, folder):
    """A run in which one institution's counts and loss are distinctive; and what it knows."""
    known, run = Known(), Run(bench, folder)
    started = run.start

    def start(name):
        started(name)
        if name == PLANTED:
            plant(run, known)

    run.start = start
    run.carry_out()
    if run.packed:
        known.update, known.levels = run.updates[PLANTED, 1], run.levels(PLANTED, 1)
    return run, known


def plant(run, known):
    session, work = run.sessions[PLANTED], run.sessions[PLANTED]._work
    model = work._model
    counts = planted_counts(Evaluation.size(run.study.task.labels))
    planted = Evaluation(run.study.task.labels, counts)
    known.counts, known.f1 = counts, planted.f1

    class Planted:
        """The model with a loss and counts of its own."""

        def __getattr__(self, name):
            return getattr(model, name)

        def fit(self, *args, **kwargs):
            model.fit(*args, **kwargs)
            return LOSS

        def delta(self):
            known.update = model.delta()
            return known.update

        def evaluate(self, *args, **kwargs):
            return planted

    work._model = session._model = Planted()


ONE_ROUND = "{rounds: 1, local_epochs: 1, batch_size: 4, learning_rate: 5e-3, precision: float32}"


@pytest.fixture(scope="module")
def benches(tiny_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    changes = {"training": ONE_ROUND}
    return {
        "secure": bench_of(tiny_study, folder, **changes),
        "none": bench_of(tiny_study, folder, secure_aggregation="none", **changes),
    }


def things_of(run, known):
    """All that is searched for."""
    section = run.study.secure
    return list(needles(known, 32 if section is None else section.bits))


@pytest.fixture(scope="module")
def secure(benches, tmp_path_factory):
    return run_with_plants(benches["secure"], tmp_path_factory.mktemp("secure"))


def test_nothing_of_one_institution_is_anywhere_at_the_coordinator(secure):
    run, known = secure
    view = list(run.coordinators_view())
    assert {where.split()[0] for where, _ in view} >= {"message", "log", "run/metrics.jsonl"}
    assert sum(len(data) for _, data in view) > 3 * 2 * run.model.layout.size
    assert found_in(view, things_of(run, known)) == {}


def test_the_search_finds_each_form_of_each_thing_if_it_is_there(secure):
    run, known = secure
    things = things_of(run, known)
    assert {what for what, _, _ in things} == {"update", "levels", "counts", "loss", "f1"}
    for what, form, raw in things:
        hay = [("planted", b"x" * 5 + raw + b"y" * 5)]
        assert found_in(hay, [(what, form, raw)]) == {what: {form: "planted"}}


def test_without_secure_aggregation_the_same_search_finds_update_and_counts(benches, tmp_path):
    run, known = run_with_plants(benches["none"], tmp_path)
    found = found_in(run.coordinators_view(), things_of(run, known))
    assert "f4<" in found["update"]
    assert "i8<" in found["counts"]
    assert set(found) == {"update", "counts"}  # loss and F1 leave in neither case


def test_with_masks_of_zeros_the_same_search_finds_the_packed_levels(
    benches, tmp_path, monkeypatch
):
    """What keeps the levels out of the coordinator's view is the masks, and nothing else."""
    monkeypatch.setattr("common.secagg.pipeline.add_piece_", lambda *_: None)
    monkeypatch.setattr("common.secagg.coordinator.add_masks_", lambda *_: None)
    run, known = run_with_plants(benches["secure"], tmp_path)
    found = found_in(run.coordinators_view(), things_of(run, known))
    assert "packed" in found["levels"]
    assert "u4<" in found["counts"]


def test_no_reply_of_a_study_with_secure_aggregation_has_a_body(secure):
    from common.wire import decode_reply

    run, _ = secure
    replies = [decode_reply(reply) for _, reply in run.replies]
    assert {reply.kind for reply in replies} == {"hello", "sum", "train", "evaluate"}
    assert all(reply.body == b"" for reply in replies)
    assert all(reply.facts == {} for reply in replies if reply.kind != "hello")
