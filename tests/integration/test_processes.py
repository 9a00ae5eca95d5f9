"""Real processes on loopback: `fedner server`, two `fedner client`s, Flower between them."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from common.config.load import parse_study
from common.io.models import load_model
from common.io.processes import free_port
from scripts.benchmarks._stage import Command
from scripts.cli import app
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir
from tests import tiny

LIMIT_S = 240.0


class Federation:
    """One server and its clients on a study dealt out by `fedner data deal`."""

    def __init__(self, folder: Path, study_text: str, names: tuple[str, ...] = tiny.INSTITUTIONS):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        (folder / "study.yaml").write_text(study_text)
        address = f"127.0.0.1:{free_port()}"
        deal = ["data", "deal", f"{folder}/study.yaml", "--out", f"{folder}/f"]
        done = CliRunner().invoke(app, [*deal, "--coordinator", address])
        assert done.exit_code == 0, done.output
        self.run = RunDir(folder / "run")
        sites = [folder / "f" / name / "site.yaml" for name in names]
        dealt = folder / "f"
        keys = ["--identity", f"{dealt}/coordinator", "--roster", f"{dealt}/roster.yaml"]
        secure = (dealt / "roster.yaml").exists()
        study = str(folder / "f" / "study.yaml")
        self.server = Command(
            folder / "server.log",
            "server",
            study,
            "--address",
            address,
            "--out",
            str(self.run.path),
            *(keys if secure else ()),
        )
        self.clients = [Command(site.parent / "client.log", "client", str(site)) for site in sites]

    @property
    def commands(self) -> list[Command]:
        return [self.server, *self.clients]

    def await_event(self, kind: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not self.run.events(kind):
            for command in self.commands:
                assert command.process.poll() is None, command.text
                command.look()
            assert time.monotonic() < deadline, self.server.text
            time.sleep(0.05)

    def finish(self) -> int:
        """The server's exit code; meanwhile the clients are looked at, too."""
        deadline = time.monotonic() + LIMIT_S
        while self.server.process.poll() is None and time.monotonic() < deadline:
            for command in self.commands:
                command.look()
            time.sleep(0.1)
        return self.server.await_end(1.0)

    def close(self) -> None:
        for command in self.commands:
            command.destroy()
        shutil.rmtree(self.folder / "run" / "flower", ignore_errors=True)


def _simulated(study_text: str, folder: Path) -> RunDir:
    study = parse_study(study_text, "study.yaml")
    bench = Bench.of(study, folder)
    run = RunDir.create(folder / "simulated", study_text)
    simulate(bench, run, bench.model("cpu"))
    return run


def _check_equal(run: RunDir, simulated: RunDir) -> None:
    one, other = run.load_delta()[0], simulated.load_delta()[0]
    assert np.allclose(one, other, atol=1e-6)
    assert np.abs(one).max() > 1e-3
    for kind in ("start", "round", "evaluation"):
        own = {"time": "", "seconds": 0, "coordinator_key": ""}
        pair = [[{**e, **own} for e in r.events(kind)] for r in (run, simulated)]
        assert pair[0] == pair[1]


@pytest.fixture(scope="module")
def finished(tiny_study, tmp_path_factory):
    """A federation whose server is done, its clients still there; and its simulation."""
    folder = tmp_path_factory.mktemp("p")
    text = tiny_study()
    federation = Federation(folder / "real", text)
    try:
        code = federation.finish()
        yield federation, code, _simulated(text, folder)
    finally:
        federation.close()


def test_processes_give_the_same_model_as_the_simulation(finished):
    federation, code, simulated = finished
    assert code == 0, federation.server.text
    assert federation.run.status()["state"] == "finished"
    _check_equal(federation.run, simulated)
    assert simulated.events("evaluation")[-1]["f1"] > 0.05
    delta, _ = federation.run.load_delta()
    saved = load_model(federation.run.path / "model", "cpu")
    assert saved.layout.size == delta.size


PRIVATE = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 2, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic, insecure_seed: 7}"
)


def test_private_processes_give_the_simulations_model_and_charge_their_ledgers(
    tiny_study, tmp_path
):
    """With an insecure seed, which alone makes two runs comparable."""
    text = tiny_study(
        privacy=PRIVATE,
        model="{train: full, dropout: 0}",
        training="{rounds: 2, learning_rate: 5e-3, precision: float32}",
    )
    federation = Federation(tmp_path / "real", text)
    try:
        assert federation.finish() == 0, federation.server.text
    finally:
        federation.close()
    simulated = _simulated(text, tmp_path)
    _check_equal(federation.run, simulated)
    sites = [tmp_path / "real" / "f" / name / "site.yaml" for name in tiny.INSTITUTIONS]
    for site in sites:
        shown = CliRunner().invoke(app, ["budget", "show", str(site), "--json"])
        assert shown.exit_code == 0, shown.output
        (unit,) = json.loads(shown.output)["units"]
        assert unit["unit"] == "patient"
        assert 5 < unit["epsilon"]["pld"] <= 6
        (own,) = (site.parent / "state" / "figures").glob("*/metrics.jsonl")
        spent = [
            e["epsilon"]
            for e in map(json.loads, own.read_text().splitlines())
            if e["event"] == "reply"
        ]
        assert spent == sorted(spent)
        assert spent[-1] == unit["epsilon"]["pld"]
        assert federation.run.events("round")[-1]["epsilon"] == pytest.approx(spent[-1])


THREE = (*tiny.INSTITUTIONS, "general-hospital")


@pytest.mark.slow
def test_processes_with_secure_aggregation_give_the_simulations_model(tiny_study, tmp_path):
    """Under mechanism `local` with an insecure seed: rounding and noise are the same in both."""
    text = tiny_study(
        privacy=PRIVATE,
        model="{train: full, dropout: 0}",
        training="{rounds: 2, learning_rate: 5e-3, precision: float32}",
        federation=f"{{institutions: [{', '.join(THREE)}], deadline_s: 120}}",
        secure_aggregation="{}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )
    federation = Federation(tmp_path / "real", text, THREE)
    try:
        assert federation.finish() == 0, federation.server.text
    finally:
        federation.close()
    simulated = _simulated(text, tmp_path)
    one, other = federation.run.load_delta()[0], simulated.load_delta()[0]
    assert np.allclose(one, other, atol=1e-6)
    assert np.abs(one).max() > 1e-3
    for real, same in zip(*(r.events("round") for r in (federation.run, simulated)), strict=True):
        for key in ("survivors", "dropped", "attempts", "trips"):
            assert real["sum"][key] == same["sum"][key]
    assert [e["sum"]["trips"] for e in federation.run.events("round")] == [5, 3]
    for kind in ("f1", "entities", "tokens"):
        pair = [r.events("evaluation")[-1][kind] for r in (federation.run, simulated)]
        assert pair[0] == pair[1]
    for client in federation.clients:
        assert "own rounding" in client.text
        assert "Traceback" not in client.text


def test_a_finished_server_leaves_no_process_behind(finished):
    federation, _, _ = finished
    assert federation.server.left() == []


def test_the_terminal_says_that_there_is_no_privacy_and_one_user(finished):
    federation, _, _ = finished
    for command in federation.commands:
        assert "PRIVACY: NONE" in command.text
        assert "Traceback" not in command.text
    for client in federation.clients:
        assert "ONE USER" in client.text


def test_own_figures_and_documents_stay_with_the_institution(finished):
    federation, _, _ = finished
    for client in federation.clients:
        assert "own train" in client.text
    logs = "".join(p.read_text("utf-8", "replace") for p in federation.run.path.glob("*.log"))
    assert "own train" not in logs
    for site in (federation.folder / "f").glob("*/train.jsonl"):
        patient = site.read_text().split('"patient_id": "')[1].split('"')[0]
        assert patient not in logs + (federation.run.path / "metrics.jsonl").read_text()


def test_an_institution_has_its_own_loss_and_scores_and_the_coordinator_has_none(finished):
    federation, _, _ = finished
    held = [p.read_bytes() for p in federation.run.path.rglob("*") if p.is_file()]
    for name in tiny.INSTITUTIONS:
        (own_file,) = (federation.folder / "f" / name / "state" / "figures").glob("*/metrics.jsonl")
        lines = [json.loads(line) for line in own_file.read_text().splitlines()]
        assert [e["round"] for e in lines if e["event"] == "train"] == [1, 2]
        assert [e["asked"] for e in lines if e["event"] == "reply"].count("train") == 2
        own = [e["loss"] for e in lines if e["event"] == "train"]
        own += [e["f1"] for e in lines if e["event"] == "evaluate"]
        assert len(own) > 2
        # a half or a whole is anybody's; a number of many digits is this site's alone
        telling = [repr(value).encode() for value in own if len(repr(value)) > 8]
        assert len(telling) >= 2
        assert not any(value in content for value in telling for content in held)


def test_both_sides_can_be_watched(finished):
    federation, _, _ = finished
    name = tiny.INSTITUTIONS[0]
    site = federation.folder / "f" / name / "site.yaml"
    shown = CliRunner().invoke(app, ["watch", str(site), "--once"])
    assert shown.exit_code == 0, shown.output
    for words in ("round 2 of 2", "waits for the coordinator", "own loss per word", "exact"):
        assert words in shown.output
    shown = CliRunner().invoke(app, ["watch", str(federation.run.path)])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert f"{name}: joined" in lines
    assert lines[-1].startswith("round 2: shared model's F1 0.")


@pytest.mark.parametrize(("index", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_an_interrupted_client_ends_with_130_and_leaves_no_process(finished, index, number):
    client = finished[0].clients[index]
    below = client.look()
    assert client.process.poll() is None
    assert len(below) >= 3  # worker, supernode, relay
    client.process.send_signal(number)
    assert client.await_end(30) == 130
    assert client.left() == []
    assert "Traceback" not in client.text


def test_a_client_whose_socket_path_is_too_long_says_so(finished, tmp_path):
    site = finished[0].folder / "f" / tiny.INSTITUTIONS[0] / "site.yaml"
    text = site.read_text().replace("state: state", f"state: {tmp_path / ('x' * 100)}")
    (site.parent / "long.yaml").write_text(text)
    client = Command(tmp_path / "client.log", "client", str(site.parent / "long.yaml"))
    try:
        assert client.await_end(60) == 8, client.text
        assert "at most 107 bytes" in client.text
        assert "Traceback" not in client.text
        assert client.left() == []
    finally:
        client.destroy()


@pytest.mark.slow
def test_a_relay_killed_in_the_middle_does_not_prevent_the_finish(tiny_study, tmp_path):
    text = tiny_study(
        training="{rounds: 4, local_epochs: 8, batch_size: 4, learning_rate: 5e-3, "
        "precision: float32}"
    )
    federation = Federation(tmp_path / "real", text)
    try:
        federation.await_event("round")
        killed = [p for p in federation.clients[0].look() if "superexec" in p.cmdline()]
        assert killed
        for process in killed:
            process.send_signal(signal.SIGKILL)
        assert federation.finish() == 0, federation.server.text
        assert "relay ended with -9" in federation.clients[0].text
        _check_equal(federation.run, _simulated(text, tmp_path))
    finally:
        federation.close()
