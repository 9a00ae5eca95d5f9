"""Holes in the heap go back to the system, when there are many."""

import subprocess
import sys

import pytest

SCRIPT = """
import psutil
from common.io.memory import give_back

MIB = 1 << 20
own = psutil.Process()
pieces = [b"x" * 100_000 for _ in range(3000)]  # in the heap: glibc maps what is above 128 KiB
held = own.memory_info().rss
print(give_back(64 * MIB), end=" ")
pieces[:] = [piece for number, piece in enumerate(pieces) if number % 4 == 0]
print(give_back(1024 * MIB), give_back(64 * MIB), end=" ")
print((held - own.memory_info().rss) > 150 * MIB)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_holes_go_back_if_they_are_more_than_what_is_used_and_than_what_may_stay():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "True", "True"]
