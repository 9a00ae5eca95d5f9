"""The head of a model card, as the hub's own library reads it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from common.card import Evaluated, front_matter
from common.io.configs import load_study

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def study():
    return load_study(CONFIGS / "quickstart.yaml")


def read(text):
    return ModelCard(text + "# x\n").data


def test_scores_come_out_as_the_hub_reads_them(study):
    row = {"precision": 0.91239, "recall": 0.8, "f1": 0.85, "support": 3}
    other = {**row, "f1": 0.5}
    evaluated = Evaluated(on="held-out documents of 4 institutions",
                          entities={"Drug": row, "micro": other, "macro": row})  # fmt: skip
    data = read(front_matter(study, evaluated))
    found = {(r.metric_type, r.metric_name): r.metric_value for r in data.eval_results}
    assert found["precision", "precision, Drug"] == 0.9124
    assert found["f1", "f1, micro"] == 0.5
    assert len(found) == 6
    assert data.model_name == "quickstart"
    assert data.eval_results[0].dataset_name == "held-out documents of 4 institutions"


def test_nothing_is_said_that_nobody_stated(study):
    data = read(front_matter(study))
    assert data.license == "unknown"
    assert data.language is None
    assert data.eval_results is None


def test_what_was_stated_is_said(study):
    data = read(front_matter(study, licence="apache-2.0", language="de"))
    assert (data.license, data.language) == ("apache-2.0", "de")
    assert not hasattr(data, "widget"), "an English example for a model that reads German"


def test_a_known_encoder_has_its_name_at_the_hub_and_a_folder_keeps_its_path(study):
    assert read(front_matter(study)).base_model == "sentence-transformers/all-MiniLM-L6-v2"
    local = replace(study.encoder, name="/home/someone/secret/bert", weights_sha256=64 * "0")
    text = front_matter(replace(study, encoder=local))
    assert read(text).base_model == "bert"
    assert "someone" not in text


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*-4*.yaml")))
def test_tags_say_what_protects_the_study_and_nothing_more(name):
    study = load_study(CONFIGS / name)
    tags = yaml.safe_load(front_matter(study).strip("-\n"))["tags"]
    assert ("differential-privacy" in tags) == (study.local_privacy is not None)
    assert ("secure-aggregation" in tags) == (study.secure is not None)
