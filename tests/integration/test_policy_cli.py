"""`fedner policy` as its users meet it, and a worker that obeys before it opens anything."""

import datetime
import logging
import sys
from pathlib import Path

import pytest

import client.worker
import common
from client.witness import Witness, installed_code
from client.worker import make_session
from common.config.canonical import study_hash
from common.errors import BudgetError, ConfigError, PolicyError
from common.io.code_hash import code_sha256
from common.io.configs import load_site, load_study
from common.io.identity_files import create
from common.io.ledger_file import LedgerFile
from common.io.sign_offs import read_sign_offs
from common.privacy.events import GaussianSteps
from common.privacy.ledger import Charge
from scripts import cli

STUDY = f"""\
study: s
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
training: {{rounds: 3, learning_rate: 1e-3}}
federation: {{institutions: [north, south]}}
privacy: none
secure_aggregation: none
"""
PRIVATE = (
    STUDY.replace("privacy: none\n", "") + "model: {dropout: 0}\n"
    "privacy: {mechanism: local, unit: patient, noise_multiplier: 1, delta: 1e-5, clip: 1, "
    "sampling_rate: 0.1, steps_per_round: 1, declared_units: 100, evaluation: {epsilon: 1, "
    "clip: 1}, settings_from: public}\n"
)
SITE = """\
institution: north
study: study.yaml
coordinator: 127.0.0.1:9192
state: state
data:
  all: {format: brat, path: there-is-no-such-folder}
  split: {test: 0.2, key: a key}
policy:
  accept_privacy_none: true
  accept_secure_aggregation_none: true
  accept_one_user: true
"""
ROLE = "ethics committee"


class Result:
    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err
        self.said = " ".join(self.err.split())


@pytest.fixture
def fedner(monkeypatch, capsys, tmp_path):
    """Runs `fedner` in this process, in a folder with a study and a site."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "site.yaml").write_text(SITE)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedner", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
        result = Result(code, capsys.readouterr())
        assert "Traceback" not in result.out + result.err
        return result

    return run


@pytest.fixture
def ethics(tmp_path):
    """A committee's key, and the lines by which a site needs it."""
    public = create(tmp_path / "ethics", "ethics", None)
    return (
        f"  sign_offs: [{{role: {ROLE}, public_key: '{public.public_key}'}}]\n"
        "sign_offs: sign-offs\n"
    )


def signs(fedner, to="sign-offs/ethics.json", role=ROLE, study="study.yaml", *more):
    key = ("--key", "ethics", "--no-passphrase")
    return fedner("policy", "sign", study, *key, "--as", role, "--out", to, *more)


# --- sign-offs


def test_a_sign_off_is_made_once_and_verified(fedner, ethics, tmp_path):
    (tmp_path / "sign-offs").mkdir()
    (tmp_path / "site.yaml").write_text(SITE + ethics)
    missing = fedner("policy", "verify", "site.yaml")
    assert missing.code == 6
    assert f"MISSING  {ROLE}" in missing.out
    made = signs(fedner)
    assert made.code == 0
    assert study_hash(load_study(tmp_path / "study.yaml")) in made.out
    right = fedner("policy", "verify", "site.yaml")
    assert right.code == 0
    assert f"signed   {ROLE}" in right.out
    assert signs(fedner).code == 2  # never overwritten


def test_a_study_that_changed_after_it_was_signed_has_no_sign_off(fedner, ethics, tmp_path):
    (tmp_path / "sign-offs").mkdir()
    (tmp_path / "site.yaml").write_text(SITE + ethics)
    signs(fedner)
    assert fedner("policy", "check", "site.yaml").code == 0
    (tmp_path / "study.yaml").write_text(STUDY.replace("rounds: 3", "rounds: 4"))
    assert fedner("policy", "verify", "site.yaml").code == 6
    assert "[sign-off]" in fedner("policy", "check", "site.yaml").said
    with pytest.raises(PolicyError, match="sign-off"):
        make_session(load_site(tmp_path / "site.yaml"), tmp_path)


def test_another_role_and_a_file_that_is_none_count_for_nothing(fedner, ethics, tmp_path):
    (tmp_path / "sign-offs").mkdir()
    (tmp_path / "sign-offs" / "x.json").write_text("{}")
    (tmp_path / "site.yaml").write_text(SITE + ethics)
    signs(fedner, role="janitor")
    found = fedner("policy", "verify", "site.yaml")
    assert found.code == 6
    assert "x.json" in found.out


def test_a_site_that_needs_no_sign_off_says_so(fedner):
    assert "needs no sign-off" in fedner("policy", "verify", "site.yaml").out


def test_a_missing_folder_of_sign_offs_is_said(tmp_path):
    assert read_sign_offs(tmp_path / "no") == ((), (f"{tmp_path}/no: is no folder",))


def test_a_sign_off_that_is_taken_away_counts_no_more(fedner, ethics, tmp_path):
    """The worker looks anew at each request."""
    (tmp_path / "sign-offs").mkdir()
    (tmp_path / "site.yaml").write_text(SITE + ethics)
    signs(fedner)
    witness = Witness(load_site(tmp_path / "site.yaml"), tmp_path)
    assert len(witness("train").sign_offs) == 1
    (tmp_path / "sign-offs" / "ethics.json").unlink()
    assert witness("train").sign_offs == ()


# --- check


def test_check_shows_what_can_be_pinned_and_what_would_be_refused(fedner, tmp_path):
    shown = fedner("policy", "check", "site.yaml")
    assert shown.code == 0
    assert f"code_sha256: {installed_code()}\n" in shown.out
    assert f"study_sha256: {study_hash(load_study(tmp_path / 'study.yaml'))}\n" in shown.out
    assert "one OS user" in shown.out
    (tmp_path / "site.yaml").write_text(SITE + f"  code_sha256: {'ab' * 32}\n  max_rounds: 2\n")
    refused = fedner("policy", "check", "site.yaml")
    assert refused.code == 6
    assert "[code-pin]" in refused.said
    assert "[rounds]" in refused.said


def test_check_knows_the_hours(fedner, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    start, end = (now + datetime.timedelta(hours=h) for h in (2, 3))
    hours = f'  hours: [{{start: "{start:%H}:00", end: "{end:%H}:00"}}]\n'
    (tmp_path / "site.yaml").write_text(SITE + hours.replace('end: "00', 'end: "24'))
    assert "[hours]" in fedner("policy", "check", "site.yaml").said


# --- the worker's start: no data is there, and none is missed


STARTS = [
    ("  accept_one_user: true\n", "", "one-user"),
    ("accept_privacy_none: true", "accept_privacy_none: false", "privacy-none"),
    ("accept_secure_aggregation_none: true", "accept_secure_aggregation_none: false",
     "secure-aggregation-none"),
    ("policy:\n", "policy:\n  max_rounds: 2\n", "rounds"),
    ("policy:\n", "policy:\n  labels: [Gene]\n", "labels"),
    ("policy:\n", "policy:\n  min_noise_multiplier: 1\n", "noise"),
    ("policy:\n", f"policy:\n  study_sha256: {'ab' * 32}\n", "study-pin"),
    ("policy:\n", f"policy:\n  code_sha256: {'ab' * 32}\n", "code-pin"),
    ("policy:\n", f"sign_offs: x\npolicy:\n  sign_offs: [{{role: r, public_key: {'ab' * 32}}}]\n",
     "sign-off"),
    ("policy:\n", "exclude: withdrawn.txt\npolicy:\n", "exclude-unreadable"),
    ("institution: north", "institution: west", "not-on-the-roster"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code"), STARTS, ids=[case[2] for case in STARTS])
def test_a_worker_refuses_before_any_data_is_opened(fedner, tmp_path, monkeypatch, old, new, code):
    for name in ("load_sides", "resolve_encoder", "open_guard", "institution_standing"):
        monkeypatch.setattr(client.worker, name, lambda *_: pytest.fail("was opened"))
    text = SITE.replace(old, new)
    assert text != SITE
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(PolicyError) as caught:
        make_session(load_site(tmp_path / "site.yaml"), tmp_path)
    assert f"[{code}]" in caught.value.message
    assert "; [" not in caught.value.message  # for this reason alone
    assert not (tmp_path / "state").exists()


def test_a_site_with_a_group_for_the_relay_runs_as_two_users(fedner, tmp_path):
    (tmp_path / "site.yaml").write_text(
        SITE.replace("  accept_one_user: true\n", "").replace(
            "policy:", "relay_group: g\nsocket: /run/f/s\npolicy:"
        )
    )
    assert "two OS users, through group g" in fedner("policy", "check", "site.yaml").out
    assert Witness(load_site(tmp_path / "site.yaml"), tmp_path)("hello").users == "apart"


def test_a_worker_whose_group_is_not_there_does_not_start(fedner, tmp_path):
    (tmp_path / "site.yaml").write_text(
        SITE.replace("policy:", "relay_group: no-such\nsocket: /run/f/s\npolicy:")
    )
    assert client.worker.main([str(tmp_path / "site.yaml")]) == ConfigError.exit_code
    assert not (tmp_path / "state" / "worker").exists()


def test_one_os_user_is_said_loudly(fedner, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "fedner.worker"):
        client.worker.main([str(tmp_path / "site.yaml")])
    assert "ONE USER" in caplog.text


def test_a_cap_that_was_lowered_below_what_is_spent_ends_the_study(fedner, tmp_path):
    (tmp_path / "study.yaml").write_text(PRIVATE)
    cap = "budget: [{unit: patient, delta: 1e-5, epsilon_lifetime: %s}]\n"
    with LedgerFile.open(tmp_path / "state" / "ledger", "north") as ledger:
        event = GaussianSteps(sampling_rate=1.0, noise_multiplier=2.0, steps=1)
        ledger.reserve(
            Charge(
                study="0" * 64, name="before", round=1, purpose="train", request="1" * 64,
                unit="patient", dataset="all documents", events=(event,), delta=1e-5, target=9.0,
            )
        )  # fmt: skip
    for value, code in (("9.0", 0), ("0.5", 6)):
        text = SITE.replace("policy:\n", "policy:\n  " + cap % value)
        (tmp_path / "site.yaml").write_text(text)
        found = fedner("policy", "check", "site.yaml")
        assert found.code == code
    assert "[budget] epsilon" in found.said
    assert "is spent for each patient" in found.said
    (tmp_path / "state" / "ledger" / "ledger.jsonl").write_bytes(b"{}\n")
    with pytest.raises(BudgetError):
        Witness(load_site(tmp_path / "site.yaml"), tmp_path).at_start()


# --- the code's hash


def test_the_codes_hash_changes_with_every_byte_and_name_and_with_nothing_else(tmp_path):
    package = tmp_path / "a" / "client"
    (package / "sub").mkdir(parents=True)
    (package / "one.py").write_text("1")
    (package / "sub" / "two.py").write_text("2")
    first = code_sha256([package])
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "one.pyc").write_text("x")
    (package / "notes.md").write_text("x")
    assert code_sha256([package]) == first
    moved = tmp_path / "b"
    (tmp_path / "a").rename(moved)
    package = moved / "client"
    assert code_sha256([package]) == first
    seen = {first}
    (package / "one.py").write_text("0")
    seen.add(code_sha256([package]))
    (package / "one.py").rename(package / "three.py")
    seen.add(code_sha256([package]))
    (package / "sub" / "two.py").unlink()
    seen.add(code_sha256([package]))
    package.rename(moved / "common")
    seen.add(code_sha256([moved / "common"]))
    assert len(seen) == 5


def test_a_package_without_a_source_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no Python source"):
        code_sha256([tmp_path])


def test_the_installed_codes_hash_is_that_of_client_and_common():
    folders = [Path(str(package.__file__)).parent for package in (client, common)]
    assert installed_code() == code_sha256(folders[::-1])
