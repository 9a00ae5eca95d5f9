"""A coordinator that dies at any stage of a round and goes on: same weights, nothing charged twice.

A crash is an exception that passes through Flower's grid and the coordinator; what goes on is a new
grid and a new coordinator, with nothing but the run's folder. Institutions live on. The same with
SIGKILL and real processes: `test_server_killed.py`.
"""

from contextlib import contextmanager

import numpy as np
import pytest

from client.app import make_app
from common.errors import FederationError
from common.io.ledger_file import LedgerFile
from common.sums import grid_of
from server.app import run_study
from server.run_dir import RunDir
from server.sums import GivenError
from tests.full_disk import FullDisk
from tests.secure_runs import RecordingGrid, Run, bench_of, federation

NAMES = ("north", "east", "south")
FEDERATION = federation(institutions=f"[{', '.join(NAMES)}]", quorum=3)
TRAINING = "{rounds: 2, local_epochs: 1, batch_size: 8, learning_rate: 5e-3, precision: float32}"
PRIVATE_TRAINING = "{rounds: 2, learning_rate: 1e-2, precision: float32}"
ADAPTIVE = "{optimizer: fedadam, learning_rate: 1e-3, average: 0.5}"
PRIVATE = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic, insecure_seed: 7}"
)
STAGES = ("advertise", "share", "mask", "sign", "open")


class CrashError(BaseException):
    """As nothing catches a SIGKILL, nothing catches this."""


class Interrupted(Run):
    """A run whose coordinator dies where a test says, and is started again."""

    names = NAMES

    def __init__(self, bench, folder, fault=None):
        super().__init__(bench, folder, fault)
        self.crashed = 0

    @contextmanager
    def institutions(self):
        for name in self.names:
            self.start(name)
        try:
            yield self
        finally:
            for session in self.sessions.values():
                session.close()

    def coordinate(self):
        """One life of the coordinator: from the folder, and to the end or to the crash."""
        grid = RecordingGrid(make_app(self._exchange_for), [{"name": n} for n in self.names], {})
        with grid:
            standing = None if self.cast is None else self.cast.standing
            run_study(grid, RunDir(self.run.path), home=self.folder / "book", standing=standing)

    def crash_once(self):
        if not self.crashed:
            self.crashed += 1
            raise CrashError

    def crash_and_resume(self):
        with self.institutions():
            with pytest.raises(CrashError):
                self.coordinate()
            self.coordinate()
        return self

    @property
    def delta(self):
        return self.run.load_delta()[0]


@pytest.fixture(scope="module")
def make(tiny_study, tmp_path_factory):
    made = {}

    def bench(**changes):
        sections = {
            "training": TRAINING,
            "model": "{train: head, dropout: 0}",
            "federation": FEDERATION,
            "aggregation": "{average: 0.5}",
        } | changes
        key = tuple(sorted(sections.items()))
        if key not in made:
            made[key] = bench_of(tiny_study, tmp_path_factory.mktemp("base"), **sections)
        return made[key]

    return bench


def undisturbed(bench, folder):
    run = Interrupted(bench, folder)
    with run.institutions():
        run.coordinate()
    return run


@pytest.fixture(scope="module")
def private(make, tmp_path_factory):
    bench = make(privacy=PRIVATE, training=PRIVATE_TRAINING, aggregation=ADAPTIVE)
    return undisturbed(bench, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def exact(make, tmp_path_factory):
    return undisturbed(make(), tmp_path_factory.mktemp("undisturbed"))


def crash_at(stage, purpose, round_, nth):
    """Dies while it sends this stage's requests: `nth` institutions have answered."""
    asked_before = []

    def fault(run, asked):
        if (asked.stage, asked.purpose, asked.round) == (stage, purpose, round_):
            if len(asked_before) == nth:
                run.crash_once()
            asked_before.append(asked.name)

    return fault


def reserves(run, name):
    with LedgerFile.open(run.state(name) / "ledger", name) as ledger:
        return sorted((r.body.purpose, r.body.round) for r in ledger.state.reserves.values())


def figures(run):
    return [(e["round"], e["f1"], e["entities"]) for e in run.run.events("evaluation")]


def check_equal(run, other):
    assert run.delta.tobytes() == other.delta.tobytes()
    assert np.abs(run.delta).max() > 1e-4
    assert figures(run) == figures(other)
    for name in NAMES:
        assert reserves(run, name) == reserves(other, name)
    assert set(run.rounded.values()) == {1}
    assert [e["round"] for e in run.run.events("round")] == [1, 2]
    assert len(run.run.events("start")) == len(run.run.events("resume")) == 1
    assert run.run.status()["state"] == "finished"


@pytest.mark.parametrize("nth", [0, 2])
@pytest.mark.parametrize("purpose", ["train", "evaluate"])
@pytest.mark.parametrize("stage", STAGES)
def test_under_dp_a_crash_at_any_stage_costs_nothing_and_the_weights_are_the_same(
    private, tmp_path, stage, purpose, nth
):
    # keys of all sums but the first travel ahead, so the first alone has these stages to itself
    round_ = 1 if stage in ("advertise", "share") and purpose == "train" else 2
    if stage in ("advertise", "share") and purpose == "evaluate":
        pytest.skip("its keys travel with the updates' signatures and shares")
    fault = crash_at(stage, purpose, round_, nth)
    run = Interrupted(private.bench, tmp_path, fault).crash_and_resume()
    check_equal(run, private)


@pytest.mark.parametrize("where", ["ledger", "ledger/vault"])
def test_a_site_whose_disk_is_full_in_one_attempt_is_in_the_next_and_is_charged_once(
    private, tmp_path, monkeypatch, where
):
    """All have to stay here; nothing is started anew."""
    name = NAMES[0]
    (tmp_path / "sites" / name / where).mkdir(parents=True, mode=0o700)
    disk = FullDisk(tmp_path / "sites" / name / where, monkeypatch)
    first = []

    def fault(_run, asked):
        if (asked.name, asked.stage, asked.purpose, asked.round) == (name, "mask", "train", 2):
            first.append(asked.attempt)
            disk.fill() if asked.attempt == first[0] else disk.clear()

    run = Interrupted(private.bench, tmp_path, fault)
    with run.institutions():
        run.coordinate()
    (refused,) = run.run.events("refusal")
    assert (refused["institution"], refused["code"]) == (name, "storage")
    assert len(run.run.events("abort")) == 1
    assert run.delta.tobytes() == private.delta.tobytes()
    assert reserves(run, name) == reserves(private, name)
    assert set(run.lives.values()) == {1}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("round_", [1, 2])
def test_under_dp_a_crash_around_the_checkpoint_costs_nothing(
    private, tmp_path, monkeypatch, where, round_
):
    run = Interrupted(private.bench, tmp_path)
    truly = RunDir.save_checkpoint

    def dying(self, optimizer, done, line, room):
        if where == "after":
            truly(self, optimizer, done, line, room)
        if done == round_:
            run.crash_once()
        if where == "before":
            truly(self, optimizer, done, line, room)

    monkeypatch.setattr(RunDir, "save_checkpoint", dying)
    check_equal(run.crash_and_resume(), private)


@pytest.mark.parametrize("event", ["round", "evaluation"])
def test_a_crash_in_the_middle_of_a_line_of_the_metrics_loses_no_line(
    private, tmp_path, monkeypatch, event
):
    run, truly = Interrupted(private.bench, tmp_path), RunDir.record

    def dying(self, kind, study, **more):
        if kind == event and not run.crashed:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write('{"event": "rou')
            run.crash_once()
        truly(self, kind, study, **more)

    monkeypatch.setattr(RunDir, "record", dying)
    check_equal(run.crash_and_resume(), private)
    (torn,) = run.run.events("torn")
    assert torn["bytes"] == len('{"event": "rou')
    assert (run.run.path / "metrics.torn").read_text() == '{"event": "rou\n'


def test_a_coordinator_that_dies_again_and_again_comes_to_the_same_end(private, tmp_path):
    dead = set()

    def fault(_run, asked):
        if asked.stage and asked not in dead and asked.attempt < 4 and asked.name == NAMES[1]:
            dead.add(asked)
            raise CrashError

    run, lives = Interrupted(private.bench, tmp_path, fault), 0
    with run.institutions():
        while run.run.status()["state"] != "finished":
            lives += 1
            assert lives < 60
            try:
                run.coordinate()
            except CrashError:
                continue
    assert lives > 8
    assert run.delta.tobytes() == private.delta.tobytes()
    for name in NAMES:
        assert reserves(run, name) == reserves(private, name)


# --- without noise: a vector is given once


@pytest.mark.parametrize(
    ("stage", "round_", "nth"),
    [
        ("advertise", 1, 2),
        ("share", 1, 1),
        ("mask", 1, 0),
        ("mask", 2, 0),
    ],
)
def test_without_noise_a_crash_before_any_vector_left_changes_nothing(
    exact, tmp_path, stage, round_, nth
):
    fault = crash_at(stage, "train", round_, nth)
    run = Interrupted(exact.bench, tmp_path, fault).crash_and_resume()
    check_as_given_once(run, exact)


def test_without_noise_a_crash_after_the_checkpoint_changes_nothing(exact, tmp_path, monkeypatch):
    run, truly = Interrupted(exact.bench, tmp_path), RunDir.save_checkpoint

    def dying(self, *line):
        truly(self, *line)
        run.crash_once()

    monkeypatch.setattr(RunDir, "save_checkpoint", dying)
    check_as_given_once(run.crash_and_resume(), exact)


def check_as_given_once(run, exact):
    """Rounding is by fresh secret bytes, so two runs differ by the grid's step alone."""
    assert set(run.rounded.values()) == {1}
    assert len(run.rounded) == 2 * len(NAMES)
    one = dict(run.run.events("round")[0]["sum"])
    assert one["survivors"] == list(NAMES)
    gap = np.abs(run.delta - exact.delta)
    assert np.median(gap) <= 2 * grid_of(run.study).step
    assert [e["round"] for e in run.run.events("evaluation")] == [1, 2]


@pytest.mark.parametrize(("stage", "nth"), [("mask", 1), ("sign", 0), ("open", 2)])
@pytest.mark.parametrize("round_", [1, 2])
def test_without_noise_a_crash_with_vectors_under_way_ends_with_what_happened_and_the_remedy(
    exact, tmp_path, stage, nth, round_
):
    fault = crash_at(stage, "train", round_, nth)
    run = Interrupted(exact.bench, tmp_path, fault)
    with run.institutions():
        with pytest.raises(CrashError):
            run.coordinate()
        with pytest.raises(GivenError) as caught:
            run.coordinate()
    assert "asked for already" in caught.value.message
    assert "say that theirs were given" in caught.value.message
    assert "bear no noise of their own" in caught.value.message
    assert "begin a new study" in caught.value.remedy
    assert "asked for already" in run.run.status()["message"]
    assert set(run.rounded.values()) == {1}
    refusals = run.run.events("refusal")
    assert {e["asked"] for e in refusals} == {"sum"}
    gave = {e["institution"] for e in refusals if e["code"] == "spent"}
    assert len(gave) == (nth if stage == "mask" else len(NAMES))


@pytest.mark.parametrize("stage", ["sign", "open"])
def test_exact_counts_lost_in_a_crash_are_recorded_as_missing_and_the_study_goes_on(
    exact, tmp_path, stage
):
    fault = crash_at(stage, "evaluate", 1, 1)
    run = Interrupted(exact.bench, tmp_path, fault).crash_and_resume()
    (missing,) = run.run.events("evaluation_missing")
    assert missing["round"] == 1
    assert "say that theirs were given" in missing["reason"]
    assert [e["round"] for e in run.run.events("evaluation")] == [2]
    assert [e["round"] for e in run.run.events("round")] == [1, 2]
    assert run.run.status()["state"] == "finished"


# --- without secure aggregation


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("round_", [1, 2])
def test_without_secure_aggregation_a_crash_changes_no_weight(make, tmp_path, kind, round_):
    bench = make(secure_aggregation="none")

    def fault(run, asked):
        if (asked.kind, asked.round, asked.name) == (kind, round_, NAMES[1]):
            run.crash_once()

    run = Interrupted(bench, tmp_path / "crashed", fault).crash_and_resume()
    other = undisturbed(bench, tmp_path / "undisturbed")
    assert run.delta.tobytes() == other.delta.tobytes()
    assert figures(run) == figures(other)


# --- what is not gone on with


def test_a_model_that_is_not_the_runs_is_refused(exact, tmp_path):
    run = Interrupted(exact.bench, tmp_path, crash_at("mask", "train", 2, 0))
    with run.institutions():
        with pytest.raises(CrashError):
            run.coordinate()
        path = run.run.path / "metrics.jsonl"
        path.write_text(path.read_text().replace('"initial": "', '"initial": "f'))
        with pytest.raises(FederationError, match="when the run began: initial"):
            run.coordinate()


def test_a_damaged_checkpoint_or_attempts_file_is_refused(exact, tmp_path):
    run = Interrupted(exact.bench, tmp_path, crash_at("mask", "train", 2, 0))
    with run.institutions():
        with pytest.raises(CrashError):
            run.coordinate()
        for name in ("checkpoint.npz", "attempts.json"):
            path = run.run.path / name
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(FederationError, match="damaged") as caught:
                run.coordinate()
            assert name in caught.value.place
            path.write_bytes(whole)
