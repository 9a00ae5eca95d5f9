"""Flower's internals are touched here and in `lost_tasks`; all else keeps to its public API.

    LocalGrid               a Grid in this process: simulations without processes or sleeps
    supernode               flower-supernode with its hard-coded sleeps shortened, and its waits
                            for a relay that is gone ended by `common.io.lost_tasks`
    superexec               a warm flower-superexec that forks, and runs the node's own relay
    gated_superlink         flower-superlink with another server, and handlers that check whose
    authenticated_node      Flower's node authentication by a request's head alone
    shorten_object_backoff  for nodes: messages arrive sooner
    ReplyParts              for ServerApps: replies are taken whole, and no part is waited for
    superlink_reached       for ServerApps: what Flower raises, as an error with place and remedy
    flower_environment      what every Flower process of ours has in its environment

Formal guarantees of the superexec: it takes ClientApp tasks only; what runs is `client.app` as
installed on the node, while the coordinator's bundle is neither unpacked nor imported, whatever
module its own pyproject names; each message runs in a fresh child.

Formal guarantees of the gated superlink: a reply is taken only from the node that is its sender
(Flower checks that the sender is who was asked, but not that the authenticated node is it), one at
a time, and to a message that it was handed; a
message is confirmed, which deletes it, only by the node that was handed it, and an object is given
only to a node that was handed a message with it (Flower deletes and gives any object to any node).
What a node can have stored is bounded: `common.io.handed`; Flower stores all.

The exact pin keeps the internal names valid; `tests/integration/test_flower_internals.py` lists
them and fails when an upgrade moves one. Not mended here: `Grid.send_and_receive` polls every 3 s.

Run as `python -P -m common.io.flower_internals`: without `-P` the working directory's own
`client` package, if there is one, would be taken for the installed one.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import threading
import time
import traceback
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib import import_module
from itertools import islice
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from common.errors import FederationError, FlowerEndedError, UsageError
from common.io.addresses import unproxied
from common.io.handed import MOST_PARTS, Handed, ids_of, is_consistent, is_too_wide
from common.io.lost_tasks import LostTasks
from common.transport import most_on_the_way

PINNED_FLOWER: Final = "1.41.0"
IDLE_SLEEP_S: Final = 3  # the SuperNode's sleep when no message waits for it
REPLY_SLEEP_S: Final = 0.5  # the SuperNode's sleep while its client app works
FAST_IDLE_SLEEP_S: Final = 0.2
FAST_REPLY_SLEEP_S: Final = 0.05
IDLE_SHARE: Final = 0.05
FAST_PULL: Final = {"initial_backoff": 0.05, "backoff_cap": 1.0, "max_tries_per_object": None}
RELAY_MODULE: Final = "client.app"  # named, not imported: `common` doesn't know `client`
LOCAL_RUN_ID: Final = 1
CLIENT_APP_RAISED: Final = 2  # flwr ErrorCode.CLIENT_APP_RAISED_EXCEPTION
LOST_CODES: Final = (3, 4, 5, 8)  # flwr ErrorCode: message, reply or node gone, process killed
PUBLIC_KEY_HEADER: Final = b"flwr-public-key"
UNKNOWN_KEY: Final = {  # flwr ApiErrorCode: of disabled registration, of failed activation
    "/v1/fleet/register-node": 2001,
    "/v1/fleet/activate-node": 2004,
}
MOST_HEAD: Final = 1 << 20  # bytes of an object that is no piece of an array
MOST_MISSED: Final = 16  # parts of a reply in one look at it
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 1.0

Config = dict[str, Any]
NodeConfigs = Mapping[int, Config] | Sequence[Config]

_QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def flower_environment(home: Path) -> dict[str, str]:
    """Return variables for every Flower process: quiet, state in `home`, superexecs at 10 Hz.

    What they say to each other on this machine never takes a proxy, whatever variables the site has
    for the way out: their HTTP client would send it there, tokens and messages in clear.
    """
    state = {"FLWR_HOME": str(home.absolute())}
    direct = dict.fromkeys(("no_proxy", "NO_PROXY"), unproxied())
    return {**_QUIET, **state, **direct, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}


def check_flower_version() -> None:
    """Raise FederationError unless the pinned Flower is installed."""
    found = importlib.metadata.version("flwr")
    if found != PINNED_FLOWER:
        message = f"flwr {PINNED_FLOWER} is pinned, but {found} is installed"
        raise FederationError(message, remedy=f"install flwr=={PINNED_FLOWER}, as on all peers")


def _check_environment() -> None:
    wrong = [name for name, value in _QUIET.items() if os.environ.get(name) != value]
    if wrong or not os.environ.get("FLWR_HOME"):
        message = f"the environment must set {', '.join([*wrong, 'FLWR_HOME'])}"
        raise FederationError(message, remedy="set the variables of flower_environment()")


class LocalGrid(Grid):  # type: ignore[misc]
    """A Grid whose nodes are contexts in this process.

    A handler runs when its message is pushed; an exception comes back as the error message a
    SuperNode would send. Use it in a `with`: `Message` reads a process-wide identity, which is
    set on entry and put back on exit.

    Args:
        node_configs: one configuration a node, or a mapping of node id to configuration. The
            order is kept; ids made for a sequence are the same in every process.
    """

    def __init__(self, client_app: ClientApp, node_configs: NodeConfigs, run_config: Config):
        check_flower_version()
        if not isinstance(node_configs, Mapping):
            node_configs = {_local_node_id(i): config for i, config in enumerate(node_configs)}
        self._app = client_app
        self._contexts = {
            node_id: Context(LOCAL_RUN_ID, node_id, dict(config), RecordDict(), dict(run_config))
            for node_id, config in node_configs.items()
        }
        self._replies: dict[str, Message] = {}
        self._pushed = 0
        self._run: Any = None
        self._scope = contextlib.ExitStack()

    def __enter__(self) -> "LocalGrid":
        self._scope.enter_context(_local_identity())
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.close()

    def set_run(self, run: Any) -> None:
        """Keep `run` for whoever asks."""
        self._run = run

    @property
    def run(self) -> Any:
        """What `set_run` was given."""
        return self._run

    def create_message(self, *_: Any, **__: Any) -> NoReturn:
        """Flower deprecates this."""
        raise NotImplementedError("build a Message instead")

    def get_node_ids(self) -> list[int]:
        """Return all node ids, in the order they were given in."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run each message's handler; return ids for `pull_messages`."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that weren't pulled before."""
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], **_: Any) -> list[Message]:
        """Push all messages and pull their replies; there is nothing to time out."""
        return self.pull_messages(self.push_messages(messages))

    def _push(self, message: Message) -> str:
        self._pushed += 1
        message.metadata.__dict__["_message_id"] = message_id = f"local-{self._pushed}"
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._app(message, context)
        except Exception as error:  # noqa: BLE001 - as the SuperNode does
            reason = f"{type(error)}:<'{error}'>"
            reply = Message(Error(code=CLIENT_APP_RAISED, reason=reason), reply_to=message)
        self._replies[message_id] = reply
        return message_id


def _local_node_id(index: int) -> int:
    """A 63-bit id: as large as Flower's own."""
    return int.from_bytes(hashlib.sha256(b"fedner node %d" % index).digest()[:8], "big") >> 1


@contextlib.contextmanager
def _local_identity() -> Iterator[None]:
    """Set what `Message()` reads in a ServerApp's process; put the old values back."""
    identity = import_module("flwr.supercore.task_identity").TaskIdentity
    before = {name: getattr(identity, name) for name in ("_run_id", "_node_id", "_task_id")}
    try:
        for name in before:
            setattr(identity, name, LOCAL_RUN_ID)
        yield
    finally:
        for name, value in before.items():
            setattr(identity, name, value)


class NodePacer:
    """Replaces the SuperNode's sleeps: quick while a run is busy, as slow as Flower's when idle.

    An idle sleep is a twentieth of the idle time so far, within 0.2 s and 3 s: it adds at most
    5 % to a wait, and a node left alone for a minute polls as Flower does.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep):
        self._sleep = sleep
        self._idle_s = 0.0
        self._look: Callable[[], None] = lambda: None

    def waits(self, state: Any) -> None:
        """A wait for a reply begins, which `LostTasks` may end.

        Args:
            state: the node's.
        """
        self._look = LostTasks(state).look

    def sleep(self, seconds: float) -> None:
        """Sleep instead of Flower's `time.sleep(seconds)`."""
        if seconds != IDLE_SLEEP_S:
            self._idle_s = 0.0
            self._sleep(FAST_REPLY_SLEEP_S if seconds == REPLY_SLEEP_S else seconds)
            self._look()
            return
        pause_s = min(IDLE_SLEEP_S, max(FAST_IDLE_SLEEP_S, self._idle_s * IDLE_SHARE))
        self._idle_s += pause_s
        self._sleep(pause_s)


def shorten_object_backoff() -> None:
    """Look again after 0.05 to 1 s, not 1 to 10 s, for a message's parts still on their way.

    Flower's limit of two hours stays; its 500 tries an object don't, or they would end sooner.
    """
    transfers = import_module("flwr.supercore.inflatable.inflatable_utils")
    for pull in (transfers.pull_objects, transfers.pull_and_inflate_object_from_tree):
        pull.__kwdefaults__.update(FAST_PULL)


class Gone(Enum):
    """Why a reply that was begun is not handed over."""

    LOST = auto()
    """It has lost a part, or makes no message."""
    TOO_LARGE = auto()


class _TooLargeError(Exception):
    """More bytes than a reply may have."""


@dataclass(slots=True)
class _Begun:
    """A reply whose head was handed over, which Flower does once.

    Attributes:
        parts: ids, that of the message first: nodes send it last.
        here: parts that have come, by id.
        bytes: of these.
        is_too_large: more than there may be; nothing of it is kept.
        due: when the rest is looked for.
        missed: parts that were not there in the look that is under way.
    """

    head: Any
    parts: tuple[str, ...]
    here: dict[str, bytes] = field(default_factory=dict, repr=False)
    due: float = -inf
    pause_s: float = FIRST_LOOK_S
    missed: int = 0
    bytes: int = 0
    is_too_large: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class ReplyParts:
    """Takes replies off a grid of Flower's.

    Flower's own `pull_messages` hands no reply over before the parts of all that have begun are
    there, and waits for two hours.

    Formal guarantees:
        - No part is waited for: a reply that is whole is handed over whatever has become of the
          others, and one that is not is looked at again in the next call, after pauses of up to a
          second while nothing new comes.
        - A reply counts for the message that Flower has checked it against, whatever the sender
          has written into its parts.
        - Parts are taken once the last that nodes send is there, and whole replies are handed over
          one after the other: of many large ones, one is in memory.
        - What has more parts or bytes than it may have, be it by one part that stands in it many
          times, is `Gone.TOO_LARGE`, whatever it has said of its size; of it are in memory at most
          as many bytes as it may have, and two parts.
        - What has lost a part, or makes no message, is `Gone.LOST`.
    """

    def __init__(self, grid: Grid, clock: Callable[[], float] = time.monotonic):
        self._grid: Any = grid
        self._clock = clock
        self._flower: Any = import_module("flwr.superlink.grid.http_grid")
        self._begun: dict[str, _Begun] = {}

    def pull(self, messages: Collection[str], most: int) -> Iterator[tuple[str, Message | Gone]]:
        """What is whole by now, with the message that it answers, one after the other.

        Args:
            most: bytes of a reply.
        """
        most = most_on_the_way(most)
        self._begin([asked for asked in messages if asked not in self._begun])
        for asked in messages:
            begun = self._begun.get(asked)
            if begun is not None and self._clock() >= begun.due and self._look(begun, most):
                yield asked, self._end(self._begun.pop(asked), most)

    def drop(self, messages: Collection[str]) -> None:
        """Forget what has come of these replies."""
        for asked in messages:
            self._begun.pop(asked, None)

    def _begin(self, messages: Sequence[str]) -> None:
        if not messages:
            return
        request = self._flower.PullAppMessagesRequest(message_ids=messages)
        answer = self._grid._runtime_client.PullMessages(request)
        for head, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            parts = tuple(islice(ids_of(tree), MOST_PARTS + 1))
            self._begun[head.metadata.reply_to_message_id] = _Begun(head=head, parts=parts)

    def _look(self, begun: _Begun, most: int) -> bool:
        """Take what has come since; whether there is nothing more to wait for."""
        if len(begun.parts) > MOST_PARTS:
            begun.is_too_large = True
            return True
        before, begun.missed = len(begun.here), 0
        try:
            self._take(begun, begun.parts[:1], most)
            if not begun.missed:
                self._take(begun, begun.parts, most)
        except _TooLargeError:
            begun.here, begun.is_too_large = {}, True
            return True
        except self._flower.ObjectPullError:
            if begun.missed <= MOST_MISSED:  # one is lost
                return True
        if begun.missed == 0:
            return True
        stalled = len(begun.here) == before
        begun.pause_s = min(LONGEST_LOOK_S, 2 * begun.pause_s) if stalled else FIRST_LOOK_S
        begun.due = self._clock() + begun.pause_s
        return False

    def _take(self, begun: _Begun, parts: Sequence[str], most: int) -> None:
        """Each missing part that is there; the look ends early where many are not."""
        unavailable = import_module("flwr.supercore.inflatable.inflatable_utils")
        fetch = self._flower.make_pull_object_fn_protobuf(
            pull_object_protobuf=self._grid._runtime_client.PullObject,
            node=self._grid.node,
            run_id=self._grid.run.run_id,
        )

        def take(part: str) -> bytes:
            try:
                data = fetch(part)
            except unavailable.ObjectUnavailableError:
                begun.missed += 1
                if begun.missed > MOST_MISSED:
                    raise
                return b""
            with begun.lock:
                if part in begun.here:  # a fetch of the look before was still under way
                    return b""
                begun.bytes += len(data)
                if begun.bytes > most:
                    raise _TooLargeError
                begun.here[part] = data
            return b""

        missing = [part for part in parts if part not in begun.here]
        self._flower.pull_objects(missing, take, max_tries_per_object=1)

    def _end(self, begun: _Begun, most: int) -> Message | Gone:
        """The message, whose objects the SuperLink may now forget."""
        name = begun.head.metadata.message_id
        request = self._flower.ConfirmMessageReceivedRequest(
            node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=name
        )
        self._grid._runtime_client.ConfirmMessageReceived(request)
        if begun.is_too_large:
            return Gone.TOO_LARGE
        try:
            if _bytes_of_arrays(begun.here) > most:
                return Gone.TOO_LARGE
            message = self._flower.inflate_object_from_contents(name, begun.here)
        except _TooLargeError:
            return Gone.TOO_LARGE
        except Exception:  # noqa: BLE001 - bytes that a node made up may raise anything
            return Gone.LOST
        if not isinstance(message, Message):
            return Gone.LOST
        message.metadata.__dict__["_message_id"] = name
        return message


def _bytes_of_arrays(parts: Mapping[str, bytes]) -> int:
    """Of all arrays once they are put together: a piece may stand in one more than once."""
    objects: Any = import_module("flwr.supercore.inflatable.inflatable_object")
    arrays: Any = import_module("flwr.app.message.array")
    total = 0
    for data in parts.values():
        kind, children, _ = objects.get_object_head_values_from_object_content(data)
        if kind != arrays.ArrayChunk.__qualname__ and len(data) > MOST_HEAD:
            raise _TooLargeError
        if kind == arrays.Array.__qualname__:
            pieces = json.loads(objects.get_object_body(data, arrays.Array))["arraychunk_ids"]
            total += sum(len(parts[children[piece]]) for piece in pieces)
    return total


@contextlib.contextmanager
def superlink_reached() -> Iterator[None]:
    """Raise FlowerEndedError where Flower's client of the SuperLink raises an error of its own."""
    http: Any = import_module("httpx")
    runs: Any = import_module("flwr.supercore.run")
    try:
        yield
    except runs.RunNotRunningException as error:
        raise FlowerEndedError(
            "Flower has ended this run",
            place="the coordinator's SuperLink",
            remedy="somebody stopped it, or the SuperLink lost it: fedner server --resume goes on",
        ) from error
    except http.HTTPError as error:
        raise FlowerEndedError(
            f"expected an answer of the SuperLink, got {type(error).__name__}",
            place="the coordinator's SuperLink",
            remedy="see superlink.log in the run's folder; go on with fedner server --resume",
        ) from error


def supernode() -> None:
    """Run flower-supernode with `NodePacer` in place of its sleeps; no wait is for ever."""
    shorten_object_backoff()
    loop: Any = import_module("flwr.supernode.start_client_internal")
    pace_supernode(loop, NodePacer())
    import_module("flwr.supernode.cli").flower_supernode()


def pace_supernode(loop: Any, pacer: NodePacer) -> None:
    """Put `pacer` into the module of a SuperNode's loop."""
    push_messages = loop._push_messages

    def push(*, state: Any, **rest: Any) -> None:
        pacer.waits(state)
        push_messages(state=state, **rest)

    loop.time = SimpleNamespace(sleep=pacer.sleep)
    loop._push_messages = push


def superexec() -> None:
    """Run flower-superexec with the forking executor, the installed relay imported up front."""
    shorten_object_backoff()
    _pin_client_app(import_module(RELAY_MODULE).app)
    executor = _fork_executor()
    module: Any = import_module("flwr.supercore.superexec.run_superexec")
    module.get_executor = lambda *_, **__: executor
    import_module("flwr.supercore.cli").flower_superexec()


def _pin_client_app(relay: ClientApp) -> None:
    """Make Flower's runner use `relay`, and neither unpack nor import what the bundle holds.

    Importing the module first wouldn't do: the bundle's pyproject names the module to load.
    """
    runner: Any = import_module("flwr.supernode.runtime.run_clientapp")
    runner.install_from_fab = lambda *_, **__: None
    runner.get_load_client_app_fn = lambda *_, **__: lambda *_bundle: relay


def _fork_executor() -> Any:
    """Return a SuperExec executor that runs each ClientApp task in a forked child."""
    executors = import_module("flwr.supercore.superexec.executor")
    base, result = executors.SubprocessExecutor, executors.LaunchResult
    client_app = import_module("flwr.supercore.constant").TaskType.CLIENT_APP

    class ForkExecutor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self._children: set[int] = set()

        def get_eligible_capacity(self, task_types: set[Any], **_: Any) -> tuple[Any, set[str]]:
            return task_types & {client_app}, set()

        def launch(self, spec: Any) -> Any:
            if spec.task_type != client_app:
                return result.failed("this node runs ClientApp tasks only")
            child = os.fork()
            if child == 0:
                _run_child(spec)
            self._children.add(child)
            return result.accepted()

        def reconcile(self) -> None:
            self._children = {pid for pid in self._children if not os.waitpid(pid, os.WNOHANG)[0]}

    return ForkExecutor()


def _run_child(spec: Any) -> NoReturn:
    """Run one task as flwr-clientapp would, without the parent's exit handlers, and exit."""
    code = 1
    try:
        import_module("flwr.supercore.exit.exit_handler").registered_exit_handlers.clear()
        tls = import_module("flwr.supercore.tls")
        import_module("flwr.supernode.runtime.run_clientapp").run_clientapp(
            spec.runtime_api_address,
            spec.token,
            spec.insecure,
            tls.validate_and_resolve_root_certificates(spec.root_certificates_path, spec.insecure),
            spec.parent_pid,
            runtime_dependency_install=False,
        )
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:  # noqa: BLE001 - a forked child must never return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class NodeRefusedError(Exception):
    """A request's head is not signed by a registered node's key.

    Attributes:
        status: of HTTP.
        said: what Flower says in such a case, so that its nodes understand.
    """

    def __init__(self, status: int, said: Mapping[str, Any]):
        super().__init__(status)
        self.status, self.said = status, said


async def authenticated_node(app: Any, scope: Mapping[str, Any]) -> int:
    """The id of the registered node whose key has signed this head; no byte of a body is read.

    Args:
        app: Flower's ASGI application.
        scope: a request to a Fleet path.

    Raises:
        NodeRefusedError: there is none, or Flower's time for the signature is over.
    """
    key = key_in(scope)
    threads: Any = import_module("starlette.concurrency")
    node: int = await threads.run_in_threadpool(_authenticate, app, scope, key)
    return node


def key_in(scope: Mapping[str, Any]) -> bytes:
    """The key that a head names, as PEM; nothing is proven by that.

    Raises:
        NodeRefusedError: it names none.
    """
    fields = {name.lower(): value for name, value in scope["headers"]}
    try:
        return b64decode(fields[PUBLIC_KEY_HEADER], validate=True)
    except (KeyError, ValueError):
        raise _unauthenticated() from None


def _authenticate(app: Any, scope: Mapping[str, Any], key: bytes) -> int:
    """Have Flower check the head, as if the body named the key's own node."""
    checks: Any = import_module("flwr.superlink.routers.fleet.node_auth")
    http: Any = import_module("starlette.requests")
    request = http.Request({**scope, "app": app, "state": {}})
    node = checks.get_linkstate(request).get_node_id_by_public_key(key)
    if node is None:
        raise unknown_key(scope["path"])
    request.state.protobuf_request = SimpleNamespace(node_id=node)
    try:
        checks.authenticate_node(request)
    except checks.HTTPException:
        raise _unauthenticated() from None
    return int(node)


def _unauthenticated() -> NodeRefusedError:
    return NodeRefusedError(401, {"detail": "Invalid SuperNode authentication"})


def unknown_key(path: str) -> NodeRefusedError:
    """What Flower says there of a key that is not registered.

    Its nodes log it and end, where at another 401 they end silently.
    """
    code = UNKNOWN_KEY.get(path)
    if code is None:
        return _unauthenticated()
    spec = import_module("flwr.supercore.error.catalog").API_ERROR_MAP[code]
    return NodeRefusedError(spec.http_status_code, {"code": code, "detail": spec.public_message})


def gated_superlink(arguments: Sequence[str], run: Callable[..., None]) -> None:
    """Run flower-superlink with `run` in place of `uvicorn.run`, and handlers that check whose."""
    check_flower_version()
    sys.argv = ["flower-superlink", *arguments]
    import_module("flwr.superlink.cli")
    link: Any = sys.modules["flwr.superlink.cli.flower_superlink"]  # the package hides it
    guard_handlers(import_module("flwr.superlink.servicer.fleet.fleet_handlers"))
    link.uvicorn = SimpleNamespace(run=run)
    link.flower_superlink()


def guard_handlers(fleet: Any) -> None:
    """Replace a module's handlers: no node answers, confirms or fetches what is another's.

    All requests are authenticated: `request.node` is who sends it.
    """
    handed = Handed()
    push, pull = fleet.push_messages, fleet.pull_messages
    fetch, confirm = fleet.pull_object, fleet.confirm_message_received
    store = fleet.push_object

    def push_messages(request: Any, state: Any) -> Any:
        node, tree = request.node.node_id, _only_reply(request, handed, state.object_store)
        asked = request.messages_list[0].metadata.reply_to_message_id
        for root in handed.begin(node, asked, tree):
            state.object_store.delete(root)
        return push(request=request, state=state)

    def push_object(request: Any, state: Any) -> Any:
        node, name, size = request.node.node_id, request.object_id, len(request.object_content)
        if not handed.is_part(node, name):
            raise _forbidden("an object of no reply that this node has begun")
        with handed.room(node, name, size) as room:
            if not room.is_there:
                raise _refused(413, "a reply of more bytes than it may have")
            response = store(request=request, state=state)
            room.is_kept = response.stored
        return response

    def pull_messages(request: Any, **others: Any) -> Any:
        response = pull(request=request, **others)
        handed.note(request.node.node_id, response)
        return response

    def pull_object(request: Any, **others: Any) -> Any:
        if not handed.has_object(request.node.node_id, request.object_id):
            raise _forbidden("an object of no message that this node was handed")
        return fetch(request=request, **others)

    def confirm_message_received(request: Any, **others: Any) -> Any:
        if not handed.has_message(request.node.node_id, request.message_object_id):
            raise _forbidden("a message that this node was not handed")
        return confirm(request=request, **others)

    fleet.push_messages, fleet.pull_messages = push_messages, pull_messages
    fleet.push_object, fleet.pull_object = push_object, pull_object
    fleet.confirm_message_received = confirm_message_received


def _only_reply(request: Any, handed: Handed, store: Any) -> Any:
    """The tree of the one reply in a request, whose sender may give it."""
    node = request.node.node_id
    if {message.metadata.src_node_id for message in request.messages_list} - {node}:
        raise _forbidden("a reply in another node's name")
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise _forbidden("expected one reply and its objects")
    (tree,) = request.message_object_trees
    if not handed.has_message(node, request.messages_list[0].metadata.reply_to_message_id):
        raise _forbidden("a reply to a message that this node was not handed")
    if is_too_wide(tree):
        raise _refused(413, "a reply of more objects than it may have")
    if tree.object_id in store and not handed.has_begun(node, tree.object_id):
        raise _forbidden("a reply that is another's message")
    if not is_consistent(tree, {}) or not _is_as_stored(tree, store):
        raise _forbidden("an object with other children than before")
    return tree


def _is_as_stored(tree: Any, store: Any) -> bool:
    """Whether each object that is known has the children it had; so all trees there are small."""
    if tree.object_id in store:
        return bool(store.get_object_tree(tree.object_id) == tree)
    return all(_is_as_stored(child, store) for child in tree.children)


def _forbidden(reason: str) -> Exception:
    return _refused(403, reason)


def _refused(status: int, reason: str) -> Exception:
    error: Exception = import_module("fastapi").HTTPException(status, reason)
    return error


def main(argv: Sequence[str]) -> None:
    """Run `supernode` or `superexec` with the rest of `argv` as the Flower command's own."""
    roles = {"supernode": supernode, "superexec": superexec}
    if not argv or argv[0] not in roles:
        raise UsageError("expected supernode or superexec first", remedy="name one of the two")
    check_flower_version()
    _check_environment()
    sys.argv = [f"flower-{argv[0]}", *argv[1:]]
    roles[argv[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
