"""`fedner doctor`: looks at all that a start needs, on both roles, and says what to do."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from client.sides import Side
from common.errors import FednerError, UsageError
from common.io.configs import load_relay, load_site
from scripts.console import out, quiet_libraries
from scripts.doctor import coordinator, institution
from scripts.doctor.checks import Check, Outcome, carry_out, failed, has_failed

FAILED: Final = 1
_STYLES: Final = {"ok": "green", "warning": "bold yellow", "failed": "bold red"}


def command(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Site file; with --side relay, the relay's; with --federation, study file.",
        ),
    ] = None,
    side: Annotated[
        Side, typer.Option(help="Of which side FILE is, where they are two users.")
    ] = Side.WORKER,
    federation: Annotated[
        Path | None,
        typer.Option(help="At the coordinator: the folder that `fedner provision` made."),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="With --federation: of the coordinator's identity, mode 0600."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; without figures about documents.")
    ] = False,
) -> None:
    """Look at clock, names, ports, proxies, TLS, keys, versions, disk, device, encoder, data,
    policy and ledger; each failure comes with its remedy. Nothing is changed, nothing is spent.

    Exit code 0: nothing has failed. docs/doctor.md says what each check can't see.

    Example: fedner doctor site.yaml

    Example: fedner doctor relay.yaml --side relay

    Example: fedner doctor --federation federation
    """
    quiet_libraries()
    if federation is not None and side is Side.RELAY:
        raise UsageError("--side is of an institution, --federation of the coordinator: give one")
    if federation is None and passphrase_file is not None:
        raise UsageError("--passphrase-file goes with --federation",
                         remedy="a site file names its own: `passphrase_file`")  # fmt: skip
    outcomes = []
    for outcome in carry_out(_checks(path, federation, passphrase_file, side)):
        outcomes.append(outcome)
        if not as_json:
            for line in lines(outcome, private=sys.stdout.isatty()):
                out.print(line, soft_wrap=True)
    if as_json:
        relay = "relay" if side is Side.RELAY else "institution"
        typer.echo(as_text(outcomes, relay if federation is None else "coordinator"))
    else:
        out.print(summary(outcomes), highlight=False)
    if has_failed(outcomes):
        raise typer.Exit(FAILED)


def lines(outcome: Outcome, *, private: bool) -> Iterator[Text]:
    """An outcome for people.

    Args:
        private: whether the institution's own terminal shows it, and nothing keeps it.
    """
    state, check, finding = outcome.finding.state, outcome.check, outcome.finding
    head = (f"{state:8}", _STYLES[state])
    yield Text.assemble(head, f"{check.group:11}{check.looked_at}: {finding.said}")
    if private and finding.private:
        yield Text(f"{'':19}{finding.private}")
    if finding.remedy:
        yield Text.assemble(f"{'':19}", ("remedy: ", "green"), finding.remedy)


def as_text(outcomes: Iterable[Outcome], role: str) -> str:
    """All outcomes as JSON, without what is private."""
    rows = [outcome.as_dict() for outcome in outcomes]
    counts = {state: sum(row["state"] == state for row in rows) for state in _STYLES}
    return json.dumps({"role": role, **counts, "checks": rows}, indent=2, allow_nan=False)


def summary(outcomes: Iterable[Outcome]) -> str:
    """One line with how many of each."""
    states = [outcome.finding.state for outcome in outcomes]
    return ", ".join(f"{states.count(state)} {state}" for state in _STYLES)


def _checks(
    path: Path | None, federation: Path | None, passphrase: Path | None, side: Side
) -> Iterator[Check]:
    """Of the role that was asked for; what can't even be listed is one failed check."""
    place = federation or path
    if place is None:
        raise UsageError("expected SITE, or --federation FOLDER", remedy="fedner doctor --help")
    try:
        if federation is not None:
            study = path or federation / "study.yaml"
            yield from coordinator.checks(federation, study, passphrase)
        elif path is not None and side is Side.RELAY:
            yield from institution.relay_checks(load_relay(path), path)
        elif path is not None:
            yield from institution.checks(load_site(path), path)
    except FednerError as error:
        yield _unreadable(place, error)


def _unreadable(place: Path, error: FednerError) -> Check:
    said = f"{error.place}: {error.message}" if error.place else error.message
    finding = failed(said, error.remedy or "put the file right first: the rest rests on it")
    return Check(group="file", looked_at=str(place), look=lambda: finding)
