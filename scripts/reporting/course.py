"""Sections of a report: who took part and who was missing, and what the rounds cost."""

from collections.abc import Iterator, Sequence
from typing import Final

from scripts.reporting.figures import NONE, Figure, duration, names, size, whole
from scripts.reporting.page import Plot, Presence, Section, Stack, Table, Text
from scripts.reporting.source import Source, curves_table
from scripts.stages import STAGES

_HELP: Final = (
    "Keys: institutions agree on keys, two by two. Boxes: each deals shares of its secrets to the "
    "others, sealed. Training and masked updates: each trains, and sends its update under masks "
    "that cancel in the sum.",
    "Signatures: all who are left sign the list of who is left. Shares and sum: the shares that "
    "are needed are opened, and the sum comes out; no single update does.",
)


# --- who took part


def cooperation(source: Source) -> Section:
    """Who took part, who was missing and when, and what was refused."""
    told: Text = (
        "Secure sums that were begun again: ",
        source.lines.count("abort"),
        "; refusals: ",
        source.lines.count("refusal"),
        "; resumptions of the coordinator: ",
        source.lines.count("resume"),
        ".",
    )
    missing = _missing(source)
    nobody: Text = ("Nobody was missing in any round.",)
    texts = (told,) if missing or not source.rounds else (told, nobody)
    return Section(
        name="cooperation",
        title="Who took part",
        texts=texts,
        plots=tuple(_presence(source)) if missing else (),
        tables=(_parts(source), *_missing_table(source, missing), *_refusals(source)),
    )


def _parts(source: Source) -> Table:
    rows = tuple(
        (
            name,
            source.counted("round", "institutions", name),
            source.counted("evaluation", "institutions", name),
            source.counted("refusal", "institution", name),
        )
        for name in source.institutions
    )
    head = ("institution", "rounds in the sum", "evaluations", "refusals")
    return Table(caption="Taking part", head=head, rows=rows)


def _missing(source: Source) -> list[tuple[int, list[str]]]:
    """Lines of rounds in which somebody was missing, and who."""
    found = []
    for number in source.rounds:
        there = source.lines.value(number, "institutions")
        absent = [name for name in source.institutions if name not in there]
        if absent:
            found.append((number, absent))
    return found


def _presence(source: Source) -> Iterator[Presence]:
    there = [source.lines.value(number, "institutions") for number in source.rounds]
    yield Presence(
        title="Who was in which round",
        rounds=tuple(source.lines.figure(number, "round") for number in source.rounds),
        present={name: tuple(name in present for present in there) for name in source.institutions},
    )


def _missing_table(source: Source, missing: Sequence[tuple[int, list[str]]]) -> Iterator[Table]:
    if missing:
        rows: tuple[Text, ...] = tuple(
            (source.lines.figure(number, "round"), name, _why(source, number, name))
            for number, absent in missing
            for name in absent
        )
        head = ("round", "missing", "refused with")
        yield Table(caption="Rounds in which somebody was missing", head=head, rows=rows)


def _why(source: Source, number: int, name: str) -> str | Figure:
    """The code of the last refusal in a round; an institution that is away says none."""
    wanted = (source.lines.value(number, "round"), name)
    for line in reversed(source.lines.of("refusal")):
        if (source.lines.value(line, "round"), source.lines.value(line, "institution")) == wanted:
            return source.lines.figure(line, "code")
    return NONE


def _refusals(source: Source) -> Iterator[Table]:
    numbers = source.lines.of("refusal")
    if numbers:
        keys = ("round", "institution", "asked", "code")
        rows = tuple(tuple(source.lines.figure(n, key) for key in keys) for n in numbers)
        yield Table(caption="Refusals", head=keys, rows=rows, folded=True)


# --- time and bytes


def cost(source: Source) -> Section:
    """Time and bytes, of all rounds and of each."""
    title = "Time and communication"
    if not source.rounds:
        return Section(name="cost", title=title, texts=(("No round yet.",),))
    course, traffic = _course(source), _traffic(source)
    return Section(
        name="cost",
        title=title,
        texts=tuple(_told(source)),
        plots=(course, traffic),
        tables=(
            *_stages(source),
            _each_round(source),
            *((curves_table(course),) if isinstance(course, Stack) else ()),
            curves_table(traffic),
        ),
        help=_HELP if isinstance(course, Stack) else (),
    )


def _told(source: Source) -> Iterator[Text]:
    yield (
        "All rounds: ",
        source.lines.total("round", "seconds", duration),
        ", the median round ",
        source.lines.median("round", "seconds", duration),
        ".",
    )
    sent: Text = (
        "Sent to the coordinator, by all institutions in all rounds: ",
        source.lines.total("round", "bytes_up", size),
    )
    if source.study.secure is None:
        yield (*sent, ".")
    else:
        down = source.lines.total("round", "sum bytes_down", size)
        yield (*sent, "; sent to institutions: ", down, ". Evaluations are not counted here.")
        yield (
            "In the first round no model has to be sent to institutions: all begin with the same "
            "weights.",
        )
    yield ("Trained weights: ", source.of_start("dimension", whole), ".")
    if any(_stage_curves(source).values()):
        yield (
            "Stages that take thousandths of a second can't be seen in the drawing; they stand in "
            "the tables.",
        )


def _course(source: Source) -> Plot:
    """Seconds of each round, by stage where there are some."""
    stages = _stage_curves(source)
    if any(stages.values()):
        return Stack(title="Seconds a round, by stage", across="round", up="seconds", curves=stages)
    curves = {"seconds": source.curve(source.rounds, "seconds", _tenths)}
    return Plot(title="Seconds a round", across="round", up="seconds", curves=curves)


def _traffic(source: Source) -> Plot:
    curves = {
        "up": source.curve(source.rounds, "bytes_up", size),
        "down": source.curve(source.rounds, "sum bytes_down", size),
    }
    return Plot(
        title="Bytes a round, up to the coordinator and down to institutions",
        across="round",
        up="bytes",
        curves={name: curve for name, curve in curves.items() if curve},
        tick=_round_size,
    )


def _stage_curves(source: Source) -> dict[str, tuple[tuple[Figure, Figure], ...]]:
    return {
        said: source.curve(source.rounds, f"sum stage_seconds {stage}", _thousandths)
        for stage, said in STAGES.items()
    }


def _stages(source: Source) -> Iterator[Table]:
    if source.study.secure is None:
        return
    rows: list[Text] = []
    for stage, name in STAGES.items():
        path = f"sum stage_seconds {stage}"
        whole_run = source.lines.total("round", path, _stage_time)
        rows.append((name, whole_run, source.lines.median("round", path, _stage_time)))
    head = ("stage", "all rounds", "median of the rounds that had it")
    yield Table(caption="Stages of the secure sum", head=head, rows=tuple(rows))


def _each_round(source: Source) -> Table:
    rows = tuple(
        (
            source.lines.figure(number, "round"),
            source.lines.figure(number, "institutions", names),
            source.lines.figure(number, "seconds", duration),
            source.lines.figure(number, "bytes_up", size),
        )
        for number in source.rounds
    )
    head = ("round", "institutions in it", "time", "bytes to the coordinator")
    return Table(caption="Each round", head=head, rows=rows, folded=True)


def _round_size(count: float) -> str:
    """Of a value on an axis."""
    return size(count).replace(".0 ", " ")


def _stage_time(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{seconds:.3f} s"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _thousandths(value: float) -> str:
    return f"{value:.3f}"
