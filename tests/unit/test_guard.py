"""What an institution's guard charges, keeps and draws, without a model."""

from pathlib import Path

import pytest

from client.guard import Guard, Keys, open_guard
from common.config.site import Policy
from common.errors import BudgetError, ConfigError
from common.io.ledger_file import LedgerFile
from tests.unit.test_plan import NOISED, study

POLICY = Policy(accept_secure_aggregation_none=True, accept_insecure_seed=True)
SIZE = 1000
MADE = study(evaluation=NOISED)
SEEDED = study(evaluation=NOISED, insecure_seed="7")


def noise(keys: Keys) -> bytes:
    """What a computation would draw."""
    return keys("noise").bytes(32)


def guarded(folder: Path, made=MADE, name: str = "north") -> Guard:
    return open_guard(made, name, POLICY, folder, SIZE)


def test_exact_counts_are_not_the_guards(tmp_path: Path) -> None:
    guard = guarded(tmp_path / "ledger", study(evaluation="exact"))
    with pytest.raises(ConfigError, match="no event"):
        guard.evaluate(1, b"model", noise)
    assert not guard.state.reserves
    guard.close()


def test_with_an_insecure_seed_each_use_has_noise_of_its_own(tmp_path: Path) -> None:
    """Or what one vector shows of the noise would take it off another."""
    drawn = []
    for name in ("north", "south"):
        guard = guarded(tmp_path / name, SEEDED, name)
        for round_ in (1, 2):
            drawn += [guard.train(round_, b"m", noise), guard.evaluate(round_, b"m", noise)]
        for sealed in (tmp_path / name / "vault").glob("*.sealed"):
            sealed.unlink()
        drawn.append(guard.train(1, b"m", noise))  # the next attempt
        guard.close()
    assert len(set(drawn)) == len(drawn) == 10
    guard = guarded(tmp_path / "again", SEEDED)
    assert guard.train(1, b"m", noise) == drawn[0]  # the positive control: else all is the same
    guard.close()


def test_vectors_of_another_study_are_dropped_and_this_ones_stay(tmp_path: Path) -> None:
    vault = tmp_path / "ledger" / "vault"
    guard = guarded(tmp_path / "ledger")
    first = guard.train(1, b"m", noise)
    guard.close()
    guard = guarded(tmp_path / "ledger")
    assert guard.train(1, b"m", noise) == first
    guard.close()
    kept = set(vault.glob("*.sealed"))
    assert len(kept) == 1
    guard = guarded(tmp_path / "ledger", study(evaluation=NOISED, rounds=6))
    guard.close()
    assert not kept & set(vault.glob("*.sealed"))


def test_a_study_whose_noise_is_too_coarse_for_its_delta_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="missing tail"):
        open_guard(MADE, "north", POLICY, tmp_path / "ledger", 1 << 110)


def test_a_guard_that_can_not_be_made_gives_its_lock_back(tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        open_guard(MADE, "north", POLICY, tmp_path / "ledger", 1 << 110)
    with LedgerFile.open(tmp_path / "ledger", "north") as ledger:  # while the traceback lives
        assert not ledger.state.reserves
    assert caught.value.message
