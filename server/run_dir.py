"""The folder of one run: study, metrics, checkpoint, log, and the model's weights at the end.

study.yaml       the study as it was given
metrics.jsonl    one JSON object per event, see `docs/metrics.md`
checkpoint.npz   released model, optimiser state and round: replaced after every round
status.json      running, finished or failed, and why
run.log
"""

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.study import Study
from common.errors import FederationError, UsageError
from common.io.atomic import append_json, write_bytes, write_json
from common.privacy.notice import notices
from server.optimizer import ServerOptimizer, Vector

STUDY: Final = "study.yaml"
METRICS: Final = "metrics.jsonl"
CHECKPOINT: Final = "checkpoint.npz"
STATUS: Final = "status.json"
LOG: Final = "run.log"


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run, and what is written there."""

    path: Path

    @classmethod
    def create(cls, path: Path, study_text: str) -> "RunDir":
        """Make the folder and keep the study in it.

        Raises:
            UsageError: it is there already, or can't be made.
        """
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise UsageError(
                f"the run folder can't be made: {type(error).__name__}",
                place=str(path),
                remedy="name with --out a folder that is not there yet",
            ) from None
        write_bytes(path / STUDY, study_text.encode())
        return cls(path)

    def log_here(self) -> None:
        """Send the log of everything that fedner does in this process to the run's file."""
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
        """Append an event to the metrics; every line names study and (lack of) privacy."""
        line = {
            "event": event,
            "study": study.study,
            "study_sha256": study_hash(study),
            "privacy": study.privacy_mechanism,
            "secure_aggregation": study.secure_adversary,
        }
        if event == "start":
            line["notices"] = list(notices(study))
        append_json(self.path / METRICS, {**line, **figures})

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The recorded events, of one kind if named."""
        path = self.path / METRICS
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [line for line in lines if kind is None or line["event"] == kind]

    def save_checkpoint(self, optimizer: ServerOptimizer, round_: int) -> None:
        """Replace the checkpoint."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            delta=optimizer.delta,
            released=optimizer.released,
            moments=optimizer.moments,
            mean=optimizer.mean,
            round=round_,
        )
        write_bytes(self.path / CHECKPOINT, buffer.getvalue())

    def load_delta(self) -> tuple[Vector, int]:
        """The released model, as a `delta`, after the last finished round, and that round.

        Raises:
            FederationError: no round was finished.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            raise FederationError(
                "no round was finished", place=str(self.path), remedy=f"read {self.path / LOG}"
            )
        with np.load(path, allow_pickle=False) as content:
            return content["released"], int(content["round"])

    def set_status(self, state: str, message: str = "") -> None:
        """`running`, `finished` or `failed`."""
        write_json(self.path / STATUS, {"state": state, "message": message})

    def status(self) -> Mapping[str, str]:
        """State and message; state is `unknown` before the ServerApp wrote any."""
        path = self.path / STATUS
        if not path.exists():
            return {"state": "unknown", "message": ""}
        content: dict[str, str] = json.loads(path.read_text("utf-8"))
        return content
