"""Test F1 of pooled, each institution alone and federated, over seeds. Resumable.

    scripts/bench federation configs/ncbi-4.yaml --out runs/bench-ncbi.jsonl --seeds 1 2 3

Each finished training is one line of the file; a line that is there is not computed again.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common.config.canonical import study_hash, study_yaml
from common.config.study import Study
from common.io.atomic import append_json
from common.io.configs import load_study
from common.metrics.entities import as_json
from common.model.ner import NerModel, set_threads
from scripts.baselines import POOLED, train_alone
from scripts.console import quiet_libraries
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir

FEDERATED = "federated"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench federation")
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(argv)
    quiet_libraries()
    set_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    study = load_study(options.study)
    for seed in options.seeds:
        _run_seed(_seeded(study, seed), options.study.parent, options.out)
    _print_table(study, options)
    return 0


def _seeded(study: Study, seed: int) -> Study:
    return replace(study, training=replace(study.training, seed=seed))


def _key(study: Study) -> str:
    """Names the study and what stands in for its institutions' data."""
    stands_in = json.dumps(asdict(study)["simulation"], sort_keys=True)
    return hashlib.sha256((study_hash(study) + stands_in).encode()).hexdigest()


def _run_seed(study: Study, base: Path, out: Path) -> None:
    todo = [FEDERATED, POOLED, *study.federation.institutions]
    done = {r["trained_by"] for r in _lines(out) if r["key"] == _key(study)}
    todo = [name for name in todo if name not in done]
    if not todo:
        return
    bench = Bench.of(study, base)
    model = bench.model()
    for name in todo:
        run = _federate if name == FEDERATED else _baseline(name)
        started = time.monotonic()
        result = run(bench, model)
        line = {
            "study": study.study,
            "key": _key(study),
            "seed": study.training.seed,
            "trained_by": name,
            "seconds": round(time.monotonic() - started, 1),
            "commit": commit(),
            **result,
        }
        append_json(out, line)
        print(f"seed {line['seed']} {name}: F1 {line['f1']:.4f} in {line['seconds']} s", flush=True)


def _federate(bench: Bench, model: NerModel) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDir.create(Path(scratch) / "run", study_yaml(bench.study))
        simulate(bench, run, model)
        last = run.events("evaluation")[-1]
        rounds = [e["f1"] for e in run.events("evaluation")]
    return {"f1": last["f1"], "entities": last["entities"], "f1_by_round": rounds}


def _baseline(name: str) -> Callable[[Bench, NerModel], dict[str, Any]]:
    def run(bench: Bench, model: NerModel) -> dict[str, Any]:
        evaluation = train_alone(bench, model, name)
        return {"f1": evaluation.f1, "entities": as_json(evaluation.entity_report())}

    return run


def _lines(out: Path) -> list[dict[str, Any]]:
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _print_table(study: Study, options: argparse.Namespace) -> None:
    keys = [_key(_seeded(study, seed)) for seed in options.seeds]
    rows = [r for r in _lines(options.out) if r["key"] in keys]
    names = [POOLED, FEDERATED, *study.federation.institutions]
    print(f"\n| trained by | {' | '.join(f'seed {s}' for s in options.seeds)} | mean | sd |")
    print(f"|---|{'---:|' * (len(options.seeds) + 2)}")
    means = {}
    for name in names:
        f1 = [r["f1"] for s in options.seeds for r in rows
              if r["trained_by"] == name and r["seed"] == s]  # fmt: skip
        means[name] = statistics.mean(f1)
        spread = statistics.stdev(f1) if len(f1) > 1 else 0.0
        shown = " | ".join(f"{x:.4f}" for x in f1)
        print(f"| {name} | {shown} | {means[name]:.4f} | {spread:.4f} |")
    alone = statistics.mean(means[n] for n in study.federation.institutions)
    print(f"\nmean of local-only {alone:.4f}")
    print(f"federated - pooled {100 * (means[FEDERATED] - means[POOLED]):+.2f} points")
    print(f"federated - mean of local-only {100 * (means[FEDERATED] - alone):+.2f} points")
