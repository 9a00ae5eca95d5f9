"""The local training loop without a privacy mechanism."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from common.config.study import Training
from common.data.encode import Window
from common.model.inputs import IGNORED, Batch, Collator, shuffled_batches
from common.model.running import Progress
from common.schedule import rate_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Windows of one side of one institution's data, with the tags of the words each owns."""

    windows: tuple[Window, ...]
    labels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One institution's part of one round.

    Attributes:
        start: share of the whole study's training done before, in [0, 1).
        end: the same after.
        seed_text: names study seed, institution and round; batch order and dropout follow it.
    """

    start: float
    end: float
    seed_text: str


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the labelled words of each example: `[batch]`.

    Kept per example, never averaged over the batch's tokens inside: units must not be coupled
    where gradients are clipped per unit (see the design's privacy page).
    """
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(labels.shape).sum(dim=1)


def train(
    model: nn.Module,
    examples: Examples,
    collate: Collator,
    training: Training,
    stage: Stage,
    device: torch.device,
    progress: Progress | None = None,
) -> float:
    """Train in place for `training.local_epochs`; the optimiser starts fresh.

    Returns:
        The mean loss per word over the last epoch. It stays at the institution.
    """
    seed_everything(stage.seed_text)
    model.to(device).train()
    optimizer = _optimizer(model, training, device)
    lengths = [len(window.input_ids) for window in examples.windows]
    steps_per_epoch = -(-len(lengths) // training.batch_size)
    total = steps_per_epoch * training.local_epochs
    done, last_epoch_loss, last_epoch_words = 0, 0.0, 0
    for epoch in range(training.local_epochs):
        last_epoch_loss, last_epoch_words = 0.0, 0
        for rows in shuffled_batches(
            lengths, training.batch_size, f"{stage.seed_text}/epoch {epoch}"
        ):
            share = stage.start + (stage.end - stage.start) * (done + 0.5) / total
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * rate_factor(share, training.warmup)
            batch = collate([examples.windows[i] for i in rows], [examples.labels[i] for i in rows])
            loss, words = _step(model, batch, optimizer, training, device)
            last_epoch_loss, last_epoch_words = last_epoch_loss + loss, last_epoch_words + words
            done += 1
            if progress:
                progress(done, total)
    return last_epoch_loss / max(1, last_epoch_words)


def _step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    training: Training,
    device: torch.device,
) -> tuple[float, int]:
    inputs = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    labels = inputs.pop("labels")
    words = int((batch["labels"] != IGNORED).sum())
    with autocast(training.precision, device):
        logits = model(**inputs).logits
    total = token_losses(logits, labels).sum()
    (total / max(1, words)).backward()  # type: ignore[no-untyped-call]
    parameters = [p for p in model.parameters() if p.requires_grad]
    nn.utils.clip_grad_norm_(parameters, training.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total.detach()), words


def _optimizer(model: nn.Module, training: Training, device: torch.device) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def seed_everything(seed_text: str) -> None:
    """Seed torch's generators (dropout) from a text."""
    seed = int.from_bytes(hashlib.sha256(seed_text.encode()).digest()[:7], "big")
    torch.manual_seed(seed)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 autocast if asked for, or if `auto` and the hardware computes in it."""
    enabled = precision == "bfloat16" or (precision == "auto" and computes_bfloat16(device))
    context: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=enabled
    )
    return context


def computes_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are native: CUDA from Ampere, AVX512-BF16, AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def labels_for(windows: Sequence[Window], tags: Sequence[Sequence[int]]) -> Examples:
    """Examples of windows, given the word tags of each document."""
    labels = tuple(tuple(tags[w.document][i] for i in w.words) for w in windows)
    return Examples(windows=tuple(windows), labels=labels)
