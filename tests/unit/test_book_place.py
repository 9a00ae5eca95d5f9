"""The receipt key has one place, which is looked at before anybody is asked for anything."""

import json
import os

import pytest

from common.errors import ConfigError, FederationError
from common.io.home import coordinator_state, fedner_home
from server.book_place import open_book
from server.run_dir import RunDir


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDNER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FEDNER_STATE", raising=False)
    return tmp_path


def run_of(folder, key=None):
    run = RunDir(folder / "run")
    run.path.mkdir(parents=True, exist_ok=True)
    if key is not None:
        line = {"event": "start", "coordinator_key": key}
        (run.path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return run


def test_without_a_state_of_its_own_a_coordinator_keeps_its_key_where_it_did(home):
    book = open_book(run_of(home))
    assert (fedner_home() / "coordinator" / "signing.key").is_file()
    assert open_book(run_of(home)).public_key == book.public_key


def test_with_one_the_key_is_there_and_the_home_may_be_read_only(home, monkeypatch):
    monkeypatch.setenv("FEDNER_STATE", str(home / "state"))
    open_book(run_of(home))
    assert coordinator_state() == home / "state" / "coordinator"
    assert (coordinator_state() / "signing.key").is_file()
    assert not fedner_home().exists()


def test_no_second_key_is_made_while_the_first_is_where_it_was(home, monkeypatch):
    first = open_book(run_of(home))
    monkeypatch.setenv("FEDNER_STATE", str(home / "state"))
    with pytest.raises(ConfigError, match="every site would refuse") as caught:
        open_book(run_of(home))
    assert not coordinator_state().exists()
    before, _, after = caught.value.remedy.rpartition("mv ")[2].partition(" ")
    assert before != after
    coordinator_state().parent.mkdir()
    (fedner_home() / "coordinator").rename(coordinator_state())
    assert open_book(run_of(home)).public_key == first.public_key


def test_a_folder_that_cant_be_made_is_said_with_its_remedy(home):
    (home / "home").write_text("a file")
    with pytest.raises(ConfigError, match="can't be kept here") as caught:
        open_book(run_of(home))
    assert caught.value.place == str(fedner_home() / "coordinator")
    assert "FEDNER_STATE" in caught.value.remedy


def test_a_damaged_book_is_said_with_its_place(home):
    open_book(run_of(home))
    (coordinator_state() / "ledger-heads.json").write_text("{")
    with pytest.raises(FederationError, match="is damaged") as caught:
        open_book(run_of(home))
    assert caught.value.place.endswith("ledger-heads.json")


def test_a_run_is_not_gone_on_with_under_a_key_made_for_it(home, monkeypatch, caplog):
    run = run_of(home, open_book(run_of(home)).public_key)
    assert open_book(run).public_key
    monkeypatch.setenv("FEDNER_HOME", str(home / "other"))
    with pytest.raises(FederationError, match="is not here"):
        open_book(run)
    assert not (home / "other").exists()
    open_book(run_of(home / "other"))  # a new study: then the sites may have pinned its key
    assert "another receipt key" not in caplog.text
    open_book(run)
    assert "another receipt key" in caplog.text


def unseen(monkeypatch, hidden):
    """Looks into a folder fail as for a user who may not: root, who runs tests, always may."""
    real = os.lstat

    def lstat(path, *args, **kwargs):
        if hidden in (path, *getattr(path, "parents", ())):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "lstat", lstat)


def test_no_second_key_is_made_while_it_cant_be_seen_whether_there_is_a_first(home, monkeypatch):
    open_book(run_of(home))
    monkeypatch.setenv("FEDNER_STATE", str(home / "state"))
    unseen(monkeypatch, fedner_home() / "coordinator")
    with pytest.raises(ConfigError, match=r"can't be seen.*Permission denied") as caught:
        open_book(run_of(home))
    assert caught.value.place == str(fedner_home() / "coordinator" / "signing.key")
    assert not coordinator_state().exists()


def test_a_place_of_its_own_that_cant_be_looked_into_is_said(home, monkeypatch):
    key = open_book(run_of(home)).public_key
    unseen(monkeypatch, fedner_home() / "coordinator")
    for run in (run_of(home), run_of(home / "begun", key)):
        with pytest.raises(ConfigError, match="can't be seen"):
            open_book(run)


def test_a_new_key_is_said_aloud_with_its_place_and_an_old_one_is_not(home, caplog):
    open_book(run_of(home))
    assert f"NEW RECEIPT KEY, made in {coordinator_state()}" in caplog.text
    caplog.clear()
    open_book(run_of(home))
    assert not caplog.text
