"""`fedner report`: a run as a page that can be read without fedner, and without a network."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.errors import UsageError
from common.io.atomic import write_bytes
from common.io.configs import load_site, load_study
from scripts.console import show_path
from scripts.reporting.head import head_of
from scripts.reporting.page import Page
from scripts.reporting.render import to_html, to_markdown
from scripts.reporting.run_report import build
from scripts.reporting.site_report import build_site
from server.run_dir import RunDir

HTML = "report.html"
MARKDOWN = "report.md"


def command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SITE", help="A run's folder (coordinator), or a site file (institution)."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write to; by default the run's, or that of the site's figures."
        ),
    ] = None,
    alone: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="With a site: the run of `fedner train SITE`, to compare with."
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", help="With a site: what `fedner evaluate --groups --json` printed."
        ),
    ] = None,
) -> None:
    """Write what the metrics say: report.html, one file without scripts, and report.md.

    Of a run, what the coordinator knows: sums. Of a site, its own figures, which stay there.
    While a study goes on, what there is so far. Each figure names the line it was read from.

    Example: fedner report runs/RUN
    """
    page, head, usual = _page(path, alone, groups)
    folder = folder or usual
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((HTML, to_html(page)), (MARKDOWN, head + to_markdown(page))):
        write_bytes(folder / name, text.encode())
        show_path("report", folder / name)


def _page(path: Path, alone: Path | None, groups: Path | None) -> tuple[Page, str, Path]:
    """The report, the head of its Markdown for model hubs, and where it is written."""
    if path.is_dir():
        if alone or groups:
            raise UsageError(
                "--alone and --groups go with a site file: a run has no institution's own data"
            )
        run = RunDir.open(path)
        return build(run), head_of(run), path
    site = load_site(path)
    study = load_study(path.parent / site.study)
    compared = None if alone is None else RunDir.open(alone)
    by_group = None if groups is None else _groups(groups)
    page = build_site(site, study, path.parent, compared, by_group)
    folder = SitePaths.of(site, path.parent).metrics(study_hash(study)).parent
    return page, "", folder  # it is for no hub


def _groups(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["groups"]["attributes"] and content["entities"] and content["weights_sha256"]:
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(
        "not what `fedner evaluate --groups --json` prints",
        place=str(path),
        remedy="fedner evaluate MODEL SITE --groups TABLE --json > FILE",
    )
