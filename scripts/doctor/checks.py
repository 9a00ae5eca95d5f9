"""A check, what it found, and how it is carried out.

Guarantees:
    - Checks are independent: one that raises is a failure of its own, with the error's text and
      never a traceback; the next ones are carried out.
    - Each has a limit in seconds; one that takes longer is a failure, and nobody waits for it.
    - Whatever is not in order has a remedy: a finding without one can't be made.
    - Of a check that touches documents or secrets, an unforeseen error's text is not shown, nor
      what is `private` anywhere but on the institution's own terminal.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from common.errors import DataError, FednerError

State = Literal["ok", "warning", "failed"]
LIMIT_S: Final = 20.0
_FAULT: Final = "mend what the message names; if it names nothing of yours, report it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        private: figures about documents, for a terminal and nothing else.

    Raises:
        ValueError: something is not in order, and there is no remedy.
    """

    state: State
    said: str
    remedy: str = ""
    private: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not self.remedy:
            raise ValueError(f"a finding without a remedy: {self.said}")


def ok(said: str, private: str = "") -> Finding:
    """All is in order."""
    return Finding(state="ok", said=said, private=private)


def warning(said: str, remedy: str) -> Finding:
    """It works, but a person should know."""
    return Finding(state="warning", said=said, remedy=remedy)


def failed(said: str, remedy: str) -> Finding:
    """It would not work."""
    return Finding(state="failed", said=said, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing to look at.

    Attributes:
        group: `clock`, `tls`, `keys` and so on.
        looked_at: file, address or the like, for people.
        look: does it.
        discreet: whether documents or secrets are touched.
    """

    group: str
    looked_at: str
    look: Callable[[], Finding]
    limit_s: float = LIMIT_S
    discreet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A check that was carried out."""

    check: Check
    finding: Finding
    seconds: float

    def as_dict(self) -> Mapping[str, Any]:
        """For JSON; without what is private."""
        return {
            "group": self.check.group,
            "looked_at": self.check.looked_at,
            "state": self.finding.state,
            "said": self.finding.said,
            "remedy": self.finding.remedy,
            "seconds": round(self.seconds, 3),
        }


def carry_out(checks: Iterable[Check]) -> Iterator[Outcome]:
    """One after the other, each given out when it is done."""
    for check in checks:
        started = time.monotonic()
        finding = _within_limit(check)
        yield Outcome(check=check, finding=finding, seconds=time.monotonic() - started)


def has_failed(outcomes: Iterable[Outcome]) -> bool:
    """Whether anything would not work."""
    return any(outcome.finding.state == "failed" for outcome in outcomes)


def _within_limit(check: Check) -> Finding:
    """A thread that hangs is left behind; it ends with the process."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_looked(check)), daemon=True)
    thread.start()
    thread.join(check.limit_s)
    if found:
        return found[0]
    return failed(
        f"no answer within {check.limit_s:g} s",
        "is the disk, the network or the machine overloaded? run this again",
    )


def _looked(check: Check) -> Finding:
    try:
        return check.look()
    except FednerError as error:
        place = f"{error.place}: " if error.place not in (None, check.looked_at) else ""
        if check.discreet and isinstance(error, DataError) and not _is_file(error.place or ""):
            return replace(failed(error.message, error.remedy or _FAULT), private=place)
        return failed(f"{place}{error.message}", error.remedy or _FAULT)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return failed(f"{named}{error.strerror or type(error).__name__}", _FAULT)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a failure of this check alone
        text = "" if check.discreet else f": {error}"
        return failed(f"{type(error).__name__}{text}", _FAULT)


def _is_file(place: str) -> bool:
    """Whether an error's place is a path of this machine; else it may be a document's id."""
    return os.sep in place and Path(place).parent.is_dir()
