"""`fedner runs`: what it says of a run is what the run's files say, and they stay as they are."""

import json
import shutil
import socket

import pytest
import yaml
from tensorboardX.proto.event_pb2 import Event
from typer.testing import CliRunner

from common.io.disk import DISK
from scripts.cli import app
from scripts.reporting.runs import differing, facts_of
from server import supervisor
from server.origin import COORDINATOR_LOCK, SERVER_LOCK, Origin
from server.run_dir import RunDir


def runs(*arguments):
    return CliRunner().invoke(app, ["runs", *map(str, arguments)])


def asked(*arguments):
    done = runs(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.fixture
def folder(simulated_run, tmp_path):
    """A folder with a copy of a run, which a test may spoil."""
    shutil.copytree(
        simulated_run, tmp_path / "runs" / "one", ignore=shutil.ignore_patterns("*.npz")
    )
    return tmp_path / "runs"


def events(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def changed(run, old, new, file="study.yaml"):
    (run / file).write_text((run / file).read_text().replace(old, new))


def set_status(run, state, message=""):
    (run / "status.json").write_text(json.dumps({"state": state, "message": message}))


def test_a_run_is_listed_with_what_its_files_say(folder):
    (one,) = asked("list", folder)
    lines = events(folder / "one")
    last = [line for line in lines if line["event"] == "evaluation"][-1]
    done = [line for line in lines if line["event"] == "round"]
    assert (one["name"], one["state"], one["study"]) == ("one", "finished", "tiny")
    assert one["f1"]["micro"] == last["f1"]
    assert one["support"]["Disease"] == last["entities"]["Disease"]["support"]
    assert one["seconds"] == pytest.approx(sum(line["seconds"] for line in done))
    assert one["bytes_up"] == sum(line["bytes_up"] for line in done)
    assert sorted(one["institutions"]) == last["institutions"]
    assert (one["privacy"], one["epsilon"], one["made_by"]) == ("none", None, "simulation")
    table = runs("list", folder).output
    assert f"{last['f1']:.4f}" in table


def test_all_runs_of_a_folder_are_listed_and_no_other_folder(folder):
    shutil.copytree(folder / "one", folder / "two")
    (folder / "federation").mkdir()
    (folder / "federation" / "study.yaml").write_text("study: no run")
    (folder / "log.jsonl").write_text("")
    changed(folder / "one", '"time": "20', '"time": "30', "metrics.jsonl")
    assert [run["name"] for run in asked("list", folder)] == ["two", "one"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", "no json\n", "not an event"),
        ("metrics.jsonl", '{"event": "round"}\n', "KeyError"),
        ("study.yaml", "study: [", "study.yaml"),
        ("status.json", "{", "JSONDecodeError"),
        ("status.json", "[]", "TypeError"),
    ],
)
def test_a_damaged_run_is_listed_with_its_damage(folder, file, content, said):
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / file).write_text(content)
    one, two = sorted(asked("list", folder), key=lambda run: run["name"])
    assert (one["damage"], two["state"]) == (None, "damaged")
    assert said in two["damage"]
    assert "damage" in runs("list", folder).output
    shown = runs("show", folder / "two")
    assert "damaged" in str(shown.exception)
    assert shown.exit_code != 0


def test_a_run_without_its_study_is_damaged(folder):
    (folder / "one" / "study.yaml").unlink()
    assert "no study.yaml" in asked("list", folder)[0]["damage"]


def test_a_run_that_goes_on_is_told_from_one_whose_process_is_gone(folder):
    run = folder / "one"
    set_status(run, "running")
    assert facts_of(run).state == "interrupted, 2 of 2 rounds"
    descriptor = DISK.lock(run / COORDINATOR_LOCK)
    try:
        assert facts_of(run).state == "going on, 2 of 2 rounds"
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(lines[:3]))
        assert facts_of(run).state == "waiting for institutions"
    finally:
        DISK.close(descriptor)
    assert DISK.close(DISK.lock(run / COORDINATOR_LOCK)) is None  # free for whoever wants it


def test_a_server_that_died_while_it_waited_is_not_waited_for(folder):
    run = folder / "one"
    (run / "metrics.jsonl").write_text("")
    set_status(run, "starting")
    assert facts_of(run).state == "interrupted, 0 of 2 rounds"
    descriptor = DISK.lock(run / SERVER_LOCK)
    try:
        assert facts_of(run).state == "waiting for institutions"
    finally:
        DISK.close(descriptor)


def test_a_run_that_ended_early_says_how(folder):
    set_status(folder / "one", "failed", "too few institutions")
    shown = runs("show", folder / "one").output
    assert "ended early, 2 of 2 rounds" in shown
    assert "too few institutions" in shown


def test_a_line_that_is_being_written_is_not_there_yet(folder):
    with (folder / "one" / "metrics.jsonl").open("a") as file:
        file.write('{"event": "rou')
    assert asked("list", folder)[0]["damage"] is None


def test_one_run_is_shown_with_protection_scores_and_paths(folder, monkeypatch):
    run = folder / "one"
    shown = runs("show", run).output
    (start,) = [event for event in events(run) if event["event"] == "start"]
    assert start["notices"][0] in " ".join(shown.split())
    assert f"model         {run / 'model'}" in shown
    assert f"fedner report {run}" in shown
    (run / "report.html").write_text("")
    assert f"report        {run / 'report.html'}" in runs("show", run).output
    monkeypatch.chdir(folder.parent)
    assert asked("show", "one")["path"] == "runs/one"


def test_no_report_is_advised_of_a_run_that_has_none(folder):
    """As `fedner train` leaves a folder: no status, and one line."""
    run = folder / "one"
    (run / "status.json").unlink()
    baseline = next(line for line in events(run) if line["event"] == "baseline")
    (run / "metrics.jsonl").write_text(json.dumps(baseline) + "\n")
    shown = runs("show", run).output
    assert "made by       fedner train" in shown
    assert "fedner report" not in shown
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code != 0


def test_two_runs_are_compared_by_study_and_figures(folder):
    shutil.copytree(folder / "one", folder / "two")
    changed(folder / "two", "learning_rate: 0.005", "learning_rate: 0.25")
    found = asked("compare", folder / "one", folder / "two")
    assert found["study"] == {"training.learning_rate": [0.005, 0.25]}
    assert found["same_held_out"] is True
    assert found["figures"]["F1 micro"] == [asked("show", folder / "one")["f1"]["micro"]] * 2
    assert found["figures"]["rounds"] == [2, 2]
    assert "training.learning_rate" in runs("compare", folder / "one", folder / "two").output


def test_runs_on_other_held_out_documents_are_said_not_to_compare(folder):
    shutil.copytree(folder / "one", folder / "two")
    changed(folder / "two", '"support": ', '"support": 1', "metrics.jsonl")
    shown = runs("compare", folder / "one", folder / "two").output
    assert "their F1 do not compare" in shown
    assert "The studies are the same" in shown


def test_lists_of_sections_are_compared_entry_by_entry(folder):
    shutil.copytree(folder / "one", folder / "two")
    study = yaml.safe_load((folder / "one" / "study.yaml").read_text())
    for name, epsilon in (("one", 1), ("two", 2)):
        study["privacy"] = {"search": {"trials": [{"runs": 1, "epsilon": epsilon}, {"runs": 3}]}}
        (folder / name / "study.yaml").write_text(yaml.safe_dump(study))
    shown = [facts_of(folder / "one"), facts_of(folder / "two")]
    assert differing(shown) == {"privacy.search.trials.0.epsilon": [1, 2]}


def test_nothing_in_a_run_folder_is_changed(folder):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}

    before = state()
    for arguments in (
        ("list", folder),
        ("show", folder / "one"),
        ("compare", *[folder / "one"] * 2),
    ):
        assert runs(*arguments).exit_code == 0
    assert state() == before


def test_what_stands_in_a_folder_can_not_command_the_terminal(folder):
    (folder / "one").rename(folder / "one\x1b[2J[red]")
    set_status(folder / "one\x1b[2J[red]", "failed", "\x1b]0;owned\x07")
    shown = runs("list", folder).output + runs("show", folder / "one\x1b[2J[red]").output
    assert "\x1b" not in shown
    assert "[red]" in shown


def test_no_folder_no_run_and_one_run_alone_are_wrong_usage(folder, tmp_path):
    for arguments in (("list", tmp_path / "x"), ("show", tmp_path / "x"), ("compare", folder)):
        assert runs(*arguments).exception.exit_code == 2
    (tmp_path / "empty").mkdir()
    assert "no runs" in runs("list", tmp_path / "empty").output


def test_a_run_is_gone_on_with_at_another_address(folder, monkeypatch):
    """Seen by where it tries to serve: another process has that port."""
    monkeypatch.setattr(supervisor, "PREDECESSOR_LIMIT_S", 1.0)  # a minute for it to go
    run = RunDir.open(folder / "one")
    Origin.of(run.study(), None, "127.0.0.1:9192").save(run)
    set_status(run.path, "starting")
    (run.path / "metrics.jsonl").write_text("")  # else it waits for its predecessor's end
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        given = ("server", "--resume", str(run.path), "--address", address)
        done = CliRunner().invoke(app, list(given))
    assert done.exit_code != 0
    assert address in str(done.exception)


def test_a_finished_run_is_watched_into_event_files_that_hold_its_scores(folder, tmp_path):
    given = ("watch", folder / "one", "--tensorboard", tmp_path / "tensorboard")
    done = CliRunner().invoke(app, [*map(str, given)])
    assert done.exit_code == 0, done.output
    (written,) = (tmp_path / "tensorboard").iterdir()
    data, at, found = written.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        at += size + 16
    for line in events(folder / "one"):
        if line["event"] == "evaluation":
            assert ("shared/f1", line["round"], pytest.approx(line["f1"])) in found
    assert {step for _, step, _ in found} >= {1, 2}
