"""Test F1 on NCBI-Disease at given epsilons. Resumable: a finished cell is one line of the file.

    scripts/bench utility --out runs/utility.jsonl --seeds 1 2 3 --cells pooled/record/8

A cell is ARRANGEMENT/UNIT/EPSILON: `pooled` or `federated`; `record` or `document`; a number, or
`none` for training without a mechanism. The study starts from configs/ncbi-4-private.yaml and
trains cores, at the settings below instead; `pooled` is the same mechanism in a federation of one.
All cells start from one model that is trained on public data only (`scripts/bench public-start`),
made beside the results if it is not there. Delta is the study's. Sums are plain: what is measured
is training.

Guarantees:
    1. A cell that is in the file, at the same settings and from the same start, is not run again,
       wherever the start lies.
    2. A last line that a kill has torn is cut off before another is written; its cell runs again.
    3. A row of the table is one cell, start, setting and commit: a mean over seeds alone.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from common.config.canonical import study_hash, study_yaml
from common.config.privacy import LocalPrivacy, Search
from common.config.study import Lora, Study
from common.errors import DataError, UsageError
from common.io.atomic import append_json
from common.io.configs import load_study
from common.io.models import save_model
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel, set_threads
from common.privacy.events import Unit
from common.privacy.plan import plan_of
from scripts.baselines import POOLED, of_one
from scripts.benchmarks.federation import FEDERATED, commit
from scripts.benchmarks.public_start import OPEN, RANK, Start, gather, public_start
from scripts.console import quiet_libraries
from scripts.simulation import Bench, simulate
from server.run_dir import RunDir

CELLS: Final = (
    "pooled/record/8",
    *(f"pooled/record/{e}" for e in ("1", "3", "none")),
    *(f"federated/record/{e}" for e in ("8", "1", "3", "none")),
    "pooled/document/8",
)
PRIVATE: Final = Path("configs/ncbi-4-private.yaml")
SCALE: Final = 6.0
"""Alpha over rank: with more than 1 the head takes less of the clip, and the cores more."""
ROUNDS: Final = 300
LEARNING_RATE: Final = 2.5e-3
SAMPLING_RATE: Final = 0.06
DOCUMENT_ROUNDS: Final = 75
DOCUMENT_SAMPLING_RATE: Final = 0.24
DOCUMENT_LEARNING_RATE: Final = 5e-3
"""As many sentences are computed as for records, in a quarter of the steps: by arithmetic summed
contributions are then larger against the noise than at the rate for records. No run chose it."""
DECLARED_DOCUMENTS: Final = 148
"""At each institution: the training split is 592 published abstracts."""
LARGEST_DOCUMENT: Final = 37
"""Sentences of the longest of them."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench utility")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--keep", type=Path, help="save each cell's model under this folder")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument(
        "--study", metavar="CELL", help="print a federated cell's study, to lie in configs/"
    )
    options = parser.parse_args(argv)
    quiet_libraries()
    set_threads(options.threads)
    if not options.table:
        start = public_start(options.out.parent, gather())
        if options.study:
            print(printed_study(options.study, options.seeds[0], start), end="")
            return 0
        run_cells(options.cells, options.seeds, start, options.out, options.keep)
    print(table(finished(options.out), options.cells))
    return 0


# --- cells


def parts_of(cell: str) -> tuple[str, Unit, float | None]:
    """Arrangement, unit, and epsilon or `None`.

    Raises:
        UsageError: not a cell, or of a unit for which the search is not accounted.
    """
    arrangement, unit, epsilon = (*cell.split("/"), "", "")[:3]
    if cell.count("/") != 2 or arrangement not in {POOLED, FEDERATED} or not _is_epsilon(epsilon):
        raise UsageError(
            f"{cell}: not a cell",
            remedy="write ARRANGEMENT/UNIT/EPSILON, as in pooled/record/8 or federated/record/none",
        )
    if unit not in ("record", "document"):
        raise UsageError(
            f"{cell}: the trials that the study declares were on records; what they cost a "
            f"{unit} has not been accounted",
            remedy="run cells of records or documents, or declare the search for this unit",
        )
    return arrangement, unit, None if epsilon == "none" else float(epsilon)


def _is_epsilon(text: str) -> bool:
    try:
        return text == "none" or 0 < float(text) < math.inf
    except ValueError:
        return False


def study_of(cell: str, seed: int, start: Start) -> Study:
    """The study of one cell, all institutions. Only the last model is evaluated.

    The official test set is no institution's private data: its counts are exact.
    """
    _, unit, epsilon = parts_of(cell)
    study = load_study(OPEN if epsilon is None else PRIVATE)
    study = replace(
        study,
        encoder=start.encoder,
        training=replace(study.training, seed=seed),
        secure_aggregation="none",
    )
    if study.local_privacy is not None and epsilon is not None:
        study = _private(study, study.local_privacy, epsilon, start)
        study = _by_document(study) if unit == "document" else study
    return replace(
        study,
        task=replace(study.task, abbreviations="as_defined"),
        federation=replace(study.federation, evaluate_every=study.training.rounds),
    )


def _private(study: Study, privacy: LocalPrivacy, epsilon: float, start: Start) -> Study:
    """The setting that all private cells share: cores between public directions."""
    privacy = replace(
        privacy,
        epsilon=epsilon,
        evaluation="exact",
        sampling_rate=SAMPLING_RATE,
    )
    adapters = Lora(
        rank=RANK,
        alpha=SCALE * RANK,
        core=True,
        directions_sha256=start.directions_sha256,
    )
    return replace(
        study,
        privacy=privacy,
        model=replace(study.model, lora=adapters),
        training=replace(study.training, rounds=ROUNDS),
        aggregation=replace(study.aggregation, learning_rate=LEARNING_RATE, average=None),
    )


def _by_document(study: Study) -> Study:
    """The same cores, with whole abstracts as units: all sentences of one are clipped jointly."""
    privacy = study.local_privacy
    if privacy is None or privacy.search is None:
        raise DataError(f"{PRIVATE} declares no search", remedy="declare what was searched")
    privacy = replace(
        privacy,
        unit="document",
        sampling_rate=DOCUMENT_SAMPLING_RATE,
        declared_units=DECLARED_DOCUMENTS,
        search=by_document(privacy.search, LARGEST_DOCUMENT),
    )
    return replace(
        study,
        privacy=privacy,
        training=replace(study.training, rounds=DOCUMENT_ROUNDS),
        aggregation=replace(study.aggregation, learning_rate=DOCUMENT_LEARNING_RATE),
    )


def by_document(search: Search, largest: int) -> Search:
    """What trials on records cost a document of at most `largest` of them; an upper bound.

    A record joins a step with chance q and moves the sum by at most C. So a document's records
    move it with chance 1 - (1 - q)^largest, by at most largest C: to the accountant, one unit of
    that sampling rate at noise smaller by `largest`. For each move alone the hockey-stick
    divergence grows with its length, and it is jointly convex, so that no mixture of moves costs
    more. Far from tight: hardly ever do all records of a document join a step.
    """
    trials = tuple(
        replace(
            t,
            sampling_rate=1 - (1 - t.sampling_rate) ** largest,
            noise_multiplier=t.noise_multiplier / largest,
        )
        for t in search.trials
    )
    told = f"{search.description}; on records, accounted for documents of up to {largest}"
    return replace(search, trials=trials, description=told)


def printed_study(cell: str, seed: int, start: Start) -> str:
    """A study file, with the stand-ins for data as the private study's file has them, last in it.

    Raises:
        UsageError: a pooled cell, which no study file describes.
    """
    study = study_of(cell, seed, start)
    if parts_of(cell)[0] == POOLED:
        raise UsageError(
            f"{cell}: pooled data are in no study file", remedy="print a federated cell"
        )
    data = PRIVATE.read_text("utf-8").partition("\nsimulation:")
    name = start.encoder.name
    made_by = (
        f"# {cell}, seed {seed}, of scripts/bench utility. The encoder is trained on public data:",
        "#     scripts/bench public-start --folder runs",
        f"#     fedner encoder add runs/{name}",
        "# Another machine may train other weights than are pinned here; then print it there.",
    )
    return "".join((*(f"{line}\n" for line in made_by), study_yaml(study), *data[1:]))


# --- runs


def run_cells(
    cells: Sequence[str],
    seeds: Sequence[int],
    start: Start,
    out: Path,
    keep: Path | None = None,
) -> None:
    """Run what is not in the file yet, all seeds of a cell together.

    Args:
        keep: folder for the models, each in one named by its cell and seed; absent: none is kept.
    """
    for cell in cells:
        parts_of(cell)
    out.parent.mkdir(parents=True, exist_ok=True)
    _cut_torn_line(out)
    for cell in cells:
        for seed in seeds:
            study = study_of(cell, seed, start)
            key = study_hash(study)
            if not any((r["cell"], r["key"]) == (cell, key) for r in finished(out)):
                line, model = _run(cell, study, start)
                append_json(out, {"cell": cell, "key": key, "seed": seed, **line})
                print(f"{cell} seed {seed}: F1 {line['f1']:.4f} in {line['seconds']} s", flush=True)
                if keep is not None:
                    facts = {"cell": cell, "f1": line["f1"]}
                    save_model(
                        model, start.folder, keep / f"{cell.replace('/', '-')}-{seed}", facts
                    )


def _run(cell: str, study: Study, start: Start) -> tuple[dict[str, Any], NerModel]:
    here = replace(study, encoder=replace(study.encoder, name=str(start.folder)))
    bench = Bench.of(here, PRIVATE.parent)
    if parts_of(cell)[0] == POOLED:
        bench = of_one(bench, POOLED)
    started, model = time.monotonic(), bench.model()
    micro = _trained(bench, model).entity_report()["micro"]
    line = {
        "f1": micro.f1,
        "precision": micro.precision,
        "recall": micro.recall,
        **_protection(bench.study),
        "start": start.encoder.weights_sha256,
        "setting": setting_of(study),
        "seconds": round(time.monotonic() - started, 1),
        "commit": commit(),
    }
    return line, model


def setting_of(study: Study) -> str:
    """Hash of a cell's study without its seed: what a mean over seeds has in common."""
    return study_hash(replace(study, training=replace(study.training, seed=0)))


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


# --- results


def finished(out: Path) -> list[dict[str, Any]]:
    """Finished cells; a last line that a kill has torn is left out.

    Raises:
        DataError: another line is no JSON.
    """
    if not out.exists():
        return []
    lines = out.read_text("utf-8").split("\n")[:-1]
    return [_parsed(line, f"{out}:{number}") for number, line in enumerate(lines, 1)]


def _parsed(line: str, place: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        raise DataError(
            "not a result", place=place, remedy="remove the line: its cell runs again"
        ) from None
    return row


def _cut_torn_line(out: Path) -> None:
    """The next line would be glued to it, and both be lost."""
    if out.exists():
        os.truncate(out, out.read_bytes().rfind(b"\n") + 1)


def table(rows: Sequence[dict[str, Any]], cells: Sequence[str]) -> str:
    """A row for each cell, start, setting and commit; then the cells that were not run.

    Lines without a setting, of older commits, are each a row of their own.
    """
    groups: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        setting = row.get("setting", row["key"])
        figures = (row.get(k) for k in ("epsilon", "epsilon_with_search", "noise_multiplier"))
        group = (row["cell"], *figures, row.get("start", ""), setting, row["commit"])
        groups.setdefault(group, {})[row["seed"]] = row["f1"]
    done = {cell for cell, *_ in groups}
    return "\n".join(
        (
            "\n| cell | eps | with search | sigma | start | setting | commit | F1 by seed | mean |",
            "|---|---:|---:|---:|---|---|---|---|---:|",
            *(_row(*item) for item in sorted(groups.items(), key=lambda item: str(item[0]))),
            *(f"| {cell} | | | | | | | not run | |" for cell in cells if cell not in done),
        )
    )


def _row(group: tuple[Any, ...], scores: dict[int, float]) -> str:
    cell, *figures, start, setting, at = group
    shown = " | ".join("" if f is None else f"{f:.4g}" for f in figures)
    by_seed = ", ".join(f"{seed}: {f1:.4f}" for seed, f1 in sorted(scores.items()))
    mean = statistics.mean(scores.values())
    return f"| {cell} | {shown} | {start[:8]} | {setting[:8]} | {at} | {by_seed} | {mean:.4f} |"
