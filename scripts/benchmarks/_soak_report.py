"""What a soak's file says: tables in Markdown, and the series that its plot draws."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

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
LIMITS: Final[Mapping[str, float]] = {
    "rss": 4.0,
    "handles": 2.0,
    "threads": 2.0,
    "processes": 1.0,
    "records": 4096.0,
    "rest": 1024.0,
    "files": 10.0,
}
"""Growth in 100 rounds, in the units above, that is no leak. More is one if all of the interval is.

Zero would not do: of 34 intervals of 95 %, about one lies above zero by chance. In 100 rounds each
role handles hundreds of messages and a few kills of others, so what leaks with one of these leaves
more than two handles or threads, or a process. Memory: 40 MiB after 1,000 rounds, about a tenth of
what a worker holds; an allocator creeps so, and a leak of less is not found. Records: the
entries of a round take 8 KiB at an institution and 16 at the coordinator; the limit is 40. All
else: no file is to be left a round, nor 10 KiB; but a kill may leave a torn end, which is kept.
"""

Line = dict[str, Any]
Series = dict[tuple[str, object], list[tuple[float, float]]]
"""(round, value) by group or party, and life."""


class Row(NamedTuple):
    """A figure's trend; `limit` is the growth in 100 rounds that is none, in the figure's units."""

    name: str
    of: str
    found: Trend | None
    unit: float
    limit: float


def report(path: Path, plot: Path | None) -> int:
    """Print the tables; 0 if the study was carried through, spend is exact, nothing is left and
    nothing leaks. Else each fault is named.

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
    rows = list(_rows(samples))
    print("\n".join(["", *_trends(rows)]))
    if plot is not None:
        plot.write_text(svg(_panels(samples), _marks(kills), begun["rounds"]), "utf-8")
    if not over:
        return 1
    faults = [*_unsound(begun, ended), *_growth(rows)]
    print("\n".join(["", *(f"FAULT: {fault}" for fault in faults)]))
    return 1 if faults else 0


def _unsound(begun: Line, ended: Line) -> Iterator[str]:
    """Unless all rounds are done, each charge is paid once, for a reason, and nothing is left."""
    if ended["failure"] or ended["rounds_done"] != begun["rounds"]:
        yield f"{ended['rounds_done']} of {begun['rounds']} rounds are done"
    for what in ("left", "strays", "temporary"):
        if ended[what]:
            yield f"{what}: {ended[what]}"
    for name, spend in ended["spend"].items():
        if not _is_exact(spend):
            yield f"what {name} has spent is not exact: {spend}"


def _growth(rows: Iterable[Row]) -> Iterator[str]:
    """What leaks, and what was not watched for long enough to say."""
    for row in rows:
        what = f"{row.name}, {row.of}"
        if row.found is None:
            yield f"no life is long enough to judge: {what}"
        elif (low := 100 * row.found.low / row.unit) > row.limit:
            yield f"{what} grows by {low:.1f} or more in 100 rounds; at most {row.limit:g} is none"


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


def _trends(rows: Iterable[Row]) -> Iterator[str]:
    yield "| what | of | mean | growth in 100 rounds | 95 % interval | limit | lives | points |"
    yield "|---|---|---:|---:|---|---:|---:|---:|"
    yield from map(_line, rows)


def _rows(samples: list[Line]) -> Iterator[Row]:
    for figure, (name, unit) in FIGURES.items():
        found = of_groups(samples, figure)
        for role in sorted({_role(group) for group, _ in found}):
            lives = {key: points for key, points in found.items() if _role(key[0]) == role}
            yield Row(name, role, trend(lives), unit, LIMITS[figure])
    for figure, (name, unit) in ON_DISK.items():
        found = on_disk(samples, figure)
        for party in ("coordinator", "institutions"):
            ours = {
                key: points
                for key, points in found.items()
                if (key[0] == COORDINATOR) == (party == "coordinator")
            }
            yield Row(name, party, trend(ours), unit, LIMITS[figure])


def _line(row: Row) -> str:
    name, of, found, unit, limit = row
    if found is None:
        return f"| {name} | {of} | | no life is long enough | | {limit:g} | | |"
    mean, slope, low, high = (
        figure / unit for figure in (found.level, *(100 * x for x in found[:3]))
    )
    mark = " **grows**" if found.grows else ""
    return (
        f"| {name} | {of} | {mean:.1f} | {slope:+.2f}{mark} | {low:+.2f} to {high:+.2f} | "
        f"{limit:g} | {found.lives} | {found.points} |"
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
