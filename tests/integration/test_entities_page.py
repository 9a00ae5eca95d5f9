"""`fedner predict --to html`: what a note says is text, and the page can be read by anyone."""

from html.parser import HTMLParser

import pytest

from common.data.records import Document, span
from scripts.highlight import NOT_A_DEVICE
from scripts.reporting.entities_page import COLOURS, INK, entities_page
from tests.browser import PAGE, browsed, needs_chromium
from tests.contrast import contrast

LABELS = ("Disease", "Symptom")
HOSTILE = (
    "fever </p><script>document.title='owned'</script><img src=/stolen onerror=alert(1)> "
    "{{ 7*7 }} &lt;b&gt; \x00\x1b[2J"
)
NOTICES = (
    "PRIVACY: NONE. The model may reveal its training records.",
    "ROSTER: NOT IN THE STUDY. \x1b",
)


@pytest.fixture(scope="module")
def page():
    note = Document(doc_id="<i>note</i>", text=HOSTILE, entities=(span(0, 5, "Symptom"),))
    return entities_page([note], LABELS, "a study", NOTICES)


class Reader(HTMLParser):
    """Tags, attributes, and the text of what is marked."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.marked, self.text = [], [], [], ""
        self._in_mark = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "mark":
            self._in_mark = True
            self.marked.append("")

    def handle_endtag(self, tag):
        self._in_mark = self._in_mark and tag != "mark"

    def handle_data(self, data):
        self.text += data
        if self._in_mark:
            self.marked[-1] += data


def test_each_entity_is_marked_with_its_labels_name(page):
    assert Reader(page).marked == ["0 Disease", "1 Symptom", "fever Symptom"]


def test_a_hostile_note_is_text_and_never_markup(page):
    read = Reader(page)
    assert not {"script", "img", "i", "b"} & set(read.tags)
    assert "</p><script>document.title='owned'</script>" in read.text
    assert "{{ 7*7 }} &lt;b&gt; \u2400\u241b[2J" in read.text
    assert "\x1b" not in page
    assert not [a for a in read.attributes if a[1].startswith("on")]


def test_the_page_says_what_it_is_and_what_it_is_not(page):
    read = Reader(page)
    assert ("html", "lang", "en") in read.attributes
    assert ("p", "lang", "") in read.attributes
    assert NOT_A_DEVICE in read.text
    assert page.index(NOTICES[0]) < page.index("fever") < page.index(NOTICES[1][:-1] + "\u241b")
    assert "default-src 'none'" in page
    assert "url(" not in page


def test_text_stands_out_from_what_lies_behind_it():
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)
    for light, dark in COLOURS:
        assert contrast(INK, light) >= 4.5
        assert contrast("#ffffff", dark) >= 4.5


def test_labels_beyond_the_colours_are_marked_too():
    many = tuple(f"L{i}" for i in range(len(COLOURS) + 1))
    note = Document(doc_id="n", text="ab", entities=(span(0, 2, many[-1]),))
    assert f"ab {many[-1]}" in Reader(entities_page([note], many, "s", ())).marked


@needs_chromium
def test_a_browser_runs_nothing_of_a_note_and_asks_for_nothing(page, tmp_path):
    shown, asked = browsed(page, tmp_path)
    assert asked == [PAGE]
    assert "<title>Entities found by a study</title>" in shown
    assert "owned" in shown


@needs_chromium
def test_a_page_that_asks_others_is_found_out(tmp_path):
    """A control of the test above, and of the report's: hosts, loopback, TLS, sockets."""
    greedy = (
        "<!doctype html><title>x</title><link rel=icon href='data:,'>"
        "<link rel=stylesheet href=http://style.invalid/a><img src=https://picture.invalid/b>"
        "<script>fetch('http://foreign.invalid/c'); fetch('http://127.0.0.1:8000/d');"
        "new WebSocket('ws://socket.invalid/e'); navigator.sendBeacon('http://beacon.invalid/f')"
        "</script><img src=/own.png>"
    )
    _, asked = browsed(greedy, tmp_path)
    assert sorted(set(asked)) == sorted([
        PAGE, PAGE.replace("page.html", "own.png"), "http://style.invalid/a",
        "picture.invalid:443", "http://foreign.invalid/c", "http://127.0.0.1:8000/d",
        "socket.invalid:80", "http://beacon.invalid/f",
    ])  # fmt: skip
