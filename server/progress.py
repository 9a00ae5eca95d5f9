"""What the coordinator is at, this moment: a file for displays.

    progress.json   {"purpose": hello, train or evaluate, "stage": ..., "round": ..., "since": ...,
                     "asked": [name, ...], "answered": [name, ...]}

As `common.io.display_file` guarantees, no run depends on it.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from common.io.display_file import DisplayFile, read_display

log = logging.getLogger("fedner.server")

PROGRESS: Final = "progress.json"
AWAIT: Final = "await"
"""The stage in which it is waited for institutions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a run is.

    Attributes:
        stage: `await`, the kind of a request, or a stage of the secure sum as in the metrics.
        since: when the stage began, in Unix seconds.
        asked: institutions, in this stage.
        answered: of these.
    """

    purpose: str
    stage: str
    round: int
    since: float
    asked: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()


class Progress:
    """Keeps the file up to date.

    Args:
        folder: of the run.
        clock: Unix seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time):
        self._file, self._clock = DisplayFile(folder / PROGRESS, log), clock
        self._now = Moment(purpose="hello", stage=AWAIT, round=0, since=clock())

    def stage(self, purpose: str, stage: str, round_: int) -> None:
        """Another stage begins."""
        self._show(Moment(purpose=purpose, stage=stage, round=round_, since=self._clock()))

    def asked(self, names: Collection[str]) -> None:
        """These are asked now."""
        self._show(replace(self._now, asked=tuple(names)))

    def answered(self, name: str) -> None:
        """One did as it was asked."""
        self._show(replace(self._now, answered=(*self._now.answered, name)))

    def _show(self, now: Moment) -> None:
        self._now = now
        self._file.write(asdict(now))


def read_moment(folder: Path) -> Moment | None:
    """Where the run of a folder is; `None` if its coordinator has not said so readably."""
    said = read_display(folder / PROGRESS)
    try:
        return None if said is None else Moment(
            **{**said, "asked": tuple(said["asked"]), "answered": tuple(said["answered"])}
        )  # fmt: skip
    except (TypeError, KeyError):
        return None
