"""Encoder and head from the study; which weights are trained; the trained weights as one vector.

Everything that is not in the encoder's own file (the head, the adapters) starts from a counter-
based generator keyed by seed and parameter name, so that every institution starts from the same
numbers on any machine, and the coordinator needs no weights at all: it keeps the sum of updates.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import nn

from common.config.study import Lora, Study
from common.data.labels import bio_tags
from common.errors import ConfigError, EncoderError
from common.model.core import add_cores, fold_cores
from common.model.directions import DIRECTIONS, Directions, load_directions, sides_of

Vector = npt.NDArray[np.float32]

_DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "classifier_dropout",
    "seq_classif_dropout",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and shapes of the trained weights, in the order in which the vector holds them."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    def digest(self) -> str:
        """SHA-256 of names and shapes, in hexadecimal."""
        text = "\n".join(f"{n} {list(s)}" for n, s in zip(self.names, self.shapes, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()


def build_model(encoder_dir: Path, study: Study) -> nn.Module:
    """The study's model on the CPU in float32, initialised; only trained weights need gradients.

    Raises:
        EncoderError: the folder holds no encoder that a token classifier can be built on.
    """
    loaded, missing = _load_pretrained(encoder_dir, study)
    model: nn.Module = loaded
    _check_missing(missing, encoder_dir)
    _initialise(model, missing, study.training.seed)
    if study.model.train == "lora":
        lora = study.model.lora or Lora()
        return _adapted(model, lora, study.training.seed, _directions(encoder_dir, lora))
    if study.model.train == "head":
        _freeze(loaded.base_model)
    elif study.model.train == "frozen_embeddings":
        _freeze(loaded.base_model.embeddings)
    return model


def _load_pretrained(encoder_dir: Path, study: Study) -> tuple[Any, set[str]]:
    from transformers import AutoConfig, AutoModelForTokenClassification

    tags = bio_tags(study.task.labels)
    try:
        config = AutoConfig.from_pretrained(encoder_dir, local_files_only=True)
        own_head = [config.id2label.get(i) for i in range(config.num_labels)] == list(tags)
        config.num_labels = len(tags)
        config.id2label = dict(enumerate(tags))
        config.label2id = {tag: i for i, tag in enumerate(tags)}
        if study.model.dropout is not None:
            for key in _DROPOUT_KEYS:
                if getattr(config, key, None) is not None:
                    setattr(config, key, study.model.dropout)
        model, info = AutoModelForTokenClassification.from_pretrained(
            encoder_dir,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=not own_head,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(
            f"no token classifier can be built on this encoder: {type(error).__name__}",
            place=str(encoder_dir),
            remedy="import it again with `fedner encoder add`, then `fedner encoder verify`",
        ) from error
    missing = set(info["missing_keys"])
    if not own_head:  # a head for other labels means nothing here, even one of the same shape
        missing |= {n for n, _ in model.named_parameters() if n.startswith("classifier.")}
    return model, missing


def _check_missing(missing: set[str], encoder_dir: Path) -> None:
    absent = sorted(name for name in missing if not name.startswith("classifier."))
    if absent:
        raise EncoderError(
            f"{len(absent)} weights of the encoder are not in the file, {absent[0]} among them",
            place=str(encoder_dir),
            remedy="import a complete encoder; only the head may be missing",
        )


def _initialise(model: nn.Module, missing: set[str], seed: int) -> None:
    for name, parameter in model.named_parameters():
        if name not in missing:
            continue
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
        else:
            _normal_(parameter, 0.02, seed, name)


def _normal_(parameter: nn.Parameter, stddev: float, seed: int, name: str) -> None:
    key = hashlib.sha256(f"fedner init v1/{seed}/{name}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "big")))
    values = generator.normal(0.0, stddev, size=tuple(parameter.shape)).astype(np.float32)
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


def _directions(encoder_dir: Path, lora: Lora) -> Directions:
    """What LoRA's A starts from, where the study names it."""
    if lora.directions_sha256 is None:
        return {}
    directions = load_directions(encoder_dir)
    found = hashlib.sha256((encoder_dir / DIRECTIONS).read_bytes()).hexdigest()
    if found != lora.directions_sha256:
        raise EncoderError(
            f"its SHA-256 is {found}, the study pins {lora.directions_sha256}",
            place=str(encoder_dir / DIRECTIONS),
            remedy="get the file that the study was made with",
        )
    return directions


def _targets(model: nn.Module, lora: Lora) -> list[str]:
    """Full names of the encoder's linear layers to adapt."""
    linear = {
        name: int(at[1])
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (at := re.search(r"\.layer\.(\d+)\.", name))
    }
    layers = set(linear.values()) if lora.layers is None else set(lora.layers)
    if absent := sorted(layers - set(linear.values())):
        raise ConfigError(
            f"model.lora.layers: this encoder has no linear layer in {absent}",
            remedy="layers count from 0; leave `layers` out for all",
        )
    inside = [name for name, layer in linear.items() if layer in layers]
    if lora.targets == "all-linear":
        return inside
    found = {t: [n for n in inside if f".{n}".endswith(f".{t}")] for t in lora.targets}
    if not inside or not all(found.values()):
        unknown = [t for t, names in found.items() if not names]
        raise ConfigError(
            f"model.lora.targets: {unknown or 'none'} names no linear layer of this encoder",
            remedy="name linear layers of this encoder, or write `all-linear`",
        )
    chosen = {name for names in found.values() for name in names}
    return [name for name in inside if name in chosen]


def _start_a(model: nn.Module, name: str, seed: int, directions: Directions) -> None:
    """Fill one adapter's A: from the encoder's directions if the study has any, else random."""
    parameter = model.get_parameter(name)
    if not directions:
        _normal_(parameter, 1 / math.sqrt(parameter.shape[1]), seed, name)
        return
    layer = name.split(".lora_A")[0]
    shape = cast(torch.Tensor, model.get_submodule(layer).weight).shape
    _, rows = sides_of(directions, layer, parameter.shape[0], shape)
    with torch.no_grad():
        parameter.copy_(rows)


def _adapted(model: nn.Module, lora: Lora, seed: int, directions: Directions) -> nn.Module:
    """The model with adapters; they and the head are trained."""
    targets = _targets(model, lora)
    if not lora.core:
        return _add_lora(model, lora, targets, seed, directions)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier."))
    add_cores(model, targets, lora.rank, lora.alpha / lora.rank, directions)
    return model


def _add_lora(
    model: nn.Module, lora: Lora, targets: list[str], seed: int, directions: Directions
) -> nn.Module:
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=lora.rank,
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=["classifier"],
    )
    adapted: nn.Module = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            _start_a(adapted, name, seed, directions)
            parameter.requires_grad_(not lora.freeze_a)
    return adapted


def _freeze(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def merged(model: Any) -> Any:
    """The same model without adapters: their products are added into the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else fold_cores(model)


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)


def layout_of(model: nn.Module) -> Layout:
    """Layout of the trained weights."""
    named = list(_trained(model))
    return Layout(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))


def get_vector(model: nn.Module) -> Vector:
    """The trained weights, flat: float32 `[layout.size]`."""
    parts = [p.detach().to("cpu", torch.float32).reshape(-1).numpy() for _, p in _trained(model)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def set_vector(model: nn.Module, vector: Vector) -> None:
    """Replace the trained weights.

    Raises:
        EncoderError: the vector has another length than the layout.
    """
    expected = layout_of(model).size
    if vector.shape != (expected,):
        raise EncoderError(
            f"expected {expected} trained weights, got {vector.shape}",
            remedy="use the encoder and the study that the weights were trained with",
        )
    offset = 0
    with torch.no_grad():
        for _, parameter in _trained(model):
            part = vector[offset : offset + parameter.numel()]
            parameter.copy_(torch.from_numpy(part).reshape(parameter.shape))
            offset += parameter.numel()
