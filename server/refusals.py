"""How much strangers, and nodes, can have the coordinator write into its log. No files here.

Guarantees:
    - `Refusals` says the first refusal of a kind at once, and of all others one line a kind when a
      window is over. While refusals go on a window lasts twice as long as the one before, from
      `FIRST_WINDOW_S` to `LAST_WINDOW_S`. There are at most `KINDS` kinds, and a line has at most
      about `SHOWN_BYTES` of what a stranger sent, printable.
    - `LineBudget` lets through `BURST` lines of each place in the code that logs, then one in
      `EVERY_S`, and cuts each. How many were left out stands in the next that comes through. So
      a place that logs what a request says writes about 10 MB a day at most in each handler. A
      record that reaches several handlers is one line: all of them write it, or none.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

log = logging.getLogger("fedner.server")

FIRST_WINDOW_S: Final = 60.0
LAST_WINDOW_S: Final = 3600.0
KINDS: Final = 64
SHOWN_BYTES: Final = 100
BURST: Final = 100
EVERY_S: Final = 10.0
LINE_CHARACTERS: Final = 500
TRACEBACK_CHARACTERS: Final = 4000
_DECIDED: Final = "decided_by_budgets"
_OTHERS: Final = "refused for another reason"


def shown(data: bytes, most: int = SHOWN_BYTES) -> str:
    """The beginning of what somebody sent, printable, on one line."""
    text = data[:most].decode("ascii", errors="backslashreplace")
    return _printable(text) + ("…" if len(data) > most else "")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Refusals:
    """What the public socket refuses, counted by kind.

    Args:
        say: takes a line.
        clock: seconds.
    """

    def __init__(
        self,
        say: Callable[[str], object] = log.warning,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._say, self._clock = say, clock
        self._counts: dict[str, int] = {}
        self._began = clock()
        self._window_s = FIRST_WINDOW_S

    def note(self, what: str, whose: str) -> None:
        """Count one.

        Args:
            what: kind; of a fixed set.
            whose: an example, for the log.
        """
        self.look()
        if what not in self._counts and len(self._counts) >= KINDS:
            what = _OTHERS
        if what not in self._counts:
            self._say(f"public port: {what}: {whose}")
        self._counts[what] = self._counts.get(what, 0) + 1

    def look(self) -> None:
        """Say the sums of a window that is over."""
        if self._clock() - self._began >= self._window_s:
            self.sum_up()

    def sum_up(self) -> None:
        """Say what the window has had beside what was said at once, and begin another."""
        more = {what: count - 1 for what, count in self._counts.items() if count > 1}
        took = self._clock() - self._began
        for what, count in more.items():
            self._say(f"public port: {what}: {count:,} times more within {took:,.0f} s")
        self._counts = {}
        self._began += took
        self._window_s = min(LAST_WINDOW_S, 2 * self._window_s) if more else FIRST_WINDOW_S


@dataclass(slots=True)
class _Place:
    """Where the code logs.

    Attributes:
        left: lines that may come through now.
        since: when that was so, in seconds.
        dropped: lines since the last that came through.
    """

    left: float
    since: float
    dropped: int = 0


class LineBudget(logging.Filter):
    """Of a handler, or of several that share it: a few lines of each place, cut to a length."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock = clock
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; it is cut. Asked again for another handler, the same."""
        decided = record.__dict__.setdefault(_DECIDED, {})
        if self not in decided:
            decided[self] = self._has_room(record)
        return bool(decided[self])

    def _has_room(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        where = (record.pathname, record.lineno)
        place = self._places.setdefault(where, _Place(left=BURST, since=now))
        place.left = min(BURST, place.left + (now - place.since) / EVERY_S)
        place.since = now
        if place.left < 1:
            place.dropped += 1
            return False
        place.left -= 1
        dropped, place.dropped = place.dropped, 0
        _cut(record, f" ({dropped:,} like it were left out)" if dropped else "")
        return True


def _cut(record: logging.LogRecord, more: str) -> None:
    """Put the message together and cut it, and the traceback, whose end counts."""
    text = record.getMessage()
    if len(text) > LINE_CHARACTERS:
        text = f"{text[:LINE_CHARACTERS]}… ({len(text):,} characters)"
    record.msg, record.args = _indented(text) + more, None
    if record.exc_info and not record.exc_text:
        whole = logging.Formatter().formatException(record.exc_info)
        record.exc_text = _indented("…" * (len(whole) > TRACEBACK_CHARACTERS)
                                    + whole[-TRACEBACK_CHARACTERS:])  # fmt: skip


def _indented(text: str) -> str:
    """Printable, its further lines set in: so no line of the log is one that a node made up."""
    return "\n  ".join(map(_printable, text.splitlines()))


def bound_all_logs() -> None:
    """Give every handler that this process has now the same budget."""
    budget = LineBudget()
    known = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = {handler for logger in known for handler in logger.handlers}
    for handler in (*handlers, *filter(None, (logging.lastResort,))):
        handler.addFilter(budget)
