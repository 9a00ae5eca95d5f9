"""What is seen of a study while it goes on: lines, views, event files; pure but for small files."""

import io
import json
import logging
import re
import struct
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from common.config.load import parse_site, parse_study
from common.errors import UsageError
from common.io.disk import DISK
from common.io.display_file import DisplayFile, read_display
from scripts.console import Steady
from scripts.live.event_files import EventFiles, scalars
from scripts.live.lines import run_line, site_line
from scripts.live.parts import about, sparkline
from scripts.live.run_state import RunState
from scripts.live.run_view import RunView
from scripts.live.show import say, shown
from scripts.live.site_state import SiteState
from scripts.live.site_view import SiteView
from scripts.live.tail import Tail
from server.origin import COORDINATOR_LOCK, SERVER_LOCK, alone
from server.progress import Progress, read_moment
from server.run_dir import RunDir

NAMES = ("north", "east", "south")
START = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
PLAIN = re.compile(r"\x1b\[[0-9;]*m")
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: exact, settings_from: synthetic}"
)


def study_text(privacy="none"):
    return f"""\
study: seen
task: {{labels: [Disease, Symptom]}}
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
model: {{train: head, dropout: 0}}
training: {{rounds: 4, learning_rate: 1e-2}}
federation: {{institutions: [{", ".join(NAMES)}]}}
privacy: {privacy}
secure_aggregation: none
"""


def study():
    return parse_study(study_text(), "study.yaml")


def event(kind, at_s=0, **figures):
    return {"event": kind, "time": (START + timedelta(seconds=at_s)).isoformat(), **figures}


def scores(*f1s):
    rows = dict(zip((*study().task.labels, "micro", "macro", "weighted"), f1s, strict=False))
    return {k: {"precision": v, "recall": v, "f1": v, "support": 3} for k, v in rows.items()}


def evaluation(round_, f1, at_s=0):
    entities = scores(*[f1] * (len(study().task.labels) + 3))
    return event("evaluation", at_s, round=round_, noised=False, f1=f1, entities=entities)


def course(up, down):
    return {"bytes_up": up, "bytes_down": down, "stage_seconds": {"mask": 2.5}}


EVENTS = (
    *(event("institution", name=name, state="joined") for name in NAMES),
    event("start", 10, notices=[]),
    event("round", 30, round=1, institutions=list(NAMES), seconds=19.0, bytes_up=700,
          sum=course(700, 900)),
    evaluation(1, 0.25, 31),
    event("refusal", 40, round=2, institution="east", asked="train", code="policy"),
    event("round", 60, round=2, institutions=["north", "south"], seconds=28.0, bytes_up=500,
          sum=course(500, 600)),
    evaluation(2, 0.5, 61),
)  # fmt: skip


def drawn(view, width=110):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, emoji=False)
    console.print(view())
    return PLAIN.sub("", console.file.getvalue())


@pytest.fixture
def at_work():
    """Holds the coordinator's locks of runs."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def run(tmp_path, at_work):
    """A run that goes on, as its folder has it."""
    found = RunDir.create(tmp_path / "run", study_text())
    found.set_status("running")
    at_work.enter_context(alone(found, COORDINATOR_LOCK))
    lines = "".join(json.dumps(e) + "\n" for e in EVENTS)
    (found.path / "metrics.jsonl").write_text(lines)
    return found


# --- lines as they come


def test_each_whole_line_is_given_once_and_no_torn_or_strange_one(tmp_path):
    path, written = tmp_path / "metrics.jsonl", b""
    tail, given = Tail(path), []
    assert tail.new() == []
    whole = b'{"event": "a"}\nno JSON\n[1]\n{"event": "b"}\n{"event": "c"}\n'
    for byte in whole + b'{"event": "torn"':
        written += bytes([byte])
        path.write_bytes(written)
        given += tail.new()
    assert [e["event"] for e in given] == ["a", "b", "c"]
    assert tail.new() == []


def test_a_display_file_is_whole_and_a_disk_that_refuses_it_is_said_once(tmp_path, caplog):
    log = logging.getLogger("fedner.test")
    file = DisplayFile(tmp_path / "now.json", log)
    file.write({"round": 1})
    assert read_display(tmp_path / "now.json") == {"round": 1}
    assert (tmp_path / "now.json").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["now.json"]
    nowhere = DisplayFile(tmp_path / "none" / "now.json", log)
    for round_ in range(3):
        nowhere.write({"round": round_})
    assert len(caplog.records) == 1
    assert read_display(tmp_path / "none" / "now.json") is None
    (tmp_path / "now.json").write_text('{"round": ')
    assert read_display(tmp_path / "now.json") is None


def test_the_coordinators_progress_says_stage_and_who_answered(tmp_path):
    times = iter([1.0, 2.0])
    progress = Progress(tmp_path, lambda: next(times))
    assert read_moment(tmp_path) is None
    progress.stage("train", "mask", 3)
    progress.asked(["a", "b"])
    progress.answered("b")
    moment = read_moment(tmp_path)
    assert moment is not None
    assert (moment.purpose, moment.stage, moment.round, moment.since) == ("train", "mask", 3, 2.0)
    assert (moment.asked, moment.answered) == (("a", "b"), ("b",))
    (tmp_path / "progress.json").write_text('{"round": 1}')
    assert read_moment(tmp_path) is None


# --- what is told of a run


def test_a_run_is_told_from_its_events():
    state = RunState(study())
    for one in EVENTS:
        state.take(one)
    assert state.round == 2
    assert [one.rounds for one in state.institutions.values()] == [2, 1, 2]
    assert state.institutions["east"].refusals == 1
    assert state.institutions["east"].last_refusal == "train of round 2: policy"
    assert state.f1s == {1: 0.25, 2: 0.5}
    assert (state.bytes_up, state.bytes_down) == (1200, 1500)
    assert list(state.paces) == [20.0, 30.0]
    assert state.seconds_left == 2 * 25.0


def test_the_time_of_a_resumption_counts_for_no_pace():
    state = RunState(study())
    for one in (*EVENTS, event("resume", 9000, round=2)):
        state.take(one)
    state.take(event("round", 9040, round=3, institutions=[], seconds=1, bytes_up=0))
    assert list(state.paces) == [20.0, 30.0, 40.0]


def test_the_view_says_where_the_run_is_and_who_is_awaited(run):
    progress = Progress(run.path, START.timestamp)
    progress.stage("train", "mask", 3)
    progress.asked(NAMES)
    progress.answered("south")
    view = RunView(run, lambda: START + timedelta(seconds=90))
    view.step("north", 2, 9)
    text = drawn(view)
    for words in (
        "round 2 of 4, after 90.0 s, about 50.0 s left",
        "round 3: training and masked updates, 1 of 3 answered, for 90.0 s",
        "privacy: none; updates leave without clipping or noise",
        "step 2 of 9",
        "train of round 2: policy",
        "0.5000",
        "round 2: shared model's F1 0.5000",
        "1.2 kB up, down not recorded",
    ):
        assert words in text, words
    lines = {name: line for line in text.splitlines() for name in NAMES if f"│ {name} " in line}
    assert "answered" in lines["south"]
    assert "at work" in lines["east"]


def test_the_view_of_a_failed_run_says_why_and_awaits_nobody(run):
    Progress(run.path).stage("train", "mask", 3)
    run.set_status("failed", "round 3: 1 institutions, the study needs 2")
    view = RunView(run, lambda: START + timedelta(days=3))
    text = drawn(view)
    assert view.is_over
    assert "failed" in text
    assert "the study needs 2" in text
    assert "answered" not in text
    assert "61.0 s" in text  # from the first line to the last, not to now


def test_the_view_of_a_run_without_its_coordinator_says_how_to_go_on(run, at_work):
    Progress(run.path).stage("train", "mask", 3)
    at_work.close()
    text = drawn(RunView(run), 200)
    assert "interrupted" in text
    assert "no coordinator is at work on it" in text
    assert "--resume" not in text  # a simulation can't be gone on with
    assert "left" not in text
    (run.path / "origin.json").write_text("{}")
    assert f"fedner server --resume {run.path}" in drawn(RunView(run), 200)
    assert RunView(run).trouble
    assert not RunView(run).is_over  # it may be gone on with


def test_the_view_of_a_private_run_has_epsilon_by_plan_and_promised(tmp_path):
    text = study_text(privacy=PRIVACY)
    run = RunDir.create(tmp_path / "run", text)
    run.set_status("running")
    one = {"epsilon": 6.0, "delta": 1e-3, "unit": "patient", "insecure_seed": False}
    protection = {"north": {**one, "epsilon": 5.0}, "east": one}
    run.record("start", run.study(), protection=protection)
    run.record("round", run.study(), round=1, institutions=[], seconds=1, bytes_up=0, epsilon=2.25)
    said = drawn(RunView(run))
    assert "epsilon 2.2500 by plan so far, of 6.0000 at delta 0.001, for each patient" in said
    assert "INSECURE" not in said


def test_the_view_before_the_first_word_of_the_coordinator_says_that_it_starts(tmp_path, at_work):
    run = RunDir.create(tmp_path / "run", study_text(privacy=PRIVACY))
    assert "interrupted" not in drawn(RunView(run))  # a simulation that prepares its institutions
    run.set_status("starting")
    assert "interrupted" in drawn(RunView(run))  # a server that is gone
    at_work.enter_context(alone(run, SERVER_LOCK))
    text = drawn(RunView(run))
    for words in ("starts", "not here yet", "privacy: local", "time left unknown"):
        assert words in text
    Progress(run.path, START.timestamp).stage("hello", "await", 0)
    assert "waits for institutions, for 5.0 s" in drawn(
        RunView(run, lambda: START + timedelta(seconds=5))
    )


@pytest.mark.parametrize(
    ("secure", "words"),
    [
        ("{}", "even by a coordinator that lies"),
        ("{adversary: semi_honest}", "if the coordinator keeps to the protocol"),
        ("none", "none; the coordinator sees each institution's own update"),
    ],
)
def test_the_view_says_what_the_coordinator_sees(tmp_path, secure, words):
    text = study_text().replace("secure_aggregation: none", f"secure_aggregation: {secure}")
    assert words in drawn(RunView(RunDir.create(tmp_path / "run", text)))


def test_a_narrow_terminal_shows_the_view_too(run):
    assert max(map(len, drawn(RunView(run), 60).splitlines())) <= 60


def test_a_view_that_fails_ends_nothing_and_is_said(run):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)

    def broken():
        raise KeyError("patient 7")

    with shown(broken, console):
        pass
    assert "can't be drawn: KeyError" in console.file.getvalue()
    assert "patient 7" not in console.file.getvalue()


def test_names_from_outside_are_no_markup_and_move_no_cursor(tmp_path):
    hostile = "A[/b]\x1b[2J"
    run = RunDir.create(tmp_path / "x[bold]y", study_text())
    lines = [{**one, "name": hostile} if one["event"] == "institution" else one for one in EVENTS]
    lines.append(event("refusal", round=2, institution=hostile, asked="train", code="[/x]\x1b[31m"))
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    text = drawn(RunView(run))
    assert "x[bold]y" in text
    assert "A[/b]" in text
    assert "[/x]" in text
    assert "\x1b" not in text


def test_what_a_run_did_not_tell_is_not_called_zero(tmp_path):
    run = RunDir.create(tmp_path / "run", study_text(privacy=PRIVACY))
    one = {"epsilon": 6.0, "delta": 1e-3, "unit": "patient", "insecure_seed": False}
    run.record("start", run.study(), protection={"north": one})
    assert "epsilon 0.0000 by plan so far" in drawn(RunView(run))
    run.record("round", run.study(), round=1, institutions=[], seconds=1, bytes_up=0)
    assert "epsilon not told by plan so far" in drawn(RunView(run))


def test_nothing_is_drawn_where_there_is_no_terminal(run):
    console = Console(file=io.StringIO(), force_terminal=False)
    with shown(RunView(run), console) as is_drawn:
        assert not is_drawn
    assert console.file.getvalue() == ""


def test_a_terminal_keeps_the_last_state(run):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown(RunView(run), console) as is_drawn:
        assert is_drawn
        run.record("round", run.study(), round=3, institutions=[], seconds=1, bytes_up=0)
    assert "round 3 of 4" in console.file.getvalue()


def test_every_event_that_people_should_see_has_a_line():
    said = [run_line(e) for e in EVENTS]
    assert said[0] == "north: joined"
    assert said[4] == "round 1: 3 updates, 19.0 s"
    assert said[6] == "round 2: east refused train: policy"
    assert run_line(event("torn", bytes=3)) == ""
    reply = event("reply", round=1, asked="train", bytes_up=2000, seconds=3.0, epsilon=1.5)
    assert site_line(reply) == "round 1: train: 2.0 kB out, 3.0 s, epsilon 1.5000 spent"


def test_trends_are_drawn_to_scale():
    assert sparkline([0.0, 0.5, 1.0], 1.0) == "▁▅█"
    assert sparkline([2.0, 1.0]) == "█▅"
    assert sparkline([]) == ""
    assert len(sparkline(range(100))) == 24
    assert about(None) == "time left unknown"


# --- an institution's part


def test_a_sites_part_is_told_from_its_own_figures():
    state = SiteState(study())
    for one in (
        event("start", train_documents=9, held_out_documents=3, unit="patient", delta=1e-3,
              epsilon_planned=6.0),
        event("train", round=1, loss=0.5),
        event("reply", round=1, asked="train", bytes_up=70, bytes_down=90, epsilon=2.0),
        event("evaluate", round=1, f1=0.5, entities=scores(*[0.5] * 6)),
        event("reply", round=1, asked="evaluate", bytes_up=7, bytes_down=90),
    ):  # fmt: skip
        state.take(one)
    assert (state.rounds, state.losses, state.f1s) == (1, {1: 0.5}, {1: 0.5})
    assert (state.spent, state.planned, state.bytes_up, state.bytes_down) == (2.0, 6.0, 77, 180)


# --- TensorBoard


def points(folder):
    """Every scalar of the event files: a reader of the format of its own."""
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
            body, data = data[12 : 12 + length], data[12 + length :]
            assert struct.unpack("<I", data[:4])[0] == masked(body)
            data, found = data[4:], Event.FromString(body)
            for value in found.summary.value:
                yield value.tag, found.step, found.wall_time, value.simple_value


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_event_files_hold_each_scalar_with_its_round_and_time(run, tmp_path):
    files = EventFiles.create(tmp_path / "tb", run.path / "metrics.jsonl")
    files.take_new()
    files.take_new()
    files.close()
    found = list(points(tmp_path / "tb"))
    seconds = [(s, w, v) for tag, s, w, v in found if tag == "round/seconds"]
    begun = START.timestamp()
    assert seconds == [(1, begun + 30, 19.0), (2, begun + 60, 28.0)]
    assert [v for tag, _, _, v in found if tag == "shared/f1"] == [0.25, 0.5]
    assert {tag for tag, *_ in found} >= {"stage_seconds/mask", "shared_micro/recall"}
    expected = sum(len(list(scalars(e))) for e in EVENTS)
    assert len(found) == expected


def test_event_files_of_an_institution_have_its_loss_and_spend():
    train = event("train", round=1, loss=0.5)
    assert list(scalars(train)) == [("own/loss", 0.5)]
    reply = event("reply", round=1, asked="train", seconds=2.0, bytes_up=7, epsilon=1.5)
    assert dict(scalars(reply)) == {
        "own_train/seconds": 2.0, "own_train/bytes_up": 7, "own/epsilon": 1.5,
    }  # fmt: skip


def test_event_files_are_not_mixed_with_others(run, tmp_path):
    (tmp_path / "tb").mkdir()
    with pytest.raises(UsageError, match="can't be made"):
        EventFiles.create(tmp_path / "tb", run.path / "metrics.jsonl")


def test_of_a_study_begun_again_an_institution_sees_the_latest_run():
    state = SiteState(study())
    for round_ in (1, 2, 3, 1):
        state.take(event("train", round=round_, loss=float(round_)))
        state.take(event("reply", round=round_, asked="train", bytes_up=1, bytes_down=2))
    assert (state.rounds, state.losses) == (1, {1: 1.0})


def test_kept_bytes_that_are_sent_again_leave_the_scores_that_they_had():
    """With a mechanism a study that is begun again computes nothing anew."""
    state = SiteState(study())
    state.take(event("evaluate", round=3, f1=0.5, entities=scores(*[0.5] * 6)))
    for asked in ("train", "evaluate"):
        state.take(event("reply", round=1, asked=asked, bytes_up=1, bytes_down=2, epsilon=3.5))
    assert (state.rounds, state.f1s, state.spent) == (1, {3: 0.5}, 3.5)


def test_a_site_that_only_evaluated_has_what_it_spent_and_what_is_not_told_is_no_zero(tmp_path):
    text = study_text(privacy=PRIVACY)
    view = site_view(tmp_path, text)
    start = event("start", train_documents=9, held_out_documents=3, unit="patient", delta=1e-3,
                  epsilon_planned=6.0)  # fmt: skip
    add(view, start)
    assert "epsilon not told spent" in drawn(view)
    add(view, event("reply", round=1, asked="evaluate", bytes_up=1, bytes_down=2, epsilon=3.5))
    assert "epsilon 3.5000 spent" in drawn(view)


def test_a_worker_that_does_not_run_is_not_said_to_train(tmp_path):
    view = site_view(tmp_path, study_text())
    doing = {"asked": "train", "round": 2, "since": 1.0, "step": 3, "steps": 9}
    DisplayFile(view.metrics.with_name("progress.json"), logging.getLogger("t")).write(doing)
    assert "the worker does not run" in drawn(view)
    assert "step 3 of 9" not in drawn(view)
    lock = DISK.lock(tmp_path / "state" / "audit.lock")
    assert "round 2: trains, step 3 of 9" in drawn(view)
    DISK.close(lock)


def site_view(folder, text):
    (folder / "study.yaml").write_text(text)
    site = parse_site(SITE, "site.yaml")
    view = SiteView(site, parse_study(text, "study.yaml"), folder)
    view.metrics.parent.mkdir(parents=True)
    return view


def add(view, line):
    with view.metrics.open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_a_line_that_can_not_be_read_is_counted_and_hides_no_other(run):
    odd = [event("evaluation", round="x", noised=False, f1=1), event("round", round=3)]
    with (run.path / "metrics.jsonl").open("a") as file:
        for line in (*odd, {**EVENTS[7], "round": 3}):
            file.write(json.dumps(line) + "\n")
    text = drawn(RunView(run))
    assert "round 3 of 4" in text
    assert "2 lines of the metrics can't be read" in text


class Broken(io.StringIO):
    """A terminal that is gone."""

    def write(self, _text):
        raise BrokenPipeError


def test_a_terminal_that_is_gone_ends_nothing(run):
    console = Steady(file=Broken(), force_terminal=True, width=100)
    reached = []
    with shown(RunView(run), console) as is_drawn:
        say(console, "a line")
        reached.append(is_drawn)
    assert reached == [True]


SITE = """\
institution: north
study: study.yaml
coordinator: 127.0.0.1:9192
data:
  train: {format: jsonl, path: train.jsonl}
  test: {format: jsonl, path: test.jsonl}
state: state
"""
