"""Writes one synthetic note: plans the sentences, fills the templates, joins the sections."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from common.data.distractors import FILLERS, KINDS_OF_WORDS, NUMBERS, TRAPS, words
from common.data.draws import Draws
from common.data.lexicon import DISEASE, LABELS, MEDICATION, SHARED, SYMPTOM, Term
from common.data.note_styles import Section, Style
from common.data.records import Document, span

_PIECE = re.compile(r"\{(\w+)\}|<([dsm]):([^>]+)>")
_LABEL = {"d": DISEASE, "s": SYMPTOM, "m": MEDICATION}
_FROM = (("own", 0.72), ("shared", 0.9), ("other", 1.0))
"""Cumulative chances of the pool that a term is drawn from."""
_OTHER_SEX = {
    True: re.compile("prostat|scrot|seminoma"),
    False: re.compile("ovar|endometr|vagin|menopaus|pelvic inflammatory|cervical .*(oma|tumour)"),
}


@dataclass(frozen=True, slots=True)
class Institution:
    """A name with its specialty, its style and the terms it uses, by source and label."""

    name: str
    specialty: str
    style: Style
    terms: Mapping[str, Mapping[str, tuple[Term, ...]]]


@dataclass(frozen=True, slots=True)
class Patient:
    """Whom a note is about; the history holds the terms that all notes share, by label."""

    patient_id: str
    age: int
    female: bool
    history: Mapping[str, tuple[Term, ...]]


@dataclass(frozen=True, slots=True)
class _Text:
    """A piece of text with its entities as (start, end, label)."""

    text: str
    marks: tuple[tuple[int, int, str], ...] = ()

    def __add__(self, other: "_Text") -> "_Text":
        shift = len(self.text)
        moved = tuple((start + shift, end + shift, label) for start, end, label in other.marks)
        return _Text(self.text + other.text, self.marks + moved)


def any_term(home: Institution, label: str, female: bool, draws: Draws) -> Term:
    """A term from one of the institution's sources that the patient's sex allows.

    Terms early in a source are drawn more often: the first third gets half of the draws.
    """
    while True:
        place = draws.uniform()
        source = next(source for source, limit in _FROM if place < limit)
        terms, x = home.terms[source][label], draws.uniform()
        term = terms[int(len(terms) * x * math.sqrt(x))]
        if not _OTHER_SEX[female].search(term.forms[0]):
            return term


def write_note(home: Institution, patient: Patient, visit: int, draws: Draws) -> Document:
    """The note of the patient's `visit`, counted from 1, with its gold entities."""
    return _Writer(home, patient, visit, draws).note()


class _Writer:
    """The state of one note being written: what was used, and the terms still to come."""

    def __init__(self, home: Institution, patient: Patient, visit: int, draws: Draws):
        self._home = home
        self._patient = patient
        self._visit = visit
        self._draws = draws
        self._style = home.style
        self._queues: dict[str, list[Term]] = {label: [] for label in LABELS}
        self._last: dict[str, Term] = {}
        self._used: set[str] = set()

    def note(self) -> Document:
        text = _Text("")
        for section, sentences in self._plan():
            text = text + _Text("\n" if text.text else "") + self._join(section, sentences)
        return Document(
            doc_id=f"{self._patient.patient_id}-n{self._visit}",
            text=text.text,
            entities=tuple(span(*mark) for mark in text.marks),
            patient_id=self._patient.patient_id,
        )

    def _plan(self) -> list[tuple[Section, list[_Text]]]:
        """The sections and their sentences, one more at a time while the note is short."""
        kept = [s for s in self._style.sections if s.chance == 1 or self._draws.chance(s.chance)]
        plan = [(s, [self._sentence(kind) for kind in s.kinds]) for s in kept]
        wanted = self._draws.between(*self._style.min_words)
        while sum(len(t.text.split()) for _, texts in plan for t in texts) < wanted:
            section, texts = self._draws.pick(plan[1:])
            texts.append(self._sentence(self._draws.pick(section.kinds)))
        return plan

    def _join(self, section: Section, sentences: list[_Text]) -> _Text:
        text = _Text(section.heading) + sentences[0]
        for sentence in sentences[1:]:
            text = text + _Text(self._style.separator) + sentence
        return text

    def _sentence(self, kind: str) -> _Text:
        if kind == "open" and self._visit > 1 and self._draws.chance(0.85):
            kind = "again"
        templates = TRAPS[self._source(0.6)] if kind == "trap" else self._style.templates[kind]
        template = self._fresh(templates)
        if not self._style.full_stops:
            template = template.rstrip(".")
        return _cased(self._filled(template), self._style)

    def _source(self, own: float) -> str:
        return self._home.specialty if self._draws.chance(own) else SHARED

    def _fresh(self, options: tuple[str, ...]) -> str:
        """One that this note has not used, while there is one."""
        left = tuple(option for option in options if option not in self._used) or options
        chosen = self._draws.pick(left)
        self._used.add(chosen)
        return chosen

    def _filled(self, template: str) -> _Text:
        text, end = _Text(""), 0
        for piece in _PIECE.finditer(template):
            text = text + _Text(template[end : piece.start()])
            slot, fixed, word = piece.groups()
            text = text + (_entity(word, fixed) if fixed else self._slot(slot))
            end = piece.end()
        return text + _Text(template[end:])

    def _slot(self, slot: str) -> _Text:
        if slot in _LABEL:
            return _entity(self._form(self._next(_LABEL[slot])), slot)
        if slot[1:] in _LABEL and slot[0] == "o":
            term = any_term(self._home, _LABEL[slot[1:]], self._patient.female, self._draws)
            return _entity(self._form(term), slot[1:])
        return _Text(self._filler(slot))

    def _next(self, label: str) -> Term:
        """The patient's terms in turn, never the same twice running."""
        if not self._queues[label]:
            self._queues[label] = self._draws.shuffled(self._patient.history[label])
            if self._queues[label][-1] == self._last.get(label):
                self._queues[label].reverse()
        self._last[label] = self._queues[label].pop()
        return self._last[label]

    def _form(self, term: Term) -> str:
        others = term.forms[1:]
        if others and self._draws.chance(self._style.short_forms):
            return self._draws.pick(others)
        return term.forms[0]

    def _filler(self, slot: str) -> str:
        if slot == "test":
            return self._filler("lab").rpartition(" ")[0]
        if slot in KINDS_OF_WORDS:
            return self._fresh(words(self._source(0.7), slot))
        if slot == "freq":
            return self._draws.pick(self._style.frequencies)
        if slot in ("relative", "companion"):
            return self._fresh(FILLERS[slot])
        if slot in FILLERS:
            return self._draws.pick(FILLERS[slot])
        return _PERSONAL[slot](self._patient) if slot in _PERSONAL else self._number(slot)

    def _number(self, slot: str) -> str:
        low, high = NUMBERS[slot]
        number = str(self._draws.between(low, high))
        return f"{number[:-1]}.{number[-1]}" if slot == "temp" else number


_PERSONAL: Mapping[str, Callable[[Patient], str]] = {
    "age": lambda patient: str(patient.age),
    "he": lambda patient: "she" if patient.female else "he",
    "his": lambda patient: "her" if patient.female else "his",
    "sex": lambda patient: "F" if patient.female else "M",
    "sexletter": lambda patient: "f" if patient.female else "m",
    "person": lambda patient: "woman" if patient.female else "man",
}


def _entity(text: str, slot: str) -> _Text:
    return _Text(text, ((0, len(text), _LABEL[slot]),))


def _cased(sentence: _Text, style: Style) -> _Text:
    """The sentence in the style's letter case; its length stays."""
    text = sentence.text
    if style.casing == "lower":
        return _Text(text.lower(), sentence.marks)
    for start, end, label in sentence.marks:
        if style.casing == "upper_medication" and label == MEDICATION:
            text = text[:start] + text[start:end].upper() + text[end:]
        elif style.casing == "title_disease" and label == DISEASE:
            text = text[:start] + _titled(text[start:end]) + text[end:]
    return _Text(text[0].upper() + text[1:], sentence.marks)


def _titled(words_: str) -> str:
    return " ".join(w if w in ("of", "the") else w[0].upper() + w[1:] for w in words_.split(" "))
