"""What an institution's guard charges, keeps and draws, without a model."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from client.guard import Guard, Keys, open_guard
from common.config.site import Policy
from common.config.study import Study
from common.errors import BudgetError, ConfigError, StorageError
from common.io.disk import Disk
from common.io.ledger_file import LedgerFile
from common.io.vault import stored
from common.privacy.accountant import epsilon as account
from common.privacy.ledger import Cap
from common.privacy.ledger_spend import spent
from common.privacy.outlook import outlook
from common.privacy.plan import plan_of
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


def lost(keys: Keys) -> bytes:
    raise SystemExit  # the worker dies in its work


def die(folder: Path, made: Study, round_: int) -> None:
    guard = guarded(folder, made)
    with pytest.raises(SystemExit):
        guard.train(round_, b"m", lost)
    guard.close()


def train_all(folder: Path, made: Study, caplog: pytest.LogCaptureFixture) -> int:
    """Rounds that were trained before the ledger said no."""
    done = 0
    with caplog.at_level("WARNING"):
        guard = guarded(folder, made)
    with suppress(BudgetError):
        for round_ in range(1, made.training.rounds + 1):
            guard.train(round_, b"m", noise)
            done = round_
    guard.close()
    return done


def test_a_lost_vector_leaves_the_last_round_without_budget_and_the_start_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = study(evaluation="exact", rounds=4)
    die(tmp_path / "ledger", made, 1)
    assert train_all(tmp_path / "ledger", made, caplog) == 3
    assert "the last round no longer fits, of 4 to come" in caplog.text
    assert "over the study's own target of" in caplog.text


def test_a_vector_whose_commit_a_crash_took_is_kept_and_costs_no_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = study(evaluation="exact", rounds=4), tmp_path / "ledger"
    with monkeypatch.context() as patch:
        patch.setattr(LedgerFile, "commit", lambda *_: sys.exit())
        guard = guarded(folder, made)
        with pytest.raises(SystemExit):
            guard.train(1, b"m", noise)
        guard.close()
    with caplog.at_level("WARNING"):
        guard = guarded(folder, made)
    assert "no longer fit" not in caplog.text
    (reserved,) = guard.state.reserves.values()
    assert stored(folder)(reserved)
    assert not stored(tmp_path)(reserved)
    guard.close()
    assert train_all(folder, made, caplog) == 4
    assert "no longer fit" not in caplog.text


def test_a_search_is_not_charged_where_there_is_no_room_for_the_first_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = (
        "{trials: [{runs: 2, sampling_rate: 0.1, noise_multiplier: 2, steps: 20}], description: d}"
    )
    guard = guarded(tmp_path / "ledger", study(settings_from="search", search=trials))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "allocate", full)
        with pytest.raises(StorageError, match="no room for a vector") as caught:
            guard.train(1, b"m", noise)
    assert "nothing was charged" in str(caught.value.remedy)
    assert not guard.state.reserves
    guard.train(1, b"m", noise)
    assert [r.body.purpose for r in guard.state.reserves.values()] == ["search", "train"]
    guard.close()


def test_spare_rounds_carry_a_study_over_as_many_lost_vectors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = study(evaluation="exact", rounds=4, spare_rounds="2")
    die(tmp_path / "ledger", made, 1)
    die(tmp_path / "ledger", made, 1)
    assert train_all(tmp_path / "ledger", made, caplog) == 4
    assert "no longer fit" not in caplog.text
    guard = guarded(tmp_path / "ledger", made)
    spend = account(spent(guard.state, unit="record"), guard.plan.delta)
    assert spend == pytest.approx(guard.plan.epsilon, rel=1e-9)
    assert spend <= 4
    guard.close()


@pytest.mark.parametrize(("deaths", "fitting"), [(0, 4), (1, 4), (2, 3), (4, 1), (5, 0)])
def test_the_outlook_counts_the_rounds_that_still_fit(
    tmp_path: Path, deaths: int, fitting: int
) -> None:
    made = study(evaluation=NOISED, rounds=4, evaluate_every=4, spare_rounds="1")
    for _ in range(deaths):
        die(tmp_path / "ledger", made, 1)
    guard = guarded(tmp_path / "ledger", made)
    found = outlook(made, guard.plan, guard.state, ())
    assert (found.remaining, found.fitting) == (4, fitting)
    assert found.begun is (deaths > 0)
    for round_ in range(1, fitting + 1):
        guard.train(round_, b"m", noise)
    if fitting < 4:
        with pytest.raises(BudgetError):
            guard.train(4, b"m", noise)
    else:
        guard.evaluate(4, b"m", noise)
        assert not outlook(made, guard.plan, guard.state, ()).figures
    guard.close()


def test_the_outlook_measures_the_caps_with_the_search(tmp_path: Path) -> None:
    trials = (
        "{trials: [{runs: 2, sampling_rate: 0.1, noise_multiplier: 2, steps: 20}], description: d}"
    )
    made = study(evaluation="exact", settings_from="search", search=trials)
    plan = plan_of(made, "north")
    both = plan.epsilon_with_search(plan.delta)
    for cap, fits in ((1.0001 * both, True), (0.9999 * both, False), (plan.epsilon, False)):
        caps = (Cap(unit="record", delta=plan.delta, epsilon_per_study=cap),)
        found = outlook(made, plan, None, caps)
        assert (not found.why) is fits
        assert fits or "cap per study" in found.why
    assert outlook(made, plan, None, ()).why == ""
