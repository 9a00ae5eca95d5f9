"""The coordinator as Flower's ServerApp, and its exchange over any Flower grid."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config.study import Study
from common.errors import FednerError, ProtocolError
from common.io.flower_internals import shorten_object_backoff
from common.wire import Kind, Reply, decode_reply
from server.coordinator import Coordinator
from server.records import Refusal, reply_bytes, request_messages
from server.run_dir import RunDir

log = logging.getLogger("fedner.server")

_FLOWER_KIND: Final = {"hello": "query", "train": "train", "evaluate": "evaluate"}
_TRIES: Final = 3
_DISCOVER_PAUSE_S: Final = 1.0


class GridExchange:
    """Requests over a Flower grid, with deadline, and the same bytes again after a failure.

    Args:
        poll_s: pause between two looks for replies.
    """

    def __init__(self, grid: Grid, study: Study, poll_s: float = 0.1):
        self._grid = grid
        self._roster = study.federation.institutions
        self._deadline_s = study.federation.deadline_s
        self._poll_s = poll_s
        self._nodes: dict[int, str] = {}

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask every node its name until `enough` is satisfied or the deadline has passed.

        A name off the roster, or one that another node already has, is logged and ignored.
        """
        deadline = time.monotonic() + self._deadline_s
        refused: set[int] = set()
        while True:
            new = [
                n
                for n in self._grid.get_node_ids()
                if n not in self._nodes | dict.fromkeys(refused)
            ]
            replies: dict[str, Reply] = {}
            for node, data in self._collect("hello", "0", request, new, deadline).items():
                reply = self._introduce(node, data)
                if reply is None:
                    refused.add(node)
                else:
                    replies[reply.institution] = reply
            if enough(replies) or time.monotonic() > deadline:
                return
            time.sleep(_DISCOVER_PAUSE_S)

    def ask(self, kind: Kind, round_: int, request: bytes) -> dict[str, bytes]:
        """Send to all known institutions; what came back before the deadline, by institution."""
        deadline = time.monotonic() + self._deadline_s
        replies = self._collect(kind, str(round_), request, list(self._nodes), deadline)
        late = sorted(name for node, name in self._nodes.items() if node not in replies)
        if late:
            log.warning("round %d: no reply to %s from %s", round_, kind, ", ".join(late))
        return {self._nodes[node]: data for node, data in replies.items()}

    def _introduce(self, node: int, data: bytes) -> Reply | None:
        try:
            reply = decode_reply(data)
        except ProtocolError as error:
            log.warning("node %d: %s", node, error.message)
            return None
        name = reply.institution
        if reply.refusal:
            log.warning("%s refused the study: %s", name, reply.refusal)
            return None
        if name not in self._roster or name in self._nodes.values():
            log.warning("node %d calls itself %r: not on the roster, or already here", node, name)
            return None
        self._nodes[node] = name
        log.info("%s is here", name)
        return reply

    def _collect(
        self, kind: Kind, group: str, request: bytes, nodes: list[int], deadline: float
    ) -> dict[int, bytes]:
        replies: dict[int, bytes] = {}
        for attempt in range(_TRIES):
            left = [node for node in nodes if node not in replies]
            if not left or (attempt and time.monotonic() > deadline):
                break
            if attempt:
                log.warning("asking %d nodes again for %s of round %s", len(left), kind, group)
            replies.update(self._once(kind, group, request, left, deadline))
        return replies

    def _once(
        self, kind: Kind, group: str, request: bytes, nodes: list[int], deadline: float
    ) -> dict[int, bytes]:
        ttl = max(1.0, deadline - time.monotonic())
        messages = request_messages(request, nodes, _FLOWER_KIND[kind], group, ttl)  # type: ignore[arg-type]
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
    run.log_here()
    shorten_object_backoff()
    run_study(grid, run)


def run_study(
    grid: Grid, run: RunDir, on_event: Callable[[str, Mapping[str, object]], None] | None = None
) -> None:
    """Run a study over a grid, from `running` to `finished` or `failed`."""
    run.set_status("running")
    try:
        study = run.study()
        Coordinator(study, GridExchange(grid, study), run, on_event).run()
    except FednerError as error:
        run.set_status("failed", str(error))
        raise
    except BaseException as error:
        run.set_status("failed", type(error).__name__)
        raise
    run.set_status("finished")
