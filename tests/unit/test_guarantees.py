"""docs/guarantees.md names a test for each guarantee, and every test that a page names exists."""

import re

import pytest

from tests.documented import known_tests
from tests.pages import ROOT, Page, pages

PAGE = Page(ROOT / "docs" / "guarantees.md")
NAMED = re.compile(r"`(test_\w+)`")
FILES = sorted((ROOT / "tests").rglob("test_*.py"))


def promises(page):
    """Each item of a list between the headings `Guarantees` and `Not promised`: lines, links."""
    begins = {heading.text: heading.line for heading in page.headings}
    for token in page.tokens:
        if token.type != "list_item_open":
            continue
        first, last = token.map
        if begins["Guarantees"] < first < begins["Not promised"]:
            yield first + 1, [link for link in page.links if first < link.line <= last]


def faults(page):
    for line, links in promises(page):
        tests = [link for link in links if "tests/" in link.target]
        if not tests:
            yield f"{page.name}:{line}: a promise without a test"
        for link in tests:
            path = (page.path.parent / link.target).resolve()
            here = known_tests(path) if path.is_file() else {}
            if link.text not in here:
                yield f"{page.name}:{line}: {link.target} has no {link.text}"
            elif here[link.text] != (f"[`{link.text}`]({link.target}) (slow)" in page.text):
                yield f"{page.name}:{line}: `(slow)` stands after slow tests alone: {link.text}"


def test_every_guarantee_links_to_a_test_that_is_there():
    assert len(list(promises(PAGE))) > 40
    found = list(faults(PAGE))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("- **Nothing leaves.**", "a promise without a test"),
        ("- **Nothing.** [`test_b`](tests/test_x.py)", "has no test_b"),
        ("- **Nothing.** [`test_a`](tests/test_y.py)", "has no test_a"),
        ("- **Nothing.** [`test_a`](tests/test_x.py)", "slow"),
    ],
)
def test_a_guarantee_without_its_test_is_found(tmp_path, item, fault):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("@pytest.mark.slow\ndef test_a(): pass\n")
    page = tmp_path / "docs.md"
    page.write_text(f"# Guarantees\n\n{item}\n\n# Not promised\n\n- x\n")
    (found,) = faults(Page(page))
    assert fault in found


@pytest.mark.parametrize(
    "page",
    [page for page in pages() if page.path.stem != "configuration"],
    ids=lambda page: page.name,
)
def test_every_test_that_a_page_names_is_there(page):
    known = {path.stem for path in FILES} | {name for path in FILES for name in known_tests(path)}
    missing = sorted(set(NAMED.findall(page.text)) - known)
    assert not missing, missing
