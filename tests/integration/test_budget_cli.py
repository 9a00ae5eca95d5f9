"""`fedner budget`: what people and auditors see of a ledger."""

import json
import shutil
import sys
from contextlib import closing

import pytest

from client.ledger_seen import spend_of
from client.site_paths import SitePaths
from common.audit.errors import AuditError
from common.errors import BudgetError, UsageError
from common.identity.fingerprint import key_fingerprint
from common.io.configs import load_site
from common.io.ledger_file import LedgerFile
from common.io.ledger_folder import read_state
from common.io.ledger_recovery import recover
from common.privacy import accountant
from common.privacy.events import GaussianSteps
from common.privacy.ledger import caps_of
from common.privacy.ledger_codec import countersign, encode_head
from common.privacy.ledger_examine import verify_file
from scripts import cli
from tests.audits import open_log, reply
from tests.ledgers import COORDINATOR, NOON, STRANGER, charge, digest

EVENT = GaussianSteps(sampling_rate=0.01, noise_multiplier=1.0, steps=50)
BUDGET = """
  budget:
    - {unit: patient, delta: 1.0e-5, epsilon_lifetime: 3.0, epsilon_per_study: 2.0}
"""


class Result:
    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err
        self.said = " ".join(self.err.split())


SITE = """
institution: cardiac-centre
study: study.yaml
coordinator: 127.0.0.1:9192
state: state
data:
  all: {format: brat, path: notes}
  split: {test: 0.2, key: a key}
policy:
  accept_one_user: true
"""


@pytest.fixture
def site(tmp_path, tiny_study):
    """A site file; its folder has the study too. No data: no verb of these opens any."""
    (tmp_path / "study.yaml").write_text(tiny_study())
    (tmp_path / "site.yaml").write_text(SITE + BUDGET)
    return tmp_path / "site.yaml"


@pytest.fixture
def folder(site):
    return SitePaths.of(load_site(site), site.parent).ledger


@pytest.fixture
def filled(site, folder):
    """Two studies: 2 of 3 reserves committed, the first ones countersigned. The public key."""
    with open_ledger_of(folder) as ledger:
        for asked in (ask(1), ask(2), ask(1, "lung")):
            reserved = ledger.reserve(asked, caps_of(load_site(site).policy.budget))
            if asked.name == "heart":
                ledger.commit(reserved, digest("vector"))
        ledger.anchor(countersign(ledger.head, COORDINATOR, NOON))
        return ledger.public_key


def open_ledger_of(folder):
    """With the real accountant."""
    return LedgerFile.open(folder, "cardiac-centre")


def ask(round_, study="heart"):
    return charge(round_, study, events=(EVENT,), delta=1e-5, target=2.0)


@pytest.fixture
def fedner(monkeypatch, capsys):
    """Runs `fedner budget` in this process, through its entry point."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedner", "budget", *map(str, arguments)])
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


def test_show_says_what_is_spent_and_left_per_unit_and_study(fedner, site, filled):
    result = fedner("show", site)
    assert result.code == 0
    epsilon = {n: accountant.epsilon([EVENT, EVENT], 1e-5, n) for n in ("pld", "prv", "rdp")}
    for value in epsilon.values():
        assert f"{value:.4f}" in result.out
    for text in ("heart", "lung", "patient", filled, "countersigned up to 6", "lifetime cap"):
        assert text in result.out
    assert f"{2.0 - epsilon['pld']:.4f}" in result.out


def test_show_as_json_has_the_figures_unrounded(fedner, site, filled):
    shown = json.loads(fedner("show", site, "--json").out)
    unit = shown["units"][0]
    whole = accountant.epsilon([EVENT] * 3, 1e-5)
    assert unit["epsilon"]["pld"] == whole
    assert (unit["cap"], unit["left"], unit["steps"]) == (3.0, 3.0 - whole, 150)
    heart, lung = shown["studies"]
    assert (heart["rounds"], heart["committed"], heart["uncommitted"]) == (2, 2, 0)
    assert (lung["rounds"], lung["committed"], lung["uncommitted"]) == (1, 0, 1)
    assert heart["left_of_cap"] == 2.0 - accountant.epsilon([EVENT] * 2, 1e-5)
    assert shown["public_key"] == filled


def test_show_without_a_ledger_says_so(fedner, site, folder):
    assert "no ledger yet" in fedner("show", site).out
    assert json.loads(fedner("show", site, "--json").out) is None
    assert not folder.exists()


def test_show_works_while_the_worker_holds_the_ledger(fedner, site, filled, folder):
    with open_ledger_of(folder):
        assert fedner("show", site).code == 0


def test_show_refuses_a_damaged_ledger_with_9(fedner, site, filled, folder):
    flip(folder / "ledger.jsonl", 2)
    result = fedner("show", site)
    assert result.code == BudgetError.exit_code
    assert "entry 2" in result.said
    assert "docs/ledger.md" in result.said


def flip(path, number):
    """Change a digit in a line."""
    lines = path.read_bytes().split(b"\n")
    changed = lines[number - 1].replace(b'"steps":50', b'"steps":10')
    assert changed != lines[number - 1]
    path.write_bytes(b"\n".join([*lines[: number - 1], changed, *lines[number:]]))


def test_verify_needs_only_the_file_and_the_key(fedner, site, filled, folder, tmp_path):
    copy = tmp_path / "copy.jsonl"
    shutil.copy(folder / "ledger.jsonl", copy)
    shutil.rmtree(folder)
    site.unlink()
    (tmp_path / "key").write_text(filled + "\n")
    for key in (filled, tmp_path / "key"):
        result = fedner("verify", copy, "--key", key)
        assert result.code == 0
        assert "7 entries of cardiac-centre, 3 reserves" in result.out
        assert "countersigned up to entry 6" in result.out


def test_verify_exits_with_9_and_names_the_first_bad_entry(fedner, filled, folder):
    path = folder / "ledger.jsonl"
    flip(path, 4)
    result = fedner("verify", path, "--key", filled)
    assert result.code == 9
    assert "entry 4" in result.said


def test_verify_finds_another_key_and_a_cut_end_by_a_head(fedner, site, filled, folder):
    path = folder / "ledger.jsonl"
    head = json.loads(fedner("show", site, "--json").out)["head"]
    assert fedner("verify", path, "--key", filled, "--head", head).code == 0
    assert fedner("verify", path, "--key", COORDINATOR.public_key).code == 9
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert fedner("verify", path, "--key", filled).code == 0
    result = fedner("verify", path, "--key", filled, "--head", head)
    assert result.code == 9
    assert "older copy" in result.said


@pytest.mark.parametrize("key", ["", "abc", "A" * 64])
def test_verify_refuses_what_is_no_key_or_no_file(fedner, filled, folder, key):
    assert fedner("verify", folder / "ledger.jsonl", "--key", key).code == UsageError.exit_code
    result = fedner("verify", folder / "none.jsonl", "--key", filled)
    assert (result.code, "remedy" in result.said) == (UsageError.exit_code, True)


def test_an_export_holds_everything_and_verifies_like_the_ledger(fedner, site, filled, tmp_path):
    out = tmp_path / "budget.json"
    assert fedner("export", site, "--out", out).code == 0
    content = json.loads(out.read_text())
    assert content["public_key"] == filled
    assert len(content["entries"]) == 7
    assert content["summary"] == json.loads(fedner("show", site, "--json").out)
    assert fedner("verify", out, "--key", filled, "--head", content["head"]).code == 0
    content["entries"][3]["body"]["events"][0]["steps"] = 1
    out.write_text(json.dumps(content))
    result = fedner("verify", out, "--key", filled)
    assert (result.code, "entry 4" in result.said) == (9, True)


def test_verify_refuses_an_export_with_a_forged_figure_and_tells_unsigned_caps(
    fedner, site, filled, tmp_path
):
    out = tmp_path / "budget.json"
    fedner("export", site, "--out", out)
    shown = fedner("verify", out, "--key", filled).out
    assert "says beside its entries follows from them" in shown
    assert "signed by nobody: its caps per patient at delta 1e-05, 3 lifetime" in shown
    content = json.loads(out.read_text())
    content["summary"]["units"][0]["epsilon"]["pld"] = 0.1
    out.write_text(json.dumps(content))
    result = fedner("verify", out, "--key", filled)
    assert result.code == 9
    assert "summary.units[0].epsilon.pld: says 0.1, its entries give" in result.said


def test_verify_names_the_countersigner_and_takes_the_coordinators_key(
    fedner, filled, folder, tmp_path
):
    (tmp_path / "coordinator").write_text(COORDINATOR.public_key + "\n")
    verify = ("verify", folder / "ledger.jsonl", "--key", filled)
    shown = fedner(*verify).out
    assert COORDINATOR.public_key in shown
    assert key_fingerprint(COORDINATOR.public_key) in shown
    for key in (COORDINATOR.public_key, tmp_path / "coordinator"):
        assert fedner(*verify, "--coordinator-key", key).code == 0
    result = fedner(*verify, "--coordinator-key", STRANGER.public_key)
    assert (result.code, STRANGER.public_key in result.said) == (9, True)
    result = fedner(*verify, "--coordinator-key", "abc")
    assert (result.code, "--coordinator-key abc" in result.said) == (2, True)


def test_verify_says_that_a_ledger_follows_a_lost_one(fedner, site, filled, folder):
    lost = json.loads(fedner("show", site, "--json").out)["head"]
    flip(folder / "ledger.jsonl", 2)
    fedner("recover", site, "--reason", "a disk failed")
    verify = ("verify", folder / "ledger.jsonl", "--key", filled)
    shown = fedner(*verify).out
    assert f"follows a lost ledger ({lost[:32]}), since: a disk failed" in shown
    assert "per patient: epsilon 3 at delta 1e-05 counts as spent" in shown
    result = fedner(*verify, "--head", lost)
    assert (result.code, "by a recovery" in result.said) == (9, True)


def test_verify_of_a_hostile_file_ends_with_9(fedner, filled, folder):
    path = folder / "ledger.jsonl"
    hostile = path.read_bytes().replace(b'"kind":"reserve"', b'"kind":["reserve"]', 1)
    path.write_bytes(hostile)
    result = fedner("verify", path, "--key", filled)
    assert (result.code, "entry 2" in result.said) == (9, True)


def test_export_replaces_no_file_and_nothing_of_a_ledger(fedner, site, filled, folder, tmp_path):
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "link").symlink_to(folder)
    before = (folder / "ledger.jsonl").read_bytes()
    for out, said in (
        (folder / "ledger.jsonl", "own folder"), (folder / "vault" / "new.json", "own folder"),
        (tmp_path / "link" / "new.json", "own folder"), (tmp_path / "old.json", "already"),
        (tmp_path / "none" / "new.json", "there is no folder"),
    ):  # fmt: skip
        result = fedner("export", site, "--out", out)
        assert (result.code, said in result.said, "remedy" in result.said) == (2, True, True)
    assert (folder / "ledger.jsonl").read_bytes() == before
    assert (tmp_path / "old.json").read_text() == "old"


def test_export_without_a_ledger_is_refused(fedner, site, tmp_path):
    result = fedner("export", site, "--out", tmp_path / "budget.json")
    assert (result.code, "remedy" in result.said) == (9, True)
    assert not (tmp_path / "budget.json").exists()


def test_recover_keeps_the_files_and_counts_the_cap_as_spent(fedner, site, filled, folder):
    assert "nothing to recover" in fedner("recover", site, "--reason", "a try").said
    flip(folder / "ledger.jsonl", 2)
    damaged = (folder / "ledger.jsonl").read_bytes()
    result = fedner("recover", site, "--reason", "a disk failed")
    assert result.code == 0
    assert "epsilon 3 at delta 1e-05 counts as spent" in result.out
    assert (folder / "ledger.lost-1").read_bytes() == damaged
    shown = fedner("show", site)
    assert "a disk failed" in shown.out
    with open_ledger_of(folder) as ledger, pytest.raises(BudgetError, match="lifetime cap"):
        ledger.reserve(ask(1, "liver"), caps_of(load_site(site).policy.budget))


def test_recover_without_caps_asks_and_takes_what_the_operator_says(fedner, site, filled, folder):
    site.write_text(SITE)
    flip(folder / "ledger.jsonl", 2)
    result = fedner("recover", site, "--reason", "a disk failed")
    assert (result.code, "--assume patient=EPSILON" in result.said) == (9, True)
    arguments = ("recover", site, "--reason", "a disk failed", "--study", digest("brain"))
    result = fedner(*arguments, "--assume", "patient=8@2e-5")
    assert "epsilon 8 at delta 2e-05 counts as spent" in result.out
    closed = json.loads(fedner("show", site, "--json").out)["closed_studies"]
    assert {digest("brain"), digest("lung")} <= set(closed)
    assert len(closed) == 4


@pytest.mark.parametrize(
    "option",
    ["--assume=patient", "--assume=person=3", "--assume=patient=-1", "--assume=patient=nan",
     "--assume=patient=3@1", "--assume=patient=3@", "--assume=patient=inf"],
)  # fmt: skip
def test_recover_refuses_a_figure_that_is_none(fedner, site, filled, option):
    assert fedner("recover", site, "--reason", "a try", option).code == UsageError.exit_code


@pytest.mark.parametrize(
    ("options", "place"),
    [(("--reason", ""), "--reason"), (("--reason", " "), "--reason"),
     (("--reason", "x" * 1001), "--reason"), (("--reason", "\udcff"), "--reason"),
     (("--reason", "a try", "--study", "heart"), "--study heart"),
     (("--reason", "a try", "--assume=patient=50@1e-4", "--assume=patient=0.001@1e-4"),
      "--assume patient=0.001@1e-4")],
)  # fmt: skip
def test_recover_refuses_wrong_texts_with_place_and_remedy(
    fedner, site, filled, folder, options, place
):
    flip(folder / "ledger.jsonl", 2)
    result = fedner("recover", site, *options)
    assert result.code == UsageError.exit_code
    assert f"error {place}: " in result.said
    assert "remedy" in result.said
    assert not (folder / "ledger.lost-1").exists()


def test_recover_takes_an_old_copy_if_told_so(fedner, site, filled):
    assert "--old-copy" in fedner("recover", site, "--reason", "a try").said
    result = fedner("recover", site, "--reason", "put back from May", "--old-copy")
    assert (result.code, "epsilon 3 at delta 1e-05 counts as spent" in result.out) == (0, True)


# --- what the site's audit log has seen


@pytest.fixture
def logged(site, filled, folder):
    """The ledger's charges and newest head stand in the site's audit log, too. The log."""
    state = read_state(folder, "cardiac-centre")[0].state
    with closing(open_log(folder.parent, name="cardiac-centre")) as log:
        log.append(*map(spend_of, state.reserves.values()), reply(ledger=str(state.head)))
    return folder.parent / "audit.jsonl"


def test_an_emptied_ledger_is_not_shown_as_nothing_spent(fedner, site, folder, logged, tmp_path):
    assert fedner("show", site).code == 0
    assert fedner("export", site, "--out", tmp_path / "budget.json").code == 0
    shutil.rmtree(folder)
    for arguments in (("show", site), ("export", site, "--out", tmp_path / "second.json")):
        result = fedner(*arguments)
        assert (result.code, "has the head" in result.said, result.out) == (9, True, "")
        assert "fedner budget recover --head" in result.said
    assert not (tmp_path / "second.json").exists()


def test_a_recovery_closes_the_studies_that_only_the_log_knows_and_names_its_ledger(
    fedner, site, folder, logged
):
    lost = json.loads(fedner("show", site, "--json").out)["ledger"]
    shutil.rmtree(folder)
    result = fedner("recover", site, "--reason", "a disk failed")
    assert (result.code, "epsilon 3 at delta 1e-05 counts as spent" in result.out) == (0, True)
    shown = json.loads(fedner("show", site, "--json").out)
    assert {digest("heart"), digest("lung")} <= set(shown["closed_studies"])
    verify = ("verify", folder / "ledger.jsonl", "--key", shown["public_key"])
    assert f"follows a lost ledger ({lost})" in fedner(*verify).out


def test_a_recovery_counts_what_the_log_has_seen_where_there_is_no_cap(
    fedner, site, folder, logged
):
    site.write_text(SITE)
    shutil.rmtree(folder)
    assert "--assume patient=EPSILON" in fedner("recover", site, "--reason", "a try").said
    fedner("recover", site, "--reason", "a disk failed", "--assume", "patient=0@1e-5")
    (row,) = json.loads(fedner("show", site, "--json").out)["units"]
    heart, lung = (accountant.epsilon([EVENT] * n, 1e-5) for n in (2, 1))
    assert row["assumed"] == {"epsilon": pytest.approx(heart + lung), "delta": 2e-5}


def test_an_old_copy_that_the_log_gives_away_is_recovered_without_a_head(
    fedner, site, filled, folder, logged
):
    """Nothing in the ledger's own folder shows it."""
    whole = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(whole[:-2]))
    old = verify_file(b"".join(whole[:-2]), filled)
    (folder / "ledger.head").write_bytes(encode_head(old.head))
    assert fedner("show", site).code == 9
    assert fedner("recover", site, "--reason", "an old copy was put back").code == 0
    assert "nothing to recover" in fedner("recover", site, "--reason", "a try").said


def test_a_broken_log_is_said_to_tell_less_and_one_that_can_not_be_read_is_refused(
    fedner, site, folder, logged, tmp_path
):
    lines = logged.read_bytes().splitlines(keepends=True)
    for damaged in (b"", b"\0" * 100 + b"\n"):  # a page that a disk has lost, too
        logged.write_bytes(b"".join([*lines[:3], damaged, *lines[4:]]))
        result = fedner("show", site)
        assert (result.code, "what is readable of it counts" in result.said) == (0, True)
    shutil.rmtree(folder)
    assert fedner("show", site).code == 9
    logged.unlink()
    logged.mkdir()
    for arguments in (
        ("show", site), ("export", site, "--out", tmp_path / "budget.json"),
        ("recover", site, "--reason", "a disk failed"),
    ):  # fmt: skip
        result = fedner(*arguments)
        assert result.code != 0
        assert f"error {logged}" in result.said
    assert not folder.exists()
    logged.rmdir()
    assert "there is no audit log" in fedner("recover", site, "--reason", "a disk failed").said


@pytest.mark.parametrize("owner", [{"name": "other-clinic"}, {"side": "coordinator"}])
def test_the_log_of_another_is_refused(fedner, site, folder, filled, owner):
    fields = {"name": "coordinator", **owner}
    with closing(open_log(folder.parent, **fields)) as log:
        log.append(reply(ledger=f"{'b' * 32}:3:{digest('head')}"))
    before = (folder / "ledger.jsonl").read_bytes()
    for arguments in (("show", site), ("recover", site, "--reason", "a try", "--old-copy")):
        result = fedner(*arguments)
        assert result.code == AuditError.exit_code
        assert "expected that of site cardiac-centre" in result.said
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_a_ledger_that_follows_a_lost_one_whose_head_nobody_gave_is_intact(
    fedner, site, folder, logged
):
    """As after a recovery of an earlier version, which did not read the log."""
    shutil.rmtree(folder)
    recover(folder, "cardiac-centre", reason="a disk failed", assume={},
            caps=caps_of(load_site(site).policy.budget))  # fmt: skip
    assert fedner("show", site).code == 0
    assert "nothing to recover" in fedner("recover", site, "--reason", "a try").said


def test_every_budget_verb_has_an_example(fedner):
    for verb in ("show", "verify", "export", "recover"):
        assert "Example: fedner budget" in fedner(verb, "--help").out
