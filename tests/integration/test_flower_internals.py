"""Fails loudly when a Flower upgrade moves the ground under `common/io/flower_internals.py`."""

import inspect
import os
import re
import subprocess
import sys
import warnings
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import httpx
import pytest

with warnings.catch_warnings():  # typer reads a name that click deprecates, when first imported
    warnings.simplefilter("ignore", DeprecationWarning)
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp

from client import app as relay_app
from client.relay import BUSY, FAILED, TIMEOUT, UNREACHABLE, WorkerError
from common.errors import FederationError
from common.io import flower_internals as internals
from common.transport import RelayRefusal
from server import records

ROOT = Path(__file__).parents[2]
SECRET = "Jane Doe, born 1 April"

GROUND = (
    ("flwr.supercore.task_identity", "TaskIdentity"),
    ("flwr.supernode.start_client_internal", "time"),
    ("flwr.supernode.start_client_internal", "_push_messages"),
    ("flwr.supernode.nodestate.in_memory_nodestate", "CLIENT_APP_CRASHED_ERROR"),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState._store_error_replies"),
    ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState.get_tasks"),
    (
        "flwr.supernode.nodestate.in_memory_nodestate",
        "InMemoryNodeState.record_message_processing_start",
    ),
    ("flwr.supernode.cli", "flower_supernode"),
    ("flwr.supercore.cli", "flower_superexec"),
    ("flwr.supercore.constant", "TaskType"),
    ("flwr.supercore.exit.exit_handler", "registered_exit_handlers"),
    ("flwr.supercore.superexec.run_superexec", "get_executor"),
    ("flwr.supercore.superexec.executor", "LaunchResult"),
    ("flwr.supercore.superexec.executor", "SubprocessExecutor"),
    ("flwr.supercore.tls", "validate_and_resolve_root_certificates"),
    ("flwr.supernode.runtime.run_clientapp", "install_from_fab"),
    ("flwr.supernode.runtime.run_clientapp", "get_load_client_app_fn"),
    ("flwr.superlink.grid.http_grid", "pull_objects"),
    ("flwr.superlink.grid.http_grid", "inflate_object_from_contents"),
    ("flwr.superlink.grid.http_grid", "make_pull_object_fn_protobuf"),
    ("flwr.superlink.grid.http_grid", "ConfirmMessageReceivedRequest"),
    ("flwr.superlink.grid.http_grid", "ObjectPullError"),
    ("flwr.superlink.grid.http_grid", "PullAppMessagesRequest"),
    ("flwr.supercore.inflatable.inflatable_utils", "ObjectUnavailableError"),
    ("flwr.supercore.run", "RunNotRunningException"),
    ("flwr.superlink.cli.flower_superlink", "flower_superlink"),
    ("flwr.superlink.routers.fleet.node_auth", "authenticate_node"),
    ("flwr.superlink.routers.fleet.node_auth", "get_linkstate"),
    ("flwr.superlink.routers.fleet.node_auth", "HTTPException"),
    ("flwr.superlink.servicer.fleet.fleet_handlers", "push_messages"),
    ("flwr.superlink.servicer.fleet.fleet_handlers", "pull_messages"),
    ("flwr.superlink.servicer.fleet.fleet_handlers", "pull_object"),
    ("flwr.superlink.servicer.fleet.fleet_handlers", "confirm_message_received"),
)


def _source(module: str) -> str:
    return inspect.getsource(import_module(module))


@pytest.mark.parametrize(("module", "name"), GROUND)
def test_internal_name_is_still_there(module, name):
    import_module(module)
    assert attrgetter(name)(sys.modules[module]) is not None


def test_the_superlink_is_served_by_uvicorn_run():
    import_module("flwr.superlink.cli.flower_superlink")
    source = inspect.getsource(sys.modules["flwr.superlink.cli.flower_superlink"])
    assert re.findall(r"\buvicorn\.\w+\(", source) == ["uvicorn.run("]


def test_names_of_node_authentication_are_flowers_own():
    constants = import_module("flwr.supercore.constant")
    assert constants.FLEET_HTTP_PUBLIC_KEY_HEADER.encode() == internals.PUBLIC_KEY_HEADER
    codes = import_module("flwr.supercore.error").ApiErrorCode
    disabled = codes.FLEET_SUPERNODE_REGISTRATION_DISABLED
    assert list(internals.UNKNOWN_KEY.values()) == [disabled, codes.FLEET_NODE_ACTIVATION_FAILED]
    requests = import_module("flwr.supercore.protobuf.translation").PROTOBUF_REQUEST_TYPES
    assert {("POST", path) for path in internals.UNKNOWN_KEY} <= requests.keys()


def test_supernode_uses_time_for_its_known_sleeps_only():
    source = _source("flwr.supernode.start_client_internal")
    assert sorted(re.findall(r"\btime\.\w+\([^)]*\)", source)) == [
        "time.sleep(0.5)",
        "time.sleep(0.5)",
        "time.sleep(3)",
    ]
    assert (internals.IDLE_SLEEP_S, internals.REPLY_SLEEP_S) == (3, 0.5)


def test_pulls_take_the_options_that_are_shortened():
    utils = import_module("flwr.supercore.inflatable.inflatable_utils")
    for pull in (utils.pull_objects, utils.pull_and_inflate_object_from_tree):
        assert set(internals.FAST_PULL) <= set(pull.__kwdefaults__)
        assert pull.__kwdefaults__["max_time"] == 7200


def test_codes_of_what_is_lost_on_its_way_are_flowers_own():
    codes = import_module("flwr.common.constant").ErrorCode
    assert internals.LOST_CODES == (
        codes.MESSAGE_UNAVAILABLE,
        codes.REPLY_MESSAGE_UNAVAILABLE,
        codes.NODE_UNAVAILABLE,
        codes.CLIENT_APP_CRASHED,
    )


def test_client_app_runner_takes_the_arguments_that_are_given():
    runner = import_module("flwr.supernode.runtime.run_clientapp")
    assert list(inspect.signature(runner.run_clientapp).parameters) == [
        "runtime_api_address",
        "token",
        "insecure",
        "certificates",
        "parent_pid",
        "runtime_dependency_install",
    ]
    source = inspect.getsource(runner.run_clientapp)
    assert "install_from_fab(fab.content" in source
    assert "load_client_app_fn = get_load_client_app_fn(" in source


def test_superexec_reads_its_poll_interval_from_our_variable(tmp_path):
    module = import_module("flwr.supercore.superexec.run_superexec")
    assert module._TASK_POLL_INTERVAL_ENV in internals.flower_environment(tmp_path)
    assert "executor = get_executor(" in _source(module.__name__)


def test_client_app_error_code_is_still_two():
    code = import_module("flwr.common.constant").ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert code == internals.CLIENT_APP_RAISED


def test_flower_accepts_the_relays_app_reference():
    validate = import_module("flwr.supercore.object_ref").validate
    assert validate("client.app:app", project_dir=ROOT) == (True, None)
    assert isinstance(relay_app.app, ClientApp)


def test_another_flower_version_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(internals.importlib.metadata, "version", lambda _: "1.42.0")
    with pytest.raises(FederationError, match=r"1\.41\.0 is pinned, but 1\.42\.0"):
        internals.main(["supernode"])


def test_entries_refuse_an_environment_with_telemetry(monkeypatch, tmp_path):
    for name, value in internals.flower_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    with pytest.raises(FederationError, match="FLWR_TELEMETRY_ENABLED"):
        internals.main(["superexec"])


def test_local_grid_runs_ten_rounds_of_three_clients():
    app = relay_app.make_app(
        lambda context: lambda request: b"%s says %s" % (context.node_config["name"], request)
    )
    names = [b"a", b"b", b"c"]
    with internals.LocalGrid(app, [{"name": name} for name in names], {}) as grid:
        nodes = list(grid.get_node_ids())
        for number in range(10):
            request = b"round %d" % number
            kind = ("query", "train", "evaluate")[number % 3]
            messages = records.request_messages(request, nodes, kind, str(number), 60.0)
            replies = {
                reply.metadata.src_node_id: records.reply_bytes(reply)
                for reply in grid.pull_messages(grid.push_messages(messages))
            }
            expected = [b"%s says %s" % (name, request) for name in names]
            assert [replies[node] for node in nodes] == expected


def test_local_grid_keeps_given_ids_and_makes_stable_ones():
    app = relay_app.make_app(lambda context: bytes)
    assert internals.LocalGrid(app, {7: {}, 3: {}}, {}).get_node_ids() == [7, 3]
    first, second = (internals.LocalGrid(app, [{}, {}], {}).get_node_ids() for _ in range(2))
    assert first == second
    assert len(set(first)) == 2


def test_local_grid_puts_the_process_identity_back():
    identity = import_module("flwr.supercore.task_identity").TaskIdentity
    before = identity._run_id, identity._node_id, identity._task_id
    with internals.LocalGrid(ClientApp(), [{}], {}):
        assert identity.run_id == 1
    assert (identity._run_id, identity._node_id, identity._task_id) == before


def test_local_grid_reports_an_exception_as_a_supernode_does():
    app = ClientApp()

    @app.train()
    def train(message, context):
        raise ZeroDivisionError("oh")

    with internals.LocalGrid(app, [{}], {}) as grid:
        message = records.request_message(b"x", grid.get_node_ids()[0], "train", "1", 60.0)
        (reply,) = grid.send_and_receive([message])
    assert (reply.error.code, reply.error.reason) == (2, "<class 'ZeroDivisionError'>:<'oh'>")
    assert records.reply_bytes(reply) == records.Refusal(code="flower-error-2")


def _relayed(exchange_for, content=None):
    """Return the reply message of one node whose relay uses `exchange_for`."""
    with internals.LocalGrid(relay_app.make_app(exchange_for), [{}], {}) as grid:
        node = grid.get_node_ids()[0]
        message = records.request_message(b"x", node, "train", "1", 60.0)
        if content is not None:
            message = Message(content, node, "train")
        return grid.send_and_receive([message])[0]


def _raise(error):
    raise error


def test_relay_never_sends_an_exceptions_text():
    for exchange_for in (
        lambda context: lambda request: _raise(ValueError(SECRET)),
        lambda context: _raise(KeyError(SECRET)),
        lambda context: lambda request: SECRET,  # not bytes: the packing fails
    ):
        reply = _relayed(exchange_for)
        assert records.reply_bytes(reply) == records.Refusal(code=RelayRefusal.FAILED)
        assert SECRET not in repr(reply)


@pytest.mark.parametrize("refusal", [UNREACHABLE, TIMEOUT, BUSY, FAILED])
def test_each_refusal_of_the_relay_is_known_to_the_coordinator(refusal):
    error = WorkerError(refusal, SECRET, place="/run/worker")
    reply = _relayed(lambda context: lambda request: _raise(error))
    assert records.reply_bytes(reply) == records.Refusal(code=refusal)
    assert SECRET not in repr(reply)


def test_relay_refuses_a_message_without_our_record():
    for content in (RecordDict(), RecordDict({"fedner": ConfigRecord({"request": b"x"})})):
        reply = _relayed(lambda context: bytes, content)
        assert records.reply_bytes(reply) == records.Refusal(code=RelayRefusal.MALFORMED)


def test_a_hostile_refusal_text_is_not_passed_on():
    reply = _relayed(lambda context: bytes)
    for value in (SECRET, 7, b"x", ["worker-timeout"]):
        reply.content = RecordDict({"fedner": ConfigRecord({"refused": value})})
        assert records.reply_bytes(reply) == records.Refusal(code=records.MALFORMED_REPLY)


def test_node_pacer_starts_fast_and_ends_at_flowers_own_pace():
    slept = []
    pacer = internals.NodePacer(slept.append)
    for _ in range(200):
        pacer.sleep(3)
    pacer.sleep(0.5)
    pacer.sleep(3)
    assert (slept[0], slept[199], slept[200:]) == (0.2, 3, [0.05, 0.2])
    assert all(pause <= max(0.2, 0.05 * sum(slept[:i])) for i, pause in enumerate(slept[:200]))


SUPEREXEC_CHILD = """
import os, sys
from importlib import import_module
from types import SimpleNamespace
from common.io import flower_internals as internals
internals._pin_client_app("the installed relay")
runner = import_module("flwr.supernode.runtime.run_clientapp")
def run(*args, **options):
    load = runner.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
    runner.install_from_fab(b"no zip", skip_prompt=True)
    sys.exit(5 if load("evil", "1", "hash") == "the installed relay" else 1)
runner.run_clientapp = run
executor, kinds = internals._fork_executor(), import_module("flwr.supercore.constant").TaskType
assert executor.get_eligible_capacity(set(kinds), insecure=True) == ({kinds.CLIENT_APP}, set())
spec = SimpleNamespace(runtime_api_address="x", token="t", insecure=True, parent_pid=os.getpid(),
                       root_certificates_path=None, task_type=kinds.SERVER_APP)
assert executor.launch(spec).status == "failed"
spec.task_type = kinds.CLIENT_APP
assert executor.launch(spec).status == "accepted"
(child,) = executor._children
status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT).si_status
executor.reconcile()
assert not executor._children
assert "torch" not in sys.modules
print("child", status)
"""


def test_superexec_runs_the_installed_relay_in_a_child_and_refuses_other_tasks(tmp_path):
    environment = {**os.environ, **internals.flower_environment(tmp_path)}
    command = [sys.executable, "-P", "-c", SUPEREXEC_CHILD]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "child 5\n", done.stderr


def test_no_flower_process_takes_a_proxy_to_another_on_this_machine(monkeypatch, tmp_path):
    """Its HTTP client would, tokens and messages in clear; what the site exempts stays exempt."""
    monkeypatch.setenv("NO_PROXY", "records.example.org")
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example.org:3128")
    for name, value in internals.flower_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        taken = {
            url: client._transport_for_url(httpx.URL(url)) is not client._transport
            for scheme in ("http", "https")
            for host in ("localhost", "127.0.0.1", "[::1]", "records.example.org", "fl.example.org")
            for url in (f"{scheme}://{host}:9092",)
        }
    assert {url for url, proxied in taken.items() if proxied} == {
        "http://fl.example.org:9092",
        "https://fl.example.org:9092",
    }
