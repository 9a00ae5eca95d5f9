"""`model.onnx`: the weights for programs without torch, checked against torch when it is written.

Needs the packages of the extra `onnx`, and nothing else of fedner does.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from common.data.encode import Window, make_windows
from common.data.records import Document
from common.data.sentences import tokenise
from common.data.synthetic import SyntheticOptions, generate_notes
from common.errors import EncoderError, UsageError
from common.io.atomic import write_bytes
from common.model.inputs import Batch
from common.model.ner import NerModel
from common.model.tagger import Tagger

ONNX: Final = "model.onnx"
PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")
LARGEST_DIFFERENCE: Final = 1e-4
"""Of logits; those of a trained model are of the order of ten, and float32 keeps seven digits."""

_OUTPUT: Final = "logits"
_TRACED: Final = 2
"""Inputs in the batch that is traced; those that are compared have other sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the written model compares with torch.

    Attributes:
        difference: largest, absolute, of any logit of a sub-word.
        shapes: `[batch, tokens]` of what was compared; none is the traced one.
    """

    difference: float
    shapes: tuple[tuple[int, int], ...]


def require_packages() -> None:
    """Raises UsageError if a package of the extra is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--onnx needs {', '.join(PACKAGES)}: {', '.join(missing)} not installed",
            remedy="pip install -c constraints.txt -e '.[onnx]', or leave --onnx out",
        )


def write_onnx(model: NerModel, folder: Path) -> Agreement:
    """Write the file, and compare it with torch on made-up notes.

    Inputs are those that the tokenizer gives by itself, int64 `[batch, tokens]`; the output is
    float32 `[batch, tokens, tags]`, without any softmax.

    Raises:
        UsageError: a package of the extra is missing.
        EncoderError: the two differ by more than `LARGEST_DIFFERENCE`.
    """
    require_packages()
    tagger, batches = model.tagger, list(_batches(model.tagger))
    tagger.module.eval()
    _trace(tagger, batches[0], folder / ONNX)
    found = _compare(tagger, batches[1:], folder / ONNX)
    if not found.difference <= LARGEST_DIFFERENCE:
        raise EncoderError(
            f"logits differ from torch's by {found.difference:.3g}, at most "
            f"{LARGEST_DIFFERENCE:g} is accepted",
            place=ONNX,
            remedy="export without --onnx, and report versions of torch, onnxscript, onnxruntime",
        )
    return found


class _Logits(nn.Module):
    """The model as a function of some tensors, in the order of their names, to one."""

    def __init__(self, inner: nn.Module, names: Sequence[str]):
        super().__init__()
        self.inner, self.names = inner, tuple(names)

    def forward(self, *values: torch.Tensor) -> Any:
        return self.inner(**dict(zip(self.names, values, strict=True))).logits


def _names(tagger: Tagger, batch: Batch) -> list[str]:
    """What the tokenizer gives and the model takes."""
    return [name for name in tagger.tokenizer.fast.model_input_names if name in batch]


def _trace(tagger: Tagger, batch: Batch, path: Path) -> None:
    names = _names(tagger, batch)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Logits(tagger.module, names),
            tuple(batch[name] for name in names),
            input_names=names,
            output_names=[_OUTPUT],
            dynamic_shapes=(tuple(axes for _ in names),),
            dynamo=True,
            verbose=False,
        )
    write_bytes(path, program.model_proto.SerializeToString())


def _compare(tagger: Tagger, batches: Sequence[Batch], path: Path) -> Agreement:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = 0.0
    for batch in batches:
        given = {name: batch[name].numpy() for name in _names(tagger, batch)}
        (found,) = session.run([_OUTPUT], given)
        difference = max(difference, _difference(tagger, batch, found))
    return Agreement(
        difference=difference,
        shapes=tuple((len(b["input_ids"]), b["input_ids"].shape[1]) for b in batches),
    )


def _difference(tagger: Tagger, batch: Batch, found: npt.NDArray[np.float32]) -> float:
    """Largest difference at sub-words, padding left out; not a number if either is none."""
    with torch.inference_mode():
        expected = tagger.module(**batch).logits.numpy()
    there = batch["attention_mask"].numpy() == 1
    return float(np.abs(found - expected)[there].max())


def _batches(tagger: Tagger) -> Iterator[Batch]:
    """First the one to trace; then one input, several of unlike length, and the longest."""
    options = SyntheticOptions(
        institutions=("export",), patients_per_institution=4, notes_per_patient=(2, 2), seed=1
    )
    notes = [tokenise(note) for note in generate_notes(options)["export"]]
    windows = sorted(tagger.windows(notes), key=lambda window: len(window.input_ids))
    yield tagger.collate(windows[len(windows) // 2 :][:_TRACED], None)
    yield tagger.collate(windows[:1], None)
    yield tagger.collate(windows[:: -(-len(windows) // 7)], None)
    yield tagger.collate([_longest(tagger, notes)], None)


def _longest(tagger: Tagger, notes: Sequence[Document]) -> Window:
    """As much of all notes, as one text, as the encoder takes."""
    room = tagger.collate.n_positions - tagger.collate.first_position
    options = tagger.tokenizer.window_options(tagger.decoding)
    options = replace(options, per_sentence=False, max_tokens=room)
    text = "\n".join(note.text for note in notes)
    whole = tokenise(Document(doc_id="all", text=text))
    return make_windows([whole], tagger.tokenizer.encode_words, options)[0]
