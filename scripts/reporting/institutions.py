"""Sections of a report: whose data there were, and whether the model serves all institutions."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from scripts.reporting.figures import NONE, NOTHING, Figure, gain, score, significant, support
from scripts.reporting.page import Bar, Bars, Section, Table, Text
from scripts.reporting.source import MICRO, Source

_REAL: Final = (
    "Not known here, by design: neither scores nor sizes by institution, or by any group of "
    "patients, leave an institution. Each sees the shared model's scores on its own held-out "
    "documents in its own report (`fedner report SITE`)."
)
_GROUPS: Final = (
    "Groups of patients (sex, age, language) are in no metrics of a run: an institution scores the "
    "model on them where its records are (`fedner evaluate MODEL SITE --groups TABLE`)."
)
_SIDES: Final = {"train": "train", "held_out": "held out"}


# --- data


def data(source: Source) -> Section:
    """What can be known of the documents."""
    simulated = source.lines.of("simulated_data")
    texts: list[Text] = []
    tables: list[Table] = []
    if simulated:
        texts.append((
            "Known in a simulation only: no institution tells how many documents it has. Entities "
            "as annotated; overlapping ones are resolved before scoring, so that a support may be "
            "smaller.",
        ))  # fmt: skip
        tables += _documents(source, simulated[-1])
    else:
        texts.append((
            "How many documents an institution has is not known here. What is: the support of each "
            "label above, which counts the held-out entities of all institutions together.",
        ))  # fmt: skip
    if source.protected:
        texts.append(_declared_text(source))
        tables.append(_declared(source))
    return Section(name="data", title="Data", texts=tuple(texts), tables=tuple(tables))


def _documents(source: Source, number: int) -> Iterator[Table]:
    institutions = list(source.lines.value(number, "institutions"))
    kinds = ["documents"]
    first = f"institutions {institutions[0]} train patients"
    if source.lines.value(number, first) is not None:
        kinds.append("patients")
    yield _by_side("Documents by institution", source, number, institutions, kinds)
    labels = [f"entities {label}" for label in source.labels]
    yield _by_side("Annotated entities by institution", source, number, institutions, labels)


def _by_side(
    caption: str, source: Source, number: int, institutions: Sequence[str], keys: Sequence[str]
) -> Table:
    """A row for each institution, two columns for each key."""
    columns = [(key, side) for key in keys for side in _SIDES]
    rows = tuple(
        (name, *(_cell(source, number, f"institutions {name} {s} {k}") for k, s in columns))
        for name in institutions
    )
    head = (f"{key.removeprefix('entities ')}, {_SIDES[side]}" for key, side in columns)
    return Table(caption=caption, head=("institution", *head), rows=rows)


def _cell(source: Source, number: int, path: str) -> str | Figure:
    """A count; a label that a side does not have is not in the line."""
    if not source.has(number, path):
        return NONE
    return source.lines.figure(number, path, lambda value: NONE if value is None else str(value))


def _declared_text(source: Source) -> Text:
    first = f"protection {source.protected[0]}"
    return (
        "A unit is ",
        source.of_start(f"{first} unit_is"),
        ". Sizes are declared in public, rounded and never the true count. In each step a unit is "
        "drawn by chance; a sum is divided by the number of units to be expected.",
    )


def _declared(source: Source) -> Table:
    rows: list[Text] = []
    for name in source.protected:
        by_name = isinstance(source.raw["privacy"]["declared_units"], dict)
        declared = f"privacy declared_units {name}" if by_name else "privacy declared_units"
        rows.append((
            name,
            source.of_study(declared),
            source.of_start(f"protection {name} sampling_rate", significant),
            source.of_start(f"protection {name} divisor", significant),
        ))  # fmt: skip
    head = (
        "institution",
        "declared units",
        "chance of each in a step",
        "units to expect in a step",
    )
    return Table(caption="Units and sampling, as declared", head=head, rows=tuple(rows))


# --- fairness


def by_institution(source: Source) -> Section:
    """Whether the shared model serves all alike, as far as that can be known."""
    title = "Does it serve all alike?"
    numbers = source.lines.of("simulated_evaluation")
    if not numbers:
        return Section(name="fairness", title=title, texts=((_REAL,), (_GROUPS,)))
    said: Text = (
        "Known in a simulation only: the shared model on each institution's own held-out documents "
        "alone, and beside it the model that the institution would have trained by itself, on the "
        "same documents; counted exactly. In a real federation these scores stay where the "
        "documents are.",
    )
    scored = _annotated(source, numbers, MICRO)
    bars = tuple(bar for number in scored for bar in _pair(source, number))
    plot = Bars(title="F1 by institution", across="F1 (micro)", bars=bars, top=1.0)
    return Section(
        name="fairness",
        title=title,
        texts=(said, _gap(source, scored), (_GROUPS,)),
        plots=(plot,) if bars else (),
        tables=(_at_home(source, numbers), _recalls(source, numbers)),
    )


def _alone(source: Source, number: int) -> int | None:
    """The line of an institution's own training, if it was scored at home."""
    name = source.lines.value(number, "institution")
    for line in source.baselines:
        if source.lines.value(line, "trained_by") == name and source.has(line, "own f1"):
            return line
    return None


def _pair(source: Source, number: int) -> Iterator[Bar]:
    name = source.lines.value(number, "institution")
    value = source.lines.figure(number, "f1", score)
    yield Bar(name=f"{name}, shared", value=value, kind="shared")
    alone = _alone(source, number)
    if alone is not None:
        value = source.lines.figure(alone, "own f1", score)
        yield Bar(name=f"{name}, alone", value=value, kind="alone")


def _annotated(source: Source, numbers: Sequence[int], name: str) -> list[int]:
    """Lines of institutions where entities of a label are annotated: others have no score."""
    return [n for n in numbers if source.lines.value(n, f"entities {name} support")]


def _gap(source: Source, numbers: Sequence[int]) -> Text:
    """Between those where something is annotated."""
    if len(numbers) < 2:
        return ("There are no two institutions with held-out entities to compare.",)
    best, worst = _ends(source, numbers, "f1")
    return (
        "Best served: ",
        source.lines.figure(best, "institution"),
        "; worst: ",
        source.lines.figure(worst, "institution"),
        "; between them F1 differs by ",
        source.lines.difference((best, "f1"), (worst, "f1"), score),
        ". With few held-out entities much of a gap is chance.",
    )


def _ends(source: Source, numbers: Sequence[int], path: str) -> tuple[int, int]:
    """Lines with the largest and the smallest value."""

    def value(number: int) -> Any:
        return source.lines.value(number, path)

    return max(numbers, key=value), min(numbers, key=value)


def _at_home(source: Source, numbers: Sequence[int]) -> Table:
    rows = tuple((_name(source, n), *_home_cells(source, n)) for n in numbers)
    head = ("institution", "held-out entities", "F1 of the shared model", "F1 alone", "gain")
    return Table(caption="On each institution's own held-out documents", head=head, rows=rows)


def _home_cells(source: Source, number: int) -> Iterator[str | Figure]:
    yield source.lines.figure(number, f"entities {MICRO} support", support)
    if not _annotated(source, [number], MICRO):
        yield from (NOTHING, NOTHING, NONE)
        return
    yield source.lines.figure(number, "f1", score)
    alone = _alone(source, number)
    if alone is None:
        yield from (NONE, NONE)
        return
    yield source.lines.figure(alone, "own f1", score)
    yield source.lines.difference((number, "f1"), (alone, "own f1"), gain)


def _recalls(source: Source, numbers: Sequence[int]) -> Table:
    rows: list[Text] = []
    for label in source.names:
        path = f"entities {label} recall"
        scored = _annotated(source, numbers, label)
        cells = (source.lines.figure(n, path, score) if n in scored else NOTHING for n in numbers)
        rows.append((label, *cells, _widest(source, scored, path)))
    head = ("label", *(_name(source, n) for n in numbers), "largest gap")
    return Table(
        caption="Recall of the shared model by label and institution", head=head, rows=tuple(rows)
    )


def _widest(source: Source, numbers: Sequence[int], path: str) -> str | Figure:
    """Best less worst; none between fewer than two."""
    if len(numbers) < 2:
        return NONE
    best, worst = _ends(source, numbers, path)
    return source.lines.difference((best, path), (worst, path), score)


def _name(source: Source, number: int) -> str:
    return str(source.lines.value(number, "institution"))
