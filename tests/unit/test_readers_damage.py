"""Every kind of damage gives a `DataError` with its place, and no message quotes the text."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.brat import parse_brat
from common.data.conll import (
    ConllOptions,
    parse_conll,
    parse_documents_table,
)
from common.data.jsonl import parse_jsonl
from common.data.pubtator import parse_pubtator
from common.errors import DataError
from common.io.corpus import load_documents, parse_patients_table

CONLL = (
    "-DOCSTART- doc=d1 patient=p1\n\n"
    "Zorblax\tB-K\nquimper\tI-K\nvextol\tO\n\n"
    "Drumpel\tO\nfnordik\tB-K\n\n"
    "-DOCSTART- doc=d2\n\n"
    "Plumbus\tO\n\n"
)
IOBES = CONLL.replace("I-K", "E-K").replace("fnordik\tB-K", "fnordik\tS-K")
IOB1 = CONLL.replace("Zorblax\tB-K", "Zorblax\tI-K").replace("fnordik\tB-K", "fnordik\tI-K")
UNMARKED = CONLL.split("\n\n", 1)[1].replace("-DOCSTART- doc=d2\n\n", "")
TABLE = "d1\t0\t2\nd2\t2\t1\n"
PATIENTS = "d1\tp1\nd2\tp2\n"
TEXT = "Zorblax quimper vextol.\nDrumpel fnordik\n"
ANN = (
    "T1\tK 0 7\tZorblax\n"
    "T2\tK 0 7;16 22\tZorblax vextol\n"
    "E1\tK:T1 \n"
    "R1\tMOD Arg1:T1 Arg2:T2\n"
    "A1\tNeg T1\n"
    "#1\tAnnotatorNotes T1\tplumbus\n"
    "*\tEquiv T1 T2\n"
)
PUBTATOR = (
    "11|t|Zorblax quimper\n11|a|Drumpel fnordik vextol\n"
    "11\t0\t7\tZorblax\tK\tD1\n11\t16\t23\tDrumpel\tK\tD2\n11\tCID\tD1\tD2\n\n"
    "12|t|Plumbus\n12|a|gromflit\n12\t0\t7\tPlumbus\tK\tD3\n"
)
RECORD = {
    "doc_id": "d1",
    "patient_id": "p1",
    "text": "Zorblax quimper",
    "entities": [
        {"label": "K", "start": 0, "end": 7},
        {"label": "K", "fragments": [[0, 3], [8, 15]]},
    ],
    "sentences": [[0, 15]],
    "tokens": [[[0, 7], [8, 15]]],
}
JSONL = json.dumps(RECORD) + "\n" + json.dumps({**RECORD, "doc_id": "d2"}) + "\n"

READERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "conll": (CONLL, lambda text: parse_conll(text, "f", ConllOptions())),
    "tabs": (CONLL.replace(" ", "\t"), lambda t: parse_conll(t, "f", ConllOptions(delimiter="\t"))),
    "iobes": (IOBES, lambda text: parse_conll(text, "f", ConllOptions(scheme="iobes"))),
    "iob1": (IOB1, lambda text: parse_conll(text, "f", ConllOptions(scheme="iob1"))),
    "unmarked": (
        UNMARKED,
        lambda text: parse_conll(
            text, "f", ConllOptions(documents=parse_documents_table(TABLE, "t"))
        ),
    ),
    "table": (TABLE, lambda text: parse_documents_table(text, "f")),
    "patients": (PATIENTS, lambda text: parse_patients_table(text, "f")),
    "brat": (ANN, lambda text: parse_brat(TEXT, text, "f")),
    "text": (TEXT, lambda text: parse_brat(text, ANN, "f")),
    "pubtator": (PUBTATOR, lambda text: parse_pubtator(text, "f")),
    "jsonl": (JSONL, lambda text: parse_jsonl(text, "f")),
}
WORDS = {word.lower() for word in re.findall("[A-Za-z]{6,}", TEXT + PUBTATOR + CONLL)} - {
    "docstart",
    "patient",
}


def swap(old: str, new: str) -> Callable[[str], str]:
    """Damage that replaces the first `old`."""

    def damage(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return damage


def record(**changes: object) -> Callable[[str], str]:
    """Damage that changes keys of the first record; `...` removes one."""
    changed = {key: value for key, value in {**RECORD, **changes}.items() if value is not ...}
    return lambda _: json.dumps(changed) + "\n"


def entity(**keys: object) -> Callable[[str], str]:
    return record(entities=[{"label": "K", **keys}])


DAMAGE: list[tuple[str, str, Callable[[str], str], str]] = [
    ("conll", "byte order mark", lambda text: "\ufeff" + text, "f:1"),
    ("conll", "NUL", swap("quimper", "qui\0mper"), "f:4"),
    ("conll", "no label", swap("quimper\tI-K", "quimper"), "f:4"),
    ("conll", "no label on the first token", swap("Zorblax\tB-K", "Zorblax"), "f:3"),
    ("conll", "a column too many", swap("quimper\tI-K", "quimper\tNN\tI-K"), "f:4"),
    ("conll", "unknown prefix", swap("I-K", "X-K"), "f:4"),
    ("conll", "words in the tag column", swap("quimper\tI-K", "I-K\tquimper"), "f:4"),
    ("conll", "prefix without dash", swap("I-K", "IK"), "f:4"),
    ("conll", "prefix alone", swap("I-K", "I"), "f:4"),
    ("conll", "empty label", swap("I-K", "I-"), "f:4"),
    ("conll", "lower-case outside", swap("vextol\tO", "vextol\to"), "f:5"),
    ("conll", "stray I at the start", swap("Zorblax\tB-K", "Zorblax\tI-K"), "f:3"),
    ("conll", "stray I after O", swap("fnordik\tB-K", "fnordik\tI-K"), "f:8"),
    ("conll", "I of another type", swap("I-K", "I-L"), "f:4"),
    ("conll", "blank line in an entity", swap("quimper", "\nquimper"), "f:5"),
    ("conll", "IOBES tag in IOB2", swap("B-K", "S-K"), "f:3"),
    ("conll", "escape in a token", swap("quimper", "qui\x1bmper"), "f:4"),
    ("conll", "line separator in a token", swap("quimper", "qui\u2028mper"), "f:4"),
    ("conll", "CR in a line", swap("quimper\t", "quim\rper\t"), "f:4"),
    ("conll", "first mark lost", swap("-DOCSTART- doc=d1 patient=p1", ""), "f:3"),
    ("conll", "mark with words", swap("doc=d2", "Plumbus vextol"), "f:10"),
    ("conll", "mark with a third key", swap("doc=d2", "doc=d2 patient=p2 ward=gromflit"), "f:10"),
    ("conll", "mark with an empty id", swap("doc=d2", "doc="), "f:10"),
    ("conll", "mark with an unprintable id", swap("doc=d2", "doc=a%0Ab"), "f:10"),
    ("conll", "mark with a broken escape", swap("doc=d2", "doc=%FF"), "f:10"),
    ("conll", "document id twice", swap("doc=d2", "doc=d1"), "f:10"),
    ("tabs", "spaces for tabs", swap("quimper\tI-K", "quimper I-K"), "f:4"),
    ("tabs", "empty token", swap("quimper\tI-K", "\tI-K"), "f:4"),
    ("tabs", "empty tag", swap("quimper\tI-K", "quimper\t"), "f:4"),
    ("tabs", "line of blanks", swap("\n\nDrumpel", "\n \nDrumpel"), "f:6"),
    ("iobes", "E without B", swap("B-K", "O"), "f:4"),
    ("iobes", "entity that O ends", swap("E-K", "I-K"), "f:5"),
    ("iobes", "entity that the sentence ends", swap("S-K", "B-K"), "f:8"),
    ("iobes", "B in an entity", swap("E-K", "B-K"), "f:4"),
    ("iobes", "E of another type", swap("E-K", "E-L"), "f:4"),
    ("iob1", "B after O", swap("fnordik\tI-K", "fnordik\tB-K"), "f:8"),
    ("iob1", "B at the start", swap("Zorblax\tI-K", "Zorblax\tB-K"), "f:3"),
    ("unmarked", "a sentence too few", swap("\n\nDrumpel", "\nDrumpel"), "f"),
    ("unmarked", "a sentence too many", swap("Drumpel\tO", "Drumpel\tO\n"), "f"),
    ("unmarked", "no sentences", lambda _: "", "f"),
    ("unmarked", "marks and a table", lambda _: CONLL, "f:1"),
    ("table", "two fields", swap("\t2\n", "\n"), "f:1"),
    ("table", "four fields", swap("\t2\n", "\t2\tx\n"), "f:1"),
    ("table", "gap", swap("d2\t2", "d2\t3"), "f:2"),
    ("table", "overlap", swap("d2\t2", "d2\t1"), "f:2"),
    ("table", "not from zero", swap("d1\t0", "d1\t1"), "f:1"),
    ("table", "no sentences", swap("\t1\n", "\t0\n"), "f:2"),
    ("table", "negative", swap("\t1\n", "\t-1\n"), "f:2"),
    ("table", "word for a number", swap("\t1\n", "\tvextol\n"), "f:2"),
    ("table", "number of another script", swap("\t1\n", "\t١\n"), "f:2"),
    ("table", "very long number", swap("\t1\n", f"\t{'1' * 5000}\n"), "f:2"),
    ("table", "id twice", swap("d2", "d1"), "f:2"),
    ("table", "empty id", swap("d2", ""), "f:2"),
    ("table", "blank line", swap("\n", "\n\n"), "f:2"),
    ("patients", "one field", swap("\tp1", ""), "f:1"),
    ("patients", "three fields", swap("\tp1", "\tp1\tp2"), "f:1"),
    ("patients", "document twice", swap("d2", "d1"), "f:2"),
    ("patients", "empty patient", swap("p2", ""), "f:2"),
    ("patients", "blanks around", swap("p2", " p2"), "f:2"),
    ("brat", "byte order mark", lambda text: "\ufeff" + text, "f:1"),
    ("brat", "two fields", swap("\tZorblax\n", "\n"), "f:1"),
    ("brat", "spaces for tabs", lambda text: text.replace("\t", " "), "f:1"),
    ("brat", "unknown id", swap("E1", "Vextol1"), "f:3"),
    ("brat", "id without number", swap("T2\t", "T\t"), "f:2"),
    ("brat", "id twice", swap("T2\t", "T1\t"), "f:2"),
    ("brat", "event id twice", swap("R1\t", "E1\t"), "f:4"),
    ("brat", "line with an id only", swap("A1\tNeg T1", "A1\t"), "f:5"),
    ("brat", "broken line", swap("Zorblax vextol", "Zorblax\nvextol"), "f:2"),
    ("brat", "no label", swap("K 0 7\t", " 0 7\t"), "f:1"),
    ("brat", "no offsets", swap("K 0 7\t", "K\t"), "f:1"),
    ("brat", "one offset", swap("K 0 7\t", "K 0\t"), "f:1"),
    ("brat", "three offsets", swap("K 0 7\t", "K 0 7 8\t"), "f:1"),
    ("brat", "comma between fragments", swap(";", ","), "f:2"),
    ("brat", "empty fragment", swap("0 7\t", "7 7\t"), "f:1"),
    ("brat", "reversed fragment", swap("0 7\t", "7 0\t"), "f:1"),
    ("brat", "negative offset", swap("0 7\t", "-1 7\t"), "f:1"),
    ("brat", "offset beyond the text", swap("0 7\t", "0 700\t"), "f:1"),
    ("brat", "fragments out of order", swap("0 7;16 22", "16 22;0 7"), "f:2"),
    ("brat", "overlapping fragments", swap("0 7;16 22", "0 7;6 22"), "f:2"),
    ("brat", "shifted offsets", swap("0 7\t", "1 8\t"), "f:1"),
    ("brat", "another surface", swap("\tZorblax\n", "\tGromflit\n"), "f:1"),
    ("text", "byte order mark", lambda text: "\ufeff" + text, "f.txt:1"),
    ("text", "NUL", swap("Drumpel", "\0rumpel"), "f.txt:2"),
    ("text", "a character too many", lambda text: " " + text, "f:1"),
    ("text", "CRLF before an entity", lambda text: "\r\n" + text, "f:1"),
    ("text", "cut short", lambda text: text[:10], "f:2"),
    ("text", "empty", lambda _: "", "f:1"),
    ("pubtator", "byte order mark", lambda text: "\ufeff" + text, "f:1"),
    ("pubtator", "no abstract", swap("11|a|Drumpel fnordik vextol\n", ""), "f:2"),
    ("pubtator", "title alone", lambda text: text + "\n13|t|Vextol", "f:11"),
    ("pubtator", "no title", swap("11|t|Zorblax quimper\n", ""), "f:1"),
    ("pubtator", "abstract of another", swap("11|a|", "12|a|"), "f:2"),
    ("pubtator", "empty id", swap("11|t|", "|t|"), "f:1"),
    ("pubtator", "no blank line", swap("\n\n", "\n"), "f:6"),
    ("pubtator", "blank line in a document", swap("vextol\n", "vextol\n\n"), "f:4"),
    ("pubtator", "mention of another", swap("11\t0", "12\t0"), "f:3"),
    ("pubtator", "four fields", swap("\tZorblax\tK\tD1", "\tZorblax"), "f:3"),
    ("pubtator", "eight fields", swap("\tD1\n", "\tD1\t1\t2\n"), "f:3"),
    ("pubtator", "tab in the surface", swap("\tZorblax\t", "\tZor\tblax\t"), "f:3"),
    ("pubtator", "spaces for tabs", swap("11\t0\t7\t", "11 0 7 "), "f:3"),
    ("pubtator", "word for an offset", swap("11\t0\t7", "11\tvextol\t7"), "f:3"),
    ("pubtator", "reversed offsets", swap("11\t0\t7", "11\t7\t0"), "f:3"),
    ("pubtator", "offset beyond the text", swap("11\t16\t23", "11\t16\t2300"), "f:4"),
    ("pubtator", "shifted offset", swap("11\t16\t23", "11\t15\t22"), "f:4"),
    ("pubtator", "leading blank", swap("\tZorblax", "\t Zorblax"), "f:3"),
    ("pubtator", "empty type", swap("\tK\tD1", "\t\tD1"), "f:3"),
    ("pubtator", "id twice", lambda text: text.replace("12", "11"), "f:7"),
    ("jsonl", "byte order mark", lambda text: "\ufeff" + text, "f:1"),
    ("jsonl", "cut short", lambda text: text[:-5], "f:2"),
    ("jsonl", "blank line", swap("\n", "\n\n"), "f:2"),
    ("jsonl", "two objects on a line", swap("\n", " "), "f:1"),
    ("jsonl", "no object", lambda _: '["Zorblax"]', "f:1"),
    ("jsonl", "a word", lambda _: "Zorblax", "f:1"),
    ("jsonl", "NaN", swap('"start": 0', '"start": NaN'), "f:1"),
    ("jsonl", "key twice", swap('"doc_id"', '"text": "vextol", "doc_id"'), "f:1"),
    ("jsonl", "entity key twice", swap('"start"', '"end": 7, "start"'), "f:1"),
    ("jsonl", "very long number", swap('"start": 0', f'"start": {"1" * 5000}'), "f:1"),
    ("jsonl", "very deep", lambda _: "[" * 100_000, "f:1"),
    ("jsonl", "document id twice", swap('"d2"', '"d1"'), "f:2"),
    ("jsonl", "unknown key", record(vextol="gromflit"), "f:1"),
    ("jsonl", "no text", record(text=...), "f:1"),
    ("jsonl", "no entities", record(entities=...), "f:1"),
    ("jsonl", "text of another type", record(text=["Zorblax"]), "f:1"),
    ("jsonl", "NUL in the text", record(text="Zorblax\0quimper"), "f:1"),
    ("jsonl", "half a surrogate pair", record(text="Zorblax\ud800uimper"), "f:1"),
    ("jsonl", "number as document id", record(doc_id=1), "f:1"),
    ("jsonl", "empty document id", record(doc_id=""), "f:1"),
    ("jsonl", "null as patient", record(patient_id=None), "f:1"),
    ("jsonl", "entities as object", record(entities={}), "f:1"),
    ("jsonl", "entity as list", record(entities=[["K", 0, 7]]), "f:1"),
    ("jsonl", "entity without end", entity(start=0), "f:1"),
    ("jsonl", "both forms of an entity", entity(start=0, end=7, fragments=[[0, 7]]), "f:1"),
    ("jsonl", "no fragments", entity(fragments=[]), "f:1"),
    ("jsonl", "overlapping fragments", entity(fragments=[[0, 7], [6, 9]]), "f:1"),
    ("jsonl", "fragment of three", entity(fragments=[[0, 7, 9]]), "f:1"),
    ("jsonl", "float offset", entity(start=0.0, end=7), "f:1"),
    ("jsonl", "boolean offset", entity(start=False, end=7), "f:1"),
    ("jsonl", "offset beyond the text", entity(start=0, end=16), "f:1"),
    ("jsonl", "empty entity", entity(start=7, end=7), "f:1"),
    ("jsonl", "label with a blank", entity(label="Zorblax quimper", start=0, end=7), "f:1"),
    ("jsonl", "label of another type", entity(label=3, start=0, end=7), "f:1"),
    ("jsonl", "sentence beyond the text", record(sentences=[[0, 99]]), "f:1"),
    ("jsonl", "overlapping sentences", record(sentences=[[0, 9], [8, 15]]), "f:1"),
    ("jsonl", "tokens without sentences", record(sentences=...), "f:1"),
    ("jsonl", "token rows missing", record(tokens=[]), "f:1"),
    ("jsonl", "tokens not nested", record(tokens=[[0, 7]]), "f:1"),
    ("jsonl", "token twice", record(tokens=[[[0, 7], [0, 7]]]), "f:1"),
]


def check_message(error: DataError) -> None:
    words = set(re.findall("[a-z]{6,}", str(error).lower()))
    assert not words & WORDS


@pytest.mark.parametrize("reader", READERS)
def test_the_undamaged_file_is_read(reader: str) -> None:
    text, parse = READERS[reader]
    assert parse(text)


@pytest.mark.parametrize(
    ("reader", "damage", "place"),
    [pytest.param(r, damage, place, id=f"{r}-{kind}") for r, kind, damage, place in DAMAGE],
)
def test_damage_is_refused_with_its_place_and_without_the_text(
    reader: str, damage: Callable[[str], str], place: str
) -> None:
    text, parse = READERS[reader]
    with pytest.raises(DataError) as caught:
        parse(damage(text))
    found = caught.value.place
    assert found == place or (found or "").startswith(f"{place}:text")
    check_message(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


PIECES = st.sampled_from(
    [
        *'\t \n\r-|;09{[",:*%é\0\ufeff\u2028\ud800\x85',
        *("", "\r\n", "99999999999", "B-", "I-K", "T1", "null"),
    ]
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def data_error_of(call: Callable[[], object]) -> DataError | None:
    """The error, `None` if there is a result; any other exception passes."""
    try:
        call()
    except DataError as error:
        return error
    return None


@pytest.mark.parametrize("reader", READERS)
@QUICK
@given(data=st.data())
def test_random_damage_gives_a_result_or_a_data_error(reader: str, data: st.DataObject) -> None:
    text, parse = READERS[reader]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([0, 0, 1, 1, 5, 40]))
        text = text[:at] + data.draw(PIECES) + text[at + length :]
    if data.draw(st.booleans()):
        text = "\n".join(data.draw(st.permutations(text.split("\n"))))
    if error := data_error_of(lambda: parse(text)):
        assert error.place
        check_message(error)


@pytest.mark.parametrize("format", ["conll", "pubtator", "jsonl"])
@QUICK
@given(data=st.data())
def test_random_bytes_in_a_file_give_a_result_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject
) -> None:
    raw = bytearray(READERS[format][0].encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"fuzz-{format}"
    path.write_bytes(raw)
    if error := data_error_of(lambda: load_documents(path, format)):
        assert (error.place or "").startswith(str(path))
        check_message(error)
