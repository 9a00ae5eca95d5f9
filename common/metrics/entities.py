"""Entity-level scores: exact boundaries and label, as counts that merge by addition.

Equal to seqeval 1.2.2 `classification_report(mode="strict", scheme=IOB2)` on word tags; tested.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.data.records import Entity


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, predicted and gold entities of one label."""

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.correct + other.correct,
            self.predicted + other.predicted,
            self.gold + other.gold,
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Precision, recall and F1 in [0, 1] (0 where undefined), and the number of gold items."""

    precision: float
    recall: float
    f1: float
    support: int


def as_json(report: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Scores per row as plain numbers."""
    return {
        row: {"precision": s.precision, "recall": s.recall, "f1": s.f1, "support": s.support}
        for row, s in report.items()
    }


def scores(counts: Counts) -> Scores:
    """Scores of one set of counts."""
    precision = counts.correct / counts.predicted if counts.predicted else 0.0
    recall = counts.correct / counts.gold if counts.gold else 0.0
    total = counts.predicted + counts.gold
    return Scores(precision, recall, 2 * counts.correct / total if total else 0.0, counts.gold)


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counts per label; the form in which results travel and merge."""

    by_label: Mapping[str, Counts] = field(default_factory=dict)

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        labels = list(dict.fromkeys([*self.by_label, *other.by_label]))
        return LabelCounts(
            {
                label: self.by_label.get(label, Counts()) + other.by_label.get(label, Counts())
                for label in labels
            }
        )


def count_entities(
    gold: Iterable[Entity], predicted: Iterable[Entity], labels: Sequence[str]
) -> LabelCounts:
    """Counts of one document. An entity is correct if fragments and label are the same."""
    gold_set, predicted_set = set(gold), set(predicted)
    correct = gold_set & predicted_set

    def of(entities: set[Entity], label: str) -> int:
        return sum(entity.label == label for entity in entities)

    return LabelCounts(
        {
            label: Counts(of(correct, label), of(predicted_set, label), of(gold_set, label))
            for label in labels
        }
    )


def report(counts: LabelCounts) -> dict[str, Scores]:
    """Scores per label, then `micro`, `macro` and `weighted` averages.

    `macro` is the plain mean over labels, `weighted` the mean by gold support. A label that never
    occurs counts as 0 in `macro`; seqeval, which is told no labels, leaves it out.
    """
    per_label = {label: scores(c) for label, c in counts.by_label.items()}
    total = sum(counts.by_label.values(), Counts())
    return {**per_label, **averages(per_label, scores(total))}


def averages(per_label: Mapping[str, Scores], micro: Scores) -> dict[str, Scores]:
    """`micro` as given, `macro` and `weighted` averages over the labels."""
    support = sum(s.support for s in per_label.values())
    even = {label: 1 / len(per_label) for label in per_label}
    by_gold = {label: s.support / support if support else 0.0 for label, s in per_label.items()}

    def mean(weights: Mapping[str, float]) -> Scores:
        return Scores(
            sum(weights[k] * s.precision for k, s in per_label.items()),
            sum(weights[k] * s.recall for k, s in per_label.items()),
            sum(weights[k] * s.f1 for k, s in per_label.items()),
            support,
        )

    return {"micro": micro, "macro": mean(even), "weighted": mean(by_gold)}
