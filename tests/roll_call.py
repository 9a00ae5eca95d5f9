"""Institutions as nodes of a grid in this process; time passes only while somebody waits."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from flwr.app import Message

from client.app import make_app
from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.study import Study
from common.io.flower_internals import LocalGrid
from common.wire import Reply, Request, decode_request, encode
from server.app import GridMail
from server.exchange import NodeExchange
from server.greeting import Pace

DEADLINE_S = 60


def a_study(names: str = "north, south") -> Study:
    """Of these institutions."""
    return parse_study(
        f"""\
study: rejoin
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
training: {{rounds: 2, learning_rate: 1e-3}}
federation: {{institutions: [{names}], deadline_s: {DEADLINE_S}}}
privacy: none
secure_aggregation: none
""",
        "study.yaml",
    )


STUDY = a_study()
HASH = study_hash(STUDY)
FACTS = {"version": "1", "dimension": 1, "layout": "l", "initial": "i", "encoder": "e"}
HELLO = encode(Request(kind="hello", study=HASH, round=0))
TRAIN = encode(Request(kind="train", study=HASH, round=1))
ALL = dict.fromkeys(("north", "south"), TRAIN)


class Time:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Return at once, later."""
        self.now += seconds


class Grid(LocalGrid):
    """Seats in order of the nodes: `online` can be seen, `slow` answer so many seconds later, and
    nobody before it is `awake`. Who is in `halves` begins a reply and never ends it: whoever
    fetches it waits as long as it may.

    `failing` answer with an error, as a relay without its worker does. `sent` has the kind and the
    seat of all that was sent, and when.
    """

    online: tuple[int, ...] = ()

    def __enter__(self) -> "Grid":
        super().__enter__()
        self.time = Time()
        self.slow: dict[int, float] = {}
        self.awake: dict[int, float] = {}
        self.halves: set[int] = set()
        self.sent: list[tuple[str, int, float]] = []
        self._ready: dict[str, float] = {}
        self._to: dict[str, int] = {}
        return self

    def seat(self, node: int) -> int:
        """Of a node."""
        return super().get_node_ids().index(node)

    def get_node_ids(self) -> list[int]:
        ids = super().get_node_ids()
        return [ids[i] for i in self.online]

    def _push(self, message: Message) -> str:
        message_id = super()._push(message)
        seat = self.seat(message.metadata.dst_node_id)
        ready = max(self.time.now + self.slow.get(seat, 0.0), self.awake.get(seat, 0.0))
        expired = ready > self.time.now + message.metadata.ttl
        self._ready[message_id] = float("inf") if expired else ready
        self._to[message_id] = seat
        self.sent.append((message.metadata.message_type, seat, self.time.now))
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return super().pull_messages(i for i in message_ids if self._is_ready(i))

    def halved(self, message_ids: Iterable[str]) -> list[str]:
        """Those whose reply has begun and will not end."""
        return [i for i in message_ids if self._to[i] in self.halves and self._is_ready(i)]

    def _is_ready(self, message_id: str) -> bool:
        return self._ready[message_id] <= self.time.now

    def hellos(self, seat: int) -> list[float]:
        """When a seat was greeted."""
        return [when for kind, to, when in self.sent if (kind, to) == ("query", seat)]


class Mail(GridMail):
    """Over such a grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._seats = grid

    def fetch(self, messages: Collection[str], within_s: float) -> dict[str, bytes | None]:
        halves = self._seats.halved(messages)
        found = super().fetch([m for m in messages if m not in halves], within_s)
        if halves:
            self._seats.time.sleep(within_s + 0.01)  # no clock is exact
        return {**found, **dict.fromkeys(halves)}


def _answer(config: dict[str, str], data: bytes) -> bytes:
    if config.get("failing"):
        raise OSError
    request = decode_request(data)
    return encode(
        Reply(
            kind=request.kind,
            study=config.get("study", HASH),
            round=request.round,
            institution=config["name"],
            refusal=config.get("refusal", ""),
            facts={**FACTS, "encoder": config.get("encoder", "e")}
            if request.kind == "hello"
            else {},
            body=config["seat"].encode() if request.kind == "train" else b"",
        )
    )


@contextmanager
def a_federation(
    *nodes: dict[str, str], owners: tuple[str, ...] | None = None
) -> Iterator[tuple[Grid, NodeExchange, list[str]]]:
    """A grid, an exchange over it, and what was said of nodes.

    Args:
        owners: institutions with whose keys the nodes have authenticated, by seat.
    """
    configs = [{"seat": str(i), **node} for i, node in enumerate(nodes)]
    app = make_app(lambda context: lambda data: _answer(dict(context.node_config), data))
    seen: list[str] = []
    with Grid(app, configs, {}) as grid:
        ids = LocalGrid.get_node_ids(grid)
        exchange = NodeExchange(
            Mail(grid),
            STUDY,
            on_seen=lambda name, state: seen.append(f"{name}: {state}"),
            owners=None if owners is None else dict(zip(ids, owners, strict=False)),
            pace=Pace(sleep=grid.time.sleep, clock=grid.time.clock),
        )
        yield grid, exchange, seen
