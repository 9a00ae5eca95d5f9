"""Institutions as nodes of a grid in this process; time passes only while somebody waits."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from flwr.app import Error, Message

from client.app import make_app
from client.relay import WorkerError
from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.study import Study
from common.io.flower_internals import LocalGrid
from common.transport import RelayRefusal
from common.wire import Reply, Request, decode_request, encode
from server.app import GridMail
from server.exchange import NodeExchange
from server.mail import Leaving, Letter, Lost, Pace

DEADLINE_S = 60


def a_study(names: str = "north, south", more: str = "", deadline_s: int = DEADLINE_S) -> Study:
    """Of these institutions.

    Args:
        more: of its section `federation`.
    """
    return parse_study(
        f"""\
study: rejoin
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
training: {{rounds: 2, learning_rate: 1e-3}}
federation: {{institutions: [{names}], deadline_s: {deadline_s}{more}}}
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
ALL = dict.fromkeys(("north", "south"), Letter((TRAIN,)))
MOST = 1 << 16


class Time:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, Callable[[], object]]] = []

    def at(self, when: float, happens: Callable[[], object]) -> None:
        """Have something happen."""
        self._events.append((when, happens))

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Return at once, later."""
        self.now += seconds
        due = [event for event in self._events if event[0] <= self.now]
        self._events = [event for event in self._events if event not in due]
        for _, happens in due:
            happens()


class Grid(LocalGrid):
    """Seats in order of the nodes: `online` can be seen, `slow` answer so many seconds later, and
    nobody before it is `awake`. Who is in `halves` begins a reply and never ends it.

    As with Flower, a message, and its reply with it, is gone when whoever fetches it finds that its
    time is over (error 3) or its node away (error 5); a reply that has begun is neither.

    Nodes `large` answer such a request with more bytes than a reply has.
    Nodes `failing`, or one that `fails` at a kind of request, answer with an error; one that has
    `lost` such a request does as a relay without its worker. `sent` has the kind and the
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
        self._asked: dict[str, Message] = {}
        self._ends: dict[str, float] = {}
        self._begun: set[str] = set()
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
        self._ready[message_id], self._to[message_id] = ready, seat
        self._asked[message_id] = message
        self._ends[message_id] = self.time.now + message.metadata.ttl
        self.sent.append((message.metadata.message_type, seat, self.time.now))
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for one in message_ids for reply in self._pull(one)]

    def _pull(self, message_id: str) -> list[Message]:
        if message_id in self._begun and self._to[message_id] not in self.halves:
            return super().pull_messages([message_id])
        if message_id in self._begun:
            return []
        if message_id not in self._asked or self.time.now >= self._ends[message_id]:
            return [self._lost(message_id, 3)]
        if self._to[message_id] not in self.online:
            return [self._lost(message_id, 5)]
        if self._is_ready(message_id) and self._to[message_id] in self.halves:
            self._begun.add(message_id)
            return []
        return super().pull_messages([message_id] if self._is_ready(message_id) else [])

    def _lost(self, message_id: str, code: int) -> Message:
        """Error of a message, which is deleted."""
        self._replies.pop(message_id, None)
        asked = self._asked.pop(message_id)
        return Message(Error(code=code, reason="lost"), reply_to=asked)

    def _is_ready(self, message_id: str) -> bool:
        return self._ready[message_id] <= self.time.now

    def gone(self, start: float, end: float, seat: int) -> None:
        """Have a node away for a time, whoever else comes and goes."""
        self.time.at(start, lambda: self._set(seat, here=False))
        self.time.at(end, lambda: self._set(seat, here=True))

    def _set(self, seat: int, *, here: bool) -> None:
        self.online = tuple(sorted({*self.online, seat} if here else {*self.online} - {seat}))

    def asked(self, seat: int) -> list[float]:
        """When a seat got a request."""
        return [when for kind, to, when in self.sent if (kind, to) == ("train", seat)]

    def hellos(self, seat: int) -> list[float]:
        """When a seat was greeted."""
        return [when for kind, to, when in self.sent if (kind, to) == ("query", seat)]


def _answer(config: dict[str, str], data: bytes) -> bytes:
    request = decode_request(data)
    if config.get("failing") or config.get("fails") == request.kind:
        raise OSError
    if config.get("large") == request.kind:
        return bytes(MOST + 1)
    if config.get("lost") == request.kind:
        raise WorkerError(RelayRefusal.UNREACHABLE, "no worker", place="socket")
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


def ask(
    exchange: NodeExchange,
    requests: Mapping[str, Letter] = ALL,
    most: int = MOST,
    leaving: Leaving = lambda: None,
) -> dict[str, bytes | Lost]:
    """What a trip handed over, by institution; each once."""
    replies: dict[str, bytes | Lost] = {}

    def take(name: str, answer: bytes | Lost) -> None:
        assert name not in replies
        replies[name] = answer

    exchange.ask("train", 1, requests, most, take, leaving)
    return replies


@contextmanager
def a_federation(
    *nodes: dict[str, str], owners: tuple[str, ...] | None = None, study: Study = STUDY
) -> Iterator[tuple[Grid, NodeExchange, list[str]]]:
    """A grid, an exchange over it, and what was said of nodes.

    Args:
        owners: institutions with whose keys the nodes have authenticated, by seat.
    """
    configs = [{"seat": str(i), "study": study_hash(study), **node} for i, node in enumerate(nodes)]
    app = make_app(lambda context: lambda data: _answer(dict(context.node_config), data))
    seen: list[str] = []
    with Grid(app, configs, {}) as grid:
        ids = LocalGrid.get_node_ids(grid)
        exchange = NodeExchange(
            GridMail(grid),
            study,
            on_seen=lambda name, state: seen.append(f"{name}: {state}"),
            owners=None if owners is None else dict(zip(ids, owners, strict=False)),
            pace=Pace(sleep=grid.time.sleep, clock=grid.time.clock),
        )
        yield grid, exchange, seen
