"""The head of a model card: metadata in YAML, as model hubs read it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

import yaml

from common.config.study import Study

UNKNOWN_LICENCE: Final = "unknown"
EXAMPLES: Final = (  # in English; no person stands behind them
    "Denies chest pain; on metoprolol 25 mg daily.",
    "Huntington disease was diagnosed after two years of involuntary movements.",
)
_HUB_NAMES: Final = {
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": (
        "sentence-transformers/all-MiniLM-L6-v2"
    ),
}
"""Encoders whose name in studies is not the hub's, by the hash of their weights."""
_METRICS: Final = ("f1", "precision", "recall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One evaluation of the model, as `metrics.jsonl` has it.

    Attributes:
        on: what the held-out documents are, in a few words.
        entities: scores by label and `micro`.
    """

    on: str
    entities: Mapping[str, Mapping[str, Any]]


def front_matter(
    study: Study,
    evaluated: Evaluated | None = None,
    *,
    licence: str = UNKNOWN_LICENCE,
    language: str | None = None,
) -> str:
    """The block between two lines of dashes, and a line break.

    A study names neither licence nor language, and nobody guesses one: that of the encoder's
    weights is not that of a model trained on them.
    """
    content: dict[str, Any] = {} if language is None else {"language": language}
    content |= {
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": "token-classification",
        "tags": list(_tags(study)),
        "base_model": _base(study),
        "metrics": list(_METRICS),
    }
    if language in (None, "en"):
        content["widget"] = [{"text": text} for text in EXAMPLES]
    if evaluated is not None:
        content["model-index"] = [{"name": study.study, "results": [_result(evaluated)]}]
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}---\n"


def _tags(study: Study) -> Iterator[str]:
    yield from ("named-entity-recognition", "federated-learning", "fedner")
    if study.local_privacy is not None and study.local_privacy.insecure_seed is None:
        yield "differential-privacy"
    if study.secure is not None:
        yield "secure-aggregation"


def _base(study: Study) -> str:
    """The encoder's name at a hub, or in the study; of a folder the last part."""
    name = study.encoder.name
    local = PurePath(name).name if name.startswith((".", "/")) else name
    return _HUB_NAMES.get(study.encoder.weights_sha256, local)


def _result(evaluated: Evaluated) -> dict[str, Any]:
    rows = [("micro", evaluated.entities["micro"])]
    rows += [(name, s) for name, s in evaluated.entities.items() if name not in _AVERAGES]
    return {
        "task": {"type": "token-classification", "name": "named-entity recognition"},
        "dataset": {"type": "held-out", "name": evaluated.on},
        "metrics": [
            {"type": metric, "value": round(scores[metric], 4), "name": f"{metric}, {row}"}
            for row, scores in rows
            for metric in _METRICS
        ],
    }


_AVERAGES: Final = ("micro", "macro", "weighted")
