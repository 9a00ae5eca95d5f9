"""`fedner provision` and `fedner enrol` as their users meet them, on real files."""

import datetime
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from client.supervisor import check_runnable
from common.config.canonical import study_hash
from common.config.load import parse_roster
from common.errors import FederationError, IdentityError, PolicyError
from common.io.atomic import write_bytes
from common.io.certificate_files import (
    create_authority,
    create_server,
    expiry_notices,
    open_authority,
    read_certificate,
    renew_server,
    require_server,
)
from common.io.configs import load_site, load_study
from common.io.register_file import read_register
from common.io.standing import site_identity
from scripts import cli
from scripts.doctor.keys import node_keys
from scripts.kit_texts import DEMO_ONE_USER, NEW_PASSPHRASE
from server.nodes import register_nodes
from tests.commands import fault, mentioned, typed

CONFIGS = Path(__file__).parents[2] / "configs"
FEDERATION = """\
federation: northern
study: study.yaml
server: {names: [fl.example.org], addresses: [192.0.2.10]}
"""
WORDS = "correct horse battery"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def fedner(monkeypatch, capsys, tmp_path):
    """Runs `fedner` in this process, in a folder with a FEDERATION.yaml."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(CONFIGS / "quickstart.yaml", tmp_path / "study.yaml")
    (tmp_path / "FEDERATION.yaml").write_text(FEDERATION)
    (tmp_path / "words").write_text(WORDS + "\n")
    (tmp_path / "words").chmod(0o600)

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["fedner", *map(str, arguments)])
        capsys.readouterr()
        left = 0
        try:
            cli.main()
        except SystemExit as leave:
            left = leave.code or 0
        said = capsys.readouterr()
        text = " ".join((said.out + said.err).split())
        assert left == code, text
        assert "Traceback" not in text
        return text

    return run


@pytest.fixture
def provisioned(fedner, tmp_path):
    fedner("provision", "FEDERATION.yaml", "--out", "fed", "--no-passphrase")
    return tmp_path / "fed"


def names(folder):
    return load_study(folder / "study.yaml").federation.institutions


def private_files(folder):
    """Files that hold a private key, however named."""
    marks = (b"PRIVATE KEY", b"fedner private key", b"fedner authority key")
    files = [p for p in folder.rglob("*") if p.is_file()]
    return [p for p in files if any(mark in p.read_bytes() for mark in marks)]


def ask(fedner, folder, name, *, place=None):
    """An institution's part, in a copy of what it was sent."""
    site = place or folder.parent / f"at-{name}"
    if not site.exists():
        shutil.copytree(folder / "sites" / name, site)
        kept = [line for line in (site / "site.yaml").read_text().splitlines(keepends=True)
                if not line.startswith("passphrase_file:")]  # fmt: skip
        (site / "site.yaml").write_text("".join(kept))
    fedner("enrol", "request", site / "site.yaml", "--federation", "northern",
           "--out", site / "request.json", "--no-passphrase")  # fmt: skip
    return site / "request.json"


def test_what_institutions_are_sent_holds_no_private_key_and_parses(provisioned):
    for name in names(provisioned):
        kit = provisioned / "sites" / name
        assert {p.name for p in kit.iterdir()} == {"ca.crt", "study.yaml", "site.yaml",
                                                   "README.txt"}  # fmt: skip
        assert load_site(kit / "site.yaml").institution == name
        assert study_hash(load_study(kit / "study.yaml")) == study_hash(
            load_study(Path("study.yaml"))
        )
        assert "DEMO" not in "".join(p.read_text() for p in kit.iterdir())
    found = {str(p.relative_to(provisioned)) for p in private_files(provisioned)}
    assert found == {"authority/authority.key", "server/server.key", "server/link.key",
                     "coordinator/private.key"}  # fmt: skip


def test_private_keys_are_their_owners_alone(provisioned):
    for path in private_files(provisioned):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_server_starts_with_what_was_provisioned_and_not_with_anothers(provisioned):
    server = provisioned / "server"
    require_server(server, ("fl.example.org", "192.0.2.10"), NOW)
    with pytest.raises(IdentityError, match="not elsewhere"):
        require_server(server, ("elsewhere",), NOW)
    with pytest.raises(IdentityError, match="expired"):
        require_server(server, (), NOW + 181 * DAY)
    shutil.copy(server / "link.key", server / "server.key")
    with pytest.raises(IdentityError, match=r"is not of server\.key"):
        require_server(server, (), NOW)
    (server / "server.key").chmod(0o640)
    with pytest.raises(IdentityError, match="others than its owner"):
        require_server(server, (), NOW)


def test_nothing_is_overwritten(provisioned, fedner):
    said = fedner("provision", "FEDERATION.yaml", "--out", "fed", "--no-passphrase", code=2)
    assert "is there already" in said


def test_what_is_broken_off_leaves_no_folder_and_can_be_given_again(fedner, tmp_path, monkeypatch):
    gives = ("provision", "FEDERATION.yaml", "--out", "deep/fed", "--no-passphrase")

    def broken_off(*_):
        raise OSError(5, "broken off")

    with monkeypatch.context() as patch:
        patch.setattr("scripts.verbs.provision.site_text", broken_off)
        fedner(*gives, code=1)
    assert not list((tmp_path / "deep").iterdir())
    assert "deep/fed/README.txt" in fedner(*gives)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["fed"]
    assert stat.S_IMODE((tmp_path / "deep" / "fed").stat().st_mode) == 0o700


def test_keys_can_have_a_passphrase_and_renewal_needs_it(fedner, tmp_path):
    fedner("provision", "FEDERATION.yaml", "--out", "fed", "--passphrase-file", "words")
    said = fedner("provision", "FEDERATION.yaml", "--out", "fed", "--renew", "--no-passphrase",
                  code=10)  # fmt: skip
    assert "needs its passphrase" in said
    fedner("provision", "FEDERATION.yaml", "--out", "fed", "--renew", "--passphrase-file", "words")
    assert WORDS not in "".join(p.read_text() for p in (tmp_path / "fed").rglob("*") if p.is_file())


def instructions(folder):
    kits = [folder / "sites" / name for name in names(folder)]
    return [(place / "README.txt").read_text() for place in (folder, *kits)]


@pytest.mark.parametrize("how", [("--no-passphrase",), ("--passphrase-file", "words"), ("--demo",)])
def test_every_command_of_the_instructions_is_one_that_the_command_line_takes(
    fedner, tmp_path, how
):
    fedner("provision", "FEDERATION.yaml", "--out", "fed", *how)
    for text in instructions(tmp_path / "fed"):
        found = [*typed(text, markdown=False), *mentioned(text.replace("stop `fedner client`", ""))]
        assert len(found) >= 5
        assert [why for _, words in found if (why := fault(words))] == []
    coordinators = instructions(tmp_path / "fed")[0]
    sealed = coordinators.count("--passphrase-file passphrase")
    assert sealed == (3 if how[0] == "--passphrase-file" else 0)  # doctor, server, --renew


def test_the_kit_asks_for_its_passphrase_file_and_says_how_to_make_it(provisioned, fedner):
    kit = provisioned / "sites" / names(provisioned)[0]
    asks = ("enrol", "request", kit / "site.yaml", "--federation", "northern", "--out", kit / "r")
    assert "take that line out" in fedner(*asks, "--no-passphrase", code=2)
    assert NEW_PASSPHRASE in (kit / "README.txt").read_text()
    said = fedner(*asks, code=10)
    assert f"{kit}/passphrase: is not there" in said
    assert NEW_PASSPHRASE in said
    assert not (kit / "identity").exists()
    shutil.copy("words", kit / "passphrase")
    fedner(*asks)
    assert site_identity("identity", load_site(kit / "site.yaml"), kit).name == kit.name


def test_a_kit_says_how_two_users_run_it(provisioned, fedner):
    kit = provisioned / "sites" / names(provisioned)[0]
    site, text = load_site(kit / "site.yaml"), (kit / "README.txt").read_text()
    with pytest.raises(PolicyError, match="same OS user"):
        check_runnable(site, kit / "site.yaml")
    words = [" ".join(found) for _, found in typed(text, markdown=False)]
    assert "client site.yaml --side worker" in words
    assert "client relay.yaml --side relay" in words
    keys = re.findall(r"^   ((?:relay_group|socket|state): .*)", text, re.MULTILINE)
    mine = re.sub("^state:.*", "", (kit / "site.yaml").read_text(), flags=re.MULTILINE)
    (kit / "site.yaml").write_text(mine + "\n".join(keys) + "\n")
    group = load_site(kit / "site.yaml").relay_group
    assert group == "fedner-door"


def test_a_demo_kit_runs_as_one_user_without_a_passphrase(fedner, tmp_path):
    said = fedner("provision", "FEDERATION.yaml", "--out", "fed", "--demo")
    assert DEMO_ONE_USER in said
    kit = tmp_path / "fed" / "sites" / names(tmp_path / "fed")[0]
    check_runnable(load_site(kit / "site.yaml"), kit / "site.yaml")
    assert DEMO_ONE_USER in (kit / "README.txt").read_text()
    assert site_identity("identity", load_site(kit / "site.yaml"), kit).name == kit.name


def test_a_renewal_keeps_authority_and_keys_and_takes_new_names(provisioned, fedner):
    server = provisioned / "server"
    before = {p.name: p.read_bytes() for p in server.iterdir()}
    Path("FEDERATION.yaml").write_text(FEDERATION.replace("fl.example.org", "new.example.org"))
    fedner("provision", "FEDERATION.yaml", "--out", "fed", "--renew", "--no-passphrase")
    after = {p.name: p.read_bytes() for p in server.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"server.crt", "link.crt"}
    assert set(after) == set(before)
    require_server(server, ("new.example.org",), NOW)


def test_a_renewal_under_another_authority_is_refused(tmp_path):
    for name in ("one", "two"):
        create_authority(tmp_path / name, "test", None, NOW, 9)
    one, two = (open_authority(tmp_path / name, None) for name in ("one", "two"))
    create_server(tmp_path / "server", one, ("x",), NOW, 5)
    with pytest.raises(IdentityError, match="another authority"):
        renew_server(tmp_path / "server", two, ("x",), NOW, 5)


def test_notices_name_each_certificate_that_is_over_or_will_be(provisioned):
    server = provisioned / "server"
    assert expiry_notices(server, NOW) == ()
    soon = expiry_notices(server, NOW + 160 * DAY)
    assert [Path(n.split(" expires")[0]).name for n in soon] == ["link.crt", "server.crt"]
    assert len(expiry_notices(server, NOW + 1826 * DAY)) == 3


def test_institutions_ask_and_the_coordinator_never_holds_their_keys(provisioned, fedner):
    before = set(private_files(provisioned))
    for name in names(provisioned):
        asked = ask(fedner, provisioned, name)
        assert "PRIVATE" not in asked.read_text()
        said = fedner("enrol", "approve", asked, "--federation", "fed", "--compared")
        assert f"{name} is enrolled" in said
    assert set(private_files(provisioned)) == before
    roster = parse_roster((provisioned / "roster.yaml").read_text(), "roster")
    assert roster.names == names(provisioned)
    for name in names(provisioned):
        assert (provisioned / "sites" / name / "roster.yaml").is_file()
        assert (provisioned / "nodes" / f"{name}.pub").is_file()
    assert roster.sha256 in said


def test_a_second_request_has_the_same_keys(provisioned, fedner):
    name = names(provisioned)[0]
    first = ask(fedner, provisioned, name)
    text = first.read_text()
    first.unlink()
    assert ask(fedner, provisioned, name).read_text() == text


def test_a_divided_site_makes_no_second_node_key(provisioned, fedner):
    name = names(provisioned)[0]
    first = ask(fedner, provisioned, name)
    site, text = first.parent, first.read_text()
    (site / "relay").mkdir()
    (site / "node").rename(site / "relay" / "node")
    keys = ("node:", "authority:", "state:")
    kept = [line for line in (site / "site.yaml").read_text().splitlines(keepends=True)
            if not line.startswith(keys)]  # fmt: skip
    divided = f"relay_group: door\nsocket: /run/fedner/{name}/socket\nstate: state\n"
    (site / "site.yaml").write_text("".join(kept) + divided)
    asks = ("enrol", "request", site / "site.yaml", "--federation", "northern",
            "--out", site / "again.json", "--no-passphrase")  # fmt: skip
    assert "A second request" in fedner(*asks, code=2)
    assert not (site / "node").exists()
    shutil.copytree(site / "relay" / "node", site / "node")  # as docs/deployment.md says
    assert "add to" not in fedner(*asks)
    assert (site / "again.json").read_text() == text


def test_without_a_persons_yes_nobody_is_enrolled(provisioned, fedner, monkeypatch):
    asked = ask(fedner, provisioned, names(provisioned)[0])
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert "is not enrolled" in fedner("enrol", "approve", asked, "--federation", "fed", code=2)
    assert not read_register(provisioned).approved


def test_a_changed_request_is_refused(provisioned, fedner):
    asked = ask(fedner, provisioned, names(provisioned)[0])
    content = json.loads(asked.read_text())
    asked.write_text(json.dumps(content | {"name": names(provisioned)[1]}))
    said = fedner("enrol", "approve", asked, "--federation", "fed", "--compared", code=10)
    assert "not signed" in said


def enrol_all(fedner, folder):
    """Requests of all, by name, approved."""
    asked = {name: ask(fedner, folder, name) for name in names(folder)}
    fedner("enrol", "approve", *asked.values(), "--federation", "fed", "--compared")
    return asked


def enrolled_files(folder):
    found = [*folder.glob("nodes/*"), *folder.glob("revoked/*"), *folder.rglob("roster.yaml")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_approving_again_mends_node_keys_and_roster_as_the_server_and_the_doctor_say(
    provisioned, fedner
):
    asked = enrol_all(fedner, provisioned)
    before, nodes = enrolled_files(provisioned), provisioned / "nodes"
    first, second = names(provisioned)[:2]
    (nodes / f"{first}.pub").unlink()
    shutil.copy(asked[first], nodes / f"{second}.pub")
    (nodes / f".{second}.pub.0123").touch()  # of a write that a crash broke off
    (provisioned / "roster.yaml").unlink()
    with pytest.raises(FederationError) as refused:
        register_nodes(None, provisioned, "fedner")
    assert "`fedner enrol approve`" in refused.value.remedy
    assert "approve the requests again" in node_keys(provisioned).remedy
    said = fedner("enrol", "list", "--federation", "fed", code=10)
    assert "roster.yaml: is not there" in said
    said = fedner("enrol", "approve", asked[second], "--federation", "fed")
    assert f"{second} is enrolled with these keys already" in said
    assert enrolled_files(provisioned) == before
    assert node_keys(provisioned).state == "ok"
    shutil.rmtree(nodes)  # the register alone came back from a copy
    fedner("enrol", "approve", asked[first], "--federation", "fed")
    assert enrolled_files(provisioned) == before


@pytest.mark.parametrize(
    ("verb", "state", "crash"),
    [("revoke", "revoked", "write_roster"), ("leave", "left", "write_register")],
)
def test_an_end_that_a_crash_broke_off_is_finished_by_another(
    provisioned, fedner, monkeypatch, verb, state, crash
):
    enrol_all(fedner, provisioned)
    first = names(provisioned)[0]
    ends = ("enrol", verb, first, "--federation", "fed", "--why", "laptop stolen")

    def broken_off(folder, register, *_):
        write_bytes(folder / "register.json", register.to_bytes())
        raise OSError(5, "broken off")

    with monkeypatch.context() as patch:
        patch.setattr(f"scripts.verbs.enrol.{crash}", broken_off)
        fedner(*ends, code=1)
    assert len(list(provisioned.rglob("roster.yaml"))) == 1 + len(names(provisioned))
    said = fedner(*ends)
    assert f"{first}: {state}; a running server refuses its node already" in said
    assert not list(provisioned.rglob("roster.yaml"))
    assert not (provisioned / "nodes" / f"{first}.pub").exists()
    assert len(list((provisioned / "revoked").iterdir())) == 1
    assert len(read_register(provisioned).entries) == len(names(provisioned))


@pytest.mark.parametrize("verb", ["revoke", "leave"])
def test_who_is_revoked_or_leaves_has_no_node_key_and_there_is_no_roster(provisioned, fedner, verb):
    first = names(provisioned)[0]
    for name in names(provisioned):
        asked = ask(fedner, provisioned, name)
        fedner("enrol", "approve", asked, "--federation", "fed", "--compared")
    fedner("enrol", verb, first, "--federation", "fed", "--why", "laptop stolen")
    assert not (provisioned / "nodes" / f"{first}.pub").exists()
    assert not list(provisioned.rglob("roster.yaml"))
    said = fedner("enrol", "list", "--federation", "fed")
    assert "laptop stolen" in said
    assert f"not enrolled: {first};" in said
    asked = provisioned.parent / f"at-{first}" / "request.json"
    fedner("enrol", "approve", asked, "--federation", "fed", "--compared", code=10)


def test_a_demo_says_so_in_every_file_that_a_person_reads(fedner, tmp_path):
    said = fedner("provision", "FEDERATION.yaml", "--out", "demo", "--demo")
    assert "DEMO FEDERATION" in said
    demo = tmp_path / "demo"
    read = [p for p in demo.rglob("*") if p.suffix in {".txt", ".yaml"}]
    assert len(read) > 10
    for path in read:
        assert "DEMO FEDERATION" in path.read_text(), path
    for path in demo.rglob("ca.crt"):
        assert "DEMO" in read_certificate(path).subject.rfc4514_string()
    assert read_register(demo).demo
    assert "DEMO" in fedner("enrol", "list", "--federation", "demo")
    for name in names(demo):
        assert (demo / "sites" / name / "node" / "node.key").is_file()
        assert load_site(demo / "sites" / name / "site.yaml").institution == name


def test_the_node_key_is_one_that_openssh_knows(provisioned, fedner):
    name = names(provisioned)[0]
    folder = ask(fedner, provisioned, name).parent / "node"
    assert (folder / "node.key").read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert (folder / "node.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
    assert stat.S_IMODE(os.stat(folder / "node.key").st_mode) == 0o600


def test_only_keys_of_the_signed_register_are_registered(fedner, tmp_path):
    fedner("provision", "FEDERATION.yaml", "--out", "demo", "--demo")
    demo, calls = tmp_path / "demo", []
    (demo / "nodes" / "stranger.pub").write_text("x")

    def flwr(*arguments):
        calls.append(arguments)
        text = f'done\n{{"success": true, "node-id": {len(calls)}}}\n'
        return subprocess.CompletedProcess(arguments, 0, text, "")

    found = register_nodes(flwr, demo, "fedner")
    assert tuple(found.values()) == names(demo)
    assert [Path(c[2]).stem for c in calls] == list(names(demo))

    def refuses(*arguments):
        return subprocess.CompletedProcess(arguments, 1, "no", "")

    with pytest.raises(FederationError, match="did not register"):
        register_nodes(refuses, demo, "fedner")
    first = demo / "nodes" / f"{names(demo)[0]}.pub"
    shutil.copy(demo / "nodes" / f"{names(demo)[1]}.pub", first)
    with pytest.raises(FederationError, match="not the node key in the register"):
        register_nodes(flwr, demo, "fedner")


def test_show_prints_what_is_compared(provisioned, fedner):
    site = provisioned / "sites" / names(provisioned)[0]
    said = fedner("enrol", "show", site / "ca.crt")
    told = said.split("fingerprint ")[1].strip()
    assert len(told.split()) == 8
    assert told in " ".join((site / "README.txt").read_text().split())
