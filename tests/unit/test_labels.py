"""Labels of the source become labels of the study, and none is lost without a count."""

import pytest

from common.data.labels import bio_tags, map_labels
from common.data.records import Document, Entity, span
from common.errors import ConfigError, DataError


def document(*entities: Entity) -> Document:
    return Document(doc_id="d1", text="zorblax quimper vextol", entities=entities)


def test_without_a_mapping_study_labels_stay_and_others_are_dropped_and_counted() -> None:
    source = document(span(0, 7, "Drug"), span(8, 15, "Age"), span(16, 22, "Age"))
    (mapped,), counts = map_labels([source], None, ["Drug"], "drop")
    assert mapped.entities == (span(0, 7, "Drug"),)
    assert counts == {"dropped:Age": 2}


def test_a_mapping_goes_before_the_study_labels() -> None:
    source = document(span(0, 7, "A"), span(8, 15, "B"), span(16, 22, "C"))
    (mapped,), counts = map_labels([source], {"A": "B", "C": "A"}, ["A", "B"], "refuse")
    assert [entity.label for entity in mapped.entities] == ["B", "B", "A"]
    assert not counts


def test_entities_that_become_equal_are_merged_and_counted() -> None:
    pieces = ((0, 7), (16, 22))
    source = document(Entity(pieces, "A"), Entity(pieces, "B"), span(0, 7, "A"))
    (mapped,), counts = map_labels([source], {"A": "X", "B": "X"}, ["X"], "drop")
    assert mapped.entities == (span(0, 7, "X"), Entity(pieces, "X"))
    assert counts == {"merged:X": 1}


def test_an_unmapped_label_can_be_refused() -> None:
    with pytest.raises(DataError, match="label Age") as caught:
        map_labels([document(span(0, 7, "Age"))], None, ["Drug"], "refuse")
    assert caught.value.place == "d1"
    assert "label_map" in (caught.value.remedy or "")
    assert "zorblax" not in str(caught.value)


def test_everything_but_the_entities_stays() -> None:
    source = Document(
        doc_id="d1", patient_id="p", text="ab", sentences=((0, 2),), tokens=(((0, 2),),)
    )
    assert map_labels([source], None, ["X"], "drop")[0] == (source,)


def test_a_mapping_to_a_label_the_study_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="mapped to Y"):
        map_labels([], {"A": "Y"}, ["X"], "drop")


def test_tags_are_outside_then_b_and_i_of_each_label_in_order() -> None:
    assert bio_tags(["Z", "A"]) == ("O", "B-Z", "I-Z", "B-A", "I-A")
    assert bio_tags([]) == ("O",)


@pytest.mark.parametrize("labels", [["A", "A"], [""], ["A B"], ["A\n"]], ids=repr)
def test_unusable_labels_are_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigError):
        bio_tags(labels)
