"""The coordinator as Flower's ServerApp, and its mail over any Flower grid."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from common.errors import FederationError, FednerError, FlowerEndedError
from common.io.flower_internals import LOST_CODES, Gone, ReplyParts, superlink_reached
from common.io.standing import Standing
from common.transport import RelayRefusal, group_of
from common.wire import Kind
from server.approvals import Approvals, ApprovedMail
from server.book_place import open_book
from server.coordinator import Coordinator
from server.exchange import NodeExchange
from server.mail import Letter, Lost, Mail
from server.nodes import owners_of
from server.origin import COORDINATOR_LOCK, PREDECESSOR_LIMIT_S, Origin, alone, end_with_server
from server.records import Kind as FlowerKind
from server.records import Refusal, reply_bytes, request_messages
from server.run_dir import LOG, RunDir
from server.standing import standing_of

log = logging.getLogger("fedner.server")

_FLOWER_KIND: Final[Mapping[Kind, FlowerKind]] = {
    "hello": "query",
    "train": "train",
    "evaluate": "evaluate",
    "sum": "query",
}


_ON_THE_WAY: Final = frozenset(
    [f"flower-error-{code}" for code in LOST_CODES]
    + [str(RelayRefusal.UNREACHABLE), str(RelayRefusal.TIMEOUT)]
)


class Replies(Protocol):
    """How replies come off a grid."""

    def pull(self, messages: Collection[str], most: int) -> Iterable[tuple[str, Message | Gone]]:
        """What is whole by now, with the message that it answers, one after the other."""

    def drop(self, messages: Collection[str]) -> None:
        """Forget what has come of these replies."""


class WholeReplies:
    """Of a grid in this process, which has them whole."""

    def __init__(self, grid: Grid):
        self._grid = grid

    def pull(self, messages: Collection[str], _most: int) -> Iterator[tuple[str, Message | Gone]]:
        """With the message that each answers."""
        for asked in messages:
            for message in self._grid.pull_messages([asked]):
                yield asked, message

    def drop(self, messages: Collection[str]) -> None:
        """Nothing is kept."""


class GridMail:
    """`server.mail.Mail` over a Flower grid.

    Args:
        replies: of a grid that has them in parts; one in this process has them whole.
    """

    def __init__(self, grid: Grid, replies: Replies | None = None):
        self._grid = grid
        self._replies = replies or WholeReplies(grid)

    def online(self) -> Collection[int]:
        """Nodes that can be reached."""
        with superlink_reached():
            return frozenset(self._grid.get_node_ids())

    def send(
        self, kind: Kind, round_: int, requests: Mapping[int, Letter], ttl: float, most: int
    ) -> list[str]:
        """Send each node its request; a message's id for each, empty where it was not sent.

        Requests that differ are made one after the other: each has the model in it.
        """
        alike: dict[Letter, list[int]] = {}
        for node, letter in requests.items():
            alike.setdefault(letter, []).append(node)
        sent: dict[int, str] = {}
        for letter, nodes in alike.items():
            group = group_of(round_, most)
            messages = request_messages(bytes(letter), nodes, _FLOWER_KIND[kind], group, ttl)
            with superlink_reached():
                pushed = set(self._grid.push_messages(messages))
            for node, message in zip(nodes, messages, strict=True):
                name = message.metadata.message_id
                sent[node] = name if name in pushed else ""
            del messages, message  # before the next are made
        return [sent[node] for node in requests]

    def fetch(self, messages: Collection[str], most: int) -> Iterator[tuple[str, bytes | Lost]]:
        """What is whole since, with the message that it answers."""
        found = iter(self._replies.pull(messages, most))
        while True:
            with superlink_reached():
                whole = next(found, None)
            if whole is None:
                return
            asked, message = whole
            whole = None
            answer = _answer(message, most)
            del message
            yield asked, answer
            del answer

    def drop(self, messages: Collection[str]) -> None:
        """Nobody awaits an answer to these any more."""
        self._replies.drop(messages)


def _answer(message: Message | Gone, most: int) -> bytes | Lost:
    if message is Gone.LOST:
        log.warning("a reply was begun, and its parts are lost or make no message")
        return Lost.ON_THE_WAY
    data = Gone.TOO_LARGE if message is Gone.TOO_LARGE else reply_bytes(message)
    if data is Gone.TOO_LARGE or (isinstance(data, bytes) and len(data) > most):
        log.warning("a reply is larger than any can be, %d bytes, and was not taken", most)
        return Lost.TOO_LARGE
    if not isinstance(data, Refusal):
        return data
    log.warning("node %d: %s", message.metadata.src_node_id, data.code)
    return Lost.ON_THE_WAY if data.code in _ON_THE_WAY else Lost.FAILED


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study of the folder that the run configuration names."""
    run = RunDir(Path(str(context.run_config["run-dir"])))
    end_with_server(run)
    with _ending(run):
        run.log_here()
        owners = owners_of(run)
        approvals = None if owners is None else Approvals(Path(Origin.read(run).federation))
    run_study(grid, run, owners=owners, approvals=approvals, replies=ReplyParts(grid))


def run_study(
    grid: Grid,
    run: RunDir,
    on_event: Callable[[str, Mapping[str, object]], None] | None = None,
    home: Path | None = None,
    standing: Standing | None = None,
    owners: Mapping[int, str] | None = None,
    replies: Replies | None = None,
    approvals: Approvals | None = None,
) -> None:
    """Run a study over a grid, or go on with it, from `running` to `finished` or `failed`.

    Args:
        home: folder of the coordinator's key and of what it has countersigned;
            `common.io.home.coordinator_state()` if absent.
        standing: in a study with secure aggregation; what the run's folder names if absent.
        owners: institution by node id, where nodes authenticate.
        replies: of a grid that has them in parts.
        approvals: which of these institutions take part now.

    Raises:
        FederationError: another process carries it out, or it could not be carried through.
    """
    with alone(run, COORDINATOR_LOCK, PREDECESSOR_LIMIT_S):
        _run_alone(GridMail(grid, replies), run, on_event, home, standing, owners, approvals)


def _run_alone(
    mail: Mail,
    run: RunDir,
    on_event: Callable[[str, Mapping[str, object]], None] | None,
    home: Path | None,
    standing: Standing | None,
    owners: Mapping[int, str] | None,
    approvals: Approvals | None,
) -> None:
    with _ending(run):
        run.set_status("running")
        study = run.study()
        torn = run.mend()
        if torn:
            log.warning("the metrics' last line, %d bytes, was unfinished: metrics.torn", torn)
            run.record("torn", study, bytes=torn)

        def on_seen(name: str, state: str) -> None:
            coordinator.seen(name, state)

        book = None
        if study.local_privacy is not None:
            book = open_book(run, home)
        if approvals is not None:
            mail = ApprovedMail(mail, approvals, owners or {}, on_seen)
        exchange = NodeExchange(mail, study, on_seen=on_seen, owners=owners)
        standing = standing or standing_of(run)
        coordinator = Coordinator(study, exchange, run, on_event, book, standing)
        coordinator.run()
        run.set_status("finished")


@contextmanager
def _ending(run: RunDir) -> Iterator[None]:
    """What ends the block by an error ends the run, and is told in its status."""
    try:
        yield
    except FednerError as error:
        _end(run, "lost" if isinstance(error, FlowerEndedError) else "failed", str(error))
        raise
    except Exception as error:
        log.critical("not foreseen, the run ends", exc_info=error)
        _end(run, "failed", _unforeseen(run, error))
        raise
    except BaseException as error:  # interrupted
        _end(run, "failed", type(error).__name__)
        raise


def _end(run: RunDir, state: str, message: str) -> None:
    """Tell how it ended; a disk that does not take that is no other end."""
    try:
        run.set_status(state, message)
    except FederationError as error:
        log.critical("the run's end is not in its status: %s", error)


def _unforeseen(run: RunDir, error: Exception) -> str:
    """What a person is told, whom the traceback does not reach."""
    known = FederationError(
        f"{type(error).__name__}, which fedner did not foresee",
        place=str(run.path / LOG),
        remedy="its end has the traceback: mend what it names (memory, disk), and `fedner server "
        f"--resume {run.path}`; if it comes again, it is a fault of fedner's: report it",
    )
    return str(known)
