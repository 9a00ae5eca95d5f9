"""What a soak's file says: tables in Markdown, and the series that its plot draws."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from scripts.benchmarks._soak_plot import svg
from scripts.benchmarks._soak_sample import COORDINATOR
from scripts.benchmarks._soak_trend import Trend, trend

WARM: Final = 10
"""Rounds of a process's life that do not count: it is still loading."""
FIGURES: Final[Mapping[str, tuple[str, float]]] = {
    "rss": ("resident memory, MiB", 2.0**20),
    "handles": ("open file handles", 1.0),
    "threads": ("threads", 1.0),
    "processes": ("processes", 1.0),
}
"""Of groups: what it is, and what one unit of it is."""
ON_DISK: Final[Mapping[str, tuple[str, float]]] = {
    "records": ("disk, records, KiB", 2.0**10),
    "rest": ("disk, all else, KiB", 2.0**10),
    "files": ("files", 1.0),
}

Line = dict[str, Any]
Series = dict[tuple[str, object], list[tuple[float, float]]]
"""(round, value) by group or party, and life."""


def report(path: Path, plot: Path | None) -> int:
    """Print the tables; 0 if the study was carried through, spend is exact and nothing is left.

    Of a run that has not ended, the figures so far.
    """
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    begun, ended = lines[0], lines[-1]
    kills = [line for line in lines if line["kind"] == "kill"]
    over = ended["kind"] == "ended"
    if over:
        print("\n".join(_outcome(begun, ended, kills)))
        print("\n".join(["", *_spend(ended)]))
    else:
        print(f"The run has not ended: {ended.get('round')} rounds so far, {len(kills)} kills.")
    samples = [line for line in lines if line["kind"] == "sample"]
    print("\n".join(["", *_trends(samples)]))
    if plot is not None:
        plot.write_text(svg(_panels(samples), _marks(kills), begun["rounds"]), "utf-8")
    return 0 if over and is_sound(begun, ended) else 1


def is_sound(begun: Line, ended: Line) -> bool:
    """Whether all rounds are done, each charge is paid once, for a reason, and nothing is left."""
    done = not ended["failure"] and ended["rounds_done"] == begun["rounds"]
    left = ended["left"] or ended["strays"] or ended["temporary"]
    spends = ended["spend"].values()
    return done and not left and all(_is_exact(spend) for spend in spends)


def _is_exact(spend: Line) -> bool:
    wrong = ("twice", "unpaid", "unasked", "log_faults", "other_study")
    return not any(spend[name] for name in wrong) and spend["logged"] == spend["charges"]


def _outcome(begun: Line, ended: Line, kills: list[Line]) -> Iterator[str]:
    roles = Counter(kill["role"] for kill in kills)
    said = ", ".join(f"{role} {count}" for role, count in sorted(roles.items()))
    yield f"Rounds: {ended['rounds_done']} of {begun['rounds']}, seed {begun['seed']}."
    yield f"Killed: {len(kills)} ({said}). Lives of the server: {ended['server_lives']}."
    yield f"Refusals: {ended['refusals']}; attempts that ended: {ended['aborts']}."
    yield f"Failure: {ended['failure'] or 'none'}. Clients ended with {ended['client_exit_codes']}."
    yield f"Processes left: {len(ended['left'])} of the commands' own, {len(ended['strays'])} with "
    yield f"the run's folder in their environment. Temporary files left: {ended['temporary']}."


def _spend(ended: Line) -> Iterator[str]:
    yield (
        "| institution | charges | twice | in a sum, unpaid | unasked | paid, in no sum | in its "
        "log | epsilon |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name, spend in ended["spend"].items():
        cells = (
            name, spend["charges"], spend["twice"], len(spend["unpaid"]), len(spend["unasked"]),
            spend["not_in_a_sum"], spend["logged"], f"{spend['epsilon']:.4f}",
        )  # fmt: skip
        yield "| " + " | ".join(map(str, cells)) + " |"


def _trends(samples: list[Line]) -> Iterator[str]:
    yield "| what | of | mean | growth in 100 rounds | 95 % interval | lives | points |"
    yield "|---|---|---:|---:|---|---:|---:|"
    for figure, (name, unit) in FIGURES.items():
        found = of_groups(samples, figure)
        for role in sorted({_role(group) for group, _ in found}):
            lives = {key: points for key, points in found.items() if _role(key[0]) == role}
            yield _row(name, role, trend(lives), unit)
    for figure, (name, unit) in ON_DISK.items():
        found = on_disk(samples, figure)
        for party in ("coordinator", "institutions"):
            ours = {
                key: points
                for key, points in found.items()
                if (key[0] == COORDINATOR) == (party == "coordinator")
            }
            yield _row(name, party, trend(ours), unit)


def _row(name: str, of: str, found: Trend | None, unit: float) -> str:
    if found is None:
        return f"| {name} | {of} | | no life is long enough | | | |"
    mean, slope, low, high = (
        figure / unit for figure in (found.level, *(100 * x for x in found[:3]))
    )
    mark = " **grows**" if found.grows else ""
    return (
        f"| {name} | {of} | {mean:.1f} | {slope:+.2f}{mark} | {low:+.2f} to {high:+.2f} | "
        f"{found.lives} | {found.points} |"
    )


def of_groups(samples: list[Line], figure: str) -> Series:
    """Each group's least value in each round, by its life, once it is warm.

    The least, since what lives for one message is there in some samples and not in others.
    """
    least: dict[tuple[str, object], dict[int, float]] = defaultdict(dict)
    for sample in samples:
        for group, figures in sample["groups"].items():
            if figures["settled"]:
                _lower(least[group, figures["life"]], sample["round"], figures[figure])
    return {key: _warm(rounds) for key, rounds in least.items()}


def on_disk(samples: list[Line], figure: str) -> Series:
    """Each party's least value in each round."""
    least: dict[tuple[str, object], dict[int, float]] = defaultdict(dict)
    for sample in samples:
        for party, figures in sample["disk"].items():
            _lower(least[party, 0], sample["round"], figures[figure])
    return {key: _warm(rounds) for key, rounds in least.items()}


def _lower(rounds: dict[int, float], round_: int, value: float) -> None:
    rounds[round_] = min(value, rounds.get(round_, value))


def _warm(rounds: Mapping[int, float]) -> list[tuple[float, float]]:
    first = min(rounds) + WARM
    return [(float(r), value) for r, value in sorted(rounds.items()) if r >= first]


def _role(group: str) -> str:
    party, role = group.split("/")
    return f"server: {role}" if party == COORDINATOR else f"client: {role}"


def _panels(samples: list[Line]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Curves by panel and name: a role's mean over its parties, round by round."""
    panels = {}
    for figure, (name, unit) in FIGURES.items():
        panels[name] = _means(of_groups(samples, figure), _role, unit)
    for figure in ("records", "rest"):
        name, unit = ON_DISK[figure]
        panels[name] = _means(on_disk(samples, figure), _party, unit)
    return panels


def _party(name: str) -> str:
    return "server: supervisor" if name == COORDINATOR else "client: supervisor"


def _means(
    series: Series, curve_of: Callable[[str], str], unit: float
) -> dict[str, list[tuple[float, float]]]:
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (group, _life), points in series.items():
        for round_, value in points:
            values[curve_of(group)][round_].append(value / unit)
    return {
        name: [(r, sum(found) / len(found)) for r, found in sorted(rounds.items())]
        for name, rounds in sorted(values.items())
    }


def _marks(kills: list[Line]) -> dict[str, list[int]]:
    marks: dict[str, list[int]] = defaultdict(list)
    for kill in kills:
        marks[kill["role"]].append(kill["round"])
    return dict(marks)
