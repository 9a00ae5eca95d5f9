"""A run as a report reads it: study and metrics, read once, with the place of each figure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from common.errors import UsageError
from scripts.reporting.figures import NONE, Figure, Lines, Show, of_study, score
from scripts.reporting.page import Curve, Plot, Table, Text
from server.origin import ORIGIN
from server.run_dir import METRICS, STUDY, RunDir
from server.standing import ROSTER

MICRO: Final = "micro"


class Source:
    """What the sections of a report are made from.

    Attributes:
        lines: the metrics.
        raw: the study file as YAML has it.
        start: number of the line of the start.
        rounds, evaluations, baselines: numbers of their lines.
        last: number of the last evaluation's line.
        is_simulated: whether one process trained for all.

    Raises:
        UsageError: the run has not started, so that there is nothing to report.
        FederationError: a damaged line of the metrics.
    """

    def __init__(self, run: RunDir):
        self.run, self.study, self.lines = run, run.study(), Lines(run.events())
        self.raw: Mapping[str, Any] = yaml.safe_load(self.study_text)
        starts = self.lines.of("start")
        if not starts:
            raise UsageError(
                "this run has not started: its metrics have no `start`",
                place=str(run.path),
                remedy="wait until the institutions are there; `run.log` says who is missing",
            )
        self.start = starts[0]
        self.rounds = self.lines.of("round")
        self.evaluations = self.lines.of("evaluation")
        self.baselines = self.lines.of("baseline")
        self.is_simulated = not (run.path / ORIGIN).exists()

    @property
    def study_text(self) -> str:
        """The study file, whole."""
        return (self.run.path / STUDY).read_text("utf-8")

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the study."""
        return self.study.task.labels

    @property
    def names(self) -> tuple[str, ...]:
        """Labels, and `micro` where it says something else."""
        return (*self.labels, MICRO) if len(self.labels) > 1 else self.labels

    @property
    def institutions(self) -> tuple[str, ...]:
        """Of the study."""
        return self.study.federation.institutions

    @property
    def last(self) -> int | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def is_noised(self) -> bool:
        """Whether the last evaluation's counts carry noise."""
        return self.last is not None and bool(self.lines.value(self.last, "noised"))

    @property
    def interval(self) -> int | None:
        """In a simulation, the line with an interval of the last shared model's F1."""
        found = self.lines.of("simulated_interval")
        return found[-1] if found else None

    @property
    def shared(self) -> int | None:
        """The line that the shared model is compared by: exact if a simulation has such a one."""
        if self.is_noised and self.interval and self.has(self.interval, "entities"):
            return self.interval
        return self.last

    @property
    def protected(self) -> tuple[str, ...]:
        """Institutions with a privacy mechanism; none in a study without."""
        if not self.has(self.start, "protection"):
            return ()
        return tuple(self.lines.value(self.start, "protection"))

    @property
    def roster(self) -> Path:
        """The roster's copy in the run's folder, which need not be there."""
        return self.run.path / ROSTER

    def has(self, number: int, path: str) -> bool:
        """Whether a line has a value at a path."""
        return self.lines.has(number, path)

    def of_start(self, path: str, show: Show = str) -> Figure:
        """A value of the start."""
        return self.lines.figure(self.start, path, show)

    def notices(self) -> Iterator[Figure]:
        """What the study does with and without, as it said at its start."""
        for index in range(len(self.lines.value(self.start, "notices"))):
            yield self.of_start(f"notices {index}")

    def of_study(self, path: str, show: Show = str) -> Figure:
        """A value of the study file."""
        return of_study(self.raw, path, show)

    def how_many_institutions(self) -> Figure:
        """Of the study."""
        count = len(self.institutions)
        return Figure(count, str(count), f"{STUDY} len(federation institutions)")

    def counted(self, event: str, key: str, name: str) -> Figure:
        """In how many lines of an event a name stands at a key, alone or among others."""

        def has(number: int) -> bool:
            found = self.lines.value(number, key)
            return name in found if isinstance(found, list) else name == found

        found = sum(map(has, self.lines.of(event)))
        return Figure(found, str(found), f"{METRICS} count({event} {key}={name})")

    def curve(self, numbers: list[int], path: str, show: Show = score) -> Curve:
        """A value of the lines that have it, over their rounds."""
        return tuple(
            (self.lines.figure(n, "round"), self.lines.figure(n, path, show))
            for n in numbers
            if self.has(n, path)
        )

    def f1s(self, number: int) -> Iterator[Figure]:
        """Of each of the `names`."""
        for name in self.names:
            yield self.lines.figure(number, f"entities {name} f1", score)


def curves_table(plot: Plot) -> Table:
    """The figures of a plot: a row for each step across that any of its curves has."""
    curves = plot.curves.values()
    steps = {x.value: x for curve in curves for x, _ in curve}
    columns = [{x.value: y for x, y in curve} for curve in curves]
    rows: tuple[Text, ...] = tuple(
        (across, *(column.get(step, NONE) for column in columns)) for step, across in steps.items()
    )
    head = (plot.across, *plot.curves)
    return Table(caption=f"{plot.title}: all rounds", head=head, rows=rows, folded=True)
