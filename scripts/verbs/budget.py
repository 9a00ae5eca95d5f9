"""`fedner budget`: what an institution has spent of its privacy budget, by its ledger."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.config.site import Site
from common.errors import BudgetError, UsageError
from common.io.atomic import write_json
from common.io.configs import load_site, load_study
from common.io.ledger_folder import read_state
from common.io.ledger_recovery import recover as recover_ledger
from common.privacy.events import UNITS, Unit
from common.privacy.ledger import caps_of
from common.privacy.ledger_codec import head_from_text
from common.privacy.ledger_entries import MAX_TEXT
from common.privacy.ledger_examine import check_counterpart, verify_file
from common.privacy.ledger_export import check_export, export_of
from common.privacy.ledger_recovery import Given
from common.privacy.ledger_report import Account, summary
from common.privacy.ledger_state import LedgerState
from scripts.budget_view import show_figures, show_recovered, show_verified
from scripts.console import err, show_path

app = typer.Typer(help="The privacy ledger of an institution.", no_args_is_help=True)

SitePath = Annotated[Path, typer.Argument(metavar="SITE", help="This institution's site file.")]
HeadText = Annotated[
    list[str] | None,
    typer.Option("--head", help="LEDGER:SEQ:HASH that the coordinator has countersigned."),
]


@app.callback()
def _group() -> None:
    """The privacy ledger of an institution."""


@app.command("show")
def show(
    path: SitePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")] = False,
) -> None:
    """What is spent and what is left, per unit and per study; needs no network.

    Example: fedner budget show federation/cardiac-centre/site.yaml
    """
    site = load_site(path)
    found, _ = read_state(SitePaths.of(site, path.parent).ledger, site.institution)
    if found.state is None:
        typer.echo("null" if as_json else f"{site.institution}: no ledger yet, nothing is spent")
        return
    if found.torn:
        err.print("the last entry is unfinished; it was never acknowledged", highlight=False)
    figures = _summary(site, found.state)
    if as_json:
        typer.echo(json.dumps(figures, allow_nan=False))
        return
    show_figures(figures)


@app.command("verify")
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="LEDGER", help="A `ledger.jsonl`, or what `export` wrote.")
    ],
    key: Annotated[str, typer.Option(help="The institution's public key: hexadecimal, or a file.")],
    heads: HeadText = None,
    coordinator_key: Annotated[
        str | None,
        typer.Option(help="Public key of the coordinator's receipts, which must be on the newest."),
    ] = None,
) -> None:
    """Check every entry's chain and signature; needs only this file and the public key.

    Of an export the figures are computed again. A head must be in it.

    Example: fedner budget verify ledger.jsonl --key 1f…
    """
    data, public_key = _read(path), _public_key(key, "--key")
    counterpart = _public_key(coordinator_key, "--coordinator-key") if coordinator_key else None
    known = [head_from_text(text) for text in heads or ()]
    try:
        state = verify_file(data, public_key)
        for head in known:
            verify_file(data, public_key, head)
        check_counterpart(state, counterpart)
        caps = check_export(data, state, _accountants)
    except BudgetError as error:
        place = f"{path}, {error.place}"
        raise BudgetError(error.message, place=place, remedy=error.remedy) from None
    show_verified(path, state, caps)


@app.command("export")
def export(
    path: SitePath,
    to: Annotated[Path, typer.Option("--out", help="A new file to write.")],
) -> None:
    """Write the whole ledger, its public key and the figures into one JSON file.

    Example: fedner budget export site.yaml --out budget.json
    """
    site = load_site(path)
    folder = SitePaths.of(site, path.parent).ledger
    _check_new(to, folder)
    found, lines = read_state(folder, site.institution)
    if found.state is None:
        raise BudgetError(
            "there is no ledger yet",
            place=str(folder),
            remedy="the first study with privacy that the worker takes part in begins one; if one "
            'was here, see docs/ledger.md, "Recovery"',
        )
    caps = caps_of(site.policy.budget)
    write_json(to, export_of(found.state, lines, caps, _accountants()))
    show_path("export", to)


@app.command("recover")
def recover(
    path: SitePath,
    reason: Annotated[str, typer.Option(help="What happened; it stays in the ledger.")],
    assume: Annotated[
        list[str] | None,
        typer.Option(help="UNIT=EPSILON or UNIT=EPSILON@DELTA that counts as spent."),
    ] = None,
    heads: HeadText = None,
    studies: Annotated[
        list[str] | None,
        typer.Option("--study", help="Hash of a further study that may have been charged."),
    ] = None,
    old_copy: Annotated[
        bool,
        typer.Option(
            "--old-copy",
            help="The ledger is intact, but an older copy, or a clock ran ahead: begin a new one "
            "on top of it.",
        ),
    ] = False,
) -> None:
    """Begin a new ledger for a lost or damaged one; never lowers what counts as spent.

    The old files are kept. Lifetime caps count as spent in full: docs/ledger.md has the procedure.

    Example: fedner budget recover site.yaml --reason "disk of 3 May failed"
    """
    site = load_site(path)
    present = study_hash(load_study(path.parent / site.study))
    state = recover_ledger(
        SitePaths.of(site, path.parent).ledger,
        site.institution,
        reason=_reason(reason),
        caps=caps_of(site.policy.budget),
        assume=_assumptions(assume or ()),
        heads=[head_from_text(text) for text in heads or ()],
        studies=[*map(_study_hash, studies or ()), present],
        old_copy=old_copy,
    )
    show_recovered(state)


def _accountants() -> Account:
    from common.privacy.accountant import epsilon  # takes seconds to load

    return epsilon


def _summary(site: Site, state: LedgerState) -> dict[str, Any]:
    return summary(state, caps_of(site.policy.budget), _accountants())


def _check_new(to: Path, ledger: Path) -> None:
    """An export replaces nothing, and nothing of a ledger."""
    if to.resolve().is_relative_to(ledger.resolve()):
        raise UsageError(
            "lies in the ledger's own folder",
            place=f"--out {to}",
            remedy="name a file elsewhere",
        )
    if to.exists() or to.is_symlink():
        raise UsageError(
            "is there already", place=f"--out {to}", remedy="name a file that is not there yet"
        )
    if not to.parent.is_dir():
        raise UsageError(
            f"there is no folder {to.parent}", place=f"--out {to}", remedy="make it first"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"can't be read: {error.strerror}",
            place=str(path),
            remedy="name a file that is there and that this user may read",
        ) from None


def _public_key(text: str, option: str) -> str:
    if _is_file(text):
        text = _read(Path(text)).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise UsageError(
            "expected a public key of 64 hexadecimal digits, or a file that holds one",
            place=f"{option} {text[:80]}",
            remedy="`fedner budget show` prints the institution's; a coordinator's stands in the "
            "`start` line of its metrics.jsonl, as `coordinator_key`; get each from its owner",
        )
    return text


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # far too long for a path
        return False


def _reason(text: str) -> str:
    if not 1 <= len(text.strip()) <= len(text) <= MAX_TEXT or not text.isprintable():
        raise UsageError(
            f"has {len(text)} characters, expected 1 to {MAX_TEXT} that can be printed",
            place="--reason",
            remedy='say in a sentence what happened: --reason "disk of 3 May failed"',
        )
    return text


def _study_hash(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise UsageError(
            "expected a study's hash of 64 hexadecimal digits",
            place=f"--study {text[:80]}",
            remedy="`fedner config check study.yaml` prints it",
        )
    return text


def _assumptions(texts: Sequence[str]) -> dict[Unit, Given]:
    given: dict[Unit, Given] = {}
    for text in texts:
        unit, figures = _given(text)
        if unit in given:
            raise UsageError(
                f"there is a figure for {unit} already",
                place=f"--assume {text}",
                remedy="give one for each unit, the larger one",
            )
        given[unit] = figures
    return given


def _given(text: str) -> tuple[Unit, Given]:
    unit, _, figures = text.partition("=")
    epsilon, at, delta = figures.partition("@")
    try:
        given = Given(epsilon=float(epsilon), delta=float(delta) if at else None)
    except ValueError:
        given = None
    known = next((u for u in UNITS if u == unit), None)
    if known is None or given is None or not _is_sane(given):
        raise UsageError(
            "expected UNIT=EPSILON or UNIT=EPSILON@DELTA",
            place=f"--assume {text}",
            remedy=f"UNIT is one of {', '.join(UNITS)}; for example record=8@1e-5",
        )
    return known, given


def _is_sane(given: Given) -> bool:
    return 0 <= given.epsilon < float("inf") and (given.delta is None or 0 < given.delta < 1)
