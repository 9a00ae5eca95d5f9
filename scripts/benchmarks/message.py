"""Cost of one message through Flower on loopback, empty and with a BERT-base vector.

    scripts/bench message [--clients 1 4] [--repeats 5] [--megabytes 440]

`ours`: the relay of a warm parent that forks, quick polls, and a warm worker behind the socket.
`stock`: flower-supernode as it comes, a new process a message that imports torch and transformers.
Both in one run, the same records, an echo worker that sends back as many bytes as it got.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.io.flower_internals import flower_environment
from common.io.processes import (
    Child,
    await_port,
    free_port,
    module_command,
    script_command,
    stopping,
)

_SERVER = """
import json, os, time
from pathlib import Path
from flwr.serverapp import ServerApp
from common.io.flower_internals import shorten_object_backoff
from server.records import reply_bytes, request_messages

app = ServerApp()

@app.main()
def main(grid, context):
    shorten_object_backoff()
    want = int(context.run_config["clients"])
    while len(nodes := list(grid.get_node_ids())) < want:
        time.sleep(0.2)
    times = []
    for number in range(int(context.run_config["repeats"]) + 1):
        # random, so that no two pieces are the same: Flower sends equal pieces once
        payload = os.urandom(8 + int(context.run_config["bytes"]))
        started = time.monotonic()
        messages = request_messages(payload, nodes, "train", str(number), 3600)
        pending = set(grid.push_messages(messages))
        while pending:
            for message_id in list(pending):
                for message in grid.pull_messages([message_id]):
                    pending.discard(message_id)
                    data = reply_bytes(message)
                    assert isinstance(data, bytes) and len(data) == len(payload), data
            time.sleep(0.05)
        times.append(time.monotonic() - started)
    Path(context.run_config["out"]).write_text(json.dumps(times[1:]))
"""

_STOCK_CLIENT = """
import torch, transformers
from transformers import BertForTokenClassification
from client.app import make_app

app = make_app(lambda context: lambda request: bytes(request))
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench message")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=440)
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(argv)
    print("| what | clients | bytes each way | median s | each, s | peak RSS by process, MiB |")
    print("|---|---:|---:|---:|---|---|")
    for clients in options.clients:
        for kind in ("ours", "stock") if options.stock else ("ours",):
            for size in (0, options.megabytes * 10**6):
                repeats = options.repeats if size == 0 else max(1, options.repeats // 2)
                if kind == "stock" and size:
                    repeats = 1
                times, peak = _measure(kind, clients, size, repeats)
                shown = " ".join(f"{t:.2f}" for t in times)
                middle = statistics.median(times)
                row = f"| {kind} | {clients} | {size:,} | {middle:.2f} | {shown} | {peak} |"
                print(row, flush=True)
    return 0


def _measure(kind: str, clients: int, size: int, repeats: int) -> tuple[list[float], str]:
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        home = Path(scratch)
        port = free_port()
        link = _link(home, port)
        nodes = [c for i in range(clients) for c in _node(kind, home, i, port)]
        stack.enter_context(stopping(link, *nodes))
        peak = stack.enter_context(_peak_rss())
        link.start()
        await_port("127.0.0.1", port, link, 60)
        for node in nodes:
            node.start()
        out = home / "times.json"
        config = f'clients={clients} repeats={repeats} bytes={size} out="{out}"'
        subprocess.run(
            script_command("flwr", "run", str(_app(home, kind)), "bench", "--run-config", config),
            env={**os.environ, **flower_environment(home / "link")},
            check=True,
            capture_output=True,
        )
        deadline = time.monotonic() + 1800
        while not out.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no result; see {home}")
            time.sleep(0.5)
        times: list[float] = json.loads(out.read_text())
        return times, ", ".join(f"{n} {m // 2**20}" for n, m in sorted(peak.items()))


def _link(home: Path, port: int) -> Child:
    (home / "link").mkdir()
    (home / "link" / "config.toml").write_text(
        f'[superlink]\ndefault="bench"\n[superlink.bench]\naddress="127.0.0.1:{port}"\ninsecure=true\n'
    )
    command = script_command(
        "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
        "--disable-runtime-dependency-installation",
    )  # fmt: skip
    return Child("link", command, flower_environment(home / "link"), home / "link.log")


def _node(kind: str, home: Path, index: int, link: int) -> list[Child]:
    folder = home / f"n{index}"
    folder.mkdir()
    environment, port = flower_environment(folder), str(free_port())
    socket = folder / "w" / "s"
    common = ["--insecure", "--superlink", f"127.0.0.1:{link}", "--host", "127.0.0.1",
              "--port", port, "--node-config", f'socket="{socket}"']  # fmt: skip
    log = home / f"n{index}.log"
    if kind == "stock":
        return [Child("node", script_command("flower-supernode", *common), environment, log)]
    internals = "common.io.flower_internals"
    echo = module_command("scripts.benchmarks.message", "--echo", str(socket))
    return [
        Child("worker", echo, environment, log),
        Child("node", module_command(internals, "supernode", *common, "--isolation", "process"),
              environment, log),
        Child("relay", module_command(internals, "superexec", "--insecure",
              "--runtime-api-address", f"127.0.0.1:{port}"), environment, log),
    ]  # fmt: skip


def _app(home: Path, kind: str) -> Path:
    app = home / "app"
    app.mkdir()
    (app / "bench_server.py").write_text(_SERVER)
    (app / "bench_client.py").write_text(
        _STOCK_CLIENT
        if kind == "stock"
        else "from client.app import make_app\napp = make_app(lambda context: bytes)\n"
    )
    (app / "pyproject.toml").write_text(
        '[project]\nname="bench"\nversion="1.0.0"\nlicense="Apache-2.0"\n'
        '[tool.flwr.app]\npublisher="fedner"\nfab-include=["*.py"]\n[tool.flwr.app.components]\n'
        'serverapp="bench_server:app"\nclientapp="bench_client:app"\n'
        '[tool.flwr.app.config]\nclients=1\nrepeats=1\nbytes=0\nout=""\n'
    )
    return app


@contextmanager
def _peak_rss() -> Iterator[dict[str, int]]:
    """Peak resident bytes by what a process is, among this process's descendants."""
    import psutil

    peak: dict[str, int] = {}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.1):
            for child in psutil.Process().children(recursive=True):
                try:
                    line, rss = " ".join(child.cmdline()), child.memory_info().rss
                except psutil.Error:
                    continue
                name = next((n for key, n in _ROLES if key in line), "")
                if name:
                    peak[name] = max(peak.get(name, 0), rss)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


_ROLES = (
    ("--echo", "worker"),
    ("serverapp", "serverapp"),
    ("clientapp", "clientapp"),
    ("internals superexec", "relay"),
    ("supernode", "node"),
    ("superlink", "link"),
)


def _echo(socket: Path) -> None:
    from client.service import serve

    service = serve(
        socket, lambda request: request, max_request_bytes=1 << 30,
        on_error=lambda _error: b"", max_replies=1,
    )  # fmt: skip
    service.wait_for_termination()


if __name__ == "__main__" and sys.argv[1:2] == ["--echo"]:
    _echo(Path(sys.argv[2]))
