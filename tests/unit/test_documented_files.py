"""YAML in README.md and docs/ is read by what reads the files: whole, or laid over a sample."""

import re
from dataclasses import fields

import pytest
import yaml

from common.config.deployment import Deployment, parse_deployment
from common.config.load import parse_site, parse_study
from common.config.site import Policy, Site
from common.config.study import Study
from common.errors import ConfigError
from tests.pages import ROOT, pages

HERE = re.compile(r"cat >>? \S+\.yaml <<'?END'?\n(.*?)\nEND", re.DOTALL)
SAMPLES = {"site": "site-example.yaml", "study": "quickstart.yaml"}


def snippets():
    """Each with its place."""
    for page in pages():
        for fence in page.fences:
            place = f"{page.name}:{fence.line}"
            if fence.info == "yaml":
                yield pytest.param(fence.text, id=place)
            for number, found in enumerate(HERE.findall(fence.text)):
                yield pytest.param(re.sub(r"\$\(.*?\)", "a" * 64, found), id=f"{place}+{number}")


def names(schema):
    return {field.name for field in fields(schema)}


def over(kind, part):
    """A sample with some sections replaced."""
    sample = yaml.safe_load((ROOT / "configs" / SAMPLES[kind]).read_text("utf-8"))
    return yaml.safe_dump(sample | part, sort_keys=False)


def read(text):
    """As the file that it is, or is a part of, whichever schema has all its keys."""
    part = yaml.safe_load(text)
    if part.keys() <= names(Deployment):
        return parse_deployment(text, "snippet")
    if part.keys() <= names(Policy):
        return parse_site(over("site", {"policy": part}), "snippet")
    if part.keys() <= names(Site):
        return parse_site(over("site", part), "snippet")
    if {"study", "privacy"} <= part.keys() <= names(Study):
        return parse_study(text, "snippet")
    return parse_study(over("study", part), "snippet")


@pytest.mark.parametrize("text", list(snippets()))
def test_yaml_on_a_page_is_what_fedner_reads(text):
    read(text)


def test_there_is_yaml_of_every_kind():
    found = [read(param.values[0]) for param in snippets()]
    assert {type(one) for one in found} == {Deployment, Site, Study}


@pytest.mark.parametrize(
    "text",
    ["hours: []\nmin_kohort: 3\n", "policy: {min_cohort: 2}\n", "data: {all: {format: word}}\n",
     "federation: a\nserver: {port: 9192}\n", "training: {rounds: 0, learning_rate: 1}\n"],
)  # fmt: skip
def test_what_fedner_would_refuse_is_found(text):
    with pytest.raises(ConfigError):
        read(text)
