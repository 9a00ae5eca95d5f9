"""Section of a report: what is promised, to whom, at what cost, and what is not covered."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from scripts.reporting.figures import Figure, significant
from scripts.reporting.html import is_grave
from scripts.reporting.page import Bar, Bars, Plot, Section, Table, Text
from scripts.reporting.source import Source, curves_table

_PROTECTION: Final = {
    "epsilon": "epsilon, whole study",
    "epsilon_without_spare": "epsilon if no spare round is used",
    "epsilon_with_search": "epsilon with the search for settings",
    "delta": "delta",
    "noise_multiplier": "noise multiplier (sigma)",
    "sampling_rate": "sampling rate",
    "rounds": "rounds",
    "spare_rounds": "spare rounds",
    "steps": "noised steps, spare ones included",
    "clip": "clip",
}
_COUNTS: Final = "evaluation counts: noise multiplier, or `exact`"
_SUMS: Final = {
    "none": " (the coordinator sees each institution's own update)",
    "malicious": " (the coordinator opens sums alone, even if it lies)",
    "semi_honest": " (the coordinator opens sums alone, if it follows the protocol)",
}
_HELP: Final = (
    "Epsilon bounds how much the presence of one unit can change what anyone sees: the odds that "
    "somebody guesses it right grow at most by the factor e to the power of epsilon, but for a "
    "chance of delta. Smaller is better; nought would be no trace at all.",
    "The epsilon of a study adds to that of other studies on the same data: each institution's "
    "ledger keeps the sum, and its privacy officer caps it.",
)


def privacy(source: Source) -> Section:
    """All of it."""
    mechanism: Text = (
        "Differential privacy: ",
        source.of_start("privacy"),
        " (each institution adds its own noise)" if source.protected else "",
        ". Secure aggregation: ",
        source.of_start("secure_aggregation"),
        _SUMS.get(str(source.lines.value(source.start, "secure_aggregation")), ""),
        ".",
    )
    notices = tuple((notice,) for notice in source.notices() if not is_grave(notice.text))
    if not source.protected:
        without: Text = (
            "No differential privacy: there is no epsilon and no budget, and nothing bounds what "
            "the model tells of one record.",
        )
        title = "Privacy and budget"
        return Section(name="privacy", title=title, texts=(mechanism, without), points=notices)
    plots = (*_spent_plot(source), *_cost_plot(source))
    return Section(
        name="privacy",
        title="Privacy and budget",
        texts=(mechanism, *_spent(source), _ledger()),
        plots=plots,
        tables=(_protection(source), _against(source), *map(curves_table, _spent_plot(source))),
        points=(*notices, *_coverage(source)),
        help=_HELP,
    )


def _ledger() -> Text:
    return (
        "All of these are figures of the plan. What each institution has spent in truth, repeated "
        "rounds included, stands in its own ledger (`fedner budget show`).",
    )


def _first(source: Source) -> str:
    return f"protection {source.protected[0]}"


def _spent(source: Source) -> Iterator[Text]:
    yield (
        "Epsilon of the whole study: ",
        source.of_start(f"{_first(source)} epsilon", significant),
        " at delta ",
        source.of_start(f"{_first(source)} delta", significant),
        ", for one unit (",
        source.of_start(f"{_first(source)} unit_is"),
        ").",
    )
    spent = source.curve(source.rounds, "epsilon", significant)
    if spent:
        after, epsilon = spent[-1]
        yield ("Charged by the plan up to round ", after, ": ", epsilon, ".")


def _spent_plot(source: Source) -> Iterator[Plot]:
    """In runs that tell it."""
    spent = {"epsilon": source.curve(source.rounds, "epsilon", significant)}
    if spent["epsilon"]:
        yield Plot(title="Epsilon charged so far", across="round", up="epsilon", curves=spent)


def _cost_plot(source: Source) -> Iterator[Bars]:
    """What search and spare rounds make of it; nothing in a study with neither."""
    names = {
        "epsilon_without_spare": "no spare round used",
        "epsilon": "whole study",
        "epsilon_with_search": "with the search",
    }
    bars = tuple(
        Bar(name=said, value=source.of_start(f"{_first(source)} {key}", significant), kind=key)
        for key, said in names.items()
        if key in _rows(source)
    )
    if len(bars) > 1:
        yield Bars(title="Epsilon, and what adds to it", across="epsilon", bars=bars)


def _protection(source: Source) -> Table:
    rows: list[Text] = [("unit", *_of_all(source, "unit", str))]
    rows += [(said, *_of_all(source, key, significant)) for key, said in _rows(source).items()]
    rows += [
        (f"epsilon by {name}", *_of_all(source, f"epsilon_by {name}", significant))
        for name in source.lines.value(source.start, f"{_first(source)} epsilon_by")
    ]
    rows.append((_COUNTS, *(_counts(source, name) for name in source.protected)))
    rows.append((
        "rounds in the sum so far",
        *(source.counted("round", "institutions", name) for name in source.protected),
    ))  # fmt: skip
    return Table(
        caption="Differential privacy by institution",
        head=("", *source.protected),
        rows=tuple(rows),
    )


def _rows(source: Source) -> Mapping[str, str]:
    """Figures that the start of this run has, and their names: not all studies have each."""
    said = source.lines.value(source.start, _first(source))
    return {k: v for k, v in _PROTECTION.items() if said.get(k) is not None}


def _of_all(source: Source, key: str, show: Any) -> Iterator[Figure]:
    for name in source.protected:
        yield source.of_start(f"protection {name} {key}", show)


def _counts(source: Source, name: str) -> Figure:
    path = f"protection {name} evaluation"
    if source.has(source.start, f"{path} noise_multiplier"):
        return source.of_start(f"{path} noise_multiplier", significant)
    return source.of_start(path)


def _against(source: Source) -> Table:
    at = f"{_first(source)} adversaries"
    rows = tuple(
        (
            source.of_start(f"{at} {index} who"),
            source.of_start(f"{at} {index} epsilon", significant),
            source.of_start(f"{at} {index} delta", significant),
            source.of_start(f"{at} {index} relies_on"),
        )
        for index in range(len(source.lines.value(source.start, at)))
    )
    head = ("against", "epsilon", "delta", "relies on")
    return Table(caption="To whom what is promised", head=head, rows=rows)


def _coverage(source: Source) -> Iterator[Text]:
    for key, word in (("covered", "Covered: "), ("not_covered", "NOT covered: ")):
        at = f"{_first(source)} {key}"
        for index in range(len(source.lines.value(source.start, at))):
            yield (word, source.of_start(f"{at} {index}"))
