"""One long run of a provisioned federation, in whose rounds faults are made one after the other.

A start of six institutions takes minutes on a small machine, a round seconds. So each fault has a
round of its own in one run, and what came of it is read from that round: who is in the sum, what
each site was charged for it, and the model after it, which is kept.
"""

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from scripts.benchmarks import _stage_tiny as tiny
from scripts.benchmarks._proxy import Proxy
from scripts.benchmarks._stage import Stage
from scripts.benchmarks._stage_moments import Moment, Moments

NAMES: Final = ("north", "east", "south", "west", "centre", "coast")
ROUNDS: Final = 200
"""More than the rows take: the last two end the run."""
EVALUATE_EVERY: Final = 3
DEADLINE_S: Final = 90
SERVER: Final = "coordinator"
SMALL_DISK: Final = "west"
"""The site whose state, and the side whose run, lie on a disk of their own that can be filled."""
DISK: Final = "64m"
HELPER: Final = "coast"
"""Whose SuperNode stands still to the end of a sum, where the next one must begin in full."""

PRIVACY: Final = (
    "{mechanism: local, unit: patient, noise_multiplier: 2, delta: 1e-3, clip: 0.5, "
    "sampling_rate: 0.5, steps_per_round: 2, declared_units: 8, "
    "evaluation: {epsilon: 20, clip: 3}, settings_from: synthetic, insecure_seed: 7, "
    "spare_rounds: 6}"
)
"""The noise is given, so spare rounds change no weight: they are room for rounds charged twice."""


def study_text(encoder: Path, rounds: int = ROUNDS) -> str:
    """Six institutions, t = 4, h = 1, quorum 4, noise from a test seed."""
    return tiny.study_text(
        encoder,
        study="faults",
        privacy=PRIVACY,
        model="{train: full, dropout: 0}",
        training=f"{{rounds: {rounds}, learning_rate: 5e-3, precision: float32}}",
        federation=f"{{institutions: [{', '.join(NAMES)}], quorum: 4, deadline_s: {DEADLINE_S}, "
        f"evaluate_every: {EVALUATE_EVERY}}}",
        secure_aggregation="{collusion: 1, threshold: 4}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )


class Campaign:
    """The run, with a proxy between each institution and the server.

    Args:
        folder: to be made; the models of all rounds are kept below `weights`.
    """

    def __init__(self, folder: Path, rounds: int = ROUNDS):
        encoder = tiny.bert_folder(folder / "encoder")
        self._stack = ExitStack()
        self.disks = {SERVER: self._disk(folder / "disk")}
        text = study_text(encoder, rounds)
        self.stage = Stage(folder / "s", text, run=self.disks[SERVER] / "run")
        self.disks[SMALL_DISK] = self._disk(self.stage.state(SMALL_DISK))
        self.kept = folder / "weights"
        self.kept.mkdir()
        self.proxies = {name: self._stack.enter_context(Proxy(self.stage.port)) for name in NAMES}
        for name, proxy in self.proxies.items():
            self.stage.change(name, coordinator=f"localhost:{proxy.port}")
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._coordinator = Moments(self.stage.audit())
        self._own = {name: Moments(self.stage.audit(name)) for name in NAMES}
        self._queue: list[Moment] = []

    def _disk(self, folder: Path) -> Path:
        """A file system of its own in memory, which takes root."""
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "fedner-faults"]
        subprocess.run([*mount, str(folder)], check=True)
        self._stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
        return folder

    @contextmanager
    def full(self, side: str) -> Iterator[None]:
        """That side's disk takes not one byte more, for as long."""
        ballast = self.disks[side] / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"-")
        try:
            yield
        finally:
            ballast.unlink()

    def __enter__(self) -> "Campaign":
        self._keeper.start()
        self.stage.serve()
        self.stage.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._keeper.join()
        self.stage.close()
        state = self.stage.state(SMALL_DISK)
        shutil.copytree(self.stage.run.path, self.stage.folder / "run")
        shutil.copytree(state, state.with_name("kept"), ignore=shutil.ignore_patterns("socket"))
        self._stack.close()
        shutil.copytree(state.with_name("kept"), state, dirs_exist_ok=True)

    def _keep(self) -> None:
        """The model of each round, as soon as there is one."""
        run, seen = self.stage.run, 0.0
        while not self._ended.wait(0.1):
            path = run.path / "checkpoint.npz"
            if path.exists() and path.stat().st_mtime != seen:
                seen = path.stat().st_mtime
                delta, round_ = run.load_delta()
                np.save(self.kept / f"{round_}.npy", delta)

    # --- where the run is

    @property
    def round(self) -> int:
        """The last finished one."""
        events = self.stage.run.events("round") if self.stage.run.path.exists() else []
        return int(events[-1]["round"]) if events else 0

    def await_round(self, round_: int, limit_s: float = 600.0) -> None:
        """Until it is finished."""
        self.stage.await_true(lambda: self.round >= round_, f"round {round_}", limit_s, 0.1)

    def reach(self, site: str, stage: str, purpose: str = "train") -> int:
        """Until a site has been asked for a stage of a sum that begins from now on; the round."""
        round_ = self.announced(site, stage, purpose)
        self.stage.await_true(
            lambda: any(m.stage == stage for m in self._own[site].new()), f"{stage} at {site}"
        )
        return round_

    def announced(self, site: str, stage: str, purpose: str = "train") -> int:
        """Until the coordinator begins a stage of a sum that begins from now on; the round.

        Keys and boxes are asked for by themselves only when a sum begins in full: if need be, a
        SuperNode that is not this site's stands still from the signatures of the sum before, so
        that its keys for the next are not there. A killed one, or its worker, is back too soon.
        """
        self._coordinator.new(), self._own[site].new()
        self._queue, full = [], stage in ("keys", "boxes")
        helper = HELPER if site != HELPER else NAMES[0]
        try:
            while True:
                found = self._next(self._coordinator)
                if full and found == Moment("train", found.round, "signatures"):
                    self.stage.send(helper, "supernode", signal.SIGSTOP)
                elif full and found.stage != "shares":
                    self.stage.send(helper, "supernode", signal.SIGCONT)
                late = full and found.round <= self.round  # keys of an evaluation
                if found.stage == stage and found.purpose == ("" if full else purpose) and not late:
                    return found.round
        finally:
            if full:
                self.stage.send(helper, "supernode", signal.SIGCONT)

    def reach_any(self, stage: str, purpose: str = "train") -> int:
        """Until a stage that begins from now on has been asked of somebody; the round."""
        self._coordinator.new()
        for log in self._own.values():
            log.new()
        self._queue, wanted = [], "" if stage in ("keys", "boxes") else purpose
        while True:
            found = self._next(self._coordinator)
            late = not wanted and found.round <= self.round
            if (found.purpose, found.stage) == (wanted, stage) and not late:
                break
        logs = self._own.values()
        self.stage.await_true(lambda: any(log.new() for log in logs), f"{stage} at a site")
        return found.round

    def _next(self, log: Moments) -> Moment:
        while not self._queue:
            self._queue = self.stage.await_true(log.new, "another stage")
        return self._queue.pop(0)

    def whole(self, limit_s: float = 300.0) -> None:
        """Until every institution's worker listens, and a round is done over all of them."""
        begun = self.round

        def all_in() -> bool:
            after = [e for e in self.stage.run.events("round") if e["round"] > begun]
            return any(len(e["institutions"]) == len(NAMES) for e in after)

        self.stage.await_true(all_in, "a round over all", limit_s, 0.2)

    # --- what came of it

    def outcome(self, round_: int) -> dict[str, Any]:
        """Of one round: who is in it, what refused, what it cost whom."""
        run = self.stage.run
        event = next(e for e in run.events("round") if e["round"] == round_)
        refused = [
            [e["institution"], e["asked"], e["code"]]
            for e in run.events("refusal")
            if e["round"] == round_
        ]
        return {
            "round": round_,
            "survivors": sorted(event["institutions"]),
            "attempts": event["sum"]["attempts"],
            "seconds": event["seconds"],
            "refused": refused,
            "aborts": [e["reason"] for e in run.events("abort") if e["round"] == round_],
            "charged": self.charged("train", round_),
        }

    def charged(self, purpose: str, round_: int) -> dict[str, int]:
        """How often each site was charged for it."""
        return {
            name: sum(c.purpose == purpose and c.round == round_ for c in self.stage.charges(name))
            for name in NAMES
        }
