"""What the model needs of a machine: the encoder that the study pins, and a device to train on."""

from pathlib import Path
from typing import Final

from common.config.study import Study
from common.errors import ConfigError
from common.io.encoders import WEIGHTS, resolve_encoder
from scripts.doctor.checks import Finding, failed, ok, warning

GIB: Final = 1 << 30
_COPIES: Final = 4
"""Weights, gradients and two moments of AdamW."""


def encoder(study: Study) -> Finding:
    """Whether the encoder is here, unaltered, with the weights that the study pins."""
    folder, info = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    return ok(f"{folder}, {info.weights_sha256}, as the study pins it")


def encoder_bytes(study: Study) -> int:
    """Size of its files."""
    folder, info = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    return sum((folder / name).stat().st_size for name in info.files)


def dimension(study: Study) -> int:
    """Number of weights that the study trains: the model is built for it."""
    from common.model.ner import NerModel  # torch takes seconds to load

    folder, _ = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    return NerModel(folder, study, "cpu").layout.size


def device(asked: str, study: Study) -> Finding:
    """The device that a worker would train on, with one product computed there."""
    import torch

    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        why = "asked for" if asked == "cpu" else "there is no usable CUDA device"
        return ok(f"CPU, {torch.get_num_threads()} threads: {why}")
    if not torch.cuda.is_available():
        raise ConfigError(
            "`device: cuda`, and there is no usable CUDA device",
            remedy="compare `nvidia-smi` with torch's CUDA build "
            f"({torch.version.cuda or 'none: a CPU build is installed'}); or `device: auto`",
        )
    return _usable(study)


def _usable(study: Study) -> Finding:
    import torch

    ones = torch.ones(64, 64, device="cuda")
    if (ones @ ones).sum().item() != 64.0**3:
        return failed(
            "the device computes wrongly", "test it with its maker's tools; `device: cpu`"
        )
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    said = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, computes"
    needed = _COPIES * _weights_bytes(study) + GIB
    if free < needed:
        return warning(
            f"{said}; training may need {needed / GIB:.1f} GiB",
            "stop what else uses the device, or lower batch_size or physical_tokens in the study",
        )
    return ok(said)


def _weights_bytes(study: Study) -> int:
    folder, _ = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    return (Path(folder) / WEIGHTS).stat().st_size
