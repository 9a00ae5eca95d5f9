"""The model of a run that ended before its last round: `fedner server --partial RUN`."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from common.errors import EncoderError, FederationError, UsageError
from common.io.encoders import resolve_encoder
from common.io.models import save_model
from common.model.ner import NerModel
from scripts.console import err, show_notices, show_path
from server.origin import MODEL
from server.run_dir import CHECKPOINT, RunDir


def save_partial(run: RunDir) -> None:
    """Save the released model after the last finished round beside where the whole run's would be.

    It says of itself, in its card and its manifest, after which round of how many it is. The run is
    left as it is, and can still be gone on with. What it may show of anyone is no more than the
    plan's epsilon covers: it was released after that round.

    Raises:
        UsageError: the run is finished, or this model was saved already.
        FederationError: no round was finished, or the checkpoint is damaged.
        EncoderError: the institutions' model is not the one that this machine makes.
    """
    if run.status()["state"] == "finished":
        raise UsageError(
            "the run is finished",
            place=str(run.path),
            remedy=f"its model is {run.path / MODEL}; if it is not there, `fedner server --resume`",
        )
    delta, round_ = run.load_delta()
    study, folder = run.study(), run.path / f"{MODEL}-round-{round_}"
    if folder.exists():
        raise UsageError("is there already", place=str(folder), remedy="take it, or move it away")
    encoder_dir, encoder = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    model = NerModel(encoder_dir, study, "cpu")
    for start in run.events("start")[:1]:
        same_model(model, encoder.fingerprint)(start)
    model.set_delta(delta)
    planned = study.training.rounds
    notice = (
        f"UNFINISHED. The model after round {round_} of {planned}. The study did not come to its "
        "end: its learning-rate schedule, its scores and its privacy figures are those of a plan "
        "that was not carried through."
    )
    facts = {"finished": False, "rounds": round_, "planned_rounds": planned}
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(model, encoder_dir, unfinished, facts, (notice,))
    unfinished.rename(folder)
    err.print(notice, style="bold red", soft_wrap=True)
    show_notices(study)
    show_path("model", folder)


@contextmanager
def partial_model_told(run: RunDir) -> Iterator[None]:
    """Where a run ends with an error after some rounds, say how to get at their model."""
    try:
        yield
    except FederationError:
        if (run.path / CHECKPOINT).exists():
            err.print(
                f"what was reached is kept: `fedner server --resume {run.path}` goes on, "
                f"`fedner server --partial {run.path}` saves the model of the last finished round",
                highlight=False,
                soft_wrap=True,
            )
        raise


def same_model(model: NerModel, encoder: str) -> Callable[[Mapping[str, Any]], None]:
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
