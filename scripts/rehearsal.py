"""`fedner client --rehearse`: a round of the real study with made-up documents, on this machine.

Real are the study, the site's policy, encoder and device, its worker as a process, the relay's
code, Flower's messages and the coordinator's code. Made up are documents, ledger, and, in a study
with secure aggregation, identities and roster, since nobody has the others' keys. The other
institutions are sessions in this process. The socket lies in a temporary folder: on the site's own,
the real worker could be asked by the rehearsal, or the rehearsal's by the real relay.

Guarantees:
    - No budget is spent: the site's ledger, vault and all else below `state` stay as they are, byte
      for byte, or the rehearsal fails. Its documents are not opened.
    - Nothing leaves the machine: no process opens a network socket.
    - The site's policy decides first, with the facts of a real start.
    - What was not rehearsed is said.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from client.app import app as relay
from client.session import Session
from client.site_paths import SitePaths
from client.supervisor import listens, worker_environment
from common.config.canonical import study_yaml
from common.config.secagg import SecureAggregation
from common.config.site import Site
from common.errors import FederationError, UsageError
from common.io.configs import load_study
from common.io.flower_internals import LocalGrid
from common.io.processes import Child, module_command, stopping
from common.io.standing import institution_standing
from common.privacy.plan import evaluation_due
from common.wire import Kind, Reply, decode_reply
from scripts.rehearsal_stage import Stage
from scripts.simulation import COORDINATOR
from server.coordinator import Coordinator
from server.mail import Leaving, Letter, Take
from server.receipts import ReceiptBook
from server.records import Refusal, reply_bytes, request_messages
from server.run_dir import RunDir

Tell = Callable[[str], None]


class _EnoughError(Exception):
    """The coordinator asks for more than is rehearsed."""


def rehearse(site: Site, site_path: Path, tell: Tell) -> None:
    """Hello, a round of training, and an evaluation.

    Args:
        tell: shown to the user, line by line.

    Raises:
        FednerError: what would have failed with the real documents as well, or the state is not
            as it was.
    """
    base = site_path.parent
    study, paths = load_study(base / site.study), SitePaths.of(site, base)
    before = digests(paths.state)
    if study.secure is not None:
        _require_own_roster(study.secure)
        institution_standing(site, base, study)
        tell("identity and roster stand; the rehearsal's own, made up, are in their place")
    if site.relay_group is not None:
        tell(f"not rehearsed: the relay as another user, through the group {site.relay_group}")
    with tempfile.TemporaryDirectory(prefix="fedner-rehearsal-") as name, ExitStack() as stack:
        stage = Stage.set_up(study, site.institution, Path(name))
        place = stage.folder / "worker" / "socket"
        stack.enter_context(_worker(site_path, stage, place, site.start_limit_s, tell))
        parties = {site.institution: stack.enter_context(through_relay(site.institution, place))}
        parties |= {p: stack.enter_context(_peer(stage, p)) for p in stage.peers}
        _play(stage, parties, tell)
    _require_untouched(paths.state, before, tell)


def _require_own_roster(section: SecureAggregation) -> None:
    if section.roster_sha256 is not None:
        raise UsageError(
            "the study names its roster, whose keys a rehearsal does not have",
            place="secure_aggregation.roster_sha256",
            remedy="look at the parts with `fedner doctor`; the start itself is not affected",
        )


@contextmanager
def _worker(
    site_path: Path, stage: Stage, place: Path, limit_s: float, tell: Tell
) -> Iterator[None]:
    """The worker's process, once it listens."""
    started = time.monotonic()
    pairs = [word for pair in stage.labels.items() for word in ("--label", "=".join(pair))]
    given = (str(site_path.absolute()), str(stage.folder), str(place), *pairs)
    worker = Child(
        "worker", module_command("scripts.rehearsal_worker", *given), worker_environment()
    )
    with stopping(worker):
        worker.start()
        while not listens(place):
            if worker.exit_code is not None:
                raise FederationError(
                    f"the worker did not start (exit code {worker.exit_code})",
                    remedy="read what it said above; `fedner doctor` looks at each part by itself",
                )
            if time.monotonic() - started > limit_s:
                raise FederationError(
                    f"the worker is not ready after {limit_s:.0f} s",
                    remedy="what it said above is what it is at; if that needs longer, a larger "
                    "`start_limit_s` in the site file",
                )
            time.sleep(0.1)
        tell(f"{_took(started)}  worker ready on {place}")
        yield


Party = Callable[[Kind, bytes], bytes]
"""How an institution is asked."""


@contextmanager
def through_relay(name: str, place: Path) -> Iterator[Party]:
    """The institution behind the relay that Flower would run, in Flower's messages."""
    nodes = [{"institution": name, "socket": str(place)}]
    with LocalGrid(relay, nodes, {}) as grid:

        def ask(kind: Kind, request: bytes) -> bytes:
            to = "train" if kind == "train" else "evaluate" if kind == "evaluate" else "query"
            (message,) = request_messages(request, grid.get_node_ids(), to, "1", 3600.0)
            (answer,) = grid.send_and_receive([message])
            data = reply_bytes(answer)
            if isinstance(data, Refusal):
                raise FederationError(
                    f"the relay had no reply of the worker: {data.code}",
                    place=str(place),
                    remedy="read what the worker said above",
                )
            return data

        yield ask


@contextmanager
def _peer(stage: Stage, name: str) -> Iterator[Party]:
    state = stage.folder / name / "state"
    session: Session = stage.bench.session(name, stage.model, state, cast=stage.cast)
    try:
        yield lambda _kind, request: session.handle(request)
    finally:
        session.close()


class _LocalExchange:
    """Implements `server.asking.Exchange` over parties of this machine.

    Args:
        rounds: that are rehearsed; beyond them it is enough.
    """

    def __init__(self, parties: Mapping[str, Party], rounds: int):
        self._parties, self._rounds = parties, rounds

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask all, once."""
        answers = {name: ask("hello", request) for name, ask in self._parties.items()}
        enough({name: decode_reply(data) for name, data in answers.items()})

    def present(self) -> Collection[str]:
        """All."""
        return frozenset(self._parties)

    def ask(
        self,
        kind: Kind,
        round_: int,
        requests: Mapping[str, Letter],
        _most: int,
        take: Take,
        leaving: Leaving,
    ) -> None:
        """Ask one after the other."""
        if round_ > self._rounds:
            raise _EnoughError
        leaving()
        for name, letter in requests.items():
            if name in self._parties:
                take(name, self._parties[name](kind, bytes(letter)))


def _play(stage: Stage, parties: Mapping[str, Party], tell: Tell) -> None:
    """Round 1, then, if the study does not evaluate after it, the first evaluation that is due."""
    run = RunDir.create(stage.folder / "run", study_yaml(stage.study))
    rounds = range(1, stage.study.training.rounds + 1)
    due = next(r for r in rounds if evaluation_due(stage.study, r))
    _coordinate(stage, run, parties, 1, tell)
    if due > 1:
        _skip_to(run, stage, due)
        _coordinate(stage, run, parties, due, tell)
    events = run.events("evaluation") + run.events("evaluation_missing")
    if not run.events("round") or not events:
        raise FederationError("no whole round was rehearsed", remedy="read what was said above")


def _coordinate(
    stage: Stage, run: RunDir, parties: Mapping[str, Party], rounds: int, tell: Tell
) -> None:
    """The coordinator's own code, up to a round."""
    clock = [time.monotonic()]

    def on_event(event: str, figures: Mapping[str, Any]) -> None:
        said = _said(event, figures, stage)
        if said:
            tell(f"{_took(clock[0])}  {said}")
            clock[0] = time.monotonic()

    private = stage.study.local_privacy is not None
    book = ReceiptBook(stage.folder / COORDINATOR) if private else None
    standing = None if stage.cast is None else stage.cast.standing
    exchange = _LocalExchange(parties, rounds)
    coordinator = Coordinator(stage.study, exchange, run, on_event, book, standing)
    with suppress(_EnoughError):
        coordinator.run()


def _said(event: str, figures: Mapping[str, Any], stage: Stage) -> str:
    own = f"{stage.name} through relay and socket"
    peers = f", {len(stage.peers)} made-up ones in this process" if stage.peers else ""
    how = "; summed securely" if stage.cast is not None else ""
    match event:
        case "start":
            return f"hello: {own}{peers}; {figures['dimension']:,} trained weights"
        case "round" if figures["round"] == 1:
            return f"train: {', '.join(figures['institutions'])}{how}"
        case "evaluation":
            return f"evaluate: after round {figures['round']}{how}"
        case "evaluation_missing":
            return f"not rehearsed: the evaluation: {figures['reason']}"
        case "refusal":
            return f"{figures['institution']} refused {figures['asked']}: {figures['code']}"
    return ""


def _skip_to(run: RunDir, stage: Stage, round_: int) -> None:
    """As if the rounds up to this one had gone by."""
    found = run.checkpoint(stage.study.aggregation, stage.model.layout.size)
    if found is None:
        raise FederationError("round 1 left no checkpoint", remedy="read what was said above")
    figures = {**found.figures, "round": round_}
    run.save_checkpoint(found.optimizer, round_, figures)


def digests(state: Path) -> dict[str, str]:
    """SHA-256 of every file below a site's `state`, but of the socket's folder."""
    return {
        str(path.relative_to(state)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(state.rglob("*"))
        if path.is_file() and path.relative_to(state).parts[0] != "worker"
    }


def _require_untouched(state: Path, before: Mapping[str, str], tell: Tell) -> None:
    after = digests(state)
    changed = sorted(p for p in before.keys() | after if before.get(p) != after.get(p))
    if changed:
        raise FederationError(
            f"changed while the rehearsal ran: {', '.join(changed)}",
            place=str(state),
            remedy="does another fedner run here? it is a fault of the rehearsal otherwise: report",
        )
    tell(f"untouched: {len(before)} files of ledger, vault and all else in {state}")


def _took(started: float) -> str:
    return f"{time.monotonic() - started:7.1f} s"
