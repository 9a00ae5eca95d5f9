"""The best tag sequence that IOB2 allows: Viterbi over log-probabilities, hard transitions only.

Nothing is learned: `I-X` may follow only `B-X` or `I-X`, so no stray `I-` is ever predicted.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores2D = npt.NDArray[np.float32]


def allowed(tags: Sequence[str]) -> npt.NDArray[np.bool_]:
    """`[tags + 1, tags]`: may column follow row? The last row is the start of a sentence."""
    table = np.ones((len(tags) + 1, len(tags)), dtype=bool)
    for j, tag in enumerate(tags):
        if tag.startswith("I-"):
            for i, before in enumerate([*tags, "start"]):
                table[i, j] = before in {f"B-{tag[2:]}", tag}
    return table


def viterbi(log_probs: Scores2D, table: npt.NDArray[np.bool_]) -> list[int]:
    """Best allowed path through `log_probs[words, tags]`; ties go to the lower index."""
    n_words, n_tags = log_probs.shape
    if n_words == 0:
        return []
    penalty = np.where(table, 0.0, -np.inf)
    best = log_probs[0].astype(np.float64) + penalty[n_tags]
    back = np.zeros((n_words, n_tags), dtype=np.int64)
    for t in range(1, n_words):
        steps = best[:, None] + penalty[:n_tags]
        back[t] = steps.argmax(axis=0)
        best = steps.max(axis=0) + log_probs[t]
    path = [int(best.argmax())]
    for t in range(n_words - 1, 0, -1):
        path.append(int(back[t, path[-1]]))
    return path[::-1]
