"""`fedner train`: the baselines, pooled or local."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from common.config.canonical import study_yaml
from common.config.site import Site
from common.config.study import Study
from common.errors import UsageError
from common.io.configs import load_any, load_study
from common.io.datasets import Sides
from common.io.encoders import resolve_encoder
from common.io.models import save_model
from common.io.withdrawn_file import own_sides
from common.metrics.entities import as_json
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel, set_threads
from scripts.baselines import POOLED, fit
from scripts.console import (
    out,
    progress_bars,
    quiet_libraries,
    report_table,
    show_notices,
    show_path,
)
from scripts.simulation import Bench
from scripts.verbs.simulate import new_run_path, with_seed
from server.run_dir import RunDir


def command(
    path: Annotated[Path, typer.Argument(metavar="STUDY|SITE", help="Study or site file.")],
    on: Annotated[
        str | None,
        typer.Option(help="With a study: `pooled` (the default), or an institution's name."),
    ] = None,
    run_path: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    seed: Annotated[int | None, typer.Option(help="Replaces the study's training.seed.")] = None,
    without_mechanism: Annotated[
        bool,
        typer.Option(
            help="Leave a study's privacy mechanism out: for a model that stays where its data are."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if absent.")] = None,
) -> None:
    """Train without federation: on a simulation's data in one place, or on a site's own.

    Example: fedner train configs/quickstart.yaml --on pooled
    """
    quiet_libraries()
    set_threads(threads)
    config = load_any(path)
    base = path.parent
    study = config if isinstance(config, Study) else load_study(base / config.study)
    study = with_seed(study, seed)
    if study.local_privacy is not None:
        study = _unprotected(study, path, without_mechanism)
    show_notices(study)
    name, sides = _sides(config, study, base, on)
    folder, _ = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    run = RunDir.create(run_path or new_run_path(study), study_yaml(study))
    model = NerModel(folder, study, device)
    evaluation = _train(model, sides, name)
    save_model(model, folder, run.path / "model", {"trained_by": name})
    run.record(
        "baseline",
        study,
        trained_by=name,
        tested_on=name if isinstance(config, Site) else "all institutions",
        f1=evaluation.f1,
        entities=as_json(evaluation.entity_report()),
        tokens=as_json(evaluation.token_report()),
    )
    out.print(report_table(f"{name}: entities (exact match)", evaluation.entity_report()))
    out.print(report_table(f"{name}: words", evaluation.token_report()))
    show_path("model", run.path / "model")


def _unprotected(study: Study, path: Path, said: bool) -> Study:
    """The study with `privacy: none`, which is what a model of it then says of itself.

    Raises:
        UsageError: nobody asked for that.
    """
    if not said:
        raise UsageError(
            "`fedner train` has no privacy mechanism, and the study asks for one",
            place=str(path),
            remedy="`fedner simulate STUDY --pooled` trains under it. --without-mechanism trains "
            "without: for a comparison, whose model then says PRIVACY: NONE and stays here",
        )
    return replace(study, privacy="none")


def _sides(config: Study | Site, study: Study, base: Path, on: str | None) -> tuple[str, Sides]:
    if isinstance(config, Site):
        if on is not None:
            raise UsageError("--on goes with a study; a site trains on its own documents")
        return config.institution, own_sides(config, study.task.labels, base)
    bench = Bench.of(study, base)
    if on is None or on == POOLED:
        return POOLED, Sides(bench.all_train, bench.all_test)
    if on not in bench.sides:
        raise UsageError(f"--on {on}: expected {POOLED} or one of {', '.join(bench.sides)}")
    return on, Sides(bench.sides[on].train, bench.all_test)


def _train(model: NerModel, sides: Sides, name: str) -> Evaluation:
    with progress_bars() as bars:
        task = bars.add_task(name, total=None)
        fit(model, sides.train, name, lambda d, n: bars.update(task, completed=d, total=n))
        return model.evaluate(model.prepare(sides.test))
