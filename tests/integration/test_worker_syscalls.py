"""What a worker asks of the kernel, held against the filter in its unit file.

systemd itself does not run here: the calls are traced, and looked up in the list of its own tool.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import users
from tests.integration.test_relay_attacks import Hospital
from tests.unit.test_deployment import WORKER, one

CALL = re.compile(r"^\d+ +(?:<\.\.\. )?([a-z0-9_]+)(?:\(| resumed)")
have_tools = pytest.mark.skipif(
    not (shutil.which("strace") and shutil.which("systemd-analyze")),
    reason="needs strace and systemd-analyze",
)


def allowed(group: str) -> set[str]:
    """System calls of one of systemd's groups, with the groups in it."""
    command = ["systemd-analyze", "syscall-filter", group]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.strip() for line in said.splitlines()[1:]]
    groups = [allowed(name) for name in names if name.startswith("@")]
    return set().union(*groups, (name for name in names if name and name[0] not in "@#"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@users.needed
@have_tools
def test_all_that_a_worker_calls_passes_its_units_filter(tiny_encoder):
    """From the start of Python on: a private round of training, an evaluation, and the end."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        trace = Path(folder) / "trace"
        hospital = Hospital(Path(folder), tiny_encoder, ("strace", "-f", "-qq", "-o", str(trace)))
        try:
            hospital.wait()
            assert hospital.ask("train", 1).refusal == ""
            assert hospital.ask("evaluate", 1).refusal == ""
        finally:
            hospital.close()
        lines = trace.read_text(errors="replace").splitlines()
    start = next(i for i, line in enumerate(lines) if 'python", ["' in line and "execve(" in line)
    found = {match[1] for line in lines[start:] if (match := CALL.match(line))}
    assert {"openat", "accept4", "fsync", "flock"} <= found
    assert found - allowed(one(WORKER, "SystemCallFilter")) == set()
    writable_code = [line for line in lines[start:] if "PROT_WRITE|PROT_EXEC" in line]
    assert writable_code  # why the unit has no MemoryDenyWriteExecute
