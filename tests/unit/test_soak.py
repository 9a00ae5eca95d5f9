"""The soak's trend: finds a leak, finds none where there is none, and is not fooled by restarts."""

import json

import numpy as np
import pytest

from scripts.benchmarks._soak_report import LIMITS, report
from scripts.benchmarks._soak_sample import _disk
from scripts.benchmarks._soak_trend import LEAST, trend


def series(seed: int, rounds: int, slope: float, level: float = 100.0, keeps: float = 0.6):
    """Values with errors that hang together from round to round."""
    random, error, points = np.random.default_rng(seed), 0.0, []
    for round_ in range(rounds):
        error = keeps * error + random.normal()
        points.append((float(round_), level + slope * round_ + error))
    return points


def test_a_leak_is_found_and_its_size_is_within_the_interval() -> None:
    found = trend({0: series(1, 200, 0.05)})
    assert found is not None
    assert found.grows
    assert found.low < 0.05 < found.high


def test_where_nothing_grows_the_interval_holds_zero_about_as_often_as_it_says() -> None:
    """Of 400 series without growth; errors that hang together for long make it a little short."""
    held = sum(
        found.low <= 0 <= found.high
        for seed in range(400)
        if (found := trend({0: series(seed, 200, 0.0)})) is not None
    )
    assert 0.87 * 400 < held < 0.98 * 400


def test_a_restart_at_another_level_is_no_growth() -> None:
    lives = {life: series(life, 50, 0.0, level=100.0 + 50 * life) for life in range(4)}
    shifted = {
        life: [(50 * life + round_, value) for round_, value in points]
        for life, points in lives.items()
    }
    found = trend(shifted)
    assert found is not None
    assert found.low <= 0 <= found.high
    assert found.lives == 4
    whole = trend({0: [point for points in shifted.values() for point in points]})
    assert whole is not None
    assert whole.grows  # what looking past the restarts would say


def test_a_leak_that_restarts_hide_is_found() -> None:
    lives = {life: series(life, 50, 0.2) for life in range(4)}
    found = trend(lives)
    assert found is not None
    assert found.low < 0.2 < found.high
    assert found.grows


def test_short_lives_do_not_count_and_nothing_is_said_without_long_ones() -> None:
    assert trend({0: series(0, LEAST - 1, 9.0)}) is None
    found = trend({0: series(0, LEAST - 1, 99.0), 1: series(1, 100, 0.0)})
    assert found is not None
    assert (found.lives, found.points) == (1, 100)


def test_a_figure_that_never_changes_has_no_slope() -> None:
    found = trend({0: [(float(r), 7.0) for r in range(50)]})
    assert found is not None
    assert (found.slope, found.low, found.high, found.grows) == (0.0, 0.0, 0.0, False)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        trend({0: [(float(r), np.inf) for r in range(20)]})


ROUNDS = 100
SPEND = {
    "charges": 100, "twice": 0, "unpaid": [], "unasked": [], "not_in_a_sum": 0, "epsilon": 1.0,
    "logged": 100, "log_faults": 0, "other_study": 0,
}  # fmt: skip
ENDED = {
    "kind": "ended", "failure": "", "rounds_done": ROUNDS, "server_lives": 1,
    "client_exit_codes": {"north": 130}, "left": [], "strays": [], "temporary": 0, "refusals": 0,
    "aborts": 0, "f1": 0.1, "spend": {"north": SPEND},
}  # fmt: skip
GROUP = {"rss": 2.0**28, "handles": 40.0, "threads": 8.0, "processes": 1.0}
DISK = {"records": 2.0**16, "rest": 2.0**20, "files": 20.0}
GROWTH = {"records": 1e4}
"""Bytes a round that a run in order has: what is appended by design."""


@pytest.fixture
def ran(tmp_path):
    """A run's file, with growth a round of some figures; the report's exit code."""

    def run(rounds=ROUNDS, party="north", **changes):
        growth = {name: changes.pop(name) for name in list(changes) if name in (*GROUP, *DISK)}
        random = np.random.default_rng(1)

        def at(figures, round_, who):
            slope = {**GROWTH, **(growth if who == party else {})}
            return {name: value + slope.get(name, 0.0) * round_ + random.normal()
                    for name, value in figures.items()}  # fmt: skip

        lines = [{"kind": "begun", "rounds": ROUNDS, "seed": 1}]
        for round_ in range(rounds):
            north, server = (at(GROUP, round_, p) for p in ("north", "coordinator"))
            groups = {"north/worker": north, "coordinator/superlink": server}
            lines.append({
                "kind": "sample", "round": round_, "temporary": 0,
                "groups": {g: {**f, "life": 1, "settled": 1} for g, f in groups.items()},
                "disk": {p: at(DISK, round_, p) for p in ("north", "coordinator")},
            })  # fmt: skip
        lines.append({**ENDED, **changes})
        path = tmp_path / "soak.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return report(path, None)

    return run


def test_a_run_without_growth_but_of_its_records_is_sound(ran, capsys):
    assert ran() == 0
    assert "FAULT" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("party", "figure", "a_round", "said"),
    [
        ("north", "rss", 2.0**20 / 10, "resident memory, MiB, client: worker"),
        ("coordinator", "handles", 0.1, "open file handles, server: superlink"),
        ("north", "threads", 0.1, "threads, client: worker"),
        ("coordinator", "processes", 0.1, "processes, server: superlink"),
        ("coordinator", "records", 1e5, "disk, records, KiB, coordinator"),
        ("north", "rest", 2.0**15, "disk, all else, KiB, institutions"),
        ("north", "files", 1.0, "files, institutions"),
    ],
)
def test_a_figure_that_grows_beyond_its_limit_is_named_and_the_run_is_not_sound(
    ran, capsys, party, figure, a_round, said
):
    assert ran(party=party, **{figure: a_round}) == 1
    (fault,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("FAULT"))
    assert f"{said} grows" in fault
    assert f"at most {LIMITS[figure]:g}" in fault


def test_growth_below_the_limit_is_marked_and_is_no_fault(ran, capsys):
    assert ran(rss=2.0**20 / 100) == 0
    assert "**grows**" in capsys.readouterr().out


def test_a_run_too_short_for_a_figure_is_not_sound(ran, capsys):
    assert ran(rounds=20) == 1
    assert "FAULT: no life is long enough to judge: threads, client: worker" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "change",
    [
        {"failure": "killed"},
        {"rounds_done": 99},
        {"left": ["x"]},
        {"strays": ["x"]},
        {"temporary": 1},
        {"spend": {"north": {**SPEND, "twice": 1}}},
        {"spend": {"north": {**SPEND, "logged": 99}}},
    ],
)
def test_what_else_is_wrong_is_a_fault_too(ran, capsys, change):
    assert ran(**change) == 1
    assert capsys.readouterr().out.count("FAULT: ") == 1


def test_a_run_that_has_not_ended_is_not_sound(ran, tmp_path):
    ran()
    path = tmp_path / "soak.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert report(path, None) == 1


def test_what_grows_by_design_is_told_from_all_else(tmp_path):
    for name in ("audit.jsonl", "worker.log", "ledger.json", "vault-3.sealed"):
        (tmp_path / name).write_bytes(bytes(10))
    assert _disk(tmp_path) == {"records": 30, "rest": 10, "files": 1}
