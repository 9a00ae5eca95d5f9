"""Data of who has withdrawn, taken out of what was prepared."""

from dataclasses import replace

from common.data.withdrawn import Withdrawn
from common.model.ner import Prepared


def without(prepared: Prepared, withdrawn: Withdrawn) -> Prepared:
    """The same less the documents of who has withdrawn; itself if there is none of them.

    Guarantee: what is kept is what would have been prepared had those documents never been there.
    `report` and `flattened` still tell of all.
    """
    kept = [i for i, d in enumerate(prepared.documents) if not withdrawn.covers(d)]
    if len(kept) == len(prepared.documents):
        return prepared
    place = {old: new for new, old in enumerate(kept)}
    return replace(
        prepared,
        documents=tuple(prepared.documents[i] for i in kept),
        windows=tuple(
            replace(w, document=place[w.document]) for w in prepared.windows if w.document in place
        ),
        tags=tuple(prepared.tags[i] for i in kept),
    )
