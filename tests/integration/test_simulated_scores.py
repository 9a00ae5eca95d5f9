"""What a simulation records of each institution: the parts add up to what all together have."""

import pytest

from common.io.configs import load_study
from scripts.baselines import train_alone
from scripts.simulated_scores import scores_at_home
from scripts.simulation import Bench
from server.run_dir import RunDir
from tests import tiny


@pytest.fixture(scope="module")
def run(simulated_run):
    return RunDir.open(simulated_run)


@pytest.fixture(scope="module")
def bench(simulated_run):
    folder = simulated_run.parent
    return Bench.of(load_study(folder / "study.yaml"), folder)


def test_documents_patients_and_entities_are_those_of_the_bench(run, bench):
    (event,) = run.events("simulated_data")
    assert list(event["institutions"]) == list(tiny.INSTITUTIONS)
    for name, sides in bench.sides.items():
        said = event["institutions"][name]
        for side, documents in (("train", sides.train), ("held_out", sides.test)):
            assert said[side]["documents"] == len(documents)
            assert said[side]["patients"] == len({d.patient_id for d in documents})
            assert sum(said[side]["entities"].values()) == sum(len(d.entities) for d in documents)


def test_institutions_scores_add_up_to_the_shared_models(run):
    parts = run.events("simulated_evaluation")
    assert [e["institution"] for e in parts] == list(tiny.INSTITUTIONS)
    whole = run.events("evaluation")[-1]["entities"]
    for label in ("Disease", "Symptom", "Medication", "micro"):
        rows = [e["entities"][label] for e in parts]
        right = sum(r["recall"] * r["support"] for r in rows)
        assert sum(r["support"] for r in rows) == whole[label]["support"]
        assert right == pytest.approx(whole[label]["recall"] * whole[label]["support"])
    assert len({e["f1"] for e in parts}) == 2


def test_the_interval_is_of_the_shared_model_and_its_patients(run, bench):
    (event,) = run.events("simulated_interval")
    assert event["f1"] == pytest.approx(run.events("evaluation")[-1]["f1"])
    assert event["entities"]["micro"]["f1"] == event["f1"]
    assert 0 <= event["low"] < event["f1"] < event["high"] <= 1
    assert (event["unit"], event["units"]) == (
        "patient",
        len({d.patient_id for d in bench.all_test}),
    )


def test_who_trained_alone_is_scored_at_home_too(run, bench):
    baselines = {e["trained_by"]: e for e in run.events("baseline")}
    assert set(baselines) == {*tiny.INSTITUTIONS, "pooled"}
    assert "own" not in baselines["pooled"]
    name = tiny.INSTITUTIONS[1]
    model = bench.model("cpu")
    train_alone(bench, model, name)
    evaluation = model.evaluate(model.prepare(bench.sides[name].test))
    own, all_ = (
        r["entities"]["micro"]["support"] for r in (baselines[name]["own"], baselines[name])
    )
    assert baselines[name]["own"]["f1"] == pytest.approx(evaluation.f1)
    assert own == evaluation.entity_report()["micro"].support < all_
    assert scores_at_home(bench, model, "pooled") == {}
