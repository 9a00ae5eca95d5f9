"""Rows of the fault table: a worker caught after its reserve, and what the table says of spend."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common.config.load import parse_study
from common.io.vault import Vault, VaultName
from common.privacy.noise import check_truncation
from common.privacy.plan import plan_of
from scripts.benchmarks._faults_campaign import NAMES, ROUNDS, study_text
from scripts.benchmarks._faults_ledger import Reserved, caught, last_reserve
from scripts.benchmarks._faults_live import ROWS
from scripts.benchmarks._faults_policy import FIELDS
from scripts.benchmarks._faults_table import spend
from scripts.benchmarks._stage_tiny import bert_folder
from tests.ledgers import charge, digest, open_ledger

CHILD = """
import sys, time
from pathlib import Path
from common.io.release import release
from common.io.vault import Vault
from tests.ledgers import charge, open_ledger
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
def compute(reserved):
    time.sleep(seconds)
    return b"vector"
with open_ledger(folder) as ledger:
    release(ledger, Vault(folder), charge(3), (), compute)
    print("sent", flush=True)
    time.sleep(60)
"""


def test_the_last_reserve_of_a_round_is_found_and_whether_its_vector_is_stored(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "ledger"
    assert last_reserve(folder, "train", 1) is None
    with open_ledger(folder) as ledger:
        vault = Vault(folder)
        first = ledger.reserve(charge(1))
        ledger.reserve(charge(1, purpose="evaluate"))
        assert last_reserve(folder, "train", 1) == Reserved(first.seq, stored=False)
        vault.put(VaultName.of(first), b"vector")
        assert last_reserve(folder, "train", 1) == Reserved(first.seq, stored=True)
        vault.prune([VaultName.of(first)])
        assert last_reserve(folder, "train", 1) == Reserved(first.seq, stored=False)
        ledger.commit(first, digest("vector"))
        assert last_reserve(folder, "train", 1) == Reserved(first.seq, stored=True)
        again = ledger.reserve(charge(1))
        assert last_reserve(folder, "train", 1) == Reserved(again.seq, stored=False)
        with (folder / "ledger.jsonl").open("ab") as file:
            file.write(b'{"body":{"purp')
        assert last_reserve(folder, "train", 1) == Reserved(again.seq, stored=False)
        assert last_reserve(folder, "train", 2) is None


@pytest.fixture
def child(tmp_path: Path) -> Iterator[object]:
    started = []

    def start(seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD, str(tmp_path / "ledger"), str(seconds)]
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        started.append(subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_worker_is_killed_between_its_reserve_and_its_vector(child, tmp_path: Path) -> None:
    process = child(30.0)
    assert caught(tmp_path / "ledger", "train", 3, [psutil.Process(process.pid)], 60.0)
    assert process.wait(10) == -signal.SIGKILL
    with open_ledger(tmp_path / "ledger") as ledger:
        (reserved,) = ledger.attempts(charge(3))
        assert reserved.vector is None
        assert Vault(tmp_path / "ledger").get(VaultName.of(reserved)) is None


def test_a_worker_whose_vector_is_stored_already_goes_on(child, tmp_path: Path) -> None:
    process = child(0.0)
    assert process.stdout.readline() == b"sent\n"
    assert not caught(tmp_path / "ledger", "train", 3, [psutil.Process(process.pid)], 60.0)
    assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
    assert not caught(tmp_path / "ledger", "train", 4, [], 0.1)


def test_the_rows_have_the_windows_after_a_reserve_and_the_study_has_room_for_them(
    tmp_path: Path,
) -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {"worker-reserve", "disk-site", "disk-site-vectors"} <= set(names)
    assert names[-2:] == ["two-gone", "three-gone"]
    study = parse_study(study_text(bert_folder(tmp_path / "encoder")), "faults.yaml")
    plan = plan_of(study, NAMES[0])
    assert study.training.rounds == plan.rounds == ROUNDS
    killed = [row for row in ROWS if row.name == "worker-reserve"]
    assert plan.spare_rounds > len(killed)
    assert check_truncation(100_000, plan.noise_draws, plan.delta, plan.epsilon) < plan.delta
    assert plan.epsilon > plan.epsilon_without_spare(plan.delta)


def test_the_table_leaves_spend_empty_where_none_was_looked_at() -> None:
    assert spend({"row": "x", "shown": "refused", "by": []}) == ""
    assert spend({"row": "x", "failed": "no round"}) == ""
    policy = {"row": "policy-x", "replied": "policy"}
    assert spend(policy) == ""  # of a file from before this was counted
    assert spend(policy | {"charged": 0}) == "nothing"
    assert spend(policy | {"charged": 1}) == "1 reserve"
    assert spend(policy | {"charged": 2}) == "2 reserves"


def test_each_limit_of_a_budget_has_its_policy_row() -> None:
    rows = {one.title: one for one in FIELDS}
    assert len(rows) == len(FIELDS)
    for row, limit in (("budget", "epsilon_per_study"), ("budget-lifetime", "epsilon_lifetime")):
        (cap,) = rows[row].policy["budget"]
        assert limit in cap
        assert rows[row].name == "budget"
    assert rows["budget-lifetime"].refusal == "privacy-budget"
