"""DP-SGD at one institution: sample units, clip each, sum, add noise, step.

Algorithm 1 of Abadi et al. 2016 (arXiv 1607.00133), with Poisson sampling and a public divisor.

Guarantees:
    * Everything that depends on the data passes through the noised sum of `noisy_gradient`; what
      the optimiser does with it, and the update in the end, are post-processing.
    * The number of units drawn shows nowhere: the divisor is the declared expected number, an
      empty draw is a real step (noise alone), and progress counts steps.
    * Loss and norms are not returned.
    * What a unit adds does not follow from who else was drawn, but for the rounding of sums that a
      library adds in another order in a batch of another size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from common.config.privacy import LocalPrivacy
from common.config.study import Training
from common.errors import DataError
from common.model.inputs import Batch, Collator
from common.model.running import Progress, explicitly_masked
from common.model.train import (
    Examples,
    Stage,
    autocast,
    seed_everything,
    token_losses,
)
from common.privacy.clipping import UnitClipper
from common.privacy.keystream import Keystream
from common.privacy.noise import add_noise_
from common.privacy.plan import Mechanism
from common.privacy.sampling import poisson_sample
from common.privacy.units import Units
from common.schedule import rate_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateData:
    """One institution's training side, by unit. `units.rows` index `examples.windows`."""

    examples: Examples
    units: Units
    collate: Collator

    def __post_init__(self) -> None:
        rows = sorted(row for unit in self.units.rows for row in unit)
        if rows != list(range(len(self.examples.windows))):
            raise DataError("every window belongs to exactly one unit of privacy")

    def length(self, rows: Iterable[int]) -> int:
        """Sub-words that these windows, of one unit or of units of one shape, are padded to."""
        return max(self.collate.padded(self.examples.windows[row]) for row in rows)


@dataclass(frozen=True, slots=True)
class Randomness:
    """The two keystreams of one round. Neither is ever used again."""

    sampling: Keystream
    noise: Keystream


@dataclass(frozen=True, slots=True)
class Recipe:
    """The mechanism, and what is done around it."""

    mechanism: Mechanism
    privacy: LocalPrivacy
    training: Training


def train_privately(
    model: nn.Module,
    data: PrivateData,
    recipe: Recipe,
    stage: Stage,
    randomness: Randomness,
    device: torch.device,
    progress: Progress | None = None,
) -> None:
    """Take one round's steps in place; the optimiser starts fresh."""
    mechanism, training = recipe.mechanism, recipe.training
    seed_everything(stage.seed_text)
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(trained, recipe.privacy)
    clipper = UnitClipper(model, mechanism.clip)
    steps = mechanism.steps_per_round
    for step in range(steps):
        share = stage.start + (stage.end - stage.start) * (step + 0.5) / steps
        linear = recipe.privacy.schedule == "linear"
        for group in optimizer.param_groups:
            factor = rate_factor(share, training.warmup) if linear else 1.0
            group["lr"] = training.learning_rate * factor
        gradient = noisy_gradient(model, clipper, data, recipe, randomness, device)
        _hand_out(gradient, trained)
        optimizer.step()
        if progress:
            progress(step + 1, steps)
    optimizer.zero_grad(set_to_none=True)


def noisy_gradient(
    model: nn.Module,
    clipper: UnitClipper,
    data: PrivateData,
    recipe: Recipe,
    randomness: Randomness,
    device: torch.device,
) -> torch.Tensor:
    """One use of the mechanism: float32 `[layout.size]`, the noised sum over the divisor."""
    mechanism, budget = recipe.mechanism, recipe.privacy.physical_tokens
    chosen = poisson_sample(len(data.units), mechanism.sampling_rate, randomness.sampling).tolist()
    clipper.zero()
    losses = partial(_losses, model, data, recipe.training, device)
    with clipper:
        for units in physical_batches(data, chosen, budget):
            _add(clipper, data, units, losses, budget)
    add_noise_(clipper.total, mechanism.noise_stddev, randomness.noise)
    return clipper.total / mechanism.divisor


def physical_batches(
    data: PrivateData, chosen: Sequence[int], token_budget: int
) -> Iterator[list[int]]:
    """Chosen units in batches of at most `token_budget` padded sub-words.

    All units of a batch have one shape, which each has by itself: as many rows, padded to one
    length (see `common.model.inputs`). Else products of one unit's positions would be summed in
    another order beside a larger unit, and where they cancel, that is all that is left. A unit that
    exceeds the budget alone has a batch of its own. Units without a window are left out: their
    contribution is zero.
    """
    present = [unit for unit in chosen if data.units.rows[unit]]
    shape = {u: (data.length(data.units.rows[u]), len(data.units.rows[u])) for u in present}
    batch: list[int] = []
    for unit in sorted(present, key=lambda u: (shape[u], u)):
        length, rows = shape[unit]
        full = length * rows * (len(batch) + 1) > token_budget
        if batch and (full or shape[unit] != shape[batch[0]]):
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch


def _add(
    clipper: UnitClipper, data: PrivateData, units: list[int], losses: "_Losses", budget: int
) -> None:
    rows = [row for unit in units for row in data.units.rows[unit]]
    length = data.length(rows)
    if len(units) == 1 and length * len(rows) > budget:
        width = max(1, budget // length)
        parts = [rows[i : i + width] for i in range(0, len(rows), width)]
        clipper.add_large([partial(losses, part) for part in parts], [len(p) for p in parts])
        return
    numbers = [i for i, unit in enumerate(units) for _ in data.units.rows[unit]]
    with clipper.rows(numbers):
        finite = clipper.add(losses(rows)).isfinite().tolist()
    if not all(finite):
        # a model made to overflow on some text must not be able to tell whether it is here
        left = [unit for unit, good in zip(units, finite, strict=True) if good]
        if left:
            _add(clipper, data, left, losses, budget)


_Losses = partial[torch.Tensor]


def _losses(
    model: nn.Module,
    data: PrivateData,
    training: Training,
    device: torch.device,
    rows: Sequence[int],
) -> torch.Tensor:
    """Loss of each window: the sum over its labelled words, `[rows]`."""
    windows = [data.examples.windows[i] for i in rows]
    labels = [data.examples.labels[i] for i in rows]
    batch: Batch = data.collate(windows, labels, data.length(rows))
    inputs = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    targets = inputs.pop("labels")
    with autocast(training.precision, device):
        logits = model(**explicitly_masked(model, inputs)).logits
    return token_losses(logits, targets)


def _optimizer(trained: list[nn.Parameter], privacy: LocalPrivacy) -> torch.optim.Optimizer:
    if privacy.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1.0, weight_decay=privacy.weight_decay)
    return torch.optim.AdamW(trained, lr=1.0, weight_decay=privacy.weight_decay, fused=True)


def _hand_out(gradient: torch.Tensor, trained: list[nn.Parameter]) -> None:
    parts = torch.split(gradient, [p.numel() for p in trained])
    for parameter, part in zip(trained, parts, strict=True):
        parameter.grad = part.view_as(parameter)
