"""An institution's own report: real workers' figures, each looked up; nothing of it at the run."""

import json
import re

import pytest
from typer.testing import CliRunner

from client.app import make_app
from client.figures import SiteFigures
from client.site_paths import SitePaths
from client.worker import make_session
from common.io.configs import load_site, load_study
from common.io.datasets import load_sides
from common.io.encoders import resolve_encoder
from common.io.flower_internals import LocalGrid
from common.metrics.entities import as_json
from common.model.ner import NerModel
from scripts.cli import app
from server.app import run_study
from server.run_dir import RunDir
from tests.integration.test_report import (
    PRIVACY,
    WITHOUT_FIGURES,
    Reader,
    dig,
    looked_up,
    says,
)

NAMES = ("north", "east")


def fedner(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def own_run(folder, name):
    """The folder of a site's figures, read as a run's."""
    (found,) = (folder / "f" / name / "state" / "figures").iterdir()
    return RunDir(found)


def carried_out(folder, study_text):
    """A study over workers' sessions as `client.worker` makes them, in this process."""
    (folder / "source.yaml").write_text(study_text)
    fedner("data", "deal", folder / "source.yaml", "--out", folder / "f")
    handles, sessions = {}, []
    for name in NAMES:
        path = folder / "f" / name / "site.yaml"
        site, study = load_site(path), load_study(path.parent / load_site(path).study)
        paths = SitePaths.of(site, path.parent)
        paths.state.mkdir()
        figures = SiteFigures(study, name, paths)
        session = make_session(site, path.parent, None, figures)
        sessions.append(session)
        handles[name] = figures.answering(session.handle, lambda s=session: s.ledger)
    run = RunDir.create(folder / "run", (folder / "f" / "study.yaml").read_text())
    nodes = [{"institution": name} for name in NAMES]
    app_of = make_app(lambda context: handles[str(context.node_config["institution"])])
    with LocalGrid(app_of, nodes, {"run-dir": str(run.path)}) as grid:
        run_study(grid, run, home=folder / "coordinator")
    for session in sessions:
        session.close()
    return run


GROUPED = ("--smallest", 2, "--json", "--groups")


def groups_of(corpus):
    """By document, two groups and two that are too small."""
    ids = [json.loads(line)["doc_id"] for line in corpus.read_text().splitlines()]
    assert len(ids) > 5
    rows = [f"{name}\t{'xy'[i] if i < 2 else 'fm'[i % 2]}\n" for i, name in enumerate(ids)]
    return "document\tsex\n" + "".join(rows)


@pytest.fixture(scope="module")
def study(tiny_study):
    return tiny_study(
        study="own",
        privacy=PRIVACY,
        training="{rounds: 3, learning_rate: 1e-2, precision: float32}",
        federation=f"{{institutions: [{', '.join(NAMES)}], evaluate_every: 1}}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
        secure_aggregation="none",
        model="{train: head, dropout: 0}",
    )


@pytest.fixture(scope="module")
def reported(study, tmp_path_factory):
    """The folder of a private study, with north's report and its model alone."""
    folder = tmp_path_factory.mktemp("own")
    carried_out(folder, study)
    site = folder / "f" / "north" / "site.yaml"
    fedner("train", site, "--without-mechanism", "--out", folder / "alone")
    (folder / "groups.tsv").write_text(groups_of(site.parent / "test.jsonl"))
    scored = fedner("evaluate", folder / "alone" / "model", site, *GROUPED, folder / "groups.tsv")
    (folder / "groups.json").write_text(scored)
    given = ("--alone", folder / "alone", "--groups", folder / "groups.json")
    fedner("report", site, *given, "--out", folder / "pages")
    return folder


def test_every_figure_of_a_sites_report_is_what_stands_at_its_source(reported):
    read = Reader((reported / "pages" / "report.html").read_text())
    state, alone = own_run(reported, "north"), RunDir(reported / "alone")
    assert len(read.figures) > 60
    for attributes, text in read.figures:
        source = attributes["data-source"]
        if source.startswith("groups.json "):
            found = dig(json.loads((reported / "groups.json").read_text()), source.split(" ", 1)[1])
        else:
            of = alone if source.startswith("alone/") else state
            found = looked_up(of, source.removeprefix("alone/"))
        assert says(text, found), (attributes, text)
    sources = " ".join(attributes["data-source"] for attributes, _ in read.figures)
    for path in ("f1", "epsilon", "epsilon_planned", "entities micro recall", "bytes_up"):
        assert re.search(rf"metrics\.jsonl:\d+ {path}( |$)", sources), path
    assert re.search(r"groups.json groups attributes 0 gaps recall p_value", sources)
    assert re.search(r"alone/metrics\.jsonl:\d+ entities micro f1", sources)
    for words in read.words:
        assert not re.search(r"\d", WITHOUT_FIGURES.sub("", words)), words


def test_it_says_that_it_stays_and_what_was_trained_without_the_mechanism(reported):
    html = (reported / "pages" / "report.html").read_text()
    assert "THIS SITE ALONE" in html
    assert "privacy: " in html
    card = (reported / "alone" / "model" / "README.md").read_text()
    assert "PRIVACY: NONE" in card
    assert "epsilon" not in card


def test_own_scores_are_exact_although_noised_counts_leave(reported):
    """Those of the shared model after the last round, evaluated again on the same documents."""
    path = reported / "f" / "north" / "site.yaml"
    site, study = load_site(path), load_study(path.parent / load_site(path).study)
    folder, _ = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    model = NerModel(folder, study, "cpu")
    model.set_delta(RunDir(reported / "run").load_delta()[0])
    again = model.evaluate(
        model.prepare(load_sides(site.data, study.task.labels, path.parent).test)
    )
    lines = own_run(reported, "north").events("evaluate")
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert lines[-1]["entities"] == as_json(again.entity_report())
    assert lines[-1]["f1"] == again.f1
    (told,) = [e for e in RunDir(reported / "run").events("evaluation") if e["round"] == 3]
    assert told["noised"]


def test_a_mechanism_is_left_out_only_where_that_is_said(reported, tmp_path):
    site = reported / "f" / "north" / "site.yaml"
    done = CliRunner().invoke(app, ["train", str(site), "--out", str(tmp_path / "run")])
    assert done.exit_code != 0
    assert "no privacy mechanism" in str(done.exception)
    assert "--without-mechanism" in done.exception.remedy
    assert not (tmp_path / "run").exists()


def test_another_sites_run_and_a_worker_that_wrote_nothing_are_refused(reported, tmp_path):
    east = reported / "f" / "east" / "site.yaml"
    done = CliRunner().invoke(app, ["report", str(east), "--alone", str(reported / "alone")])
    assert "not a run that trained and was tested on this site's documents" in str(done.exception)
    given = ["--groups", str(reported / "groups.json")]
    done = CliRunner().invoke(app, ["report", str(east), *given])
    assert "scores of north" in str(done.exception)
    (own_run(reported, "east").path / "metrics.jsonl").rename(tmp_path / "away")
    done = CliRunner().invoke(app, ["report", str(east)])
    assert "has written no figures of this study yet" in str(done.exception)


def test_a_model_that_was_tested_on_everybodys_documents_is_no_comparison(reported, tmp_path):
    """`fedner train STUDY --on north` has the same name and other documents."""
    source = reported / "source.yaml"
    arguments = ("--on", "north", "--without-mechanism", "--out", tmp_path / "north")
    fedner("train", source, *arguments)
    site = reported / "f" / "north" / "site.yaml"
    done = CliRunner().invoke(app, ["report", str(site), "--alone", str(tmp_path / "north")])
    assert "tested on this site's documents" in str(done.exception)


def test_of_a_study_begun_again_the_latest_run_is_shown(reported, tmp_path):
    own = own_run(reported, "north")
    before = (own.path / "metrics.jsonl").read_text()
    again = [json.loads(line) for line in before.splitlines()]
    again = [{**e, "f1": 0.125} if "f1" in e else e for e in again if e.get("round", 1) == 1]
    text = "".join(json.dumps(e) + "\n" for e in again)
    (own.path / "metrics.jsonl").write_text(before + text)
    site = reported / "f" / "north" / "site.yaml"
    try:
        fedner("report", site, "--out", tmp_path)
        shown = fedner("watch", site, "--once")
    finally:
        (own.path / "metrics.jsonl").write_text(before)
    assert "after the last evaluation: 0.1250." in (tmp_path / "report.md").read_text()
    assert "round 1 of 3" in shown
