"""A federation as provisioned, run by real processes through the gate: TLS and node keys."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from common.io.certificate_files import create_node_key
from common.io.processes import free_port
from scripts.cli import app
from server.run_dir import RunDir
from tests.integration.test_processes import THREE, Command, _simulated
from tests.integration.test_server_killed import private_study

LIMIT_S = 480.0
FEDERATION = """\
federation: northern
study: study.yaml
server: {{names: [localhost], addresses: [127.0.0.1], port: {port}, listen: 127.0.0.1}}
"""


def fedner(*arguments: object) -> str:
    """A verb in this process, which must succeed."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


class Provisioned:
    """`fedner provision --demo`, each kit completed as its institution would."""

    def __init__(self, folder: Path, study_text: str):
        folder.mkdir()
        self.folder, self.fed, self.run = folder, folder / "fed", RunDir(folder / "run")
        (folder / "study.yaml").write_text(study_text)
        (folder / "FEDERATION.yaml").write_text(FEDERATION.format(port=free_port()))
        fedner("provision", folder / "FEDERATION.yaml", "--out", self.fed, "--demo")
        fedner("data", "deal", folder / "study.yaml", "--out", folder / "dealt")
        self.sites = [self._complete(name) for name in THREE]

    def _complete(self, name: str) -> Path:
        """Data, policy and pin into the site file that the kit has."""
        kit, dealt = self.fed / "sites" / name, self.folder / "dealt" / name
        for side in ("train.jsonl", "test.jsonl"):
            shutil.copy(dealt / side, kit / side)
        site = yaml.safe_load((kit / "site.yaml").read_text())
        like = yaml.safe_load((dealt / "site.yaml").read_text())
        del like["policy"]["roster_sha256"]
        site |= {"data": like["data"], "policy": like["policy"], "threads": 1}
        (kit / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False))
        said = fedner("roster", "pin", kit / "roster.yaml", kit / "site.yaml")
        pin = next(line for line in said.splitlines() if "roster_sha256:" in line)
        site["policy"]["roster_sha256"] = pin.split(":")[1].strip()
        (kit / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False))
        fedner("roster", "pin", kit / "roster.yaml", kit / "site.yaml")
        return kit / "site.yaml"

    def serve(self) -> Command:
        where = ("--federation", str(self.fed), "--out", str(self.run.path))
        return Command(self.folder / "server.log", "server", str(self.fed / "study.yaml"), *where)

    def client(self, site: Path) -> Command:
        return Command(site.parent / "client.log", "client", str(site))


def finish(server: Command, others: list[Command]) -> int:
    """The server's exit code; what lies below everybody is remembered."""
    deadline = time.monotonic() + LIMIT_S
    while server.process.poll() is None and time.monotonic() < deadline:
        for command in (server, *others):
            command.look()
        time.sleep(0.2)
    return server.await_end(1.0)


@pytest.fixture
def tmp_path(tmp_path_factory):
    """A folder with a name so short that a site's socket fits below it."""
    return tmp_path_factory.mktemp("f")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_provisioned_federation_runs_through_the_gate_to_the_simulations_model(
    tiny_study, tmp_path
):
    """Secure aggregation, noise with an insecure seed; a stranger with a key of its own beside."""
    text = private_study(tiny_study, THREE)
    made = Provisioned(tmp_path / "real", text)
    stranger = tmp_path / "stranger"
    shutil.copytree(made.sites[0].parent, stranger)
    shutil.rmtree(stranger / "node")
    create_node_key(stranger / "node")
    commands = [made.serve()]
    try:
        commands += [made.client(site) for site in (*made.sites, stranger / "site.yaml")]
        code = finish(commands[0], commands[1:])
        texts = [command.text for command in commands]
        assert code == 0, texts[0]
    finally:
        for command in commands:
            command.destroy()
    server, *clients, outside = texts
    assert "DEMO FEDERATION" in server
    assert "over TLS at localhost:" in server
    assert "NO TLS" not in "".join(texts)
    assert "Traceback" not in "".join(texts)
    assert all("own rounding" in client for client in clients)
    assert "own rounding" not in outside
    assert "supernode ended with" in outside
    joined = [(e["name"], e["state"]) for e in made.run.events("institution")]
    assert sorted(joined) == sorted((name, "joined") for name in THREE)
    assert commands[0].left() == []
    one = made.run.load_delta()[0]
    other = _simulated(text, tmp_path).load_delta()[0]
    assert np.abs(one).max() > 1e-3
    assert one.tobytes() == other.tobytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_server_goes_on_over_tls_with_nodes_registered_anew(tiny_study, tmp_path):
    text = private_study(tiny_study, THREE)
    made = Provisioned(tmp_path / "real", text)
    first = made.serve()
    commands = [first, *(made.client(site) for site in made.sites)]
    try:
        deadline = time.monotonic() + LIMIT_S
        while not made.run.events("round"):
            assert time.monotonic() < deadline, first.text
            first.look()
            time.sleep(0.1)
        before = (made.run.path / "nodes.json").read_text()
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        resumed = Command(tmp_path / "again.log", "server", "--resume", str(made.run.path))
        commands.append(resumed)
        assert finish(resumed, commands[1:4]) == 0, resumed.text
        said = "".join(command.text for command in commands)
    finally:
        for command in commands:
            command.destroy()
    assert "over TLS at localhost:" in resumed.text
    assert "NO TLS" not in said
    assert "Traceback" not in said
    assert first.left() == []
    assert (made.run.path / "nodes.json").read_text() != before
    other = _simulated(text, tmp_path).load_delta()[0]
    assert made.run.load_delta()[0].tobytes() == other.tobytes()
