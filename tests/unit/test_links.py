"""Links within the repository lead somewhere, and README leads to every page."""

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.pages import ROOT, Page, pages

PAGES = pages()


def broken(page):
    """What of its links to files and headings leads nowhere."""
    for link in page.links:
        parts = urlsplit(link.target)
        if parts.scheme or parts.netloc:
            continue
        file = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        if not file.exists():
            yield f"{page.name}:{link.line}: {link.target}: no such file"
        elif page.path.is_relative_to(ROOT) and not file.is_relative_to(ROOT):
            yield f"{page.name}:{link.line}: {link.target}: outside of the repository"
        elif parts.fragment and not _has(file, parts.fragment):
            yield f"{page.name}:{link.line}: {link.target}: no such heading"


def _has(file, anchor):
    return file.suffix == ".md" and anchor in _anchors(file, file.stat().st_mtime_ns)


@cache
def _anchors(file, _written):
    return {heading.anchor for heading in Page(file).headings}


def reached(start):
    """All pages that links lead to from one, itself included."""
    found, waiting = set(), [start.resolve()]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        targets = (urlsplit(link.target) for link in Page(path).links)
        waiting += [
            file
            for parts in targets
            if not parts.netloc and parts.path.endswith(".md")
            and (file := (path.parent / parts.path).resolve()).exists()
        ]  # fmt: skip
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    faults = list(broken(page))
    assert not faults, "\n".join(faults)


def test_every_page_is_reached_from_the_readme():
    at_readme = reached(ROOT / "README.md")
    missing = [page.name for page in PAGES if page.path not in at_readme]
    assert not missing, missing


def test_every_image_is_shown_somewhere():
    shown = {(page.path.parent / link.target).resolve() for page in PAGES for link in page.links}
    images = [path for path in (ROOT / "docs" / "images").iterdir() if path.suffix != ".md"]
    assert images
    assert not [path.name for path in images if path not in shown]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](gone.md)", "gone.md: no such file"),
        ("![a](gone.svg)", "gone.svg: no such file"),
        ("[a](other.md#nowhere)", "other.md#nowhere: no such heading"),
        ("[a](#here)\n\n# There", "#here: no such heading"),
        ("| a |\n|---|\n| [b](gone.md) |", "gone.md: no such file"),
        ("[a][b]\n\n[b]: gone.md", "gone.md: no such file"),
    ],
)
def test_a_link_to_nowhere_is_found(tmp_path, text, fault):
    (tmp_path / "other.md").write_text("# Some where\n")
    (tmp_path / "page.md").write_text(text)
    (found,) = broken(Page(tmp_path / "page.md"))
    assert found.endswith(fault)


def test_headings_have_the_anchors_that_github_makes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# What `fedner log` says: a, b\n## Two-sided (x_y)\n## Again\n## Again\nUnder\n-----\n"
        "```\n# no heading\n[no](link.md)\n```\n"
        "[a](#again-1) <https://example.org/#x> `[b](c.md)`\n"
    )
    anchors = [heading.anchor for heading in Page(page).headings]
    assert anchors == ["what-fedner-log-says-a-b", "two-sided-x_y", "again", "again-1", "under"]
    assert list(broken(Page(page))) == []
    assert Page(Path(page)).fences[0].line == 8
