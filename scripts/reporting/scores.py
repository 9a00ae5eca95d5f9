"""Sections of a report: what the model finds, and what federation gave."""

from collections.abc import Iterator
from typing import Final

from scripts.reporting.figures import Figure, gain, names, percent, score, support
from scripts.reporting.page import Bar, Bars, Plot, Section, Table, Text
from scripts.reporting.source import MICRO, Source, curves_table

_ROWS: Final = (MICRO, "macro", "weighted")
_SCORES: Final = ("precision", "recall", "f1")
_POOLED: Final = "pooled"
_HELP: Final = (
    "Precision: of what the model marked, the share that is right. Recall: of what is there, the "
    "share that it marked. F1: one figure for both (their harmonic mean), from nought (nothing "
    "right) to one (all right).",
    "Right means: both boundaries and the label are those that people annotated. Near misses count "
    "as wrong.",
    "Support: how many annotated entities there are. `micro` counts all entities alike, `macro` "
    "all labels alike, `weighted` labels by their support.",
    "Held-out documents are kept back: no model here was trained on them.",
)


def scores(source: Source) -> Section:
    """F1 per label over the rounds, and all of the last evaluation."""
    last = source.last
    title = "What the model finds"
    if last is None:
        return Section(name="scores", title=title, texts=(("No evaluation came about.",),))
    curves = {
        name: source.curve(source.evaluations, f"entities {name} f1") for name in source.names
    }
    plot = Plot(title="F1 by label", across="round", up="F1", curves=curves, top=1.0)
    return Section(
        name="scores",
        title=title,
        texts=(_basis(source, last), *_interval(source)),
        plots=(plot,),
        tables=(_scores_of(source, last), curves_table(plot)),
        help=_HELP,
    )


def _basis(source: Source, last: int) -> Text:
    said = "Counts are exact."
    if source.is_noised:
        said = (
            "Counts carry noise: scores differ by chance from the exact ones, and a support may "
            "lie below zero."
        )
    return (
        "The shared model after round ",
        source.lines.figure(last, "round"),
        ", on held-out documents of ",
        source.lines.figure(last, "institutions", names),
        f". {said}",
    )


def _interval(source: Source) -> Iterator[Text]:
    number = source.interval
    if number is None:
        yield (
            "An interval for these scores can't be computed from sums of counts: entities of one "
            "document are alike, and no document's own counts leave an institution.",
        )
        return
    figure = source.lines.figure
    yield (
        "How sure: with the ",
        figure(number, "units"),
        f" held-out {source.lines.value(number, 'unit')}s drawn again ",
        figure(number, "resamples"),
        " times, the shared model's F1",
        *((", counted exactly (", figure(number, "f1", score), "),") if source.is_noised else ()),
        " lies between ",
        figure(number, "low", score),
        " and ",
        figure(number, "high", score),
        " in ",
        figure(number, "level", percent),
        " of the draws: about as far as other documents of the same kind would move it. Known in a "
        "simulation only; another training seed would move it, too.",
    )


def _scores_of(source: Source, number: int) -> Table:
    rows = []
    for name in (*source.labels, *(_ROWS if len(source.labels) > 1 else ())):
        at = f"entities {name}"
        cells = (source.lines.figure(number, f"{at} {key}", score) for key in _SCORES)
        rows.append((name, *cells, source.lines.figure(number, f"{at} support", support)))
    return Table(
        caption="Last evaluation, entities",
        head=("label", "precision", "recall", "F1", "support"),
        rows=tuple(rows),
    )


# --- against alone


def comparison(source: Source) -> Section:
    """The shared model beside what each institution would have had alone."""
    title = "Federated against alone"
    if not source.baselines:
        return Section(name="comparison", title=title, texts=((_not_compared(source),),))
    said: Text = (
        "In a simulation only: each institution's own data alone, and, where that was asked for, "
        f"all data in one place (`{_POOLED}`), which no federation has. All were tested on the "
        "same held-out documents, those of all institutions. In a real federation nobody sees this "
        "table; an institution compares in its own report.",
    )
    return Section(
        name="comparison",
        title=title,
        texts=(said, *_exactly(source)),
        plots=(Bars(title="F1 by who trained", across="F1 (micro)", bars=_bars(source), top=1.0),),
        tables=(_comparison_table(source),),
    )


def _not_compared(source: Source) -> str:
    if source.is_simulated:
        return "No institution was trained alone in this simulation: leave `--no-alone` out."
    return (
        "Not known here: what an institution would have got alone is its own. It sees that in its "
        "own report: `fedner train SITE`, then `fedner report SITE --alone RUN`."
    )


def _exactly(source: Source) -> Iterator[Text]:
    if _ends(source) is not None:
        yield ("The fork at the federation's bar shows the interval of its F1, as above.",)
    if source.shared != source.last:
        yield (
            "The federation's row is of exact counts, as the others: no real coordinator has them.",
        )
    elif source.is_noised:
        yield ("The federation's row carries noise; the others do not.",)


def _bars(source: Source) -> tuple[Bar, ...]:
    path = f"entities {MICRO} f1"
    bars = []
    if source.shared is not None:
        value = source.lines.figure(source.shared, path, score)
        bars.append(Bar(name="federation", value=value, kind="federation", ends=_ends(source)))
    for number in source.baselines:
        name = source.lines.value(number, "trained_by")
        kind = _POOLED if name == _POOLED else "alone"
        shown = "all data pooled" if name == _POOLED else f"{name} alone"
        value = source.lines.figure(number, path, score)
        bars.append(Bar(name=shown, value=value, kind=kind))
    return tuple(bars)


def _ends(source: Source) -> tuple[Figure, Figure] | None:
    number = source.interval
    if number is None or (source.is_noised and source.shared != number):
        return None
    figure = source.lines.figure
    return figure(number, "low", score), figure(number, "high", score)


def _comparison_table(source: Source) -> Table:
    rows: list[Text] = []
    shared = source.shared
    if shared is not None:
        rows.append(("federation", *source.f1s(shared), ""))
    for number in source.baselines:
        name = source.lines.figure(number, "trained_by")
        rows.append((name, *source.f1s(number), *_gained(source, number)))
    head = ("trained by", *(f"{name} F1" for name in source.names))
    return Table(
        caption="F1 by who trained: the same held-out documents for all",
        head=(*head, "federation's gain over it"),
        rows=tuple(rows),
    )


def _gained(source: Source, number: int) -> Iterator[str | Figure]:
    path = f"entities {MICRO} f1"
    if source.shared is None:
        yield "none"
    else:
        yield source.lines.difference((source.shared, path), (number, path), gain)
