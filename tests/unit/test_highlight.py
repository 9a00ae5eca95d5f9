"""Entities in their text, in a terminal: nothing is lost, and nothing in a note is obeyed."""

import io

import pytest
from rich.console import Console

from common.data.records import Document, Entity, span
from common.errors import DataError
from scripts.highlight import highlighted, legend, pieces, visible

LABELS = ("Disease", "Symptom")


def document(text, *entities):
    return Document(doc_id="d", text=text, entities=entities)


def printed(text, width=40, **options):
    console = Console(file=io.StringIO(), width=width, emoji=False, **options)
    console.print(text)
    return console.file.getvalue()


def test_pieces_are_the_whole_text_in_order():
    found = list(pieces(document("no fever, flu", span(3, 8, "Symptom"), span(10, 13, "Disease"))))
    assert "".join(piece for piece, _ in found) == "no fever, flu"
    assert [p for p in found if p[1]] == [("fever", "Symptom"), ("flu", "Disease")]


@pytest.mark.parametrize(
    "entities",
    [
        (span(0, 4, "Symptom"), span(3, 6, "Disease")),
        (Entity(((0, 2), (4, 6)), "Disease"),),
    ],
)
def test_entities_that_are_not_flat_are_refused_with_their_document(entities):
    with pytest.raises(DataError, match="highlighted") as refused:
        highlighted(document("abcdef", *entities), LABELS)
    assert (refused.value.place, bool(refused.value.remedy)) == ("d", True)


def test_without_colour_boundaries_and_label_are_there_to_read():
    shown = printed(highlighted(document("no fever", span(3, 8, "Symptom")), LABELS))
    assert shown == "no [fever|Symptom]\n"


def test_with_colour_each_label_has_its_own():
    note = document("flu, fever", span(0, 3, "Disease"), span(5, 10, "Symptom"))
    options = {"force_terminal": True, "color_system": "standard", "no_color": False}
    shown = printed(highlighted(note, LABELS), **options)
    assert "\x1b[1;7;36m[flu|Disease]\x1b[0m, \x1b[1;7;33m[fever|Symptom]\x1b[0m" in shown
    assert "\x1b[1;7;36mDisease\x1b[0m 1" in printed(legend([note], LABELS), **options)


def test_long_lines_are_broken_between_words_and_line_ends_stay():
    text = "one two three four five six\nseven"
    shown = printed(highlighted(document(text), LABELS), width=12)
    assert [line.rstrip() for line in shown.splitlines()] == [
        "one two", "three four", "five six", "seven",
    ]  # fmt: skip


def test_what_looks_like_markup_is_text():
    assert (
        printed(highlighted(document("[red]x[/red] :smile:"), LABELS)) == "[red]x[/red] :smile:\n"
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\x1b[2Jb", "a\u241b[2Jb"),
        ("a\x07\x08\x00\x7f", "a\u2407\u2408\u2400\u2421"),
        ("a\x9b2Jb", "a\ufffd2Jb"),
        ("a\u202eb\u2066c", "a\ufffdb\ufffdc"),
        ("one\rtwo\r\nthree", "one\u240dtwo\nthree"),
        ("\u2028\ud800", "\ufffd\ufffd"),
        ("tab\tand\nline, naïve \u200c 漢", "tab\tand\nline, naïve \u200c 漢"),
    ],
)
def test_no_control_reaches_the_terminal(given, shown):
    assert visible(given) == shown
    note = document(given, span(0, 1, "Disease"))
    assert highlighted(note, LABELS).plain == f"[{shown[0]}|Disease]{shown[1:]}"
    assert all(c.isprintable() or c in "\n\u200c" for c in printed(highlighted(note, LABELS)))


def test_labels_that_were_not_found_are_in_the_legend():
    note = document("flu", span(0, 3, "Disease"))
    assert legend([note, note], LABELS).plain == "found: Disease 2, Symptom 0"
