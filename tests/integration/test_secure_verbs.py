"""Verbs on a study with secure aggregation: keys are dealt loudly and checked early."""

import stat

import pytest
import yaml
from typer.testing import CliRunner

from common.errors import IdentityError, UsageError
from common.io.configs import load_roster, load_site
from scripts.cli import app

NAMES = ("cancer-centre", "cardiac-centre", "general-hospital")


@pytest.fixture(scope="module")
def study_file(tiny_study, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(
        tiny_study(
            federation=f"{{institutions: [{', '.join(NAMES)}]}}",
            secure_aggregation="{}",
            simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
        )
    )
    return path


def fedner(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def dealt(study_file):
    done = fedner("data", "deal", study_file, "--out", study_file.parent / "f")
    assert done.exit_code == 0, done.output
    assert "DEVELOPMENT IDENTITIES" in done.output
    return study_file.parent / "f"


def test_dealt_sites_stand_on_a_pinned_roster_with_keys_of_their_own(dealt):
    roster = load_roster(dealt / "roster.yaml")
    assert roster.names == NAMES
    for name in NAMES:
        site = load_site(dealt / name / "site.yaml")
        assert site.policy.roster_sha256 == roster.sha256
        assert not site.policy.accept_secure_aggregation_none
        assert stat.S_IMODE((dealt / name / "identity" / "private.key").stat().st_mode) == 0o600
        done = fedner("config", "check", dealt / name / "site.yaml")
        assert done.exit_code == 0, done.output
        assert roster.sha256 in done.output


def test_a_site_with_anothers_key_is_found_by_the_check(dealt, tmp_path):
    first, second = (yaml.safe_load((dealt / n / "site.yaml").read_text()) for n in NAMES[:2])
    path = dealt / NAMES[0] / "stolen.yaml"
    path.write_text(yaml.safe_dump(first | {"identity": f"../{second['institution']}/identity"}))
    done = fedner("config", "check", path)
    assert isinstance(done.exception, IdentityError)


@pytest.mark.parametrize("given", [(), ("--identity", "coordinator"), ("--roster", "roster.yaml")])
def test_a_server_without_key_or_roster_does_not_start(dealt, tmp_path, given):
    options = [dealt / v if not v.startswith("--") else v for v in given]
    done = fedner("server", dealt / "study.yaml", "--out", tmp_path / "run", *options)
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "run").exists()


def test_a_server_with_an_institutions_key_does_not_start(dealt, tmp_path):
    keys = ("--identity", dealt / NAMES[0] / "identity", "--roster", dealt / "roster.yaml")
    done = fedner("server", dealt / "study.yaml", "--out", tmp_path / "run", *keys)
    assert isinstance(done.exception, IdentityError)
    assert not (tmp_path / "run").exists()


def test_ray_is_refused(study_file, tmp_path):
    done = fedner("simulate", study_file, "--engine", "ray", "--out", tmp_path / "run")
    assert isinstance(done.exception, UsageError)
    assert "secure aggregation" in done.exception.message


@pytest.mark.parametrize("verb", ["simulate", "deal"])
def test_a_study_that_names_its_roster_is_not_played_with_made_up_keys(study_file, tmp_path, verb):
    text = study_file.read_text().replace(
        "secure_aggregation: {}", f"secure_aggregation: {{roster_sha256: {'ab' * 32}}}"
    )
    (tmp_path / "study.yaml").write_text(text)
    arguments = ("simulate",) if verb == "simulate" else ("data", "deal")
    done = fedner(*arguments, tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert isinstance(done.exception, UsageError)
    assert "names its roster" in done.exception.message
