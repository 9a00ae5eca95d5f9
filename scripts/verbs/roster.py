"""`fedner roster`: who takes part, by public key, and the hash that everybody compares."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.config.load import parse_roster
from common.errors import IdentityError, UsageError
from common.identity.fingerprint import key_fingerprint, roster_fingerprint
from common.identity.identity import require_public_key
from common.identity.roster import Roster, require_member, require_pin
from common.io.atomic import write_bytes
from common.io.configs import load_roster, load_site
from common.io.identity_files import read_own, read_public
from scripts.console import out, show_path

app = typer.Typer(help="Who takes part, by public key.", no_args_is_help=True)

RosterPath = Annotated[Path, typer.Argument(metavar="ROSTER", help="A roster file.")]


@app.callback()
def _group() -> None:
    """Who takes part, by public key."""


@app.command("make")
def make(
    coordinator: Annotated[str, typer.Option(help="Public key, or a public identity's file.")],
    institutions: Annotated[
        list[str],
        typer.Option("--institution", help="NAME=KEY, or a public identity's file. In order."),
    ],
    path: Annotated[Path, typer.Option("--out", help="A file to write; never overwritten.")],
    note: Annotated[str, typer.Option(help="Free text; part of the hash.")] = "",
) -> None:
    """Write a roster from public keys or from the files that `fedner identity new` made.

    Example: fedner roster make --coordinator c.json --institution n.json --out roster.yaml
    """
    if path.exists():
        raise UsageError("is there already", place=str(path), remedy="name a new file with --out")
    members = [_member(text) for text in institutions]
    text = _yaml(_coordinator(coordinator), members, note)
    roster = parse_roster(text, "--institution, --coordinator")
    write_bytes(path, text.encode())
    _show(roster)
    show_path("written", path)


@app.command("verify")
def verify(
    path: RosterPath,
    pin: Annotated[str | None, typer.Option(help="The hash that it must have.")] = None,
) -> None:
    """Check a roster, and show every key's fingerprint and the hash to compare.

    Example: fedner roster verify roster.yaml
    """
    roster = load_roster(path)
    _show(roster)
    if pin is not None:
        require_pin(roster, pin, "--pin")
        out.print("it is the pinned one")


@app.command("pin")
def pin(
    path: RosterPath,
    site_path: Annotated[
        Path, typer.Argument(metavar="SITE", help="This institution's site file.")
    ],
) -> None:
    """Show the line that pins a roster in a site's policy, or say that it is pinned.

    The site file is not rewritten: a policy is changed by a person, on purpose.

    Example: fedner roster pin roster.yaml site.yaml
    """
    roster, site = load_roster(path), load_site(site_path)
    _require_own_key(roster, site.institution, site.identity, site_path.parent)
    if site.policy.roster_sha256 is not None:
        require_pin(roster, site.policy.roster_sha256, str(site_path))
        out.print(f"{site_path} pins this roster", markup=False, highlight=False, soft_wrap=True)
        return
    for line in (
        f"{site_path} pins no roster yet. Compare with the other institutions, not through the "
        "coordinator:",
        f"  {roster_fingerprint(roster.sha256)}",
        "If all of it is the same at each of them, add under `policy:`",
        f"  roster_sha256: {roster.sha256}",
        "and run this again.",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _require_own_key(roster: Roster, name: str, identity: str | None, base: Path) -> None:
    """The site's own place on the roster: by key where the site file names its identity."""
    if identity is None:
        raise UsageError(
            "the site has no `identity`",
            place=str(base),
            remedy="add `identity: FOLDER`, the folder that `fedner identity new` made",
        )
    own = read_own(base / identity)
    if own.name != name:
        raise IdentityError(
            f"is the identity of {own.name}, the site is {name}",
            place=str(base / identity),
            remedy="name this institution's own identity",
        )
    require_member(roster, name, own.public_key)


def _coordinator(text: str) -> str:
    if Path(text).exists():
        return read_public(Path(text)).public_key
    require_public_key(text, "--coordinator")
    return text


def _member(text: str) -> tuple[str, str]:
    name, equals, key = text.partition("=")
    if not equals:
        public = read_public(Path(text))
        return public.name, public.public_key
    require_public_key(key, f"--institution {name}")
    return name, key


def _yaml(coordinator: str, members: list[tuple[str, str]], note: str) -> str:
    """Keys in quotes: YAML reads digits alone as a number."""
    lines = [
        "# Valid at a site only if its policy pins this roster's hash: `fedner roster verify`.",
        f'coordinator: "{coordinator}"',
        "institutions:   # in the order of the study's federation.institutions",
        *(f'  - {{name: {_quoted(name)}, public_key: "{key}"}}' for name, key in members),
    ]
    if note:
        lines.append(f"note: {_quoted(note)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _show(roster: Roster) -> None:
    rows = [("coordinator", roster.coordinator), *roster.public_keys.items()]
    width = max(len(name) for name, _ in rows)
    for name, key in rows:
        _line(f"{name:<{width}}  {key}")
        _line(f"{'':<{width}}  {key_fingerprint(key)}")
    if roster.note:
        _line(f"note: {roster.note}")
    _line(f"roster_sha256: {roster.sha256}")
    _line(f"to compare by telephone: {roster_fingerprint(roster.sha256)}")


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
