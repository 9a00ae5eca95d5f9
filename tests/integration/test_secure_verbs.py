"""Verbs on a study with secure aggregation: keys are dealt loudly and checked early."""

import shutil
import stat

import pytest
import yaml
from typer.testing import CliRunner

from common import __version__
from common.config.canonical import study_yaml
from common.errors import IdentityError, UsageError
from common.io.configs import load_roster, load_site, load_study
from scripts.cli import app
from server.origin import Origin
from server.run_dir import RunDir
from server.standing import Whereabouts, standing_of

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


# --- going on with a run


@pytest.fixture
def begun(dealt, tmp_path):
    """A run folder as `fedner server` leaves it when it is killed before anyone came."""
    study = load_study(dealt / "study.yaml")
    where = Whereabouts.of(dealt / "coordinator", dealt / "roster.yaml", None)
    run = RunDir.create(tmp_path / "run", study_yaml(study))
    where.save(run)
    Origin.of(study, where.open(study), "127.0.0.1:9192").save(run)
    run.set_status("running")
    return run


@pytest.mark.parametrize(
    "more", [("--out", "x"), ("--identity", "x"), ("--roster", "x"), ("study.yaml",)]
)
def test_a_resumed_server_takes_what_the_run_has_and_nothing_else(begun, more):
    done = fedner("server", "--resume", begun.path, *more)
    assert isinstance(done.exception, UsageError)
    assert "--resume RUN alone" in done.exception.remedy


def test_a_server_needs_a_study_or_a_run(tmp_path):
    assert "expected STUDY, or --resume RUN" in fedner("server").exception.message
    assert "not a run folder" in fedner("server", "--resume", tmp_path).exception.message


def test_a_study_changed_since_is_refused(begun):
    path = begun.path / "study.yaml"
    path.write_text(path.read_text().replace("rounds: 2", "rounds: 3"))
    done = fedner("server", "--resume", begun.path)
    assert isinstance(done.exception, UsageError)
    assert "began with: the study" in done.exception.message


def test_another_version_of_fedner_is_refused(begun):
    path = begun.path / "origin.json"
    path.write_text(path.read_text().replace(__version__, "0.0.0"))
    done = fedner("server", "--resume", begun.path)
    assert "began with: fedner's version" in done.exception.message
    assert "fedner 0.0.0" in done.exception.remedy


def test_another_identity_than_the_rosters_is_refused(begun, dealt):
    path = begun.path / "standing.json"
    path.write_text(path.read_text().replace("/coordinator", f"/{NAMES[0]}/identity"))
    assert isinstance(fedner("server", "--resume", begun.path).exception, IdentityError)


def test_a_roster_that_is_withdrawn_meanwhile_stays_the_runs(dealt, tmp_path):
    """As `fedner enrol revoke` does: the study goes on under the roster that sites have pinned."""
    given = shutil.copy(dealt / "roster.yaml", tmp_path / "roster.yaml")
    study = load_study(dealt / "study.yaml")
    where = Whereabouts.of(dealt / "coordinator", given, None)
    run = RunDir.create(tmp_path / "run", study_yaml(study))
    where.save(run)
    before = where.open(study).roster.sha256
    given.unlink()
    standing = standing_of(run)
    assert standing is not None
    assert standing.roster.sha256 == before


def test_a_roster_that_is_not_that_of_the_beginning_is_refused(begun):
    path = begun.path / "origin.json"
    origin = Origin.read(begun)
    path.write_text(path.read_text().replace(origin.roster, "ab" * 32))
    done = fedner("server", "--resume", begun.path)
    assert "began with: the roster" in done.exception.message
