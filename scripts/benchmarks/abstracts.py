"""Synthetic sentences in the manner of abstracts on hereditary disease, with the diseases marked.

Nobody stands behind them: frames of our own (`frames.txt`), filled with public names
(`scripts.benchmarks.ontology`). Frames and word lists were written from general knowledge, and
added to twice after looking at the errors of a first start on NCBI-Disease's development set, which
is so treated as public; its training and test sets were not read for them.

A name in braces is a slot; `{X}` is an abbreviation by itself, the same one for the same number
within a frame. What a frame or a word list names as a disease in its own words stands in square
brackets: a tumour, what somebody lacks, a disorder named by its inheritance or by what it affects.
A `disease` or `disorder` that is only described (`rare disease`, `allelic disorders`, `the
disease`) is no name, and is not marked.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from common.data.records import Document, Entity, span
from scripts.benchmarks.ontology import Lexicon, names_a_disease

_DISEASE: Final = "Disease"
_SENTENCES_A_DOCUMENT: Final = 20
_WORD: Final = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
_SLOT: Final = re.compile(r"(\{[A-Z]+[0-9]?\})")
_BRACKET: Final = re.compile(r"([\[\]])")
WORDS: Final = Path(__file__).with_name("words.txt")
FRAMES: Final = Path(__file__).with_name("frames.txt")

Words = list[str]
Sentence = tuple[Words, list[tuple[int, int]]]
"""Words, and the range of words of each disease."""


def synthetic_abstracts(lexicon: Lexicon, sentences: int, seed: int) -> Iterator[Document]:
    """Filled frames, 20 sentences to a document."""
    rng = random.Random(f"fedner abstracts v1/{seed}")
    writer = Writer(lexicon, rng)
    every = frames()
    filled = [writer.fill(rng.choice(every)) for _ in range(sentences)]
    yield from _documents("abstract", filled)


def frames() -> list[str]:
    """All frames."""
    return [line for line in FRAMES.read_text("utf-8").splitlines() if line]


def marked_prose(lexicon: Lexicon, sentences: int, seed: int) -> Iterator[Document]:
    """The ontology's own sentences that name a disease, the longest names marked."""
    names = _Names.of(lexicon)
    found = [s for text in lexicon.prose if (s := names.mark(_WORD.findall(text))) is not None]
    random.Random(f"fedner prose v1/{seed}").shuffle(found)
    yield from _documents("prose", found[:sentences])


def _documents(stem: str, sentences: Sequence[Sentence]) -> Iterator[Document]:
    for number, at in enumerate(range(0, len(sentences), _SENTENCES_A_DOCUMENT)):
        yield _document(f"{stem}-{number}", sentences[at : at + _SENTENCES_A_DOCUMENT])


def _document(name: str, sentences: Sequence[Sentence]) -> Document:
    lines: list[str] = []
    bounds: list[tuple[int, int]] = []
    tokens: list[tuple[tuple[int, int], ...]] = []
    entities: list[Entity] = []
    offset = 0
    for words, diseases in sentences:
        places = []
        at = offset
        for word in words:
            places.append((at, at + len(word)))
            at += len(word) + 1
        entities += [span(places[a][0], places[b - 1][1], _DISEASE) for a, b in diseases]
        lines.append(" ".join(words))
        tokens.append(tuple(places))
        bounds.append((offset, at - 1))
        offset = at
    return Document(
        doc_id=name,
        text="\n".join(lines),
        entities=tuple(entities),
        sentences=tuple(bounds),
        tokens=tuple(tokens),
    )


class _Line:
    """A sentence as it is written."""

    def __init__(self) -> None:
        self._words: Words = []
        self._diseases: list[tuple[int, int]] = []
        self._opened = 0

    @property
    def sentence(self) -> Sentence:
        return self._words, self._diseases

    def mark(self, name: str) -> None:
        """A disease's name."""
        self._open()
        self._words += _WORD.findall(name)
        self._close()

    def write(self, text: str) -> None:
        """Other text; what stands in square brackets is a disease."""
        for piece in _BRACKET.split(text):
            if piece == "[":
                self._open()
            elif piece == "]":
                self._close()
            else:
                self._words += _WORD.findall(piece)

    def _open(self) -> None:
        self._opened = len(self._words)

    def _close(self) -> None:
        self._diseases.append((self._opened, len(self._words)))


class Writer:
    """Fills frames.

    Args:
        rng: every choice comes from it.
    """

    def __init__(self, lexicon: Lexicon, rng: random.Random):
        self._rng = rng
        self._lexicon = lexicon
        self._lists = _word_lists()
        self._enzymes = [
            n.removesuffix(" deficiency") for n in lexicon.diseases if n.endswith(" deficiency")
        ]
        self._marked: dict[str, Callable[[], str]] = {
            "D": self._disease,
            "DEF": self._deficiency,
            "CDEF": lambda: f"{self._enzyme()}-deficient",
            "COMP": self._composite,
            "TUM": lambda: rng.choice(("tumor", "tumor", "tumour")),
        }
        self._plain: dict[str, Callable[[], str]] = {
            "G": self._gene,
            "GA": lambda: f"{' '.join(self._some('PARTS', 3))} ({self._gene()})",
            "N": lambda: str(rng.randint(2, rng.choice((60, 999)))),
            "PC": lambda: f"{rng.uniform(1, 99):.1f}%",
            "AA": self._variant_name,
            "CHR": lambda: (
                f"{rng.choice([*map(str, range(1, 23)), 'X'])}{rng.choice('pq')}"
                f"{rng.randint(11, 28)}{rng.choice(('', '.1', '.3'))}"
            ),
        }

    def fill(self, frame: str) -> Sentence:
        """A frame with names in its slots."""
        line = _Line()
        short: dict[str, str] = {}
        for piece in _SLOT.split(frame):
            if piece.startswith("{"):
                self._fill_slot(line, piece, short)
            else:
                line.write(piece)
        return line.sentence

    def _fill_slot(self, line: "_Line", piece: str, short: dict[str, str]) -> None:
        slot = piece.strip("{}0123456789")
        number = piece.strip("{}").removeprefix(slot)
        if slot == "A":
            name = self._long_name()
            short[number] = self._abbreviation(name)
            line.mark(name)
            line.write("(")
            line.mark(short[number])
            line.write(")")
        elif slot == "X":
            line.mark(short.setdefault(number, self._short_name()))
        elif slot in self._marked:
            line.mark(self._marked[slot]())
        elif slot in self._plain:
            line.write(self._plain[slot]())
        else:
            line.write(self._one(slot))

    def _one(self, name: str) -> str:
        return self._rng.choice(self._lists[name])

    def _some(self, name: str, n: int) -> list[str]:
        return self._rng.sample(self._lists[name], n)

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _disease(self) -> str:
        kind = self._rng.choices(
            ("rare", "organ", "neoplasm", "phenotype", "common"), (42, 14, 12, 12, 20)
        )
        if kind == ["rare"]:
            return self._variant(self._rng.choice(self._lexicon.diseases))
        if kind == ["organ"]:
            return self._tumour()
        if kind == ["common"]:
            return self._one("COMMON")
        names = self._lexicon.neoplasms if kind == ["neoplasm"] else self._lexicon.phenotypes
        return self._rng.choice(names)

    def _tumour(self) -> str:
        organ = self._one("ORGAN")
        if self._chance(0.22):
            organ += f" {self._rng.choice(('and', 'or'))} {self._one('ORGAN')}"
        prefix = f"{self._one('ORIGIN')} " if self._chance(0.3) else ""
        return f"{prefix}{organ} {self._one('TUMOUR')}"

    def _composite(self) -> str:
        first, second, third = self._some("ORGAN", 3)
        joined = self._rng.choice(
            (f"{first} and {second}",) * 5
            + (f"{first} or {second}", f"{first}, {second}, and {third}", f"{first}/{second}")
        )
        return f"{joined} {self._one('TUMOUR')}"

    def _variant(self, name: str) -> str:
        if name.endswith((" syndrome", " disease")) and self._chance(0.25):
            name += "s" if self._chance(0.5) else ""
        if re.match(r"[A-Z][a-z]+ (disease|syndrome)", name) and self._chance(0.5):
            name = name.replace(" ", "'s ", 1)
        if self._chance(0.06):
            return f"type {self._one('TYPE')} {name}"
        if self._chance(0.05):
            return f"{name} type {self._one('TYPE')}"
        if self._chance(0.06):
            return f"{self._one('KIND')} {name}"
        return name

    def _long_name(self) -> str:
        while True:
            rare = self._chance(0.75)
            name = (
                self._variant(self._rng.choice(self._lexicon.diseases)) if rare else self._tumour()
            )
            if 2 <= len(name.split()) <= 5:
                return name

    def _short_name(self) -> str:
        return self._one("SHORT") if self._chance(0.5) else self._abbreviation(self._long_name())

    def _abbreviation(self, name: str) -> str:
        parts = [
            p
            for p in re.split(r"[ \-/]", name)
            if p and p not in {"and", "of", "with", "the", "or", "type"}
        ]
        letters = "".join(part[0] for part in parts).upper()
        letters = letters if len(letters) > 1 else name[:3].upper()
        if self._chance(0.12):
            letters += self._rng.choice(("1", "2", "I", "X"))
        if self._chance(0.15):
            letters = f"{letters[0]}-{letters[1:]}"
        return (
            letters[: self._rng.choice((2, 3, 4))]
            if len(letters) > 4 and self._chance(0.5)
            else letters
        )

    def _enzyme(self) -> str:
        kind = self._rng.choices(("enzyme", "gene", "complement"), (70, 15, 15))
        if kind == ["enzyme"]:
            return self._rng.choice(self._enzymes)
        return (
            self._gene() if kind == ["gene"] else f"complement component {self._rng.randint(1, 9)}"
        )

    def _deficiency(self) -> str:
        enzyme, degree = self._enzyme(), self._one("DEGREE")
        forms = (
            f"{enzyme} deficiency",
            f"{enzyme} deficiency",
            f"deficiency of {enzyme}",
            f"{degree} {enzyme} deficiency",
            f"{degree} deficiency of {enzyme}",
            f"{self._rng.choice(('reduced', 'diminished', 'absent'))} {enzyme} activity",
            f"{enzyme} and {self._enzyme()} deficiency",
            f"{enzyme} ({self._abbreviation(enzyme)}) deficiency",
        )
        return self._rng.choice(forms)

    def _gene(self) -> str:
        symbol = self._rng.choice(self._lexicon.genes)
        return symbol.lower() if self._chance(0.05) else symbol

    def _variant_name(self) -> str:
        if self._chance(0.5):
            before, after = self._some("RESIDUE", 2)
            return f"{before}{self._rng.randint(10, 1900)}{after}"
        return f"{self._rng.randint(100, 6200)}{self._one('CHANGE')}"


def _word_lists() -> dict[str, list[str]]:
    """`NAME: word; word; …`, one list a line."""
    lines = (line.split(": ", 1) for line in WORDS.read_text("utf-8").splitlines() if line)
    return {name: [word.strip() for word in words.split(";")] for name, words in lines}


class _Names:
    """Disease names by their first word, lower case."""

    def __init__(self, names: Sequence[tuple[str, ...]]):
        self._known = set(names)
        self._longest: dict[str, int] = defaultdict(int)
        for name in names:
            self._longest[name[0]] = max(self._longest[name[0]], len(name))

    @classmethod
    def of(cls, lexicon: Lexicon) -> "_Names":
        common = _word_lists()["COMMON"]
        every = (*lexicon.diseases, *lexicon.neoplasms, *lexicon.phenotypes, *common)
        split = [tuple(_WORD.findall(name.lower())) for name in every]
        kept = [name for name in split if names_a_disease(name)]
        return cls([*kept, *((*name[:-1], f"{name[-1]}s") for name in kept)])

    def mark(self, words: Words) -> Sentence | None:
        """Leftmost longest names; `None` if there is none, or a sentence of odd length."""
        if not 6 <= len(words) <= 80:
            return None
        lower = [word.lower() for word in words]
        found: list[tuple[int, int]] = []
        at = 0
        while at < len(words):
            end = self._end(lower, at)
            if end:
                found.append((at, end))
            at = end or at + 1
        return (words, found) if found else None

    def _end(self, words: Words, at: int) -> int:
        most = min(self._longest.get(words[at], 0), len(words) - at)
        return next(
            (at + n for n in range(most, 0, -1) if tuple(words[at : at + n]) in self._known), 0
        )
