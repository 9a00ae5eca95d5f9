"""LoRA's A and two-sided adapters from public directions, on chosen layers, fixed or trained."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import ConfigError, EncoderError
from common.model.build import build_model, get_vector, layout_of, merged, set_vector
from common.model.directions import DIRECTIONS, principal_directions
from tests import tiny


@pytest.fixture
def changed(tiny_encoder, tmp_path):
    """A copy of the tiny encoder whose layers have moved by a product of rank 1."""
    folder = tiny.bert_folder(tmp_path / "changed")
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    self_pushed = {}
    for name, value in weights.items():
        if ".layer." in name and value.ndim == 2:
            left = torch.randn(value.shape[0], 1, generator=generator)
            right = torch.randn(1, value.shape[1], generator=generator)
            self_pushed[name] = right[0] / right.norm()
            weights[name] = value + left @ right
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    found = principal_directions(
        folder / "model.safetensors", tiny_encoder / "model.safetensors", 4
    )
    save_file(found, folder / DIRECTIONS)
    return folder, self_pushed


def test_with_a_power_later_directions_are_shorter_and_else_the_same(changed, tiny_encoder):
    weights, base = changed[0] / "model.safetensors", tiny_encoder / "model.safetensors"
    flat = principal_directions(weights, base, 4)
    short = principal_directions(weights, base, 4, power=0.5)
    assert flat.keys() == short.keys()
    for name, value in flat.items():
        axis = 0 if name.endswith(".left") else 1
        lengths = short[name].norm(dim=axis)
        assert float(lengths[0]) == pytest.approx(1.0, abs=1e-5)
        assert (lengths[1:] < 0.9).all()
        assert torch.allclose(short[name] / lengths.unsqueeze(axis), value, atol=1e-4)


def built(folder, lora):
    return build_model(folder, tiny.study(folder, model=f"{{train: lora, lora: {lora}}}"))


def a_of(model):
    return {n: p for n, p in model.named_parameters() if "lora_A" in n}


def digest(folder):
    return hashlib.sha256((folder / DIRECTIONS).read_bytes()).hexdigest()


def test_the_first_direction_is_where_public_training_went(changed):
    folder, pushed = changed
    model = built(folder, f"{{rank: 2, directions_sha256: {digest(folder)}}}")
    found = a_of(model)
    assert len(found) == len(pushed)
    for name, right in pushed.items():
        layer = name.removesuffix(".weight")
        (a,) = (p for n, p in found.items() if f"{layer}.lora_A" in n)
        assert a.shape[0] == 2
        assert abs(float(a[0].detach() @ right)) == pytest.approx(1.0, abs=1e-4)
        assert np.allclose((a @ a.T).detach(), np.eye(2), atol=1e-5)


def test_another_file_than_the_pinned_one_is_refused(changed):
    with pytest.raises(EncoderError, match="the study pins"):
        built(changed[0], f"{{rank: 2, directions_sha256: {'a' * 64}}}")


def test_a_higher_rank_than_the_file_holds_is_refused(changed):
    with pytest.raises(EncoderError, match="rank 8"):
        built(changed[0], f"{{rank: 8, directions_sha256: {digest(changed[0])}}}")


def test_an_encoder_without_directions_is_refused(tiny_encoder):
    with pytest.raises(EncoderError, match="there are none"):
        built(tiny_encoder, f"{{rank: 2, directions_sha256: {'a' * 64}}}")


def test_a_model_that_has_not_changed_has_no_directions(tiny_encoder):
    weights = tiny_encoder / "model.safetensors"
    with pytest.raises(EncoderError, match="no layer has changed"):
        principal_directions(weights, weights, 2)


def test_adapters_go_to_the_named_layers_only(tiny_encoder):
    names = list(a_of(built(tiny_encoder, "{rank: 2, layers: [1]}")))
    assert names
    assert all(".layer.1." in name for name in names)
    some = a_of(built(tiny_encoder, "{rank: 2, layers: [0, 1], targets: [query]}"))
    assert len(some) == 2


def test_layers_that_the_encoder_has_not_are_refused(tiny_encoder):
    with pytest.raises(ConfigError, match="layers"):
        built(tiny_encoder, "{rank: 2, layers: [7]}")


def test_a_frozen_a_is_not_trained_and_does_not_travel(tiny_encoder):
    frozen = built(tiny_encoder, "{rank: 2, freeze_a: true}")
    assert not any(p.requires_grad for p in a_of(frozen).values())
    assert any(p.requires_grad for n, p in frozen.named_parameters() if "lora_B" in n)
    assert all(p.requires_grad for p in a_of(built(tiny_encoder, "{rank: 2}")).values())


@pytest.mark.parametrize("targets", ["[nothing]", "[query, nothing]", "[uery]"])
def test_a_target_that_names_no_layer_is_refused(tiny_encoder, targets):
    with pytest.raises(ConfigError, match="targets"):
        built(tiny_encoder, f"{{rank: 2, targets: {targets}}}")


def test_a_target_may_name_the_end_of_a_path(tiny_encoder):
    names = list(a_of(built(tiny_encoder, "{rank: 2, targets: [attention.output.dense]}")))
    assert len(names) == 2
    assert all(".attention.output.dense." in name for name in names)


# --- two-sided: only a core between fixed directions is trained


def cored(folder, rank=2):
    return built(folder, f"{{rank: {rank}, core: true, directions_sha256: {digest(folder)}}}")


def test_a_core_and_the_head_are_all_that_is_trained(changed):
    names = layout_of(cored(changed[0])).names
    assert sum(name.endswith(".core.weight") for name in names) == len(changed[1])
    rest = [name for name in names if not name.endswith(".core.weight")]
    assert rest == ["classifier.weight", "classifier.bias"]
    assert all(shape == (2, 2) for shape in layout_of(cored(changed[0])).shapes[: -len(rest)])


def batch():
    ids = torch.arange(5, 14).unsqueeze(0)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_a_core_starts_from_the_model_without_it(changed):
    plain = build_model(changed[0], tiny.study(changed[0], model="{train: head}"))
    with torch.inference_mode():
        assert torch.equal(
            cored(changed[0]).eval()(**batch()).logits, plain.eval()(**batch()).logits
        )


def test_a_core_moves_its_layer_along_the_public_directions_and_nothing_else(changed):
    folder, _ = changed
    model = cored(folder)
    moved = np.random.default_rng(1).normal(size=len(get_vector(model))).astype(np.float32)
    set_vector(model, moved)
    cores = {n: p.detach() for n, p in model.named_parameters() if n.endswith(".core.weight")}
    plain = build_model(folder, tiny.study(folder, model="{train: head}"))
    old = {n: p.detach() for n, p in plain.named_parameters()}
    new = {n: p.detach() for n, p in merged(model).named_parameters()}
    assert new.keys() == old.keys()
    for name in (n for n in old if not n.startswith("classifier.")):
        core = cores.pop(f"{name.removesuffix('.weight')}.core.weight", None)
        if core is None:
            assert torch.equal(new[name], old[name])
            continue
        layer = name.removesuffix(".weight").removeprefix("bert.")
        left, right = directions_in(folder, layer)
        expected = old[name] + 8 * left @ core @ right
        assert torch.allclose(new[name], expected, atol=1e-4)
    assert not cores


def directions_in(folder, layer, rank=2):
    found = load_file(folder / DIRECTIONS)
    return found[f"{layer}.left"][:, :rank], found[layer][:rank]


def test_a_mean_of_cores_is_the_mean_of_the_models(changed):
    vectors = [
        np.random.default_rng(seed).normal(size=len(get_vector(cored(changed[0]))))
        for seed in (1, 2)
    ]

    def weights(vector):
        model = cored(changed[0])
        set_vector(model, vector.astype(np.float32))
        return {n: p.detach() for n, p in merged(model).named_parameters()}

    first, second, mean = map(weights, (*vectors, sum(vectors) / 2))
    assert all(torch.allclose(mean[n], (first[n] + second[n]) / 2, atol=1e-4) for n in mean)


def test_a_folded_core_gives_the_same_predictions(changed):
    model = cored(changed[0]).eval()
    set_vector(model, get_vector(model) + np.float32(0.3))
    with torch.inference_mode():
        adapted = model(**batch()).logits
        folded = merged(model)(**batch()).logits
    assert torch.allclose(adapted, folded, atol=1e-4)


def test_a_core_of_a_higher_rank_than_the_file_holds_is_refused(changed):
    with pytest.raises(EncoderError, match="rank 8"):
        cored(changed[0], rank=8)


@pytest.mark.parametrize(
    "lora",
    [
        "{core: true}",
        f"{{core: true, freeze_a: true, directions_sha256: {'a' * 64}}}",
        f"{{core: true, dropout: 0.1, directions_sha256: {'a' * 64}}}",
    ],
)
def test_a_core_needs_directions_and_goes_with_nothing_else(tiny_encoder, lora):
    with pytest.raises(ConfigError, match="core"):
        built(tiny_encoder, lora)
