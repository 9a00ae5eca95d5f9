"""Every `fedner` command in README.md and docs/ is one that the command line takes."""

from pathlib import Path

import pytest

from tests.commands import fault, mentioned, typed

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_WHOLE = ("Missing ", "requires an argument")
"""A verb or an option alone, as prose names them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_type_is_taken(page):
    text = page.read_text("utf-8")
    faults = [f"{page.name}:{line}: fedner {' '.join(words)}: {why}"
              for line, words in typed(text) if (why := fault(words))]  # fmt: skip
    faults += [f"{page.name}:{line}: fedner {' '.join(words)}: {why}"
               for line, words in mentioned(text)
               if (why := fault(words)) and not any(part in why for part in NOT_WHOLE)]  # fmt: skip
    assert not faults, "\n".join(faults)


def test_the_pages_have_the_commands_of_every_role():
    lines = [" ".join(words) for page in PAGES for _, words in typed(page.read_text("utf-8"))]
    for verb in ("provision", "enrol request", "enrol approve", "roster pin", "policy check",
                 "doctor", "client", "server", "log verify", "budget show", "health"):  # fmt: skip
        assert any(line.startswith(verb) for line in lines), verb
    assert len(lines) > 80


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("fedner enrol revoke north", "Missing option '--federation'"),
        ("    fedner doctor site.yaml --nowhere x", "No such option"),
        ("fedner enrol forget north", "no verb forget"),
        ('for s in a b; do fedner client "$s" --sides x & done', "No such option"),
        ("A=1 /opt/bin/fedner config check a \\\n  b   # c", "unexpected extra argument"),
    ],
)
def test_a_wrong_command_is_found(line, why):
    (found,) = typed(f"text\n\n```\n{line}\n```\n")
    assert why in fault(found.words)


def test_what_a_here_document_holds_is_not_typed():
    assert list(typed("```sh\ncat > a <<'END'\nfedner nothing\nEND\n```\n")) == []
