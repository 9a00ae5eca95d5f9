"""A whole study in this process, with every message kept and any reply that a test wants lost.

Everything is real but the transport's machines: Flower's messages on a grid in this process, worker
sessions with models, ledgers and files, the coordinator with its folders and its log.
"""

import logging
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from flwr.app import Context

from client.app import make_app
from common.config.canonical import study_yaml
from common.config.load import parse_study
from common.io.flower_internals import LocalGrid
from common.secagg.bundle import split
from common.secagg.codec import decode
from common.secagg.messages import Kind
from common.secagg.packing import unpack
from common.secagg.quantise import dequantise_sum
from common.sums import grid_of
from common.wire import decode_request
from scripts.simulation import Bench, Cast
from server.app import run_study
from server.run_dir import RunDir
from tests.needles import content_of

NAMES = ("north", "east", "south", "west")
STAGES = {
    Kind.INVITATION: "advertise",
    Kind.ADVERTS: "share",
    Kind.INSTRUCTION: "mask",
    Kind.SURVIVORS: "sign",
    Kind.UNMASK: "open",
}


def federation(**more):
    """The study's section: four institutions, one of which may be missing."""
    said = {"institutions": f"[{', '.join(NAMES)}]", "deadline_s": 20, "quorum": 3} | more
    return "{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}"


def bench_of(tiny_study, folder, **changes):
    """Four institutions with notes; secure aggregation on unless changed."""
    sections = {"federation": federation(), "secure_aggregation": "{}"} | changes
    return Bench.of(parse_study(tiny_study(**sections), "study.yaml"), folder)


@dataclass(frozen=True)
class Asked:
    """What a request is for; `stage` is empty outside of secure sums."""

    name: str
    kind: str
    stage: str
    purpose: str
    round: int
    attempt: int


def asked_of(name, request):
    """Of a request's bytes; of two messages of a bundle the first counts."""
    parsed = decode_request(request)
    if not parsed.sums:
        return Asked(name, parsed.kind, "", "", parsed.round, 0)
    first = decode(split(parsed.sums)[0])
    session = first.session
    stage = STAGES[first.kind]
    return Asked(name, parsed.kind, stage, session.purpose, session.round, session.attempt)


class RecordingGrid(LocalGrid):
    """Keeps every message that reaches the coordinator, as Flower gives it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.received = []

    def pull_messages(self, message_ids):
        found = super().pull_messages(message_ids)
        self.received += found
        return found


class Run:
    """One run and all that was said in it.

    Attributes:
        requests: (name, bytes) as they came to institutions.
        replies: (name, bytes) as they left.
        relay: hands a reply of an institution on, as it came or otherwise.
        updates, packed: by name and round: the update, and its levels as rounded, unmasked.
        rounded: how often an institution rounded an update of a round.
        request: the newest that came to an institution.
        logs: the coordinator's log records, as text; no record from inside an institution.
    """

    def __init__(self, bench, folder, fault=None):
        self.bench, self.folder, self.study = bench, folder, bench.study
        self.fault = fault or (lambda _run, _asked: None)
        self.relay = lambda _name, reply: reply
        self.model = bench.model("cpu")
        self.cast = None if self.study.secure is None else Cast.of(self.study)
        self.requests, self.replies, self.logs = [], [], []
        self.updates, self.packed, self.rounded = {}, {}, Counter()
        self.lives = Counter()
        self.fits = 0
        self._inside = False
        self._listen_to_fit()
        self.sessions = {}
        self.run = RunDir.create(folder / "run", study_yaml(self.study))

    def start(self, name):
        """An institution's worker as it is after a start: its files, and nothing else."""
        if name in self.sessions:
            self.sessions.pop(name).close()
        session = self.bench.session(name, self.model, self.state(name), cast=self.cast)
        if session._rounding is not None:
            self._listen(name, session._rounding)
        self.sessions[name] = session
        self.lives[name] += 1

    def state(self, name):
        """Folder of what an institution keeps."""
        return self.folder / "sites" / name

    def carry_out(self):
        """From hello to the last round; itself."""
        with self._sessions(), self._log():
            grid = RecordingGrid(make_app(self._exchange_for), [{"name": n} for n in NAMES], {})
            with grid:
                self.grid = grid
                standing = None if self.cast is None else self.cast.standing
                run_study(grid, self.run, home=self.folder / "coordinator", standing=standing)
        return self

    @contextmanager
    def _sessions(self):
        with ExitStack() as stack:
            for name in NAMES:
                self.start(name)
            stack.callback(lambda: [session.close() for session in self.sessions.values()])
            yield

    def _exchange_for(self, context: Context):
        return lambda request: self._handle(str(context.node_config["name"]), request)

    def _handle(self, name, request):
        asked, self.request = asked_of(name, request), request
        self._inside = True
        try:
            way = self.fault(self, asked)
            if way == "deaf":
                raise ConnectionError("nobody there")
            self.requests.append((name, request))
            reply = self.sessions[name].handle(request)
            if way == "lost":
                raise ConnectionError("lost")
        finally:
            self._inside = False
        self.replies.append((name, reply))
        return self.relay(name, reply)

    def _listen(self, name, rounding):
        truly = rounding.round

        def listening(round_, update, keys):
            packed = truly(round_, update, keys)
            self.updates[name, round_], self.packed[name, round_] = update.copy(), packed
            self.rounded[name, round_] += 1
            return packed

        rounding.round = listening

    def _listen_to_fit(self):
        for kind in ("fit", "fit_privately"):
            truly = getattr(self.model, kind)

            def listening(*args, _truly=truly, **kwargs):
                self.fits += 1
                return _truly(*args, **kwargs)

            setattr(self.model, kind, listening)

    @contextmanager
    def _log(self):
        run = self

        class Handler(logging.Handler):
            def emit(self, record):
                if not run._inside:
                    run.logs.append(logging.Formatter().format(record))

        handler, root = Handler(level=logging.DEBUG), logging.getLogger()
        fedner = logging.getLogger("fedner")
        levels = root.level, fedner.level, fedner.propagate
        root.addHandler(handler)
        fedner.setLevel(logging.DEBUG)
        fedner.propagate = True  # whatever a run of the command line before has left
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(levels[0])
            fedner.setLevel(levels[1])
            fedner.propagate = levels[2]

    def levels(self, name, round_):
        """What an institution rounded its update to, modulo `2^k`."""
        return unpack(self.packed[name, round_], self.model.layout.size, self.study.secure.bits)

    def mean_of(self, names, round_):
        """The mean that follows from the integer sum of what these institutions rounded."""
        bits = self.study.secure.bits
        total = sum(self.levels(name, round_).astype(np.uint64) for name in names)
        summed = dequantise_sum((total % (1 << bits)).astype(np.uint32), grid_of(self.study), bits)
        return summed / np.float32(len(names))

    def coordinators_view(self):
        """All that a coordinator has: (where, bytes), its messages, folders and log."""
        for number, message in enumerate(self.grid.received):
            yield f"message {number}", content_of(message)
        for folder in (self.run.path, self.folder / "coordinator"):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    yield str(path.relative_to(self.folder)), path.read_bytes()
        yield "log", "\n".join(self.logs).encode()
