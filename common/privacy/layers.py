"""What clipping needs of each kind of layer: its part of every unit's norm, and its weighted sum.

Let a layer have input rows `a` and output gradients `g` of one unit, `L` positions in all. Its
weight gradient is `g^T a`, and two ways lead to its squared norm:

    ghost    sum over s, t of (g_s . g_t)(a_s . a_t): L^2 (p + d) products, nothing large stored
             (Li et al. 2022, arXiv 2110.05679; Bu et al. 2022, arXiv 2210.00038, section 3)
    direct   form `g^T a` of each unit: L p d products; it is then kept and summed, so that no
             second product is needed. For small weights: LoRA's and heads'.

Which of them a layer takes depends on its shape alone. An embedding's gradient is a sum of rows.

Rounding. Let `M = sum over s, t of |g_s . g_t| |a_s . a_t|` and `S = sum over t of |g_t| |a_t|`.
The float32 error of summing the positions is taken as `2^-22 M` in the square, and `2^-28 M` more
for each of the unit's positions beyond 256; that of the inner products as `2^-26 S^2`: no worst
case, but more than tests find where all terms are alike, so that all roundings go one way. Gram
matrices of bfloat16 numbers may come rounded to bfloat16: two factors of relative error `2^-8` each
move the square by at most `2^-7 (1 + 2^-9) M`. Where a factor `c` times a bfloat16 number is stored
in bfloat16 again, the unit's contribution moves by at most `2^-8 c S`. All of it is added to the
norm before the factor is taken: `Scratch.norms`. Sums over units are summed and kept in float32, so
that one unit's part isn't lost or blown up by the rounding of the others'
(`common.privacy.products`).

Underflow. Where numbers are small, `g_s . g_t` of n of them is off by up to `n 2^-126`: it comes
out as zero though `g` is not, and the `a` beside it may be as large as float32 goes. So
`n_g 2^-126 (sum over t of |a_t|)^2`, and the same with `a` and `g` exchanged, are added to the
square as well. What a `g` below `2^-126` adds is less than a `2^-63`th of the root of that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from common.errors import ConfigError, DataError
from common.privacy.products import Copies, add_product_, add_weighted_rows_, gram

_GHOST_ERROR: Final = 2.0**-22
_GHOST_ERROR_PER_POSITION: Final = 2.0**-28
_DOT_ERROR: Final = 2.0**-26
_FEW_POSITIONS: Final = 256
_SMALLEST: Final = 2.0**-126
_BFLOAT16_GRAM: Final = 2.0**-7 * (1 + 2.0**-7)
_BFLOAT16_STORE: Final = 2.0**-8 * (1 + 2.0**-6)
_DIRECT_LIMIT: Final = 1 << 16
"""Most values of a weight whose per-unit gradients are formed and kept: LoRA's, a head's."""

Views = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Rows:
    """Which unit each row of a physical batch belongs to.

    Attributes:
        n_rows: rows in the batch.
        n_units: units in the batch.
        unit: int64 `[rows]`.
        index: int64 `[units, most rows of a unit]`, filled up with `n_rows`; None where every
            row is a unit of its own, in order.
    """

    n_rows: int
    n_units: int
    unit: torch.Tensor
    index: torch.Tensor | None

    @classmethod
    def of(cls, units: Sequence[int], device: torch.device) -> "Rows":
        """
        Raises:
            DataError: the units are not 0 to n - 1.
        """
        members: dict[int, list[int]] = {}
        for row, unit in enumerate(units):
            members.setdefault(unit, []).append(row)
        if sorted(members) != list(range(len(members))):
            raise DataError("units of a physical batch are numbered 0 to n - 1, none left out")
        longest = max((len(rows) for rows in members.values()), default=1)
        unit_of_row = torch.tensor(list(units), dtype=torch.int64, device=device)
        index = None
        if longest > 1 or list(units) != list(range(len(units))):
            padded = [m + [len(units)] * (longest - len(m)) for _, m in sorted(members.items())]
            index = torch.tensor(padded, dtype=torch.int64, device=device)
        return cls(len(units), len(members), unit_of_row, index)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """`[rows, tokens, n]` as `[units, positions, n]`; missing rows are zeros."""
        if self.index is None:
            return values
        padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        return padded[self.index].flatten(1, 2)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`[rows, n]` summed over the rows of each unit: `[units, n]`."""
        if self.index is None:
            return values
        return values.new_zeros(self.n_units, values.shape[1]).index_add_(0, self.unit, values)


class Gram:
    """Inner products of all positions of each unit.

    Args:
        values: float32 `[units, L, L]`.
        rounded: whether each was rounded to bfloat16.
        width: numbers in each product's factors.

    Attributes:
        hidden: root of what underflow may have hidden of one product.
        span: at least the sum of the factors' lengths over a unit's positions: `[units]`.
    """

    def __init__(self, values: torch.Tensor, rounded: bool, width: int):
        self.values = values
        self.rounded = rounded
        self.squares = values.diagonal(dim1=1, dim2=2).clamp(min=0)
        self.hidden = (width * _SMALLEST) ** 0.5
        self.span = (self.squares * (1 + _BFLOAT16_GRAM) + self.hidden**2).sqrt().sum(1)


class Scratch:
    """What the layers share during one physical batch."""

    def __init__(self) -> None:
        self.wants_norms = True
        self.copies = Copies()
        self.added = False
        self._rows: Rows | None = None
        self._kept: dict[str, Any] = {}
        self._last_cast: tuple[torch.Tensor, torch.Tensor] | None = None
        self._last_gram: dict[str, tuple[torch.Tensor, Gram]] = {}

    def start(self, rows: Rows) -> None:
        self.clear()
        self._rows = rows
        self._square = torch.zeros(rows.n_units, device=rows.unit.device)
        self._ghost_slack = torch.zeros_like(self._square)
        self._gram_slack = torch.zeros_like(self._square)
        self._store_slack = torch.zeros_like(self._square)

    def clear(self) -> None:
        self._rows = None
        self.added = False
        self.wants_norms = True
        self._kept.clear()
        self._last_cast = None
        self._last_gram.clear()
        self.copies.forget()

    @property
    def rows(self) -> Rows:
        """The announced rows.

        Raises:
            DataError: none were.
        """
        if self._rows is None:
            raise DataError("clipping: forward and `add` belong inside `with clipper.rows(…)`")
        return self._rows

    def keep(self, name: str, value: Any) -> None:
        """Hold what a layer saw in the forward pass.

        Raises:
            ConfigError: the layer ran twice in one forward pass: its norm would miss cross terms.
        """
        if name in self._kept:
            raise ConfigError(
                f"the layer {name} ran twice in one forward pass, so that its trained weights are "
                "shared between places",
                remedy="freeze it, or take an encoder without shared layers",
            )
        self._kept[name] = value

    def take(self, name: str) -> Any | None:
        return self._kept.pop(name, None)

    def add_square(self, square: torch.Tensor) -> None:
        """Add a layer's part of each unit's squared norm: float32 `[units]`."""
        self._square += square

    def add_ghost(self, g: Gram, a: Gram, bias: bool, stored: bool) -> None:
        """The same from Gram matrices, with the slack that rounding asks for.

        Args:
            bias: whether the layer's bias is trained: an input of 1 at every position.
            stored: whether the weighted sum takes its factors in bfloat16.
        """
        product = g.values * a.values
        self._square += product.flatten(1).sum(1)
        if bias:
            self._square += g.values.flatten(1).sum(1)
        magnitude = product.abs_().flatten(1).sum(1)
        if bias:
            magnitude += g.values.abs().flatten(1).sum(1)
        if g.rounded or a.rounded:
            self._gram_slack += magnitude
        lengths = g.squares * (a.squares + bias)
        slack = lengths.sqrt().sum(1).square()
        # the unit's own positions: padding would tie its norm to the others'
        further = ((lengths > 0).sum(1) - _FEW_POSITIONS).clamp(min=0)
        self._ghost_slack += (_GHOST_ERROR + _GHOST_ERROR_PER_POSITION * further) * magnitude
        self._ghost_slack += _DOT_ERROR * slack
        span = a.span + bias * a.values.shape[1]
        self._ghost_slack += (g.hidden * span).square() + (a.hidden * g.span).square()
        if stored:
            lengths = (g.squares + g.hidden**2) * (a.squares + bias + a.hidden**2)
            self._store_slack += lengths.sqrt().sum(1).square()

    def norms(self) -> torch.Tensor:
        """Upper bound of each unit's contribution at factor 1: float32 `[units]`."""
        square = self._square.clamp(min=0) + self._ghost_slack
        square += _BFLOAT16_GRAM * self._gram_slack
        return square.sqrt() + _BFLOAT16_STORE * self._store_slack.sqrt()

    def weigh(self, factors: torch.Tensor) -> None:
        """Set each unit's factor: float32 `[units]`."""
        self.factors = factors
        self.row_factors = factors[self.rows.unit][:, None, None]

    def cast(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`values` in another type; layers that run one after the other share the copy."""
        if values.dtype == dtype:
            return values
        if self._last_cast is None or self._last_cast[0] is not values:
            self._last_cast = (values, values.detach().to(dtype))
        return self._last_cast[1]

    def gram(self, side: str, values: torch.Tensor) -> Gram:
        """Gram matrices; layers whose gradients arrive one after the other share them."""
        last = self._last_gram.get(side)
        if last is None or last[0] is not values:
            made = Gram(*gram(self.rows.gather(values)), width=values.shape[-1])
            last = self._last_gram[side] = (values, made)
        return last[1]


class Layer:
    """One trained layer. `own` maps its parameter names to names in the whole module."""

    def __init__(self, name: str, module: nn.Module, own: dict[str, str]):
        self.name = name
        self.module = module
        self.own = own

    def hook(self, scratch: Scratch) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        """A forward hook that keeps the input and waits for the output's gradient."""

        def forward(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            rows = scratch.rows
            if args[0].shape[0] != rows.n_rows:
                raise DataError(
                    f"{self.name} got {args[0].shape[0]} rows, the batch has {rows.n_rows}: its "
                    "gradient would not separate by unit",
                    remedy="give position_ids and token_type_ids of the whole batch",
                )
            scratch.keep(self.name, None)
            if not output.requires_grad:
                output.requires_grad_()
            a = self.seen(scratch, args[0], output)
            version = a._version

            def arrived(g: torch.Tensor) -> None:
                if a._version != version:
                    raise DataError(f"the input of {self.name} was overwritten after it ran")
                scratch.take(self.name)
                scratch.keep(self.name, self.backward(scratch, a, g))

            output.register_hook(arrived)  # type: ignore[no-untyped-call]

        return forward

    def seen(self, scratch: Scratch, source: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What `backward` needs of the input. Layers that share an input share it too."""
        return source

    def backward(self, scratch: Scratch, a: torch.Tensor, g: torch.Tensor) -> Any:
        """Add to the units' norms; what it returns is handed to `weighted`."""
        raise NotImplementedError

    def accumulate(self, scratch: Scratch, views: Views) -> None:
        """Add the layer's gradients, each unit's times its factor, to `views`."""
        held = scratch.take(self.name)
        if held is not None:
            self.weighted(scratch, held, views)

    def weighted(self, scratch: Scratch, held: Any, views: Views) -> None:
        raise NotImplementedError


class LinearLayer(Layer):
    """`y = a W^T + b`."""

    def seen(self, scratch: Scratch, source: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return _with_tokens(scratch.cast(source, output.dtype))

    def backward(self, scratch: Scratch, a: torch.Tensor, g: torch.Tensor) -> Any:
        g = _with_tokens(g)
        if self._direct():
            return self._per_unit(scratch, a, g)
        if scratch.wants_norms:
            scratch.add_ghost(
                scratch.gram("g", g),
                scratch.gram("a", a),
                bias="bias" in self.own,
                stored=g.dtype == torch.bfloat16,
            )
        return {}, a, g

    def _direct(self) -> bool:
        """By the layer's shape alone: what depended on the batch would tie a unit's norm, which
        differs by rounding between the two ways, to who else was drawn.
        """
        linear: Any = self.module
        return "weight" not in self.own or linear.weight.numel() <= _DIRECT_LIMIT

    def _per_unit(self, scratch: Scratch, a: torch.Tensor, g: torch.Tensor) -> Any:
        held: dict[str, torch.Tensor] = {}
        if "bias" in self.own:
            held["bias"] = _add_vector(scratch, g.sum(1, dtype=torch.float32))
        if "weight" in self.own:
            kept = scratch.rows.gather(g).mT @ scratch.rows.gather(a)
            held["weight"] = kept.flatten(1).float()
            if scratch.wants_norms:
                scratch.add_square(held["weight"].square().sum(1))
        return held, None, None

    def weighted(self, scratch: Scratch, held: Any, views: Views) -> None:
        per_unit, a, g = held
        _add_per_unit(self, scratch, per_unit, views)
        if g is None:
            return
        narrow = g.dtype == torch.bfloat16
        scaled = scratch.copies.factor("a", a, scratch.row_factors).flatten(0, 1)
        rows = scratch.copies.factor("g", g).flatten(0, 1)
        add_product_(views[self.own["weight"]], rows, scaled, exact=not narrow)
        if "bias" in self.own:
            weights = scratch.row_factors[:, 0].expand(g.shape[:2]).flatten()
            add_weighted_rows_(views[self.own["bias"]], rows, weights)


class NormLayer(Layer):
    """`y = gamma (x - mean) / stddev + beta` over the last dimension."""

    def backward(self, scratch: Scratch, a: torch.Tensor, g: torch.Tensor) -> Any:
        held: dict[str, torch.Tensor] = {}
        norm: Any = self.module
        wide = _with_tokens(g)
        if "weight" in self.own:
            x = functional.layer_norm(a.detach().float(), norm.normalized_shape, eps=norm.eps)
            held["weight"] = _add_vector(scratch, _with_tokens(x).mul_(wide).sum(1))
        if "bias" in self.own:
            held["bias"] = _add_vector(scratch, wide.sum(1, dtype=torch.float32))
        return held

    def weighted(self, scratch: Scratch, held: Any, views: Views) -> None:
        _add_per_unit(self, scratch, held, views)


class EmbeddingLayer(Layer):
    """`y_t = W[id_t]`: each unit's gradient has one row for each of its ids. No ghost norm."""

    def backward(self, scratch: Scratch, a: torch.Tensor, g: torch.Tensor) -> Any:
        embedding: Any = self.module
        owners = scratch.rows.unit[:, None]
        found, place = torch.unique(owners * embedding.num_embeddings + a, return_inverse=True)
        summed = torch.zeros(len(found), g.shape[-1], device=g.device)
        summed.index_add_(0, place.flatten(), g.flatten(0, 1).float())
        ids, units = found % embedding.num_embeddings, found // embedding.num_embeddings
        if embedding.padding_idx is not None:
            summed[ids == embedding.padding_idx] = 0
        if scratch.wants_norms:
            squares = torch.zeros(scratch.rows.n_units, device=g.device)
            scratch.add_square(squares.index_add_(0, units, summed.square().sum(1)))
        return ids, units, summed

    def weighted(self, scratch: Scratch, held: Any, views: Views) -> None:
        ids, units, summed = held
        summed.mul_(scratch.factors[units][:, None])
        views[self.own["weight"]].index_add_(0, ids, summed)


def layer_for(name: str, module: nn.Module, own: dict[str, str]) -> Layer:
    """The handler of a module with trained weights of its own.

    Raises:
        ConfigError: a kind of layer, or an option of it, that can't be clipped exactly.
    """
    kinds: dict[type, type[Layer]] = {
        nn.Linear: LinearLayer,
        nn.LayerNorm: NormLayer,
        nn.Embedding: EmbeddingLayer,
    }
    if type(module) not in kinds or _odd(module, own):
        raise ConfigError(
            f"{name or 'the model'} ({type(module).__name__}) has trained weights that can't be "
            "clipped per unit",
            remedy="freeze it, or use an encoder of the BERT, DistilBERT or RoBERTa family",
        )
    return kinds[type(module)](name, module, own)


def _odd(module: nn.Module, own: dict[str, str]) -> bool:
    """An option, a weight or a type that the handlers don't know."""
    if isinstance(module, nn.Embedding) and (
        module.max_norm is not None or module.scale_grad_by_freq or module.sparse
    ):
        return True
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        return True
    weights = dict(module.named_parameters(recurse=False))
    return not own.keys() <= {"weight", "bias"} or any(
        weights[name].dtype != torch.float32 for name in own
    )


def _with_tokens(values: torch.Tensor) -> torch.Tensor:
    return values if values.dim() == 3 else values.flatten(1, -2) if values.dim() > 3 else (
        values.unsqueeze(1)
    )  # fmt: skip


def _add_vector(scratch: Scratch, per_row: torch.Tensor) -> torch.Tensor:
    per_unit = scratch.rows.sum(per_row)
    if scratch.wants_norms:
        scratch.add_square(per_unit.square().sum(1))
    return per_unit


def _add_per_unit(
    layer: Layer, scratch: Scratch, per_unit: dict[str, torch.Tensor], views: Views
) -> None:
    for name, values in per_unit.items():
        views[layer.own[name]].view(-1).addmv_(values.mT, scratch.factors)
