"""What the coordinator is at, this moment: a file for displays, which nothing else depends on.

    progress.json   {"purpose": hello, train or evaluate, "stage": ..., "round": ..., "since": ...,
                     "asked": [name, ...], "answered": [name, ...]}

Guarantees:
    * A reader finds the old content or the new one, whole. Nothing here is flushed to the disk.
    * A disk that does not take it ends no run: what can't be written is not shown.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

log = logging.getLogger("fedner.server")

PROGRESS: Final = "progress.json"
AWAIT: Final = "await"
"""The stage in which too few institutions can be reached, or keys were not asked for yet."""


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
        self._path, self._clock = folder / PROGRESS, clock
        self._now = Moment(purpose="hello", stage=AWAIT, round=0, since=clock())
        self._told = False

    def stage(self, purpose: str, stage: str, round_: int) -> None:
        """Another stage begins."""
        self._now = Moment(purpose=purpose, stage=stage, round=round_, since=self._clock())
        self._write()

    def asked(self, names: Collection[str]) -> None:
        """These are asked now."""
        self._now = replace(self._now, asked=tuple(names))
        self._write()

    def answered(self, name: str) -> None:
        """One did as it was asked."""
        self._now = replace(self._now, answered=(*self._now.answered, name))
        self._write()

    def _write(self) -> None:
        beside = self._path.with_name(f".{PROGRESS}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(asdict(self._now)), "utf-8")
            os.replace(beside, self._path)
        except OSError as error:
            if not self._told:
                log.warning("displays are not told of the progress: %s", error.strerror)
            self._told = True


def read_moment(folder: Path) -> Moment | None:
    """Where the run of a folder is; `None` if its coordinator never said, or nothing readable."""
    try:
        said = json.loads((folder / PROGRESS).read_text("utf-8"))
        lists = {key: tuple(said.pop(key)) for key in ("asked", "answered")}
        return Moment(**said, **lists)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
