"""Each check that a mutation takes out stands where its row says, once, and so does its test."""

from pathlib import Path

import pytest

from scripts.benchmarks import policy_mutations, secagg_mutations

ROOT = Path(__file__).parents[2]
ROWS = [*secagg_mutations.CHECKS, *secagg_mutations.REFUSALS, *policy_mutations.CHECKS]
TESTS = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))


@pytest.mark.parametrize("file", sorted({row.path for row in ROWS}))
def test_what_a_row_takes_out_stands_in_its_file_once(file: str) -> None:
    text = (ROOT / file).read_text()
    for row in ROWS:
        if row.path == file:
            assert text.count(row.text) == 1, row.name


def test_the_test_that_has_to_fail_is_there() -> None:
    for row in ROWS:
        assert f"def {row.test.split('[')[0]}(" in TESTS, row.name
