"""Models of three families: what is trained, from where it starts, and what a saved one is."""

import copy
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from common.data.labels import bio_tags
from common.data.records import Document, span
from common.errors import ConfigError, EncoderError
from common.io.models import load_model, save_model
from common.metrics.evaluation import Evaluation
from common.model.build import get_vector, merged, set_vector
from common.model.inputs import Collator
from common.model.ner import NerModel, decoding_of
from common.model.train import Stage
from tests import tiny

FAMILIES = tuple(tiny.FAMILIES)
MODES = ("full", "frozen_embeddings", "lora", "head")
ONE_STEP = Stage(start=0.0, end=1.0, seed_text="one step")
TEXTS = (
    ("He has fever .", "fever", "Symptom"),
    ("No chest pain today , but severe nausea at night .", "chest pain", "Symptom"),
    ("Known asthma .", "asthma", "Disease"),
    ("On metoprolol since spring .", "metoprolol", "Medication"),
    ("She takes aspirin for pain .", "aspirin", "Medication"),
    ("Diabetes was found .", "Diabetes", "Disease"),
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
def build(torch_quiet, tmp_path_factory):
    """Makes a fresh model of a family; the folder of each family is made once."""
    base = tmp_path_factory.mktemp("families")

    @cache
    def folder(family):
        return tiny.FAMILIES[family](base / family)

    def make(family="bert", mode="full", **training):
        settings = {"rounds": 1, "batch_size": 16, "learning_rate": 1e-2, "precision": "float32"}
        lora = ", lora: {rank: 4}" if mode == "lora" else ""
        study = tiny.study(
            folder(family),
            model=f"{{train: {mode}{lora}}}",
            training=json.dumps(settings | training),
        )
        return NerModel(folder(family), study, "cpu")

    make.folder = folder
    return make


def _logits(module, batch):
    import torch

    module.eval()
    with torch.inference_mode():
        return module(**batch).logits


def _batch(model, windows=None):
    prepared = model.prepare(DOCUMENTS)
    return Collator.of(model.module, model.tokenizer)(windows or prepared.windows, None)


def _is_trained(mode, name):
    return {
        "full": True,
        "frozen_embeddings": ".embeddings." not in name,
        "lora": "lora_" in name or "classifier.modules_to_save" in name,
        "head": name.startswith("classifier."),
    }[mode]


# --- what is trained


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_trains_the_stated_weights_and_no_others(build, family, mode):
    model = build(family, mode)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    assert set(model.layout.names) == {n for n in before if _is_trained(mode, n)}
    model.fit(model.prepare(DOCUMENTS), ONE_STEP)
    changed = {n for n, p in model.module.named_parameters() if not p.equal(before[n])}
    assert changed <= set(model.layout.names)
    assert any(n.endswith("weight") and "classifier" in n for n in changed)
    assert any("lora_B" in n for n in changed) == (mode == "lora")
    assert any("word_embeddings" in n for n in changed) == (mode == "full")
    assert any(".layer." in n for n in changed) == (mode != "head")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_build_starts_from_the_same_weights_whatever_torchs_seed(build, family, mode):
    import torch

    torch.manual_seed(1)
    one = build(family, mode)
    torch.manual_seed(2)
    torch.rand(17)
    other = build(family, mode)
    assert one.layout == other.layout
    assert one.initial.tobytes() == other.initial.tobytes()
    assert one.initial_digest == other.initial_digest
    assert all(
        p.equal(q) for p, q in zip(one.module.parameters(), other.module.parameters(), strict=True)
    )


@pytest.mark.parametrize("mode", MODES)
def test_another_study_seed_starts_from_another_head(build, mode):
    assert build(mode=mode).initial_digest != build(mode=mode, seed=2).initial_digest


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_vector_of_trained_weights_goes_in_and_out_unchanged(build, family, mode):
    model = build(family, mode)
    vector = np.random.default_rng(1).normal(size=model.layout.size).astype(np.float32)
    frozen = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    set_vector(model.module, vector)
    assert get_vector(model.module).tobytes() == vector.tobytes()
    names = set(model.layout.names)
    assert all(p.equal(frozen[n]) for n, p in model.module.named_parameters() if n not in names)
    with pytest.raises(EncoderError, match="trained weights"):
        set_vector(model.module, vector[:-1])


# --- inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_explicit_positions_are_the_encoders_own(build, family):
    model = build(family)
    batch = _batch(model)
    assert (batch["attention_mask"] == 0).any()
    bare = {k: v for k, v in batch.items() if k not in {"position_ids", "token_type_ids"}}
    given, own = _logits(model.module, batch), _logits(model.module, bare)
    real = batch["attention_mask"] == 1
    assert np.allclose(given[real], own[real], atol=1e-6)
    shifted = {**batch, "position_ids": batch["position_ids"].flip(1)}
    assert not np.allclose(_logits(model.module, shifted)[real], own[real], atol=1e-3)


def test_a_decoder_is_refused_where_it_lies(torch_quiet, tmp_path):
    folder = tiny.bert_folder(tmp_path / "decoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_decoder": True}))
    with pytest.raises(EncoderError, match="is_decoder") as refused:
        NerModel(folder, tiny.study(folder), "cpu")
    assert refused.value.place == str(folder)


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_change_what_a_window_gets(build, family, mode):
    model = build(family, mode)
    windows = model.prepare(DOCUMENTS).windows
    together = _logits(model.module, _batch(model))
    for row, window in enumerate(windows):
        alone = _logits(model.module, _batch(model, [window]))[0]
        assert np.allclose(together[row, : len(window.input_ids)], alone, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("erased", ["\u200b", "\u00ad", "\u0301"])
def test_a_word_that_the_tokenizer_erases_keeps_its_place(build, family, erased):
    model = build(family)
    text = f"fever {erased} asthma"
    document = Document(
        doc_id="d", text=text, sentences=((0, len(text)),), tokens=(((0, 5), (6, 7), (8, 14)),)
    )
    assert model.tokenizer.fast(erased, add_special_tokens=False)["input_ids"] == []
    prepared = model.prepare([document])
    assert prepared.windows[0].words == (0, 1, 2)
    assert len(set(prepared.windows[0].positions)) == 3
    assert [len(tags) for tags in model.tags(prepared)] == [3]
    assert [model.tokenizer.fast.unk_token_id] == model.tokenizer.encode_words([erased])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_longer_inputs_than_the_encoders_positions_are_refused(build, family):
    room = tiny.POSITIONS - (2 if family == "roberta" else 0)
    folder = build.folder(family)
    NerModel(folder, tiny.study(folder, text=f"{{max_tokens: {room}}}"), "cpu")
    with pytest.raises(ConfigError, match=f"at most {room}"):
        NerModel(folder, tiny.study(folder, text=f"{{max_tokens: {room + 1}}}"), "cpu")


# --- training


@pytest.mark.parametrize(("family", "mode"), [(f, "full") for f in FAMILIES] + [("bert", "lora")])
def test_training_learns_a_small_task_by_heart(build, family, mode):
    model = build(family, mode, batch_size=2)
    prepared = model.prepare(DOCUMENTS)
    first = model.fit(prepared, ONE_STEP, epochs=1)
    model.set_delta(None)
    last = model.fit(prepared, ONE_STEP, epochs=25)
    assert last < first / 3
    assert model.evaluate(prepared).f1 > 0.8


def test_abbreviations_are_tagged_as_the_study_says(build):
    model = build("bert", batch_size=2)
    text = "He has severe asthma (SA).\nSA was treated."
    one = Document(doc_id="d", text=text, entities=(span(7, 20, "Disease"),))
    prepared = model.prepare([one] * 4)
    model.fit(prepared, ONE_STEP, epochs=25)
    assert [text[e.start : e.end] for e in model.predict(prepared)[0]] == ["severe asthma"]
    task = replace(model.study.task, abbreviations="as_defined")
    model.tagger.decoding = decoding_of(replace(model.study, task=task))
    found = [text[e.start : e.end] for e in model.predict(prepared)[0]]
    assert found == ["severe asthma", "SA", "SA"]
    assert model.evaluate(prepared).entity_report()["micro"].precision == pytest.approx(1 / 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_stage_gives_the_same_bits_and_another_seed_does_not(build, family):
    import torch

    model = build(family, "lora", batch_size=2)
    prepared = model.prepare(DOCUMENTS)
    deltas = []
    for seed_text in ("a", "a", "b"):
        torch.manual_seed(len(deltas))
        model.set_delta(None)
        model.fit(prepared, Stage(start=0.0, end=0.5, seed_text=seed_text))
        deltas.append(model.delta().tobytes())
    assert deltas[0] == deltas[1] != deltas[2]
    fresh = build(family, "lora", batch_size=2)
    fresh.fit(prepared, Stage(start=0.0, end=0.5, seed_text="a"))
    assert fresh.delta().tobytes() == deltas[0]


# --- saved models


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapters_give_the_adapted_models_logits(build, family):
    model = build(family, "lora")
    model.fit(model.prepare(DOCUMENTS), ONE_STEP, epochs=3)
    batch = _batch(model)
    plain = merged(copy.deepcopy(model.module))
    assert not any("lora" in name for name, _ in plain.named_parameters())
    assert np.allclose(_logits(plain, batch), _logits(model.module, batch), atol=1e-5)
    model.set_delta(None)
    assert not np.allclose(_logits(plain, batch), _logits(model.module, batch), atol=1e-3)


@pytest.fixture
def saved(build, tmp_path):
    """Trains, saves and returns model and folder."""

    def save(family="bert", mode="full", epochs=1):
        model = build(family, mode, batch_size=2)
        model.fit(model.prepare(DOCUMENTS), ONE_STEP, epochs)
        save_model(model, build.folder(family), tmp_path / "model", {"rounds": 1})
        return model, tmp_path / "model"

    return save


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_predicts_what_it_did_before(saved, family, mode):
    model, folder = saved(family, mode, epochs=25)
    again = load_model(folder, "cpu")
    before, after = model.prepare(DOCUMENTS), again.prepare(DOCUMENTS)
    assert before.windows == after.windows
    assert any(model.predict(before))
    assert model.predict(before) == again.predict(after)
    counts: Evaluation = again.evaluate(after)
    assert counts.counts.tolist() == model.evaluate(before).counts.tolist()


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_a_saved_model_without_us(saved, family, mode):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model, folder = saved(family, mode)
    plain, report = AutoModelForTokenClassification.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert tuple(plain.config.id2label.values()) == bio_tags(model.labels)
    batch = _batch(model)
    assert np.allclose(_logits(plain, batch), _logits(model.module, batch), atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.get_vocab() == model.tokenizer.fast.get_vocab()


def test_saving_leaves_the_model_as_it_was(build, tmp_path):
    model = build(mode="lora")
    model.fit(model.prepare(DOCUMENTS), ONE_STEP)
    before = model.delta().tobytes()
    save_model(model, build.folder("bert"), tmp_path / "model", {})
    assert model.delta().tobytes() == before
    assert any("lora" in name for name in model.layout.names)


def test_tampered_weights_are_refused(saved):
    _, folder = saved()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EncoderError, match="not the ones that the manifest names"):
        load_model(folder, "cpu")


@pytest.mark.parametrize("name", ["fedner.json", "study.yaml", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_not_a_model(saved, name):
    _, folder = saved()
    (folder / name).unlink()
    with pytest.raises(EncoderError) as caught:
        load_model(folder, "cpu")
    assert caught.value.remedy
