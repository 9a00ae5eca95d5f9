"""No unit's realised contribution is longer than the clip, in float32 and under bfloat16 autocast.

Realised is what is in `total` in the end, however it was rounded on the way: the sum over a batch
of this unit alone, and what a larger batch's sum gains by the unit.
"""

import copy
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from common.data.encode import Window
from common.model.inputs import Collator
from common.privacy.clipping import UnitClipper
from tests.equivalence.test_clipping import (
    TAGS,
    WITHOUT_WORD,
    Models,
    Text,
    force,
    gradients_of,
    relative,
    rows_of,
)

CLIP = 1e-3
OTHERS_FLOAT32 = 2.0**-15
"""Float32 rounding of sums over the other units, relative to the sum of their lengths.

A sum of `n` float32 numbers is off by at most `n 2^-24` of the sum of magnitudes. Here n is at most
350 and rounding errors mostly cancel; a bfloat16 rounding would be off by `2^-8`.
"""
MODES = ("full", "frozen_embeddings", "lora", "core", "head")
OTHER_FAMILIES = [
    (mode, "plain", "bfloat16", family) for mode in MODES for family in ("distilbert", "roberta")
]
WAYS = ("ghost", "direct")
ROWS = 5
UNITS = (tuple(range(ROWS)), (1, 0, 1, 2, 0))
"""Records, and patients with interleaved rows."""


def plain(collate: Collator, seed: int) -> Text:
    return Text.random(collate, rows=ROWS, seed=seed)


def long(collate: Collator, seed: int) -> Text:
    return Text.random(collate, rows=ROWS, seed=seed, lengths=(40, 70))


def cancelling(collate: Collator, seed: int) -> Text:
    """One token throughout, each tag equally often: the gradients of tokens nearly cancel."""
    rng = np.random.default_rng(seed)
    windows, tags = [], []
    for _ in range(ROWS):
        times = int(rng.integers(1, 3))
        ids = (int(rng.integers(5, 14)),) * (TAGS * times)
        windows.append(Window(0, ids, (), tuple(range(len(ids)))))
        tags.append(rng.permutation(np.repeat(np.arange(TAGS), times)).tolist())
    return Text(collate, windows, tags)


KINDS = {
    "plain": (plain, 1.0),
    "cancelling": (cancelling, 0.01),
    "cancelling-large": (cancelling, 1.0),
    "large-logits": (plain, 300.0),
    "long": (long, 1.0),
}
"""Text, and what the head's weights are multiplied with: logits near zero, or of hundreds."""


class Autocast(nn.Module):
    """The forward pass, and nothing else, under bfloat16 autocast: as `common.model.train` does."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, **inputs: torch.Tensor) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return self.module(**inputs)


@pytest.fixture(scope="module")
def models(torch_quiet, tmp_path_factory) -> Models:
    return Models(tmp_path_factory.mktemp("clipping-bfloat16"))


@pytest.fixture
def module_and_texts(models, request):
    """A model in the precision asked for, and a text for each of `UNITS`."""
    mode, kind, precision, *family = request.param
    original, collate = models.of(*family or ["bert"], mode)
    module = copy.deepcopy(original)
    make, scale = KINDS[kind]
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "classifier" in name:
                parameter.mul_(scale)
    texts = [make(collate, seed) for seed in range(len(UNITS))]
    return Autocast(module) if precision == "bfloat16" else module, texts


each_setting = pytest.mark.parametrize(
    "module_and_texts",
    [*product(MODES, KINDS, ("float32", "bfloat16")), *OTHER_FAMILIES],
    indirect=True,
    ids=".".join,
)


def added(
    module: nn.Module, text: Text, units: Sequence[int], rows: Sequence[int], left_out: int = -1
) -> torch.Tensor:
    """The sum over a batch of these rows, float64 `[size]`; one unit may have no loss."""
    present = torch.tensor([float(unit != left_out) for unit in units])
    with UnitClipper(module, CLIP) as clipper, clipper.rows(units):
        clipper.add(text.losses(module, rows) * present)
    return clipper.total.double()


def has_words(text: Text, rows: Sequence[int]) -> bool:
    return bool((text.labels[rows] >= 0).any())


@each_setting
def test_a_unit_alone_adds_at_most_the_clip(module_and_texts, monkeypatch):
    module, texts = module_and_texts
    for text, units in zip(texts, UNITS, strict=True):
        for way, rows in product(WAYS, rows_of(units)):
            force(monkeypatch, way)
            found = float(added(module, text, [0] * len(rows), rows).norm())
            assert found <= CLIP
            # all of these are longer than the clip: margins must not eat what they protect
            assert found >= 0.7 * CLIP * has_words(text, rows)


@each_setting
def test_a_unit_among_others_adds_at_most_the_clip(module_and_texts, monkeypatch):
    module, texts = module_and_texts
    for text, units in zip(texts, UNITS, strict=True):
        others = max(units)
        for way in WAYS:
            force(monkeypatch, way)
            everyone = added(module, text, units, range(ROWS))
            for unit in range(others + 1):
                without = added(module, text, units, range(ROWS), left_out=unit)
                found = float((everyone - without).norm())
                assert found <= CLIP * (1 + OTHERS_FLOAT32 * others)


@pytest.mark.parametrize(
    "module_and_texts",
    list(product(MODES, ("plain", "cancelling"), ("bfloat16",))),
    indirect=True,
    ids=".".join,
)
def test_a_unit_in_parts_adds_at_most_the_clip(module_and_texts):
    module, texts = module_and_texts
    for text in texts:
        with UnitClipper(module, CLIP) as clipper:
            parts = [partial(text.losses, module, rows) for rows in ([0, 1], [2], [3, 4])]
            norm = clipper.add_large(parts, [2, 1, 2])
        assert norm > CLIP
        assert 0.999 * CLIP <= clipper.total.double().norm() <= CLIP


@pytest.mark.parametrize(
    "module_and_texts",
    list(product(MODES, ("plain", "long", "large-logits"), ("bfloat16",))),
    indirect=True,
    ids=".".join,
)
def test_sums_are_those_of_autograd_up_to_bfloat16(module_and_texts, monkeypatch):
    """Autograd rounds its products to bfloat16 too: the two differ by their margins and roundings.

    2^-3 holds the margin of ghost norms for long texts, 8 %, and the roundings, 2^-8 each.
    """
    module, texts = module_and_texts
    for text, units in zip(texts, UNITS, strict=True):
        gradients = gradients_of(module, text, units)
        expected = sum(g * CLIP / g.norm() for g in gradients if g.any())
        for way in WAYS:
            force(monkeypatch, way)
            assert relative(added(module, text, units, range(ROWS)), expected) <= 2.0**-3


def test_no_units_norm_depends_in_bfloat16_on_who_else_is_in_the_batch(models):
    """Rows of one length: then the forward pass of each row is the same in any batch."""
    module, collate = models.of("bert", "full")
    text = Text.random(collate, rows=ROWS, lengths=(9, 9))
    runs = Autocast(module)
    with UnitClipper(runs, CLIP) as clipper:
        with clipper.rows(range(ROWS)):
            together = clipper.add(text.losses(runs))
        for rows in ([1, 2], [1, 4, 2]):
            with clipper.rows(range(len(rows))):
                found = clipper.add(text.losses(runs, rows))
            assert torch.allclose(found, together[rows], rtol=1e-5, atol=0)
    assert together[WITHOUT_WORD] == 0


@pytest.mark.parametrize("width", [200, 264])
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("tokens", "units"), [(140, (0, 1, 2)), (100, (0, 1, 1, 1, 1))])
def test_a_norm_does_not_move_when_other_units_come(width, tokens, units, bfloat16):
    """If each of N others' contributions moved by a share s of the clip when one unit comes or
    goes, the sensitivity would be 1 + N s clips. Width 200 keeps per-unit gradients, 264 does not.
    """
    torch.manual_seed(0)
    module = nn.Linear(width, width)
    x, weights = torch.randn(2, len(units), tokens, width)

    def norm_of_the_first(units: Sequence[int]) -> float:
        with UnitClipper(module, 1.0) as clipper, clipper.rows(units):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                y = module(x[: len(units)])
            losses = (y.float() * weights[: len(units)]).sum((1, 2))
            return float(clipper.add(losses)[0])

    alone, together = norm_of_the_first([0]), norm_of_the_first(units)
    assert together == pytest.approx(alone, rel=1e-5)
