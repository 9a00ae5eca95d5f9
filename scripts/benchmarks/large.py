"""A BERT-base vector of 440 MB, there and back, through gate, TLS and node keys: peak memory.

    scripts/bench large [--clients 1 3] [--megabytes 440] [--repeats 1]

What `fedner provision --demo` makes, the gate as `fedner server` starts it, nodes and relays as
`fedner client` does, and the coordinator's own mail. Only the two ends are stand-ins: the ServerApp
sends random bytes, a worker behind the socket sends as many back. Prints seconds and each process's
peak resident memory as the kernel has it (VmHWM), in MiB and in messages.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from client.uplink import Uplink
from common.io.configs import load_site, load_study
from common.io.flower_internals import flower_environment
from common.io.processes import (
    Child,
    await_port,
    free_port,
    module_command,
    script_command,
    stopping,
)
from scripts.benchmarks._stage import FEDERATION, fedner
from server.federation import Federation
from server.nodes import register_nodes
from server.superlink import CONNECTION, SuperLink, behind_gate

LIMIT_S: Final = 3000.0
_INTERNALS: Final = "common.io.flower_internals"
_ROLES: Final = (
    ("--echo", "worker"),
    ("flwr-serverapp", "ServerApp"),
    (f"{_INTERNALS} superexec", "relay"),
    ("client.supernode", "SuperNode"),
    ("server.gate", "gate and SuperLink"),
)
_STUDY: Final = """\
study: large
task: {{labels: [Disease]}}
encoder: {{name: none, weights_sha256: {sha256}}}
model: {{train: full}}
training: {{rounds: 1, learning_rate: 1.0}}
federation: {{institutions: [{names}]}}
privacy: none
secure_aggregation: none
"""
_SERVER: Final = """
import json, os, time, traceback
from pathlib import Path
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    out = Path(context.run_config["out"])
    try:
        out.write_text(json.dumps(exchange(grid, context.run_config)))
    except BaseException:
        out.write_text(json.dumps(traceback.format_exc()))
        raise

def exchange(grid, config):
    from common.io.flower_internals import ReplyParts
    from server.app import GridMail
    from server.mail import Letter

    mail = GridMail(grid, ReplyParts(grid))
    while len(nodes := list(mail.online())) < int(config["clients"]):
        time.sleep(0.2)
    times = []
    for number in range(int(config["repeats"])):
        # random, so that no two pieces are the same: Flower sends equal pieces once
        most = int(config["bytes"])
        payload = os.urandom(most)
        started = time.monotonic()
        requests = dict.fromkeys(nodes, Letter((payload,)))
        pending = set(mail.send("train", number, requests, 3600.0, most))
        while pending:
            for message, data in mail.fetch(sorted(pending), most):
                pending.discard(message)
                if not isinstance(data, bytes) or data != payload:
                    raise RuntimeError(f"another reply: {data!r:.80}")
            time.sleep(0.1)
        times.append(time.monotonic() - started)
    return times
"""
_CLIENT: Final = """
from client.app import make_app

app = make_app(lambda context: bytes)  # not run: the relay is the installed `client.app`
"""
_PROJECT: Final = """\
[project]
name = "large"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "fedner"
fab-include = ["*.py"]
[tool.flwr.app.components]
serverapp = "large_server:app"
clientapp = "large_client:app"
[tool.flwr.app.config]
clients = 1
repeats = 1
bytes = 0
out = ""
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench large")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--megabytes", type=int, default=440)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args(argv)
    size = options.megabytes * 10**6
    print("| clients | s, there and back | process | peak MiB | in messages |")
    print("|---:|---:|---|---:|---:|")
    for clients in options.clients:
        times, peak = measure(clients, size, options.repeats)
        for role, held in sorted(peak.items()):
            row = f"{statistics.median(times):.1f} | {role} | {held >> 20:,} | {held / size:.1f}"
            print(f"| {clients} | {row} |", flush=True)
    return 0


def measure(clients: int, size: int, repeats: int) -> tuple[list[float], dict[str, int]]:
    """Seconds of each exchange of `size` bytes with all clients, and peak bytes by role."""
    with tempfile.TemporaryDirectory(prefix="fl-") as scratch, ExitStack() as stack:
        home = Path(scratch)
        federation = _provisioned(home, clients)
        gate = behind_gate(federation)
        link, environment = _link(home, gate)
        nodes = [c for site in sorted((federation.root / "sites").iterdir()) for c in _node(site)]
        stack.enter_context(stopping(link, *nodes))
        peak = stack.enter_context(_peak())
        link.start()
        await_port(gate.host, gate.port, link, 120)
        register_nodes(lambda *a: _flwr(environment, *a), federation.root, CONNECTION)
        for node in nodes:
            node.start()
        out = home / "times.json"
        config = f'clients={clients} repeats={repeats} bytes={size} out="{out}"'
        done = _flwr(environment, "run", str(_app(home)), CONNECTION, "--run-config", config)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        _await(out, link)
        times: list[float] | str = json.loads(out.read_text())
        if isinstance(times, str):
            raise RuntimeError(times)
        return times, dict(peak)


def _provisioned(home: Path, clients: int) -> Federation:
    names = ", ".join(f"site-{i + 1}" for i in range(clients))
    (home / "study.yaml").write_text(_STUDY.format(names=names, sha256="a" * 64))
    (home / "FEDERATION.yaml").write_text(FEDERATION.format(port=free_port()))
    fedner("provision", home / "FEDERATION.yaml", "--out", home / "fed", "--demo")
    study = load_study(home / "fed" / "study.yaml")
    return Federation.open(home / "fed", study, datetime.datetime.now(datetime.UTC))


def _link(home: Path, gate: SuperLink) -> tuple[Child, Mapping[str, str]]:
    folder = home / "link"
    folder.mkdir()
    (folder / "config.toml").write_text(gate.connection)
    environment = flower_environment(folder)
    return Child("superlink", gate.command, environment, home / "link.log"), environment


def _node(kit: Path) -> list[Child]:
    """Worker, SuperNode and relay of one institution, as `client.supervisor` starts them."""
    site = load_site(kit / "site.yaml")
    uplink = Uplink.of(site, kit / "site.yaml", datetime.datetime.now(datetime.UTC))
    folder, socket, port = kit / "flower", kit / "w" / "s", str(free_port())
    folder.mkdir()
    environment, log = flower_environment(folder), kit / "node.log"
    config = f'socket="{socket}" institution="{site.institution}"'
    node = (
        "--isolation",
        "process",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--node-config",
        config,
    )
    runtime = ("--insecure", "--runtime-api-address", f"127.0.0.1:{port}")
    echo = module_command("scripts.benchmarks.message", "--echo", str(socket))
    return [
        Child("worker", echo, environment, log),
        Child(
            "node", module_command("client.supernode", *uplink.arguments, *node), environment, log
        ),
        Child("relay", module_command(_INTERNALS, "superexec", *runtime), environment, log),
    ]


def _app(home: Path) -> Path:
    app = home / "app"
    app.mkdir()
    (app / "large_server.py").write_text(_SERVER)
    (app / "large_client.py").write_text(_CLIENT)
    (app / "pyproject.toml").write_text(_PROJECT)
    return app


def _flwr(environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        script_command("flwr", *arguments), env={**os.environ, **environment}, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def _await(out: Path, link: Child) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not out.exists() or not out.read_text():
        if link.exit_code is not None or time.monotonic() > deadline:
            said = link.log.read_text("utf-8", "replace")[-3000:] if link.log else ""
            raise TimeoutError(f"no result: {said}")
        time.sleep(0.5)


@contextmanager
def _peak() -> Iterator[dict[str, int]]:
    """Bytes of the highest resident memory of each role, among this process's descendants."""
    peak: dict[str, int] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error, OSError):
                    line = " ".join(child.cmdline())
                    role = next((name for word, name in _ROLES if word in line), "")
                    if role:
                        peak[role] = max(peak.get(role, 0), _high_water(child.pid))

    sampler = threading.Thread(target=look, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def _high_water(pid: int) -> int:
    """Bytes: `VmHWM` of proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has ended and is not yet taken off


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
