"""An institution's own report, from its own figures alone. It stays at the institution."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.config.site import Site
from common.config.study import Study
from common.errors import UsageError
from common.io import journal
from scripts.highlight import NOT_A_DEVICE
from scripts.reporting.figures import (
    Lines,
    duration,
    score,
    significant,
    size,
    whole,
)
from scripts.reporting.groups_section import groups_section
from scripts.reporting.page import Bar, Bars, Curve, Page, Plot, Section, Table, Text
from scripts.reporting.site_inputs import alone_of, latest, require_groups_of
from scripts.reporting.source import MICRO, curves_table
from server.run_dir import RunDir

_STAYS: Final = (
    "THIS SITE ALONE. Loss and scores below are exact, of this institution's own documents. None "
    "of it was sent; whoever this page is given to learns it."
)
_LIMITS: Final = (
    NOT_A_DEVICE,
    "An entity counts as found only if both boundaries and the label are right.",
    "A single institution's held-out documents are few: small differences may be chance.",
)


def build_site(
    site: Site,
    study: Study,
    base: Path,
    alone: RunDir | None = None,
    groups: Mapping[str, Any] | None = None,
) -> Page:
    """All that a site's own figures say, in sections.

    Args:
        base: folder of the site file.
        alone: the run of `fedner train SITE`, to compare with.
        groups: what `fedner evaluate --groups --json` printed.

    Raises:
        UsageError: the worker has written nothing yet; or `alone` is no run of this site's.
        FederationError: a damaged line.
    """
    path = SitePaths.of(site, base).metrics(study_hash(study))
    lines = Lines(journal.read(path, f"move {path} away; no study depends on it"))
    if not lines.of("start"):
        raise UsageError(
            "this site's worker has written no figures of this study yet",
            place=str(path),
            remedy="`fedner client SITE`; as the worker's own user, if it runs as another",
        )
    require_groups_of(site, study, groups)
    report = _SiteReport(study, lines, groups)
    if alone is not None:
        report.alone = alone_of(site, alone, report.names, report.supports)
    return Page(
        title=f"{site.institution} in {study.study}: own report",
        lead=report.lead(),
        marks=((_STAYS,), *report.marks()),
        sections=tuple(report.sections()),
    )


class _SiteReport:
    """Each method is a section."""

    def __init__(self, study: Study, lines: Lines, groups: Mapping[str, Any] | None):
        self.study, self.lines, self.groups = study, lines, groups
        self.alone: Lines | None = None
        self.start = lines.of("start")[-1]
        self.evaluations, self.losses = latest(lines, "evaluate"), latest(lines, "train")
        self.replies = latest(lines, "reply")
        self.names = (*study.task.labels, MICRO)

    @property
    def supports(self) -> Mapping[str, Any]:
        """What there was to find, by label, at the last evaluation; nothing before one."""
        if not self.evaluations:
            return {}
        last = self.evaluations[-1]
        return {name: self.lines.value(last, f"entities {name} support") for name in self.names}

    def lead(self) -> Text:
        """What this site gave, and what it got."""
        lines = self.lines
        given: Text = (
            lines.figure(self.start, "institution"),
            " trained on ",
            lines.figure(self.start, "train_documents", whole),
            " documents and kept ",
            lines.figure(self.start, "held_out_documents", whole),
            " to test the shared model on. ",
        )
        if not self.evaluations:
            return (*given, "The shared model was not evaluated here yet.")
        last = lines.figure(self.evaluations[-1], "f1", score)
        return (*given, "Its F1 there, after the last evaluation: ", last, ".")

    def marks(self) -> Iterator[Text]:
        """What the study does without."""
        if self.study.local_privacy is None:
            yield ("PRIVACY: NONE. Updates left without clipping or noise.",)

    def sections(self) -> Iterator[Section]:
        """In the order in which they are read."""
        yield self.scores()
        if self.alone is not None:
            yield self.comparison(self.alone)
        yield groups_section(self.groups)
        yield self.privacy()
        yield from self.training()
        yield self.traffic()
        yield Section(name="limits", title="Limits", points=tuple((text,) for text in _LIMITS))

    def scores(self) -> Section:
        """The shared model on this site's own held-out documents."""
        if not self.evaluations:
            text: Text = ("The shared model was not evaluated here yet.",)
            return Section(name="scores", title="What the shared model finds here", texts=(text,))
        last = self.evaluations[-1]
        curves = {name: self._curve(self.evaluations, f"entities {name} f1") for name in self.names}
        plot = Plot(title="F1 by label", across="round", up="F1", curves=curves, top=1.0)
        keys = ("precision", "recall", "f1")
        rows = tuple(
            (
                name,
                *(self.lines.figure(last, f"entities {name} {key}", score) for key in keys),
                self.lines.figure(last, f"entities {name} support"),
            )
            for name in self.names
        )
        head = ("label", "precision", "recall", "F1", "support")
        table = Table(caption="Last evaluation, entities", head=head, rows=rows)
        said: Text = (
            "This site's held-out documents, after round ",
            self.lines.figure(last, "round"),
            ". Counts are exact; what left was masked or noised as the study says.",
        )
        return Section(
            name="scores",
            title="What the shared model finds here",
            texts=(said,),
            plots=(plot,),
            tables=(table, curves_table(plot)),
        )

    def comparison(self, alone: Lines) -> Section:
        """The shared model beside the model of this site's documents alone."""
        baseline = alone.of("baseline")[-1]
        own = {n: alone.figure(baseline, f"entities {n} f1", score) for n in self.names}
        both = {name: [figure] for name, figure in own.items()}
        bars = [Bar(name=f"{name}, alone", value=own[name], kind="alone") for name in self.names]
        if self.evaluations:
            for i, name in enumerate(self.names):
                found = self.lines.figure(self.evaluations[-1], f"entities {name} f1", score)
                both[name].append(found)
                bars.insert(2 * i, Bar(name=f"{name}, shared", value=found, kind="federation"))
        head = ("label", "alone", "shared")[: 1 + len(both[MICRO])]
        table = Table(
            caption="F1 by label",
            head=head,
            rows=tuple((name, *figures) for name, figures in both.items()),
        )
        said: Text = (
            "F1 on the same held-out documents of this site. `alone` was trained on this site's "
            "documents only, privacy: ",
            alone.figure(baseline, "privacy"),
            "; `shared` is the federation's model after its last evaluation here.",
        )
        plot = Bars(title="Shared against alone", across="F1", bars=tuple(bars), top=1.0)
        return Section(
            name="comparison",
            title="Shared against alone",
            texts=(said,),
            plots=(plot,),
            tables=(table,),
        )

    def privacy(self) -> Section:
        """What was spent, by this site's ledger."""
        title = "Privacy"
        if self.study.local_privacy is None:
            text: Text = ("The study has no privacy mechanism.",)
            return Section(name="privacy", title=title, texts=(text,))
        lines = self.lines
        charged = [n for n in self.replies if lines.has(n, "epsilon")]
        planned: Text = (
            "Promised for the whole study: epsilon ",
            lines.figure(self.start, "epsilon_planned", significant),
            " at delta ",
            lines.figure(self.start, "delta", significant),
            " for each ",
            lines.figure(self.start, "unit"),
            ". Other studies on the same data count as well: `fedner budget show`.",
        )
        known = charged or [self.start]
        if not lines.has(known[-1], "epsilon"):
            untold: Text = ("What is spent is not told here: `fedner budget show`.",)
            return Section(name="privacy", title=title, texts=(planned, untold))
        spent: Text = (
            "Spent so far by this site's ledger: epsilon ",
            lines.figure(known[-1], "epsilon", significant),
            ".",
        )
        if not charged:
            return Section(name="privacy", title=title, texts=(planned, spent))
        curve = self._curve(_last_by_round(lines, charged), "epsilon", significant)
        plot = Plot(title="Epsilon spent", across="round", up="epsilon", curves={"spent": curve})
        return Section(
            name="privacy", title=title, texts=(planned, spent), plots=(plot,),
            tables=(curves_table(plot),),
        )  # fmt: skip

    def training(self) -> Iterator[Section]:
        """This site's own loss; under a mechanism there is none."""
        if not self.losses:
            return
        curve = self._curve(self.losses, "loss", significant)
        plot = Plot(title="Own loss per word", across="round", up="loss", curves={"loss": curve})
        text: Text = ("Mean over the last epoch of each round, on this site's own documents.",)
        yield Section(
            name="training", title="Training", texts=(text,), plots=(plot,),
            tables=(curves_table(plot),),
        )  # fmt: skip

    def traffic(self) -> Section:
        """Bytes, time and refusals."""
        lines = self.lines
        rows = tuple(
            (
                lines.figure(n, "round"),
                lines.figure(n, "asked"),
                lines.figure(n, "seconds", duration),
                lines.figure(n, "bytes_down", size),
                lines.figure(n, "bytes_up", size),
            )
            for n in self.replies
        )
        head = ("round", "asked", "time", "bytes in", "bytes out")
        said: Text = (
            "In all runs of this study here: requests that were worked on: ",
            lines.count("reply"),
            "; bytes out in them: ",
            lines.total("reply", "bytes_up", size),
            "; starts of the worker: ",
            lines.count("start"),
            ".",
        )
        table = Table(caption="Each request", head=head, rows=rows, folded=True)
        return Section(
            name="traffic",
            title="Time and communication",
            texts=(said, *self._refused()),
            tables=(table,),
        )

    def _refused(self) -> Iterator[Text]:
        """As the last line counts them: of the last start."""
        if self.replies:
            for code in self.lines.value(self.replies[-1], "refused"):
                found = self.lines.figure(self.replies[-1], f"refused {code}")
                yield ("Refused since the worker's last start, `", code, "`: ", found, ".")

    def _curve(self, numbers: Sequence[int], path: str, show: Any = score) -> Curve:
        return tuple(
            (self.lines.figure(n, "round"), self.lines.figure(n, path, show)) for n in numbers
        )


def _last_by_round(lines: Lines, numbers: Sequence[int]) -> list[int]:
    """Of each round the last line."""
    return list({lines.value(n, "round"): n for n in numbers}.values())
