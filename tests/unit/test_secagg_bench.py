"""The speed bench runs what workers and coordinators run, and says what it did not run whole."""

import argparse

import numpy as np
import pytest

from common.secagg.codec import decode
from common.secagg.masks import add_masks_
from common.secagg.packing import unpack
from common.secagg.quantise import dequantise_sum
from scripts.benchmarks import secagg

SMALL = ["--sizes", "40000", "--institutions", "3", "--repeats", "1", "--threads", "2"]


def case(size: int = 1001, institutions: int = 5) -> secagg.Case:
    options = argparse.Namespace(value_bits=16, flower_values=10**9, cpu_time=False)
    return secagg.Case(size, institutions, options)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_timed_is_a_message_whose_masks_come_off_to_the_update(threads):
    timed = case()
    assert set(timed.ours(threads)) == {"quantise", "masks"}
    message = decode(timed.message)
    assert message.length == timed.size
    levels = unpack(message.packed, timed.size, timed.k)
    assert not np.array_equal(dequantise_sum(levels, timed.grid, timed.k), timed.update)
    off = [type(mask)(key=mask.key, sign=-mask.sign) for mask in timed.masks]
    add_masks_(levels, off, timed.k)
    found = dequantise_sum(levels, timed.grid, timed.k)
    within = np.clip(timed.update, -timed.grid.clip, timed.grid.clip)
    assert np.abs(found - within).max() < timed.grid.step


@pytest.mark.parametrize("threads", [1, 2])
def test_coordinators_work_is_adding_that_message_and_taking_masks_off(threads):
    timed = case()
    timed.ours(1)
    assert set(timed.coordinator(threads)) == {"add", "unmask"}
    assert timed.total.stream == decode(timed.message).packed
    expected = unpack(timed.total.stream, timed.size, timed.k)
    add_masks_(expected, timed.masks, timed.k)
    assert np.array_equal(timed.opened(threads), dequantise_sum(expected, timed.grid, timed.k))


def test_tables_have_all_rows_and_the_limit_is_their_measure(capsys):
    assert secagg.main([*SMALL, "--no-memory"]) == 0
    said = capsys.readouterr().out
    assert "**40,000 parameters, 3 institutions, k = 18**" in said
    for name in ("limit", "limit by wire", "ours, 1 thread", "ours, 2 threads", "Flower"):
        assert f"| {name} | " in said
    for place, name in ((6, "| limit |"), (7, "| limit by wire |")):
        limit = next(line for line in said.splitlines() if line.startswith(name))
        assert limit.split("|")[place].strip() == "1.00"
    ours = [line for line in said.splitlines() if line.startswith("| ours, 1 thread")]
    assert ours[0].split("|")[9].strip() == "2.252"


def test_masks_of_flower_that_were_not_run_are_said_to_be_extrapolated(capsys):
    assert secagg.main([*SMALL, "--no-memory", "--flower-values", "80000"]) == 0
    assert "masks EXTRAPOLATED from 2 to 3" in capsys.readouterr().out
