"""`fedner budget`: what an institution has spent of its privacy budget, by its ledger."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from client.ledger_seen import logged
from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.config.site import Site
from common.errors import BudgetError, UsageError
from common.io.atomic import write_json
from common.io.audit_file import LOG, salvage_log
from common.io.configs import load_site, load_study
from common.io.ledger_folder import read_state
from common.io.ledger_recovery import Logged
from common.io.ledger_recovery import recover as recover_ledger
from common.privacy.ledger import caps_of
from common.privacy.ledger_codec import head_from_text
from common.privacy.ledger_examine import Examined as LedgerFound
from common.privacy.ledger_examine import check_counterpart, verify_file
from common.privacy.ledger_export import check_export, export_of
from common.privacy.ledger_report import Account, summary
from common.privacy.ledger_state import LedgerState
from scripts.budget_options import assumptions_in, key_in, read_file, reason_in, study_in
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
    found, _ = _read(site, SitePaths.of(site, path.parent))
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
    data, public_key = read_file(path), key_in(key, "--key")
    counterpart = key_in(coordinator_key, "--coordinator-key") if coordinator_key else None
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
    paths = SitePaths.of(site, path.parent)
    _check_new(to, paths.ledger)
    found, lines = _read(site, paths)
    if found.state is None:
        raise BudgetError(
            "there is no ledger yet",
            place=str(paths.ledger),
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

    The old files are kept. Lifetime caps count as spent in full, and what the site's audit log has
    seen of charges: docs/ledger.md has the procedure.

    Example: fedner budget recover site.yaml --reason "disk of 3 May failed"
    """
    site = load_site(path)
    present = study_hash(load_study(path.parent / site.study))
    paths = SitePaths.of(site, path.parent)
    told = _told(site, paths)
    if not (paths.state / LOG).exists():
        _warn(f"{paths.state / LOG}: there is no audit log, which knows the studies: see --study")
    state = recover_ledger(
        paths.ledger,
        site.institution,
        reason=reason_in(reason),
        caps=caps_of(site.policy.budget),
        assume=assumptions_in(assume or ()),
        heads=[head_from_text(text) for text in heads or ()],
        studies=[*map(study_in, studies or ()), present],
        logged=told,
        old_copy=old_copy,
    )
    show_recovered(state)


def _read(site: Site, paths: SitePaths) -> tuple[LedgerFound, bytes]:
    """The ledger's files and verified lines; refused if the audit log has seen more of it."""
    told = _told(site, paths)  # before the ledger, which a worker may be writing
    found, lines = read_state(paths.ledger, site.institution)
    told.check(found.state)
    return found, lines


def _told(site: Site, paths: SitePaths) -> Logged:
    """What is readable of the site's audit log; says so if that is not all."""
    path = paths.state / LOG
    found = salvage_log(path, "site", site.institution)
    if found.fault:
        _warn(f"{path}: the log is broken: {found.fault}; what is readable of it counts")
    return logged(path, found)


def _warn(text: str) -> None:
    err.print(text, markup=False, highlight=False, soft_wrap=True)


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
