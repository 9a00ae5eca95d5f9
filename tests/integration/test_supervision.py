"""Children are stopped however the supervisor ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_PARENT = """
import sys, time
from pathlib import Path
from common.io.processes import Child, stopping
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(100)"
children = [Child(str(i), [sys.executable, "-c", stubborn], {}, Path(sys.argv[1]) / f"{i}") for i in range(2)]
try:
    with stopping(*children):
        for child in children:
            child.start()
        while not all((Path(sys.argv[1]) / f"{i}").read_text() for i in range(2)):
            time.sleep(0.05)
        print(*(c.process.pid for c in children), flush=True)
        time.sleep(100)
except KeyboardInterrupt:
    sys.exit(130)
"""  # noqa: E501


def test_an_impatient_second_signal_leaves_no_child_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        parent.send_signal(signal.SIGTERM)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(30) == 130
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


_NODE = """
import sys, threading, time
from client.supernode import run
def role():
    threading.Thread(target=time.sleep, args=(100,)).start()
    {ends}
run(role)
"""


@pytest.mark.parametrize(
    ("ends", "code"),
    [("raise KeyboardInterrupt", 1), ("sys.exit(5)", 5), ("sys.exit('no')", 1), ("pass", 0)],
)
def test_a_supernode_whose_main_thread_is_over_ends(ends: str, code: int) -> None:
    """Whatever else still runs in it: only then is it started again."""
    command = [sys.executable, "-c", _NODE.format(ends=ends)]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("KeyboardInterrupt" in done.stderr) == (ends == "raise KeyboardInterrupt")
