"""Sum of per-unit gradients, each clipped to an L2 norm: one forward, one backward.

Ghost norms with book-keeping (Bu et al. 2022, arXiv 2210.00038). The backward pass computes
gradients of activations only. As each layer's output gradient `g` arrives, the layer adds its part
of every unit's squared gradient norm; when all have, the weight gradients are summed once, with
each unit's clipping factor inside the sum. No per-unit gradient of a large layer is ever stored.

Guarantees:
    * Joint: all rows of one unit are clipped together, cross terms included.
    * Bound: what a unit adds to `total` has norm at most `clip`, in float32 and under bfloat16
      autocast: norms are float32, and a margin that grows with the layer's own rounding error is
      added before the factor is taken (see `common.privacy.layers`). Numbers of any size: what
      underflows in a norm is in the margin. Where all rounding goes one way (positions alike to the
      last bit), a few millionths of `clip` more were found in float32.
    * Complete: a trained weight that is shared, or lies in a layer of another kind, is refused.
    * Independent: no unit's factor depends on another unit of a batch whose units have as many
      rows each; else sums run in another order, and where terms cancel that shows.
    * Finite: a unit whose gradient is not finite adds nothing to `total`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import torch
from torch import nn

from common.config.privacy import SMALLEST_CLIP
from common.errors import ConfigError, DataError
from common.privacy.layers import Layer, Rows, Scratch, layer_for

_FLOAT32_MARGIN: Final = 2.0**-18
_LARGEST_NORM: Final = 2.0**63
"""Of what is clipped at all: beyond it squares are not finite, and a factor would lose its bits."""


class UnitClipper:
    """Accumulates clipped per-unit gradients of a module's trained weights.

    Between `__enter__` and `__exit__` the trained weights don't require gradients and their
    layers carry hooks; afterwards the module is as before.

    Args:
        module: its trained weights are those that require gradients on entry.
        clip: C, the largest norm of one unit's contribution; 1e-6 or more, so that what underflows
            in a norm is nothing beside it.

    Attributes:
        total: float32 `[size]`, the sum so far, in the order of `named_parameters()`.

    Raises:
        ConfigError: a trained weight that can't be clipped exactly; a clip out of range.
    """

    def __init__(self, module: nn.Module, clip: float):
        if not SMALLEST_CLIP <= clip < math.inf:
            raise ConfigError(f"clip {clip}, expected a number of {SMALLEST_CLIP} or more")
        self._module = module
        self._clip = clip
        self._trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._layers = _layers(module, self._trained)
        device = next(iter(self._trained.values())).device
        size = sum(p.numel() for p in self._trained.values())
        self.total = torch.zeros(size, dtype=torch.float32, device=device)
        self._views = _views(self.total, self._trained)
        self._scratch = Scratch()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "UnitClipper":
        for parameter in self._trained.values():
            parameter.requires_grad_(False)
        for layer in self._layers:
            self._handles.append(layer.module.register_forward_hook(layer.hook(self._scratch)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._scratch.clear()
        self._scratch.copies.free()
        for parameter in self._trained.values():
            parameter.requires_grad_(True)

    def zero(self) -> None:
        """Start a new sum."""
        self.total.zero_()

    @contextmanager
    def rows(self, units: Sequence[int]) -> Iterator[None]:
        """Announce a physical batch: the forward pass and `add` happen inside.

        Args:
            units: which unit each row belongs to, 0 to n - 1: rows of one unit are all here.

        Raises:
            DataError: other numbers, or outside `with clipper`.
        """
        if not self._handles:
            raise DataError("clipping: `clipper.rows(…)` belongs inside `with clipper`")
        self._scratch.start(Rows.of(units, self.total.device))
        try:
            yield
        finally:
            self._scratch.clear()

    def add(self, losses: torch.Tensor) -> torch.Tensor:
        """Clip each unit's gradient of its rows' summed loss, and add all to `total`.

        Args:
            losses: float `[rows]`, none depending on another row.

        Returns:
            Each unit's gradient norm before clipping, margin included: float32 `[units]`.
            As private as the data. If one is not finite, nothing is added: the caller takes those
            units out and adds the others again, so that what leaves is a number all the same.
        """
        with self._no_autocast():
            return self._add(losses)

    def _add(self, losses: torch.Tensor) -> torch.Tensor:
        self._backward(losses)
        norms = self._scratch.norms()
        if not norms.isfinite().all():
            return norms
        factors = (self._clip * (1 - _FLOAT32_MARGIN) / norms).clamp(max=1.0)
        self._accumulate(factors, self._views)
        return norms

    def add_large(self, parts: Sequence[Callable[[], torch.Tensor]], rows: Sequence[int]) -> float:
        """Clip one unit that is larger than a physical batch, through one gradient buffer.

        Args:
            parts: each runs the forward pass of some of the unit's rows and gives their losses.
            rows: the number of rows of each part.

        Returns:
            The unit's gradient norm before clipping. As private as the data. If it is not finite,
            or 2^63 and more, nothing is added.
        """
        buffer = torch.zeros_like(self.total)
        views = _views(buffer, self._trained)
        for part, n_rows in zip(parts, rows, strict=True):
            with self.rows([0] * n_rows):
                self._scratch.wants_norms = False
                losses = part()
                with self._no_autocast():
                    self._backward(losses)
                    self._accumulate(torch.ones(1, device=buffer.device), views)
        norm = float(torch.linalg.vector_norm(buffer, dtype=torch.float64))
        if 0 < norm < _LARGEST_NORM:
            self.total.add_(buffer, alpha=min(1.0, self._clip * (1 - _FLOAT32_MARGIN) / norm))
        return norm

    def _no_autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.total.device.type, enabled=False)

    def _backward(self, losses: torch.Tensor) -> None:
        if self._scratch.added:
            raise DataError("clipping: one `add` for each `clipper.rows(…)`")
        if losses.shape != (self._scratch.rows.n_rows,):
            raise DataError(
                f"expected one loss for each of {self._scratch.rows.n_rows} rows, "
                f"got {tuple(losses.shape)}",
                remedy="sum the loss over the words of a row, and over nothing else",
            )
        self._scratch.added = True
        if losses.requires_grad:
            torch.autograd.backward(losses.sum())

    @torch.no_grad()
    def _accumulate(self, factors: torch.Tensor, views: dict[str, torch.Tensor]) -> None:
        self._scratch.weigh(factors)
        for layer in self._layers:
            layer.accumulate(self._scratch, views)


def _views(flat: torch.Tensor, trained: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    parts = torch.split(flat, [p.numel() for p in trained.values()])
    return {n: part.view(p.shape) for (n, p), part in zip(trained.items(), parts, strict=True)}


def _layers(module: nn.Module, trained: dict[str, nn.Parameter]) -> tuple[Layer, ...]:
    if not trained:
        raise ConfigError("no weight is trained", remedy="change `model.train` in the study")
    _refuse_shared(module, trained)
    by_id = {id(p): n for n, p in trained.items()}
    layers = []
    for name, child in module.named_modules():
        own = {k: by_id[id(p)] for k, p in child.named_parameters(recurse=False) if id(p) in by_id}
        if own:
            layers.append(layer_for(name, child, own))
    return tuple(layers)


def _refuse_shared(module: nn.Module, trained: dict[str, nn.Parameter]) -> None:
    seen: dict[int, str] = {}
    ids = {id(p) for p in trained.values()}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        other = seen.setdefault(id(parameter), name)
        if other != name and id(parameter) in ids:
            raise ConfigError(
                f"{name} and {other} are one trained weight: clipping each use alone would not "
                "bound their sum",
                remedy="freeze it (`model.train: lora` or `frozen_embeddings`), or untie it",
            )
