"""All keys of all configuration files, as Markdown, out of the schema that reads the files.

Types, defaults and bounds are those of pydantic's JSON schema; what a key means is what the
docstring of its class says under `Attributes:`. A section that is not named there is described by
the first paragraph of its own class.
"""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from common.config.deployment import Deployment
from common.config.hours import END_PATTERN, START_PATTERN
from common.config.load import options
from common.config.relay import RelaySite
from common.config.site import ADDRESS_PATTERN, GROUP_PATTERN, ROLE_PATTERN, Site
from common.config.study import NAME_PATTERN, SHA256_PATTERN, Study
from common.identity.roster import Roster

FILES: Final[dict[str, type]] = {
    "study": Study,
    "site": Site,
    "relay": RelaySite,
    "federation": Deployment,
    "roster": Roster,
}
"""Schema by kind of file."""
_HEAD: Final = """\
# Configuration keys

Every key of every file, as `fedner config reference` prints it out of the schema. A key that is not
here is refused, with file, line and the nearest key that is. `fedner config check FILE` reads a
study or a site file and says what follows from it.

`name[]` stands for each entry of the list `name`. Numbers with an exponent may be written `1e-4`.
Paths are relative to the file that they stand in. *Required*: the file is refused without it.
"""
_ABOUT: Final = {
    "study": "What all institutions agree on, word for word: its hash names the study. Sample: "
    "[quickstart.yaml](../configs/quickstart.yaml), with differential privacy "
    "[ncbi-4-private.yaml](../configs/ncbi-4-private.yaml).",
    "site": "One institution's own file, which never leaves it; its policy: "
    "[policy.md](policy.md). Sample: "
    "[site-example.yaml](../configs/site-example.yaml).",
    "relay": "The relay's own file, where it is another OS user than the worker "
    "([deployment.md](deployment.md)). Sample: "
    "[relay-example.yaml](../configs/relay-example.yaml).",
    "federation": "FEDERATION.yaml of `fedner provision` ([provisioning.md](provisioning.md)). "
    "Sample: [federation.yaml](../configs/federation.yaml).",
    "roster": "Made by `fedner enrol approve` or `fedner roster make`, not by hand "
    "([identity.md](identity.md)).",
}
_PATTERNS: Final = {
    NAME_PATTERN: "name of lower-case letters, digits, `-` and `_`, at most 63 characters",
    SHA256_PATTERN: "64 hexadecimal digits",
    ADDRESS_PATTERN: "`HOST:PORT`",
    GROUP_PATTERN: "name of an OS group",
    ROLE_PATTERN: "text in one line",
    START_PATTERN: '`"HH:MM"`',
    END_PATTERN: '`"HH:MM"`',
}
"""What a pattern asks for; one that is not here is shown as it is."""
_TYPES: Final = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "`true` or `false`",
}
_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
}
_ENTRY: Final = re.compile(r"    (\w+(?:, \w+)*): (.*)")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key.

    Attributes:
        value: its type, with bounds or words that are allowed, in Markdown.
        default: in Markdown; `required` where there is none.
        meaning: empty if the schema says nothing.
    """

    name: str
    value: str
    default: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Keys that stand together.

    Attributes:
        file: of `FILES`.
        places: paths of the sections that have these keys; the empty one is the file itself.
    """

    file: str
    places: tuple[str, ...]
    about: str
    keys: tuple[Key, ...]

    @property
    def heading(self) -> str:
        """As it stands on the page."""
        if self.places == ("",):
            return f"The {self.file} file"
        return f"{self.file}: " + ", ".join(f"`{place}`" for place in self.places)


def reference() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(_markdown(part) for name in FILES for part in sections(name))])


def sections(file: str) -> list[Section]:
    """The sections of one kind of file; the file itself is the first."""
    schema = FILES[file]
    places = dict[type, list[str]]()
    for place, found in _places(schema, ""):
        places.setdefault(found, []).append(place)
    headings = {
        found.__name__: Section(file=file, places=tuple(where), about="", keys=()).heading
        for found, where in places.items()
    }
    whole = TypeAdapter(schema).json_schema()
    described = {**whole.get("$defs", {}), schema.__name__: whole}
    return [
        _section(file, tuple(where), found, described[found.__name__], headings)
        for found, where in places.items()
    ]


def _places(schema: type, at: str) -> Iterator[tuple[str, type]]:
    """Where each class stands, outer ones before those within."""
    yield at, schema
    for field in fields(schema):
        listed = "[]" if getattr(field.type, "__origin__", None) is tuple else ""
        for nested in options(field.type):
            if is_dataclass(nested) and isinstance(nested, type):
                yield from _places(nested, f"{at}.{field.name}{listed}".removeprefix("."))


def _section(
    file: str, places: tuple[str, ...], schema: type, node: Any, headings: dict[str, str]
) -> Section:
    about, attributes = _docstring(schema)
    nested = {
        field.name: _docstring(found)[0].partition("\n\n")[0]
        for field in fields(schema)
        for found in options(field.type)
        if is_dataclass(found) and isinstance(found, type)
    }
    keys = tuple(
        Key(
            name=field.name,
            value=_value(node["properties"][field.name], headings),
            default=_default(node, field.name),
            meaning=attributes.get(field.name) or nested.get(field.name, ""),
        )
        for field in fields(schema)
    )
    return Section(file=file, places=places, about=about, keys=keys)


def _docstring(schema: type) -> tuple[str, dict[str, str]]:
    """What stands before `Attributes:`, and what is said of each attribute."""
    before, _, after = inspect.cleandoc(schema.__doc__ or "").partition("\nAttributes:\n")
    said = dict[str, str]()
    names: list[str] = []
    for line in after.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry is not None:
            names = entry[1].split(", ")
        for name in names:
            said[name] = f"{said.get(name, '')} {entry[2] if entry else line.strip()}".strip()
    return before.strip(), said


def _value(node: Any, headings: dict[str, str]) -> str:
    if "$ref" in node:
        heading = headings[node["$ref"].rpartition("/")[2]]
        return f"[section](#{_anchor(heading)})"
    kinds = [one for one in node.get("anyOf", node.get("oneOf", ())) if one.get("type") != "null"]
    if kinds:
        return "; or ".join(_value(one, headings) for one in kinds)
    words = [node["const"]] if "const" in node else node.get("enum", ())
    if words:
        return " or ".join(f"`{word}`" for word in words)
    return ", ".join([_type(node, headings), *_bounds(node)])


def _type(node: Any, headings: dict[str, str]) -> str:
    kind = node["type"]
    if "prefixItems" in node:
        return "list of " + " and ".join(_value(one, headings) for one in node["prefixItems"])
    if kind == "array":
        return f"list of: {_value(node['items'], headings)}"
    if kind == "object":
        return f"mapping of names to: {_value(node['additionalProperties'], headings)}"
    return _PATTERNS.get(node.get("pattern"), _TYPES[kind])


def _bounds(node: Any) -> Iterator[str]:
    yield from (words.format(f"{node[key]:,}") for key, words in _BOUNDS.items() if key in node)
    if "pattern" in node and node["pattern"] not in _PATTERNS:
        yield f"matching `{node['pattern']}`"
    if "minLength" in node:
        yield "not empty"
    if "minItems" in node and "prefixItems" not in node:
        yield f"at least {node['minItems']} of them"


def _default(node: Any, name: str) -> str:
    if name in node.get("required", ()):
        return "*required*"
    said = node["properties"][name]
    if "default" not in said:
        return "`{}`" if said.get("type") == "object" else "its own defaults"
    return "absent" if said["default"] is None else f"`{json.dumps(said['default'])}`"


def _markdown(section: Section) -> str:
    level = "##" if section.places == ("",) else "###"
    about = _ABOUT[section.file] if section.places == ("",) else section.about
    rows = [
        f"| `{key.name}` | {_cell(key.value)} | {_cell(key.default)} | {_cell(key.meaning)} |"
        for key in section.keys
    ]
    head = ["| key | value | if absent | meaning |", "|---|---|---|---|"]
    return "\n".join([f"{level} {section.heading}", "", about, "", *head, *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
