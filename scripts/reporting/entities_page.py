"""Documents with the entities that a model found in them, as one HTML page."""

from collections.abc import Sequence
from typing import Final

from common.data.records import Document
from scripts.highlight import NOT_A_DEVICE, counted, pieces, visible
from scripts.reporting.html import is_grave, rendered, worded

COLOURS: Final = (
    ("#cfe8fc", "#004a80"),
    ("#fde9b8", "#6b4700"),
    ("#f3d9ee", "#742a63"),
    ("#d8f0dc", "#0b5028"),
    ("#dcdcf7", "#37328a"),
    ("#fbdcd3", "#8a2c0d"),
)
"""Behind an entity, whose text is `INK`, and behind its label, which is white."""
INK: Final = "#1a1a1a"
_KEEP: Final = "This page holds the text itself: keep it where the text may be kept."


def entities_page(
    documents: Sequence[Document], labels: Sequence[str], model: str, notices: Sequence[str]
) -> str:
    """One file without scripts; each entity is a `mark` with its label's name.

    Args:
        model: its study's name.
        notices: what the model's manifest says that it does without.

    Raises:
        DataError: as `pieces`.
    """
    shown = [
        (visible(d.doc_id), [(visible(piece), label) for piece, label in pieces(d)])
        for d in documents
    ]
    return rendered(
        "entities.html.j2",
        documents=shown,
        counts=counted(documents, labels),
        places={label: index % len(COLOURS) for index, label in enumerate(labels)},
        colours=COLOURS,
        ink=INK,
        model=model,
        marks=[NOT_A_DEVICE, _KEEP],
        grave=[worded(visible(notice)) for notice in notices if is_grave(notice)],
        others=[worded(visible(notice)) for notice in notices if not is_grave(notice)],
    )
