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
    """Choose the attention kernel: on the CPU the fused one's backward pass takes longer."""
    if device.type == "cpu":
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.set_attn_implementation("eager")
