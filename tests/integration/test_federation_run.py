"""A federation as provisioned, run by real processes through the gate: TLS and node keys."""

import shutil

import numpy as np
import pytest

from common.io.certificate_files import create_node_key
from scripts.benchmarks._stage import Stage
from tests.integration.test_processes import THREE, _simulated
from tests.integration.test_server_killed import private_study


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
    with Stage(tmp_path / "real", text) as stage:
        stranger = tmp_path / "stranger"
        shutil.copytree(stage.sites[THREE[0]].parent, stranger)
        shutil.rmtree(stranger / "node")
        create_node_key(stranger / "node")
        server = stage.serve()
        stage.start()
        stage.sites["stranger"] = stranger / "site.yaml"
        stage.start("stranger")
        assert stage.finish() == 0, server.text
        texts = {name: client.text for name, client in stage.clients.items()}
    outside = texts.pop("stranger")
    assert "DEMO FEDERATION" in server.text
    assert "over TLS at localhost:" in server.text
    assert "NO TLS" not in "".join([server.text, outside, *texts.values()])
    assert "Traceback" not in "".join([server.text, outside, *texts.values()])
    assert all("own rounding" in client for client in texts.values())
    assert "own rounding" not in outside
    assert "supernode ended with" in outside
    joined = [(e["name"], e["state"]) for e in stage.run.events("institution")]
    assert sorted(joined) == sorted((name, "joined") for name in THREE)
    assert server.left() == []
    one = stage.run.load_delta()[0]
    other = _simulated(text, tmp_path).load_delta()[0]
    assert np.abs(one).max() > 1e-3
    assert one.tobytes() == other.tobytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_server_goes_on_over_tls_with_nodes_registered_anew(tiny_study, tmp_path):
    text = private_study(tiny_study, THREE)
    with Stage(tmp_path / "real", text) as stage:
        first = stage.serve()
        stage.start()
        stage.await_event("round")
        before = (stage.run.path / "nodes.json").read_text()
        stage.kill_server()
        assert stage.serve() is not first
        assert stage.finish() == 0, first.text
        said = "".join(command.text for command in stage.commands)
    assert said.count("over TLS at localhost:") == 2
    assert "NO TLS" not in said
    assert "Traceback" not in said
    assert first.left() == []
    assert (stage.run.path / "nodes.json").read_text() != before
    other = _simulated(text, tmp_path).load_delta()[0]
    assert stage.run.load_delta()[0].tobytes() == other.tobytes()
