"""What the worker writes for people, on its terminal and in `worker.log`.

Guarantees:
    * Words: of an error that is not fedner's own, class and frames (file, line, function) are
      written and never its message, which may quote a document. So it is with causes, notes and
      members of a group, and with one that nothing has caught, in any thread. Among the values of
      a line numbers, texts, paths and times are written, and containers of them; of anything else,
      which may hold an error, the class. Of other libraries' lines, and of warnings, name and place
      alone. Whatever goes wrong on the way, no more than a class is written.
    * fedner's own errors keep their words: these quote no document (`common.errors`).
    * Room: of warnings and errors of one kind, `LIMIT` are written in each `WINDOW_S` seconds, and
      how many more there were is said afterwards; a line has at most `MAX_CHARACTERS`. What was
      done, at level INFO, is not counted: it costs more than its line.
    * Form: one record begins one line, whatever its values hold.
"""

import atexit
import copy
import datetime
import logging
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from numbers import Number
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Final, TextIO

from common.audit.repeats import LIMIT, WINDOW_S, Repeats
from common.audit.words import name_of
from common.errors import FednerError

__all__ = ["LIMIT", "WINDOW_S", "Redacting", "Sparing", "add_file", "dressed", "start"]

MAX_CHARACTERS: Final = 8000
MAX_FRAMES: Final = 30
MAX_MEMBERS: Final = 10
MAX_DEPTH: Final = 5
"""Of groups in groups, and of containers in containers."""
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_OWN: Final = "fedner"
_CUT: Final = " [...]"
_WITHHELD: Final = "its words are withheld: %s:%d in %s"

_PLAIN: Final = (FednerError, str, bytes, Number, PurePath, datetime.date, type(None))

log = logging.getLogger("fedner.worker")


class _Lines(str):
    """Classes and frames as this module writes them: in a record, no words of anybody's."""

    __slots__ = ()


_Caught = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Redacting(logging.Formatter):
    """Writes records as the module promises."""

    def __init__(self, text: str = _FORMAT):
        super().__init__(text)

    def format(self, record: logging.LogRecord) -> str:
        """One record; what another formatter left in it is not looked at."""
        kept = copy.copy(record)
        if not _is_own(record):
            _withhold(kept)
        else:
            kept.exc_text = kept.stack_info = None
            kept.msg, kept.args = _without_words(record.msg), _values(record.args)
        lines = super().format(kept).splitlines()
        text = "\n    ".join(_printable(line) for line in lines)
        return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - len(_CUT)] + _CUT

    def formatException(self, ei: _Caught) -> str:  # noqa: N802 - the base class's name
        """Classes and frames, the first cause first."""
        return "" if ei[1] is None else _lines(ei[1])


class Sparing(logging.Filter):
    """Lets through what has room in a handler; says there how much had not.

    Args:
        clock: in seconds, never set back.
    """

    def __init__(self, handler: logging.Handler, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._handler, self._clock = handler, clock
        self._repeats, self._written, self._lock = Repeats(), 0, threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.levelno < logging.WARNING or getattr(record, "is_count", False):
            return True
        key, now = _kind(record), int(self._clock())
        with self._lock:
            ended = self._repeats.ended(now)
            is_one_more = self._repeats.is_one_more(*key, now)
            if not is_one_more:
                self._written += 1
                self._repeats.wrote(*key, self._written)
        self._say(ended)
        return not is_one_more

    def say_rest(self) -> None:
        """The counts of windows that are not over."""
        with self._lock:
            ended = self._repeats.ended()
        self._say(ended)

    def _say(self, ended: list[Any]) -> None:
        for one in ended:
            about = f" ({one.code})" if one.code else ""
            said = logging.makeLogRecord(
                {
                    "name": log.name,
                    "levelno": logging.WARNING,
                    "levelname": "WARNING",
                    "msg": "%d more were not written, like: %s%s",
                    "args": (one.more, one.asked, about),
                    "is_count": True,
                }
            )
            self._handler.handle(said)


def dressed(
    handler: logging.Handler, text: str = _FORMAT, clock: Callable[[], float] = time.monotonic
) -> Sparing:
    """Have a handler write as the module promises."""
    handler.setFormatter(Redacting(text))
    sparing = Sparing(handler, clock)
    handler.addFilter(sparing)
    return sparing


def start(level: int, text: str = _FORMAT) -> None:
    """Log to this process's terminal, and let nothing else write an error's words there.

    Some libraries have handlers of their own: they get records that hold no words.
    """
    logging.setLogRecordFactory(_record)
    logging.raiseExceptions = False  # else a line that can't be written is, with its values
    handler = logging.StreamHandler()
    atexit.register(dressed(handler, text).say_rest)
    logging.basicConfig(level=level, handlers=[handler])
    sys.excepthook = lambda _kind, error, _at: _uncaught("the process", error)
    threading.excepthook = _in_thread
    sys.unraisablehook = lambda args: _uncaught("nobody", args.exc_value)
    warnings.showwarning = _warned


def add_file(path: Path) -> None:
    """Log what is fedner's own to a file of mode 0600, too."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    handler = logging.FileHandler(path, encoding="utf-8")
    atexit.register(dressed(handler).say_rest)
    logging.getLogger(_OWN).addHandler(handler)


def _record(*values: Any, **named: Any) -> logging.LogRecord:
    record = logging.LogRecord(*values, **named)
    if not _is_own(record):
        _withhold(record)
    return record


def _withhold(record: logging.LogRecord) -> None:
    """Leave place and frames in a record, and no words: of one that had none, and got some, too."""
    record.msg = _WITHHELD
    record.args = (record.pathname, record.lineno, record.funcName)
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if error is not None:
        record.exc_text = _lines(error)
    elif not isinstance(record.exc_text, _Lines):
        record.exc_text = None
    record.exc_info = record.stack_info = None


def _is_own(record: logging.LogRecord) -> bool:
    return f"{record.name}.".startswith(f"{_OWN}.")


def _kind(record: logging.LogRecord) -> tuple[str, str]:
    """What counts as the same; `about` of a record tells apart what one line of code writes."""
    if not _is_own(record):
        return f"{record.name}, {record.pathname}:{record.lineno}", ""
    return str(_without_words(record.msg)), str(getattr(record, "about", ""))


def _without_words(value: object, depth: int = MAX_DEPTH) -> object:
    """The class in place of what may hold an error that is not fedner's own."""
    if isinstance(value, _PLAIN):
        return value
    if not isinstance(value, dict | list | tuple | set | frozenset) or not depth:
        return _class_of(value)
    if isinstance(value, dict):
        pairs = value.items()
        return {_without_words(k, depth - 1): _without_words(v, depth - 1) for k, v in pairs}
    items = [_without_words(one, depth - 1) for one in value]
    return items if isinstance(value, list | set) else tuple(items)


def _class_of(value: object) -> str:
    return name_of(value) if isinstance(value, BaseException) else type(value).__name__


def _values(args: Any) -> Any:
    """Of a record: several, one mapping by name, or nothing."""
    return _without_words(dict(args) if isinstance(args, Mapping) else args)


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


def _lines(error: BaseException) -> _Lines:
    """What is written of an error; its class, if that fails."""
    try:
        return _Lines("\n".join(_told(error, set(), MAX_DEPTH)))
    except Exception:  # noqa: BLE001 - what it says may be the words of a document
        return _Lines(name_of(error))


def _told(error: BaseException, seen: set[int], depth: int) -> Iterator[str]:
    """Causes first, each once: a member of a group may have the group for its context."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        chain.append(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    for one in reversed(chain):
        yield from _alone(one, seen, depth)


def _alone(error: BaseException, seen: set[int], depth: int) -> Iterator[str]:
    yield f"{_named(error)}, most recent call last:"
    frames = [
        f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if len(frames) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        left_out = f"  ... {len(frames) - 2 * half} frames ..."
        frames = [*frames[:half], left_out, *frames[-half:]]
    yield from frames
    if isinstance(error, BaseExceptionGroup) and depth:
        for member in error.exceptions[:MAX_MEMBERS]:
            yield from (f"  {line}" for line in _told(member, seen, depth - 1))


def _named(error: BaseException) -> str:
    name = name_of(error)
    return f"{name}: {error}" if isinstance(error, FednerError) else name


def _uncaught(where: str, error: BaseException | None) -> None:
    try:
        log.critical("an error ends %s", where, exc_info=error, extra={"about": where})
    except BaseException:  # noqa: BLE001 - else Python writes what was not caught, in words
        with suppress(BaseException):
            sys.stderr.write(f"{name_of(error)} ends {where}\n")


def _in_thread(args: threading.ExceptHookArgs) -> None:
    if not issubclass(args.exc_type, SystemExit):
        _uncaught("a thread", args.exc_value)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.warning("%s at %s:%d", category.__name__, filename, lineno)
