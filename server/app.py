"""The coordinator as Flower's ServerApp, and its mail over any Flower grid."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import FednerError
from common.io.flower_internals import PullBound, bound_pulls, shorten_object_backoff
from common.io.home import fedner_home
from common.io.standing import Standing
from common.wire import Kind
from server.coordinator import Coordinator
from server.exchange import NodeExchange
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


class GridMail:
    """`server.greeting.Mail` over a Flower grid.

    Args:
        bound: of a grid that pulls replies in parts; one in this process has them whole.
    """

    def __init__(self, grid: Grid, bound: PullBound | None = None):
        self._grid = grid
        self._bound = bound or PullBound()

    def online(self) -> Collection[int]:
        """Nodes that can be reached."""
        return frozenset(self._grid.get_node_ids())

    def send(self, kind: Kind, round_: int, requests: Mapping[int, bytes], ttl: float) -> list[str]:
        """Send each node its request; a message's id for each, empty where it was not sent."""
        alike: dict[bytes, list[int]] = {}
        for node, request in requests.items():
            alike.setdefault(request, []).append(node)
        messages = [
            message
            for request, nodes in alike.items()
            for message in request_messages(request, nodes, _FLOWER_KIND[kind], str(round_), ttl)
        ]
        pushed = set(self._grid.push_messages(messages))
        sent = {m.metadata.dst_node_id: m.metadata.message_id for m in messages}
        return [sent[node] if sent[node] in pushed else "" for node in requests]

    def fetch(self, messages: Collection[str], within_s: float) -> dict[str, bytes | None]:
        """What came back since, by message; `None` for an error, which is logged."""
        self._bound.within(within_s)
        found: dict[str, bytes | None] = {}
        for message in self._grid.pull_messages(set(messages)):
            data = reply_bytes(message)
            if isinstance(data, Refusal):
                log.warning("node %d: %s", message.metadata.src_node_id, data.code)
            asked = message.metadata.reply_to_message_id
            found[asked] = None if isinstance(data, Refusal) else data
        return found


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
    run_study(grid, run, owners=owners, bound=bound_pulls())


def run_study(
    grid: Grid,
    run: RunDir,
    on_event: Callable[[str, Mapping[str, object]], None] | None = None,
    home: Path | None = None,
    standing: Standing | None = None,
    owners: Mapping[int, str] | None = None,
    bound: PullBound | None = None,
) -> None:
    """Run a study over a grid, or go on with it, from `running` to `finished` or `failed`.

    Args:
        home: folder of the coordinator's key and of what it has countersigned;
            `$FEDNER_HOME/coordinator` if absent.
        standing: in a study with secure aggregation; what the run's folder names if absent.
        owners: institution by node id, where nodes authenticate.
        bound: of the replies that this grid pulls in parts.

    Raises:
        FederationError: another process carries it out, or it could not be carried through.
    """
    with alone(run, COORDINATOR_LOCK, PREDECESSOR_LIMIT_S):
        _run_alone(GridMail(grid, bound), run, on_event, home, standing, owners)


def _run_alone(
    mail: GridMail,
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
        exchange = NodeExchange(mail, study, on_seen=on_seen, owners=owners)
        standing = standing or standing_of(run)
        Coordinator(study, exchange, run, on_event, book, standing).run()
    except FednerError as error:
        run.set_status("failed", str(error))
        raise
    except BaseException as error:
        run.set_status("failed", type(error).__name__)
        raise
    run.set_status("finished")
