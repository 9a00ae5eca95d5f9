"""No crash lowers the spend: every crash prefix on a recording disk, and 200 real SIGKILLs.

Claim: after any crash of a ledger that nobody tampered with, the next start works. What is refused
(`test_ledger.py`, `test_ledger_file.py`) no crash can leave behind. One thing that a crash does
leave can also be made by hand: an unfinished or whole entry one beyond `ledger.head`. It was never
acknowledged, so nothing was trained for it: moving an unfinished one aside loses no true spend.
"""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from common.errors import BudgetError
from common.io import vault_room
from common.io.disk import write_at
from common.io.release import release
from common.io.vault import Vault, VaultName
from common.privacy.ledger import spent
from common.privacy.ledger_codec import countersign
from common.privacy.ledger_examine import verify_file
from tests.disks import MemoryDisk
from tests.ledgers import COORDINATOR, NOON, STEPS, Clock, chance, charge, open_ledger

FOLDER = Path("/state/ledger")
FOLDERS = ("/state", FOLDER, FOLDER / "vault")
MARKER = Path("/state/trained")
ROUNDS = 3
KILLS = 200
ROOT = Path(__file__).parents[2]
REPAIRED = ("ledger.jsonl", "ledger.head")


@pytest.fixture(autouse=True)
def _little_room(monkeypatch):
    """Every image of the disk is held in memory: the room beside a vector is 64 bytes here."""
    monkeypatch.setattr(vault_room, "ENTRIES_BYTES", 64)


class Institution:
    """Trains round by round, and remembers what is true whatever the disk says."""

    def __init__(self, disk, name="first"):
        self.disk, self.name = disk, name
        self.trained, self.acknowledged, self.sent = 0, [], {}
        self.numbers = count()

    @property
    def truth(self):
        """How often it trained, which reserves were acknowledged, what was sent."""
        return self.trained, tuple(self.acknowledged), tuple(self.sent.items())

    def run(self, rounds=ROUNDS):
        with open_ledger(FOLDER, disk=self.disk, random=chance()) as ledger:
            vault = Vault(FOLDER, random=chance(), disk=self.disk)
            for number in range(1, rounds + 1):
                vector = release(ledger, vault, charge(number), (), self.compute)
                self.sent[number] = vector
                ledger.anchor(countersign(ledger.head, COORDINATOR, NOON))

    def compute(self, reserved):
        self.acknowledged.append(reserved.seq)
        self.trained += 1
        write_at(self.disk, MARKER, b"%d" % self.trained, 0, create=True)
        return f"{self.name} vector {next(self.numbers)}".encode() * 5


def steps_on(disk):
    with open_ledger(FOLDER, disk=disk, random=chance()) as ledger:
        return sum(event.steps for event in spent(ledger.state, unit="patient"))


def images_of(run, disk, rounds=ROUNDS):
    """Every disk that a crash during `run` may leave, with what was true by then."""
    found, truths = {}, {}

    def watch():
        truth = run.truth
        for files in disk.crashes():
            key = tuple(sorted(files.items()))
            found[key, truth] = files
            truths[key, truth] = truth

    disk.watch = watch
    run.run(rounds)
    disk.watch = lambda: None
    return [(files, truths[key]) for key, files in found.items()]


def check_start(files, truth):
    """The next start works, and nothing true is missing."""
    trained, acknowledged, _ = truth
    disk = MemoryDisk(files, folders=FOLDERS)
    with open_ledger(FOLDER, disk=disk, random=chance()) as ledger:
        state = ledger.state
        assert set(acknowledged) <= state.reserves.keys()
        assert sum(e.steps for e in spent(state, unit="patient")) >= STEPS * trained
        verified = verify_file(disk.read(FOLDER / "ledger.jsonl"), ledger.public_key)
        assert verified == state
    return disk


def check_restart(files, truth):
    """And sent vectors are sent again, without another training."""
    trained, _, sent = truth
    disk = check_start(files, truth)
    again = Institution(disk, "second")
    again.run()
    for number, vector in sent:
        assert again.sent[number] == vector
    assert again.trained <= ROUNDS - len(sent)
    assert steps_on(disk) >= STEPS * (trained + again.trained)


def check_all(images):
    for files, truth in images:
        check_restart(files, truth)


def test_every_crash_prefix_leaves_a_ledger_that_starts_and_holds_the_true_spend():
    disk = MemoryDisk()
    images = images_of(Institution(disk), disk)
    assert len(images) > 500
    check_all(images)
    assert {truth[0] for _, truth in images} == {0, 1, 2, 3}


def test_a_crash_during_the_repair_after_a_crash_loses_nothing_either():
    disk = MemoryDisk()
    torn, images = 0, {}
    for files, truth in images_of(Institution(disk), disk, rounds=1):
        second = MemoryDisk(files, folders=FOLDERS)

        def watch(second=second, truth=truth):
            images.update(((tuple(sorted(left.items())), truth), left) for left in second.crashes())

        second.watch = watch
        open_ledger(FOLDER, disk=second, random=chance()).close()
        torn += any(path.name.startswith("ledger.torn") for path in second.inodes)
    assert torn > 30
    assert len(images) > 500
    for (_, truth), files in images.items():
        check_start(files, truth)


@pytest.mark.parametrize("restarted", [True, False])
def test_a_head_whose_name_is_not_on_disk_yet_is_put_there_before_another_entry(restarted):
    """The disk fails or the process dies just then; it goes on, and later the power is cut."""
    disk, images = MemoryDisk(), []
    ledger = open_ledger(FOLDER, disk=disk, random=chance())
    ledger.reserve(charge(1))
    disk.fault = failing(1, "fsync_folder")
    with pytest.raises(BudgetError):
        ledger.reserve(charge(2))
    disk.fault = lambda *_: None
    if restarted:
        ledger.close()
    disk.watch = lambda: images.extend(disk.crashes())
    if restarted:
        ledger = open_ledger(FOLDER, disk=disk, random=chance())
    ledger.reserve(charge(3))
    ledger.close()
    assert len(images) > 10
    for files in images:
        with open_ledger(FOLDER, disk=MemoryDisk(files, folders=FOLDERS), random=chance()) as left:
            assert {2} <= left.state.reserves.keys()


class Forgetful(MemoryDisk):
    """Says that everything is on disk, and does not flush some files or a folder."""

    def __init__(self, file=None, folder=None):
        super().__init__()
        self.file, self.folder = file, folder

    def fsync(self, descriptor):
        if self.file is None or self.file not in self.descriptors[descriptor][1].name:
            super().fsync(descriptor)

    def fsync_folder(self, path):
        if path.name != self.folder:
            super().fsync_folder(path)


@pytest.mark.parametrize(
    "forgotten",
    [
        {"file": "ledger.jsonl"},
        {"file": "ledger.head"},
        {"file": "sealed"},
        {"folder": "state"},
        {"folder": "ledger"},
        {"folder": "vault"},
    ],
    ids=str,
)
def test_the_crash_tests_find_whatever_is_not_flushed(forgotten):
    disk = Forgetful(**forgotten)
    images = images_of(Institution(disk), disk, rounds=1)
    with pytest.raises((AssertionError, BudgetError)):
        check_all(reversed(images))


class Hasty(Institution):
    """Trains before it reserves."""

    def run(self, rounds=1):
        with open_ledger(FOLDER, disk=self.disk, random=chance()) as ledger:
            self.trained += 1
            ledger.reserve(charge(1))


def test_the_crash_tests_find_training_before_the_reserve():
    disk = MemoryDisk()
    images = images_of(Hasty(disk), disk)
    with pytest.raises(AssertionError):
        check_all(images)


def failing(number, name="fsync"):
    """Raises ENOSPC at the `number`th call of one kind; the test's own marker is spared."""
    calls = count(1)

    def fault(call, path):
        if call == name and path != MARKER and next(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")

    return fault


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename", "fsync_folder"])
def test_a_full_disk_at_any_call_is_refused_and_after_a_power_cut_too_nothing_is_lost(name):
    """The kernel may drop what it could not flush: a later fsync must not pretend otherwise."""
    for number in count(1):
        disk = MemoryDisk()
        run = Institution(disk)
        disk.fault = failing(number, name)
        if not breaks_off(run):
            break
        disk.fault = lambda *_: None
        check_all([(files, run.truth) for files in disk.crashes()])
        run.run()  # the same machine goes on, and loses its power later
        check_all([(files, run.truth) for files in disk.crashes()])
    assert number > 5


def breaks_off(run):
    """Whether the run ended with the disk's error, its lock given back."""
    try:
        run.run()
    except BudgetError as error:
        return "No space left" in error.message and not run.disk.locked
    return False


class Server:
    """A process that has imported what it needs, and forks children that release without end."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ledger_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill_after(self, folder, seconds):
        """Start a child on a folder and kill it; the signal that ended it."""
        pid = int(self.ask(str(folder)))
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        return int(self.ask("wait"))

    def seconds_of(self, folder, vectors):
        """How long a child takes on this machine, now, until it has sent so many."""
        begun, pid = time.monotonic(), int(self.ask(str(folder)))
        while len(lines_of(folder.parent / "sent")) < vectors:
            time.sleep(0.002)
        taken = time.monotonic() - begun
        os.kill(pid, signal.SIGKILL)
        self.ask("wait")
        return taken

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def test_200_kills_leave_a_ledger_that_starts_and_holds_the_true_spend(server, tmp_path):
    chance_of = random.Random(3)
    found = Counter()
    (tmp_path / "first").mkdir()
    latest = max(0.12, 2 * server.seconds_of(tmp_path / "first" / "ledger", 2))
    for kill in range(KILLS):
        folder = tmp_path / str(kill // 10) / "ledger"
        folder.parent.mkdir(exist_ok=True)
        assert server.kill_after(folder, chance_of.uniform(0, latest)) == signal.SIGKILL
        found[look_at(folder)] += 1
    assert sum(found.values()) == KILLS
    assert found["between reserve and vector"] > 5
    assert found["trained"] > KILLS / 4


def look_at(folder):
    """Reopen after a kill, compare with the child's own marks, and say where it was."""
    trained = [int(line) for line in lines_of(folder.parent / "trained")]
    sent = [json.loads(line) for line in lines_of(folder.parent / "sent")]
    with open_ledger(folder, clock=Clock()) as ledger:
        state = ledger.state
        assert set(trained) <= state.reserves.keys()
        spend = sum(e.steps for e in spent(state, unit="patient"))
        assert spend == STEPS * len(state.reserves) >= STEPS * len(trained)
        verify_file((folder / "ledger.jsonl").read_bytes(), ledger.public_key)
        vault = Vault(folder)
        for seq, vector in sent:
            stored = vault.get(VaultName.of(state.reserves[seq]))
            assert hashlib.sha256(stored).hexdigest() == vector
    if not trained:
        return "before training"
    last = state.reserves[max(state.reserves)]
    return "trained" if last.vector else "between reserve and vector"


def lines_of(path):
    """Whole lines; the last one may be cut off."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def test_the_ledger_is_imported_without_torch_and_without_the_accountants():
    code = "import sys, common.io.release, common.io.ledger_recovery; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"torch", "dp_accounting", "opacus", "scipy"} & set(done.stdout.split())
