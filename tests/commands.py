"""Commands that pages tell people to type, read as a shell would, and held against the real CLI."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import click
from typer.main import get_command

from scripts.cli import app

_END = re.compile(r"<<'?(\w+)'?")
_APART = set(";&|()")
_INLINE = re.compile(r"`fedner\s+([^`]+)`")
_DOMAIN = re.compile(r" v\d")


class Typed(NamedTuple):
    """Attributes:
    line: of the page; from 1.
    words: after `fedner`.
    """

    line: int
    words: list[str]


def typed(text: str, *, markdown: bool = True) -> Iterator[Typed]:
    """What stands in fences, and on indented lines that begin with `fedner`; of a text that is not
    Markdown, on all lines that do.
    """
    begins = re.compile(r"(    |\$ )\s*fedner " if markdown else r"\s*fedner ")
    for number, line in _shell_lines(text, begins):
        for words in _simple_commands(line):
            if words[:1] and words[0].rsplit("/", 1)[-1] == "fedner":
                yield Typed(number, words[1:])


def mentioned(text: str) -> Iterator[Typed]:
    """What stands in backticks; without the names of signatures' domains."""
    for found in _INLINE.finditer(text):
        said = " ".join(found[1].split())
        if not _DOMAIN.search(said):
            yield Typed(text.count("\n", 0, found.start()) + 1, shlex.split(said))


def fault(words: list[str]) -> str:
    """Why the CLI refuses these words; empty if it takes them. Nothing is carried out."""
    command = get_command(app)
    with click.Context(command) as parent:
        try:
            while isinstance(command, click.Group):
                if not words:
                    return "" if command.name else "no verb"
                found = command.get_command(parent, words[0])
                if found is None:
                    return "" if words == ["--help"] else f"no verb {words[0]}"
                command, words = found, words[1:]
            command.make_context("fedner", list(words))
        except click.UsageError as error:
            return error.format_message()
        except click.exceptions.Exit:
            return ""
    return ""


def _shell_lines(text: str, begins: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Numbered lines, joined where one goes on; without what here-documents hold."""
    inside, end, begun, kept = False, "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
            continue
        if end:
            end = "" if line == end else end
        elif inside or kept or begins.match(line):
            begun = begun if kept else number
            kept += line.removesuffix("\\")
            if line.endswith("\\"):
                continue
            found = _END.search(kept)
            end = found[1] if found and inside else ""
            yield begun, kept
            kept = ""


def _simple_commands(line: str) -> Iterator[list[str]]:
    """Between `;`, `&`, `|` and brackets; without redirections, optional brackets and prompts."""
    lexer = shlex.shlex(re.sub(r"[\[\]]", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:  # of a language that is no shell's
        return
    command: list[str] = []
    for token in [*tokens, ";"]:
        if set(token) <= _APART:
            yield _bare(command)
            command = []
        else:
            command.append(token)


def _bare(command: list[str]) -> list[str]:
    cut = next((n for n, word in enumerate(command) if set(word) <= set("<>")), len(command))
    words = command[:cut]
    while words and (words[0] in {"do", "then", "$", "exec"} or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    return words
