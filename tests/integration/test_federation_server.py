"""`fedner server --federation`: what it looks at, and refuses, before a process is started."""

import datetime
import json
import shutil
import socket
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.config.deployment import deployment_yaml, parse_deployment
from common.errors import ConfigError, FederationError, IdentityError, UsageError
from common.io.configs import load_site, load_study
from common.io.processes import free_port
from scripts.cli import app
from server.federation import Federation
from server.nodes import keep_owners, owners_of
from server.origin import Origin
from server.run_dir import RunDir
from server.superlink import behind_gate, on_loopback

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
FEDERATION = """\
federation: northern
study: study.yaml
server: {{names: [localhost], addresses: [127.0.0.1], port: {port}, listen: 127.0.0.1}}
"""


def fedner(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def made(tiny_study, tmp_path_factory):
    """A folder with FEDERATION.yaml, study.yaml and what `--demo` makes of them."""
    folder = tmp_path_factory.mktemp("provisioned")
    text = tiny_study(
        federation=f"{{institutions: [{', '.join(NAMES)}], quorum: 3}}", secure_aggregation="{}"
    )
    (folder / "study.yaml").write_text(text)
    (folder / "FEDERATION.yaml").write_text(FEDERATION.format(port=free_port()))
    done = fedner("provision", folder / "FEDERATION.yaml", "--out", folder / "fed", "--demo")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def fed(made, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(made / "fed", tmp_path / "fed")
    return tmp_path / "fed"


def opened(fed: Path, now: datetime.datetime = NOW) -> Federation:
    return Federation.open(fed, load_study(fed / "study.yaml"), now)


def serve(fed: Path, *more: object):
    return fedner("server", fed / "study.yaml", "--federation", fed,
                  "--out", fed.parent / "run", *more)  # fmt: skip


def test_what_was_provisioned_can_be_served(fed, made):
    found = opened(fed)
    assert found.root == fed
    assert found.demo
    assert found.notices == ()
    asked = parse_deployment((made / "FEDERATION.yaml").read_text(), "F")
    assert found.deployment.server == asked.server
    assert parse_deployment(deployment_yaml(asked), "F") == asked


def test_the_kits_site_files_name_authority_and_node(fed):
    for name in NAMES:
        kit = fed / "sites" / name
        site = load_site(kit / "site.yaml")
        assert (site.authority, site.node) == ("ca.crt", "node")
        assert (kit / site.authority).is_file()
        assert (kit / site.node / "node.key").is_file()


def test_certificates_that_end_are_told_and_ended_ones_refused(fed):
    assert "server.crt expires" in " ".join(opened(fed, NOW + 160 * DAY).notices)
    with pytest.raises(IdentityError, match="expired on"):
        opened(fed, NOW + 181 * DAY)


def test_a_key_that_others_can_read_is_refused_and_no_run_begins(fed):
    (fed / "server" / "link.key").chmod(0o640)
    error = serve(fed).exception
    assert isinstance(error, IdentityError)
    assert "others than its owner" in error.message
    assert not (fed.parent / "run").exists()


def test_a_certificate_without_a_name_that_is_served_is_refused(fed):
    path = fed / "federation.yaml"
    path.write_text(path.read_text().replace("localhost", "elsewhere.example"))
    with pytest.raises(IdentityError, match="not elsewhere"):
        opened(fed)


def test_a_folder_that_is_no_federations_is_refused(fed, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copy(fed / "study.yaml", tmp_path / "empty")
    error = serve(tmp_path / "empty").exception
    assert isinstance(error, ConfigError)
    assert "--renew" in error.remedy
    path = fed / "federation.yaml"
    path.write_text(path.read_text().replace("federation: northern", "federation: southern"))
    assert isinstance(serve(fed).exception, IdentityError)


def test_a_renewal_takes_the_new_port_and_refuses_another_federations_file(fed, made, tmp_path):
    shutil.copy(made / "study.yaml", tmp_path / "study.yaml")
    (tmp_path / "F.yaml").write_text(FEDERATION.format(port=1234))
    renew = ("provision", tmp_path / "F.yaml", "--out", fed, "--renew", "--no-passphrase")
    assert fedner(*renew).exit_code == 0
    assert opened(fed).deployment.server.port == 1234
    assert "DEMO" in (fed / "federation.yaml").read_text()
    (tmp_path / "F.yaml").write_text(FEDERATION.format(port=1).replace("northern", "southern"))
    assert "not southern" in fedner(*renew).exception.message


def test_who_is_not_enrolled_is_named_and_too_few_are_refused(fed):
    study = fed / "study.yaml"
    assert fedner("enrol", "leave", NAMES[0], "--federation", fed).exit_code == 0
    with pytest.raises(FederationError, match=f"not enrolled: {NAMES[0]}; 2 are, .* requires 3"):
        opened(fed)
    content = yaml.safe_load(study.read_text())
    content["secure_aggregation"] = "none"
    content["federation"]["quorum"] = 2
    study.write_text(yaml.safe_dump(content, sort_keys=False))
    (said,) = opened(fed).notices
    assert f"not enrolled: {NAMES[0]}" in said


def test_without_a_roster_a_secure_study_is_not_served(fed):
    (fed / "roster.yaml").unlink()
    error = serve(fed).exception
    assert isinstance(error, UsageError)
    assert "enrol list" in error.remedy


def test_an_address_beside_a_federation_is_refused(fed):
    assert isinstance(serve(fed, "--address", "127.0.0.1:1").exception, UsageError)


def test_a_public_port_that_is_taken_is_told_before_flower_starts(fed):
    found = opened(fed)
    taken = socket.create_server(("127.0.0.1", found.deployment.server.port))
    with taken, pytest.raises(FederationError, match="public socket can't be opened"):
        behind_gate(found)


def test_flowers_own_port_is_on_loopback_with_tls_and_node_authentication(fed):
    found = opened(fed)
    link = behind_gate(found)
    command = " ".join(link.command)
    assert f"server.gate 127.0.0.1 {found.deployment.server.port}" in command
    assert f"--host 127.0.0.1 --port {link.port}" in command
    assert link.port != found.deployment.server.port
    assert "--enable-supernode-auth" in command
    assert "--insecure" not in command
    assert "insecure" not in link.connection
    assert f'root-certificates = "{fed}/server/ca.crt"' in link.connection


def test_without_a_federation_only_this_machine_is_served():
    link = on_loopback("127.0.0.1:9192")
    assert link.federation is None
    with pytest.raises(ConfigError, match="--federation") as caught:
        on_loopback("192.0.2.1:9192")
    assert "not on this machine" in caught.value.message


# --- going on with a run


@pytest.fixture
def begun(fed):
    """A run folder as a server with a federation leaves it when it is killed early."""
    study = load_study(fed / "study.yaml")
    run = RunDir.create(fed.parent / "run", (fed / "study.yaml").read_text())
    Origin.of(study, None, "localhost:9192", str(fed)).save(run)
    run.set_status("running")
    return run


def test_a_run_with_a_federation_goes_on_with_it_and_nothing_else(begun, fed):
    given = fedner("server", "--resume", begun.path, "--federation", fed).exception
    assert isinstance(given, UsageError)
    elsewhere = fedner("server", "--resume", begun.path, "--address", "127.0.0.1:1").exception
    assert isinstance(elsewhere, UsageError)
    assert "began with --federation" in elsewhere.message
    (fed / "server" / "server.key").unlink()
    assert isinstance(fedner("server", "--resume", begun.path).exception, IdentityError)


def test_a_serverapp_knows_whose_node_is_whose_or_does_not_start(begun):
    with pytest.raises(FederationError, match="missing or damaged"):
        owners_of(begun)
    keep_owners(begun, {2**63 + 1: "north", 5: "south"})
    assert owners_of(begun) == {2**63 + 1: "north", 5: "south"}
    (begun.path / "nodes.json").write_text("[1]")
    with pytest.raises(FederationError, match="missing or damaged"):
        owners_of(begun)
    (begun.path / "origin.json").unlink()
    with pytest.raises(UsageError):
        owners_of(begun)


def test_a_run_on_loopback_has_no_owners(begun):
    path = begun.path / "origin.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"federation": ""}))
    assert owners_of(begun) is None
