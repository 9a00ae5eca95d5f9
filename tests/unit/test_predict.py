"""Tags of a document follow from it alone: what its windows are padded to, too."""

import numpy as np
import pytest

from common.data.synthetic import SyntheticOptions, generate_notes
from common.model.inputs import Collator
from common.model.ner import NerModel
from tests import tiny


@pytest.fixture(scope="module")
def model(tiny_encoder):
    return NerModel(tiny_encoder, tiny.study(tiny_encoder), "cpu")


def notes():
    options = SyntheticOptions(
        institutions=("north",), patients_per_institution=8, notes_per_patient=(1, 1), seed=1
    )
    (documents,) = generate_notes(options).values()
    return documents


def test_each_window_is_padded_to_its_own_length_whatever_else_is_there(model, monkeypatch):
    padded = []
    collate = Collator.__call__

    def recording(self, windows, labels, length=None):
        padded.append(({self.padded(window) for window in windows}, length))
        return collate(self, windows, labels, length)

    monkeypatch.setattr(Collator, "__call__", recording)
    documents = notes()
    together = model.evaluate_by_unit(model.prepare(documents), "document")
    assert len(padded) > 1
    assert all(own == {length} for own, length in padded)
    alone = [model.evaluate_by_unit(model.prepare([d]), "document") for d in documents]
    assert (together == np.concatenate(alone)).all()


def test_every_batch_has_a_mask_though_no_window_is_padded(model, monkeypatch):
    met = []
    forward = type(model.module).forward

    def recording(self, *args, **kwargs):
        met.append(kwargs["attention_mask"])
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model.module), "forward", recording)
    monkeypatch.setattr(Collator, "padded", lambda self, window: len(window.input_ids))
    model.evaluate_by_unit(model.prepare(notes()), "document")
    assert len(met) > 1
    assert all(mask.ndim == 4 and (mask == 0).all() for mask in met)
