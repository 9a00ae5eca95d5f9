"""Source labels to study labels, and study labels to tags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from common.data.records import Document, Entity
from common.errors import ConfigError, DataError

OUTSIDE = "O"


def bio_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """`("O", "B-X", "I-X", ...)` in the order of `labels`; `[2 * labels + 1]`.

    Raises:
        ConfigError: a label that is empty, holds blanks or stands twice.
    """
    check_labels(labels)
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that are empty, unprintable, hold blanks or stand twice."""
    for label in labels:
        if not label or not label.isprintable() or " " in label:
            raise ConfigError("expected a printable label without blanks", place="labels")
    if len(set(labels)) != len(labels):
        raise ConfigError("a label stands twice", place="labels")


def map_labels(
    documents: Sequence[Document],
    mapping: Mapping[str, str] | None,
    labels: Sequence[str],
    unmapped: Literal["drop", "refuse"],
) -> tuple[tuple[Document, ...], Counter[str]]:
    """Give every entity a label of the study.

    A source label goes where `mapping` sends it; else, if it is a label of the study, it stays;
    else it is unmapped. Do this before `flatten`: a dropped entity must not displace another.

    Args:
        mapping: source label to study label.
        labels: the study's labels.
        unmapped: `drop` reads such entities as outside, `refuse` is an error.

    Returns:
        The documents, and a counter with `dropped:SOURCE` for each unmapped source label and
        `merged:LABEL` for entities that became equal to another.

    Raises:
        ConfigError: a mapping to a label that the study does not have; labels that stand twice.
        DataError: an unmapped label under `refuse`.
    """
    check_labels(labels)
    targets = {label: label for label in labels} | dict(mapping or {})
    if strange := sorted(set(targets.values()) - set(labels)):
        raise ConfigError(
            f"mapped to {', '.join(strange)}, expected one of {', '.join(labels)}",
            place="label_map",
        )
    counts: Counter[str] = Counter()
    mapped = tuple(_map(document, targets, unmapped, counts) for document in documents)
    return mapped, +counts


def _map(
    document: Document, targets: Mapping[str, str], unmapped: str, counts: Counter[str]
) -> Document:
    entities: dict[Entity, None] = {}
    for entity in document.entities:
        target = targets.get(entity.label)
        if target is None and unmapped != "drop":
            raise DataError(
                f"label {entity.label} is neither mapped nor a label of the study",
                place=document.doc_id,
                remedy="add it to `label_map`, or set `unmapped: drop`",
            )
        if target is None:
            counts[f"dropped:{entity.label}"] += 1
            continue
        new = Entity(entity.fragments, target)
        counts[f"merged:{target}"] += new in entities
        entities[new] = None
    return replace(document, entities=tuple(entities))
