"""Synthetic clinical notes of several institutions, with gold spans.

Nobody in them exists. Labels are `Disease`, `Symptom`, `Medication`. Annotation rules:
    * Every mention counts: negated, uncertain, of relatives, in abbreviated form.
    * Inside the span: qualifiers (acute, chronic), side and site (`left calf swelling`,
      `swelling of the left calf`). Outside: severity (`severe`), doses, frequencies.
    * No entity: procedures, anatomy, laboratory values (`iron 6`, `lithium level 0.8`), devices,
      clinics and staff (`stroke unit`, `epilepsy nurse`), and look-alikes (`ST depression`).

Guarantees:
    1. The same options give the same notes everywhere; an institution's notes depend on its
       name, its place in `institutions` and the seed, and a patient's notes on nothing else.
    2. Entities are contiguous, disjoint, and free of line breaks and of blanks at either end.
    3. All notes of a patient share one history, worded anew in each note.

The institution's place sets its specialty and style; from the fifth on they combine anew. Each
institution knows only a part of the lexicon; across institutions most of it is covered.
"""

from dataclasses import dataclass

from common.data.draws import Draws
from common.data.lexicon import (
    DISEASE,
    LABELS,
    MEDICATION,
    SHARED,
    SPECIALTIES,
    SYMPTOM,
    Term,
    pool,
)
from common.data.note_styles import STYLES
from common.data.note_writer import Institution, Patient, any_term, write_note
from common.data.records import Document
from common.errors import DataError

_HISTORY_SIZE = {DISEASE: (2, 4), SYMPTOM: (3, 6), MEDICATION: (3, 5)}
_KNOWN = {"own": 0.75, "shared": 0.6, "other": 0.1}
"""The part of its own, the shared and the other specialties' terms an institution uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticOptions:
    """What to generate.

    Attributes:
        institutions: their names, used in the ids; at least one, all different.
        patients_per_institution: at least 1.
        notes_per_patient: fewest and most, both included.
        seed: of every draw.

    Raises:
        DataError: an option out of range.
    """

    institutions: tuple[str, ...]
    patients_per_institution: int
    notes_per_patient: tuple[int, int]
    seed: int

    def __post_init__(self) -> None:
        names = self.institutions
        if not names or not all(names) or len(set(names)) != len(names):
            raise DataError("institutions need different, non-empty names")
        if self.patients_per_institution < 1:
            raise DataError(f"need 1 patient or more, got {self.patients_per_institution}")
        low, high = self.notes_per_patient
        if not 1 <= low <= high:
            raise DataError(f"notes_per_patient must be 1 <= low <= high, got {low}, {high}")


def generate_notes(options: SyntheticOptions) -> dict[str, tuple[Document, ...]]:
    """Notes by institution, in the order of patients and visits."""
    return {
        name: tuple(_institution_notes(_institution(options, index), options))
        for index, name in enumerate(options.institutions)
    }


def _institution(options: SyntheticOptions, index: int) -> Institution:
    """The specialty cycles; the style is its own in the first cycle and shifts with each."""
    name, count = options.institutions[index], len(SPECIALTIES)
    specialty = SPECIALTIES[index % count]
    style = STYLES[SPECIALTIES[(index + index // count) % count]]
    others = [other for other in SPECIALTIES if other != specialty]
    sources = {"own": [specialty], "shared": [SHARED], "other": others}
    terms = {
        source: {label: _known(options.seed, name, source, names, label) for label in LABELS}
        for source, names in sources.items()
    }
    return Institution(name, specialty, style, terms)


def _known(
    seed: int, name: str, source: str, specialties: list[str], label: str
) -> tuple[Term, ...]:
    """The terms in use, in an order of the institution's own, the composed ones last."""
    terms = [term for specialty in specialties for term in pool(specialty)[label]]
    draws = Draws(seed, "terms", name, source, label)
    known = draws.sample(terms, round(len(terms) * _KNOWN[source]))
    return tuple(sorted(known, key=lambda term: term.composed))


def _institution_notes(home: Institution, options: SyntheticOptions) -> list[Document]:
    notes: list[Document] = []
    for number in range(1, options.patients_per_institution + 1):
        draws = Draws(options.seed, "patient", home.name, number)
        patient = _patient(home, number, draws)
        visits = draws.between(*options.notes_per_patient)
        for visit in range(1, visits + 1):
            fresh = Draws(options.seed, "note", patient.patient_id, visit)
            notes.append(write_note(home, patient, visit, fresh))
    return notes


def _patient(home: Institution, number: int, draws: Draws) -> Patient:
    age, female = draws.between(19, 91), draws.chance(0.5)
    history: dict[str, tuple[Term, ...]] = {}
    for label, size in _HISTORY_SIZE.items():
        wanted = draws.between(*size)
        found: dict[Term, None] = {}
        while len(found) < wanted:
            found[any_term(home, label, female, draws)] = None
        history[label] = tuple(found)
    patient_id = f"{home.name}-p{number:04d}"
    return Patient(patient_id, age, female, history)
