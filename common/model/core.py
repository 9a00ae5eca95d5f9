"""Two-sided adapters: W + (alpha / rank) U S V, where U and V are fixed and S alone is trained.

LoRA-XS (Balazy et al. 2024, arXiv 2405.17604) takes U and V from the frozen weight's own singular
vectors. Here they span what public training changed (`common.model.directions`). The noise of
DP-SGD grows with the root of the number of trained weights: rank 16 on all linear layers of MiniLM
trains 9,216 weights beside the head, where LoRA of rank 8 with fixed A trains 165,888.

S starts at zero, and a mean of S is a mean of the products, as U and V are the same everywhere.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from common.model.directions import Directions, sides_of


class CoreAdapter(nn.Module):
    """A frozen linear layer with a trained core.

    Args:
        base: the layer; its weight is not trained.
        left: U, float32 `[outputs, rank]`.
        right: V, float32 `[rank, inputs]`.
        scale: alpha / rank.
    """

    left: torch.Tensor
    right: torch.Tensor

    def __init__(self, base: nn.Linear, left: torch.Tensor, right: torch.Tensor, scale: float):
        super().__init__()
        self.base = base
        self.core = nn.Linear(right.shape[0], left.shape[1], bias=False)
        nn.init.zeros_(self.core.weight)
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.scale = scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's output plus what the core adds, `[..., outputs]`."""
        change = functional.linear(self.core(functional.linear(inputs, self.right)), self.left)
        output: torch.Tensor = self.base(inputs) + self.scale * change
        return output

    def folded(self) -> nn.Linear:
        """The layer alone, the core added into its weight."""
        with torch.no_grad():
            self.base.weight += self.scale * self.left @ self.core.weight @ self.right
        return self.base


def add_cores(
    model: nn.Module, targets: list[str], rank: int, scale: float, directions: Directions
) -> None:
    """Put an adapter around each target, in place.

    Args:
        targets: full names of linear layers.

    Raises:
        EncoderError: the directions hold none of that rank and shape for a target.
    """
    for name in targets:
        base = cast(nn.Linear, model.get_submodule(name))
        left, right = sides_of(directions, name, rank, base.weight.shape)
        _replace(model, name, CoreAdapter(base, left, right, scale))


def fold_cores(model: nn.Module) -> nn.Module:
    """Replace each adapter by its layer with the core added in, in place."""
    adapters = [(n, m) for n, m in model.named_modules() if isinstance(m, CoreAdapter)]
    for name, adapter in adapters:
        _replace(model, name, adapter.folded())
    return model


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
