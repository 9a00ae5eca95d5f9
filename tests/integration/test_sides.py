"""`fedner client --side`: two supervisors, two users; what each refuses, and a whole study."""

import errno
import grp
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from client import sides
from client.sides import await_socket, check_worker, supervise_relay, supervise_worker
from common.config.load import parse_relay, parse_site
from common.config.relay import RelaySite
from common.errors import ConfigError, FederationError, PolicyError, UsageError
from scripts.benchmarks._stage import Stage, fedner
from scripts.cli import app
from scripts.doctor import institution, study
from tests import tiny, users
from tests.integration.test_processes import THREE, _simulated
from tests.integration.test_server_killed import private_study
from tests.users import GROUP, GROUP_NAME, RELAY, STRANGER, WORKER, Users

NAME = THREE[0]
SITE = """\
institution: north
study: study.yaml
coordinator: 127.0.0.1:9192
state: state
relay_group: {group}
socket: /run/fedner/north/socket
data:
  train: {{format: jsonl, path: train.jsonl}}
  test: {{format: jsonl, path: test.jsonl}}
"""

RELAYS = "institution: north\ncoordinator: 127.0.0.1:9192\nstate: {state}\nsocket: door/s\n"


# --- one side at a time


@pytest.fixture
def place():
    """A folder that others may walk through."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


BEGIN = """
import sys
from pathlib import Path
from client.sides import supervise_relay, supervise_worker
from common.errors import FednerError
from common.io.configs import load_relay, load_site
side, path = sys.argv[1], Path(sys.argv[2])
try:
    if side == "relay":
        supervise_relay(load_relay(path), path, print)
    else:
        supervise_worker(load_site(path), path, print)
except FednerError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def started(users_, user, side, path, groups=None):
    """How a side ends as another user, and what it says; without the verb, which takes seconds."""
    command = users_.python(user, "-c", BEGIN, side, path, groups=groups)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def written(place, tiny_study):
    """Site, study and relay file that all may read, and a group to be let in by."""
    (place / "study.yaml").write_text(tiny_study())
    (place / "site.yaml").write_text(SITE.format(group=GROUP_NAME))
    for user, name in ((WORKER, "worker"), (RELAY, "relay"), (STRANGER, "stranger")):
        (place / f"of-{name}").mkdir()
        os.chown(place / f"of-{name}", user, user)
        (place / f"{name}.yaml").write_text(RELAYS.format(state=f"of-{name}"))
    return place


@pytest.fixture
def door(written):
    """A socket as a worker of its own user makes it."""
    (written / "door").mkdir(mode=0o710)
    os.chown(written / "door", WORKER, GROUP)
    (written / "door").chmod(0o710)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(written / "door" / "s"))
        listening.listen()
        os.chown(written / "door" / "s", WORKER, GROUP)
        (written / "door" / "s").chmod(0o060)
        yield written


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone is root")
def test_root_is_refused_on_either_side(tmp_path):
    site, relay = SITE.format(group="root"), RELAYS.format(state="s")
    for supervise, file in (
        (supervise_worker, parse_site(site, "s")),
        (supervise_relay, parse_relay(relay, "r")),
    ):
        with pytest.raises(PolicyError, match="neither side runs as root"):
            supervise(file, tmp_path / "file.yaml", print)
    assert list(tmp_path.iterdir()) == []


@users.needed
def test_a_worker_outside_of_the_relays_group_is_refused_with_the_command_that_mends_it(written):
    code, said = started(Users(written), WORKER, "worker", written / "site.yaml", [WORKER])
    assert code == 3
    assert "fedner-worker is not in the group" in said
    assert f"usermod --append --groups {GROUP_NAME} fedner-worker" in said


@users.needed
@pytest.mark.parametrize(
    ("user", "groups", "file", "why"),
    [
        (WORKER, None, "worker.yaml", "the worker runs as the same one"),
        (WORKER, [WORKER], "worker.yaml", "the worker runs as the same one"),
        (STRANGER, None, "stranger.yaml", "it can't walk through"),
        (RELAY, [RELAY], "relay.yaml", "it can't walk through"),
    ],
)
def test_a_relay_that_is_not_let_in_is_told_by_what(user, groups, file, why, door):
    code, said = started(Users(door), user, "relay", door / file, groups)
    assert code == 6
    assert why in said
    assert "may not reach the worker's socket" in said


@users.needed
def test_a_relays_folder_that_is_another_users_is_told(door):
    code, said = started(Users(door), RELAY, "relay", door / "worker.yaml")
    assert code == 3
    assert f"this user, fedner-relay, can't have {door}/of-worker" in said


def test_a_missing_worker_is_waited_for_and_then_named(tmp_path):
    said = []
    with pytest.raises(FederationError, match="no worker listens here") as caught:
        await_socket(tmp_path / "s", said.append, limit_s=0.3)
    assert said == [f"waiting for the worker at {tmp_path / 's'}"]
    assert caught.value.place == str(tmp_path / "s")


def test_a_site_for_one_user_has_no_sides_and_one_for_two_no_common_start(tmp_path):
    text = SITE.format(group="no-such-group-here")
    with pytest.raises(ConfigError, match="there is no group no-such-group-here"):
        check_worker(parse_site(text, "s"), tmp_path / "site.yaml")
    alone = text.replace("relay_group: no-such-group-here\nsocket: /run/fedner/north/socket\n", "")
    with pytest.raises(ConfigError, match="names no `relay_group`"):
        check_worker(parse_site(alone, "s"), tmp_path / "site.yaml")


def test_the_relays_file_is_strict_and_knows_nothing_of_data():
    good = "institution: north\ncoordinator: 127.0.0.1:1\nstate: s\nsocket: /run/s\n"
    assert parse_relay(good, "r").authority is None
    for more, message in (
        ("study: study.yaml\n", "study: unknown key"),
        ("identity: identity\n", "identity: unknown key"),
        ("node: node\n", "`authority` is missing"),
        ("start_limit_s: 0\n", "start_limit_s"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_relay(good + more, "r")


def test_the_relays_file_is_written_out_of_the_sites_and_never_over_another(tmp_path):
    """With what its schema knows, which is nothing of the worker's files."""
    group = grp.getgrgid(os.getgid()).gr_name
    text = SITE.format(group=group) + "authority: keys/ca.crt\nnode: keys/node\nidentity: secret\n"
    text += "start_limit_s: 7200\n"
    (tmp_path / "site.yaml").write_text(text)
    write = ["client", str(tmp_path / "site.yaml"), "--write-relay", str(tmp_path / "relay.yaml")]
    done = CliRunner().invoke(app, write)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/keys/ca.crt as ca.crt" in done.output
    written = (tmp_path / "relay.yaml").read_text()
    assert parse_relay(written, "r") == RelaySite(
        institution="north", coordinator="127.0.0.1:9192", state="state",
        socket="/run/fedner/north/socket", authority="ca.crt", node="node",
        start_limit_s=7200.0,
    )  # fmt: skip
    again = CliRunner().invoke(app, write)
    assert isinstance(again.exception, UsageError)
    assert (tmp_path / "relay.yaml").read_text() == written


def test_the_doctor_looks_at_each_side_by_itself(tmp_path, tiny_study):
    """The worker's has no network to look at; the relay's nothing but network, disk and socket."""
    (tmp_path / "study.yaml").write_text(tiny_study())
    site = parse_site(SITE.format(group=grp.getgrgid(os.getgid()).gr_name), "s")
    groups = [check.group for check in institution.checks(site, tmp_path / "site.yaml")]
    assert not {"names", "proxy", "ports", "tls", "clock"} & set(groups)
    assert {"user", "policy", "data", "ledger", "encoder"} <= set(groups)
    relay = parse_relay(RELAYS.format(state="s"), "r")
    checks = list(institution.relay_checks(relay, tmp_path / "relay.yaml"))
    assert {check.group for check in checks} == {
        "versions", "user", "names", "proxy", "ports", "disk", "socket",
    }  # fmt: skip
    look = checks[-1].look
    assert look().state == "warning"
    (tmp_path / "door").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door" / "s"))
        listening.listen()
        assert look().state == "ok"


def test_the_doctor_tries_the_user_who_asks(monkeypatch):
    mine, other = grp.getgrgid(os.getgid()).gr_name, next(
        g.gr_name for g in grp.getgrall() if g.gr_gid not in {os.getgid(), *os.getgroups()}
    )  # fmt: skip
    for user, state in ((0, "warning"), (4711, "ok")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert study.relay_user().state == study.worker_user(mine).state == state
    with pytest.raises(ConfigError, match=f"not in the group {other}"):
        study.worker_user(other)
    with pytest.raises(ConfigError, match="no-such"):
        study.worker_user("no-such")


def test_a_worker_that_goes_between_two_looks_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sides, "probe", lambda _: 0)
    with pytest.raises(FederationError, match="ended just now"):
        sides.await_socket(tmp_path / "gone", print)
    monkeypatch.setattr(sides, "probe", lambda _: errno.EACCES)
    monkeypatch.setattr(sides, "_GRACE_S", -1.0)
    with pytest.raises(PolicyError, match="it is gone"):
        sides.await_socket(tmp_path / "gone", print)


# --- both, in a whole study


class Apart:
    """An institution of a stage, moved to where two users have it."""

    def __init__(self, stage: Stage, name: str, folder: Path):
        self.users, self.stage, self.door = Users(folder), stage, folder / "run" / name / "socket"
        self.worker, self.relay = folder / "worker", folder / "relay"
        shutil.move(stage.sites[name].parent, self.worker)
        stage.sites[name] = self.worker / "site.yaml"
        self.relay.mkdir()
        site = yaml.safe_load(stage.sites[name].read_text())
        del site["policy"]["accept_one_user"]
        site |= {"relay_group": GROUP_NAME, "socket": str(self.door)}
        stage.sites[name].write_text(yaml.safe_dump(site))
        for part in ("state", "../run", "../relay/state"):
            (self.worker / part).mkdir()
        self._divide(name)
        users.own(self.worker, WORKER)
        users.own(self.relay, RELAY)
        os.chown(folder / "run", WORKER, WORKER)
        (folder / "run").chmod(0o711)

    def _divide(self, name: str) -> None:
        """As docs/deployment.md says: the node key goes with the relay."""
        site = self.stage.sites[name]
        with pytest.MonkeyPatch.context() as patch:  # the group is in the other users' view alone
            patch.setattr("client.sides.group_id", lambda _: GROUP)
            fedner("client", site, "--write-relay", self.relay / "relay.yaml")
        shutil.move(self.worker / "node", self.relay / "node")
        shutil.move(self.worker / "ca.crt", self.relay / "ca.crt")
        left = yaml.safe_load(site.read_text())
        del left["authority"], left["node"]
        site.write_text(yaml.safe_dump(left))

    def start(self, side: str, user: int, file: Path, log: Path, **how) -> subprocess.Popen:
        """A supervisor as its unit file starts it."""
        command = self.users.python(
            user, "-m", "scripts.cli", "client", file, "--side", side, **how
        )
        with log.open("ab") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd="/",
                env=os.environ | self.stage.environment | {"HOME": "/nonexistent"},
            )  # fmt: skip


def below(process: subprocess.Popen, word: str) -> list[psutil.Process]:
    """Processes under a supervisor with a word in their command lines."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [p for p in found if any(word in part for part in p.cmdline()[1:])]


@users.needed
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_with_worker_and_relay_as_two_users_gives_the_simulations_model(
    place, tiny_encoder, tmp_path
):
    """TLS, node keys, secure sums, noise from a seed. The worker has no network, no capability, and
    nothing to write to but its state; it is killed between two rounds. The relay can't read it."""
    shutil.copytree(tiny_encoder, place / "encoder")
    subprocess.run(["chmod", "-R", "a+rX", str(place / "encoder")], check=True)
    text = private_study(lambda **c: tiny.study_text(place / "encoder", **c), THREE)
    with Stage(place / "s", text) as stage:
        apart = Apart(stage, NAME, place)
        log = {side: place / f"{side}.log" for side in ("worker", "relay")}
        server = stage.serve()
        sides = {}
        try:
            sides["relay"] = apart.start(
                "relay", RELAY, apart.relay / "relay.yaml", log["relay"],
                writable=[apart.relay / "state"],
            )  # fmt: skip
            sides["worker"] = apart.start(
                "worker", WORKER, stage.sites[NAME], log["worker"], network=False,
                writable=[apart.worker / "state", place / "run"],
            )  # fmt: skip
            stage.start(*THREE[1:])
            stage.await_event("round")
            (worker,) = below(sides["worker"], "client.worker")
            worker.send_signal(signal.SIGKILL)
            assert stage.finish() == 0, server.text + log["relay"].read_text()
            nodes = below(sides["relay"], "client.supernode")
            assert {p.uids().effective for p in nodes} == {RELAY}
            (worker,) = below(sides["worker"], "client.worker")
            assert worker.uids().effective == WORKER
            assert worker.net_connections("inet") == []
            assert served(apart) == {WORKER: "True", RELAY: "True"}
            sides["worker"].send_signal(signal.SIGTERM)
            assert sides["worker"].wait(60) == 130
            assert served(apart) == {WORKER: "False", RELAY: "False"}
        finally:
            for process in sides.values():
                process.terminate()
                process.wait(60)
    said = {side: path.read_text() for side, path in log.items()}
    assert "worker ended with -9; again in 1 s" in said["worker"]
    assert "ONE USER" not in said["worker"] + said["relay"]
    assert "waiting for the worker" in said["relay"]
    assert stat.S_IMODE((apart.worker / "state").stat().st_mode) == 0o700
    own = {path.stat().st_uid for path in (apart.relay / "state").rglob("*")}
    assert own == {RELAY}
    other = _simulated(text, tmp_path).load_delta()[0]
    assert stage.run.load_delta()[0].tobytes() == other.tobytes()


def served(apart):
    """Whether the worker serves, asked by each side's user at the place that is theirs."""
    code = (
        "import sys; from pathlib import Path; from client.health import is_serving; "
        "print(is_serving(Path(sys.argv[1]), 60))"
    )
    answers = {}
    for user, path in ((WORKER, apart.worker / "state/health/socket"), (RELAY, apart.door)):
        command = apart.users.python(user, "-c", code, path)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        answers[user] = done.stdout.strip()
    return answers
