"""`fedner log`: the audit log of an institution, or of a coordinator's run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from common.audit.codec import Head
from common.audit.errors import AuditError
from common.audit.examine import Examined, Finding, examine
from common.audit.report import lacks, signers, time_of, told
from common.errors import UsageError
from common.identity.fingerprint import key_fingerprint
from common.identity.identity import require_public_key
from common.io.identity_files import read_public
from scripts.console import err, out

app = typer.Typer(help="The audit log of one side.", no_args_is_help=True)

_SHOWN: Final = 20
_REMEDY: Final = "docs/audit-log.md says what can be told from it; keep the file as it is"

LogPath = Annotated[
    Path,
    typer.Argument(metavar="LOG", help="An `audit.jsonl`: of a site's `state`, or a run folder."),
]


@app.callback()
def _group() -> None:
    """The audit log of one side."""


@app.command("verify")
def verify(
    path: LogPath,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key", help="Public key that must have signed: hexadecimal, or `public.json`."
        ),
    ] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", help="LOG:SEQ:HASH, as this verb printed it earlier."),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(help="The other side's log: what either has and the other lacks is named."),
    ] = None,
) -> None:
    """Check every line: form, place in the chain, signature. Says who signed, from when to when.

    Exits with 11 and names each broken line, if there is one. A cut end shows only against --head
    or --other.

    Example: fedner log verify north-clinic/state/audit.jsonl --key north-clinic/public.json
    """
    known = [_head(text) for text in heads or ()]
    found = examine(_read(path), [_key(text) for text in keys or ()], known)
    _show_summary(path, found)
    faults = [*map(str, found.faults), *(_against(path, found, other) if other else ())]
    if faults:
        _show_all(faults[1:])
        raise AuditError(faults[0], place=str(path), remedy=_REMEDY)
    ends = "" if known or other else "; a cut end shows only against --head or --other"
    agrees = f"; {other} bears it out" if other else ""
    _say(f"no line is broken{agrees}{ends}")
    _say(f"head {found.chain.head}")


@app.command("show")
def show(
    path: LogPath,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only entries of this kind, for example `spend`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are.")] = False,
) -> None:
    """Print the entries, oldest first; times are in UTC. That there is none is said.

    Example: fedner log show runs/heart-20261125-090001-1f2e3d4c/audit.jsonl --kind refusal
    """
    found = examine(_read(path))
    wanted = [entry for entry in found.entries if kind is None or entry.kind in kind]
    for entry in wanted:
        line = f"{time_of(entry)} {entry.seq:>5} {entry.kind:<9} {told(entry)}"
        typer.echo(entry.line.decode("ascii") if as_json else line)
    if not wanted:
        typer.echo(f"{path}: no such entry among {len(found.entries)}", err=True)
    if found.faults:
        _show_all(map(str, found.faults))
        raise AuditError("the log is broken", place=str(path), remedy="`fedner log verify` it")


def _show_summary(path: Path, found: Examined) -> None:
    opened = found.chain.opened
    if opened is None:
        raise AuditError("is no audit log, or an empty one", place=str(path), remedy=_REMEDY)
    first, last = found.entries[0], found.entries[-1]
    whose = f"{opened.side} {opened.name}" if opened.side == "site" else "a coordinator"
    _say(f"{path}: {len(found.entries)} entries of {whose}")
    _say(f"from {time_of(first)} to {time_of(last)} UTC")
    for run in signers(found.entries):
        what = f"entries {run.first} to {run.last}"
        if run.key is None:
            _say(f"{what}: SIGNED BY NOBODY. Who can write the file can make it anew")
        else:
            _say(f"{what}: signed with {run.key}, fingerprint {key_fingerprint(run.key)}")
    for note in found.notes:
        _say(f"note: {note}")


def _against(path: Path, found: Examined, other: Path) -> Iterable[str]:
    """What this log and the other side's show of each other."""
    theirs = examine(_read(other))
    if theirs.faults:
        yield f"the other side's log is broken: {theirs.faults[0]}"
    sides = {one.chain.opened.side: one for one in (found, theirs) if one.chain.opened}
    if len(sides) != 2:
        raise UsageError(
            f"expected the logs of a site and of a coordinator, both are of a {next(iter(sides))}",
            place=f"{path}, {other}",
        )
    yield from lacks(sides["site"], sides["coordinator"])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't be read: {error.strerror}", place=str(path)) from None


def _head(text: str) -> Head:
    head = Head.from_text(text)
    if head is None:
        raise UsageError(
            "expected a head as LOG:SEQ:HASH",
            place=f"--head {text[:120]!r}",
            remedy="`fedner log verify` prints it",
        )
    return head


def _key(text: str) -> str:
    if Path(text).exists():
        return read_public(Path(text)).public_key
    require_public_key(text, "--key")
    return text


def _show_all(faults: Iterable[Finding | str]) -> None:
    said = list(map(str, faults))
    for fault in said[:_SHOWN]:
        err.print(fault, markup=False, highlight=False, soft_wrap=True)
    if len(said) > _SHOWN:
        err.print(f"and {len(said) - _SHOWN} more", markup=False, highlight=False)


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
