"""A small trained model, saved, and texts to try it on: for the tests of exported folders."""

from pathlib import Path

from common.data.records import Document, span
from common.io.models import save_model
from common.model.ner import NerModel
from common.model.train import Stage
from tests import tiny

LABELS = ("Disease", "Symptom", "Medication", "Gene", "Test", "Device")
"""Six: the tags of a map with more than ten entries do not come back in order by their text."""
_KNOWN = (
    ("He has fever.", "fever", "Symptom"),
    ("No chest pain today, but nausea at night.", "chest pain", "Symptom"),
    ("Known asthma (AS).", "asthma", "Disease"),
    ("On metoprolol since spring.", "metoprolol", "Medication"),
    ("She takes aspirin for pain.", "aspirin", "Medication"),
    ("Diabetes was found.", "Diabetes", "Disease"),
)


def documents() -> tuple[Document, ...]:
    """What was learnt; the same in one long text with the abbreviation again; something new."""
    known = tuple(_document(f"d{i}", text, ((e, label),)) for i, (text, e, label) in
                  enumerate(_KNOWN))  # fmt: skip
    long = " ".join(text for text, _, _ in (*_KNOWN, *_KNOWN[:4])) + "\nAS was treated."
    found = tuple((entity, label) for _, entity, label in _KNOWN)
    new = _document("new", "No fever. On insulin, and asthma since.", (("insulin", "Medication"),))
    return (*known, _document("long", long, found), new)


def save_trained(encoder: Path, folder: Path) -> Path:
    """Train until most of it is known by heart."""
    study = tiny.study(
        encoder,
        task=f"{{labels: [{', '.join(LABELS)}], abbreviations: as_defined}}",
        text="{context: document, max_tokens: 48, overlap_tokens: 8}",
        training="{rounds: 1, batch_size: 2, learning_rate: 1e-2, precision: float32}",
    )
    model = NerModel(encoder, study, "cpu")
    model.fit(model.prepare(documents()), Stage(start=0.0, end=1.0, seed_text="one"), epochs=25)
    save_model(model, encoder, folder, {"rounds": 1})
    return folder


def _document(name: str, text: str, found: tuple[tuple[str, str], ...]) -> Document:
    at = [(text.index(entity), entity, label) for entity, label in found]
    entities = tuple(span(start, start + len(entity), label) for start, entity, label in at)
    return Document(doc_id=name, text=text, entities=entities)
