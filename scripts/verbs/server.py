"""`fedner server`: the coordinator."""

import datetime
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from common.config.canonical import study_yaml
from common.config.study import Study
from common.errors import UsageError
from common.io.addresses import parse_loopback
from common.io.configs import load_study
from common.io.encoders import resolve_encoder
from common.io.models import save_model
from common.model.ner import NerModel
from scripts.console import (
    err,
    out,
    quiet_libraries,
    report_table,
    scores_from_json,
    show_notices,
    show_path,
)
from scripts.kit_texts import DEMO
from scripts.live.run_view import RunView
from scripts.live.show import say, shown
from scripts.verbs.partial import partial_model_told, same_model, save_partial
from scripts.verbs.simulate import new_run_path
from server.federation import Federation
from server.origin import MODEL, SERVER_LIMIT_S, SERVER_LOCK, Origin, alone, is_finished
from server.run_dir import LOG, METRICS, RunDir, written
from server.standing import Whereabouts, standing_of
from server.supervisor import serve_study

ADDRESS: Final = "127.0.0.1:9192"

At = str | Federation
"""Where to serve: an address on this machine, or a federation."""


def command(
    path: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Study file (YAML).")
    ] = None,
    federation: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `fedner provision` made: serve its enrolled institutions over TLS."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Without --federation: where institutions connect, on this machine, without "
            f"TLS. By default {ADDRESS}, or, with --resume, as before."
        ),
    ] = None,
    run_path: Annotated[
        Path | None, typer.Option("--out", help="Run folder to make; by default under runs/.")
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(help="Folder of the coordinator's identity; by default --federation's."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="With the identity's passphrase, of mode 0600.")
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option(
            help="The roster that the institutions have pinned; by default --federation's."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with the run of this folder; without STUDY."),
    ] = None,
    partial: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Save the model after the last finished round of a run that ended early, marked "
            "as unfinished; serves nobody.",
        ),
    ] = None,
) -> None:
    """Coordinate a study: waits for the institutions, runs the rounds, saves the shared model.

    With --federation, over TLS and to enrolled institutions only: docs/provisioning.md. Without,
    to this machine only.

    A study with secure aggregation needs --identity and --roster: docs/identity.md.

    After a crash, --resume goes on with the run where it stopped; --partial saves the model of one
    that can't be gone on with: docs/recovery.md.

    Example: fedner server federation/study.yaml --federation federation
    """
    quiet_libraries()
    if partial is not None:
        if (
            path
            or resume
            or any((federation, address, run_path, identity, passphrase_file, roster))
        ):
            raise UsageError("--partial takes all from the run", remedy="give --partial RUN alone")
        ended = RunDir.open(partial)
        with alone(ended, SERVER_LOCK):
            save_partial(ended)
        return
    if resume is None:
        if path is None:
            raise UsageError("expected STUDY, or --resume RUN", remedy="fedner server --help")
        if federation and address:
            raise UsageError("--federation says where to serve, too: leave --address out")
        study = load_study(path)
        at = _open(federation, study) if federation else address or ADDRESS
        where = _whereabouts(study, at, identity, passphrase_file, roster)
        run_path = run_path or new_run_path(study)
        _carry_out(study, lambda: _begin(study, where, run_path, at))
        return
    if path or federation or run_path or identity or passphrase_file or roster:
        raise UsageError(
            "--resume goes on with the study, federation, identity and roster of the run's "
            "beginning",
            remedy="give --resume RUN alone, or with --address",
        )
    run = RunDir.open(resume)
    with alone(run, SERVER_LOCK, SERVER_LIMIT_S):
        is_finished(run)
    _carry_out(run.study(), lambda: _go_on(run, address))


def _begin(study: Study, where: Whereabouts | None, path: Path, at: At) -> tuple[RunDir, At]:
    """A new run folder, and where to serve."""
    if isinstance(at, str):
        parse_loopback(at, "--address")
        address, root = at, ""
    else:
        address, root = at.deployment.server.public, str(at.root)
    origin = Origin.of(study, None if where is None else where.open(study), address, root)
    with written(path, "free some space or mend the disk, remove the folder, and begin again"):
        run = RunDir.create(path, study_yaml(study))
        if where is not None:
            where.save(run)
        origin.save(run)
    return run, at


def _go_on(run: RunDir, address: str | None) -> tuple[RunDir, At]:
    """The run folder, if all is as it was when it was begun, and where to serve."""
    origin, study = Origin.read(run), run.study()
    origin.require_same(Origin.of(study, standing_of(run), origin.address), run)
    if not origin.federation:
        return run, address or origin.address
    if address:
        raise UsageError(
            "the run began with --federation, which says where to serve",
            place=origin.federation,
            remedy="leave --address out",
        )
    return run, _open(Path(origin.federation), study)


def _open(root: Path, study: Study) -> Federation:
    """A federation's folder, with its notices on the terminal."""
    found = Federation.open(root, study, datetime.datetime.now(datetime.UTC))
    for notice in (*((DEMO,) if found.demo else ()), *found.notices):
        err.print(notice, style="bold red", soft_wrap=True)
    return found


def _carry_out(study: Study, begun: Callable[[], tuple[RunDir, At]]) -> None:
    """From the notices to the saved model."""
    show_notices(study)
    encoder_dir, encoder = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    model = NerModel(encoder_dir, study, "cpu")
    run, at = begun()
    show_path("run", run.path)
    with alone(run, SERVER_LOCK, SERVER_LIMIT_S):
        if not is_finished(run):
            with partial_model_told(run):
                _serve(study, run, at, same_model(model, encoder.fingerprint))
        model.set_delta(run.load_delta()[0])
        _save(study, model, encoder_dir, run)
    _show(study, run)


def _save(study: Study, model: NerModel, encoder_dir: Path, run: RunDir) -> None:
    """The whole model folder, or none."""
    unfinished = run.path / f".{MODEL}"
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(model, encoder_dir, unfinished, {"rounds": study.training.rounds})
    unfinished.rename(run.path / MODEL)


def _show(study: Study, run: RunDir) -> None:
    evaluations = run.events("evaluation")
    if evaluations:
        last = evaluations[-1]
        out.print(report_table("\nShared model, entities (exact match)",
                               scores_from_json(last["entities"])))  # fmt: skip
        out.print(report_table("\nShared model, words", scores_from_json(last["tokens"])))
    for missing in run.events("evaluation_missing"):
        out.print(f"round {missing['round']}: no evaluation: {missing['reason']}")
    show_notices(study)
    show_path("model", run.path / MODEL)
    show_path("metrics", run.path / METRICS)
    show_path("log", run.path / LOG)


def _whereabouts(
    study: Study,
    at: At,
    identity: Path | None,
    passphrase_file: Path | None,
    roster: Path | None,
) -> Whereabouts | None:
    """Where key and roster lie, if the study needs them; they are opened once to see that they fit.

    Raises:
        UsageError: they are missing, or the study has no use for them.
        IdentityError: they do not fit.
    """
    if study.secure is None:
        if identity or passphrase_file or roster:
            raise UsageError(
                "--identity, --passphrase-file and --roster go with secure aggregation, the study "
                "has none",
                remedy="leave them out; in unit and compose file: docs/deployment.md, 4",
            )
        return None
    if not isinstance(at, str):
        identity, roster = identity or at.coordinator, roster or _roster_of(at)
    if identity is None or roster is None:
        raise UsageError(
            "a study with secure aggregation needs --identity FOLDER and --roster FILE",
            remedy="docs/identity.md; or, to try it on this machine, `fedner data deal`",
        )
    where = Whereabouts.of(identity, roster, passphrase_file)
    where.open(study)
    return where


def _roster_of(federation: Federation) -> Path:
    if not federation.roster.is_file():
        raise UsageError(
            "is not there: it is written once every institution of the study is enrolled, and "
            "withdrawn when one leaves",
            place=str(federation.roster),
            remedy="`fedner enrol list` shows who is missing",
        )
    return federation.roster


def _serve(
    study: Study, run: RunDir, at: At, check_start: Callable[[Mapping[str, Any]], None]
) -> None:
    _say_where(at)
    view = RunView(run)
    with shown(view, err) as drawn:

        def on_event(event: Mapping[str, Any]) -> None:
            if event["event"] in ("start", "resume"):
                check_start(event)
            line = "" if drawn else view.line(event)
            if line:
                say(err, line)

        serve_study(run, at, on_event)


def _say_where(at: At) -> None:
    if isinstance(at, str):
        err.print(f"NO TLS: serving this machine only, at {at}. --federation serves others.",
                  highlight=False, soft_wrap=True)  # fmt: skip
        return
    err.print(
        f"serving enrolled institutions over TLS at {at.deployment.server.public}",
        highlight=False,
        soft_wrap=True,
    )
