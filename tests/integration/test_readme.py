"""The roles' commands of README.md, as they are typed there, up to `fedner doctor` at both."""

import shutil
import subprocess

import pytest
import yaml
from typer.testing import CliRunner

from common.io.processes import free_port
from scripts.benchmarks._namespaces_text import replaced
from scripts.cli import app
from scripts.kit_texts import NEW_PASSPHRASE
from server.limits import Limits
from tests.commands import typed
from tests.documented import blocks as blocks_of
from tests.gates import opened
from tests.pages import ROOT, Page

PAGE = Page(ROOT / "README.md")
NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
NAME = "cardiac-centre"
FEDERATION = """\
federation: northern
study: study.yaml
server: {{names: [localhost], addresses: [127.0.0.1], port: {port}, listen: 127.0.0.1}}
"""
POLICY = {"accept_one_user": True, "min_cohort": 3, "accept_privacy_none": True}


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Types one line in a party's folder; its end and what it printed."""

    def run(party, line):
        folder = tmp_path / party
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        if not line.startswith("fedner "):
            return subprocess.run(["bash", "-euc", line], check=True, capture_output=True).stdout
        (command,) = typed(f"```\n{line}\n```")
        done = CliRunner().invoke(app, command.words, input="y\n" * len(NAMES))
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
        return done.output

    return run


def blocks(party):
    """Lines of README's blocks of one party, block by block."""
    requests = " ".join(f"{name}.json" for name in NAMES)
    words = {"REQUEST.json": requests, "--federation NAME": "--federation northern"}
    found = replaced(blocks_of(PAGE), words, "README.md")
    return [block.text.splitlines() for block in found if block.party == party]


def until_start(lines):
    for line in lines:
        if line.startswith(("fedner server ", "fedner client ")):
            return
        yield line


def adapt(site, pin, coordinator):
    """What a person does to the kit's site file."""
    content = yaml.safe_load(site.read_text())
    content["data"] = {"all": {"format": "jsonl", "path": "notes.jsonl"},
                       "split": {"test": 0.2, "key": "of-this-site-alone"}}  # fmt: skip
    content["policy"] = {**POLICY, "roster_sha256": pin}
    content["coordinator"] = coordinator
    site.write_text(yaml.safe_dump(content, sort_keys=False))


def test_the_roles_commands_of_the_readme_lead_to_a_doctor_without_complaint(
    at, tiny_study, tmp_path
):
    made, approved, served = blocks("coordinator")
    asked, compared, looked = blocks("institution")
    (tmp_path / "coordinator").mkdir()
    federation = tmp_path / "coordinator" / "federation"
    text = tiny_study(federation=f"{{institutions: [{', '.join(NAMES)}]}}", secure_aggregation="{}")
    (tmp_path / "coordinator" / "study.yaml").write_text(text)
    (tmp_path / "coordinator" / "FEDERATION.yaml").write_text(FEDERATION.format(port=free_port()))
    for line in made:
        at("coordinator", line)
    for name in NAMES:
        shutil.copytree(federation / "sites" / name, tmp_path / name)
        for line in asked:
            at(name, line)
        shutil.copy(tmp_path / name / "request.json", tmp_path / "coordinator" / f"{name}.json")
    for line in [*approved, *until_start(served)]:
        at("coordinator", line)
    site = tmp_path / NAME / "site.yaml"
    shutil.copy(federation / "roster.yaml", site.parent / "roster.yaml")
    said = [at(NAME, line) for line in compared]
    at(
        "records",
        f"fedner data synth --out {tmp_path}/notes --institutions 1 --patients 8 --seed 1",
    )
    shutil.copy(tmp_path / "notes" / "hospital-1.jsonl", site.parent / "notes.jsonl")
    pin = next(line.split()[-1] for line in said[-1].splitlines() if "roster_sha256:" in line)
    with opened(federation / "server", Limits()) as door:
        adapt(site, pin, f"127.0.0.1:{door.port}")
        said = [at(NAME, line) for line in until_start(looked)]
    assert "0 failed" in said[-1]
    assert "sealed; opens with" in said[-1]


def test_the_readme_makes_a_passphrase_as_the_kits_say():
    for party in ("coordinator", "institution"):
        assert NEW_PASSPHRASE in [line.split("  ")[0] for line in blocks(party)[0]]
