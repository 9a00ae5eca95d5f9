"""`fedner doctor` at both roles, with real keys, certificates, sockets, data and ledgers.

Each is spoilt in turn: the check that looks at it fails, with a remedy.
"""

import datetime
import json
import os
import shutil
import socket
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from common.config.load import parse_site
from common.errors import ConfigError, FederationError, IdentityError
from common.io.certificate_files import create_authority, create_server, open_authority
from common.io.configs import load_site, load_study
from common.io.identity_files import create
from common.io.ledger_file import LedgerFile
from common.io.processes import free_port
from common.io.vault import Vault, VaultName
from scripts.cli import app
from scripts.doctor import clock, coordinator, institution, keys, network, study, tls
from scripts.doctor.checks import carry_out
from scripts.doctor.network import Route
from scripts.verbs import doctor
from server.limits import Limits
from server.receipts import ReceiptBook
from tests.audits import open_log, reply
from tests.gates import opened
from tests.ledgers import charge

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")
NAME = "cardiac-centre"
PHRASE = "five words of no meaning"
PRIVATE = (
    "{mechanism: local, unit: patient, noise_multiplier: 1.0, delta: 1e-3, clip: 0.5, "
    "sampling_rate: 0.5, steps_per_round: 1, declared_units: 8, evaluation: exact, "
    "settings_from: synthetic}"
)
FEDERATION = """\
federation: northern
study: study.yaml
server: {{names: [localhost], addresses: [127.0.0.1], port: {port}, listen: 127.0.0.1}}
"""
verb = typer.Typer()
verb.command()(doctor.command)


def fedner(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def asked(*arguments):
    """What the verb prints, as JSON, and its exit code."""
    done = CliRunner().invoke(verb, [*(str(a) for a in arguments), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return json.loads(done.stdout), done.exit_code


def failures(found):
    assert all(row["remedy"] for row in found["checks"] if row["state"] != "ok")
    return {(row["group"], row["said"]) for row in found["checks"] if row["state"] == "failed"}


def of_site(site, *groups):
    """Groups and texts of an institution's failures, of some groups only."""
    checks = [c for c in institution.checks(load_site(site), site) if c.group in groups]
    return [f"{o.check.group}: {o.finding.said}" for o in carry_out(checks)
            if o.finding.state == "failed"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tiny_study, tmp_path_factory):
    """A federation as provisioned, and the kit of one site completed: all keys, data and pins."""
    folder = tmp_path_factory.mktemp("doctor")
    text = tiny_study(
        privacy=PRIVATE,
        model="{train: full, dropout: 0}",
        training="{rounds: 3, learning_rate: 5e-3, precision: float32}",
        federation=f"{{institutions: [{', '.join(NAMES)}]}}",
        secure_aggregation="{}",
    )
    (folder / "study.yaml").write_text(text)
    (folder / "F.yaml").write_text(FEDERATION.format(port=free_port()))
    fedner("provision", folder / "F.yaml", "--out", folder / "fed", "--demo")
    fedner("data", "deal", folder / "study.yaml", "--out", folder / "dealt")
    _complete(folder / "fed" / "sites" / NAME, folder / "dealt" / NAME)
    return folder


def _complete(kit, dealt):
    for side in ("train.jsonl", "test.jsonl"):
        shutil.copy(dealt / side, kit / side)
    site, like = (yaml.safe_load((f / "site.yaml").read_text()) for f in (kit, dealt))
    del like["policy"]["roster_sha256"]
    site |= {"data": like["data"], "policy": like["policy"]}
    (kit / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False))
    said = fedner("roster", "pin", kit / "roster.yaml", kit / "site.yaml")
    pin = next(line for line in said.splitlines() if "roster_sha256:" in line)
    site["policy"]["roster_sha256"] = pin.split(":")[1].strip()
    (kit / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False))


@pytest.fixture
def fed(made, tmp_path_factory):
    """A copy that a test may spoil, at a path short enough for a socket below it."""
    folder = tmp_path_factory.mktemp("f")
    shutil.copytree(made / "fed", folder / "fed")
    return folder / "fed"


@pytest.fixture
def site(fed):
    """A site file that a test may spoil, with all that lies beside it."""
    return fed / "sites" / NAME / "site.yaml"


def change(site, **changes):
    content = yaml.safe_load(site.read_text())
    for key, value in changes.items():
        where = content["policy"] if key in {"budget", "roster_sha256"} else content
        where[key] = value
    site.write_text(yaml.safe_dump(content, sort_keys=False))


@contextmanager
def served(folder):
    """A gate in front of an application, with the certificates of a folder; its address."""
    with opened(folder, Limits(per_address=200)) as door:
        yield f"127.0.0.1:{door.port}"


# --- an institution in order


def test_a_site_in_order_has_no_failure_and_its_server_is_looked_at_through_tls(fed, site):
    with served(fed / "server") as address:
        change(site, coordinator=address)
        found, code = asked(site)
    assert failures(found) == set()
    assert (code, found["failed"], found["role"]) == (0, 0, "institution")
    groups = {row["group"] for row in found["checks"]}
    assert groups == {"versions", "study", "policy", "keys", "names", "proxy", "ports", "tls",
                      "clock", "disk", "encoder", "device", "data", "ledger"}  # fmt: skip
    said = " ".join(row["said"] for row in found["checks"])
    assert "TLSv1.3, of this authority, for localhost, 127.0.0.1, 179 days left" in said
    assert "the server's, which is no proof of either" in said
    assert "not sealed" in said  # a warning: demo keys lie open
    assert not (site.parent / "state").exists()  # nothing was made


def test_counts_of_documents_are_on_the_terminal_alone(site):
    checks = [c for c in institution.checks(load_site(site), site) if c.group == "data"]
    outcome, _ = carry_out(checks)
    assert "documents" in outcome.finding.private
    on_terminal = " ".join(line.plain for line in doctor.lines(outcome, private=True))
    assert outcome.finding.private in on_terminal
    done = CliRunner().invoke(verb, [str(site)])
    assert "documents, " not in done.output
    assert "both sides can be read" in done.output


def test_a_file_that_cant_be_read_is_one_failure(tmp_path, site):
    found, code = asked(tmp_path / "none.yaml")
    assert (code, len(found["checks"])) == (1, 1)
    site.write_text("institution: [")
    assert asked(site)[1] == 1
    assert asked("--federation", tmp_path)[1] == 1


def test_each_check_that_needs_the_study_fails_alone_if_that_cant_be_read(site):
    (site.parent / "study.yaml").write_text("study: [")
    found, code = asked(site)
    states = {(row["group"], row["state"]) for row in found["checks"]}
    assert code == 1
    assert {("study", "failed"), ("ledger", "failed"), ("names", "ok")} <= states
    assert ("versions", "failed") not in states


# --- names, ports, proxies, TLS, clocks


def test_a_closed_port_and_a_wrong_name_are_told(site):
    change(site, coordinator=f"127.0.0.1:{free_port()}")
    said = of_site(site, "names", "ports", "tls")
    assert [line.split(":")[0] for line in said] == ["ports", "tls"]
    assert "Connection refused" in said[0]
    change(site, coordinator="no-such-host.invalid:9192")
    assert "does not resolve" in of_site(site, "names")[0]


def authority_and_server(folder, now, hosts=("127.0.0.1",), days=10, authority_days=400):
    create_authority(folder / "authority", "test", None, now, authority_days)
    authority = open_authority(folder / "authority", None)
    create_server(folder / "server", authority, hosts, now, days)
    return folder / "server"


def days_ago(days):
    return clock.utc_now() - datetime.timedelta(days=days)


CERTIFICATES = {
    "expired": (days_ago(30), ("127.0.0.1",), "certificate expired on"),
    "made by a clock that is ahead": (days_ago(-9), ("127.0.0.1",), "holds only from"),
    "of another name": (days_ago(0), ("localhost",), "is for localhost, not 127.0.0.1"),
}


@pytest.mark.parametrize("what", CERTIFICATES)
def test_a_certificate_that_tls_refuses_is_told_in_words(what, tmp_path):
    made, hosts, said = CERTIFICATES[what]
    server = authority_and_server(tmp_path, made, hosts)
    with served(server) as address:
        route = Route(host="127.0.0.1", port=int(address.split(":")[1]))
        with pytest.raises(IdentityError, match=said) as caught:
            tls.server_chain(route, server / "ca.crt", 5.0, clock.utc_now)
        assert caught.value.remedy
        with pytest.raises(FederationError, match="no TLS that can be trusted"):
            clock.against_server(route, server / "ca.crt", 5.0, clock.utc_now)


def test_a_server_of_another_authority_is_refused_and_its_word_for_the_time_not_taken(
    tmp_path, fed
):
    server = authority_and_server(tmp_path, clock.utc_now())
    with served(server) as address:
        route = Route(host="127.0.0.1", port=int(address.split(":")[1]))
        other = fed / "server" / "ca.crt"
        with pytest.raises(IdentityError, match="of another authority"):
            tls.server_chain(route, other, 5.0, clock.utc_now)
        with pytest.raises(FederationError, match="no TLS that can be trusted"):
            clock.against_server(route, other, 5.0, clock.utc_now)
        found = tls.server_chain(route, server / "ca.crt", 5.0, clock.utc_now)
        assert (found.state, "9 days left" in found.said) == ("ok", True)
        soon = tls.server_chain(
            route, server / "ca.crt", 5.0, lambda: clock.utc_now() + datetime.timedelta(days=8)
        )
        assert (soon.state, "--renew" in soon.remedy) == ("warning", True)


@pytest.mark.parametrize(
    ("seconds", "state"),
    [(0, "ok"), (3.5, "warning"), (7, "failed"), (-100, "warning"), (-250, "warning"),
     (-320, "failed"), (-3600, "failed"), (3600, "failed")],
)  # fmt: skip
def test_a_clock_that_flower_would_refuse_is_a_failure(fed, seconds, state):
    shift = datetime.timedelta(seconds=seconds)
    with served(fed / "server") as address:
        route = Route(host="127.0.0.1", port=int(address.split(":")[1]))
        found = clock.against_server(
            route, fed / "server" / "ca.crt", 5.0, lambda: clock.utc_now() + shift
        )
    assert found.state == state, found.said


def test_the_bounds_of_the_clock_are_those_of_flower():
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert clock.MAX_AHEAD_S == SYSTEM_TIME_TOLERANCE
    assert clock.MAX_BEHIND_S == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


def test_a_clock_outside_of_a_certificates_time_is_a_failure(fed):
    path = fed / "server" / "server.crt"
    for days, state in ((0, "ok"), (-3, "failed"), (200, "failed")):
        shift = datetime.timedelta(days=days)
        found = clock.certificate_window(path, lambda shift=shift: clock.utc_now() + shift)
        assert found.state == state


@contextmanager
def proxy(passes):
    """One that knows CONNECT alone, for one connection after the other; the heads it was sent."""
    listener, heads = socket.create_server(("127.0.0.1", 0)), []

    def pipe(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve():
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            heads.append(link.recv(65536).decode())
            if not passes:
                link.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                link.close()
                continue
            host, port = heads[-1].split()[1].rsplit(":", 1)
            with link, socket.create_connection((host, int(port))) as far:
                link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pipe, args=(far, link))
                back.start()
                pipe(link, far)
                back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://user:s3cret@127.0.0.1:{listener.getsockname()[1]}", heads
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        listener.close()


def test_the_server_is_looked_at_through_the_proxy_that_flower_would_take(fed):
    with served(fed / "server") as address, proxy(passes=True) as (url, heads):
        route = Route(host="127.0.0.1", port=int(address.split(":")[1]), proxy=url)
        found = tls.server_chain(route, fed / "server" / "ca.crt", 5.0, clock.utc_now)
        assert found.state == "ok"
        assert network.reachable(route, 5.0).state == "ok"
    assert all(head.startswith(f"CONNECT {address} ") for head in heads)
    assert "Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=".lower() in heads[0].lower()


def test_a_proxy_that_refuses_is_told_without_its_password(fed, site, monkeypatch):
    change(site, coordinator="192.0.2.1:9192")  # for this machine itself none is taken
    with proxy(passes=False) as (url, _):
        monkeypatch.setenv("https_proxy", url)
        said = of_site(site, "ports", "tls", "clock")
        found, _ = asked(site)
    assert len(said) == 3
    assert "403 Forbidden" in said[0]
    assert "s3cret" not in json.dumps(found)
    assert "through http://127.0.0.1:" in json.dumps(found)


# --- keys


def test_keys_that_others_can_read_are_failures(site):
    for file in ("identity/private.key", "node/node.key"):
        path = site.parent / file
        path.chmod(0o640)
        said = of_site(site, "keys")
        assert any("others than its owner may use it (mode 0640)" in line for line in said), file
        path.chmod(0o600)
    assert of_site(site, "keys") == []


def test_damaged_and_swapped_keys_are_failures(site, fed):
    other = fed / "sites" / NAMES[0]
    public = site.parent / "node" / "node.pub"
    shutil.copy(other / "node" / "node.pub", public)
    assert "not the public half" in of_site(site, "keys")[0]
    (site.parent / "node" / "node.key").write_text("damaged")
    assert "is no ECDSA key" in of_site(site, "keys")[0]
    change(site, identity="../" + NAMES[0] + "/identity", node=f"../{NAMES[0]}/node")
    said = " ".join(of_site(site, "keys"))
    assert f"is the identity of {NAMES[0]}, not of {NAME}" in said
    assert f"another key for {NAME}" in said
    (site.parent / "ca.crt").write_text("damaged")
    assert "is no certificate" in " ".join(of_site(site, "keys"))


def test_a_sealed_identity_is_opened_as_an_unattended_start_opens_it(site):
    create(site.parent / "sealed", NAME, PHRASE)
    words = site.parent / "passphrase"
    words.write_text(PHRASE + "\n")
    words.chmod(0o600)
    folder = site.parent / "sealed"
    found = keys.identity(folder, NAME, words)
    assert (found.state, "sealed; opens with" in found.said) == ("ok", True)
    assert PHRASE not in found.said
    assert keys.identity(folder, NAME, None).state == "failed"
    words.chmod(0o644)
    change(site, identity="sealed", passphrase_file="passphrase")
    assert "mode 0644" in " ".join(of_site(site, "keys"))
    words.chmod(0o600)
    words.write_text("some other words\n")
    assert "the passphrase is wrong" in " ".join(of_site(site, "keys"))


def test_another_roster_than_the_pinned_one_is_a_failure(site):
    change(site, roster_sha256="ab" * 32)
    assert "the site's policy pins roster abab" in " ".join(of_site(site, "keys"))


# --- disk, device, encoder, data, policy, ledger


def test_a_state_that_cant_be_made_or_is_too_long_for_a_socket_is_a_failure(site):
    (site.parent / "file").write_text("")
    change(site, state="file/state")
    assert "is not a folder" in " ".join(of_site(site, "disk"))
    change(site, state="a-name-of-twenty-two-b" * 5)
    assert "at most 107" in " ".join(of_site(site, "disk"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_not_there_is_a_failure(site):
    change(site, device="cuda")
    (said,) = of_site(site, "device")
    assert "no usable CUDA device" in said


def test_another_encoder_than_the_studys_is_a_failure(site, tiny_encoder, tmp_path):
    study_path = site.parent / "study.yaml"
    content = yaml.safe_load(study_path.read_text())
    content["encoder"]["weights_sha256"] = "ab" * 32
    study_path.write_text(yaml.safe_dump(content))
    (said,) = of_site(site, "encoder")
    assert "the study pins weights abab" in said
    content["encoder"]["name"] = str(tmp_path / "none")
    study_path.write_text(yaml.safe_dump(content))
    assert "is not on this machine" in " ".join(of_site(site, "encoder"))


def test_data_that_cant_be_read_is_a_failure_that_quotes_no_document(site):
    path = site.parent / "train.jsonl"
    text = path.read_text()
    patient = json.loads(text.splitlines()[0])["text"][:30]
    path.write_text(text[: len(text) // 2])
    found, code = asked(site)
    (said,) = [s for group, s in failures(found) if group == "data"]
    assert "train.jsonl" in said
    assert code == 1
    assert patient not in json.dumps(found)
    path.unlink()
    assert "train.jsonl" in of_site(site, "data")[0]


def test_documents_without_the_id_that_the_unit_needs_are_a_failure(site):
    path = site.parent / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    key = next(k for k in rows[0] if "patient" in k)
    path.write_text("".join(json.dumps({k: v for k, v in r.items() if k != key}) + "\n"
                            for r in rows))  # fmt: skip
    assert "patient" in of_site(site, "data")[0]


def test_a_label_that_occurs_nowhere_is_a_warning_named_on_the_terminal_alone(site):
    change(site, data=load_data(site) | {"label_map": {"Disease": "Symptom"}})
    checks = [c for c in institution.checks(load_site(site), site) if c.group == "data"]
    outcome, _ = carry_out(checks)
    assert outcome.finding.state == "warning"
    assert "Disease" not in outcome.finding.said
    assert "nowhere: Disease" in outcome.finding.private


def test_a_list_of_the_withdrawn_is_read_and_compared_with_the_documents(site):
    patient = json.loads((site.parent / "train.jsonl").read_text().splitlines()[0])["patient_id"]
    listed = site.parent / "withdrawn.txt"
    change(site, exclude="withdrawn.txt")
    assert any("withdrawn.txt: can't be read" in line for line in of_site(site, "data"))
    listed.write_text(f"patient {patient}\n")
    assert of_site(site, "data") == []
    listed.write_text(f"patient {patient}\npatient nobody-here\n")
    (said,) = of_site(site, "data")
    assert "of no document here, which the policy refuses" in said
    assert "nobody-here" not in said
    listed.write_text("somebody\n")
    assert any("expected `patient` or `document`" in line for line in of_site(site, "data"))


def load_data(site):
    return yaml.safe_load(site.read_text())["data"]


def test_what_the_policy_refuses_is_a_failure_with_its_reasons(site):
    budget = [{"unit": "patient", "delta": 1e-3, "epsilon_per_study": 0.01}]
    change(site, budget=budget)
    said = " ".join(of_site(site, "policy"))
    assert "`epsilon_per_study` is 0.01" in said


def test_one_user_that_the_site_does_not_accept_is_a_failure(site):
    content = yaml.safe_load(site.read_text())
    content["policy"]["accept_one_user"] = False
    site.write_text(yaml.safe_dump(content))
    assert of_site(site, "policy")


def test_a_ledger_that_is_not_what_it_was_is_a_failure(site):
    folder = site.parent / "state" / "ledger"
    with LedgerFile.open(folder, NAME) as ledger:
        ledger.reserve(charge(unit="patient"))
    assert of_site(site, "ledger") == []
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"heart"', b'"heard"'))
    assert "ledger" in " ".join(of_site(site, "ledger"))


def test_an_emptied_ledger_is_a_failure_where_the_audit_log_knows_of_charges(site):
    state = site.parent / "state"
    with LedgerFile.open(state / "ledger", NAME) as ledger:
        head = ledger.reserve(charge(unit="patient")) and ledger.head
    with closing(open_log(state, name=NAME)) as log:
        log.append(reply(ledger=str(head)))
    assert of_site(site, "ledger") == []
    shutil.rmtree(state / "ledger")
    (said,) = of_site(site, "ledger")
    assert f"has the head {head}" in said


def test_a_ledger_whose_last_entry_is_to_come_is_a_failure(site):
    future = int(clock.utc_now().timestamp()) + 3600
    with LedgerFile.open(site.parent / "state" / "ledger", NAME, clock=lambda: future):
        pass
    (said,) = of_site(site, "ledger")
    assert "s after this machine's time" in said


def test_what_a_lifetime_has_left_must_hold_the_rest_of_the_study(site):
    """Before, in the middle of, and after a study: what is charged already is not asked again."""
    change(site, budget=[{"unit": "patient", "delta": 1e-3, "epsilon_lifetime": 1.0}])
    (said,) = of_site(site, "ledger")
    assert "over the site's lifetime cap of 1 per patient" in said
    change(site, budget=[{"unit": "patient", "delta": 1e-3, "epsilon_lifetime": 50.0}])
    assert of_site(site, "ledger") == []
    asked_for = study.study_hash(load_study(site.parent / "study.yaml"))
    event = study.plan_of(load_study(site.parent / "study.yaml"), NAME).training_event
    with LedgerFile.open(site.parent / "state" / "ledger", NAME) as ledger:
        for round_ in (1, 2, 3):
            own = charge(round_, study="tiny", events=[event], delta=1e-3)
            reserved = ledger.reserve(type(own)(**{**vars_of(own), "study": asked_for}))
            if round_ < 3:
                ledger.commit(reserved, "f" * 64)
    (said,) = of_site(site, "ledger")
    assert "the last round no longer fits, of 1 to come" in said  # its vector was lost
    assert "over the study's own target" in said
    Vault(site.parent / "state" / "ledger").put(VaultName.of(reserved), b"found after all")
    change(site, budget=[{"unit": "patient", "delta": 1e-3, "epsilon_lifetime": 1.0}])
    assert of_site(site, "ledger") == []
    checks = [c for c in institution.checks(load_site(site), site) if c.group == "ledger"]
    (outcome,) = carry_out(checks)
    assert "all of the study is charged" in outcome.finding.said


def vars_of(record):
    return {name: getattr(record, name) for name in record.__slots__}


# --- the coordinator


SLOW = {"encoder", "disk", "versions"}


def of_federation(fed, passphrase=None, now=clock.utc_now):
    """Groups and texts of the coordinator's failures, but of what takes long and is not spoilt."""
    checks = coordinator.checks(fed, fed / "study.yaml", passphrase, now)
    checks = [c for c in checks if c.group not in SLOW]
    return [f"{o.check.group}: {o.finding.said}" for o in carry_out(checks)
            if o.finding.state == "failed"]  # fmt: skip


def test_a_federation_in_order_has_no_failure_and_a_demo_is_a_warning(fed):
    found, code = asked("--federation", fed)
    assert failures(found) == set()
    assert (code, found["role"]) == (0, "coordinator")
    said = " ".join(row["said"] for row in found["checks"])
    assert "DEMO" in said
    assert "3 enrolled" in said
    assert not Path("runs/.fedner-doctor").exists()


SPOILT = {
    "register.json": ("federation", "can't be read"),
    "server/server.key": ("keys", "can't be used"),
    "server/server.crt": ("keys", "can't be used"),
    "server/ca.crt": ("tls", "can't be used"),
    "coordinator/private.key": ("keys", "can't be used"),
    "roster.yaml": ("keys", "is not there"),
    "study.yaml": ("study", "can't be read"),
}


@pytest.mark.parametrize("file", SPOILT)
def test_a_file_that_is_missing_fails_the_check_that_looks_at_it(fed, file):
    (fed / file).unlink()
    group, text = SPOILT[file]
    assert any(s.startswith(f"{group}:") and text in s for s in of_federation(fed))


def test_keys_at_the_coordinator_have_their_modes_and_belong_together(fed):
    (fed / "server" / "link.key").chmod(0o604)
    assert any("mode 0604" in line for line in of_federation(fed))
    (fed / "server" / "link.key").chmod(0o600)
    names = sorted((fed / "nodes").iterdir())
    shutil.copy(names[0], names[1])
    (fed / "nodes" / "stranger.pub").write_text("ecdsa-sha2-nistp384 AAAA stranger\n")
    (said,) = of_federation(fed)
    assert "not as the register says" in said
    assert names[1].name in said
    assert "stranger.pub" in said


def test_a_node_key_with_another_name_behind_it_fails_as_at_the_servers_start(fed):
    path = min((fed / "nodes").iterdir())
    path.write_text(path.read_text().replace(path.stem, "somebody"))
    (said,) = of_federation(fed)
    assert "not as the register says" in said


def test_a_certificate_that_is_over_fails_at_the_coordinator(fed):
    later = clock.utc_now() + datetime.timedelta(days=200)
    said = " ".join(of_federation(fed, now=lambda: later))
    assert "server.crt holds from" in said
    assert "expired on" in said


def test_a_taken_port_is_a_failure_unless_this_federations_server_has_it(fed):
    root, port = fed, coordinator.deployment_of(fed).server.port
    with socket.create_server(("127.0.0.1", port)):
        assert any("Address already in use" in line for line in of_federation(root))
    with served(fed / "server") as address:
        at = int(address.split(":")[1])
        assert coordinator._port(fed, "127.0.0.1", at).state == "warning"
    (fed / "other").mkdir()
    with served(authority_and_server(fed / "other", clock.utc_now())) as address:
        at = int(address.split(":")[1])
        assert coordinator._port(fed, "127.0.0.1", at).state == "failed"


def test_the_receipt_keys_place_is_looked_at_and_nothing_is_made_there(fed, tmp_path, monkeypatch):
    private = load_study(fed / "study.yaml")
    monkeypatch.setenv("FEDNER_HOME", str(tmp_path / "home"))
    assert "a key is made there" in coordinator._book(private).said
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").write_text("a file")
    with pytest.raises(FederationError):
        coordinator._book(private)
    (tmp_path / "home").unlink()
    ReceiptBook(tmp_path / "home" / "coordinator")
    assert "the key is there" in coordinator._book(private).said
    monkeypatch.setenv("FEDNER_STATE", str(tmp_path / "state"))
    with pytest.raises(ConfigError, match="every site would refuse"):
        coordinator._book(private)


def test_an_address_that_is_not_this_machines_is_a_failure():
    assert network.bindable("192.0.2.77", free_port()).state == "failed"


def test_the_coordinators_sealed_identity_needs_its_passphrase(fed):
    shutil.rmtree(fed / "coordinator")
    create(fed / "coordinator", "coordinator", PHRASE)
    assert any("--passphrase-file" in o.finding.remedy for o in _keys_of(fed))
    words = fed / "words"
    words.write_text(PHRASE)
    words.chmod(0o600)
    said = of_federation(fed, words)
    assert not any("needs its passphrase" in line for line in said)
    assert any("the roster's coordinator is" in line for line in said)  # another key than agreed on


def _keys_of(fed):
    checks = coordinator.checks(fed, fed / "study.yaml", None)
    return list(carry_out(c for c in checks if c.group == "keys"))


def test_who_has_left_is_told(fed):
    fedner("enrol", "leave", NAMES[0], "--federation", fed)
    assert any(f"not enrolled: {NAMES[0]}" in line for line in of_federation(fed))


def test_wrong_use_is_refused(site):
    for arguments in ([], [str(site), "--passphrase-file", "x"]):
        assert CliRunner().invoke(verb, arguments).exit_code != 0


def test_no_authority_means_this_machine_only_which_is_a_warning(site):
    content = yaml.safe_load(site.read_text())
    del content["authority"], content["node"]
    content["coordinator"] = "127.0.0.1:9192"
    parse_site(yaml.safe_dump(content), "s")
    site.write_text(yaml.safe_dump(content))
    outcomes = list(carry_out(
        c for c in institution.checks(load_site(site), site) if c.group in {"policy", "tls"}
    ))  # fmt: skip
    assert [o.finding.state for o in outcomes] == ["ok", "warning"]
    assert "NO TLS" in outcomes[1].finding.said
    assert os.path.exists(site)
