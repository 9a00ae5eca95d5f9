"""Where a model runs, and how a loop over it says how far it is."""

from collections.abc import Callable
from typing import Any

import torch

from common.errors import EncoderError

Progress = Callable[[int, int], None]
"""Called after each step with steps done and steps in all."""


def pick_device(asked: str) -> torch.device:
    """`auto` takes CUDA when there is one.

    Raises:
        EncoderError: `cuda` was asked for and there is none; nothing falls back.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise EncoderError(
            "device: cuda was asked for and this machine has none that torch can use",
            remedy="write `device: auto` or `device: cpu`, or install the CUDA build of torch",
        )
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def attend_for(model: Any, device: torch.device) -> None:
    """Choose the attention kernel, whatever the encoder's own file says.

    The fused one, but on the CPU, where its backward pass takes longer, and for families without.
    """
    base = base_of(model)
    fused = device.type != "cpu" and base._supports_sdpa
    base.set_attn_implementation("sdpa" if fused else "eager")


def explicitly_masked(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same inputs with a mask `[batch, 1, tokens, tokens]`, whether a row is padded or none is.

    A mask of `[batch, tokens]` is left out by transformers where no row is padded, and what is then
    computed rounds otherwise (by another kernel, or by another precision of the same): what a row
    gives would follow from who else is in its batch. This one is taken as it is by all of
    `common.model.inputs.FAMILIES`, under the kernels of `attend_for`. Call it under the autocast of
    the forward pass: a mask in float32 would make the eager kernel's softmax on the CPU, and what
    it keeps for the backward pass, float32.
    """
    there = inputs["attention_mask"].bool()
    whole = there[:, None, None, :].expand(-1, 1, there.shape[1], -1)
    if base_of(model).config._attn_implementation == "eager":
        device = there.device.type
        on = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if on else torch.float32
        zero = torch.zeros((), dtype=dtype, device=device)
        whole = torch.where(whole, zero, torch.finfo(dtype).min)
    return inputs | {"attention_mask": whole}


def base_of(model: Any) -> Any:
    """The transformers model itself, or the one within adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
