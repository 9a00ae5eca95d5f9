"""A page as one HTML file that asks for nothing, and as Markdown."""

import re
from typing import Any, Final

from markupsafe import Markup

from scripts.reporting.charts import spoken, svg
from scripts.reporting.figures import Figure
from scripts.reporting.html import is_grave, rendered, worded
from scripts.reporting.page import Drawing, Page, Section, Table, Text

_SPECIAL: Final = "\\*_{}[]<>#|`"
_CODE: Final = re.compile(r"(`\w[\w .:/-]*`)")


def to_html(page: Page) -> str:
    """One file: no script, and nothing that a browser would fetch.

    Each figure is a `data` element with the value as it was read, and where: `data-source`.
    """
    shown = {"cell": _cell, "chart": _chart, "is_grave": _is_grave}
    return rendered("page.html.j2", page=page, **shown)


def _cell(part: str | Figure) -> Any:
    if isinstance(part, str):
        return worded(part)
    value = part.text if part.value is None or isinstance(part.value, list) else part.value
    return Markup('<data value="{}" data-source="{}" title="{}">{}</data>').format(
        value, part.source, part.source, worded(part.text)
    )


def _chart(plot: Drawing, name: str) -> Markup:
    return Markup(svg(plot, name))  # all that comes from a run is escaped in there


def _is_grave(mark: Text) -> bool:
    return is_grave("".join(part if isinstance(part, str) else part.text for part in mark))


def to_markdown(page: Page) -> str:
    """The same without plots: their tables hold the figures."""
    parts = [f"# {_escaped(page.title)}", _line(page.lead)]
    parts += [f"> {_line(mark)}" for mark in page.marks]
    parts.append("\n".join(f"- {_escaped(name)}: {_line(said)}" for name, said in page.keys))
    for section in page.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {_escaped(section.title)}", *map(_line, section.texts)]
    if section.points:
        parts.append("\n".join(f"- {_line(point)}" for point in section.points))
    parts += [f"{_escaped(plot.title)}: {_escaped(spoken(plot))}" for plot in section.plots]
    parts += map(_table, section.tables)
    parts += map(_escaped, section.help)
    if section.quoted:
        parts.append(f"```yaml\n{section.quoted.rstrip()}\n```")
    return parts


def _table(table: Table) -> str:
    rows = [tuple(map(_escaped, table.head)), ("---",) * len(table.head)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["| " + " | ".join(_part(cell) for cell in row) + " |" for row in table.rows]
    return f"{_escaped(table.caption)}\n\n" + "\n".join(lines)


def _line(text: Text) -> str:
    return "".join(map(_part, text))


def _part(part: str | Figure) -> str:
    return _escaped(part if isinstance(part, str) else part.text)


def _escaped(text: str) -> str:
    """What Markdown would take for its own is text; plain words in backquotes stay code."""
    parts = _CODE.split(" ".join(text.split("\n")))
    return "".join(part if i % 2 else _plain(part) for i, part in enumerate(parts))


def _plain(text: str) -> str:
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text)
