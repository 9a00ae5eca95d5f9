"""Commands of README and docs/, as they are typed, on the samples with a tiny encoder.

Which block is run by what: `tests.documented`.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.io.processes import free_port
from scripts.cli import app
from tests import tiny
from tests.commands import typed
from tests.documented import blocks, staged
from tests.pages import ROOT, pages

SITE = "federation/cardiac-centre"


def shrunk(name, encoder):
    """A sample on a tiny encoder and few notes, with nothing else changed but sizes."""
    study = yaml.safe_load((ROOT / "configs" / name).read_text("utf-8"))
    weights = tiny.sha256(encoder / "model.safetensors")
    study["encoder"] = {"name": str(encoder), "weights_sha256": weights}
    study["text"] = {"max_tokens": 48, "overlap_tokens": 8}
    study["training"]["rounds"] = 1
    study["simulation"]["synthetic"].update(patients_per_institution=12, notes_per_patient=[1, 2])
    if study["privacy"] != "none":
        study["federation"]["evaluate_every"] = 1
        study["privacy"].update(declared_units=100, delta=1e-3)
    return yaml.safe_dump(study, sort_keys=False)


@pytest.fixture
def stage(tiny_encoder, monkeypatch):
    """A folder with the samples; its path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="fd-") as folder:
        configs = Path(folder) / "configs"
        configs.mkdir()
        for name in ("quickstart.yaml", "quickstart-private.yaml"):
            (configs / name).write_text(shrunk(name, tiny_encoder))
        monkeypatch.chdir(folder)
        yield Path(folder)
        monkeypatch.undo()


def run(line, words):
    """Type one line; what it printed."""
    for old, new in words.items():
        line = line.replace(old, new)
    (command,) = typed(f"```\nfedner {line.removeprefix('fedner ')}\n```")
    done = CliRunner().invoke(app, command.words)
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
    if not Path("runs/RUN").exists() and Path("runs").exists():
        (made,) = Path("runs").iterdir()
        Path("runs/RUN").symlink_to(made.name)
    return done.output


def words_of_the_ledger(folder):
    """What stands for a ledger's key and head."""
    lines = (folder / "ledger.jsonl").read_bytes().splitlines()
    opened = json.loads(lines[0])["body"]
    head = f"{opened['ledger']}:{len(lines)}:{hashlib.sha256(lines[-1]).hexdigest()}"
    return {"LEDGER:SEQ:HASH": head, "KEY": opened["public_key"]}


def test_what_stands_in_blocks_of_a_shell_runs(stage):
    lines = [line for page in pages() for line in staged(page)]
    assert len(lines) > 6
    said = {line: run(line, {}) for line in lines if line.strip()}
    (predicted,) = (said[line] for line in said if "--text" in line)
    assert "metoprolol" in predicted
    assert list(Path("annotated").glob("*.ann"))


def test_a_relays_doctor_looks_at_its_side_without_complaint(stage):
    """`fedner doctor relay.yaml --side relay`, where server and worker listen."""
    Path("door").mkdir()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as worker,
    ):
        worker.bind("door/socket")
        worker.listen()
        relay = {
            "institution": "north", "state": "state", "socket": "door/socket",
            "coordinator": f"127.0.0.1:{server.getsockname()[1]}",
        }  # fmt: skip
        Path("relay.yaml").write_text(yaml.safe_dump(relay))
        assert "0 failed" in run("doctor relay.yaml --side relay", {})


@pytest.mark.slow
def test_what_stands_in_slow_blocks_of_a_shell_runs(stage):
    lines = [line for page in pages() for block in blocks(page) if block.party == "slow"
             for line in block.text.splitlines()]  # fmt: skip
    assert len(lines) > 2
    for line in lines:
        ledger = Path("runs/private/sites/cardiac-centre/ledger")
        said = run(line, words_of_the_ledger(ledger) if ledger.exists() else {})
    assert said


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_roles_on_one_machine_and_what_an_auditor_does_with_what_they_left(stage):
    (script,) = (block.text for page in pages() for block in blocks(page)
                 if block.party == "one-machine")  # fmt: skip
    shutil.copy("configs/quickstart-private.yaml", "configs/quickstart.yaml")
    address = f"127.0.0.1:{free_port()}"
    for begins, option in (("data deal", "--coordinator"), ("server", "--address")):
        assert script.count(f"fedner {begins} ") == 1
        script = script.replace(f"fedner {begins} ", f"fedner {begins} {option} {address} ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-uc", script], env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True, text=True, timeout=1000,
    )  # fmt: skip
    assert "micro" in done.stdout, done.stdout + done.stderr
    head = run(f"log verify {SITE}/state/audit.jsonl", {}).split("head")[-1].split()[0]
    events = [json.loads(line) for line in Path("runs/RUN/metrics.jsonl").read_text().splitlines()]
    (started,) = (event for event in events if event["event"] == "start")
    words = {
        "SITE": SITE, "COORDINATOR_KEY": started["coordinator_key"],
        **words_of_the_ledger(Path(SITE) / "state" / "ledger"),
    }  # fmt: skip
    lines = [line for page in pages() for block in blocks(page) if block.party == "auditor"
             for line in block.text.splitlines()]  # fmt: skip
    assert len(lines) > 10
    for line in lines:
        run(line, {"LOG:SEQ:HASH": head, **words})


def _installed():
    """Whether `scripts/env.sh` would find nothing to install."""
    stamp = ROOT / ".venv" / ".installed"
    made_of = b"".join((ROOT / name).read_bytes() for name in ("constraints.txt", "pyproject.toml"))
    return stamp.exists() and stamp.read_text().split()[0] == hashlib.sha256(made_of).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not _installed(), reason="this environment is not that of scripts/env.sh")
def test_the_quickstart_leads_from_an_empty_home_to_a_model_with_the_real_encoder(tmp_path):
    home = {"PYTHONPATH": str(ROOT), "FEDNER_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["scripts/quickstart", "--no-alone", "--out", str(tmp_path / "run")],
        cwd=ROOT, env={**os.environ, **home}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "micro" in done.stdout
    assert (tmp_path / "home" / "encoders" / "all-minilm-l6-v2").is_dir()
    model = json.loads((tmp_path / "run" / "model" / "fedner.json").read_text())
    assert model["notices"]
