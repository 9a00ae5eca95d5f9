"""One NER model with all it needs to be trained, evaluated and asked: the unit that others hold.

The trained weights are `initial + delta`. `initial` follows from encoder and study alone; `delta`,
the sum of all updates, is all that a coordinator keeps.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.config.study import Study
from common.data.encode import (
    TagReport,
    Window,
    document_words,
    entities_of,
    sentence_ranges,
    tags_of,
)
from common.data.flatten import FlattenCounts, flatten_all
from common.data.records import Document, Entity
from common.data.sentences import tokenise
from common.errors import DataError
from common.metrics import tokens
from common.metrics.entities import count_entities
from common.metrics.evaluation import CountVector, Evaluation
from common.model.build import Vector, build_model, get_vector, layout_of, set_vector
from common.model.inputs import Tokenizer
from common.model.private import PrivateData, Randomness, Recipe, train_privately
from common.model.running import Progress
from common.model.tagger import Decoding, Tagger
from common.model.train import Examples, Stage, labels_for, train
from common.privacy.events import Unit
from common.privacy.units import Name, Units, unit_name


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents made ready for one tokenizer and one set of labels.

    Attributes:
        documents: tokenised, entities flat.
        windows: their model inputs.
        tags: gold tag index per word, per document.
        report: what word tags can't hold.
        flattened: how nested, overlapping and discontinuous entities were resolved.
    """

    documents: tuple[Document, ...]
    windows: tuple[Window, ...]
    tags: tuple[tuple[int, ...], ...]
    report: TagReport
    flattened: FlattenCounts

    def notes(self) -> dict[str, int]:
        """Everything that was resolved or can't be held, by name; zeros left out."""
        counts = {**asdict(self.flattened), **asdict(self.report)}
        return {k: v for k, v in counts.items() if v and k not in {"kept", "entities"}}

    @property
    def examples(self) -> Examples:
        """Windows with the tags of the words each owns."""
        return labels_for(self.windows, self.tags)


class NerModel:
    """Encoder, head, tokenizer and the loops over them. Not thread safe: one use at a time.

    Args:
        encoder_dir: a local, hash-checked encoder, or a saved model.
        study: labels, cutting, what is trained and how.
        device: `auto`, `cpu` or `cuda`.
    """

    def __init__(self, encoder_dir: Path, study: Study, device: str = "auto"):
        self.study = study
        self.labels = study.task.labels
        self.tokenizer = Tokenizer.load(encoder_dir)
        self.module: nn.Module = build_model(encoder_dir, study)
        self.tagger = Tagger(self.module, self.tokenizer, decoding_of(study), device)
        self.device = self.tagger.device
        self.layout = layout_of(self.module)
        self.initial: Vector = get_vector(self.module)

    @property
    def initial_digest(self) -> str:
        """SHA-256 of the initial trained weights, in hexadecimal."""
        return hashlib.sha256(self.initial.astype("<f4").tobytes()).hexdigest()

    def prepare(self, documents: Sequence[Document]) -> Prepared:
        """Tokenise, flatten, cut and tag. Labels must already be the study's."""
        ready, flattened = flatten_all(tokenise(document) for document in documents)
        windows = self.tagger.windows(ready)
        tagged = [tags_of(document, self.labels) for document in ready]
        report = sum((r for _, r in tagged), TagReport())
        return Prepared(ready, windows, tuple(tags for tags, _ in tagged), report, flattened)

    def set_delta(self, delta: Vector | None) -> None:
        """Set the trained weights to `initial + delta`; `None` stands for zeros."""
        set_vector(self.module, self.initial if delta is None else self.initial + delta)

    def delta(self) -> Vector:
        """Trained weights less the initial ones: float32 `[layout.size]`."""
        return get_vector(self.module) - self.initial

    def fit(
        self,
        prepared: Prepared,
        stage: Stage,
        epochs: int | None = None,
        progress: Progress | None = None,
    ) -> float:
        """Train from the weights as they are; see `common.model.train.train`."""
        if not prepared.windows:
            raise DataError(
                "there is not one word to train on", remedy="check the training documents"
            )
        training = self.study.training
        if epochs is not None:
            training = replace(training, local_epochs=epochs)
        collate, examples = self.tagger.collate, prepared.examples
        return train(self.module, examples, collate, training, stage, self.device, progress)

    def fit_privately(
        self,
        prepared: Prepared,
        units: Units,
        recipe: Recipe,
        stage: Stage,
        randomness: Randomness,
        progress: Progress | None = None,
    ) -> None:
        """Train with DP-SGD from the weights as they are; see `common.model.private`."""
        data = PrivateData(examples=prepared.examples, units=units, collate=self.tagger.collate)
        train_privately(self.module, data, recipe, stage, randomness, self.device, progress)

    def tags(self, prepared: Prepared, progress: Progress | None = None) -> list[list[int]]:
        """Predicted tag index per word, per document."""
        return self.tagger.tags(prepared.documents, prepared.windows, progress)

    def predict(
        self, prepared: Prepared, progress: Progress | None = None
    ) -> list[tuple[Entity, ...]]:
        """Predicted entities per document."""
        return self.tagger.entities(prepared.documents, prepared.windows, progress)

    def evaluate(self, prepared: Prepared, progress: Progress | None = None) -> Evaluation:
        """Counts of predictions against gold: character spans, and word tags."""
        total = Evaluation(self.labels, np.zeros(Evaluation.size(self.labels), np.int64))
        for _, _, part in self._evaluations(prepared, progress):
            total += part
        return total

    def evaluate_each(self, prepared: Prepared, progress: Progress | None = None) -> CountVector:
        """The same counts of each document alone, in order: int64 `[documents, size]`."""
        size = Evaluation.size(self.labels)
        counts = np.zeros((len(prepared.documents), size), np.int64)
        place = {id(document): i for i, document in enumerate(prepared.documents)}
        for document, _, part in self._evaluations(prepared, progress):
            counts[place[id(document)]] += part.counts
        return counts

    def evaluate_by_unit(self, prepared: Prepared, unit: Unit) -> CountVector:
        """The same counts of each unit alone: int64 `[units, size]`, in no telling order.

        Raises:
            DataError: a document names no patient, and the unit is the patient.
        """
        per_sentence = self.study.text.context == "sentence"
        rows: dict[Name, CountVector] = {}
        for document, sentence, part in self._evaluations(prepared, None):
            name = unit_name(document, unit, per_sentence, sentence)
            rows[name] = rows.get(name, 0) + part.counts
        size = Evaluation.size(self.labels)
        return np.stack(list(rows.values())) if rows else np.zeros((0, size), np.int64)

    def _evaluations(
        self, prepared: Prepared, progress: Progress | None
    ) -> Iterator[tuple[Document, int, Evaluation]]:
        """Counts sentence by sentence; an entity belongs to the sentence that it starts in."""
        predicted = self.tags(prepared, progress)
        for document, gold, tags in zip(prepared.documents, prepared.tags, predicted, strict=True):
            found = entities_of(document, tags, self.labels)
            for sentence, part in enumerate(_by_sentence(document, found)):
                first, last, gold_here, found_here = part
                yield (
                    document,
                    sentence,
                    Evaluation.of(
                        self.labels,
                        count_entities(gold_here, found_here, self.labels),
                        tokens.confusion(
                            gold[first:last], tags[first:last], 2 * len(self.labels) + 1
                        ),
                    ),
                )


def _by_sentence(
    document: Document, found: Sequence[Entity]
) -> Iterator[tuple[int, int, list[Entity], list[Entity]]]:
    """Word range, gold and found entities of each sentence of a document."""
    words = document_words(document)
    ranges = sentence_ranges(document) or ((0, 0),)
    starts = [words[first][0] if first < len(words) else len(document.text) for first, _ in ranges]
    gold: list[list[Entity]] = [[] for _ in ranges]
    mine: list[list[Entity]] = [[] for _ in ranges]
    for entities, parts in ((document.entities, gold), (found, mine)):
        for entity in entities:
            parts[max(0, bisect_right(starts, entity.start) - 1)].append(entity)
    for (first, last), one, other in zip(ranges, gold, mine, strict=True):
        yield first, last, one, other


def decoding_of(study: Study) -> Decoding:
    """What of a study decides on the entities that its model finds."""
    return Decoding(
        labels=study.task.labels,
        abbreviations=study.task.abbreviations,
        context=study.text.context,
        max_tokens=study.text.max_tokens,
        overlap_tokens=study.text.overlap_tokens,
    )


def set_threads(threads: int | None) -> None:
    """CPU threads of torch in this process; `None` leaves torch's choice."""
    if threads is not None:
        torch.set_num_threads(threads)
