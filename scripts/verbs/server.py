"""`fedner server`: the coordinator."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from common.config.canonical import study_yaml
from common.config.study import Study
from common.errors import EncoderError, UsageError
from common.io.configs import load_study
from common.io.encoders import resolve_encoder
from common.io.models import save_model
from common.model.ner import NerModel
from scripts.console import (
    out,
    progress_bars,
    quiet_libraries,
    report_table,
    scores_from_json,
    show_notices,
    show_path,
)
from scripts.verbs.simulate import new_run_path
from server.run_dir import LOG, METRICS, RunDir
from server.standing import Whereabouts
from server.supervisor import serve_study


def command(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).")],
    address: Annotated[
        str, typer.Option(help="Where institutions connect; on this machine.")
    ] = "127.0.0.1:9192",
    run_path: Annotated[
        Path | None, typer.Option("--out", help="Run folder to make; by default under runs/.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="Folder of the coordinator's identity.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="With the identity's passphrase, of mode 0600.")
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="The roster that the institutions have pinned.")
    ] = None,
) -> None:
    """Coordinate a study: waits for the institutions, runs the rounds, saves the shared model.

    A study with secure aggregation needs --identity and --roster: docs/identity.md.

    Example: fedner server federation/study.yaml --identity federation/coordinator
    --roster federation/roster.yaml
    """
    quiet_libraries()
    study = load_study(path)
    where = _whereabouts(study, identity, passphrase_file, roster)
    show_notices(study)
    encoder_dir, encoder = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    model = NerModel(encoder_dir, study, "cpu")
    run = RunDir.create(run_path or new_run_path(study), study_yaml(study))
    if where is not None:
        where.save(run)
    show_path("run", run.path)
    _serve(study, run, address, _check_start(model, encoder.fingerprint))
    model.set_delta(run.load_delta()[0])
    save_model(model, encoder_dir, run.path / "model", {"rounds": study.training.rounds})
    last = run.events("evaluation")[-1]
    out.print(report_table("\nShared model, entities (exact match)",
                           scores_from_json(last["entities"])))  # fmt: skip
    out.print(report_table("\nShared model, words", scores_from_json(last["tokens"])))
    show_notices(study)
    show_path("model", run.path / "model")
    show_path("metrics", run.path / METRICS)
    show_path("log", run.path / LOG)


def _whereabouts(
    study: Study, identity: Path | None, passphrase_file: Path | None, roster: Path | None
) -> Whereabouts | None:
    """Where key and roster lie, if the study needs them; they are opened once to see that they fit.

    Raises:
        UsageError: they are missing, or the study has no use for them.
        IdentityError: they do not fit.
    """
    if study.secure is None:
        if identity or passphrase_file or roster:
            raise UsageError(
                "--identity and --roster go with secure aggregation, the study has none"
            )
        return None
    if identity is None or roster is None:
        raise UsageError(
            "a study with secure aggregation needs --identity FOLDER and --roster FILE",
            remedy="docs/identity.md; or, to try it on this machine, `fedner data deal`",
        )
    where = Whereabouts.of(identity, roster, passphrase_file)
    where.open(study)
    return where


def _check_start(model: NerModel, encoder: str) -> Callable[[Mapping[str, Any]], None]:
    """Refuses institutions whose model is not the one this machine will save."""
    own = {"encoder": encoder, "layout": model.layout.digest(), "initial": model.initial_digest}

    def check(start: Mapping[str, Any]) -> None:
        unlike = [key for key, value in own.items() if start[key] != value]
        if unlike:
            raise EncoderError(
                f"the institutions' model differs from this machine's in: {', '.join(unlike)}",
                remedy="import here the encoder that they have; compare `fedner encoder verify`",
            )

    return check


def _serve(
    study: Study, run: RunDir, address: str, check_start: Callable[[Mapping[str, Any]], None]
) -> None:
    with progress_bars() as bars:
        task = bars.add_task("waiting for institutions", total=study.training.rounds)

        def on_event(event: Mapping[str, Any]) -> None:
            if event["event"] == "institution":
                bars.console.print(f"{event['name']}: {event['state']}")
            if event["event"] == "start":
                check_start(event)
                bars.update(task, description="rounds")
                bars.console.print("all institutions are here")
            if event["event"] == "round":
                bars.update(task, completed=event["round"])
                bars.console.print(
                    f"round {event['round']}: {len(event['institutions'])} updates, "
                    f"{event['seconds']:.1f} s"
                )
            if event["event"] == "evaluation":
                bars.console.print(f"round {event['round']}: shared model's F1 {event['f1']:.4f}")

        serve_study(run, address, on_event)
