"""`fedner config reference`, and docs/configuration.md, which is what it prints."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.config.load import options
from common.config.reference import FILES, reference, sections
from scripts.cli import app
from tests.pages import Page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
SAMPLES = {
    path: next((kind for kind in FILES if path.stem.startswith(kind)), "study")
    for path in sorted((ROOT / "configs").glob("*.yaml"))
}
FREE = {"label_map", "weights", "declared_units"}
"""Mappings whose keys the writer of a file chooses."""


def paths_of(content, at=""):
    """Every key's section and name, as the page writes them."""
    for name, value in content.items():
        yield at, name
        place = f"{at}.{name}".removeprefix(".")
        if isinstance(value, dict) and name not in FREE:
            yield from paths_of(value, place)
        for entry in value if isinstance(value, list) else ():
            if isinstance(entry, dict):
                yield from paths_of(entry, f"{place}[]")


def classes(schema):
    yield schema
    for field in fields(schema):
        for nested in options(field.type):
            if is_dataclass(nested):
                yield from classes(nested)


def test_the_page_is_what_the_command_prints():
    printed = CliRunner().invoke(app, ["config", "reference"])
    assert printed.exit_code == 0
    assert printed.stdout == reference()
    assert PAGE.read_text("utf-8") == reference(), "fedner config reference > docs/configuration.md"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_key_of_a_sample_is_there(sample):
    kind = SAMPLES[sample]
    known = {(place, key.name) for part in sections(kind) for place in part.places
             for key in part.keys}  # fmt: skip
    used = set(paths_of(yaml.safe_load(sample.read_text("utf-8"))))
    assert len(used) > 5
    assert used <= known


@pytest.mark.parametrize("kind", FILES)
def test_every_key_of_the_schema_is_there_and_said_to_mean_something(kind):
    found = {part.heading: {key.name for key in part.keys} for part in sections(kind)}
    wanted = {frozenset(f.name for f in fields(schema)) for schema in classes(FILES[kind])}
    assert {frozenset(names) for names in found.values()} == wanted
    silent = [f"{part.heading}: {key.name}" for part in sections(kind) for key in part.keys
              if not key.meaning]  # fmt: skip
    assert not silent, silent
    assert set(found) <= {heading.text for heading in Page(PAGE).headings}


def test_a_row_has_type_bounds_default_and_meaning():
    rows = {(place, key.name): key for part in sections("study") for place in part.places
            for key in part.keys}  # fmt: skip
    assert rows["text", "max_tokens"].value == "integer, at least 16, at most 4,096"
    assert rows["text", "max_tokens"].default == "`128`"
    assert rows["text", "context"].value == "`sentence` or `document`"
    assert rows["training", "rounds"].default == "*required*"
    assert rows["privacy", "declared_units"].value == (
        "integer, at least 1; or mapping of names to: integer, at least 1"
    )
    assert rows["secure_aggregation", "roster_sha256"].value == "64 hexadecimal digits"
    assert rows["federation", "quorum"].meaning.startswith("fewest institutions")
    assert rows["privacy", "evaluation"].value == "`exact`; or [section](#study-privacyevaluation)"
