"""Seconds and peak memory per stage of the quickstart, in one process.

scripts/bench quickstart [--study configs/quickstart.yaml]
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_SAMPLE_S = 0.02


class Stages:
    """Times stages, and samples this process's resident memory meanwhile."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        peak, done, process = [0], threading.Event(), psutil.Process()

        def sample() -> None:
            while not done.is_set():
                peak[0] = max(peak[0], process.memory_info().rss)
                done.wait(_SAMPLE_S)

        sampler = threading.Thread(target=sample)
        sampler.start()
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            done.set()
            sampler.join()
            self.rows.append((name, seconds, peak[0] / 2**20))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench quickstart")
    parser.add_argument("--study", type=Path, default=Path("configs/quickstart.yaml"))
    options = parser.parse_args(argv)
    stages = Stages()
    with tempfile.TemporaryDirectory() as scratch:
        _run(options.study, Path(scratch), stages)
    print("| stage | seconds | peak resident memory, MiB |\n|---|---:|---:|")
    for name, seconds, peak in stages.rows:
        print(f"| {name} | {seconds:.1f} | {peak:.0f} |")
    total = sum(seconds for _, seconds, _ in stages.rows)
    print(f"| all | {total:.1f} | {max(peak for _, _, peak in stages.rows):.0f} |")
    return 0


def _run(study_path: Path, scratch: Path, stages: Stages) -> None:
    with stages.stage("import"):
        from common.config.canonical import study_yaml
        from common.io.configs import load_study
        from common.io.models import load_model, save_model
        from scripts.baselines import train_alone
        from scripts.console import quiet_libraries
        from scripts.simulation import Bench, simulate
        from server.run_dir import RunDir

        quiet_libraries()
    with stages.stage("study, encoder check, documents"):
        study = load_study(study_path)
        bench = Bench.of(study, study_path.parent)
    with stages.stage("model"):
        model = bench.model()
    run = RunDir.create(scratch / "run", study_yaml(study))
    with stages.stage("federation (all rounds, evaluated)"):
        simulate(bench, run, model)
    with stages.stage("save the model"):
        save_model(model, bench.encoder_dir, scratch / "model", {})
    with stages.stage("each institution alone"):
        for name in bench.sides:
            train_alone(bench, model, name)
    with stages.stage("load the saved model, predict all held-out documents"):
        loaded = load_model(scratch / "model")
        loaded.predict(loaded.prepare(bench.all_test))
