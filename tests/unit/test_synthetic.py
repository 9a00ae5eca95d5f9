"""Synthetic notes: exact spans, repeatable, and different from institution to institution."""

import hashlib
import itertools
import re
from collections import Counter

import pytest

from common.data.lexicon import LABELS, SHARED, SPECIALTIES, pool
from common.data.note_styles import STYLES
from common.data.records import Document
from common.data.sentences import tokenise
from common.data.synthetic import SyntheticOptions, generate_notes
from common.errors import DataError

NAMES = ("north", "east", "south", "west")
Surface = tuple[str, str]


def _options(
    institutions: tuple[str, ...] = NAMES, patients: int = 20, seed: int = 7
) -> SyntheticOptions:
    return SyntheticOptions(
        institutions=institutions,
        patients_per_institution=patients,
        notes_per_patient=(2, 4),
        seed=seed,
    )


@pytest.fixture(scope="module")
def notes() -> dict[str, tuple[Document, ...]]:
    return generate_notes(_options(patients=40))


def _surfaces(documents: tuple[Document, ...]) -> list[Surface]:
    return [(d.text[e.start : e.end].casefold(), e.label) for d in documents for e in d.entities]


def _concepts(document: Document) -> set[Surface]:
    """The full forms of the document's entities."""
    found = set(_surfaces((document,)))
    return {
        (term.forms[0], label)
        for specialty in (*SPECIALTIES, SHARED)
        for label, terms in pool(specialty).items()
        for term in terms
        if any((form.casefold(), label) in found for form in term.forms)
    }


def _overlap(one: set[Surface], other: set[Surface]) -> float:
    return len(one & other) / len(one | other)


def _digest(notes: dict[str, tuple[Document, ...]]) -> str:
    lines = [
        f"{d.doc_id}\t{d.text}\t{[(e.fragments, e.label) for e in d.entities]}"
        for documents in notes.values()
        for d in documents
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_same_options_give_the_same_notes_everywhere() -> None:
    assert _digest(generate_notes(_options(("a", "b", "c", "d", "e"), 2))) == GOLDEN


def test_another_seed_gives_other_notes() -> None:
    assert _digest(generate_notes(_options())) != _digest(generate_notes(_options(seed=8)))


def test_more_patients_or_institutions_change_none_of_the_others() -> None:
    few, many = generate_notes(_options(NAMES[:2], 3)), generate_notes(_options(NAMES, 5))
    for name, documents in few.items():
        assert many[name][: len(documents)] == documents


def test_every_span_is_a_known_term(notes: dict[str, tuple[Document, ...]]) -> None:
    known = {
        (form.casefold(), label)
        for specialty in (*SPECIALTIES, SHARED)
        for label, terms in pool(specialty).items()
        for term in terms
        for form in term.forms
    }
    of_templates = {("discharge", "Symptom"), ("panic attacks", "Symptom")}
    for documents in notes.values():
        assert set(_surfaces(documents)) <= known | of_templates


def test_entities_are_contiguous_disjoint_and_trimmed(
    notes: dict[str, tuple[Document, ...]],
) -> None:
    for document in itertools.chain(*notes.values()):
        for entity in document.entities:
            surface = document.text[entity.start : entity.end]
            assert entity.is_contiguous
            assert surface == surface.strip()
            assert "\n" not in surface
        for left, right in itertools.pairwise(document.entities):
            assert left.end <= right.start


def test_spans_fall_on_word_and_sentence_boundaries(
    notes: dict[str, tuple[Document, ...]],
) -> None:
    for document in map(tokenise, itertools.chain(*notes.values())):
        words = [word for sentence in document.tokens or () for word in sentence]
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        for entity in document.entities:
            assert entity.start in starts
            assert entity.end in ends
            assert any(s <= entity.start and entity.end <= e for s, e in document.sentences or ())


def test_no_template_slot_is_left_unfilled(notes: dict[str, tuple[Document, ...]]) -> None:
    for document in itertools.chain(*notes.values()):
        assert not re.search(r"[{}<]|<[dsm]:", document.text)


def test_all_labels_are_present_everywhere(notes: dict[str, tuple[Document, ...]]) -> None:
    for documents in notes.values():
        counts = Counter(entity.label for d in documents for entity in d.entities)
        assert set(counts) == set(LABELS)
        assert min(counts.values()) > 0.15 * sum(counts.values())


def test_notes_have_60_to_150_words_but_for_one_in_a_hundred(
    notes: dict[str, tuple[Document, ...]],
) -> None:
    counts = [len(d.text.split()) for d in itertools.chain(*notes.values())]
    assert min(counts) >= 60
    assert max(counts) <= 170
    assert sum(count > 150 for count in counts) <= 0.01 * len(counts)


def test_ids_name_institution_patient_and_note(notes: dict[str, tuple[Document, ...]]) -> None:
    for name, documents in notes.items():
        for document in documents:
            assert re.fullmatch(rf"{name}-p\d{{4}}-n[1-4]", document.doc_id)
            assert document.doc_id.startswith(f"{document.patient_id}-n")


def test_patients_have_several_notes_that_share_terms_but_not_wording(
    notes: dict[str, tuple[Document, ...]],
) -> None:
    for documents in notes.values():
        for _, group in itertools.groupby(documents, key=lambda d: d.patient_id):
            own = list(group)
            assert 2 <= len(own) <= 4
            assert len({d.text for d in own}) == len(own)
            first, second = (_concepts(d) for d in own[:2])
            assert len(first & second) >= 2


def test_institutions_share_far_fewer_surface_forms_than_patients_of_one_do(
    notes: dict[str, tuple[Document, ...]],
) -> None:
    def half(documents: tuple[Document, ...], parity: int) -> set[Surface]:
        kept = [d for d in documents if int((d.patient_id or "")[-4:]) % 2 == parity]
        return set(_surfaces(tuple(kept)))

    within = [_overlap(half(d, 0), half(d, 1)) for d in notes.values()]
    across = [
        _overlap(half(notes[one], 0), half(notes[other], 1))
        for one, other in itertools.permutations(NAMES, 2)
    ]
    assert min(within) > 0.3
    assert max(across) < 0.15


def test_words_of_entities_are_elsewhere_no_entity(
    notes: dict[str, tuple[Document, ...]],
) -> None:
    """The task is more than a look-up: some terms also stand unmarked."""
    documents = tuple(itertools.chain(*notes.values()))
    everything = " ".join(d.text.casefold() for d in documents)
    marked = Counter(surface for surface, _ in _surfaces(documents))
    for term in ("iron", "discharge", "depression", "stroke", "cold", "potassium", "ms"):
        assert 0 < marked[term] < len(re.findall(rf"\b{term}\b", everything))


def test_the_fifth_institution_has_another_specialty_and_style_combined() -> None:
    names = tuple(f"h{i}" for i in range(8))
    parts = generate_notes(_options(names, patients=2))
    assert parts["h0"][0].text.splitlines()[1].startswith("PMH")
    assert parts["h4"][0].text.startswith("Dear colleague")
    assert all(parts.values())


def test_the_lexicon_has_several_hundred_terms_of_each_kind() -> None:
    for label in LABELS:
        assert sum(len(pool(name)[label]) for name in (*SPECIALTIES, SHARED)) > 300


def test_styles_cover_every_kind_of_sentence_they_plan() -> None:
    for style in STYLES.values():
        kinds = {kind for section in style.sections for kind in section.kinds}
        assert kinds - {"trap"} <= set(style.templates)
        assert "again" in style.templates


@pytest.mark.parametrize(
    "changes",
    [
        {"institutions": ()},
        {"institutions": ("a", "a")},
        {"institutions": ("a", "")},
        {"patients_per_institution": 0},
        {"notes_per_patient": (0, 2)},
        {"notes_per_patient": (3, 2)},
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object]) -> None:
    options: dict[str, object] = {
        "institutions": NAMES,
        "patients_per_institution": 2,
        "notes_per_patient": (1, 2),
        "seed": 1,
    }
    with pytest.raises(DataError):
        SyntheticOptions(**(options | changes))  # type: ignore[arg-type]


GOLDEN = "235a519f95a7350583225531b8410f0f933662e3b4bd4b163771c92ec60777ee"
"""SHA-256 of two patients at each of five institutions; changes with any template or term."""
