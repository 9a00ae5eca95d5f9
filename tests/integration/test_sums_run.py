"""A whole study of one round: the sum is that of what institutions rounded, the model that of a run
without secure aggregation up to a step, and the metrics say what it took.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from client.rounding import Rounding
from client.work import Work
from common.config.canonical import study_yaml
from common.config.load import parse_study
from common.metrics.evaluation import Evaluation
from common.secagg.packing import unpack
from common.sums import counts_of_sum, grid_of
from common.wire import counts_to_bytes
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir
from server.sums import SecureSums

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
VICTIM = NAMES[1]
CLIP = 0.25


def planted_update(size):
    """Values that nothing else gives."""
    return np.random.default_rng(4242).uniform(-CLIP / 2, CLIP / 2, size).astype(np.float32)


def planted_counts(size):
    return np.arange(size, dtype=np.int64) * 10_007 + 123_457


def run(tiny_study, folder, section):
    """A study of one round, the victim's figures planted; all that was summed."""
    text = tiny_study(
        federation=f"{{institutions: [{', '.join(NAMES)}], deadline_s: 60}}",
        training="{rounds: 1, local_epochs: 1, batch_size: 8, learning_rate: 5e-3, "
        "precision: float32}",
        secure_aggregation=section,
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )
    study = parse_study(text, "study.yaml")
    seen = SimpleNamespace(study=study, packed={}, totals=[], updates={}, counts={})
    update, rounded = Work._update, Rounding.round
    counted, summed = Work._exact_counts, SecureSums.sum
    with pytest.MonkeyPatch.context() as patch:

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
            total = summed(self, *arguments)
            seen.totals.append(replace(total, values=total.values.copy()))  # it is scaled in place
            return total

        patch.setattr(Work, "_update", spy_update)
        patch.setattr(Work, "_exact_counts", spy_counts)
        patch.setattr(Rounding, "round", spy_round)
        patch.setattr(SecureSums, "sum", spy_sum)
        bench = Bench.of(study, folder)
        seen.run = RunDir.create(folder / "run", study_yaml(study))
        simulate(bench, seen.run, bench.model("cpu"))
    return seen


@pytest.fixture(scope="module")
def secure(tiny_study, tmp_path_factory):
    return run(tiny_study, tmp_path_factory.mktemp("secure"), f"{{clip: {CLIP}}}")


@pytest.fixture(scope="module")
def plain(tiny_study, tmp_path_factory):
    return run(tiny_study, tmp_path_factory.mktemp("plain"), "none")


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
