"""YAML text into a study, site, relay or roster: strict, with line, YAML path, value and remedy."""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from common.config.relay import RelaySite
from common.config.site import Site
from common.config.study import Study
from common.errors import ConfigError
from common.identity.roster import Roster

Config = TypeVar("Config", Study, Site, RelaySite, Roster)
YamlPath = tuple[str | int, ...]

FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
_REMEDIES: dict[YamlPath, str] = {
    ("privacy",): "write `privacy: none` in so many words, or a mapping that begins with "
    "`mechanism: local`, as in configs/ncbi-4-private.yaml; nothing weaker is put in its place",
    ("privacy", "evaluation"): "write `evaluation: {epsilon: …, clip: …}` for noised counts, or "
    "`evaluation: exact`, which epsilon then does not cover",
    ("privacy", "settings_from"): "say where the settings were found: `synthetic`, `public` or "
    "`search`",
    ("secure_aggregation",): "leave it out for secure aggregation with its defaults, give a "
    "mapping, or write `secure_aggregation: none` in so many words; nothing weaker is put in its "
    "place",
}


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads `1e-4` as a number (YAML 1.2)."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[str, Any]:
    """Keys are text as it is written: `2020-01-01` and `true` are no dates or booleans there."""
    content: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
        if key.value in content:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
            )
        content[key.value] = loader.construct_object(value, deep=True)
    return content


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def parse_study(text: str, source: str) -> Study:
    """Parse a study file.

    Raises:
        ConfigError: naming `source:line`, the YAML path, the value, what was expected.
    """
    return _parse(text, source, Study)


def parse_site(text: str, source: str) -> Site:
    """Parse a site file.

    Raises:
        ConfigError: naming `source:line`, the YAML path, the value, what was expected.
    """
    return _parse(text, source, Site)


def parse_relay(text: str, source: str) -> RelaySite:
    """Parse a relay's file.

    Raises:
        ConfigError: naming `source:line`, the YAML path, the value, what was expected.
    """
    return _parse(text, source, RelaySite)


def parse_roster(text: str, source: str) -> Roster:
    """Parse a roster, in YAML or JSON.

    Raises:
        ConfigError: naming `source:line`, the YAML path, the value, what was expected.
    """
    return _parse(text, source, Roster)


def parse_any(text: str, source: str) -> Study | Site:
    """Parse a study or a site file, told apart by the key `institution`."""
    raw, _ = _load(text, source)
    return parse_site(text, source) if "institution" in raw else parse_study(text, source)


def _parse(text: str, source: str, schema: type[Config]) -> Config:
    raw, lines = _load(text, source)
    try:
        return TypeAdapter(schema).validate_json(json.dumps(raw, default=str))
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise ConfigError("a number has too many digits", place=source) from None
        found = [_describe(e, source, lines, schema) for e in error.errors()]
    place, message, remedy = found[0]
    more = "".join(f"\n  also {p}: {m}" for p, m, _ in found[1:])
    raise ConfigError(message + more, place=place, remedy=remedy)


def _load(text: str, source: str) -> tuple[dict[str, Any], dict[YamlPath, int]]:
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        raw = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"not valid YAML: {error.problem}", place=place) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"not valid YAML: {error}", place=source) from None
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        # PyYAML on a tag that does not fit its value (`!!bool foo`), or nested too deep
        raise ConfigError(f"not valid YAML: {type(error).__name__}", place=source) from None
    if node is None or not isinstance(raw, dict):
        raise ConfigError("expected a mapping of keys at the top", place=f"{source}:1")
    return raw, dict(_lines(node, ()))


def _lines(node: yaml.Node, path: YamlPath) -> Iterator[tuple[YamlPath, int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from (
                (p, n) for p, n in _lines(value, (*path, key.value)) if len(p) > len(path) + 1
            )
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*path, index))


def _describe(
    error: Any, source: str, lines: dict[YamlPath, int], schema: type
) -> tuple[str, str, str | None]:
    kind = error["type"]
    missing = kind in {"missing", "missing_argument"}
    context = error.get("ctx", {})
    known = _in_yaml((*error["loc"], *context.get("at", ())), lines)
    path = (*known, error["loc"][-1]) if missing else known
    dotted = ".".join(str(part) for part in path) or "(top)"
    place = f"{source}:{lines[known]}"
    if missing:
        remedy = _REMEDIES.get(path, "add the key")
        return place, f"{dotted}: missing, expected a value", remedy
    if kind in {"unexpected_keyword_argument", "extra_forbidden"}:
        return place, f"{dotted}: unknown key", _nearest(str(path[-1]), _keys_at(schema, path[:-1]))
    message = re.sub(r"^Value error, ", "", error["msg"])
    shown = error["input"]
    value = f" (got {shown!r})" if isinstance(shown, str | int | float | bool) else ""
    return place, f"{dotted}: {message}{value}", context.get("remedy", _REMEDIES.get(path))


def _in_yaml(location: YamlPath, lines: dict[YamlPath, int]) -> YamlPath:
    """What of an error's location stands in the file; pydantic adds which of two types it tried."""
    path: YamlPath = ()
    for part in location:
        path = (*path, part) if (*path, part) in lines else path
    return path


def _nearest(key: str, known: list[str]) -> str | None:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"{hint}known keys here: {', '.join(known)}" if known else None


def _keys_at(schema: Any, path: YamlPath) -> list[str]:
    for part in path:
        if isinstance(part, int):
            continue
        hint = next((f.type for f in fields(schema) if f.name == part), None)
        nested = next((o for o in options(hint) if is_dataclass(o)), None)
        if nested is None:
            return []
        schema = nested
    return [f.name for f in fields(schema)]


def options(hint: Any) -> Iterator[Any]:
    """A type, and all that it is made of."""
    yield hint
    for part in getattr(hint, "__args__", ()):
        yield from options(part)
