"""The bench of a private step: every case runs, and each peak is of a process of its own."""

import argparse
import re

import pytest

from scripts.benchmarks import dp_step
from scripts.benchmarks.dp_step import VARIANTS, Case, Peak, default_cases

SMALL = ["--units", "4", "--repeats", "2", "--threads", "1"]


def rows_of(text):
    lines = [line for line in text.split("\n") if line.startswith("| ")][1:]
    return {row[0]: row[1:] for row in ([c.strip() for c in x[1:-1].split("|")] for x in lines)}


@pytest.mark.parametrize("train", ["full", "lora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_variants_run_whole_steps(torch_quiet, capsys, precision, train):
    case = f"tiny/128/{precision}/{train}"
    dp_step.main([*SMALL, "--cases", case, "--opacus-logical", "--no-memory"])
    rows = rows_of(capsys.readouterr().out)
    assert list(rows) == list(VARIANTS)
    for name, cells in rows.items():
        assert len(cells) == 9, name
        assert all(re.fullmatch(r"\d+(\.\d\d)?", cell) for cell in cells[:4]), (name, cells)
    assert rows["non-private"][1] == rows["non-private"][3] == "1.00"
    assert rows["ours"][4].isdigit()


def test_opacus_whole_steps_are_said_not_to_have_run_where_they_have_not(torch_quiet, capsys):
    dp_step.main([*SMALL, "--cases", "tiny/16/float32/full", "--no-memory"])
    rows = rows_of(capsys.readouterr().out)
    assert [rows[name][0] for name in VARIANTS[2:]] == ["not run"] * 2
    assert all(rows[name][2].isdigit() for name in VARIANTS)


def peak(name, threads=1):
    options = argparse.Namespace(units=4, device="cpu", threads=threads)
    return dp_step._peak_apart(Case.parse("tiny/64/float32/full"), name, options)


def test_a_peak_is_of_its_own_process_and_not_of_the_one_that_starts_it(torch_quiet):
    held = bytearray(b"\1" * 2**30)
    found = peak("ours")
    del held
    assert isinstance(found, Peak)
    assert 0 < found.above_model < 2**28
    assert found.above_model < found.whole < 2**30


def test_a_peak_leaves_out_what_was_held_and_freed_before_the_step():
    held = bytearray(b"\1" * 2**29)
    del held
    before = dp_step._settled()
    held = bytearray(b"\1" * 2**26)
    above = dp_step._high_water() - before
    del held
    assert 2**26 <= above < 2**28


def test_a_peak_that_could_not_be_measured_says_why(torch_quiet):
    assert re.match(r"failed: .+", peak("unheard-of"))


def test_memory_is_shown_whole_and_above_the_model_each_with_its_ratio():
    own, plain = Peak(whole=900 << 20, above_model=300 << 20), Peak(600 << 20, 200 << 20)
    assert dp_step._memory(own, plain) == ["900", "1.50", "300", "1.50"]
    assert dp_step._memory(own, None) == ["900", "", "300", ""]
    assert dp_step._memory("failed: Killed", plain) == ["failed: Killed", "", "", ""]


def test_the_default_cases_are_those_that_the_goals_are_stated_for():
    cases = [str(case) for case in default_cases("cpu")]
    assert {f"minilm/{n}/{p}/{t}" for n in (64, 128) for p in ("float32", "bfloat16")
            for t in ("full", "lora")} < set(cases)  # fmt: skip
    assert any(case.startswith("bert-base/") for case in cases)
