"""The coordinator as Flower's ServerApp, and its exchange over any Flower grid."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import FednerError, ProtocolError
from common.io.flower_internals import shorten_object_backoff
from common.io.home import fedner_home
from common.io.standing import Standing
from common.wire import Kind, Reply, decode_reply
from common.wire import Refusal as ProtocolRefusal
from server.coordinator import Coordinator
from server.nodes import owners_of
from server.origin import COORDINATOR_LOCK, PREDECESSOR_LIMIT_S, alone, end_with_server
from server.receipts import ReceiptBook
from server.records import Kind as FlowerKind
from server.records import Refusal, reply_bytes, request_messages
from server.run_dir import RunDir
from server.standing import standing_of

log = logging.getLogger("fedner.server")

_FLOWER_KIND: Final[Mapping[Kind, FlowerKind]] = {
    "hello": "query",
    "train": "train",
    "evaluate": "evaluate",
    "sum": "query",
}
_TRIES: Final = 3
_DISCOVER_PAUSE_S: Final = 1.0
_HELLO_LIMIT_S: Final = 120.0
_FINAL: Final = frozenset({ProtocolRefusal.POLICY.value, ProtocolRefusal.STUDY.value})
"""Refusals of a `hello` that stay the same until the institution is started anew."""


class GridExchange:
    """Requests over a Flower grid, with deadline, and the same bytes again after a failure.

    An institution that comes back as another node is found again before the next request. A node
    that was not taken in is asked anew once it has been away: it may have been mended.

    Where nodes authenticate, one is taken in only under the name of the institution whose key it
    has, and what it says under another name counts for nobody.

    Args:
        poll_s: pause between two looks for replies.
        on_seen: told an institution's name and `joined`, `back`, or why it is not taken in.
        owners: institution by node id, where nodes authenticate.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        poll_s: float = 0.1,
        on_seen: Callable[[str, str], None] | None = None,
        owners: Mapping[int, str] | None = None,
    ):
        self._grid = grid
        self._study = study_hash(study)
        self._roster = study.federation.institutions
        self._required = study.federation.required
        self._deadline_s = study.federation.deadline_s
        self._poll_s = poll_s
        self._on_seen = on_seen or (lambda _name, _state: None)
        self._owners = owners
        self._hello = b""
        self._nodes: dict[int, str] = {}
        self._refused: set[int] = set()
        self._final: set[str] = set()
        self._facts: dict[str, object] = {}
        self._started = False

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask every node its name until `enough` is satisfied or the deadline has passed.

        A name off the roster, or one that another living node has, is logged and not taken in. Nor
        is anyone waited for when all others have answered or refused finally, or when those who
        have refused leave too few for the quorum.
        """
        deadline = time.monotonic() + self._deadline_s
        self._hello = request
        while not enough(self._greet(deadline)) and not self._hopeless():
            if time.monotonic() >= deadline:
                break
            time.sleep(_DISCOVER_PAUSE_S)

    def _hopeless(self) -> bool:
        here = set(self._nodes.values())
        refused = self._final - here
        left = len(self._roster) - len(refused)
        return bool(refused) and (left < self._required or left == len(here))

    def present(self) -> frozenset[str]:
        """Institutions taken in whose nodes are online."""
        self._greet(time.monotonic() + self._deadline_s)
        online = set(self._grid.get_node_ids())
        return frozenset(name for node, name in self._nodes.items() if node in online)

    def ask(self, kind: Kind, round_: int, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        """Send each institution its request; what came back before the deadline, by name."""
        self._started = True
        deadline = time.monotonic() + self._deadline_s
        replies: dict[str, bytes] = {}
        for attempt in range(_TRIES):
            self._greet(deadline)
            left = {
                node: requests[name]
                for node, name in self._nodes.items()
                if name in requests and name not in replies
            }
            if not left or (attempt and time.monotonic() > deadline):
                break
            if attempt:
                log.warning("round %d: asking %d nodes again for %s", round_, len(left), kind)
            answers = self._once(kind, str(round_), left, deadline)
            replies |= {self._nodes[node]: data for node, data in answers.items()}
        late = [name for name in self._roster if name in requests and name not in replies]
        if late:
            log.warning("round %d: no reply to %s from %s", round_, kind, ", ".join(late))
        return replies

    def _greet(self, deadline: float) -> dict[str, Reply]:
        """Say hello to nodes not known yet; who was taken in."""
        online = set(self._grid.get_node_ids())
        self._refused &= online
        new = sorted(online - self._nodes.keys() - self._refused)
        limit = min(deadline, time.monotonic() + _HELLO_LIMIT_S)
        answers = self._once("hello", "0", dict.fromkeys(new, self._hello), limit) if new else {}
        replies = (self._introduce(node, answers[node], online) for node in sorted(answers))
        return {reply.institution: reply for reply in replies if reply is not None}

    def _introduce(self, node: int, data: bytes, online: set[int]) -> Reply | None:
        try:
            reply = decode_reply(data)
        except ProtocolError as error:
            log.warning("node %d: %s", node, error.message)
            self._refused.add(node)
            return None
        name = reply.institution
        if self._is_anothers(node, name):
            return None
        problem = self._problem(reply)
        before = next((n for n, other in self._nodes.items() if other == name), None)
        if problem:
            self._refused.add(node)
            if problem in _FINAL and name in self._roster:
                self._final.add(name)
        elif before is not None and before in online:
            problem = "another node has this name"
        if problem:
            log.warning("node %d, %s, is not taken in: %s", node, name, problem)
            self._on_seen(name, problem)
            return None
        if before is not None:
            del self._nodes[before]
        self._nodes[node] = name
        self._final.discard(name)
        self._facts = self._facts or reply.facts
        log.info("%s is %s", name, "here" if before is None else "back")
        self._on_seen(name, "joined" if before is None else "back")
        return reply

    def _is_anothers(self, node: int, name: str) -> bool:
        """Whether a node claims a name that its key does not have; it is then named and refused."""
        if self._owners is None or self._owners.get(node) == name:
            return False
        owner = self._owners.get(node, f"node {node}")
        self._refused.add(node)
        log.warning("node %d, of %s, is not taken in: it claims to be %s", node, owner, name)
        self._on_seen(owner, f"claims to be {name}")
        return True

    def _problem(self, reply: Reply) -> str:
        if reply.refusal:
            return reply.refusal
        if reply.kind != "hello" or reply.round != 0 or reply.study != self._study:
            return "answered something else"
        if reply.institution not in self._roster:
            return "not on the roster"
        fixed = self._started or reply.institution in self._nodes.values()
        return "came with another model" if fixed and reply.facts != self._facts else ""

    def _once(
        self, kind: Kind, group: str, requests: Mapping[int, bytes], deadline: float
    ) -> dict[int, bytes]:
        ttl = max(1.0, deadline - time.monotonic())
        alike: dict[bytes, list[int]] = {}
        for node, request in requests.items():
            alike.setdefault(request, []).append(node)
        messages = [
            message
            for request, nodes in alike.items()
            for message in request_messages(request, nodes, _FLOWER_KIND[kind], group, ttl)
        ]
        pending = set(self._grid.push_messages(messages))
        replies: dict[int, bytes] = {}
        while pending:
            for message in self._grid.pull_messages(pending):
                pending.discard(message.metadata.reply_to_message_id)
                data = reply_bytes(message)
                if isinstance(data, Refusal):
                    log.warning("node %d: %s", message.metadata.src_node_id, data.code)
                else:
                    replies[message.metadata.src_node_id] = data
            if time.monotonic() > deadline:
                break
            if pending:
                time.sleep(self._poll_s)
        return replies


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study of the folder that the run configuration names."""
    run = RunDir(Path(str(context.run_config["run-dir"])))
    end_with_server(run)
    run.log_here()
    shorten_object_backoff()
    try:
        owners = owners_of(run)
    except FednerError as error:
        run.set_status("failed", str(error))
        raise
    run_study(grid, run, owners=owners)


def run_study(
    grid: Grid,
    run: RunDir,
    on_event: Callable[[str, Mapping[str, object]], None] | None = None,
    home: Path | None = None,
    standing: Standing | None = None,
    owners: Mapping[int, str] | None = None,
) -> None:
    """Run a study over a grid, or go on with it, from `running` to `finished` or `failed`.

    Args:
        home: folder of the coordinator's key and of what it has countersigned;
            `$FEDNER_HOME/coordinator` if absent.
        standing: in a study with secure aggregation; what the run's folder names if absent.
        owners: institution by node id, where nodes authenticate.

    Raises:
        FederationError: another process carries it out, or it could not be carried through.
    """
    with alone(run, COORDINATOR_LOCK, PREDECESSOR_LIMIT_S):
        _run_alone(grid, run, on_event, home, standing, owners)


def _run_alone(
    grid: Grid,
    run: RunDir,
    on_event: Callable[[str, Mapping[str, object]], None] | None,
    home: Path | None,
    standing: Standing | None,
    owners: Mapping[int, str] | None,
) -> None:
    run.set_status("running")
    try:
        study = run.study()
        torn = run.mend()
        if torn:
            log.warning("the metrics' last line, %d bytes, was unfinished: metrics.torn", torn)
            run.record("torn", study, bytes=torn)

        def on_seen(name: str, state: str) -> None:
            run.record("institution", study, name=name, state=state)
            if on_event:
                on_event("institution", {"name": name, "state": state})

        book = None
        if study.local_privacy is not None:
            book = ReceiptBook(home or fedner_home() / "coordinator")
        exchange = GridExchange(grid, study, on_seen=on_seen, owners=owners)
        standing = standing or standing_of(run)
        Coordinator(study, exchange, run, on_event, book, standing).run()
    except FednerError as error:
        run.set_status("failed", str(error))
        raise
    except BaseException as error:
        run.set_status("failed", type(error).__name__)
        raise
    run.set_status("finished")
