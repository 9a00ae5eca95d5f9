"""Every command in README.md and docs/ is one that the command line takes, and a test runs it."""

import argparse
import ast
import contextlib
import importlib
import io
import re
import shlex

import pytest

import scripts.benchmarks as benchmarks
from tests.commands import fault, mentioned, typed
from tests.documented import ELSEWHERE, PARSED_ONLY, blocks, known_tests, runner
from tests.pages import ROOT, Page, pages

PAGES = [page for page in pages() if page.name.startswith(("README", "docs/"))]
NOT_WHOLE = ("Missing ", "requires an argument")
"""A verb or an option alone, as prose names them."""
BENCH = re.compile(r"scripts/bench ([a-z]\S*)((?: +[^ #<>|]\S*)*)")
OURS = re.compile(r"(?<![\w./~$-])(?:configs|scripts|tests|docs)/[\w./*-]+")


class TakenError(Exception):
    """A benchmark's options were taken."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_type_is_taken(page):
    faults = [f"{page.name}:{line}: fedner {' '.join(words)}: {why}"
              for line, words in typed(page.text) if (why := fault(words))]  # fmt: skip
    faults += [f"{page.name}:{line}: fedner {' '.join(words)}: {why}"
               for line, words in mentioned(page.text)
               if (why := fault(words)) and not any(part in why for part in NOT_WHOLE)]  # fmt: skip
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in PARSED_ONLY],
                         ids=lambda page: page.name)  # fmt: skip
def test_a_test_runs_each_command_of_a_page(page):
    blocks(page)  # who types each is known
    unrun = [f"{page.name}:{line}: fedner {' '.join(words)}" for line, words in typed(page.text)
             if runner(" ".join(words)) is None]  # fmt: skip
    remedy = "write ```sh above it, or name its test in tests/documented.py"
    assert not unrun, "\n".join([remedy, *unrun])


def test_what_is_run_elsewhere_is_on_a_page_and_its_test_is_there():
    said = [found for page in PAGES for found in (*typed(page.text), *mentioned(page.text))]
    commands = {" ".join(words) for _, words in said}
    for command, test in ELSEWHERE.items():
        file, _, name = test.partition("::")
        assert name in known_tests(ROOT / "tests" / file), test
        assert command in commands, command
        source = (ROOT / "tests" / file).read_text("utf-8")
        assert all(word in source for word in command.split() if word[:2] == "--"), command
    assert {page.name for page in PAGES} >= PARSED_ONLY.keys()


def test_the_pages_have_the_commands_of_every_role():
    lines = [" ".join(words) for page in PAGES for _, words in typed(page.text)]
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


def test_a_command_that_nothing_runs_is_found():
    assert runner("data inspect site.yaml") == "page"
    assert runner("health relay.yaml --side relay") == ELSEWHERE["health relay.yaml --side relay"]
    assert runner("server --resume RUN --federation federation") is None
    assert runner("watch runs/RUN --once") is None
    assert runner("data inspect another.yaml") is None
    assert runner("server --resumed RUN") is None


def bench_fault(name, options):
    """Why a benchmark refuses these options; empty if it takes them. Nothing is measured."""
    module = f"{benchmarks.__name__}.{name.replace('-', '_')}"
    said = io.StringIO()
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser, argv=None, namespace=None):
        parse(parser, argv, namespace)
        raise TakenError

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        try:
            importlib.import_module(module).main(shlex.split(options, comments=True))
        except TakenError:
            return ""
        except ModuleNotFoundError as error:
            return f"no benchmark {name}" if error.name == module else ""  # of an extra
        except SystemExit:
            return said.getvalue()
    return "takes no options"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_take_their_options(page):
    text = "\n".join(fence.text for fence in page.fences)
    faults = [f"{page.name}: {found[0]}: {why}" for found in BENCH.finditer(text)
              if (why := bench_fault(found[1], found[2]))]  # fmt: skip
    assert not faults, "\n".join(faults)


def test_a_wrong_option_of_a_benchmark_is_found():
    assert "unrecognized" in bench_fault("message", "--client 1 --nothing")
    assert bench_fault("message", "--clients 1") == ""
    assert bench_fault("massage", "") == "no benchmark massage"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_ours_that_a_page_names_are_there(page):
    words = [found[0].rstrip(".") for found in OURS.finditer(page.text)]
    missing = [word for word in words if ".local." not in word and not list(ROOT.glob(word))]
    assert not missing, missing


def test_python_on_a_page_compiles_and_imports_what_there_is():
    text = "\n".join(fence.text for page in PAGES for fence in page.fences)
    found = re.findall(r"python - <<'END'\n(.*?)\nEND", text, re.DOTALL)
    found += re.findall(r'python -c "\n(.*?)"\n', text, re.DOTALL)
    assert len(found) > 2
    for code in found:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), node.module


def test_a_page_is_read_as_it_is_shown(tmp_path):
    (tmp_path / "a.md").write_text("```sh nobody\nfedner\n```\n")
    with pytest.raises(Exception, match="nobody"):
        blocks(Page(tmp_path / "a.md"))
