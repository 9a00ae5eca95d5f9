"""A whole study in this process: what is recorded, and that the model is what it says it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context
from safetensors.numpy import load_file
from typer.testing import CliRunner

from client.app import make_app
from client.session import Session
from common.config.canonical import study_hash, study_yaml
from common.config.load import parse_study
from common.config.site import Policy
from common.errors import FederationError
from common.io.flower_internals import LocalGrid
from common.io.models import load_model, save_model
from common.privacy.notice import WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION
from common.wire import Request, decode_reply, encode, vector_from_bytes, vector_to_bytes
from scripts.cli import app
from scripts.simulation import Bench, simulate
from server.app import run_study
from server.run_dir import RunDir
from tests import tiny

ROUNDS = 2


class Simulated:
    """One finished simulation with all that it left."""

    def __init__(self, text, folder):
        self.study = parse_study(text, "study.yaml")
        self.bench = Bench.of(self.study, folder)
        self.run = RunDir.create(folder / "run", study_yaml(self.study))
        self.model = self.bench.model("cpu")
        self.steps = []
        simulate(self.bench, self.run, self.model, on_step=lambda *step: self.steps.append(step))
        save_model(self.model, self.bench.encoder_dir, self.run.path / "model", {})
        self.delta, self.last_round = self.run.load_delta()


@pytest.fixture(scope="module")
def simulated(tiny_study, tmp_path_factory):
    return Simulated(tiny_study(), tmp_path_factory.mktemp("simulated"))


def test_every_round_and_evaluation_is_recorded_in_order(simulated):
    events = simulated.run.events()
    joined, events = events[:2], events[2:]
    assert [(e["event"], e["state"]) for e in joined] == [("institution", "joined")] * 2
    assert {e["name"] for e in joined} == set(tiny.INSTITUTIONS)
    assert [(e["event"], e.get("round")) for e in events] == [
        ("start", None),
        ("round", 1),
        ("evaluation", 1),
        ("round", 2),
        ("evaluation", 2),
    ]
    for event in events:
        assert event["study_sha256"] == study_hash(simulated.study)
        assert (event["privacy"], event["secure_aggregation"]) == ("none", "none")
        if event["event"] != "start":
            assert event["institutions"] == sorted(tiny.INSTITUTIONS)
    assert simulated.run.status() == {"state": "finished", "message": ""}
    assert {name for name, _, _ in simulated.steps} == set(tiny.INSTITUTIONS)


def test_the_recorded_f1_is_the_shared_models_on_all_held_out_documents(simulated):
    last = simulated.run.events("evaluation")[-1]
    model = load_model(simulated.run.path / "model", "cpu")
    evaluation = model.evaluate(model.prepare(simulated.bench.all_test))
    assert last["f1"] == evaluation.f1 > 0.05
    assert last["entities"]["micro"]["support"] == sum(
        len(d.entities) for d in simulated.bench.all_test
    )


def test_the_saved_weights_are_the_initial_ones_plus_the_checkpoints_delta(simulated):
    initial = simulated.bench.model("cpu").initial
    assert simulated.last_round == ROUNDS
    assert np.abs(simulated.delta).max() > 1e-3
    saved = load_model(simulated.run.path / "model", "cpu")
    assert saved.initial.tobytes() == (initial + simulated.delta).tobytes()
    weights = load_file(simulated.run.path / "model" / "model.safetensors")
    flat = [weights[name].reshape(-1) for name in saved.layout.names]
    assert np.concatenate(flat).tobytes() == saved.initial.tobytes()


def test_the_delta_is_the_mean_of_the_institutions_updates_round_by_round(simulated):
    """The same study by hand: sessions, bytes, and plain addition."""
    study, model = simulated.study, simulated.bench.model("cpu")
    sessions = [
        simulated.bench.session(name, model, simulated.run.path) for name in tiny.INSTITUTIONS
    ]
    delta = np.zeros_like(simulated.delta)
    for round_ in range(1, ROUNDS + 1):
        request = Request(
            kind="train", study=study_hash(study), round=round_, body=vector_to_bytes(delta)
        )
        replies = [decode_reply(session.handle(encode(request))) for session in sessions]
        updates = [vector_from_bytes(reply.body, delta.size) for reply in replies]
        assert not np.array_equal(*updates)
        delta = delta + (updates[0] + updates[1]) * np.float32(0.5)
    assert np.allclose(delta, simulated.delta, atol=1e-7)


def test_the_same_study_gives_the_same_bits_twice(simulated, tiny_study, tmp_path, torch_quiet):
    torch_quiet.manual_seed(99)
    again = Simulated(tiny_study(), tmp_path)
    assert again.delta.tobytes() == simulated.delta.tobytes()
    figures = [
        [{k: v for k, v in e.items() if k not in {"seconds", "time"}} for e in s.run.events()]
        for s in (simulated, again)
    ]
    assert figures[0] == figures[1]
    content = [
        (s.run.path / "model" / "model.safetensors").read_bytes() for s in (simulated, again)
    ]
    assert content[0] == content[1]


def test_another_seed_gives_another_model(simulated, tiny_study, tmp_path):
    training = "{rounds: 1, batch_size: 4, learning_rate: 5e-3, precision: float32, seed: 2}"
    other = Simulated(tiny_study(training=training), tmp_path)
    assert other.run.events("start")[0]["study_sha256"] != study_hash(simulated.study)
    assert not np.array_equal(other.delta, simulated.delta)


def test_lora_sends_adapters_and_head_and_saves_a_plain_model(tiny_study, tmp_path):
    text = tiny_study(
        model="{train: lora, lora: {rank: 2}}",
        training="{rounds: 1, batch_size: 4, learning_rate: 1e-2, precision: float32}",
    )
    adapted = Simulated(text, tmp_path)
    (start,) = adapted.run.events("start")
    full = adapted.bench.model("cpu").layout
    assert start["dimension"] == full.size < 10_000
    assert adapted.run.events("round")[0]["bytes_up"] == 2 * 4 * full.size
    saved = load_model(tmp_path / "run" / "model", "cpu")
    assert not any("lora" in name for name in saved.layout.names)
    documents = adapted.bench.all_test
    one = saved.evaluate(saved.prepare(documents))
    other = adapted.model.evaluate(adapted.model.prepare(documents))
    assert one.counts.tolist() == other.counts.tolist()


def test_the_lack_of_privacy_is_said_wherever_a_result_is(tiny_study, tmp_path):
    (tmp_path / "study.yaml").write_text(tiny_study())
    run = tmp_path / "run"
    arguments = ["simulate", str(tmp_path / "study.yaml"), "--out", str(run)]
    result = CliRunner().invoke(app, [*arguments, "--no-alone", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.replace("│", " ").split())
    assert said.count(WITHOUT_PRIVACY) == said.count(WITHOUT_SECURE_AGGREGATION) == 2
    assert WITHOUT_PRIVACY in (run / "run.log").read_text()
    (start,) = RunDir(run).events("start")
    manifest = json.loads((run / "model" / "fedner.json").read_text())
    for said_by in (start, manifest):
        assert said_by["notices"] == [WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION]
        assert (said_by["privacy"], said_by["secure_aggregation"]) == ("none", "none")
    card = (run / "model" / "README.md").read_text()
    assert WITHOUT_PRIVACY in card
    assert WITHOUT_SECURE_AGGREGATION in card


# --- what is refused


def _run(bench, folder, change):
    """A run whose sessions are changed before it starts; the run's folder."""
    model = bench.model("cpu")
    run = RunDir.create(folder / "run", study_yaml(bench.study))
    sessions = {
        name: change(name, bench.session(name, model, folder / name)) for name in tiny.INSTITUTIONS
    }

    def exchange_for(context: Context):
        return sessions[str(context.node_config["institution"])].handle

    nodes = [{"institution": name} for name in tiny.INSTITUTIONS]
    with LocalGrid(make_app(exchange_for), nodes, {}) as grid:
        run_study(grid, run)
    return run


def _with_party(**changes):
    def change(name, session):
        if name == tiny.INSTITUTIONS[1]:
            party = replace(session._party, **changes)
            return Session(session._study, party, session._model)
        return session

    return change


def test_institutions_with_unlike_encoders_are_refused(simulated, tmp_path):
    with pytest.raises(FederationError, match="differ in: encoder") as caught:
        _run(simulated.bench, tmp_path, _with_party(encoder="0" * 64))
    assert all(name in caught.value.message for name in tiny.INSTITUTIONS)
    run = RunDir(tmp_path / "run")
    assert run.status()["state"] == "failed"
    assert {e["event"] for e in run.events()} == {"institution"}
    assert not (run.path / "checkpoint.npz").exists()


def test_an_institution_whose_policy_refuses_fails_a_study_that_needs_all(tiny_study, tmp_path):
    names = ", ".join(tiny.INSTITUTIONS)
    text = tiny_study(federation=f"{{institutions: [{names}], deadline_s: 0.5}}")
    bench = Bench.of(parse_study(text, "study.yaml"), tmp_path)
    with pytest.raises(FederationError, match="1 institutions answered, the study needs 2"):
        _run(bench, tmp_path, _with_party(policy=Policy()))
    assert RunDir(tmp_path / "run").events("round") == []


def test_a_quorum_goes_on_without_the_institution_that_refuses(tiny_study, tmp_path):
    names = ", ".join(tiny.INSTITUTIONS)
    text = tiny_study(federation=f"{{institutions: [{names}], deadline_s: 0.5, quorum: 1}}")
    bench = Bench.of(parse_study(text, "study.yaml"), tmp_path)
    run = _run(bench, tmp_path, _with_party(policy=Policy()))
    assert [e["institutions"] for e in run.events("round")] == [[tiny.INSTITUTIONS[0]]] * ROUNDS
