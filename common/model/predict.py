"""Predicted tags of documents: float32, each word by the window that owns it, then Viterbi.

A document's tags follow from it alone, whatever documents it is predicted with, but for the
rounding of sums that a library adds in another order in another batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from common.data.encode import Window, document_words, sentence_ranges
from common.data.labels import bio_tags
from common.data.records import Document
from common.metrics.decode import allowed, viterbi
from common.model.inputs import Collator, sorted_batches
from common.model.running import Progress, explicitly_masked

TOKEN_BUDGET = 4096


def predict_tags(
    model: nn.Module,
    documents: Sequence[Document],
    windows: Sequence[Window],
    collate: Collator,
    labels: Sequence[str],
    device: torch.device,
    progress: Progress | None = None,
) -> list[list[int]]:
    """Tag index of every word of every document.

    Args:
        windows: as `make_windows(documents, …)` gave them.
    """
    scores = [
        np.zeros((len(document_words(d)), 2 * len(labels) + 1), np.float32) for d in documents
    ]
    lengths = [collate.padded(w) for w in windows]
    model.to(device).eval()
    done = 0
    with torch.inference_mode():
        for rows in sorted_batches(lengths, TOKEN_BUDGET):
            batch = collate([windows[i] for i in rows], None, lengths[rows[0]])
            inputs = {k: v.to(device) for k, v in batch.items()}
            logits = model(**explicitly_masked(model, inputs)).logits
            log_probs = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
            for row, i in enumerate(rows):
                window = windows[i]
                scores[window.document][list(window.words)] = log_probs[row, list(window.positions)]
            done += len(rows)
            if progress:
                progress(done, len(windows))
    table = allowed(bio_tags(labels))
    return [_decode(d, s, table) for d, s in zip(documents, scores, strict=True)]


def _decode(document: Document, scores: np.ndarray, table: np.ndarray) -> list[int]:
    return [
        tag
        for first, last in sentence_ranges(document)
        for tag in viterbi(scores[first:last], table)
    ]
