"""A study with secure aggregation is never run without it. Goes when the driver comes."""

import sys
from types import SimpleNamespace

import pytest

from client.session import Session
from common.errors import FederationError
from common.policy import refuse_what_does_not_run_yet
from scripts import cli
from server.coordinator import Coordinator
from tests.unit.test_secagg_config import secure, text

SITE = """\
institution: north
study: study.yaml
coordinator: 127.0.0.1:9192
state: state
data: {all: {format: brat, path: notes}, split: {test: 0.2, key: k}}
"""


@pytest.mark.parametrize("section", [None, "{adversary: semi_honest}"])
@pytest.mark.parametrize("verb", ["simulate", "server", "client"])
def test_no_verb_runs_it(verb, section, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(text(section))
    (tmp_path / "site.yaml").write_text(SITE)
    file = "site.yaml" if verb == "client" else "study.yaml"
    monkeypatch.setattr(sys, "argv", ["fedner", verb, file])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == FederationError.exit_code
    assert "cannot yet run" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site.yaml", "study.yaml"]


def test_no_session_and_no_coordinator_runs_it():
    nothing = SimpleNamespace()
    with pytest.raises(FederationError, match="cannot yet run"):
        Session(secure("{}"), nothing, nothing)
    with pytest.raises(FederationError, match="cannot yet run"):
        Coordinator(secure("{}"), nothing, nothing).run()


def test_a_study_without_it_runs():
    refuse_what_does_not_run_yet(secure("none"))


def test_a_study_with_it_can_be_checked(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.yaml").write_text(text(None))
    monkeypatch.setattr(sys, "argv", ["fedner", "config", "check", str(tmp_path / "study.yaml")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert "SECURE AGGREGATION: MALICIOUS." in capsys.readouterr().err
