"""What only a simulation can say: each institution's documents, and scores on them alone.

In a real federation none of this leaves an institution. Each event's name begins with `simulated`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from common.data.records import Document
from common.metrics.entities import as_json
from common.metrics.evaluation import CountVector, Evaluation
from common.metrics.interval import micro_f1_interval
from common.model.ner import NerModel
from common.privacy.events import Unit
from scripts.simulation import Bench
from server.run_dir import RunDir

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
_SEED: Final = 1
"""Of the drawing: the same counts give the same interval."""


def record_data(bench: Bench, run: RunDir) -> None:
    """How many documents, patients and annotated entities each institution has on either side."""
    institutions = {
        name: {"train": _summary(sides.train), "held_out": _summary(sides.test)}
        for name, sides in bench.sides.items()
    }
    run.record("simulated_data", bench.study, institutions=institutions)


def record_by_institution(bench: Bench, run: RunDir, model: NerModel) -> None:
    """The shared model on each institution's held-out documents, and an interval over all.

    Counts are exact, whatever the study's evaluations are.
    """
    unit: Unit = "patient" if all(d.patient_id for d in bench.all_test) else "document"
    rows = {name: _rows(model, sides.test, unit) for name, sides in bench.sides.items()}
    for name, counts in rows.items():
        scores = own_scores(bench, counts)
        run.record("simulated_evaluation", bench.study, institution=name, **scores)
    every = np.concatenate(list(rows.values()))
    found = micro_f1_interval(
        every, bench.study.task.labels, np.random.default_rng(_SEED), RESAMPLES, LEVEL
    )
    run.record(
        "simulated_interval",
        bench.study,
        **own_scores(bench, every),
        low=found.low,
        high=found.high,
        level=LEVEL,
        unit=unit,
        units=len(every),
        resamples=RESAMPLES,
    )


def scores_at_home(bench: Bench, model: NerModel, name: str) -> dict[str, Any]:
    """A model on the held-out documents of one institution; nothing for all data pooled."""
    if name not in bench.sides:
        return {}
    return {"own": own_scores(bench, _rows(model, bench.sides[name].test, "document"))}


def own_scores(bench: Bench, rows: CountVector) -> dict[str, Any]:
    """F1 and scores by label of counts by unit."""
    total = Evaluation(bench.study.task.labels, rows.sum(axis=0))
    return {"f1": total.f1, "entities": as_json(total.entity_report())}


def _rows(model: NerModel, documents: Sequence[Document], unit: Unit) -> CountVector:
    return model.evaluate_by_unit(model.prepare(documents), unit)


def _summary(documents: Sequence[Document]) -> dict[str, Any]:
    patients = {d.patient_id for d in documents}
    entities = Counter(e.label for d in documents for e in d.entities)
    return {
        "documents": len(documents),
        "patients": None if None in patients else len(patients),
        "entities": dict(sorted(entities.items())),
    }
