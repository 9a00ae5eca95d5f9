"""`fedner config`: check a study or a site file."""

from pathlib import Path
from typing import Annotated

import typer

from client.supervisor import check_runnable
from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import PolicyError
from common.io.configs import load_any, load_study
from common.policy import decide
from scripts.console import out, show_notices

app = typer.Typer(help="Study and site files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Study and site files."""


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A study or a site file.")],
) -> None:
    """Check a file against the schema; a site also against its study, by its own policy.

    Example: fedner config check configs/quickstart.yaml
    """
    config = load_any(path)
    if isinstance(config, Study):
        out.print(f"{path}: study {config.study}, sha256 {study_hash(config)}", highlight=False)
        show_notices(config)
        return
    study = load_study(path.parent / config.study)
    decision = decide(study, config.policy, config.institution)
    if not decision.allowed:
        raise PolicyError(
            "; ".join(decision.reasons),
            place=str(path),
            remedy="take part in another study, or change the site's policy on purpose",
        )
    check_runnable(config, path)
    out.print(
        f"{path}: site {config.institution}, takes part in {study.study}, "
        f"sha256 {study_hash(study)}",
        highlight=False,
    )
    show_notices(study)
