"""An institution's own figures: what is written there, and that nothing fills or stops it."""

import json
import logging

import pytest

from client.figures import SiteFigures
from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.config.load import parse_study
from common.io.display_file import read_display
from common.wire import Refusal, Request
from tests.unit.test_live import PRIVACY, study_text

STUDY = parse_study(study_text(), "study.yaml")


class Clock:
    """Goes on when told."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def paths(tmp_path):
    return SitePaths(tmp_path)


@pytest.fixture
def figures(paths, clock):
    made = SiteFigures(STUDY, "north", paths, clock)
    made.begin(9, 3)
    return made


def own(paths):
    return paths.metrics(study_hash(STUDY))


def lines(paths, event=None):
    found = map(json.loads, own(paths).read_text().splitlines())
    return [e for e in found if event in (None, e["event"])]


def asked(figures, kind, round_=1):
    return Request(kind=kind, study="0" * 64, round=round_, receipts={}, body=b"", sums=b"")


def answered(figures, clock, kind, reply=b"12345", refuse=None):
    """One request through the figures, as the worker's session does it."""

    def session(_data):
        figures.heard(asked(figures, kind))
        if refuse:
            figures.refused(kind, 1, refuse, "the reason")
        else:
            figures.working()
            clock.now += 4.0
        return reply

    return figures.answering(session, lambda: None)(b"123")


def test_a_start_says_what_there_is_to_train_on(figures, paths):
    (start,) = lines(paths)
    assert (start["event"], start["institution"]) == ("start", "north")
    assert (start["train_documents"], start["held_out_documents"]) == (9, 3)
    assert start["time"] == "1970-01-01T00:16:40.000+00:00"
    assert own(paths).stat().st_mode & 0o777 == 0o600


def test_what_was_worked_on_has_a_line_with_bytes_and_seconds(figures, paths, clock):
    assert answered(figures, clock, "train") == b"12345"
    (reply,) = lines(paths, "reply")
    assert (reply["asked"], reply["round"], reply["seconds"]) == ("train", 1, 4.0)
    assert (reply["bytes_down"], reply["bytes_up"]) == (3, 5)
    assert "epsilon" not in reply


def test_refusals_greetings_and_stages_fill_no_disk_and_are_counted(figures, paths, clock):
    size = own(paths).stat().st_size
    for _ in range(50):
        answered(figures, clock, "train", refuse=Refusal.POLICY)
        answered(figures, clock, "hello")
        answered(figures, clock, "sum")
    assert own(paths).stat().st_size == size
    answered(figures, clock, "train")
    (reply,) = lines(paths, "reply")
    assert reply["refused"] == {"policy": 50}
    now = read_display(paths.progress(study_hash(STUDY)))
    assert now["refused"] == {"policy": 50}
    assert now["last_refusal"] == "train of round 1: policy: the reason"
    assert now["bytes_up"] == 151 * 5


def test_a_refusal_after_work_began_has_no_line(figures, paths):
    def session(_data):
        figures.heard(asked(figures, "train"))
        figures.working()
        figures.refused("train", 1, Refusal.BUDGET, "the cap")
        return b""

    figures.answering(session, lambda: None)(b"")
    assert lines(paths, "reply") == []


def test_steps_are_shown_twice_a_second_at_most_and_the_wait_at_once(figures, paths, clock):
    shown = []

    def session(_data):
        figures.heard(asked(figures, "train", 1))
        figures.working()
        for step in range(10):
            clock.now += 0.2
            figures.step(step + 1, 10)
            shown.append(read_display(paths.progress(study_hash(STUDY)))["step"])
        return b""

    figures.answering(session, lambda: None)(b"")
    assert shown == [0, 0, 3, 3, 3, 6, 6, 6, 9, 9]
    now = read_display(paths.progress(study_hash(STUDY)))
    assert (now["asked"], now["since"]) == ("", clock.now)


def test_own_scores_and_loss_are_written_as_reported(figures, paths):
    figures.report("train", {"round": 2, "loss": 0.25})
    figures.report("evaluate", {"round": 2, "f1": 0.5, "entities": {"micro": {"f1": 0.5}}})
    assert lines(paths, "train")[0]["loss"] == 0.25
    assert lines(paths, "evaluate")[0]["entities"]["micro"]["f1"] == 0.5


def test_a_loss_that_is_no_number_stops_nothing_and_is_said_once(figures, paths, caplog):
    with caplog.at_level(logging.WARNING):
        figures.report("train", {"round": 2, "loss": float("nan")})
        figures.report("train", {"round": 3, "loss": float("inf")})
    assert len(caplog.records) == 1
    assert lines(paths, "train") == []
    figures.report("train", {"round": 4, "loss": 0.5})
    assert [e["round"] for e in lines(paths, "train")] == [4]


def test_a_folder_that_can_not_be_written_stops_no_study(tmp_path, clock, caplog):
    (tmp_path / "none").write_text("a file where the folder should be")
    figures = SiteFigures(STUDY, "north", SitePaths(tmp_path / "none"), clock)
    with caplog.at_level(logging.WARNING):
        figures.begin(1, 1)
        assert answered(figures, clock, "train") == b"12345"
    assert len([r for r in caplog.records if "not whole" in r.getMessage()]) == 1


def test_a_line_that_a_crash_left_torn_is_set_aside(figures, paths, clock):
    with own(paths).open("a") as file:
        file.write('{"event": "tra')
    again = SiteFigures(STUDY, "north", paths, clock)
    again.begin(9, 3)
    assert [e["event"] for e in lines(paths)] == ["start", "start"]
    assert "tra" in own(paths).with_name("metrics.torn").read_text()


def test_however_often_it_is_asked_a_worker_writes_five_lines_of_a_kind_and_round(
    figures, paths, clock
):
    for _ in range(40):
        answered(figures, clock, "train")
        figures.report("evaluate", {"round": 1, "f1": 0.5})
    assert len(lines(paths, "reply")) == len(lines(paths, "evaluate")) == 5
    figures.report("evaluate", {"round": 2, "f1": 0.5})
    assert len(lines(paths, "evaluate")) == 6
    assert read_display(paths.progress(study_hash(STUDY)))["bytes_up"] == 40 * 5


PRIVATE = parse_study(study_text(PRIVACY), "study.yaml")


def test_an_accountant_that_fails_changes_no_reply_and_is_not_called_zero(
    paths, clock, caplog, monkeypatch
):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr("client.figures.spent", lambda *_, **__: ("something",))
    monkeypatch.setattr("client.figures.pld_epsilon", fails)
    figures = SiteFigures(PRIVATE, "north", paths, clock)

    def session(_data):
        figures.heard(asked(figures, "train"))
        figures.working()
        return b"the reply"

    with caplog.at_level(logging.WARNING):
        figures.begin(9, 3)
        assert figures.answering(session, lambda: object())(b"") == b"the reply"
    (record,) = caplog.records
    assert "MemoryError" in record.getMessage()
    start, reply = map(json.loads, paths.metrics(study_hash(PRIVATE)).read_text().splitlines())
    assert (start["event"], reply["event"], reply["round"]) == ("start", "reply", 1)
    assert "epsilon" not in reply


def test_each_study_of_a_site_has_a_file_of_its_own(paths, clock, figures):
    other = parse_study(study_text().replace("study: seen", "study: other"), "study.yaml")
    SiteFigures(other, "north", paths, clock).begin(9, 3)
    assert len(lines(paths)) == 1
    assert len(list((paths.state / "figures").glob("*/metrics.jsonl"))) == 2
