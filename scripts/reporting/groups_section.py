"""Scores by group of patients, on an institution's own report."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from scripts.reporting.figures import NOTHING, Figure, at, of_file, score, significant
from scripts.reporting.page import Section, Table, Text
from scripts.reporting.source import MICRO

GROUPS: Final = "groups.json"
_CALLED: Final = {"f1": "F1", "recall": "recall"}
_NONE: Final = (
    "Scores by group of patients (sex, age, language) were not given: whether the model serves all "
    "groups alike is not known from here. `fedner evaluate MODEL SITE --groups TABLE --json` makes "
    "them, `--groups` shows them here."
)


def groups_section(content: Mapping[str, Any] | None) -> Section:
    """What was found.

    Args:
        content: what `fedner evaluate --groups --json` printed, if it is there.
    """
    title = "Groups of patients"
    if content is None:
        return Section(name="groups", title=title, texts=((_NONE,),))
    places = [f"groups attributes {i}" for i in range(len(at(content, "groups attributes")))]
    how: Text = (
        "Each F1 has an interval of level ",
        _of(content, "groups level"),
        "; groups of fewer than ",
        _of(content, "groups smallest"),
        " are named and not scored, nor is the next smallest where they could be found by "
        "subtraction; of a group with nothing annotated there is nothing to find, "
        "so that it is in no comparison; a p is that of a permutation test.",
    )
    model: Text = ("Hash of the weights that were scored: ", _of(content, "weights_sha256"), ".")
    return Section(
        name="groups",
        title=title,
        texts=(model, *(text for place in places for text in _gaps(content, place)), how),
        tables=tuple(_table(content, place) for place in places),
    )


def _gaps(content: Mapping[str, Any], place: str) -> Iterator[Text]:
    attribute = at(content, f"{place} attribute")
    for name in at(content, f"{place} gaps"):
        gap = f"{place} gaps {name}"
        yield (
            f"By {attribute}, largest less smallest {_CALLED[name]}: ",
            _of(content, f"{gap} gap", score),
            "; so large by chance alone with p = ",
            _of(content, f"{gap} p_value", significant),
            ".",
        )


def _table(content: Mapping[str, Any], place: str) -> Table:
    """One attribute's groups."""
    found = range(len(at(content, f"{place} groups")))
    rows = tuple(_row(content, f"{place} groups {i}") for i in found)
    head = ("group", f"{at(content, 'groups unit')}s", "recall", "F1", "F1 from", "F1 to")
    caption = f"Model by {at(content, f'{place} attribute')}"
    return Table(caption=caption, head=head, rows=rows)


def _row(content: Mapping[str, Any], place: str) -> Text:
    named: Text = (_of(content, f"{place} group"), _of(content, f"{place} units"))
    entities = at(content, f"{place} entities")
    if entities is None:
        return (*named, "", "", "", "")
    if not entities.get(MICRO, {}).get("support"):
        return (*named, NOTHING, NOTHING, "", "")
    micro = f"{place} entities {MICRO}"
    scored = (f"{micro} recall", f"{micro} f1", f"{place} low", f"{place} high")
    return (*named, *(_of(content, path, score) for path in scored))


def _of(content: Mapping[str, Any], path: str, show: Any = str) -> Figure:
    return of_file(GROUPS, content, path, show)
