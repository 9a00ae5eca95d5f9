"""`fedner simulate`: a whole study on one machine."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from common.config.canonical import study_hash, study_yaml
from common.config.study import Study
from common.errors import UsageError
from common.io.configs import load_study
from common.io.models import save_model
from common.metrics.entities import Scores, as_json
from common.model.ner import NerModel, set_threads
from scripts.baselines import POOLED, train_alone
from scripts.console import (
    comparison_table,
    err,
    out,
    progress_bars,
    quiet_libraries,
    report_table,
    scores_from_json,
    show_notices,
    show_path,
)
from scripts.live.run_view import RunView
from scripts.live.show import say, shown
from scripts.ray_engine import simulate_on_ray
from scripts.simulated_scores import record_by_institution, record_data, scores_at_home
from scripts.simulation import EPHEMERAL, Bench, simulate
from server.run_dir import LOG, METRICS, RunDir

FEDERATED = "federation"

Report = Mapping[str, Scores]


def command(
    study_path: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).")],
    run_path: Annotated[
        Path | None, typer.Option("--out", help="Run folder to make; by default under runs/.")
    ] = None,
    engine: Annotated[str, typer.Option(help="`local` (in this process) or `ray`.")] = "local",
    seed: Annotated[int | None, typer.Option(help="Replaces the study's training.seed.")] = None,
    alone: Annotated[
        bool, typer.Option(help="Also train each institution on its own data only.")
    ] = True,
    pooled: Annotated[bool, typer.Option(help="Also train on all data in one place.")] = False,
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if absent.")] = None,
) -> None:
    """Run a study's federation on this machine, on its `simulation` section's data.

    Example: fedner simulate configs/quickstart.yaml
    """
    if engine not in {"local", "ray"}:
        raise UsageError(f"--engine {engine}: expected local or ray")
    if engine == "ray" and threads is not None:
        raise UsageError("--threads goes with the local engine; a Ray actor has one CPU")
    quiet_libraries()
    set_threads(threads)
    study = with_seed(load_study(study_path), seed)
    if engine == "ray" and study.secure is not None:
        raise UsageError(
            "--engine ray with secure aggregation: each institution's session keys live in one "
            "process, and Ray moves institutions between several",
            remedy="leave out --engine ray",
        )
    if engine == "ray" and study.local_privacy is not None:
        raise UsageError(
            "--engine ray with a privacy mechanism: each ledger belongs to one process, and Ray "
            "moves institutions between several",
            remedy="leave out --engine ray",
        )
    show_notices(study)
    if study.secure is not None:
        err.print(EPHEMERAL, style="bold yellow", highlight=False)
    bench = Bench.of(study, study_path.parent)
    run = RunDir.create(run_path or new_run_path(study), study_yaml(study))
    run.log_here()
    record_data(bench, run)
    model = bench.model(device)
    _say_what(bench, model)
    if engine == "ray":
        simulate_on_ray(study, study_path.parent.absolute(), run, device)
        model.set_delta(run.load_delta()[0])
    else:
        _simulate(bench, run, model)
    save_model(model, bench.encoder_dir, run.path / "model", {"rounds": study.training.rounds})
    rows = {FEDERATED: _shared(bench, run, model)}
    record_by_institution(bench, run, model)
    others = [*(bench.sides if alone else ()), *([POOLED] if pooled else [])]
    rows |= _baselines(bench, run, model, others)
    _show_results(study, run, rows)


def with_seed(study: Study, seed: int | None) -> Study:
    """The study with another training seed; another study, with another hash."""
    if seed is None:
        return study
    return replace(study, training=replace(study.training, seed=seed))


def new_run_path(study: Study) -> Path:
    """`runs/STUDY-TIME-HASH`, under the current folder."""
    time = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{study.study}-{time}-{study_hash(study)[:8]}"


def _say_what(bench: Bench, model: NerModel) -> None:
    study = bench.study
    out.print(
        f"study [bold]{study.study}[/] {study_hash(study)[:16]}…: "
        f"{len(bench.sides)} simulated institutions, {study.training.rounds} rounds, "
        f"{model.layout.size:,} trained weights, on {model.device}"
    )
    for name, sides in bench.sides.items():
        out.print(f"  {name}: {len(sides.train)} documents to train on, {len(sides.test)} held out")


def _shared(bench: Bench, run: RunDir, model: NerModel) -> Report:
    """The shared model's scores: those of the federation, or, if it only saw noised counts, exact
    ones, which no real coordinator has.
    """
    last = run.events("evaluation")[-1]
    if not last["noised"]:
        return scores_from_json(last["entities"])
    evaluation = model.evaluate(model.prepare(bench.all_test))
    run.record("exact_evaluation", bench.study, f1=evaluation.f1)
    return evaluation.entity_report()


def _simulate(bench: Bench, run: RunDir, model: NerModel) -> None:
    view = RunView(run)
    with shown(view, err) as drawn:

        def on_event(event: str, figures: Mapping[str, Any]) -> None:
            line = "" if drawn else view.line({"event": event, **figures})
            if line:
                say(err, line)

        simulate(bench, run, model, on_event, view.step)


def _baselines(bench: Bench, run: RunDir, model: NerModel, names: list[str]) -> dict[str, Report]:
    rows: dict[str, Report] = {}
    with progress_bars() as bars:
        for name in names:
            what = "all data pooled" if name == POOLED else f"{name} alone"
            task = bars.add_task(what, total=None)
            evaluation = train_alone(
                bench, model, name, lambda d, n, task=task: bars.update(task, completed=d, total=n)
            )
            bars.remove_task(task)
            rows[what] = evaluation.entity_report()
            run.record(
                "baseline",
                bench.study,
                trained_by=name,
                f1=evaluation.f1,
                entities=as_json(evaluation.entity_report()),
                tokens=as_json(evaluation.token_report()),
                **scores_at_home(bench, model, name),
            )
    return rows


def _show_results(study: Study, run: RunDir, rows: Mapping[str, Report]) -> None:
    last = run.events("evaluation")[-1]
    out.print(report_table("\nShared model, entities (exact match)", rows[FEDERATED]))
    noised = " (noised counts)" if last["noised"] else ""
    out.print(report_table(f"\nShared model, words{noised}", scores_from_json(last["tokens"])))
    if len(rows) > 1:
        title = "\nTested on all institutions' held-out documents"
        out.print(comparison_table(title, rows, study.task.labels))
    show_notices(study)
    show_path("model", run.path / "model")
    show_path("metrics", run.path / METRICS)
    show_path("log", run.path / LOG)
    out.print(
        f'next     fedner predict {run.path / "model"} --text "Denies chest pain; on metoprolol."',
        soft_wrap=True,
    )
