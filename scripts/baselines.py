"""What federation is measured against: each institution alone, and all data in one place."""

from collections.abc import Callable, Sequence
from typing import Final

from common.data.records import Document
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel
from common.model.train import Stage
from scripts.simulation import Bench

POOLED: Final = "pooled"

Progress = Callable[[int, int], None]


def train_alone(
    bench: Bench, model: NerModel, name: str, progress: Progress | None = None
) -> Evaluation:
    """Train on one institution's documents, or on all for `POOLED`, and test on everyone's.

    As many epochs as the federation's rounds give each document, one optimiser throughout.
    Afterwards `model` holds the trained weights.
    """
    documents = bench.all_train if name == POOLED else bench.sides[name].train
    fit(model, documents, name, progress)
    return model.evaluate(model.prepare(bench.all_test))


def fit(
    model: NerModel, documents: Sequence[Document], name: str, progress: Progress | None = None
) -> float:
    """Train from the initial weights; the mean loss per word of the last epoch."""
    training = model.study.training
    model.set_delta(None)
    stage = Stage(start=0.0, end=1.0, seed_text=f"fedner alone v1/{training.seed}/{name}")
    epochs = training.rounds * training.local_epochs
    return model.fit(model.prepare(documents), stage, epochs, progress)
