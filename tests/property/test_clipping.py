"""Clipping, whatever the shapes, the numbers and the division into units."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from common.privacy import layers
from common.privacy.clipping import UnitClipper

SLOW = settings(deadline=None, max_examples=60, derandomize=True)
WORDS = 6


@pytest.fixture(autouse=True, scope="module")
def quiet(torch_quiet):
    """One thread."""


class Toy(nn.Module):
    """Every kind of layer; `[rows, tokens]` ids to `[rows]` losses. Word 0 is the padding."""

    def __init__(self, width: int, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(WORDS, width, padding_idx=0)
        self.norm = nn.LayerNorm(width)
        self.thin = nn.Linear(width, 2, bias=False)
        self.wide = nn.Linear(2, 3 * width)
        self.head = nn.Linear(3 * width, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.thin(self.norm(self.words(ids))))
        # tokens of one row look at one another, rows don't
        mixed = hidden + hidden.mean(dim=1, keepdim=True)
        logits = self.head(nn.functional.gelu(self.wide(mixed)))
        return logits.float().logsumexp(-1).square().sum(1)


@st.composite
def divisions(draw: st.DrawFn, most: int = 7) -> list[int]:
    """A unit for each row: any numbering 0 to n - 1, none left out; may be empty."""
    drawn = draw(st.lists(st.integers(0, 3), max_size=most))
    number = {unit: i for i, unit in enumerate(draw(st.permutations(sorted(set(drawn)))))}
    return [number[unit] for unit in drawn]


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
"""Width, tokens, seed."""
ways = st.sampled_from([None, True, False])
"""The direct way, ghost norms, or as the layer chooses."""


def ids_of(rows: int, tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, WORDS, (rows, tokens), generator=generator)


def gradients(toy: Toy, ids: torch.Tensor, units: list[int]) -> list[torch.Tensor]:
    """Of each unit alone, by autograd."""
    found = []
    for unit in range(max(units, default=-1) + 1):
        rows = [row for row, u in enumerate(units) if u == unit]
        parts = torch.autograd.grad(toy(ids[rows]).sum(), list(toy.parameters()))
        found.append(torch.cat([part.flatten() for part in parts]).double())
    return found


def ours(toy: nn.Module, ids: torch.Tensor, units: list[int], clip: float, way: bool | None):
    """Sum, float64 `[size]`, and norms `[units]`."""
    with pytest.MonkeyPatch.context() as patch:
        if way is not None:
            patch.setattr(layers.LinearLayer, "_direct", lambda s, *_: way or "weight" not in s.own)
        with UnitClipper(toy, clip) as clipper, clipper.rows(units):
            norms = clipper.add(toy(ids))
    return clipper.total.double(), norms.double()


@SLOW
@given(divisions(), shapes, st.floats(0.05, 2.0), ways)
def test_any_division_into_units_equals_one_unit_at_a_time(units, shape, share, way) -> None:
    width, tokens, seed = shape
    toy, ids = Toy(width, seed), ids_of(len(units), tokens, seed)
    expected = gradients(toy, ids, units)
    clip = share * max([float(g.norm()) for g in expected], default=1.0) + 1e-6
    found, norms = ours(toy, ids, units, clip, way)
    total = sum((g / max(1.0, float(g.norm()) / clip) for g in expected), torch.zeros(len(found)))
    assert (found - total).norm() <= 1e-5 * total.norm() + 1e-7 * clip
    for norm, gradient in zip(norms.tolist(), expected, strict=True):
        assert gradient.norm() * (1 - 2.0**-19) <= norm + 1e-7
        assert norm <= gradient.norm() * (1 + 1e-4) + 1e-6


@SLOW
@given(divisions(), shapes, ways)
def test_numbering_and_order_of_rows_do_not_matter(units, shape, way) -> None:
    width, tokens, seed = shape
    toy, ids = Toy(width, seed), ids_of(len(units), tokens, seed)
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(seed)).tolist()
    last = max(units, default=0)
    one, _ = ours(toy, ids, units, 0.1, way)
    other, _ = ours(toy, ids[order], [last - units[row] for row in order], 0.1, way)
    assert (one - other).norm() <= 1e-5 * one.norm()


@SLOW
@given(divisions(), shapes, st.integers(0, 6))
def test_a_batch_may_be_cut_between_units_and_a_unit_between_rows(units, shape, cut) -> None:
    width, tokens, seed = shape
    toy, ids = Toy(width, seed), ids_of(len(units), tokens, seed)
    whole, _ = ours(toy, ids, units, 0.1, None)
    with UnitClipper(toy, 0.1) as clipper:
        for unit in range(max(units, default=-1) + 1):
            rows = [row for row, u in enumerate(units) if u == unit]
            cuts = [c for c in (rows[:cut], rows[cut:]) if c]
            parts = [lambda r=r: toy(ids[r]) for r in cuts]
            clipper.add_large(parts, [len(r) for r in cuts])
    assert (clipper.total.double() - whole).norm() <= 1e-5 * whole.norm()


# --- the bound

scales = st.sampled_from([1e-6, 1e-2, 1.0, 30.0, 1e4])
kinds = st.sampled_from(["random", "alike", "cancelling", "nearly cancelling", "one large"])


def tokens_of(kind: str, tokens: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """`[tokens, width]` whose sum is anything from all of it to nothing."""
    values = torch.randn(tokens, width, generator=generator)
    signs = 1.0 - 2.0 * (torch.arange(tokens) % 2)[:, None]
    if kind == "alike":
        return values[:1].expand(tokens, width).clone()
    if kind == "cancelling":
        return values[:1] * signs
    if kind == "nearly cancelling":
        return values[:1] * signs + 1e-2 * values
    if kind == "one large":
        values[0] *= 1e3
    return values


@settings(SLOW, max_examples=200)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 20), st.integers(0, 10**6)),
    st.tuples(kinds, kinds, scales, scales),
    st.tuples(ways, st.booleans(), st.sampled_from(["linear", "norm", "embedding"])),
)
def test_no_contribution_is_longer_than_the_clip(size, content, how) -> None:
    (width, out, tokens, seed), (inputs, outputs, large, clip) = size, content
    way, bfloat16, kind = how
    generator = torch.Generator().manual_seed(seed)
    x = tokens_of(inputs, tokens, width, generator)[None]
    layer: nn.Module = nn.Linear(width, out, bias=seed % 2 == 0)
    if kind == "norm":
        layer, out = nn.LayerNorm(width), width
    if kind == "embedding":
        layer, x = nn.Embedding(3, out), torch.randint(0, 3, (1, tokens), generator=generator)
    weights = large * tokens_of(outputs, tokens, out, generator)[None]

    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                y = self.layer(x)
            return (y.float() * weights).sum((1, 2))

    found, norms = ours(Losses(), x, [0], clip, way)
    assert found.norm() <= clip
    if norms[0] > 0 and outputs == inputs == "random":
        assert found.norm() >= 0.9 * min(clip, float(norms[0]))


exponents = st.integers(-32, 18)


@settings(SLOW, max_examples=300)
@given(
    st.tuples(st.sampled_from([1, 8, 300]), st.integers(1, 40), st.integers(0, 10**6)),
    st.tuples(kinds, kinds, exponents, exponents, st.sampled_from([1e-3, 1.0])),
    st.tuples(ways, st.booleans()),
)
@example((300, 40, 0), ("alike", "alike", 18, -22, 1e-3), (False, False))
@example((300, 40, 0), ("alike", "alike", 18, -20, 1e-3), (False, True))
@example((300, 40, 1), ("alike", "alike", -19, 17, 1e-3), (False, True))
@example((300, 40, 1), ("alike", "alike", -23, 18, 1e-3), (False, False))
def test_no_number_is_so_small_or_large_that_its_contribution_is_longer(size, content, how) -> None:
    """A coordinator sends the model: a layer's inputs and gradients may be of any size."""
    (width, tokens, seed), (inputs, outputs, of_inputs, of_outputs, clip) = size, content
    way, bfloat16 = how
    generator = torch.Generator().manual_seed(seed)
    x = 10.0**of_inputs * tokens_of(inputs, tokens, width, generator)[None]
    weights = 10.0**of_outputs * tokens_of(outputs, tokens, width, generator)[None]
    layer = nn.Linear(width, width, bias=seed % 2 == 0)

    def losses(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = layer(x)
        return (y.float() * weights).sum((1, 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers.LinearLayer, "_direct", lambda s, *_: way or "weight" not in s.own)
        with UnitClipper(layer, clip) as clipper, clipper.rows([0]):
            clipper.add(losses(x))
    assert clipper.total.double().norm() <= clip


@SLOW
@given(divisions(most=5), shapes, ways, st.booleans())
def test_no_units_contribution_moves_with_another_units_loss(units, shape, way, bfloat16) -> None:
    """A batch's sum is the sum of its units' contributions, each as if the others had no loss."""
    width, tokens, seed = shape
    toy, ids = Toy(width, seed), ids_of(len(units), tokens, seed)

    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.toy, self.unit = toy, -1

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                losses = self.toy(ids)
            return losses * torch.tensor([float(self.unit in (-1, u)) for u in units])

    module = Only()
    together, norms = ours(module, ids, units, 0.01, way)
    apart = torch.zeros_like(together)
    for unit in set(units):
        module.unit = unit
        found, alone = ours(module, ids, units, 0.01, way)
        assert found.norm() <= 0.01
        assert alone[unit] == pytest.approx(float(norms[unit]), rel=1e-6)
        apart += found
    # float32 sums over at most five units
    assert (together - apart).norm() <= 2.0**-20 * 0.01 * max(1, len(set(units)))


def test_every_division_of_four_rows_is_clipped() -> None:
    """All of them, no luck needed."""
    toy, ids = Toy(3, 0), ids_of(4, 3, 0)
    for drawn in itertools.product(range(4), repeat=4):
        units = [sorted(set(drawn)).index(unit) for unit in drawn]
        expected = sum(g / max(1.0, float(g.norm()) / 0.1) for g in gradients(toy, ids, units))
        assert (ours(toy, ids, units, 0.1, None)[0] - expected).norm() <= 1e-5 * expected.norm()
