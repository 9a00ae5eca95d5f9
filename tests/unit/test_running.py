"""One attention kernel, whether a row of the batch is padded or none is."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForTokenClassification

from common.model.build import build_model
from common.model.inputs import FAMILIES
from common.model.running import attend_for, base_of, explicitly_masked
from common.model.train import autocast
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=tuple(tiny.FAMILIES))
def family(request, torch_quiet, tmp_path_factory):
    folder = tiny.FAMILIES[request.param](tmp_path_factory.mktemp("running") / request.param)
    return folder, tiny.study(folder, model="{train: lora, dropout: 0, lora: {rank: 4}}")


def inputs_of(padded: int) -> dict[str, torch.Tensor]:
    """Three rows of 16 sub-words, the last of which ends in so much padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 40, (3, 16), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[2, -padded:] = 0
    positions = torch.arange(2, 18).expand(3, -1).contiguous()
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def masks_met(model, inputs) -> list[torch.Tensor | None]:
    """What the attention of each layer is handed."""
    met = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs: met.append(kwargs.get("attention_mask", args[-1])),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if name.endswith(("attention", "attention.self"))
    ]
    with torch.inference_mode():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    assert met
    return met


@pytest.fixture(params=["eager", "sdpa"])
def model(family, request):
    model = build_model(*family).eval()
    base_of(model).set_attn_implementation(request.param)
    return model


def test_there_is_a_mask_without_padding_too(model) -> None:
    assert all(mask is None for mask in masks_met(model, inputs_of(0)))
    for padded in (0, 5):
        inputs = inputs_of(padded)
        expected = inputs["attention_mask"].bool()[:, None, None, :].expand(-1, 1, 16, -1)
        for mask in masks_met(model, explicitly_masked(model, inputs)):
            there = mask if mask.dtype == torch.bool else mask == 0
            assert there.equal(expected)
            assert mask.dtype == torch.bool or (mask[~there] < -1e38).all()


SMALL = {
    "vocab_size": 50, "max_position_embeddings": 40, "num_hidden_layers": 2, "n_layers": 2,
    "num_attention_heads": 2, "n_heads": 2, "intermediate_size": 32, "hidden_dim": 32,
} | dict.fromkeys(
    ("hidden_size", "embedding_size", "dim", "true_hidden_size", "intra_bottleneck_size"), 16
)  # fmt: skip


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_computed_is_what_the_library_computes_with_its_own_mask(
    torch_quiet, kind, kernel
) -> None:
    config = AutoConfig.for_model(kind, **SMALL)
    model = AutoModelForTokenClassification.from_config(config).eval()
    attend_for(model, torch.device("cpu" if kernel == "eager" else "cuda"))
    for padded in (0, 5):
        inputs = inputs_of(padded)
        with torch.inference_mode():
            own, ours = model(**inputs).logits, model(**explicitly_masked(model, inputs)).logits
            none = model(**inputs | {"attention_mask": None}).logits
        assert (own - ours).abs().max() <= 1e-6 * own.abs().max()
        assert ((ours - none).abs().max() <= 1e-6 * own.abs().max()) == (not padded)


def test_the_kernel_is_the_devices_whatever_the_encoders_file_says(torch_quiet) -> None:
    config = AutoConfig.for_model("bert", **SMALL)
    model = AutoModelForTokenClassification.from_config(config, attn_implementation="sdpa")
    attend_for(model, CPU)
    assert model.config._attn_implementation == "eager"
    attend_for(model, torch.device("cuda"))
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_full_row_gives_the_same_bits_beside_a_padded_one_as_beside_full_ones(
    model, precision, scale
) -> None:
    """Logits and gradients. At the larger scale attention is sharp."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "query" in name or "q_lin" in name:
                parameter.mul_(scale)
    seen = []
    for padded in (0, 5):
        model.zero_grad()
        with autocast(precision, CPU):
            logits = model(**explicitly_masked(model, inputs_of(padded))).logits[:2]
        logits.float().square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        seen.append([logits.detach(), *gradients])
    assert len(seen[0]) > 2
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_under_autocast_the_eager_kernel_stays_in_its_precision(family) -> None:
    model = build_model(*family)
    attend_for(model, CPU)
    with autocast("bfloat16", CPU):
        mask = explicitly_masked(model, inputs_of(5))["attention_mask"]
    assert mask.dtype == torch.bfloat16
    assert explicitly_masked(model, inputs_of(5))["attention_mask"].dtype == torch.float32
