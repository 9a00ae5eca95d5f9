"""Peak memory of the coordinator's process in a round of secure sums, by number of institutions.

    scripts/bench coordinator-memory [--institutions 4 8] [--values 22700000]

The coordinator is a process of its own, with all its own code but Flower's; this one plays the
institutions, with their own driver of the secure sums and vectors of random levels, and hands
requests and replies over by a pipe. What Flower's client holds besides is not in it.
"""

import argparse
import hashlib
import itertools
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from client.sums import Sums
from common.config.canonical import study_hash, study_yaml
from common.config.load import parse_study
from common.config.site import Policy
from common.config.study import Study
from common.sums import length_of
from common.wire import Kind, Reply, decode_request, encode
from scripts.simulation import Cast
from server.coordinator import Coordinator
from server.exchange import NodeExchange
from server.mail import Letter
from server.run_dir import RunDir

_STUDY = """\
study: memory
encoder: {{name: none, weights_sha256: {digest}}}
training: {{rounds: 1, learning_rate: 1e-3}}
federation: {{institutions: [{names}], deadline_s: 3600}}
privacy: none
"""


class PipeMail:
    """`server.mail.Mail` over a pipe to the institutions' process."""

    def __init__(self, pipe: Connection, nodes: int):
        self._pipe, self._nodes, self._sent = pipe, nodes, 0

    def online(self) -> Collection[int]:
        """All."""
        return range(self._nodes)

    def send(
        self, _kind: Kind, _round: int, requests: Mapping[int, Letter], _ttl: float, _most: int
    ) -> list[str]:
        """One after the other."""
        names = []
        for node, letter in requests.items():
            self._sent += 1
            names.append(str(self._sent))
            self._pipe.send(("send", node, names[-1]))
            self._pipe.send_bytes(bytes(letter))
        return names

    def fetch(self, messages: Collection[str], most: int) -> Iterator[tuple[str, bytes]]:
        """Each is made when it is fetched."""
        for message in messages:
            self._pipe.send(("fetch", 0, message))
            data = self._pipe.recv_bytes()
            if len(data) > most:
                raise RuntimeError(f"{len(data)} bytes, at most {most} were expected")
            yield message, data
            del data

    def drop(self, messages: Collection[str]) -> None:
        """Nothing is kept."""


class Institutions:
    """Answer as workers do, without a model: updates are random levels."""

    def __init__(self, study: Study, cast: Cast, folder: Path, values: int):
        self._study, self._values = study, values
        self._random = np.random.default_rng(0)
        policy = Policy(roster_sha256=cast.roster.sha256)
        self._sums = [
            (name, cast.sums(study, name, policy, folder / name))
            for name in study.federation.institutions
        ]
        self._facts: dict[str, str | int] = {
            **dict.fromkeys(("version", "layout", "initial", "encoder"), "0"),
            "dimension": values,
        }

    def answer(self, node: int, data: bytes) -> bytes:
        """A worker's reply."""
        request, (name, sums) = decode_request(data), self._sums[node]
        said: dict[str, Any] = {"kind": request.kind, "study": request.study, "institution": name}
        if request.kind == "hello":
            return encode(Reply(**said, round=0, facts=self._facts))
        return encode(Reply(**said, round=request.round, sums=self._answer(sums, request)))

    def _answer(self, sums: Sums, request: Any) -> bytes:
        if request.kind == "sum":
            return sums.answer(request.sums)
        task = sums.instructed(request.sums, request.kind, request.round, request.body)
        length = length_of(self._study, request.kind, self._values)
        top = 1 << 12  # levels of any study fit
        return task.reply or sums.masked(
            task, lambda: self._random.integers(0, top, length, np.uint32)
        )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench coordinator-memory")
    parser.add_argument("--institutions", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--values", type=int, default=22_700_000)
    options = parser.parse_args(argv)
    print("| institutions | values | MiB before | peak MiB | bytes a value above it |")
    print("|---:|---:|---:|---:|---:|")
    for n in options.institutions:
        before, peak = _measured(n, options.values)
        each = (peak - before) / options.values
        print(
            f"| {n} | {options.values} | {before >> 20} | {peak >> 20} | {each:.1f} |", flush=True
        )
    return 0


def _measured(n: int, values: int) -> tuple[int, int]:
    """Bytes of the coordinator's process before the run, and at most."""
    names = ", ".join(f"n{i:02}" for i in range(n))
    text = _STUDY.format(names=names, digest="ab" * 32)
    study = parse_study(text, "study.yaml")
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        child = spawned.Process(target=_coordinate, args=(theirs, text, folder / "run"))
        child.start()
        theirs.close()
        try:
            return _serve(ours, Institutions(study, _cast(study), folder / "sites", values))
        finally:
            child.join()


def _serve(pipe: Connection, institutions: Institutions) -> tuple[int, int]:
    asked: dict[str, tuple[int, bytes]] = {}
    while True:
        what, first, second = pipe.recv()
        if what == "send":
            asked[second] = first, pipe.recv_bytes()
        elif what == "fetch":
            node, data = asked.pop(second)
            pipe.send_bytes(institutions.answer(node, data))
        else:
            return first, second


def _cast(study: Study) -> Cast:
    """The same in both processes; nobody's secrets."""
    made = itertools.count()
    return Cast.of(study, lambda size: hashlib.sha256(b"%d" % next(made)).digest()[:size])


def _coordinate(pipe: Connection, text: str, folder: Path) -> None:
    study = parse_study(text, "study.yaml")
    run = RunDir.create(folder, study_yaml(study))
    exchange = NodeExchange(PipeMail(pipe, len(study.federation.institutions)), study)
    before = _peak()
    Coordinator(study, exchange, run, standing=_cast(study).standing).run()
    if not run.events("round") or run.events("round")[0]["study_sha256"] != study_hash(study):
        raise RuntimeError("no round")
    pipe.send(("peak", before, _peak()))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
