"""Takes checks out of a copy of the tree, one at a time, and runs the test that then has to fail.

A check whose text does not stand in its file exactly once, whose replacement is no Python, or whose
test does not pass untouched, is an error: nothing is said of checks that were not really taken out.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cryptography.hazmat.primitives.ciphers.aead
import cryptography.hazmat.primitives.kdf.hkdf  # noqa: F401
import numpy as np  # noqa: F401
import opacus  # noqa: F401
import peft  # noqa: F401
import pydantic.dataclasses  # noqa: F401
import pytest
import torch  # noqa: F401
import transformers  # noqa: F401
import yaml  # noqa: F401

_ROOT = Path(__file__).parents[2]
_COPIED = ("common", "client", "server", "tests", "scripts", "configs", "pyproject.toml")


@dataclass(frozen=True)
class Check:
    """One check: `text` in `file` becomes `without`; `test` then has to fail.

    Attributes:
        file: from the root; without a folder, in `common/secagg`.
    """

    name: str
    file: str
    text: str
    without: str
    test: str

    @property
    def path(self) -> str:
        """From the root."""
        return self.file if "/" in self.file else f"common/secagg/{self.file}"


def remove_each(checks: Sequence[Check], tests: Sequence[str], argv: list[str], prog: str) -> int:
    """Take each check out, print a table, and return 1 if one was not missed.

    Args:
        tests: files, from the root, in which each check's test stands once.
        argv: `--only WORD`, `--part I/N`.
        prog: the name of the command.
    """
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--only", default="", help="checks whose name or test holds this word")
    parser.add_argument("--part", default="1/1", help="of the checks, as in 2/3, for several cores")
    options = parser.parse_args(argv)
    only, (part, parts) = options.only, map(int, options.part.split("/"))
    chosen = [check for check in checks if only in check.name or only in check.test]
    chosen = chosen[part - 1 :: parts]
    print(f"{len(chosen)} checks\n\n| check | file | test | outcome |\n|---|---|---|---|")
    survived = 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = _copy(Path(scratch))
        _require_sound(tree, chosen, tests)
        for check in chosen:
            caught = _caught(tree, check, tests)
            survived += not caught
            outcome = "caught" if caught else "SURVIVED"
            print(f"| {check.name} | {check.file} | {check.test} | {outcome} |", flush=True)
    print(f"\n{len(chosen) - survived} caught, {survived} survived")
    return 1 if survived else 0


def _copy(scratch: Path) -> Path:
    tree = scratch / "tree"
    tree.mkdir()
    for name in _COPIED:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    return tree


def _require_sound(tree: Path, chosen: list[Check], files: Sequence[str]) -> None:
    for check in chosen:
        found = (tree / check.path).read_text().count(check.text)
        if found != 1:
            raise SystemExit(f"{check.name}: its text stands {found} times in {check.path}")
        text = (tree / check.path).read_text().replace(check.text, check.without)
        compile(text, check.path, "exec")  # else every test would "catch" it
    for file in files:
        names = sorted({c.test for c in chosen if _file_of(tree, c.test, files) == file})
        if names and not _passes(tree, file, names):
            raise SystemExit(f"{file} fails before anything is removed")


def _file_of(tree: Path, test: str, files: Sequence[str]) -> str:
    for file in files:
        if f"def {test}(" in (tree / file).read_text():
            return file
    raise SystemExit(f"{test} stands in none of {', '.join(files)}")


def _caught(tree: Path, check: Check, files: Sequence[str]) -> bool:
    path = tree / check.path
    text = path.read_text()
    path.write_text(text.replace(check.text, check.without))
    try:
        return not _passes(tree, _file_of(tree, check.test, files), [check.test])
    finally:
        path.write_text(text)


def _passes(tree: Path, file: str, tests: list[str]) -> bool:
    """Whether the tests pass, in a forked child, for which this process has imported the rest.

    Anything but passing and failing ends the run.
    """
    output = tree.parent / "output"
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = _run_tests(tree, output, [f"{file}::{test}" for test in tests])
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise SystemExit(f"{tests}: exit status {code}\n{output.read_text()[-2000:]}")
    return code == 0


def _run_tests(tree: Path, output: Path, tests: list[str]) -> int:
    """pytest's exit status; the tree's own packages are imported here and nowhere else."""
    with output.open("w") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    os.chdir(tree)
    for name in [name for name in sys.modules if name.split(".")[0] in _COPIED]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() != _ROOT)]
    sys.dont_write_bytecode = True
    # what was imported ahead, pytest has no chance to rewrite
    ignored = "ignore::pytest.PytestAssertRewriteWarning"
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-W", ignored, *tests]))
