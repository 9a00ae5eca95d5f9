"""Verbs on a study with secure aggregation: keys are dealt loudly and checked early."""

import json
import shutil
import stat

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from common import __version__
from common.config.canonical import study_yaml
from common.errors import EncoderError, FederationError, IdentityError, UsageError
from common.io.configs import load_roster, load_site, load_study
from common.io.encoders import resolve_encoder
from common.io.models import load_model
from common.model.ner import NerModel
from scripts.cli import app
from server.optimizer import ServerOptimizer
from server.origin import SERVER_LOCK, Origin, alone
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


# --- a run that ended before its last round


@pytest.fixture
def ended(begun, tiny_encoder):
    """It ended after round 1 of 2: the last checkpoint is all that it has."""
    study = begun.study()
    _, encoder = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    model = NerModel(tiny_encoder, study, "cpu")
    optimizer = ServerOptimizer.start(study.aggregation, model.layout.size)
    optimizer.step(np.full(model.layout.size, 1e-3, np.float32))
    begun.record(
        "start", study, encoder=encoder.fingerprint, layout=model.layout.digest(),
        initial=model.initial_digest,
    )  # fmt: skip
    begun.save_checkpoint(optimizer, 1, {})
    begun.set_status("failed", "too few institutions")
    return begun


def test_the_model_of_a_run_that_ended_early_says_that_it_is_not_finished(ended, tiny_encoder):
    done = fedner("server", "--partial", ended.path)
    assert done.exit_code == 0, done.output
    assert "UNFINISHED" in done.output
    folder = ended.path / "model-round-1"
    manifest = json.loads((folder / "fedner.json").read_text())
    assert (manifest["finished"], manifest["rounds"], manifest["planned_rounds"]) == (False, 1, 2)
    assert manifest["notices"][0].startswith("UNFINISHED. The model after round 1 of 2.")
    assert manifest["notices"][0] in (folder / "README.md").read_text()
    saved, delta = load_model(folder, "cpu"), ended.load_delta()[0]
    assert delta.any()
    before = NerModel(tiny_encoder, ended.study(), "cpu")
    before.set_delta(delta)
    for one, two in zip(saved.module.parameters(), before.module.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not (ended.path / "model").exists()  # and the run can be gone on with
    again = fedner("server", "--partial", ended.path).exception
    assert isinstance(again, UsageError)
    assert "is there already" in again.message


def test_only_an_unfinished_run_with_a_round_has_a_partial_model(begun, ended):
    ended.set_status("finished")
    assert "is finished" in fedner("server", "--partial", ended.path).exception.message
    ended.set_status("failed")
    whole = (ended.path / "checkpoint.npz").read_bytes()
    (ended.path / "checkpoint.npz").write_bytes(whole[:-100])
    done = fedner("server", "--partial", ended.path).exception
    assert isinstance(done, FederationError)
    assert "damaged" in done.message
    (ended.path / "checkpoint.npz").unlink()
    done = fedner("server", "--partial", ended.path).exception
    assert "no round was finished" in done.message
    assert not list(ended.path.glob("*model*"))


def test_a_run_that_is_being_served_has_no_partial_model(ended):
    with alone(ended, SERVER_LOCK):
        error = fedner("server", "--partial", ended.path).exception
    assert "in use by another process" in error.message


def test_a_partial_model_is_of_the_encoder_that_the_institutions_had(ended):
    path = ended.path / "metrics.jsonl"
    path.write_text(path.read_text().replace(ended.events("start")[0]["initial"], "ab" * 32))
    done = fedner("server", "--partial", ended.path).exception
    assert isinstance(done, EncoderError)
    assert not list(ended.path.glob("*model*"))


@pytest.mark.parametrize("more", [("study.yaml",), ("--resume", "x"), ("--address", "127.0.0.1:1")])
def test_a_partial_model_is_asked_for_alone(ended, more):
    assert (
        "--partial RUN alone" in fedner("server", "--partial", ended.path, *more).exception.remedy
    )
