"""All that reaches the coordinator in a run: its messages, its log, its disk. One institution's own
update, counts and loss are in none of it, in no form; without secure aggregation the same search
finds them.
"""

import base64
from types import SimpleNamespace

import numpy as np
import pytest

from client.rounding import Rounding
from client.session import Session
from client.work import Work
from common.config.canonical import study_yaml
from common.config.load import parse_study
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel
from common.secagg.packing import unpack
from common.sums import counts_of_sum, grid_of
from common.wire import counts_to_bytes
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir
from server.sums import SecureSums

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
VICTIM = NAMES[1]
LOSS = 0.7310585786
CLIP = 0.25


def planted_update(size):
    """Values that nothing else gives."""
    return np.random.default_rng(4242).uniform(-CLIP / 2, CLIP / 2, size).astype(np.float32)


def planted_counts(size):
    return np.arange(size, dtype=np.int64) * 10_007 + 123_457


def run(tiny_study, folder, section):
    """A study of one round, the victim's figures planted; all that was seen and done."""
    text = tiny_study(
        federation=f"{{institutions: [{', '.join(NAMES)}], deadline_s: 60}}",
        training="{rounds: 1, local_epochs: 1, batch_size: 8, learning_rate: 5e-3, "
        "precision: float32}",
        secure_aggregation=section,
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )
    study = parse_study(text, "study.yaml")
    seen = SimpleNamespace(study=study, replies=[], packed={}, totals=[], updates={}, counts={})
    handle, update, rounded = Session.handle, Work._update, Rounding.round
    counted, summed, fit = Work._exact_counts, SecureSums.sum, NerModel.fit
    with pytest.MonkeyPatch.context() as patch:

        def spy_handle(self, data):
            reply = handle(self, data)
            seen.replies.append((self._party.name, reply))
            return reply

        def spy_update(self, before):
            found = update(self, before)
            name = self._party.name
            seen.updates[name] = planted_update(len(found)) if name == VICTIM else found
            return seen.updates[name]

        def spy_counts(self, request):
            found = np.frombuffer(counted(self, request), "<i8")
            name = self._party.name
            seen.counts[name] = planted_counts(len(found)) if name == VICTIM else found
            return counts_to_bytes(seen.counts[name])

        def spy_round(self, round_, values, keys):
            packed = rounded(self, round_, values, keys)
            name = next(n for n, u in seen.updates.items() if u is values)
            seen.packed[name] = packed
            return packed

        def spy_sum(self, *arguments):
            seen.totals.append(summed(self, *arguments))
            return seen.totals[-1]

        patch.setattr(Session, "handle", spy_handle)
        patch.setattr(Work, "_update", spy_update)
        patch.setattr(Work, "_exact_counts", spy_counts)
        patch.setattr(Rounding, "round", spy_round)
        patch.setattr(SecureSums, "sum", spy_sum)
        patch.setattr(NerModel, "fit", lambda *a, **k: (fit(*a, **k), LOSS)[1])
        bench = Bench.of(study, folder)
        seen.run = RunDir.create(folder / "run", study_yaml(study))
        seen.run.log_here()
        simulate(bench, seen.run, bench.model("cpu"))
    return seen


@pytest.fixture(scope="module")
def secure(tiny_study, tmp_path_factory):
    return run(tiny_study, tmp_path_factory.mktemp("secure"), f"{{clip: {CLIP}}}")


@pytest.fixture(scope="module")
def plain(tiny_study, tmp_path_factory):
    return run(tiny_study, tmp_path_factory.mktemp("plain"), "none")


def view(seen):
    """Every byte that the coordinator has: the institutions' replies, and what it wrote."""
    files = [
        path.read_bytes()
        for path in sorted(seen.run.path.rglob("*"))
        if path.is_file() and "sites" not in path.relative_to(seen.run.path).parts
    ]
    assert len(files) >= 4  # study, metrics, checkpoint, log
    return b"\0".join([*(reply for _, reply in seen.replies), *files])


def written(raw):
    """Bytes as they are, in hexadecimal, and in base64 at each of its three offsets."""
    yield raw
    yield raw.hex().encode()
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + raw)[4:-4]


def forms(seen):
    """By what it is: all forms of the victim's own figures."""
    update, counts = planted_update(len(seen.updates[VICTIM])), seen.counts[VICTIM]
    places = [0, 501, len(update) - 9]
    found = {
        "update": [update[p : p + 4].tobytes() for p in places],
        "counts": [counts[i : i + 2].tobytes() for i in range(0, len(counts) - 1, 7)]
        + [counts[i : i + 4].astype(np.uint32).tobytes() for i in range(0, len(counts) - 3, 7)],
        "loss": [np.float32(LOSS).tobytes() + np.float32(LOSS).tobytes()],
    }
    if VICTIM in seen.packed:
        section, packed = seen.study.secure, seen.packed[VICTIM]
        levels = unpack(packed, len(update), section.bits)
        found["levels"] = [levels[p : p + 4].tobytes() for p in places]
        found["packed"] = [packed[p : p + 16] for p in places]
    made = {what: {form for raw in raws for form in written(raw)} for what, raws in found.items()}
    made["update"] |= {repr(float(v))[:9].encode() for v in update[:50] if abs(v) > 1e-3}
    made["counts"] |= {str(count).encode() for count in counts}
    made["loss"] |= {str(LOSS)[:7].encode(), np.float64(LOSS).tobytes()}
    return made


def hits(seen):
    everything = view(seen)
    return {what: [f for f in some if f in everything] for what, some in forms(seen).items()}


def test_no_form_of_one_institutions_figures_reaches_the_coordinator(secure):
    found = hits(secure)
    assert set(found) == {"update", "counts", "loss", "levels", "packed"}
    assert not any(found.values()), found


def test_the_same_search_finds_them_without_secure_aggregation(plain):
    found = hits(plain)
    assert found["update"]
    assert found["counts"]


def test_the_search_finds_every_form_that_is_there(secure):
    everything = view(secure)
    for what, some in forms(secure).items():
        assert len(some) >= 3, what
        for form in some:
            assert form in everything + form


def test_the_total_is_the_integer_sum_of_the_quantised_updates(secure):
    updates, counts = secure.totals
    bits, size = secure.study.secure.bits, len(secure.updates[VICTIM])
    vectors = [unpack(packed, size, bits).astype(np.uint64) for packed in secure.packed.values()]
    assert len(vectors) == len(NAMES)
    assert np.array_equal(updates.values, sum(vectors) % (1 << bits))
    assert np.array_equal(counts_of_sum(counts.values), sum(secure.counts.values()))


def test_the_model_is_that_of_a_run_without_it_up_to_quantisation(secure, plain):
    step = grid_of(secure.study).step
    one, other = secure.run.load_delta()[0], plain.run.load_delta()[0]
    assert np.abs(one).max() > 100 * step
    clipped = max(np.abs(u).max() for u in plain.updates.values()) > CLIP
    assert not clipped
    assert np.abs(one - other).max() < step


def test_the_evaluation_is_that_of_the_summed_counts(secure):
    (event,) = secure.run.events("evaluation")
    labels = secure.study.task.labels
    total = Evaluation(labels, sum(secure.counts.values()))
    assert event["f1"] == total.f1
    assert event["institutions"] == sorted(NAMES)


def test_metrics_state_survivors_attempts_trips_bytes_and_seconds(secure):
    (event,) = secure.run.events("round")
    assert event["sum"]["survivors"] == list(NAMES)
    assert (event["sum"]["dropped"], event["sum"]["attempts"], event["sum"]["trips"]) == ([], 1, 5)
    assert set(event["sum"]["stage_seconds"]) == {"advertise", "share", "mask", "sign", "open"}
    assert event["sum"]["bytes_up"] == event["bytes_up"] > 0
    (event,) = secure.run.events("evaluation")
    assert event["sum"]["trips"] == 3
