"""Markdown pages of this repository, as GitHub shows them."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_PARSER = MarkdownIt("commonmark").enable("table")


class Link(NamedTuple):
    """Attributes:
    line: of the block that it stands in; from 1.
    target: as it is written.
    text: of the link; empty for an image.
    """

    line: int
    target: str
    text: str


class Heading(NamedTuple):
    """Attributes:
    text: as it is written, with its marks.
    anchor: what a link to it ends with.
    """

    line: int
    level: int
    text: str
    anchor: str


class Fence(NamedTuple):
    """Attributes:
    line: where its text begins; from 1.
    info: what stands after the opening marks; of an indented block, nothing.
    """

    line: int
    info: str
    text: str


class Page:
    """One page.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text("utf-8")

    @property
    def name(self) -> str:
        """From the root of the repository, if it lies there."""
        inside = self.path.is_relative_to(ROOT)
        return str(self.path.relative_to(ROOT)) if inside else self.path.name

    @cached_property
    def tokens(self) -> list[Token]:
        """Blocks of the page."""
        return _PARSER.parse(self.text)

    @cached_property
    def links(self) -> list[Link]:
        """Links and images, in order."""
        return [link for block in self.tokens if block.children for link in _links(block)]

    @cached_property
    def headings(self) -> list[Heading]:
        """Headings, in order; of two alike the second's anchor ends with `-1`."""
        seen = Counter[str]()
        found = []
        for opening, content in zip(self.tokens, self.tokens[1:], strict=False):
            if opening.type == "heading_open":
                anchor = _anchor("".join(t.content for t in content.children or ()))
                number, seen[anchor] = seen[anchor], seen[anchor] + 1
                anchor += f"-{number}" if number else ""
                level = int(opening.tag[1:])
                found.append(Heading(_line(opening), level, content.content, anchor))
        return found

    @cached_property
    def fences(self) -> list[Fence]:
        """Blocks of code, in order."""
        return [
            Fence(_line(token) + (token.type == "fence"), token.info.strip(), token.content)
            for token in self.tokens
            if token.type in ("fence", "code_block")
        ]


def pages() -> list[Page]:
    """README, what stands beside it, and all below docs/."""
    found = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    return [Page(path) for path in found]


def _links(block: Token) -> Iterator[Link]:
    target, text = "", ""
    for token in block.children or ():
        if token.type == "image":
            yield Link(_line(block), str(token.attrs["src"]), "")
        elif token.type == "link_open":
            target, text = str(token.attrs["href"]), ""
        elif token.type == "link_close":
            yield Link(_line(block), target, text)
        else:
            text += token.content


def _line(token: Token) -> int:
    return (token.map or [0])[0] + 1


def _anchor(text: str) -> str:
    """As GitHub makes it: lower case, blanks to hyphens, and no other marks but `-` and `_`."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
