"""The report of one run, from its metrics and its study alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from common.errors import UsageError
from scripts.reporting.figures import (
    Figure,
    Lines,
    duration,
    of_study,
    score,
    significant,
    size,
    whole,
)
from scripts.reporting.page import Curve, Page, Plot, Section, Table, Text
from server.origin import ORIGIN
from server.run_dir import METRICS, STUDY, RunDir
from server.standing import ROSTER

MICRO: Final = "micro"
_DEMO: Final = "DEMO"
"""How the note of a roster begins whose keys one machine has made."""
_ROWS: Final = (MICRO, "macro", "weighted")
_STAGES: Final = {
    "advertise": "keys",
    "share": "boxes",
    "mask": "training and masked updates",
    "sign": "signatures",
    "open": "shares and sum",
}
_LIMITS: Final = (
    "Not a medical device: no output of this model is a diagnosis.",
    "Scores are those of the institutions' own held-out documents, which may be unlike yours.",
    "An entity counts as found only if both boundaries and the label are right.",
    "Scores by group of patients (sex, age, language) are not in this run's metrics: whether the "
    "model serves all groups alike is not known from here.",
)


def build(run: RunDir) -> Page:
    """All that a run's folder says, in sections.

    Raises:
        UsageError: the run has not started, so that there is nothing to report.
        FederationError: a damaged line of the metrics.
        OSError: as the disk says.
    """
    report = _Report(run)
    return Page(
        title=f"{report.study.study}: report of a federated run",
        lead=report.lead(),
        marks=tuple(report.marks()),
        sections=tuple(report.sections()),
    )


class _Report:
    """Reads once; each method is a section."""

    def __init__(self, run: RunDir):
        events = run.events()
        self.run, self.study, self.lines = run, run.study(), Lines(events)
        self.raw: Mapping[str, Any] = yaml.safe_load((run.path / STUDY).read_text("utf-8"))
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
        self.labels = self.study.task.labels
        self.is_simulated = not (run.path / ORIGIN).exists()

    # --- head

    def lead(self) -> Text:
        """What came of it, in a sentence or two."""
        named: Text = (
            of_study(self.raw, "study"),
            ": a model that finds ",
            ", ".join(self.labels),
            ", fine-tuned from ",
            of_study(self.raw, "encoder name"),
            " by ",
            self._institutions(),
            " institutions over ",
            self.lines.count("round"),
            " of ",
            of_study(self.raw, "training rounds"),
            " rounds. ",
        )
        if not self.evaluations:
            return (*named, "The shared model was not evaluated.")
        last = self.lines.figure(self.evaluations[-1], "f1", score)
        return (*named, "The shared model's F1 after the last evaluation: ", last, ".")

    def _institutions(self) -> Figure:
        names = self.raw["federation"]["institutions"]
        return Figure(len(names), str(len(names)), f"{STUDY} len(federation institutions)")

    def marks(self) -> Iterator[Text]:
        """A simulation and a demonstration are called that; then what the study does without."""
        if self.is_simulated:
            yield ("SIMULATION. One process trained for all institutions, and saw all their data.",)
        roster = self.run.path / ROSTER
        said = yaml.safe_load(roster.read_text("utf-8")) if roster.exists() else {}
        if str(said.get("note", "")).startswith(_DEMO):
            yield (Figure(said["note"], said["note"], f"{ROSTER} note"),)
        for index in range(len(self.lines.value(self.start, "notices"))):
            yield (self.lines.figure(self.start, f"notices {index}"),)

    def sections(self) -> Iterator[Section]:
        """In the order in which they are read."""
        yield self.scores()
        if self.baselines:
            yield self.comparison()
        yield self.privacy()
        yield self.cooperation()
        yield self.cost()
        yield Section(name="limits", title="Limits", points=tuple((text,) for text in _LIMITS))
        yield self.again()

    # --- scores

    def scores(self) -> Section:
        """F1 per label over the rounds, and all of the last evaluation."""
        if not self.evaluations:
            text: Text = ("No evaluation came about in this run.",)
            return Section(name="scores", title="What the model finds", texts=(text,))
        last = self.evaluations[-1]
        noised = self.lines.value(last, "noised")
        said: Text = (
            "Held-out documents of ",
            str_of(self.lines, last, "institutions"),
            ", after round ",
            self.lines.figure(last, "round"),
            ". Counts carry noise: scores differ by chance from the exact ones, and a support may "
            "lie below zero."
            if noised
            else ". Counts are exact.",
        )
        names = (*self.labels, MICRO)
        curves = {name: self._curve(f"entities {name} f1") for name in names}
        plot = Plot(title="F1 by label", across="round", up="F1", curves=curves, top=1.0)
        return Section(
            name="scores",
            title="What the model finds",
            texts=(said,),
            plots=(plot,),
            tables=(self._scores_of(last), curves_table(plot)),
        )

    def _curve(self, path: str) -> Curve:
        return tuple(
            (self.lines.figure(n, "round"), self.lines.figure(n, path, score))
            for n in self.evaluations
        )

    def _scores_of(self, number: int) -> Table:
        rows = []
        for name in (*self.labels, *_ROWS):
            at = f"entities {name}"
            cells = (self.lines.figure(number, f"{at} {k}", score) for k in _SCORES)
            rows.append((name, *cells, self.lines.figure(number, f"{at} support", _support)))
        return Table(
            caption="Last evaluation, entities",
            head=("label", "precision", "recall", "F1", "support"),
            rows=tuple(rows),
        )

    def comparison(self) -> Section:
        """The shared model beside what each institution would have had alone."""
        rows: list[Text] = []
        if self.evaluations:
            rows.append(("federation", *self._f1s(self.evaluations[-1])))
        for number in self.baselines:
            name = self.lines.figure(number, "trained_by")
            rows.append((name, *self._f1s(number)))
        said: Text = (
            "In a simulation only: each institution's own data alone, and all data in one place "
            "(`pooled`) where that was asked for, on the same held-out documents. In a real "
            "federation nobody sees this table; an institution compares on its own side.",
        )
        table = Table(
            caption="F1 by who trained",
            head=("trained by", *self.labels, MICRO),
            rows=tuple(rows),
        )
        return Section(
            name="comparison", title="Federated against alone", texts=(said,), tables=(table,)
        )

    def _f1s(self, number: int) -> tuple[Figure, ...]:
        names = (*self.labels, MICRO)
        return tuple(self.lines.figure(number, f"entities {n} f1", score) for n in names)

    # --- privacy

    def privacy(self) -> Section:
        """What is promised, to whom, and what is not covered."""
        mechanism: Text = (
            "Mechanism: ",
            self.lines.figure(self.start, "privacy"),
            ". Secure aggregation: ",
            self.lines.figure(self.start, "secure_aggregation"),
            ".",
        )
        if self.study.local_privacy is None:
            return Section(name="privacy", title="Privacy", texts=(mechanism,))
        first = next(iter(self.lines.value(self.start, "protection")))
        spent: Text = (
            "Figures of the plan, for the whole study at each institution. What each has spent in "
            "truth, repeated rounds included, stands in its own ledger (`fedner budget show`).",
        )
        return Section(
            name="privacy",
            title="Privacy",
            texts=(mechanism, spent),
            tables=(self._protection(),),
            points=tuple(self._coverage(first)),
        )

    def _protection(self) -> Table:
        rows = [
            (name, *self._protection_of(name))
            for name in self.lines.value(self.start, "protection")
        ]
        head = ("institution", "unit", *self._protected.values(), "rounds in the sum")
        return Table(caption="Differential privacy by institution", head=head, rows=tuple(rows))

    @property
    def _protected(self) -> Mapping[str, str]:
        """Figures of a protection that this study has, and their names."""
        said = next(iter(self.lines.value(self.start, "protection").values()))
        return {k: v for k, v in _PROTECTION.items() if k not in _OPTIONAL or said[k] is not None}

    def _protection_of(self, name: str) -> Iterator[Figure]:
        at = f"protection {name}"
        yield self.lines.figure(self.start, f"{at} unit")
        for key in self._protected:
            yield self.lines.figure(self.start, f"{at} {key}", significant)
        yield self._taken_part(name)

    def _coverage(self, name: str) -> Iterator[Text]:
        for key, word in (("covered", "Covered: "), ("not_covered", "NOT covered: ")):
            at = f"protection {name} {key}"
            for index in range(len(self.lines.value(self.start, at))):
                yield (word, self.lines.figure(self.start, f"{at} {index}"))

    # --- cooperation

    def cooperation(self) -> Section:
        """Who took part, who was missing, and what was refused."""
        told: Text = (
            "Secure sums that were begun again: ",
            self.lines.count("abort"),
            "; refusals: ",
            self.lines.count("refusal"),
            "; resumptions of the coordinator: ",
            self.lines.count("resume"),
            ".",
        )
        rows = tuple((name, *self._part(name)) for name in self.study.federation.institutions)
        table = Table(
            caption="Taking part",
            head=("institution", "rounds in the sum", "evaluations", "refusals"),
            rows=rows,
        )
        tables = (table, *self._refusals())
        return Section(name="cooperation", title="Who took part", texts=(told,), tables=tables)

    def _part(self, name: str) -> Iterator[Figure]:
        yield self._taken_part(name)
        yield self._counted("evaluation", "institutions", name)
        yield self._counted("refusal", "institution", name)

    def _taken_part(self, name: str) -> Figure:
        return self._counted("round", "institutions", name)

    def _counted(self, event: str, key: str, name: str) -> Figure:
        def has(number: int) -> bool:
            found = self.lines.value(number, key)
            return name in found if isinstance(found, list) else name == found

        found = sum(map(has, self.lines.of(event)))
        return Figure(found, str(found), f"{METRICS} count({event} {key}={name})")

    def _refusals(self) -> Iterator[Table]:
        numbers = self.lines.of("refusal")
        if numbers:
            keys = ("round", "institution", "asked", "code")
            rows = tuple(tuple(self.lines.figure(n, key) for key in keys) for n in numbers)
            yield Table(caption="Refusals", head=keys, rows=rows, folded=True)

    # --- cost

    def cost(self) -> Section:
        """Time and bytes, of all rounds and of each."""
        if not self.rounds:
            return Section(name="cost", title="Time and communication", texts=(("No round yet.",),))
        told: Text = (
            "All rounds: ",
            self.lines.total("round", "seconds", duration),
            ", the median round ",
            self.lines.median("round", "seconds", duration),
            ". Updates and shares to the coordinator: ",
            self.lines.total("round", "bytes_up", size),
            " in all rounds and institutions together.",
        )
        trained = self.lines.figure(self.start, "dimension", whole)
        weights: Text = ("Trained weights: ", trained, ".")
        plot = Plot(
            title="Seconds a round",
            across="round",
            up="seconds",
            curves={"round": self._of_rounds("seconds", _plain)},
        )
        tables = (*self._stages(), self._each_round())
        return Section(
            name="cost",
            title="Time and communication",
            texts=(told, weights),
            plots=(plot,),
            tables=tables,
        )

    def _of_rounds(self, path: str, show: Any) -> Curve:
        return tuple(
            (self.lines.figure(n, "round"), self.lines.figure(n, path, show)) for n in self.rounds
        )

    def _stages(self) -> Iterator[Table]:
        if self.study.secure is None:
            return
        rows: list[Text] = []
        for stage, name in _STAGES.items():
            path = f"sum stage_seconds {stage}"
            cells = (
                self.lines.total("round", path, duration),
                self.lines.median("round", path, duration),
            )
            rows.append((name, *cells))
        head = ("stage", "all rounds", "median of the rounds that had it")
        yield Table(caption="Stages of the secure sum", head=head, rows=tuple(rows))

    def _each_round(self) -> Table:
        rows = []
        for number in self.rounds:
            cells = (
                self.lines.figure(number, "round"),
                str_of(self.lines, number, "institutions"),
                self.lines.figure(number, "seconds", duration),
                self.lines.figure(number, "bytes_up", size),
            )
            rows.append(cells)
        head = ("round", "institutions in it", "time", "bytes up")
        return Table(caption="Each round", head=head, rows=tuple(rows), folded=True)

    # --- how to repeat it

    def again(self) -> Section:
        """Hashes, version, and the study file, whole."""
        facts: list[Text] = [
            ("fedner ", self.lines.figure(self.start, "version")),
            ("study ", self.lines.figure(self.start, "study_sha256")),
            ("base weights ", of_study(self.raw, "encoder weights_sha256")),
        ]
        facts.append((_AGAIN_SIMULATED if self.is_simulated else _AGAIN_REAL,))
        return Section(
            name="again",
            title="How to do it again",
            points=tuple(facts),
            quoted=(self.run.path / STUDY).read_text("utf-8"),
        )


_SCORES: Final = ("precision", "recall", "f1")
_PROTECTION: Final = {
    "epsilon": "epsilon",
    "epsilon_with_search": "epsilon with the search",
    "epsilon_without_spare": "epsilon if no spare round is used",
    "delta": "delta",
    "noise_multiplier": "noise multiplier",
    "sampling_rate": "sampling rate",
    "steps": "steps",
    "clip": "clip",
}
_OPTIONAL: Final = frozenset({"epsilon_with_search", "epsilon_without_spare"})
"""Of a study that has not: no column."""
_AGAIN_SIMULATED: Final = (
    "Save the study below as study.yaml, add the `simulation` section of the file that was run (no "
    "part of a study is where its data lie), then `fedner simulate study.yaml`."
)
_AGAIN_REAL: Final = (
    "Save the study below as study.yaml. Keys and certificates are a federation's own: "
    "`fedner provision`, then `fedner server study.yaml --federation FOLDER`."
)


def str_of(lines: Lines, number: int, path: str) -> Figure:
    """Names, joined."""
    return lines.figure(number, path, ", ".join)


def curves_table(plot: Plot) -> Table:
    """The figures of a plot: a row for each step across."""
    first: Sequence[Any] = next(iter(plot.curves.values()))
    rows = tuple(
        (first[i][0], *(curve[i][1] for curve in plot.curves.values())) for i in range(len(first))
    )
    head = (plot.across, *plot.curves)
    return Table(caption=f"{plot.title}: all rounds", head=head, rows=rows, folded=True)


def _support(value: float) -> str:
    return f"{value:g}" if value == int(value) else f"{value:.1f}"


def _plain(value: float) -> str:
    return f"{value:.1f}"
