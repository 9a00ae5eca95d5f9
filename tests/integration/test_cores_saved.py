"""Models with cores, trained, saved and loaded again: the same predictions, by anyone."""

from functools import cache

import numpy as np
import pytest

from common.data.labels import bio_tags
from common.data.records import Document, span
from common.io.models import load_model, save_model
from common.model.build import merged
from common.model.core import CoreAdapter
from common.model.inputs import Collator
from common.model.ner import NerModel
from common.model.train import Stage
from tests import tiny

RANK = 4
STAGE = Stage(start=0.0, end=1.0, seed_text="cores")
TEXTS = (
    ("He has fever .", "fever", "Symptom"),
    ("No chest pain today , but severe nausea at night .", "chest pain", "Symptom"),
    ("Known asthma .", "asthma", "Disease"),
    ("On metoprolol since spring .", "metoprolol", "Medication"),
)
DOCUMENTS = tuple(
    Document(
        doc_id=f"d{i}",
        text=text,
        entities=(span(text.index(what), text.index(what) + len(what), label),),
    )
    for i, (text, what, label) in enumerate(TEXTS)
)


@pytest.fixture(scope="module")
def trained(torch_quiet, tmp_path_factory):
    """A model of a family that cores have been trained in, and the folder of its encoder."""
    base = tmp_path_factory.mktemp("cored")

    @cache
    def make(family):
        folder = tiny.FAMILIES[family](base / family)
        pinned = tiny.add_directions(folder, RANK)
        lora = f"{{rank: {RANK}, alpha: 16, core: true, directions_sha256: {pinned}}}"
        study = tiny.study(
            folder,
            model=f"{{train: lora, lora: {lora}, dropout: 0}}",
            training="{rounds: 1, batch_size: 2, learning_rate: 3e-2, precision: float32}",
        )
        model = NerModel(folder, study, "cpu")
        model.fit(model.prepare(DOCUMENTS), STAGE, epochs=30)
        return model, folder

    return make


@pytest.fixture
def saved(trained, tmp_path):
    def save(family):
        model, folder = trained(family)
        save_model(model, folder, tmp_path / "model", {"rounds": 1})
        return model, tmp_path / "model"

    return save


def logits(module, model):
    import torch

    batch = Collator.of(model.module, model.tokenizer)(model.prepare(DOCUMENTS).windows, None)
    module.eval()
    with torch.inference_mode():
        return module(**batch).logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_saved_model_with_cores_predicts_what_it_did_before(saved, family):
    model, folder = saved(family)
    again = load_model(folder, "cpu")
    before, after = model.prepare(DOCUMENTS), again.prepare(DOCUMENTS)
    assert before.windows == after.windows
    assert any(model.predict(before))
    assert model.predict(before) == again.predict(after)
    assert model.evaluate(before).counts.tolist() == again.evaluate(after).counts.tolist()
    assert np.allclose(logits(again.module, again), logits(model.module, model), atol=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_saved_is_not_the_model_without_its_cores(saved, family):
    model, folder = saved(family)
    cores = [p for n, p in model.module.named_parameters() if n.endswith(".core.weight")]
    assert cores
    assert all(p.any() for p in cores)
    kept = model.delta()
    bare = kept.copy()
    at = 0
    for name, shape in zip(model.layout.names, model.layout.shapes, strict=True):
        size = int(np.prod(shape))
        if name.endswith(".core.weight"):
            bare[at : at + size] = 0
        at += size
    model.set_delta(bare)
    without = logits(model.module, model)
    model.set_delta(kept)
    again = load_model(folder, "cpu")
    assert not np.allclose(logits(again.module, again), without, atol=1e-2)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_transformers_loads_a_saved_model_with_cores_without_us(saved, family):
    from transformers import AutoModelForTokenClassification

    model, folder = saved(family)
    plain, report = AutoModelForTokenClassification.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert tuple(plain.config.id2label.values()) == bio_tags(model.labels)
    assert np.allclose(logits(plain, model), logits(model.module, model), atol=1e-4)


def test_saving_leaves_the_cores_in_the_model(trained, tmp_path):
    model, folder = trained("bert")
    before = model.delta().tobytes()
    save_model(model, folder, tmp_path / "model", {})
    assert model.delta().tobytes() == before
    assert any(isinstance(m, CoreAdapter) for m in model.module.modules())


def test_the_saved_folder_is_an_encoder_that_new_cores_start_from(saved):
    import torch

    model, folder = saved("bert")
    pinned = tiny.add_directions(folder, RANK)
    lora = f"{{rank: {RANK}, core: true, directions_sha256: {pinned}}}"
    study = tiny.study(folder, model=f"{{train: lora, lora: {lora}, dropout: 0}}")
    started = NerModel(folder, study, "cpu")
    assert torch.allclose(logits(started.module, started), logits(model.module, model), atol=1e-4)
    assert not any(isinstance(m, CoreAdapter) for m in merged(started.module).modules())
