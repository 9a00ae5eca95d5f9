"""What federation is measured against: each institution alone, and all data in one place."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from common.config.canonical import study_yaml
from common.config.privacy import LocalPrivacy
from common.data.records import Document
from common.io.datasets import Sides
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel
from common.model.train import Stage
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir

POOLED: Final = "pooled"

Progress = Callable[[int, int], None]


def train_alone(
    bench: Bench, model: NerModel, name: str, progress: Progress | None = None
) -> Evaluation:
    """Train on one institution's documents, or on all for `POOLED`, and test on everyone's.

    Without a privacy mechanism: as many epochs as the federation's rounds give each document, one
    optimiser throughout, and no say for `aggregation`. With one: the same mechanism, rounds and
    epsilon, in a federation of one.
    Afterwards `model` holds the trained weights.
    """
    if bench.study.local_privacy is not None:
        _fit_privately(of_one(bench, name), model, progress)
    else:
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


def of_one(bench: Bench, name: str) -> Bench:
    """The same study with one institution: one of the roster, or `POOLED`, which holds all data.

    What `POOLED` declares is the sum of what the institutions declare.
    """
    study, privacy = bench.study, bench.study.local_privacy
    roster = study.federation.institutions
    names = roster if name == POOLED else (name,)
    federation = replace(study.federation, institutions=(name,), quorum=None)
    aggregation = replace(study.aggregation, weights=None)
    protected: LocalPrivacy | str = "none"
    if privacy is not None:
        declared = sum(privacy.declared_at(institution) for institution in names)
        protected = replace(privacy, declared_units=declared)
    alone = replace(
        study,
        federation=federation,
        aggregation=aggregation,
        privacy=protected,
        secure_aggregation="none",  # there is nobody else to be summed with
    )
    train = tuple(d for n in names for d in bench.sides[n].train)
    test = tuple(d for n in names for d in bench.sides[n].test)
    return replace(bench, study=alone, sides={name: Sides(train, test)})


def _fit_privately(bench: Bench, model: NerModel, progress: Progress | None) -> None:
    rounds = bench.study.training.rounds
    done = 0

    def on_event(event: str, _figures: object) -> None:
        nonlocal done
        if event == "round" and progress:
            done += 1
            progress(done, rounds)

    with tempfile.TemporaryDirectory() as scratch:
        run = RunDir.create(Path(scratch) / "run", study_yaml(bench.study))
        simulate(bench, run, model, on_event)
