"""docs/walkthrough.md from its first command to its last, each party in a network namespace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UsageError
from common.io.processes import module_command
from scripts.benchmarks._namespaces_net import GATEWAY, require_namespaces, wire
from scripts.benchmarks._stage_tiny import bert_folder

ROOT = Path(__file__).parents[2]


def _may_make_namespaces() -> bool:
    try:
        require_namespaces()
    except UsageError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not _may_make_namespaces(), reason="needs root, ip, and network namespaces"
)


def test_machines_on_a_wire_reach_each_other_and_nobody_else_and_leave_nothing():
    here = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    addresses = {"one": "192.0.2.10", "two": "192.0.2.21", "desk": ""}
    with wire(addresses, {"fl.example.org": "192.0.2.10"}) as cables:
        one, two, desk = cables.machines.values()
        listener = subprocess.Popen(
            one.command(
                sys.executable, "-c",
                "import socket; s = socket.create_server(('192.0.2.10', 9192)); "
                "print('up', flush=True); print(s.accept()[1][0], flush=True)",
            ),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert listener.stdout is not None
        with listener:
            assert listener.stdout.readline() == "up\n"
            assert one.sockets() == ["tcp 192.0.2.10:9192"]
            assert two.sockets() == []
            assert two.says("getent", "hosts", "fl.example.org").split()[0] == "192.0.2.10"
            two.says("bash", "-c", "exec 3<>/dev/tcp/fl.example.org/9192")
            assert listener.stdout.readline() == "192.0.2.21\n"
        for outside in ("203.0.113.9", "192.0.2.99"):
            with pytest.raises(UsageError, match=r"unreachable|No route"):
                two.says("bash", "-c", f"exec 3<>/dev/tcp/{outside}/80")
        with pytest.raises(UsageError, match=r"unreachable|No route"):
            desk.says("bash", "-c", "exec 3<>/dev/tcp/192.0.2.10/9192")
        assert f"default via {GATEWAY}" in two.says("ip", "route")
        assert cables.counters()["two"]["rx"]["packets"] > 3
        sleeper = subprocess.Popen(two.command("sleep", "100"))
    assert sleeper.wait(5) == -9  # ended with its namespace
    assert subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout == here
    assert not list(Path("/etc/netns").glob(f"fedner{os.getpid()}-*"))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_command_of_the_page_leads_from_nothing_to_a_finished_study(tmp_path):
    encoder = bert_folder(tmp_path / "encoder")
    done = subprocess.run(
        module_command("scripts.benchmarks", "namespaces", "--encoder", str(encoder)),
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT AS PROMISED" not in done.stdout
    assert "6 rounds, F1 of the shared model" in done.stdout
    assert "coordinator 192.0.2.10 tcp 9192" in done.stdout
