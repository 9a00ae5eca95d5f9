"""The utility bench: what a cell is, that it runs once, and what its table takes means of."""

import json
import math
from dataclasses import replace

import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant

from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.privacy import Search, Trials
from common.config.study import Encoder
from common.errors import DataError, UsageError
from common.io.configs import load_study
from common.io.models import load_model
from common.privacy.accountant import epsilon
from common.privacy.events import GaussianSteps
from common.privacy.plan import plan_of
from scripts.benchmarks import utility
from scripts.benchmarks.public_start import Start
from scripts.benchmarks.utility import (
    CELLS,
    by_document,
    finished,
    parts_of,
    printed_study,
    run_cells,
    setting_of,
    study_of,
    table,
)
from scripts.simulation import Bench
from tests import tiny

ELSEWHERE = Start(
    folder=tiny.Path("/nowhere/public-start-000000000000"),
    encoder=Encoder(name="public-start-000000000000", weights_sha256="a" * 64),
    directions_sha256="b" * 64,
)
SMALL_RANK = 16
PRIVATE_CELLS = [cell for cell in CELLS if not cell.endswith("/none")]


# --- what a cell is


def test_the_cells_are_both_arrangements_at_every_epsilon_with_the_goal_first():
    assert CELLS[0] == "pooled/record/8"
    assert {parts_of(cell) for cell in CELLS} == {
        ("pooled", "document", 8.0),
        *(
            (arrangement, "record", epsilon)
            for arrangement in ("pooled", "federated")
            for epsilon in (8.0, 3.0, 1.0, None)
        ),
    }


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_decodes_alike_and_tests_its_last_model_alone(cell):
    study = study_of(cell, 1, ELSEWHERE)
    assert study.task.abbreviations == "as_defined"
    assert study.federation.evaluate_every == study.training.rounds


@pytest.mark.parametrize(
    "cell", ["", "pooled", "pooled/record", "alone/record/8", "pooled/record/8/1"]
    + [f"pooled/record/{e}" for e in ("", "0", "-1", "inf", "nan", "many")],
)  # fmt: skip
def test_what_is_no_cell_is_refused(cell):
    with pytest.raises(UsageError, match="not a cell"):
        study_of(cell, 1, ELSEWHERE)


def test_a_unit_whose_search_is_not_accounted_is_refused():
    with pytest.raises(UsageError, match="has not been accounted"):
        study_of("pooled/patient/8", 1, ELSEWHERE)


def test_a_search_on_records_costs_a_document_at_least_what_exact_accounting_finds():
    """Against the mixture of Gaussians of a document whose sentences all move alike."""
    records = Search(
        trials=(Trials(runs=1, sampling_rate=0.1, noise_multiplier=2.0, steps=3),), description="x"
    )
    (trial,) = by_document(records, 5).trials
    ours = epsilon((GaussianSteps(sampling_rate=trial.sampling_rate,
        noise_multiplier=trial.noise_multiplier, steps=trial.steps),), 1e-5)  # fmt: skip
    chances = [math.comb(5, j) * 0.1**j * 0.9 ** (5 - j) for j in range(6)]
    exact = PLDAccountant()
    exact.compose(MixtureOfGaussiansDpEvent(2.0, list(range(6)), chances), 3)
    assert exact.get_epsilon(1e-5) < ours
    assert by_document(records, 1).trials[0].sampling_rate == pytest.approx(0.1)


def test_a_cell_of_documents_prints_what_the_search_on_records_costs_a_document():
    study = study_of("pooled/document/8", 1, ELSEWHERE)
    plan = plan_of(study, "north")
    assert (study.local_privacy.unit, plan.mechanism.unit) == ("document", "document")
    assert plan.epsilon <= 8
    assert plan.epsilon_with_search(plan.delta) > 1000


@pytest.mark.parametrize("cell", [c for c in PRIVATE_CELLS if "/record/" in c])
def test_a_private_cell_has_its_epsilon_and_declares_every_trial_of_the_search(cell):
    study = study_of(cell, 2, ELSEWHERE)
    declared = load_study(utility.PRIVATE).local_privacy
    privacy = study.local_privacy
    assert privacy.settings_from == "search"
    assert privacy.search == declared.search
    assert (privacy.epsilon, privacy.delta, privacy.unit) == (parts_of(cell)[2], 1e-5, "record")
    assert study.model.lora.core
    assert study.model.lora.directions_sha256 == ELSEWHERE.directions_sha256
    assert study.training.seed == 2
    assert study.encoder == ELSEWHERE.encoder


def test_the_setting_of_the_goal_cell_is_among_the_declared_trials():
    plan = plan_of(study_of("federated/record/8", 1, ELSEWHERE), "north")
    same = [
        t
        for t in load_study(utility.PRIVATE).local_privacy.search.trials
        if (t.sampling_rate, t.noise_multiplier, t.steps)
        == (plan.mechanism.sampling_rate, plan.mechanism.noise_multiplier, plan.steps)
    ]
    assert len(same) == 1
    assert plan.epsilon <= 8 < plan.epsilon_with_search(plan.delta)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.endswith("/none")])
def test_a_cell_without_a_mechanism_has_none(cell):
    assert study_of(cell, 1, ELSEWHERE).local_privacy is None


def test_seeds_share_a_setting_and_cells_do_not():
    def setting(cell, seed, start=ELSEWHERE):
        return setting_of(study_of(cell, seed, start))

    assert setting(CELLS[0], 1) == setting(CELLS[0], 3)
    others = [setting(cell, 1) for cell in PRIVATE_CELLS if cell.startswith("pooled")]
    assert len(set(others)) == len(others)
    other = replace(ELSEWHERE, directions_sha256="c" * 64)
    assert setting(CELLS[0], 1) != setting(CELLS[0], 1, other)


# --- the printed study


def test_a_printed_study_is_the_cells_own_and_says_how_its_encoder_is_made():
    text = printed_study("federated/record/8", 1, ELSEWHERE)
    printed = parse_study(text, "printed.yaml")
    assert study_hash(printed) == study_hash(study_of("federated/record/8", 1, ELSEWHERE))
    assert printed.simulation == load_study(utility.PRIVATE).simulation
    assert str(ELSEWHERE.folder.parent) not in text
    said = text.split("\n")[:4]
    assert all(line.startswith("#") for line in said)
    assert "#     scripts/bench public-start --folder runs" in said
    assert f"#     fedner encoder add runs/{printed.encoder.name}" in said


def test_no_study_is_printed_of_pooled_data():
    with pytest.raises(UsageError, match="no study file"):
        printed_study("pooled/record/8", 1, ELSEWHERE)


# --- runs, of a tiny encoder on synthetic notes


@pytest.fixture(scope="module")
def start(torch_quiet, tmp_path_factory):
    folder = tiny.bert_folder(tmp_path_factory.mktemp("starts") / "public-start-tiny")
    directions = tiny.add_directions(folder, SMALL_RANK)
    encoder = Encoder(name=folder.name, weights_sha256=tiny.sha256(folder / "model.safetensors"))
    return Start(folder=folder, encoder=encoder, directions_sha256=directions)


@pytest.fixture
def small(start, tmp_path, monkeypatch):
    """The bench's two studies, small: two institutions, synthetic notes."""
    monkeypatch.setattr(utility, "RANK", SMALL_RANK)
    privacy = (
        "{mechanism: local, unit: record, epsilon: 8, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
        "steps_per_round: 1, declared_units: 20, optimizer: sgd, schedule: constant, "
        "evaluation: {epsilon: 1, clip: 3}, settings_from: search, search: {trials: "
        "[{runs: 2, sampling_rate: 0.5, noise_multiplier: 2.0, steps: 3}], description: two}}"
    )
    changes = {
        "privacy": privacy,
        "text": "{context: sentence, max_tokens: 48, overlap_tokens: 8}",
        "model": "{train: lora, lora: {rank: 2, freeze_a: true}, dropout: 0}",
        "aggregation": "{optimizer: adam, learning_rate: 5e-3, average: 0.5}",
        "training": "{rounds: 2, learning_rate: 1.0, precision: float32}",
    }
    (tmp_path / "private.yaml").write_text(tiny.study_text(start.folder, **changes))
    (tmp_path / "open.yaml").write_text(tiny.study_text(start.folder))
    monkeypatch.setattr(utility, "PRIVATE", tmp_path / "private.yaml")
    monkeypatch.setattr(utility, "OPEN", tmp_path / "open.yaml")
    monkeypatch.setattr(utility, "ROUNDS", 2)
    return tmp_path / "runs" / "utility.jsonl"


def test_a_cell_is_run_once_for_each_seed_and_then_no_more(small, start, capsys):
    run_cells(["pooled/record/8"], [1], start, small)
    first = small.read_bytes()
    (row,) = finished(small)
    assert 0 <= row["f1"] <= 1
    assert row["epsilon"] <= 8 < row["epsilon_with_search"]
    assert row["start"] == start.encoder.weights_sha256
    run_cells(["pooled/record/8"], [1], start, small)
    assert small.read_bytes() == first
    run_cells(["pooled/record/8"], [1, 2], start, small)
    assert small.read_bytes().startswith(first)
    assert [(r["cell"], r["seed"]) for r in finished(small)] == [
        ("pooled/record/8", 1),
        ("pooled/record/8", 2),
    ]
    assert capsys.readouterr().out.count("F1") == 2


def test_a_model_that_is_kept_predicts_as_the_one_that_was_scored(small, start, tmp_path):
    run_cells(["pooled/record/8"], [1], start, small, keep=tmp_path / "models")
    (row,) = finished(small)
    folder = tmp_path / "models" / "pooled-record-8-1"
    model = load_model(folder)
    where = replace(start.encoder, name=str(start.folder))
    study = replace(study_of("pooled/record/8", 1, start), encoder=where)
    data = Bench.of(study, tmp_path).all_test
    report = model.evaluate(model.prepare(data)).entity_report()
    assert report["micro"].f1 == row["f1"]


def test_the_same_start_in_another_place_is_the_same_start(small, start, tmp_path):
    run_cells(["federated/record/8"], [1], start, small)
    first = small.read_bytes()
    start.folder.rename(tmp_path / "moved")
    try:
        moved = replace(start, folder=tmp_path / "moved")
        run_cells(["federated/record/8"], [1], moved, small)
    finally:
        (tmp_path / "moved").rename(start.folder)
    assert small.read_bytes() == first


def test_a_torn_last_line_is_cut_off_and_its_cell_runs_again(small, start):
    run_cells(["pooled/record/none"], [1], start, small)
    whole = small.read_bytes()
    for torn in (whole[:-1], whole + whole[:40]):
        small.write_bytes(torn)
        assert len(finished(small)) == torn.count(b"\n")
        run_cells(["pooled/record/none"], [1], start, small)
        lines = small.read_text("utf-8").splitlines()
        assert [json.loads(line)["cell"] for line in lines] == ["pooled/record/none"]


def test_a_cell_at_other_settings_is_another_cell(small, start, monkeypatch):
    run_cells(["pooled/record/8"], [1], start, small)
    monkeypatch.setattr(utility, "LEARNING_RATE", 5e-3)
    run_cells(["pooled/record/8"], [1], start, small)
    rows = finished(small)
    assert len({r["key"] for r in rows}) == len({r["setting"] for r in rows}) == 2


def test_a_wrong_cell_is_refused_before_any_is_run(small, start):
    with pytest.raises(UsageError):
        run_cells(["pooled/record/8", "pooled/patient/8"], [1], start, small)
    assert not small.exists()


# --- results


def row(**changes):
    return {
        "cell": "pooled/record/8",
        "key": "k",
        "seed": 1,
        "f1": 0.5,
        "epsilon": 7.99,
        "epsilon_with_search": 56.7,
        "noise_multiplier": 1.103,
        "start": "5" * 64,
        "setting": "7" * 64,
        "commit": "abc1234",
    } | changes


def cells_of(text):
    lines = text.strip().split("\n")[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_seeds_of_one_setting_are_one_row_with_their_mean():
    (line,) = cells_of(table([row(), row(seed=2, f1=0.7, key="l")], []))
    assert line == [
        "pooled/record/8", "7.99", "56.7", "1.103", "55555555", "77777777", "abc1234",
        "1: 0.5000, 2: 0.7000", "0.6000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"start": "6" * 64},
        {"setting": "8" * 64},
        {"commit": "abc1234-dirty"},
        {"cell": "federated/record/8"},
        {"noise_multiplier": 1.2},
    ],
)
def test_rows_of_another_start_setting_commit_or_cell_are_never_averaged_together(other):
    lines = cells_of(table([row(), row(seed=2, f1=0.7, **other)], []))
    assert sorted(line[-1] for line in lines) == ["0.5000", "0.7000"]


def test_lines_of_older_commits_that_name_no_setting_stand_alone():
    old = [{k: v for k, v in row(seed=s, key=str(s)).items() if k != "setting"} for s in (1, 2)]
    assert len(cells_of(table(old, []))) == 2


def test_the_table_alone_needs_no_start_and_makes_none(tmp_path, capsys):
    out = tmp_path / "utility.jsonl"
    out.write_text(json.dumps(row()) + "\n")
    assert utility.main(["--out", str(out), "--table", "--cells", "pooled/record/8"]) == 0
    assert capsys.readouterr().out.strip() == table([row()], []).strip()
    assert list(tmp_path.iterdir()) == [out]


def test_what_was_not_run_is_named():
    lines = cells_of(table([row()], ["pooled/record/8", "pooled/record/1"]))
    assert [line[0] for line in lines] == ["pooled/record/8", "pooled/record/1"]
    assert lines[1][-2:] == ["not run", ""]


def test_a_damaged_line_within_the_file_is_refused_by_its_place(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps(row()) + '\n{"cell": "poo{"cell"}\n' + json.dumps(row()) + "\n")
    with pytest.raises(DataError, match=r"out\.jsonl:2"):
        finished(out)
