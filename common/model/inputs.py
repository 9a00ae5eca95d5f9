"""Windows into padded tensors: batches of like length, explicit positions and token types.

Guarantee: where windows are batched by `sorted_batches` over `Collator.padded` lengths, what a
window is padded to follows from the window alone. Padding is no empty thing: attention masks add a
large negative number, and a model whose scores overflow attends to padding all the same. A window's
gradients and scores would then follow from who else is in its batch. That each batch has a mask is
for `running.explicitly_masked`.
"""

import hashlib
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from common.data.encode import Cutting, Window, WindowOptions
from common.errors import EncoderError
from common.model.running import base_of

IGNORED = -100
_BUCKET_BATCHES = 50
_PAD_MULTIPLE: Final = 8
FAMILIES: Final = (
    "albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie",
    "megatron-bert", "mobilebert", "mpnet", "roberta", "roberta-prelayernorm", "roc_bert",
    "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip
"""Encoders, by transformers' `model_type`, that take positions and a mask as they are given."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A fast tokenizer that is fed word by word, so that sub-words never straddle words."""

    fast: Any

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Load from a local folder; never the network.

        Raises:
            EncoderError: no tokenizer, or one without the special tokens needed.
        """
        from transformers import AutoTokenizer

        try:
            fast = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, use_fast=True, add_prefix_space=True
            )
        except (OSError, ValueError) as error:
            raise EncoderError(
                f"no tokenizer here: {type(error).__name__}",
                place=str(folder),
                remedy="import the encoder again with `fedner encoder add`",
            ) from error
        for name in ("cls_token_id", "sep_token_id", "pad_token_id", "unk_token_id"):
            if getattr(fast, name) is None:
                raise EncoderError(f"the tokenizer has no {name}", place=str(folder))
        return cls(fast)

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Sub-word ids per word; a word that the normaliser erases becomes the unknown token."""
        if not words:
            return []
        unique = list(dict.fromkeys(words))
        encoded = self.fast(
            unique, add_special_tokens=False, return_attention_mask=False, truncation=False
        )
        ids = dict(zip(unique, encoded["input_ids"], strict=True))
        return [ids[word] or [self.fast.unk_token_id] for word in words]

    def window_options(self, text: Cutting) -> WindowOptions:
        """How a study cuts documents, with this tokenizer's special tokens."""
        return WindowOptions(
            per_sentence=text.context == "sentence",
            max_tokens=text.max_tokens,
            overlap_tokens=text.overlap_tokens,
            first_id=self.fast.cls_token_id,
            last_id=self.fast.sep_token_id,
        )

    @property
    def pad_id(self) -> int:
        return int(self.fast.pad_token_id)


@dataclass(frozen=True, slots=True)
class Collator:
    """Pads windows to one length, with what the encoder's `forward` takes.

    `position_ids` and `token_type_ids` are contiguous `[batch, tokens]`: per-example clipping
    needs a batch axis on every input. RoBERTa counts positions from its padding index.
    """

    pad_id: int
    takes_token_types: bool
    first_position: int
    n_positions: int

    @classmethod
    def of(cls, model: Any, tokenizer: Tokenizer) -> "Collator":
        """For this model.

        Raises:
            EncoderError: not one of `FAMILIES`, a decoder, or no learned absolute positions.
        """
        base = base_of(model)
        _check_family(base.config)
        taken = inspect.signature(base.forward).parameters
        embeddings = getattr(base.base_model, "embeddings", None)
        positions = getattr(embeddings, "position_embeddings", None)
        if positions is None or "position_ids" not in taken:
            raise EncoderError(
                f"{type(base).__name__} has no learned absolute positions",
                remedy="use an encoder of the BERT, DistilBERT or RoBERTa family",
            )
        padding = positions.padding_idx
        first = 0 if padding is None else padding + 1
        return cls(
            tokenizer.pad_id, "token_type_ids" in taken, first, int(positions.num_embeddings)
        )

    def padded(self, window: Window) -> int:
        """Sub-words that a window is padded to by itself: few lengths, so that batches are large.

        Its length, rounded up to a multiple of 8, or as many as the encoder has positions.
        """
        length = len(window.input_ids)
        wanted = math.ceil(length / _PAD_MULTIPLE) * _PAD_MULTIPLE
        return max(length, min(wanted, self.n_positions - self.first_position))

    def __call__(
        self,
        windows: Sequence[Window],
        labels: Sequence[Sequence[int]] | None,
        length: int | None = None,
    ) -> Batch:
        """Tensors of int64 `[batch, tokens]`; `labels` are word tags of the owned words.

        Args:
            length: to pad to; by default that of the longest window.
        """
        length = length or max(len(w.input_ids) for w in windows)
        ids = np.full((len(windows), length), self.pad_id, np.int64)
        mask = np.zeros_like(ids)
        targets = np.full_like(ids, IGNORED)
        for row, window in enumerate(windows):
            ids[row, : len(window.input_ids)] = window.input_ids
            mask[row, : len(window.input_ids)] = 1
            if labels is not None:
                targets[row, list(window.positions)] = labels[row]
        positions = np.broadcast_to(np.arange(length), ids.shape) + self.first_position
        if self.first_position:
            positions = np.where(mask == 1, positions, self.first_position - 1)
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": np.ascontiguousarray(positions),
        }
        if self.takes_token_types:
            arrays["token_type_ids"] = np.zeros_like(ids)
        if labels is not None:
            arrays["labels"] = targets
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _check_family(config: Any) -> None:
    place = getattr(config, "name_or_path", "")
    if config.model_type not in FAMILIES:
        raise EncoderError(
            f"an encoder of type {config.model_type!r}, which is not known to take positions and "
            "an attention mask as they are given",
            place=place,
            remedy=f"use one of {', '.join(FAMILIES)}",
        )
    if getattr(config, "is_decoder", False):
        raise EncoderError(
            "config.json says is_decoder: true, so that words would not see those after them",
            place=place,
            remedy="use the encoder, or set it to false if it was trained as one",
        )


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, seed_text: str
) -> Iterator[list[int]]:
    """Indices of one epoch's batches: shuffled, then sorted by length within large buckets.

    Every index appears once. Deterministic in `seed_text`.
    """
    seed = int.from_bytes(hashlib.sha256(seed_text.encode()).digest()[:8], "big")
    generator = np.random.Generator(np.random.PCG64(seed))
    order = generator.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * _BUCKET_BATCHES):
        chosen = order[start : start + batch_size * _BUCKET_BATCHES].tolist()
        bucket = sorted(chosen, key=lambda i: lengths[i])
        batches.extend(bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size))
    for i in generator.permutation(len(batches)):
        yield batches[i]


def sorted_batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Indices in order of length: batches of one length, at most `token_budget` sub-words each."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = lengths[i] * (len(batch) + 1) > token_budget
        if batch and (full or lengths[i] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
