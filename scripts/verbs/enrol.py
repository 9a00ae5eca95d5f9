"""`fedner enrol`: an institution asks with public keys; the coordinator keeps the register."""

import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
import yaml

from common.config.load import parse_roster
from common.config.site import Site
from common.errors import IdentityError, UsageError
from common.identity.authority import hosts_of
from common.identity.enrolment import (
    EnrolmentRequest,
    Register,
    make_request,
    node_fingerprint,
)
from common.identity.fingerprint import key_fingerprint, roster_fingerprint
from common.identity.identity import MIN_PASSPHRASE
from common.io.atomic import write_bytes
from common.io.certificate_files import (
    certificate_fingerprint,
    create_node_key,
    expiry_notices,
    read_authorities,
    read_node_key,
)
from common.io.configs import load_site, load_study
from common.io.identity_files import create, open_private, read_passphrase, read_public
from common.io.register_file import read_register, read_request, write_register
from scripts.console import err, out, show_path
from scripts.kit_texts import DEMO

NODE: Final = "node"
ROSTER: Final = "roster.yaml"

app = typer.Typer(help="Enrol institutions.", no_args_is_help=True)

FederationPath = Annotated[
    Path, typer.Option("--federation", help="The folder that `fedner provision` made.")
]


@app.callback()
def _group() -> None:
    """Enrol institutions."""


@app.command("request")
def request(
    site_path: Annotated[Path, typer.Argument(metavar="SITE", help="The site file.")],
    federation: Annotated[str, typer.Option(help="The federation's name, as you were sent it.")],
    output: Annotated[Path, typer.Option("--out", help="The request to write.")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help="A file of mode 0600 with the identity's passphrase; by default the site's own "
            "`passphrase_file`."
        ),
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="The identity's key lies open in its file.")
    ] = False,
) -> None:
    """At the institution: make its keys if they are not there, and a request to send.

    The request holds public keys only. Then read the fingerprints to the coordinator by telephone.

    Example: fedner enrol request site.yaml --federation north --out request.json
    """
    site, base = load_site(site_path), site_path.parent
    if site.identity is None:
        raise UsageError("the site has no `identity`", place=str(site_path),
                         remedy="add `identity: identity`")  # fmt: skip
    passphrase_file = _file_of(site, site_path, passphrase_file, no_passphrase)
    if output.exists():
        raise UsageError("is there already", place=str(output), remedy="name a new file")
    identity, node = base / site.identity, base / (site.node or NODE)
    _require_undivided(site, site_path, identity, node)
    passphrase = _passphrase(passphrase_file, no_passphrase, new=not identity.exists())
    if not identity.exists():
        create(identity, site.institution, passphrase)
        show_path("made, to keep", identity)
    own = open_private(identity, passphrase)
    if own.name != site.institution:
        raise IdentityError(
            f"is the identity of {own.name}, the site is {site.institution}",
            place=str(identity),
            remedy="name the folder of this institution's own identity",
        )
    if not node.exists():
        create_node_key(node)
        show_path("made, to keep", node)
    made = make_request(federation, own, read_node_key(node))
    write_bytes(output, made.to_bytes())
    show_path("send", output)
    if site.node is None and site.relay_group is None:
        _line(f"add to {site_path}: `authority: ca.crt`, as you were sent it, and `node: {NODE}`")
    _show(made)


@app.command("approve")
def approve(
    paths: Annotated[list[Path], typer.Argument(metavar="REQUEST...", help="Requests.")],
    folder: FederationPath,
    compared: Annotated[
        bool,
        typer.Option("--compared", help="The fingerprints were compared by telephone."),
    ] = False,
) -> None:
    """At the coordinator: check requests, show what to compare, and enrol.

    With the request of one who is enrolled already it writes node keys and roster again.

    Example: fedner enrol approve request.json --federation federation
    """
    register, names = read_register(folder), _names(folder)
    for path in paths:
        asked = read_request(path)
        changed = register.approve(asked, names, moment(_now()))
        _show(asked)
        new = changed is not register
        if (
            new
            and not compared
            and not typer.confirm(
                "Did the institution itself read you all of these digits, by telephone?", err=True
            )
        ):
            raise UsageError(f"{asked.name} is not enrolled", remedy="compare, then run this again")
        register = changed
        _write_all(folder, register, names)
        _line(f"{asked.name} is enrolled" + ("" if new else " with these keys already"))
    show_roster_state(folder, register, names)


@app.command("list")
def list_entries(folder: FederationPath) -> None:
    """Show who is enrolled, who was, and who is missing.

    Example: fedner enrol list --federation federation
    """
    register, names = read_register(folder), _names(folder)
    if register.demo:
        err.print(DEMO, style="bold red", soft_wrap=True)
    for entry in register.entries:
        why = f"  ({entry.why})" if entry.why else ""
        _line(f"{entry.request.name:<20} {entry.state:<9} {entry.changed}{why}")
        _line(f"{'':<20} {key_fingerprint(entry.request.identity.public_key)}")
    show_roster_state(folder, register, names)


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The institution.")],
    folder: FederationPath,
    why: Annotated[str, typer.Option(help="For the register.")] = "",
) -> None:
    """Refuse an institution's keys from now on: one may be known to others.

    The roster names its identity: the others have to pin a new one, so tell them.

    Example: fedner enrol revoke north --federation federation --why "laptop stolen"
    """
    _end(folder, name, "revoked", why)


@app.command("leave")
def leave(
    name: Annotated[str, typer.Argument(help="The institution.")],
    folder: FederationPath,
    why: Annotated[str, typer.Option(help="For the register.")] = "",
) -> None:
    """Note that an institution leaves; its node is refused from now on.

    Example: fedner enrol leave north --federation federation
    """
    _end(folder, name, "left", why)


@app.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A request or a certificate.")],
) -> None:
    """Show the fingerprints of a request or a certificate, to compare by telephone.

    Example: fedner enrol show ca.crt
    """
    if path.suffix != ".crt":
        _show(read_request(path))
        return
    for certificate in read_authorities(path):
        _line(f"certificate of   {certificate.subject.rfc4514_string()}")
        if hosts := hosts_of(certificate):
            _line(f"names            {', '.join(hosts)}")
        _line(f"until            {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        _line(f"fingerprint      {certificate_fingerprint(certificate)}")
    for notice in expiry_notices(path.parent, _now()):
        err.print(notice, style="bold red", soft_wrap=True)


def write_roster(folder: Path, register: Register, names: tuple[str, ...]) -> None:
    """Write the roster, to each institution's folder too, once all are enrolled; else remove it."""
    missing = [name for name in names if name not in register.approved]
    places = [folder / ROSTER, *(folder / "sites" / name / ROSTER for name in names)]
    if missing:
        for place in places:
            place.unlink(missing_ok=True)
        return
    content = {
        "coordinator": read_public(folder / "coordinator").public_key,
        "institutions": [
            {"name": name, "public_key": register.approved[name].identity.public_key}
            for name in names
        ],
        "note": DEMO if register.demo else f"federation {register.federation}",
    }
    heading = f"# {DEMO}\n" if register.demo else ""
    text = heading + yaml.safe_dump(content, sort_keys=False)
    parse_roster(text, ROSTER)
    for place in places:
        if place.parent.is_dir():
            write_bytes(place, text.encode())


def show_roster_state(folder: Path, register: Register, names: tuple[str, ...]) -> None:
    """Say who is missing, or which hash is to be compared.

    Raises:
        IdentityError: nobody is missing, and there is no roster.
    """
    missing = [name for name in names if name not in register.approved]
    if missing:
        _line(f"not enrolled: {', '.join(missing)}; no roster before they are")
        return
    if not (folder / ROSTER).is_file():
        raise IdentityError(
            "is not there, and all are enrolled",
            place=str(folder / ROSTER),
            remedy="`fedner enrol approve` with any institution's request writes it again",
        )
    sha256 = parse_roster((folder / ROSTER).read_text("utf-8"), ROSTER).sha256
    _line(f"roster_sha256: {sha256}")
    _line(f"the institutions compare among themselves: {roster_fingerprint(sha256)}")
    show_path("send to every institution", folder / ROSTER)


def moment(now: datetime.datetime) -> str:
    """A time as the register writes it."""
    return f"{now.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _end(folder: Path, name: str, state: Literal["revoked", "left"], why: str) -> None:
    """Given again, it writes all files again: a crash may have come before some of them."""
    names, register = _names(folder), read_register(folder)
    already = name not in register.approved and register.ended_as(name) == state
    if not already:
        register = register.end(name, state, moment(_now()), why)
    _write_all(folder, register, names)
    when = "already" if already else "from now on"
    _line(f"{name}: {state}; a running server refuses its node {when}")
    show_roster_state(folder, register, names)


def _write_all(folder: Path, register: Register, names: tuple[str, ...]) -> None:
    write_register(folder, register)
    write_roster(folder, register, names)


def _require_undivided(site: Site, path: Path, identity: Path, node: Path) -> None:
    """No second node key where the relay's user has the first one: it is enrolled with that.

    A request is signed with both keys, and no user but root can read both.
    """
    moved = site.node is None or identity.exists()
    if site.relay_group is not None and moved and not node.exists():
        raise UsageError(
            "is not there, and the site is for two users: the node key is the relay's",
            place=str(node),
            remedy="the coordinator has the first request; for another with the same keys lay "
            f"copies of {path.name}, the identity and the relay's `node` into a folder of root's: "
            "docs/deployment.md, A second request. For a first one, with `node: node` and "
            "`authority: ca.crt` in the site file, before `relay_group`",
        )


def _names(folder: Path) -> tuple[str, ...]:
    return load_study(folder / "study.yaml").federation.institutions


def _file_of(site: Site, path: Path, given: Path | None, none: bool) -> Path | None:
    """The file with the passphrase: what the command line says, or else the site file."""
    if none and given is not None:
        raise UsageError(
            "give --passphrase-file or --no-passphrase, not both",
            remedy="leave out --no-passphrase for a key that is sealed, or is to be",
        )
    if none and site.passphrase_file is not None:
        raise UsageError(
            "names a `passphrase_file`, with which the worker would open the key",
            place=str(path),
            remedy="take that line out, or leave --no-passphrase out",
        )
    return given if site.passphrase_file is None else given or path.parent / site.passphrase_file


def _passphrase(file: Path | None, none: bool, *, new: bool) -> str | None:
    if none:
        if new:
            err.print("NO PASSPHRASE. The private key lies open in its file.", style="bold red")
        return None
    if file is not None:
        return read_passphrase(file)
    asked = f"Passphrase, {MIN_PASSPHRASE} characters or more" if new else "Passphrase"
    text: str = typer.prompt(
        asked, hide_input=True, confirmation_prompt="The same again" if new else False, err=True
    )
    return text


def _show(request: EnrolmentRequest) -> None:
    for line in (
        f"institution      {request.name}",
        f"federation       {request.federation}",
        f"identity         {key_fingerprint(request.identity.public_key)}",
        f"node key         {node_fingerprint(request.node_key)}",
    ):
        _line(line)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
