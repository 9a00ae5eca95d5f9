"""Requests that come again and again, and are answered the same way, do not fill the disk.

Guarantee: of the requests of one kind that were answered with one code, `LIMIT` are written in
each `WINDOW_S` seconds; how many more there were is said afterwards. Work that was done is not
counted here: what it costs bounds it.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from common.audit.entries import Repeated

LIMIT: Final = 5
WINDOW_S: Final = 60

_Key = tuple[str, str]


@dataclass(slots=True)
class _Window:
    """Attributes:
    until: in UTC seconds.
    entry: number of the newest written.
    """

    until: int
    written: int = 0
    entry: int = 0
    more: int = 0


class Ended(NamedTuple):
    """A window that is over.

    Attributes:
        entry: number of the newest written.
        more: that were only counted.
    """

    asked: str
    code: str
    entry: int
    more: int


class Repeats:
    """Counts by what was asked and the code of the answer."""

    def __init__(self) -> None:
        self._windows: dict[_Key, _Window] = {}

    def is_one_more(self, asked: str, code: str, now: int) -> bool:
        """Whether an answer is only counted; else it is to be written, and `wrote` called."""
        window = self._windows.setdefault((asked, code), _Window(until=now + WINDOW_S))
        if window.written < LIMIT or not now < window.until:
            return False
        window.more += 1
        return True

    def wrote(self, asked: str, code: str, entry: int) -> None:
        """An answer is entry number `entry`."""
        window = self._windows[asked, code]
        window.written, window.entry = window.written + 1, entry

    def over(self, now: int | None = None) -> list[Repeated]:
        """What is to be said of windows that are over, of all without `now`. They are forgotten."""
        return [Repeated(entry=one.entry, count=one.more) for one in self.ended(now)]

    def ended(self, now: int | None = None) -> list[Ended]:
        """The same, with what was asked and answered."""
        done = [key for key, w in self._windows.items() if now is None or not now < w.until]
        windows = [(*key, self._windows.pop(key)) for key in done]
        return [Ended(asked, code, w.entry, w.more) for asked, code, w in windows if w.more]
