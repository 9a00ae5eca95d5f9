"""What a run folder was begun with, and who may go on from it: `fedner server --resume`.

    origin.json       version of fedner, hashes of study and roster, coordinator's key, address,
                      and the federation's folder
    server.lock       held by `fedner server`
    coordinator.lock  held by the process that carries the study out

Guarantees:
    * One `fedner server`, and one coordinator, at a time has a run folder.
    * A coordinator in a process of its own ends with its server, however that ended.
    * A run is gone on with only under the version, study, roster and coordinator's key with which
      it began, and only if it is not finished. One that began with TLS and node authentication
      goes on with them: where they lie stands here, and nothing else can say otherwise.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from common import __version__
from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import FederationError, UsageError
from common.io.disk import DISK, replace_file
from common.io.standing import Standing
from server.run_dir import RunDir, written

ORIGIN: Final = "origin.json"
SERVER_LOCK: Final = "server.lock"
COORDINATOR_LOCK: Final = "coordinator.lock"
MODEL: Final = "model"
PREDECESSOR_LIMIT_S: Final = 60.0
"""For which a killed server's ServerApp may take to end; it is seldom a second."""
SERVER_LIMIT_S: Final = 5.0
"""For which that ServerApp may have the server's lock, on its way out."""
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What must be the same when a run is gone on with; `address` alone may change.

    Attributes:
        coordinator: its public key, as the roster has it; empty without secure aggregation.
        roster: SHA-256; empty without.
        federation: folder that `fedner provision` made, absolute; empty for a run that serves this
            machine only.
    """

    version: str
    study: str
    coordinator: str
    roster: str
    address: str
    federation: str = ""

    @classmethod
    def of(
        cls, study: Study, standing: Standing | None, address: str, federation: str = ""
    ) -> "Origin":
        """Of what is here now."""
        return cls(
            version=__version__,
            study=study_hash(study),
            coordinator="" if standing is None else standing.roster.coordinator,
            roster="" if standing is None else standing.roster.sha256,
            address=address,
            federation=federation,
        )

    @classmethod
    def read(cls, run: RunDir) -> "Origin":
        """Of a run folder.

        Raises:
            UsageError: it is not one that `fedner server` made, or is damaged.
        """
        try:
            return cls(**json.loads((run.path / ORIGIN).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            raise UsageError(
                f"no run of `fedner server` that can be gone on with: {ORIGIN} is not there, or "
                "not readable",
                place=str(run.path),
                remedy="name the run folder that the server printed, or begin a new run",
            ) from None

    def save(self, run: RunDir) -> None:
        """Keep it in the run's folder."""
        replace_file(DISK, run.path / ORIGIN, json.dumps(asdict(self), indent=2).encode() + b"\n")

    def require_same(self, now: "Origin", run: RunDir) -> None:
        """Refuse to go on under anything else.

        Raises:
            UsageError: names what differs.
        """
        names = {
            "version": "fedner's version",
            "study": "the study",
            "coordinator": "the coordinator's key",
            "roster": "the roster",
        }
        unlike = [said for name, said in names.items() if getattr(self, name) != getattr(now, name)]
        if unlike:
            raise UsageError(
                f"not what the run began with: {', '.join(unlike)}",
                place=str(run.path / ORIGIN),
                remedy=f"go on with fedner {self.version} and the files of the run's beginning, or "
                "begin a new study",
            )


def is_finished(run: RunDir) -> bool:
    """Whether the last round is done; the model may not be saved yet.

    Raises:
        UsageError: it is saved, too: nothing is left to do.
    """
    finished = run.status()["state"] == "finished"
    if finished and (run.path / MODEL).exists():
        raise UsageError(
            "the run is finished, there is nothing to go on with",
            place=str(run.path),
            remedy=f"its model is {run.path / MODEL}; a new run needs a new folder",
        )
    return finished


@contextmanager
def alone(run: RunDir, name: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold one of the run folder's locks; the kernel gives it back when the process ends.

    Args:
        wait_s: for a predecessor that was killed and is not quite gone.

    Raises:
        FederationError: another process has it, or the disk fails.
    """
    deadline = time.monotonic() + wait_s
    with written(run.path / name):
        descriptor = DISK.lock(run.path / name)
        while descriptor is None and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            descriptor = DISK.lock(run.path / name)
    if descriptor is None:
        raise FederationError(
            f"in use by another process ({_holder(run.path / name)})",
            place=str(run.path),
            remedy="one server per run folder: wait for the other one, or stop it",
        )
    try:
        yield
    finally:
        DISK.close(descriptor)


def end_with_server(run: RunDir) -> None:
    """End this process, unsaid, as soon as the `fedner server` that has the run folder is gone.

    Flower's own look at the parent process was not seen to end it within a minute.
    """
    descriptor = os.open(run.path / SERVER_LOCK, os.O_RDONLY | os.O_CLOEXEC)

    def wait() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os._exit(1)

    threading.Thread(target=wait, name="end-with-server", daemon=True).start()


def _holder(path: Path) -> str:
    """Its process number, as it wrote it."""
    said = (DISK.read(path) or b"").strip()
    return said.decode() if said.isdigit() else "unknown"
