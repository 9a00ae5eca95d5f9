"""Children are stopped however the supervisor ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

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
