"""The worker's log: an error's frames and never a document's words; bounded, whoever asks."""

import logging
import subprocess
import sys
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from client.worker_log import LIMIT, MAX_CHARACTERS, MAX_FRAMES, WINDOW_S, Redacting, dressed
from common.errors import DataError

SENTENCE = "Mrs Zaragoza, born 1 April 1931, denies chest pain"
ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def written(tmp_path):
    """A logger of fedner's and one of a library's, with a file; its text, and the clock."""
    clock, handler = Clock(), logging.FileHandler(tmp_path / "worker.log")
    sparing = dressed(handler, clock=clock)
    own, foreign = logging.getLogger("fedner.test"), logging.getLogger("library._inner")
    for logger in (own, foreign):
        logger.addHandler(handler)

    def text():
        return (tmp_path / "worker.log").read_text()

    yield own, foreign, text, clock, sparing
    for logger in (own, foreign):
        logger.removeHandler(handler)
    handler.close()


def parse(text):
    raise ValueError(f"can't read {text!r}")


def caught(read):
    try:
        read()
    except Exception as error:  # noqa: BLE001 - any that a test makes
        return error
    raise AssertionError


def throw(error):
    raise error


def wrapped():
    try:
        parse(SENTENCE)
    except ValueError as error:
        raise KeyError(SENTENCE) from error


def noted():
    error = TypeError(SENTENCE)
    error.add_note(SENTENCE)
    raise error


def grouped():
    raise ExceptionGroup(SENTENCE, [caught(lambda: parse(SENTENCE)), DataError("file.txt:3")])


def out_of_a_group():
    try:
        grouped()
    except ExceptionGroup as group:
        raise group.exceptions[0]  # noqa: B904 - its context is the group, which holds it


def while_handling():
    try:
        parse(SENTENCE)
    except ValueError:
        raise OSError(5, SENTENCE, SENTENCE)  # noqa: B904 - its context is what is tested


def through_ours():
    try:
        parse(SENTENCE)
    except ValueError as error:
        raise DataError("line 3 is malformed", place="a.txt:3") from error


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (lambda: parse(SENTENCE), ["ValueError,", "in parse"]),
        (wrapped, ["ValueError,", "KeyError,", "in wrapped"]),
        (noted, ["TypeError,", "in noted"]),
        (grouped, ["Exception,", "  ValueError,", "DataError: file.txt:3", "in parse"]),
        (out_of_a_group, ["ValueError,", "Exception,", "in parse"]),
        (while_handling, ["ValueError,", "OSError,", "in while_handling"]),
        (lambda: throw(type(SENTENCE, (Exception,), {})()), ["Exception,", "in throw"]),
        (through_ours, ["ValueError,", "DataError: a.txt:3: line 3 is malformed"]),
    ],
)
def test_of_an_error_class_and_frames_are_written_and_not_its_words(written, read, names):
    own, _, text, *_ = written
    error = caught(read)
    own.error("a request failed", exc_info=error)
    own.error("a request failed: %s", error)
    own.error(error)
    own.error("a request failed: %(why)s", {"why": error})
    own.error("requests failed: %s, %s, %s", [error], {"why": (error,)}, {error})
    own.error("requests failed: %s", [[[[[[[[error]]]]]]]])
    assert "Zaragoza" not in text()
    for name in (*names, f"{__file__}:"):
        assert name in text()


@dataclass
class Held:
    error: Exception


@pytest.mark.parametrize(
    "hold",
    [
        lambda error: {error: 1},
        lambda error: {(1, error): 1},
        lambda error: {1: error}.values(),
        lambda error: deque([error]),
        lambda error: defaultdict(list, {1: [error]}),
        lambda error: MappingProxyType({"why": error}),
        lambda error: partial(print, error),
        Held,
    ],
)
def test_a_value_that_holds_an_error_does_not_quote_it(written, hold):
    own, _, text, *_ = written
    held = hold(caught(lambda: parse(SENTENCE)))
    own.error("requests failed: %s", held)
    own.error("requests failed: %s of %s", held, [held])
    assert text().count("requests failed: ") == 2
    assert "Zaragoza" not in text()


def test_numbers_texts_and_paths_in_a_line_are_written_as_they_are(written):
    own, _, text, *_ = written
    own.error("%d of %.1f in %s: %s", 3, 4.5, Path("/a/b"), {"kept": [1, None, True, "x"]})
    assert "3 of 4.5 in /a/b: {'kept': [1, None, True, 'x']}" in text()


def test_the_words_that_another_formatter_has_left_in_a_record_are_not_taken(written):
    own, _, text, *_ = written
    record = own.makeRecord(own.name, logging.ERROR, __file__, 1, "failed", (), None)
    record.exc_info = (ValueError, caught(lambda: parse(SENTENCE)), None)
    record.stack_info = SENTENCE
    assert "Zaragoza" in logging.Formatter().format(record)
    own.handle(record)
    assert "Zaragoza" not in text()
    assert "ValueError" in text()


def test_of_other_libraries_lines_the_place_is_written(written):
    _, foreign, text, *_ = written
    try:
        parse(SENTENCE)
    except ValueError as error:
        foreign.exception(f"Exception calling application: {error}")  # as grpc does it
    assert "Zaragoza" not in text()
    assert f"ERROR library._inner: its words are withheld: {__file__}:" in text()
    assert "in parse" in text()


def test_one_record_begins_one_line_and_has_an_end(written):
    own, _, text, *_ = written
    own.error("refused: %s", "a\n2026-11-30 ERROR fedner.worker: all is well\x1b[2J\r\u2028b")
    own.error("refused: %s", "x" * 10 * MAX_CHARACTERS)
    lines = text().splitlines()
    assert [line[:4] == "    " for line in lines] == [False, True, True, True, False]
    assert lines[1] == "    2026-11-30 ERROR fedner.worker: all is well?[2J"
    assert len(lines[-1]) == MAX_CHARACTERS


def test_of_a_deep_recursion_the_ends_are_written():
    def again(depth):
        return parse(SENTENCE) if not depth else again(depth - 1)

    error = caught(lambda: again(300))
    lines = Redacting().formatException((type(error), error, error.__traceback__)).splitlines()
    assert len(lines) == MAX_FRAMES + 2
    assert lines[-1].endswith("in parse")


def test_warnings_of_one_kind_are_written_a_few_times_a_minute_and_then_counted(written):
    own, foreign, text, clock, sparing = written
    for number in range(1000):
        own.warning("refused %d", number, extra={"about": "hello, malformed"})
        foreign.warning(f"refused {number}")
    own.warning("refused %d", 1, extra={"about": "train, policy"})
    own.warning("another")
    assert text().count("WARNING") == 2 * LIMIT + 2
    clock.now = WINDOW_S
    own.info("done")
    own.warning("another")
    more = 1000 - LIMIT
    assert f"{more} more were not written, like: refused %d (hello, malformed)" in text()
    assert f"{more} more were not written, like: library._inner, {__file__}:" in text()
    for number in range(LIMIT + 3):
        own.warning("refused %d", number, extra={"about": "hello, malformed"})
    assert text().count("refused 0") == 2
    sparing.say_rest()
    sparing.say_rest()
    assert text().count("3 more were not written") == 1


def test_what_was_done_is_never_left_out(written):
    own, _, text, *_ = written
    own.setLevel(logging.INFO)
    for step in range(20):
        own.info("training: step %d", step)
    own.setLevel(logging.NOTSET)
    assert text().count("training: step") == 20


PROGRAM = f"""
import logging, sys, threading, warnings
from client import worker_log
worker_log.start(logging.WARNING)
def parse(text):
    raise ValueError(text)
class Left:
    def __del__(self):
        parse({SENTENCE!r})
warnings.warn({SENTENCE!r}, stacklevel=1)
thread = threading.Thread(target=parse, args=({SENTENCE!r},))
thread.start(); thread.join()
left = Left(); del left
logging.getLogger("fedner.worker").error("%d", {SENTENCE!r})
library = logging.getLogger("library._inner")
library.addHandler(logging.StreamHandler(sys.stdout))
library.propagate = False
try:
    parse({SENTENCE!r})
except ValueError as error:
    library.exception(f"failed: {{error}}", stack_info=True)
parse({SENTENCE!r})
"""


def test_what_nothing_catches_ends_on_the_terminal_without_its_words():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Zaragoza" not in done.stderr + done.stdout
    assert done.stdout.startswith("its words are withheld: <string>:")  # by a handler of its own
    assert "<string>:6 in parse" in done.stdout
    for said in ("UserWarning at <string>:10", "an error ends a thread", "an error ends nobody",
                 "an error ends the process", "<string>:6 in parse"):  # fmt: skip
        assert said in done.stderr, said


STARTED = f"""
import logging, sys
from client.worker_log import start
start(logging.INFO)
words = {SENTENCE!r}
relayed = {{"name": "library", "levelno": 40, "levelname": "ERROR", "msg": words, "args": None}}
logging.getLogger("library").handle(logging.makeLogRecord(relayed))
rest = {{"name": "library", "levelno": 40, "levelname": "ERROR"}}
parts = [{{"args": (words, 1, words)}}, {{"exc_text": words}}, {{"stack_info": words}},
         {{"exc_info": (ValueError, ValueError(words), None)}}, {{"exc_info": True}}]
for line, part in enumerate(parts):  # each a line of its own, as only so many of one are written
    record = logging.makeLogRecord({{**rest, "lineno": line, **part}})
    logging.getLogger("library").handle(record)
class Full:
    def write(self, _): raise ends(words)
    def flush(self): raise ends(words)
ends = {{"full": ValueError, "left": KeyboardInterrupt}}.get(sys.argv[1])
if ends:
    logging.getLogger().handlers[0].setStream(Full())
try:
    raise ExceptionGroup(words, [ValueError(words)])
except ExceptionGroup as group:
    raise group.exceptions[0]
"""


@pytest.mark.parametrize("terminal", ["there", "full", "left"])
def test_nothing_that_goes_wrong_on_the_way_has_python_write_the_words(terminal):
    done = subprocess.run(
        [sys.executable, "-c", STARTED, terminal], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Zaragoza" not in done.stderr + done.stdout
    assert done.stderr.count("its words are withheld") == 6
    if terminal == "there":
        assert "an error ends the process" in done.stderr
        assert "ValueError, most recent call last" in done.stderr
