"""What can't be clipped exactly is refused, the module is as it was, no unit exceeds the clip."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from common.errors import ConfigError, DataError
from common.privacy import layers
from common.privacy.clipping import UnitClipper

WORDS, WIDTH = 11, 8


class Toy(nn.Module):
    """Embedding, layer norm, two linear layers; `[rows, tokens]` ids to `[rows]` losses."""

    def __init__(self, middle: nn.Module | None = None, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH) if middle is None else middle
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.middle(self.norm(self.embedding(ids)))
        return self.head(hidden).square().sum((1, 2))


def some_ids(rows: int, tokens: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, WORDS, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def gradient(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Of the summed loss of all rows, by autograd: float64 `[size]`."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(module(ids).sum(), trained)]
    ).double()


def realised(module: nn.Module, clip: float, losses: Callable[[], torch.Tensor]) -> float:
    """Norm of what one unit of one row adds."""
    with UnitClipper(module, clip) as clipper, clipper.rows([0]):
        clipper.add(losses())
    return float(clipper.total.double().norm())


@pytest.fixture(autouse=True)
def quiet(torch_quiet):
    """One thread."""


# --- what is refused


class Tied(Toy):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, WORDS)
        self.head.weight = self.embedding.weight


def test_a_weight_of_two_layers_is_refused_by_both_names() -> None:
    with pytest.raises(ConfigError, match=r"head\.weight and embedding\.weight are one trained"):
        UnitClipper(Tied(), 1.0)


def test_a_layer_in_two_places_is_refused() -> None:
    toy = Toy()
    toy.again = toy.middle
    with pytest.raises(ConfigError, match="are one trained weight"):
        UnitClipper(toy, 1.0)


def test_a_tied_weight_that_is_frozen_is_allowed() -> None:
    tied = Tied()
    tied.embedding.weight.requires_grad_(False)
    with UnitClipper(tied, 1e9) as clipper, clipper.rows([0, 0]):
        clipper.add(tied(some_ids(2)))
    assert torch.allclose(clipper.total.double(), gradient(tied, some_ids(2)), rtol=1e-5, atol=1e-6)


class Twice(Toy):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.middle(torch.tanh(self.middle(self.norm(self.embedding(ids)))))
        return self.head(hidden).square().sum((1, 2))


def test_a_layer_that_runs_twice_in_one_forward_is_refused_unless_frozen() -> None:
    twice = Twice()
    with UnitClipper(twice, 1.0) as clipper, clipper.rows([0, 1]):
        with pytest.raises(ConfigError, match="middle ran twice"):
            twice(some_ids(2))
        assert not clipper.total.any()
    twice.middle.requires_grad_(False)
    with UnitClipper(twice, 1e9) as clipper, clipper.rows([0, 0]):
        clipper.add(twice(some_ids(2)))
    expected = gradient(twice, some_ids(2))
    assert torch.allclose(clipper.total.double(), expected, rtol=1e-5, atol=1e-6)


class BareWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class OwnLinear(nn.Linear):
    """A subclass may compute anything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


UNSUPPORTED = {
    "convolution": lambda: nn.Conv1d(WIDTH, WIDTH, 1),
    "batch norm": lambda: nn.BatchNorm1d(WIDTH),
    "bare weight": BareWeight,
    "linear of another class": lambda: OwnLinear(WIDTH, WIDTH),
    "bilinear": lambda: nn.Bilinear(WIDTH, WIDTH, WIDTH),
    "recurrent": lambda: nn.GRU(WIDTH, WIDTH),
    "embedding with max_norm": lambda: nn.Embedding(WORDS, WIDTH, max_norm=1.0),
    "embedding scaled by frequency": lambda: nn.Embedding(WORDS, WIDTH, scale_grad_by_freq=True),
    "sparse embedding": lambda: nn.Embedding(WORDS, WIDTH, sparse=True),
    "embedding bag": lambda: nn.EmbeddingBag(WORDS, WIDTH),
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    # layers of a known class that are not what the class says
    "layer norm over two dimensions": lambda: nn.LayerNorm([5, WIDTH]),
    "linear with a weight more": lambda: with_parameter(nn.Linear(WIDTH, WIDTH)),
    "layer norm with a weight more": lambda: with_parameter(nn.LayerNorm(WIDTH)),
    "embedding with a weight more": lambda: with_parameter(nn.Embedding(WORDS, WIDTH)),
    "float64": lambda: nn.Linear(WIDTH, WIDTH).double(),
}


def with_parameter(module: nn.Module) -> nn.Module:
    """As weight normalisation by hooks adds one."""
    module.register_parameter("weight_g", nn.Parameter(torch.ones(1)))
    return module


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_a_trained_layer_of_another_kind_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"middle.*clipped per unit") as caught:
        UnitClipper(Toy(UNSUPPORTED[kind]()), 1.0)
    assert "freeze it" in (caught.value.remedy or "")


def test_a_frozen_layer_of_another_kind_is_allowed() -> None:
    toy = Toy(OwnLinear(WIDTH, WIDTH))
    toy.middle.requires_grad_(False)
    with UnitClipper(toy, 1e9) as clipper, clipper.rows([0, 0, 0]):
        clipper.add(toy(some_ids(3)))
    expected = gradient(toy, some_ids(3))
    assert torch.allclose(clipper.total.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_trained_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="no weight is trained"):
        UnitClipper(Toy().requires_grad_(False), 1.0)


class SharedPositions(Toy):
    """As transformers makes position ids where none are given: one row for the whole batch."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.embedding(torch.arange(ids.shape[1])[None]) + ids[..., None])
        return self.head(self.middle(hidden)).square().sum((1, 2))


def test_position_ids_of_one_row_for_a_whole_batch_are_refused() -> None:
    module = SharedPositions()
    with UnitClipper(module, 1.0) as clipper, clipper.rows([0, 1]):
        with pytest.raises(DataError, match="embedding got 1 rows, the batch has 2") as caught:
            module(some_ids(2))
        assert "position_ids" in (caught.value.remedy or "")


@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x[:1], lambda x: x[:, None]])
def test_losses_of_another_shape_are_refused_and_nothing_is_added(wrong) -> None:
    toy = Toy()
    with UnitClipper(toy, 1.0) as clipper, clipper.rows([0, 1]):
        losses = toy(some_ids(2))
        with pytest.raises(DataError, match="one loss for each of 2 rows"):
            clipper.add(wrong(losses))
        assert not clipper.total.any()


@pytest.mark.parametrize("units", [[0, 2], [1], [1, 1, 2], [-1, 0], [0, 3, 1]])
def test_units_that_are_not_numbered_from_0_without_a_gap_are_refused(units: list[int]) -> None:
    with (
        UnitClipper(Toy(), 1.0) as clipper,
        pytest.raises(DataError, match="numbered 0 to n - 1"),
        clipper.rows(units),
    ):
        pass


def test_forward_and_add_outside_rows_are_refused() -> None:
    toy = Toy()
    with UnitClipper(toy, 1.0) as clipper:
        with pytest.raises(DataError, match="belong inside"):
            toy(some_ids(2))
        with clipper.rows([0, 1]):
            losses = toy(some_ids(2))
        with pytest.raises(DataError, match="belong inside"):
            clipper.add(losses)
        assert not clipper.total.any()


def test_a_second_add_in_one_announcement_is_refused() -> None:
    toy = Toy()
    with UnitClipper(toy, 0.1) as clipper, clipper.rows([0, 1]):
        clipper.add(toy(some_ids(2)))
        before = clipper.total.clone()
        with pytest.raises(DataError):
            clipper.add(toy(some_ids(2)))
        assert clipper.total.equal(before)


def test_add_on_a_clipper_that_was_not_entered_is_refused() -> None:
    toy = Toy()
    clipper = UnitClipper(toy, 1.0)
    with pytest.raises(DataError), clipper.rows([0, 1]):
        clipper.add(toy(some_ids(2)))
    assert all(p.grad is None for p in toy.parameters())


@pytest.mark.parametrize("clip", [0.0, 9e-7, -1.0, float("nan"), float("inf")])
def test_a_clip_that_bounds_nothing_is_refused(clip: float) -> None:
    with pytest.raises(ConfigError):
        UnitClipper(Toy(), clip)


class Careless(Toy):
    """Overwrites a layer's input: autograd would object if the layer's weight were in its graph."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.embedding(ids))
        out = self.middle(hidden)
        hidden.mul_(3.0)
        return self.head(out).square().sum((1, 2))


def test_an_input_that_is_overwritten_after_its_layer_ran_is_refused() -> None:
    module = Careless()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(module, some_ids(2))
    with (
        UnitClipper(module, 1.0) as clipper,
        clipper.rows([0, 1]),
        pytest.raises((DataError, ConfigError, RuntimeError)),
    ):
        clipper.add(module(some_ids(2)))


# --- what is left behind


def state_of(module: nn.Module) -> dict[str, object]:
    hooks = {
        name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for name, m in module.named_modules()
    }
    parameters = module.named_parameters()
    return {"hooks": hooks, "trained": {n: (p.requires_grad, p.grad) for n, p in parameters}}


def half_frozen() -> Toy:
    toy = Toy()
    toy.embedding.requires_grad_(False)
    toy.middle.bias.requires_grad_(False)
    return toy


def test_afterwards_the_module_is_as_it_was() -> None:
    toy = half_frozen()
    before, weights = state_of(toy), [p.clone() for p in toy.parameters()]
    with UnitClipper(toy, 1.0) as clipper:
        assert state_of(toy) != before
        for _ in range(2):
            with clipper.rows([0, 1, 0]):
                clipper.add(toy(some_ids(3)))
        clipper.add_large([lambda: toy(some_ids(2))], [2])
    assert state_of(toy) == before
    assert all(p.equal(w) for p, w in zip(toy.parameters(), weights, strict=True))
    assert gradient(toy, some_ids(2)).any()


def _in_forward(toy: Toy, clipper: UnitClipper) -> None:
    with clipper.rows([0]):
        toy(some_ids(2))


def _in_add(toy: Toy, clipper: UnitClipper) -> None:
    with clipper.rows([0, 1]):
        clipper.add(toy(some_ids(2)).sum())


def _in_a_part(toy: Toy, clipper: UnitClipper) -> None:
    clipper.add_large([lambda: toy(some_ids(2)), lambda: toy(some_ids(3))], [2, 2])


@pytest.mark.parametrize("fails", [_in_forward, _in_add, _in_a_part])
def test_after_an_exception_the_module_is_as_it_was_and_the_clipper_works_on(fails) -> None:
    toy = half_frozen()
    before = state_of(toy)
    clipper = UnitClipper(toy, 1e9)
    with pytest.raises(DataError), clipper:
        fails(toy, clipper)
    assert state_of(toy) == before
    assert not clipper.total.any()
    with clipper, pytest.raises(DataError):
        fails(toy, clipper)
    with clipper:
        with clipper.rows([0, 0]):
            clipper.add(toy(some_ids(2)))
        found = clipper.total.double()
        assert torch.allclose(found, gradient_of_trained(toy, clipper), rtol=1e-5, atol=1e-6)


def gradient_of_trained(toy: Toy, clipper: UnitClipper) -> torch.Tensor:
    clipper.__exit__()
    return gradient(toy, some_ids(2))


def test_zero_starts_a_new_sum() -> None:
    toy = Toy()
    with UnitClipper(toy, 1.0) as clipper:
        sums = []
        for _ in range(2):
            clipper.zero()
            with clipper.rows([0, 1]):
                clipper.add(toy(some_ids(2)))
            sums.append(clipper.total.clone())
    assert sums[0].any()
    assert sums[0].equal(sums[1])


# --- what comes in unusual shapes


@pytest.mark.parametrize("way", ["chosen", "ghost", "direct"])
def test_an_empty_batch_is_a_real_one_and_adds_nothing(way: str, monkeypatch) -> None:
    force(monkeypatch, way)
    toy = Toy()
    with UnitClipper(toy, 1.0) as clipper:
        with clipper.rows([0]):
            clipper.add(toy(some_ids(1)))
        before = clipper.total.clone()
        for losses in (lambda: toy(some_ids(0)), lambda: torch.zeros(0)):
            with clipper.rows([]):
                assert clipper.add(losses()).shape == (0,)
        clipper.add_large([], [])
    assert before.any()
    assert clipper.total.equal(before)


def test_a_layer_that_the_loss_does_not_reach_gets_zero() -> None:
    toy = Toy()
    toy.unused = nn.Linear(WIDTH, WIDTH)
    with UnitClipper(toy, 1e9) as clipper, clipper.rows([0, 1]):
        clipper.add(toy(some_ids(2)))
    sizes = [p.numel() for p in toy.parameters()]
    parts = dict(zip(dict(toy.named_parameters()), clipper.total.split(sizes), strict=True))
    assert not parts["unused.weight"].any()
    assert not parts["unused.bias"].any()
    assert all(part.any() for name, part in parts.items() if not name.startswith("unused"))


@pytest.mark.parametrize("bias_only", [False, True])
@pytest.mark.parametrize("way", ["chosen", "ghost", "direct"])
def test_weight_and_bias_may_be_trained_apart(way: str, bias_only: bool, monkeypatch) -> None:
    force(monkeypatch, way)
    toy = Toy()
    for module in (toy.norm, toy.middle, toy.head):
        (module.weight if bias_only else module.bias).requires_grad_(False)
    toy.embedding.requires_grad_(not bias_only)
    with UnitClipper(toy, 1e9) as clipper, clipper.rows([0, 0, 1]):
        norms = clipper.add(toy(some_ids(3)))
    expected = gradient(toy, some_ids(3))
    assert torch.allclose(clipper.total.double(), expected, rtol=1e-5, atol=1e-6)
    first = gradient(toy, some_ids(3)[:2]).norm()
    assert float(norms[0]) == pytest.approx(float(first), rel=1e-5)


def force(monkeypatch, way: str) -> None:
    """Which way every linear layer with a trained weight takes; `chosen` leaves it."""
    if way != "chosen":
        chosen = way == "direct"
        monkeypatch.setattr(
            layers.LinearLayer,
            "_direct",
            lambda self, *_: chosen or "weight" not in self.own,
        )


@pytest.mark.parametrize("way", ["ghost", "direct"])
def test_a_layer_that_gets_one_vector_per_row_is_clipped(way: str, monkeypatch) -> None:
    force(monkeypatch, way)
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(4, WIDTH)

    def losses(rows: slice) -> torch.Tensor:
        return module(x[rows]).square().sum(1)

    def alone(rows: slice) -> torch.Tensor:
        parts = torch.autograd.grad(losses(rows).sum(), list(module.parameters()))
        return torch.cat([p.flatten() for p in parts]).double()

    one, other = alone(slice(0, 3)), alone(slice(3, 4))
    clip = float((one.norm() * other.norm()).sqrt())
    expected = sum(g * min(1.0, clip / float(g.norm())) for g in (one, other))
    with UnitClipper(module, clip) as clipper, clipper.rows([0, 0, 0, 1]):
        clipper.add(losses(slice(None)))
    assert (clipper.total.double() - expected).norm() <= 1e-5 * expected.norm()


def test_ghost_norms_and_per_unit_gradients_are_both_taken_at_real_sizes() -> None:
    """By the layer's shape alone, so that no unit's norm depends on who else was drawn."""
    ways = {}
    for name, (p, d) in {"square": (384, 384), "adapter": (384, 8), "head": (384, 7)}.items():
        ways[name] = layers.LinearLayer(name, nn.Linear(p, d), {"weight": "weight"})._direct()
    assert ways == {"square": False, "adapter": True, "head": True}


# --- the bound, where rounding is worst

ALIKE = (0.7, 0.9, 1.05, 1.1, 1.2)


def alike_losses(module: nn.Module, tokens: int, value: float, bfloat16: bool = False):
    """One row whose tokens and features are all alike: rounding errors then all go one way."""
    wide = module.in_features if isinstance(module, nn.Linear) else None
    shape = (1, tokens, wide) if wide else (1, tokens)
    x = torch.full(shape, 0.77) if wide else torch.zeros(shape, dtype=torch.int64)

    def losses() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = module(x)
        return (y.float() * value).sum((1, 2))

    return losses


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("way", ["ghost", "direct"])
@pytest.mark.parametrize("tokens", [2, 128, 512, 4096])
def test_a_unit_of_many_tokens_alike_stays_within_the_clip(
    tokens: int, way: str, bfloat16: bool, monkeypatch
) -> None:
    force(monkeypatch, way)
    for bias in (False, True):
        module = nn.Linear(64, 48, bias=bias)
        for value in ALIKE:
            found = realised(module, 1.0, alike_losses(module, tokens, value, bfloat16))
            assert 0.98 <= found <= 1.0


@pytest.mark.parametrize("tokens", [2, 128, 512, 4096])
def test_one_token_repeated_many_times_stays_within_the_clip(tokens: int) -> None:
    module = nn.Embedding(4, 48)
    for value in ALIKE:
        assert 0.999 <= realised(module, 1.0, alike_losses(module, tokens, value)) <= 1.0


@pytest.mark.parametrize("scale", [1.0, 2.0**62, 1e25, 1e38])
def test_a_large_unit_of_any_norm_stays_within_the_clip(scale: float) -> None:
    """Beyond 2^63 it adds nothing: its factor would have few bits left."""
    module = nn.Linear(256, 256, bias=False)
    with UnitClipper(module, 1e-5) as clipper:
        norm = clipper.add_large(
            [lambda: (module(torch.ones(1, 1, 256)) * scale / 256).sum((1, 2))], [1]
        )
    assert norm == pytest.approx(scale)
    realised_ = float(clipper.total.double().norm())
    assert realised_ <= 1e-5
    assert (realised_ > 0.99e-5) == (scale < 2.0**63)


@pytest.mark.parametrize("width", [384, 3072])
def test_one_wide_token_stays_within_the_clip(width: int) -> None:
    module = nn.Linear(width, 384)
    for value in ALIKE:
        assert 0.999 <= realised(module, 1.0, alike_losses(module, 1, value)) <= 1.0


def test_add_under_autocast_adds_as_it_does_outside() -> None:
    toy = Toy()
    sums = []
    for inside in (False, True):
        with UnitClipper(toy, 0.01) as clipper, clipper.rows([0, 0, 1]):
            losses = toy(some_ids(3))
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                clipper.add(losses)
        sums.append(clipper.total.double())
    assert (sums[0] - sums[1]).norm() <= 1e-5 * sums[0].norm()


def test_a_setting_of_torchs_matmul_precision_changes_nothing_and_stays() -> None:
    toy = Toy(nn.Linear(WIDTH, WIDTH))
    sums = []
    for precision in ("highest", "medium"):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            losses = None
            with UnitClipper(toy, 0.01) as clipper, clipper.rows([0, 0, 1]):
                with torch.autocast("cpu", torch.bfloat16):
                    losses = toy(some_ids(3))
                clipper.add(losses)
            assert torch.get_float32_matmul_precision() == precision
        finally:
            torch.set_float32_matmul_precision(before)
        sums.append(clipper.total.double())
    assert (sums[0] - sums[1]).norm() <= 1e-2 * sums[0].norm()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, 64])
def test_numbers_that_bfloat16_rounds_worst_stay_within_the_clip(
    tokens: int, stored: bool, monkeypatch
) -> None:
    """bfloat16 has 8 significant bits: a rounding is off by up to `2^-8`, and here by nearly that.

    Gram matrices of 257 ones hold 256; a factor just above `0.5 (1 + 2^-8)` becomes
    `0.5 (1 + 2^-7)` where weighted inputs are stored in bfloat16, as on CUDA and, inside oneDNN, on
    CPUs with AMX. `stored` does so here too.
    """

    def add_product_(total, g, a, exact):
        add(total, g, a if exact else a.bfloat16().float(), exact)

    add = layers.add_product_
    if stored:
        monkeypatch.setattr(layers, "add_product_", add_product_)
    module = nn.Linear(257, 257, bias=False)
    x = torch.ones(1, tokens, 257)

    def losses() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
        return y.float().sum((1, 2))

    with UnitClipper(module, 1.0) as clipper, clipper.rows([0]):
        norm = float(clipper.add(losses()))
    clip = norm * 0.5 * (1 + 2.0**-8 * 1.01)
    assert 0.97 * clip <= realised(module, clip, losses) <= clip
