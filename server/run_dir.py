"""The folder of one run: study, metrics, checkpoint, log, and the model's weights at the end.

study.yaml       the study as it was given
metrics.jsonl    one JSON object per event, see `docs/metrics.md`; an end that a crash left
                 unfinished is moved to metrics.torn
checkpoint.npz   model, released model, optimiser state, round and its line for the metrics:
                 replaced after every round
status.json      starting, running, finished, failed or lost, and why
progress.json    what the coordinator is at, for displays alone: `server.progress`
run.log
"""

import io
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.study import Aggregation, Study
from common.errors import FederationError, UsageError
from common.io import journal
from common.io.atomic import write_bytes, write_json
from common.io.disk import DISK, replace_file
from common.io.private_files import open_log
from common.privacy.notice import notices
from server.optimizer import ServerOptimizer, Vector
from server.reserve import CHECKPOINT_RESERVE, STATUS_RESERVE, Reserve

log = logging.getLogger("fedner.server")

STUDY: Final = "study.yaml"
METRICS: Final = "metrics.jsonl"
CHECKPOINT: Final = "checkpoint.npz"
STATUS: Final = "status.json"
LOG: Final = "run.log"
_BEGUN: Final = frozenset({"starting", "running"})
_STATUS_ROOM: Final = 1 << 14
_CHECKPOINT_REST: Final = 1 << 20
"""Bytes beside the arrays: their heads and the round's figures."""
_GO_ON: Final = "free some space or mend the disk, then `fedner server --resume`"
_RESTORE: Final = "put back a copy of the whole run folder, or begin a new study"


@contextmanager
def written(place: Path, remedy: str = _GO_ON) -> Iterator[None]:
    """Errors of the operating system, of a block that writes, as `FederationError`."""
    try:
        yield
    except OSError as error:
        raise FederationError(
            f"can't be written: {error.strerror or type(error).__name__}",
            place=str(place),
            remedy=remedy,
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state after a finished round.

    Attributes:
        figures: the round's line for the metrics.
    """

    optimizer: ServerOptimizer
    round: int
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run, and what is written there."""

    path: Path

    @classmethod
    def create(cls, path: Path, study_text: str) -> "RunDir":
        """Make the folder, for this user alone, and keep the study in it.

        Raises:
            UsageError: it is there already, or can't be made.
        """
        try:
            path.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise UsageError(
                f"the run folder can't be made: {type(error).__name__}",
                place=str(path),
                remedy="name with --out a folder that is not there yet",
            ) from None
        write_bytes(path / STUDY, study_text.encode())
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """A run folder that is there.

        Raises:
            UsageError: it is not, or has no study.
        """
        if not (path / STUDY).is_file():
            raise UsageError(
                f"not a run folder: no {STUDY} in it",
                place=str(path),
                remedy="name the run folder that the server printed",
            )
        return cls(path)

    def log_here(self) -> None:
        """Send the log of everything that fedner does in this process to the run's file.

        Raises:
            ConfigError: it is another user's.
        """
        open_log(self.path / LOG).close()
        handler = logging.FileHandler(self.path / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger("fedner")
        for old in list(root.handlers):
            root.removeHandler(old)
            old.close()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        root.propagate = False

    def study(self) -> Study:
        """The study of this run."""
        return parse_study((self.path / STUDY).read_text("utf-8"), str(self.path / STUDY))

    def record(self, event: str, study: Study, **figures: Any) -> None:
        """Append an event to the metrics; every line has its time, study and (lack of) privacy."""
        line = {
            "event": event,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "study": study.study,
            "study_sha256": study_hash(study),
            "privacy": study.privacy_mechanism,
            "secure_aggregation": study.secure_adversary,
        }
        if event == "start":
            line["notices"] = list(notices(study))
        journal.append(self.path / METRICS, {**line, **figures})

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The recorded events, of one kind if named."""
        lines = journal.read(self.path / METRICS)
        return [line for line in lines if kind is None or line["event"] == kind]

    def mend(self) -> int:
        """Set an unfinished last line of the metrics aside; how many bytes it had."""
        return journal.mend(self.path / METRICS)

    def checkpoint_room(self, optimizer: ServerOptimizer) -> Reserve:
        """Room for one more checkpoint beside the last, which is to be held before vectors come."""
        models = 2 * optimizer.delta.nbytes
        size = models + optimizer.moments.nbytes + optimizer.mean.nbytes + _CHECKPOINT_REST
        return Reserve(self.path / CHECKPOINT_RESERVE, size, "a checkpoint", FederationError)

    def save_checkpoint(
        self,
        optimizer: ServerOptimizer,
        round_: int,
        figures: Mapping[str, Any],
        room: Reserve | None = None,
    ) -> None:
        """Replace the checkpoint; on disk when this returns, or the old one is.

        Args:
            room: given up if the disk is full.

        Raises:
            FederationError: the disk does not take it.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            delta=optimizer.delta,
            released=optimizer.released,
            moments=optimizer.moments,
            mean=optimizer.mean,
            round=round_,
            figures=json.dumps(figures),
        )
        data = buffer.getbuffer()
        try:
            try:
                replace_file(DISK, self.path / CHECKPOINT, data)
            except OSError:
                if room is None or not room.release():
                    raise
                log.error("room that was kept for a checkpoint is given up")
                replace_file(DISK, self.path / CHECKPOINT, data)
        except OSError as error:
            raise FederationError(
                f"the checkpoint can't be written: {error.strerror or type(error).__name__}",
                place=str(self.path / CHECKPOINT),
                remedy=_GO_ON,
            ) from None

    def checkpoint(self, settings: Aggregation, dimension: int) -> Checkpoint | None:
        """The newest one; `None` before the first round is finished.

        Raises:
            FederationError: damaged, or of another model or optimiser.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        fresh = ServerOptimizer.start(settings, dimension)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
                found = {name: content[name] for name in ("delta", "moments", "mean")}
                round_, figures = int(content["round"]), json.loads(str(content["figures"]))
            if any(found[n].shape != getattr(fresh, n).shape for n in found) or round_ < 1:
                raise ValueError("another shape")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise FederationError(
                "damaged, or of another model or optimiser",
                place=str(path),
                remedy=_RESTORE,
            ) from None
        optimizer = ServerOptimizer(settings, **found, rounds=round_)
        return Checkpoint(optimizer=optimizer, round=round_, figures=figures)

    def load_delta(self) -> tuple[Vector, int]:
        """The released model, as a `delta`, after the last finished round, and that round.

        Raises:
            FederationError: no round was finished, or the checkpoint is damaged.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            raise FederationError(
                "no round was finished", place=str(self.path), remedy=f"read {self.path / LOG}"
            )
        try:
            # of a damaged file numpy would leave its own handle open; no other array is read
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                return content["released"], int(content["round"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise FederationError("damaged", place=str(path), remedy=_RESTORE) from None

    def set_status(self, state: str, message: str = "") -> None:
        """`starting`, `running`, `finished`, `failed`, or `lost`: Flower ended before the run.

        Room for the end is held from the start on, so that it is told though the disk is full.

        Raises:
            FederationError: the disk does not take it, or at the start has not that room.
        """
        room = Reserve(self.path / STATUS_RESERVE, _STATUS_ROOM, "the run's end", FederationError)
        if state in _BEGUN:
            room.hold()
        else:
            room.release()
        with written(self.path / STATUS):
            write_json(self.path / STATUS, {"state": state, "message": message})

    def status(self) -> Mapping[str, str]:
        """State and message; state is `unknown` before the ServerApp wrote any."""
        path = self.path / STATUS
        if not path.exists():
            return {"state": "unknown", "message": ""}
        content: dict[str, str] = json.loads(path.read_text("utf-8"))
        return content
