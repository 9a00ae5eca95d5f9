"""Token-level scores: one confusion matrix of word tags, which merges by addition.

Equal to scikit-learn's `classification_report` over all tags but `O`; tested.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from common.metrics.entities import Counts, Scores, averages, scores

Confusion = npt.NDArray[np.int64]
"""`[tags, tags]`: row the gold tag, column the predicted one."""


def confusion(gold: Sequence[int], predicted: Sequence[int], n_tags: int) -> Confusion:
    """Confusion matrix of two equally long tag sequences."""
    pairs = np.asarray(gold, np.int64) * n_tags + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_tags * n_tags).reshape(n_tags, n_tags)


def report(matrix: Confusion, tags: Sequence[str], outside: str = "O") -> dict[str, Scores]:
    """Scores per tag but `outside`, then `micro`, `macro` and `weighted` averages of those."""
    kept = [i for i, tag in enumerate(tags) if tag != outside]
    counts = {
        tags[i]: Counts(int(matrix[i, i]), int(matrix[:, i].sum()), int(matrix[i].sum()))
        for i in kept
    }
    per_tag = {tag: scores(c) for tag, c in counts.items()}
    return {**per_tag, **averages(per_tag, scores(sum(counts.values(), Counts())))}
