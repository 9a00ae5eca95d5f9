"""`fedner client --rehearse`: real processes, and what they may not touch."""

import dataclasses
import datetime
import os
import shutil
import socket
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from client.site_paths import SitePaths
from common.config.data import Data
from common.config.load import parse_study
from common.config.site import Policy, Signatory
from common.data.synthetic import LABELS
from common.errors import FederationError, IdentityError, UsageError
from common.io.configs import load_site
from common.io.ledger_file import LedgerFile
from common.io.vault import Vault, VaultName
from scripts import rehearsal
from scripts.cli import app
from scripts.rehearsal import rehearse
from scripts.rehearsal_stage import labels_of, peers_of
from scripts.rehearsal_worker import ROSTER_HASH, in_rehearsal
from tests.ledgers import charge, digest

NAMES = ("cardiac-centre", "cancer-centre", "north", "south")
NAME = NAMES[0]
PRIVATE = {
    "privacy": "{mechanism: local, unit: patient, noise_multiplier: 1.0, delta: 1e-3, clip: 0.5, "
    "sampling_rate: 0.5, steps_per_round: 1, declared_units: 8, evaluation: exact, "
    "settings_from: synthetic}",
    "model": "{train: full, dropout: 0}",
    "training": "{rounds: 4, learning_rate: 5e-3, precision: float32}",
}
EVERY_2 = f"{{institutions: [{', '.join(NAMES)}], quorum: 3, evaluate_every: 2}}"


def dealt(folder, tiny_study, **changes):
    """The site file of one institution; its documents are gone: nothing here may open them."""
    (folder / "study.yaml").write_text(tiny_study(**changes))
    done = CliRunner().invoke(
        app, ["data", "deal", str(folder / "study.yaml"), "--out", str(folder / "f")]
    )
    assert done.exit_code == 0, done.output
    for side in ("train.jsonl", "test.jsonl"):
        (folder / "f" / NAME / side).unlink()
    return folder / "f" / NAME / "site.yaml"


def spent(site):
    """A ledger and a vault in which something is."""
    folder = SitePaths.of(load_site(site), site.parent).ledger
    with LedgerFile.open(folder, NAME) as ledger:
        reserved = ledger.reserve(charge())
        Vault(folder).put(VaultName.of(reserved), b"a noised vector")
        ledger.commit(reserved, digest("a noised vector"))
    return folder


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def rehearsed(site):
    lines = []
    rehearse(load_site(site), site, lines.append)
    return "\n".join(lines)


def change(site, where, **changes):
    content = yaml.safe_load(site.read_text())
    (content["policy"] if where == "policy" else content).update(changes)
    site.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_private_study_is_rehearsed_and_ledger_vault_and_folder_stay_byte_for_byte(
    tiny_study, tmp_path
):
    site = dealt(tmp_path, tiny_study, **PRIVATE)
    folder = spent(site)
    before = everything(site.parent)
    said = rehearsed(site)
    assert everything(site.parent) == before
    assert (folder / "ledger.jsonl").read_bytes()
    for step in ("worker ready on", f"hello: {NAME} through relay and socket", "train: ",
                 "evaluate: after round 1", "untouched: "):  # fmt: skip
        assert step in said
    assert said.count(" s  ") == 4  # each step with how long it took
    assert "not rehearsed" not in said


def test_a_secure_study_is_rehearsed_with_made_up_peers_and_an_evaluation_that_is_due_later(
    tiny_study, tmp_path
):
    site = dealt(tmp_path, tiny_study, **PRIVATE, federation=EVERY_2, secure_aggregation="{}")
    before = everything(site.parent)
    said = rehearsed(site)
    assert everything(site.parent) == before  # no state was there, and none is now
    assert "identity and roster stand; the rehearsal's own, made up, are in their place" in said
    assert "made-up ones in this process" in said
    assert said.count("summed securely") == 2
    assert "evaluate: after round 2; summed securely" in said


def test_nothing_leaves_the_machine(tiny_study, tmp_path):
    """In a network namespace of its own without any interface up, not even loopback."""
    alone = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("network namespaces are not permitted here")
    site = dealt(tmp_path, tiny_study)
    command = [sys.executable, "-m", "scripts.cli", "client", "--rehearse", str(site)]
    done = subprocess.run(
        [*alone, *command], capture_output=True, text=True, timeout=200, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate: after round 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_policy_refuses_is_not_rehearsed(tiny_study, tmp_path, capfd):
    site = dealt(tmp_path, tiny_study)
    change(site, "policy", accept_privacy_none=False)
    before = everything(site.parent)
    with pytest.raises(FederationError, match=r"did not start \(exit code 6\)") as caught:
        rehearsed(site)
    assert "fedner doctor" in str(caught.value.remedy)
    assert "accept_privacy_none" in capfd.readouterr().err
    assert everything(site.parent) == before


def test_a_sign_off_that_is_missing_is_refused_although_the_rehearsal_itself_needs_none(
    tiny_study, tmp_path, capfd
):
    """The real start's decision comes first: what the rehearsal leaves out counts there."""
    site = dealt(tmp_path, tiny_study)
    (site.parent / "signed").mkdir()
    change(site, "site", sign_offs="signed")
    change(site, "policy", sign_offs=[{"role": "ethics committee", "public_key": "ab" * 32}])
    with pytest.raises(FederationError, match=r"did not start \(exit code 6\)"):
        rehearsed(site)
    assert "no sign-off as ethics committee" in capfd.readouterr().err


def test_the_policy_is_asked_for_each_request_too(tiny_study, tmp_path, capfd):
    """Hours that are not now: the start is allowed, training is not."""
    site = dealt(tmp_path, tiny_study)
    away = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    window = {"days": [f"{away:%a}".lower()], "start": "00:00", "end": "24:00"}
    change(site, "policy", hours=[window])
    with pytest.raises(FederationError, match="refused: policy"):
        rehearsed(site)
    assert "the site's `hours` are" in capfd.readouterr().err


def test_another_encoder_ends_it(tiny_study, tmp_path):
    site = dealt(tmp_path, tiny_study)
    study = site.parent / ".." / "study.yaml"
    content = yaml.safe_load(study.read_text())
    content["encoder"]["name"] = str(tmp_path / "none")
    study.write_text(yaml.safe_dump(content))
    with pytest.raises(Exception, match="is not on this machine"):
        rehearsed(site)


def test_another_roster_than_the_pinned_one_ends_it_before_anything_starts(tiny_study, tmp_path):
    site = dealt(tmp_path, tiny_study, federation=EVERY_2, secure_aggregation="{}")
    change(site, "policy", roster_sha256="ab" * 32)
    with pytest.raises(IdentityError, match="pins roster abab"):
        rehearsed(site)


def test_a_worker_that_runs_is_asked_nothing(tiny_study, tmp_path):
    """Whether it was there before, or takes its socket while the rehearsal begins."""
    site = dealt(tmp_path, tiny_study)
    path = SitePaths.of(load_site(site), site.parent).socket
    path.parent.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as running:
        running.bind(str(path))
        running.listen()
        running.setblocking(False)
        assert "evaluate: after round 1" in rehearsed(site)
        with pytest.raises(BlockingIOError):
            running.accept()
        assert path.exists()


def test_a_study_that_names_its_roster_is_not_rehearsed(tiny_study, tmp_path):
    pinned = f"{{roster_sha256: {'ab' * 32}}}"
    site = dealt(tmp_path, tiny_study, federation=EVERY_2, secure_aggregation="{}")
    study = site.parent / ".." / "study.yaml"
    content = yaml.safe_load(study.read_text())
    content["secure_aggregation"] = yaml.safe_load(pinned)
    study.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="the study names its roster"):
        rehearsed(site)


def test_a_state_that_changes_meanwhile_is_a_failure(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "worker").mkdir()
    before = rehearsal.digests(tmp_path)
    (tmp_path / "worker" / "socket.lock").write_text("")
    rehearsal._require_untouched(tmp_path, before, lambda line: None)
    (tmp_path / "ledger" / "ledger.jsonl").write_text("one entry more")
    with pytest.raises(FederationError, match=r"ledger/ledger\.jsonl"):
        rehearsal._require_untouched(tmp_path, before, lambda line: None)


def test_the_site_in_rehearsal_has_nothing_of_its_own_but_what_may_be_real(tiny_study, tmp_path):
    site = load_site(dealt(tmp_path, tiny_study))
    kept = {"institution", "study", "coordinator", "device", "threads", "relay_group", "socket",
            "authority", "node", "start_limit_s"}  # fmt: skip
    signed = Policy(
        sign_offs=(Signatory(role="committee", public_key="ab" * 32),),
        coordinator_key="cd" * 32, roster_sha256="ef" * 32, accept_privacy_none=True, max_rounds=7,
    )  # fmt: skip
    site = dataclasses.replace(
        site, policy=signed, sign_offs="s", exclude="e", passphrase_file="p", identity="i",
        roster="r", node="n", authority="a",
    )  # fmt: skip
    (tmp_path / ROSTER_HASH).write_text("12" * 32)
    made = in_rehearsal(site, tmp_path, {"Disease": "Illness"})
    assert {f.name for f in dataclasses.fields(site)
            if getattr(made, f.name) == getattr(site, f.name)} == kept  # fmt: skip
    for value in (made.state, made.identity, made.roster, made.data.train.path):
        assert value.startswith(str(tmp_path))
    assert isinstance(made.data, Data)
    assert made.data.label_map == {"Disease": "Illness"}
    assert (made.policy.max_rounds, made.policy.accept_privacy_none) == (7, True)
    assert (made.policy.sign_offs, made.policy.coordinator_key) == ((), None)
    assert made.policy.roster_sha256 == "12" * 32
    changed = {f.name for f in dataclasses.fields(Policy)
               if getattr(made.policy, f.name) != getattr(signed, f.name)}  # fmt: skip
    assert changed == {"sign_offs", "coordinator_key", "roster_sha256"}


def test_made_up_documents_have_the_studys_labels():
    assert labels_of(LABELS) == {label: label for label in LABELS}
    assert labels_of(("Gene",)) == {LABELS[0]: "Gene"}
    assert labels_of((LABELS[1], "A", "B", "C")) == {LABELS[0]: "A", LABELS[1]: LABELS[1],
                                                     LABELS[2]: "B"}  # fmt: skip


def test_as_many_peers_as_a_quorum_needs_and_two_for_a_secure_sum(tiny_study):
    plain = parse_study(tiny_study(federation=EVERY_2), "s")
    assert peers_of(plain, "north") == ("cardiac-centre", "cancer-centre")
    secure = parse_study(tiny_study(federation=EVERY_2, secure_aggregation="{}"), "s")
    assert len(peers_of(secure, "north")) >= 2
    alone = parse_study(tiny_study(federation=f"{{institutions: [{NAME}]}}"), "s")
    assert peers_of(alone, NAME) == ()


def test_two_users_are_not_rehearsed_which_is_said(tiny_study, tmp_path):
    site = dealt(tmp_path, tiny_study)
    change(site, "site", relay_group="root", socket="/run/fedner/socket")
    change(site, "policy", accept_one_user=True)
    assert "not rehearsed: the relay as another user, through the group root" in rehearsed(site)
