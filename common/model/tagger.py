"""A trained model that tags documents: all that prediction needs, and nothing of training.

`NerModel` predicts through this, and so does `ner.pyz` of an exported folder, which is made of
these very files: what is imported here, directly or not, travels with every exported model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from common.data.abbreviations import tag_abbreviations
from common.data.encode import Window, entities_of, make_windows
from common.data.records import Document, Entity
from common.errors import ConfigError
from common.model.inputs import Collator, Tokenizer
from common.model.predict import predict_tags
from common.model.running import Progress, attend_for, pick_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What of a study decides on the entities that its model finds; see `common.config.study`."""

    labels: tuple[str, ...]
    abbreviations: Literal["as_found", "as_defined"]
    context: Literal["sentence", "document"]
    max_tokens: int
    overlap_tokens: int


class Tagger:
    """A token classifier, its tokenizer, and the rules from texts to entities.

    Guarantees:
        The same documents give the same entities, whichever program asks: nothing but the
        arguments has an influence, the device's rounding aside.

    Args:
        module: on the CPU, in float32.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: windows that are longer than the encoder takes.
        EncoderError: no such device, or an encoder without learned absolute positions.
    """

    def __init__(
        self, module: nn.Module, tokenizer: Tokenizer, decoding: Decoding, device: str = "auto"
    ):
        self.module, self.tokenizer, self.decoding = module, tokenizer, decoding
        self.device = pick_device(device)
        attend_for(module, self.device)
        self.collate = Collator.of(module, tokenizer)
        self._check_positions()

    def _check_positions(self) -> None:
        limit = self.collate.n_positions - self.collate.first_position
        if self.decoding.max_tokens > limit:
            raise ConfigError(
                f"text.max_tokens is {self.decoding.max_tokens}, the encoder takes at most {limit}",
                remedy="lower text.max_tokens in the study",
            )

    def windows(self, documents: Sequence[Document]) -> tuple[Window, ...]:
        """Model inputs of tokenised documents."""
        options = self.tokenizer.window_options(self.decoding)
        return make_windows(documents, self.tokenizer.encode_words, options)

    def tags(
        self,
        documents: Sequence[Document],
        windows: Sequence[Window],
        progress: Progress | None = None,
    ) -> list[list[int]]:
        """Tag index per word, per document.

        Args:
            windows: as `windows(documents)` gave them.
        """
        found = predict_tags(
            self.module,
            documents,
            windows,
            self.collate,
            self.decoding.labels,
            self.device,
            progress,
        )
        if self.decoding.abbreviations == "as_found":
            return found
        pairs = zip(documents, found, strict=True)
        return [tag_abbreviations(document, tags) for document, tags in pairs]

    def entities(
        self,
        documents: Sequence[Document],
        windows: Sequence[Window],
        progress: Progress | None = None,
    ) -> list[tuple[Entity, ...]]:
        """Entities per document; arguments as of `tags`."""
        found = self.tags(documents, windows, progress)
        pairs = zip(documents, found, strict=True)
        return [entities_of(document, tags, self.decoding.labels) for document, tags in pairs]
