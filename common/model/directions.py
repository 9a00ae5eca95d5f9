"""Directions for adapters, learned on public data: what training changed, by singular vectors.

LoRA's A is usually random (Hu et al. 2021, arXiv 2106.09685): of a gradient, B then sees the part
in a random subspace, `rank / width` of it. Under DP-SGD noise is the same on every coordinate, so a
subspace that holds more of the gradient gives more signal for the same noise. Public data that
resembles the private data shows such a subspace (Zhou, Wu and Banerjee 2021, arXiv 2007.03813);
here it is spanned by the leading right singular vectors of the weights' change in public training.
The left ones do the same for the layer's output (`common.model.core`).

With a power above 0 the later directions are shorter: what is trained moves the weights less along
them, and so does its noise, so that more directions cost less noise in the weights.
"""

from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import EncoderError

DIRECTIONS: Final = "directions.safetensors"
Directions = dict[str, torch.Tensor]
"""By name of a linear layer within the encoder: float32 `[rank, inputs]`, orthogonal rows; by its
`left_name`: float32 `[outputs, rank]`, orthogonal columns."""


def left_name(layer: str) -> str:
    """Under which name the output directions of a layer stand."""
    return f"{layer}.left"


def principal_directions(trained: Path, base: Path, rank: int, power: float = 0.0) -> Directions:
    """Leading singular vectors of `trained - base`, layer by layer, of both sides.

    Args:
        trained: weights file of a model that was trained from `base` on public data.
        base: weights file of the encoder that it was trained from.
        power: a direction's length is its singular value over the layer's largest, to this power;
            with 0 all have length 1.

    Raises:
        EncoderError: unreadable, other shapes, or no layer that has changed.
    """
    after, before = _encoder_weights(trained), _encoder_weights(base)
    directions: Directions = {}
    for name in sorted(after.keys() & before.keys()):
        change = after[name].float() - _same_shape(name, before[name], after[name]).float()
        if name.endswith(".weight") and change.ndim == 2 and change.any() and ".layer." in name:
            left, values, right = torch.linalg.svd(change, full_matrices=False)
            lengths = ((values / values[0]) ** power)[:rank]
            layer = name.removesuffix(".weight")
            directions[layer] = (lengths[:, None] * right[:rank]).contiguous()
            directions[left_name(layer)] = (left[:, :rank] * lengths).contiguous()
    if not directions:
        raise EncoderError(
            "no layer has changed",
            place=str(trained),
            remedy="give a model that was trained from this base, with `model.train: full` or "
            "`frozen_embeddings`",
        )
    return directions


def sides_of(
    directions: Directions, layer: str, rank: int, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leading output and input directions of a layer: `[outputs, rank]`, `[rank, inputs]`.

    Args:
        layer: its full name in the model.
        shape: of its weight.

    Raises:
        EncoderError: none for this layer, or not of that rank and shape.
    """
    key = next((k for k in directions if layer.endswith(k)), None)
    left, right = (None, None) if key is None else (directions.get(left_name(key)), directions[key])
    if left is None or right is None:
        raise EncoderError(
            f"the directions hold none for {layer}",
            remedy="make them again from this encoder: `fedner encoder directions`",
        )
    found = (left.shape[0], right.shape[1])
    if found != tuple(shape) or min(left.shape[1], right.shape[0]) < rank:
        raise EncoderError(
            f"the directions hold none of rank {rank} for {layer} {tuple(shape)}: they are of rank "
            f"{min(left.shape[1], right.shape[0])} for {found}",
            remedy="make them again with a higher --rank, or lower model.lora.rank",
        )
    return left[:, :rank].clone(), right[:rank].clone()


def load_directions(folder: Path) -> Directions:
    """Read the directions that lie with an encoder.

    Raises:
        EncoderError: there are none, or they can't be read.
    """
    path = folder / DIRECTIONS
    if not path.is_file():
        raise EncoderError(
            "the study's adapters want the encoder's directions, and there are none",
            place=str(path),
            remedy="`fedner encoder directions`, or leave out `model.lora.directions_sha256`",
        )
    return _load(path)


def _encoder_weights(path: Path) -> Directions:
    """Names from the first `encoder.` or `transformer.` on, whatever class saved them."""
    named: Directions = {}
    for name, value in _load(path).items():
        for part in ("encoder.", "transformer."):
            if (at := name.find(part)) >= 0:
                named[name[at:]] = value
                break
    return named


def _same_shape(name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if value.shape != like.shape:
        raise EncoderError(
            f"{name}: {tuple(value.shape)} in the base, {tuple(like.shape)} in the trained model",
            remedy="give the base that the model was trained from",
        )
    return value


def _load(path: Path) -> Directions:
    try:
        content: Directions = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"unreadable: {type(error).__name__}",
            place=str(path),
            remedy="copy the file again from where it was made",
        ) from None
    return content
