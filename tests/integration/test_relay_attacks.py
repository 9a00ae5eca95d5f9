"""A hostile relay, as another user and as the worker's own, against a worker under hardening.

docs/policy.md has the table. The worker runs as its unit file says: a user of its own, no
network, no capabilities, no sockets but Unix ones, little that it can write to.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from typer.testing import CliRunner

from client.endpoint import MAX_CONNECTIONS
from common.config.canonical import study_hash
from common.io.configs import load_study
from common.wire import Request, decode_reply, encode, vector_to_bytes
from scripts.cli import app
from tests import tiny, users
from tests.users import GROUP_NAME, RELAY, STRANGER, WORKER, Users

NAME = tiny.INSTITUTIONS[0]
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 2, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic}"
)
pytestmark = users.needed

ATTACKS = r"""
import ctypes, errno, json, os, signal, socket, sys
pid, named, door = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
word = ctypes.create_string_buffer(8)

class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def mapped():
    # the worker's heap; any address, where this user does not see it
    try:
        heap = [line for line in open(f"/proc/{pid}/maps") if "[heap]" in line]
        return int(heap[0].split("-")[0], 16)
    except OSError:
        return 0x400000

def vectors():
    own = Iovec(ctypes.addressof(word), 8)
    return ctypes.byref(own), 1, ctypes.byref(Iovec(mapped(), 8)), 1, 0

def write_back():
    libc.process_vm_readv(pid, *vectors())  # what stood there, so that nothing is changed
    checked(libc.process_vm_writev(pid, *vectors()))

def move(path):
    os.rename(path, path + ".aside")
    os.rename(path + ".aside", path)

def plant(folder):
    open(folder + "/planted", "w").close()
    os.unlink(folder + "/planted")

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def mem(mode):
    with open(f"/proc/{pid}/mem", mode, buffering=0) as file:
        file.seek(mapped())
        if mode == "rb":
            file.read(8)

def attach(how):
    checked(libc.ptrace(how, pid, None, None))
    os.waitpid(pid, 0) if how == 16 else None
    checked(libc.ptrace(17, pid, None, None)) if how == 16 else None

def connect(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)

def open_door():
    os.chmod(door, 0o660)
    try:
        connect(door)
    finally:
        os.chmod(door, 0o060)

def stolen_handle():
    pidfd = os.pidfd_open(pid)
    for number in range(3, 64):
        got = libc.syscall(438, pidfd, number, 0)
        if got >= 0 or ctypes.get_errno() != errno.EBADF:
            return checked(got)

attempts = {
    **{f"read {name}": lambda path=path: read(path) for name, path in named["files"].items()},
    **{f"list {name}": lambda path=path: os.listdir(path)
       for name, path in named["folders"].items()},
    **{f"write into {name}": lambda path=path: plant(path)
       for name, path in named["folders"].items()},
    "link to the site file": lambda: os.link(named["files"]["site file"], named["mine"] + "/link"),
    "move the site file away": lambda: move(named["files"]["site file"]),
    "take the socket's lock file": lambda: read(door + ".lock"),
    "put another socket in its place": lambda: move(door),
    "change the socket's mode": open_door,
    "connect to the socket": lambda: connect(door),
    **{f"read /proc/PID/{name}": lambda name=name: read(f"/proc/{pid}/{name}")
       for name in ("environ", "maps", "auxv", "syscall", "stack", "pagemap")},
    "read /proc/PID/mem": lambda: mem("rb"),
    "open /proc/PID/mem for writing": lambda: mem("wb"),
    "list /proc/PID/fd": lambda: os.listdir(f"/proc/{pid}/fd"),
    "walk through /proc/PID/root": lambda: os.listdir(f"/proc/{pid}/root/"),
    "walk through /proc/PID/cwd": lambda: os.listdir(f"/proc/{pid}/cwd/"),
    "see what it runs: /proc/PID/exe": lambda: os.readlink(f"/proc/{pid}/exe"),
    "ptrace attach": lambda: attach(16),
    "ptrace seize": lambda: attach(0x4206),
    "process_vm_readv": lambda: checked(libc.process_vm_readv(pid, *vectors())),
    "process_vm_writev": write_back,
    "take an open file: pidfd_getfd": stolen_handle,
    "choose its cores": lambda: os.sched_setaffinity(pid, os.sched_getaffinity(pid)),
    "kill: SIGSTOP": lambda: (os.kill(pid, signal.SIGSTOP), os.kill(pid, signal.SIGCONT)),
    "kill: SIGKILL": lambda: os.kill(pid, signal.SIGKILL if "kill" in sys.argv else 0),
    "see its command line": lambda: read(f"/proc/{pid}/cmdline"),
    "see its state and memory use": lambda: read(f"/proc/{pid}/status"),
}
done = {}
for name, attempt in attempts.items():
    try:
        attempt()
        done[name] = "works"
    except OSError as error:
        done[name] = errno.errorcode[error.errno]
print(json.dumps(done))
"""
FLOOD = r"""
import resource, socket, struct, sys, time
door, how = sys.argv[1], sys.argv[2]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

def frame(kind, flags, stream, payload):
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload

def call(stream):
    fields = {":method": "POST", ":scheme": "http", ":path": "/fedner.Worker/Exchange",
              ":authority": "x", "content-type": "application/grpc", "te": "trailers"}
    block = b"".join(b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode()
                     for k, v in fields.items())
    return frame(1, 4, stream, block)

def speak(data):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(5)
    try:
        one.connect(door)
        one.sendall(data)
    except OSError:
        pass
    return one

START = PREFACE + frame(4, 0, 0, b"")
if how == "many":
    held = [speak(b"") for _ in range(3000)]
    for _ in range(2000):
        speak(START).close()
    for garbage in (b"\x00" * 5000, b"GET / HTTP/1.1\r\n\r\n", START + b"\xff" * 5000,
                    START + frame(6, 0, 0, bytes(8)) * 10000, START + frame(4, 0, 0, b"") * 10000,
                    START + call(1) + frame(0, 0, 1, b"\x00\xff\xff\xff\xff" + bytes(100))):
        held.append(speak(garbage))
else:  # each sends the head of a message and a part of it
    half = struct.pack(">BI", 0, 1 << 20) + bytes(1000)
    held = [speak(START + call(1) + frame(0, 0, 1, half)) for _ in range(8)]
print("ready", flush=True)
if how == "slow":  # a byte at a time, for ever
    while True:
        time.sleep(0.1)
        for one in held:
            try:
                one.sendall(frame(0, 0, 1, b"x"))
            except OSError:
                pass
sys.stdin.read()
"""
SEEN_BY_ALL = ("see its command line", "see its state and memory use")
TRACING = {
    "read /proc/PID/mem", "open /proc/PID/mem for writing", "ptrace attach", "ptrace seize",
    "process_vm_readv", "process_vm_writev", "take an open file: pidfd_getfd",
    "read /proc/PID/syscall",
}  # fmt: skip
"""What a kernel with Yama refuses to one's own user as well."""
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
TRACED_BY_NOBODY = YAMA.exists() and YAMA.read_text().strip() != "0"
FILES = {
    "documents": "train.jsonl",
    "site file": "site.yaml",
    "identity": "identity/private.key",
    "ledger": "state/ledger/ledger.jsonl",
    "audit log": "state/audit.jsonl",
    "worker's log": "state/worker.log",
    "health socket's lock": "state/health/socket.lock",
}
FOLDERS = {
    "site's folder": ".",
    "identity's": "identity",
    "state": "state",
    "ledger's": "state/ledger",
}


class Hospital:
    """A site for two users, with a worker that runs.

    Args:
        before: what stands before the worker's command line.
    """

    def __init__(self, folder: Path, encoder: Path, before: tuple[str, ...] = ()):
        self.folder, self.users = folder, Users(folder)
        deal(folder, encoder)
        self.site, self.state = folder / "f" / NAME, folder / "f" / NAME / "state"
        self.door = folder / "run" / NAME / "socket"
        self.relays = folder / "relay"
        self.log = (folder / "worker.log").open("wb")
        for path, user in ((self.site, WORKER), (self.relays, RELAY)):
            users.own(path, user)
        command = self.users.python(
            WORKER, "-c", users.LOCAL_SOCKETS_ONLY, "client.worker", self.site / "site.yaml",
            network=False, writable=[self.state, self.door.parent.parent],
        )  # fmt: skip
        self.worker = subprocess.Popen(
            [*before, *command],
            stdout=self.log, stderr=subprocess.STDOUT, cwd="/",
            env=os.environ | {"HOME": "/nonexistent", "TMPDIR": str(self.state)},
        )  # fmt: skip

    def wait(self):
        while not self.door.exists():
            assert self.worker.poll() is None, (self.folder / "worker.log").read_text()
            time.sleep(0.05)
        return self

    def attack(self, user, *how):
        """What a process of another user comes to, by attempt."""
        files = {name: str(self.site / path) for name, path in FILES.items()}
        folders = {name: str(self.site / path) for name, path in FOLDERS.items()}
        mine = self.folder / f"of-{user}"
        if not mine.exists():
            mine.mkdir()
            os.chown(mine, user, user)
        named = json.dumps({"files": files, "folders": folders, "mine": str(mine)})
        asked = ["-c", ATTACKS, str(self.worker.pid), named, str(self.door), *how]
        said = subprocess.run(
            self.users.python(user, *asked), capture_output=True, text=True, timeout=60, check=False
        )
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    def flood(self, how):
        """The relay's user, at the socket; it holds on until it is closed."""
        flooding = subprocess.Popen(
            self.users.python(RELAY, "-c", FLOOD, self.door, how),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert flooding.stdout.readline().strip() == "ready"
        return flooding

    def send(self, kind, round_, body=b""):
        """A request through the socket by the relay's own user: its reply, or a refusal's code."""
        study = study_hash(load_study(self.folder / "f" / "study.yaml"))
        request = encode(Request(kind=kind, study=study, round=round_, body=body))
        code = (
            "import sys; from client.relay import WorkerError, WorkerSocket\n"
            "door = WorkerSocket(sys.argv[1], 120, connect_timeout_s=60)\n"
            "try: sys.stdout.buffer.write(door.exchange(sys.stdin.buffer.read()))\n"
            "except WorkerError as error: sys.exit(error.refusal)"
        )
        return subprocess.run(
            self.users.python(RELAY, "-c", code, self.door),
            input=request, capture_output=True, timeout=200, check=False,
        )  # fmt: skip

    def ask(self, kind, round_, body=b""):
        """The worker's reply."""
        said = self.send(kind, round_, body)
        assert said.returncode == 0, said.stderr.decode()
        return decode_reply(said.stdout)

    def round(self, number):
        """A round of training that passes, whatever goes on."""
        size = self.ask("hello", 0).facts["dimension"]
        reply = self.ask("train", number, vector_to_bytes(np.zeros(size, np.float32)))
        assert (reply.refusal, len(reply.body)) == ("", 4 * size)

    def health(self):
        """As the worker's own user asks."""
        code = (
            "import sys; from pathlib import Path; from client.health import is_serving; "
            "print(is_serving(Path(sys.argv[1]), 20))"
        )
        said = subprocess.run(
            self.users.python(WORKER, "-c", code, self.state / "health" / "socket"),
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return said.stdout.strip() == "True"

    def close(self):
        for process in psutil.Process(self.worker.pid).children(recursive=True):
            process.kill()
        self.worker.kill()
        self.worker.wait(60)
        self.log.close()


def deal(folder, encoder):
    """A federation with an identity at one site, which is for two users."""
    shutil.copytree(encoder, folder / "encoder")
    for path in (folder / "encoder", *(folder / "encoder").iterdir()):
        path.chmod(0o755)
    text = tiny.study_text(
        folder / "encoder",
        privacy=PRIVACY,
        model="{train: full, dropout: 0}",
        training="{rounds: 3, learning_rate: 1e-3, precision: float32}",
    )
    (folder / "study.yaml").write_text(text)
    for command in (
        ["data", "deal", f"{folder}/study.yaml", "--out", f"{folder}/f"],
        ["identity", "new", NAME, "--out", f"{folder}/f/{NAME}/identity", "--no-passphrase"],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    (folder / "f").chmod(0o711)
    (folder / "f" / "study.yaml").chmod(0o644)
    path = folder / "f" / NAME / "site.yaml"
    content = yaml.safe_load(path.read_text())
    del content["policy"]["accept_one_user"]
    content |= {"identity": "identity", "relay_group": GROUP_NAME,
                "socket": f"{folder}/run/{NAME}/socket"}  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    for name, user, mode in (("run", WORKER, 0o711), ("relay", RELAY, 0o700)):
        (folder / name).mkdir()
        os.chown(folder / name, user, user)
        (folder / name).chmod(mode)
    (path.parent / "state").mkdir()


@pytest.fixture(scope="module")
def hospital(tiny_encoder):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        running = Hospital(Path(folder), tiny_encoder)
        try:
            yield running.wait()
        finally:
            running.close()


@pytest.fixture(scope="module")
def trained(hospital):
    """After a round, so that ledger, vault and log are there to be stolen."""
    reply = hospital.ask("train", 1)
    assert (reply.refusal, len(reply.body) > 0) == ("", True)
    return hospital


@pytest.fixture(scope="module")
def as_relay(trained):
    return trained.attack(RELAY, "kill")


@pytest.fixture(scope="module")
def as_stranger(trained):
    return trained.attack(STRANGER, "kill")


@pytest.fixture(scope="module")
def as_worker(trained):
    return trained.attack(WORKER)


def attempts():
    """Their names, out of the attack itself."""
    spec = json.dumps({"files": FILES, "folders": FOLDERS, "mine": "/nonexistent"})
    code = ATTACKS.split("done = {}")[0] + "print(json.dumps(list(attempts)))"
    said = subprocess.run(
        [sys.executable, "-c", code, "0", spec, "/x"], capture_output=True, text=True, check=True
    )
    return json.loads(said.stdout)


def test_the_worker_trains_with_all_taken_away_that_its_unit_takes(trained):
    """What the tests below attack is that worker. The system-call filter is systemd's own alone."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{trained.worker.pid}/status").read_text().splitlines()
    )
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert set(status["Uid"].split()) == {str(WORKER)}
    interfaces = Path(f"/proc/{trained.worker.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


@pytest.mark.parametrize("attempt", attempts())
def test_as_another_user_a_relay_is_refused_all_but_its_socket(attempt, as_relay, as_stranger):
    refused = {"EACCES", "EPERM"}
    if attempt in SEEN_BY_ALL:
        assert as_relay[attempt] == as_stranger[attempt] == "works"
    elif attempt == "connect to the socket":
        assert (as_relay[attempt], as_stranger[attempt]) == ("works", "EACCES")
    else:
        assert as_relay[attempt] in refused
        assert as_stranger[attempt] in refused


@pytest.mark.parametrize("attempt", attempts())
def test_as_the_workers_own_user_it_gets_nearly_everything(attempt, as_worker, trained):
    """So one user is refused by the default policy: `accept_one_user` (tests of the policy)."""
    if attempt == "connect to the socket":  # but it can change the socket's mode, as its owner
        assert as_worker[attempt] == "EACCES"
    elif attempt == "read /proc/PID/stack" or (TRACED_BY_NOBODY and attempt in TRACING):
        assert as_worker[attempt] in {"EACCES", "EPERM"}
    else:
        assert as_worker[attempt] == "works"


def test_thousands_of_connections_and_garbage_are_cut_off_and_a_round_passes_meanwhile(trained):
    process = psutil.Process(trained.worker.pid)
    files, memory = process.num_fds(), process.memory_info().rss
    with trained.flood("many") as flooding:
        assert process.num_fds() <= files + MAX_CONNECTIONS + 8
        trained.round(2)
        assert process.num_fds() <= files + MAX_CONNECTIONS + 8
        assert process.memory_info().rss - memory < 128 << 20
        flooding.kill()
    assert trained.worker.poll() is None


@pytest.mark.parametrize("how", ["half", "slow"])
def test_calls_that_are_held_open_keep_others_out_only_as_long_as_they_are_held(how, trained):
    """As the relay's user it keeps the site out of a study, as it could by ending itself."""
    with trained.flood(how) as flooding:
        refused = trained.send("hello", 0)
        assert refused.returncode == 1
        assert refused.stderr.decode().strip() == "worker-busy-or-request-too-large"
        assert trained.health()
        flooding.kill()
    trained.round(3)
