"""`fedner provision`: a federation's certificates, and what each institution must be sent."""

import datetime
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from common.config.canonical import study_yaml
from common.config.deployment import Deployment, deployment_yaml, parse_deployment
from common.config.study import Study
from common.errors import IdentityError, UsageError
from common.identity.enrolment import Register, make_request
from common.identity.identity import MIN_PASSPHRASE
from common.io.atomic import write_bytes
from common.io.authority_files import (
    CURRENT,
    NEXT,
    begin_rotation,
    end_rotation,
    move_to_next,
    trusted,
)
from common.io.certificate_files import (
    AUTHORITY,
    SERVER,
    certificate_fingerprint,
    create_authority,
    create_node_key,
    create_server,
    expiry_notices,
    open_authority,
    read_authorities,
    read_certificate,
    read_node_key,
    renew_server,
)
from common.io.configs import load_study, read_config
from common.io.disk import DISK
from common.io.identity_files import create, open_private, read_passphrase
from common.io.register_file import read_register, write_register
from scripts.console import err, out, show_path
from scripts.kit_texts import DEMO, DEMO_ONE_USER, coordinators_text, site_readme, site_text
from scripts.verbs.enrol import moment, show_roster_state, write_roster
from server.federation import DEPLOYMENT

NO_PASSPHRASE: Final = (
    "NO PASSPHRASE. The authority's key lies open in its file: whoever can read or restore it, a "
    "backup included, can pose as the server."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A federation's folder at the coordinator."""

    root: Path
    deployment: Deployment
    study: Study

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names and addresses in the server's certificate."""
        return self.deployment.server.hosts

    @property
    def names(self) -> tuple[str, ...]:
        """The study's institutions."""
        return self.study.federation.institutions


def command(
    path: Annotated[Path, typer.Argument(metavar="FEDERATION", help="FEDERATION.yaml.")],
    output: Annotated[Path, typer.Option("--out", help="The coordinator's folder.")],
    renew: Annotated[
        bool, typer.Option("--renew", help="New server certificates under the same authority.")
    ] = False,
    rotate: Annotated[
        Literal["begin", "move", "end"] | None,
        typer.Option(help="Replace the authority, step by step: docs/provisioning.md."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Make all institutions' keys here: for trying it out.")
    ] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="A file of mode 0600 with the passphrase of the keys.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave authority and coordinator's key open.")
    ] = False,
) -> None:
    """Make a federation's authority, server certificate and one folder for each institution.

    No institution's private key is made here, unless with --demo.

    Example: fedner provision FEDERATION.yaml --out federation --passphrase-file passphrase
    """
    deployment = parse_deployment(read_config(path), str(path))
    study = load_study(path.parent / deployment.study)
    folder = Folder(root=output, deployment=deployment, study=study)
    if no_passphrase and passphrase_file is not None:
        raise UsageError(
            "give --passphrase-file or --no-passphrase, not both",
            remedy="leave out --no-passphrase for keys that are sealed, or are to be",
        )
    if sum(map(bool, (renew, rotate, demo))) > 1:
        raise UsageError(
            "--renew, --rotate and --demo do not go together",
            remedy="give one of them: each is a run of its own",
        )
    if rotate is not None:
        _rotate(folder, rotate, passphrase_file, no_passphrase)
        return
    if renew:
        _renew(folder, _old_passphrase(passphrase_file, no_passphrase))
        return
    if output.exists():
        raise UsageError(
            "is there already", place=str(output), remedy="name a new folder, or give --renew"
        )
    passphrase = None if demo else _new_passphrase(passphrase_file, no_passphrase)
    if demo:
        err.print(DEMO, style="bold red", soft_wrap=True)
    _provision(folder, passphrase, demo, _now())


def _provision(folder: Folder, passphrase: str | None, demo: bool, now: datetime.datetime) -> None:
    """The folder is there whole or not at all."""
    root = folder.root
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))  # of mode 0700
    try:
        _fill(replace(folder, root=beside), passphrase, demo, now)
        beside.rename(root)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    DISK.fsync_folder(root.parent)
    if demo:
        _line(DEMO_ONE_USER)
        show_roster_state(root, read_register(root), folder.names)
    show_path("coordinator", root / "README.txt")
    for institution in folder.names:
        show_path("send", root / "sites" / institution)
    _show_authority(root)


def _fill(folder: Folder, passphrase: str | None, demo: bool, now: datetime.datetime) -> None:
    """All of it, into an empty folder."""
    root, deployment = folder.root, folder.deployment
    name = _authority_name(folder, demo)
    validity = deployment.validity
    create_authority(root / "authority", name, passphrase, now, validity.authority_days)
    authority = open_authority(root / "authority", passphrase)
    create_server(root / SERVER, authority, folder.hosts, now, validity.server_days)
    create(root / "coordinator", "coordinator", passphrase)
    write_bytes(root / "study.yaml", _study_text(folder, demo).encode())
    _keep_deployment(folder, demo)
    write_register(root, Register(federation=deployment.federation, demo=demo))
    (root / "sites").mkdir()
    for institution in folder.names:
        _kit(folder, institution, demo)
    if demo:
        _demo_keys(folder, now)
    text = coordinators_text(deployment, demo=demo, sealed=passphrase is not None)
    write_bytes(root / "README.txt", text.encode())


def _register_of(folder: Folder) -> Register:
    register = read_register(folder.root)
    if register.federation != folder.deployment.federation:
        raise IdentityError(
            f"is of the federation {register.federation}, not {folder.deployment.federation}",
            place=str(folder.root),
            remedy="give the FEDERATION.yaml of this folder; its name never changes",
        )
    return register


def _rotate(folder: Folder, step: str, passphrase_file: Path | None, none: bool) -> None:
    """One step of replacing the authority; kits get the certificates to send.

    They get them where the step is refused, too: it may be that a crash came before they did.
    """
    demo = _register_of(folder).demo
    try:
        said = _take_step(folder, step, passphrase_file, none, demo)
    except IdentityError:
        if (folder.root / CURRENT).is_dir():
            _send_authorities(folder, demo)
        raise
    _send_authorities(folder, demo)
    _show_authority(folder.root)
    if (folder.root / NEXT).is_dir():
        certificate = read_certificate(folder.root / NEXT / AUTHORITY)
        _line(f"the next one's   {certificate_fingerprint(certificate)}")
    _line(said)


def _take_step(
    folder: Folder, step: str, passphrase_file: Path | None, none: bool, demo: bool
) -> str:
    """What the coordinator has to do then."""
    root, validity, now = folder.root, folder.deployment.validity, _now()
    if step == "begin":
        name = _authority_name(folder, demo)
        passphrase = None if demo else _new_passphrase(passphrase_file, none)
        begin_rotation(root, name, passphrase, now, validity.authority_days)
        return "send each institution its new ca.crt; it compares the new fingerprint, and restarts"
    if step == "move":
        passphrase = _old_passphrase(passphrase_file, none or demo)
        move_to_next(root, passphrase, folder.hosts, now, validity.server_days)
        return "restart `fedner server`: whoever has not the new ca.crt is shut out from then on"
    end_rotation(root)
    return "the old key is deleted; send each institution its new ca.crt: one authority again"


def _send_authorities(folder: Folder, demo: bool) -> None:
    for institution in folder.names:
        kit = folder.root / "sites" / institution
        if not kit.is_dir():
            _line(f"no folder {kit}: send {institution} the ca.crt of another one")
        else:
            write_bytes(kit / AUTHORITY, trusted(folder.root))
            write_bytes(kit / "README.txt", _site_readme(folder, institution, demo).encode())
            show_path("send", kit / AUTHORITY)


def _authority_name(folder: Folder, demo: bool) -> str:
    return f"{'DEMO ' if demo else ''}fedner {folder.deployment.federation}"


def _renew(folder: Folder, passphrase: str | None) -> None:
    root, now = folder.root, _now()
    register = _register_of(folder)
    authority = open_authority(root / "authority", passphrase)
    days = folder.deployment.validity.server_days
    renew_server(root / SERVER, authority, folder.hosts, now, days)
    _keep_deployment(folder, register.demo)
    certificate = read_certificate(root / SERVER / "server.crt")
    _line(f"the server's certificate holds until {certificate.not_valid_after_utc:%Y-%m-%d}")
    _line("restart `fedner server` to use it; institutions need nothing new")
    for notice in expiry_notices(root / "authority", now):
        err.print(notice, style="bold red", soft_wrap=True)


def _keep_deployment(folder: Folder, demo: bool) -> None:
    """What `fedner server --federation` reads: FEDERATION.yaml, with the study beside it."""
    text = deployment_yaml(replace(folder.deployment, study="study.yaml"))
    heading = f"# {DEMO}\n" if demo else ""
    write_bytes(folder.root / DEPLOYMENT, (heading + text).encode())


def _kit(folder: Folder, name: str, demo: bool) -> None:
    """All that one institution must be sent; nothing in it is secret."""
    kit = folder.root / "sites" / name
    kit.mkdir()
    authority = folder.root / "authority" / AUTHORITY
    write_bytes(kit / AUTHORITY, authority.read_bytes())
    files = {
        "study.yaml": _study_text(folder, demo).encode(),
        "site.yaml": site_text(folder.deployment, name, demo).encode(),
        "README.txt": _site_readme(folder, name, demo).encode(),
    }
    for file, data in files.items():
        write_bytes(kit / file, data)


def _demo_keys(folder: Folder, now: datetime.datetime) -> None:
    root = folder.root
    register = read_register(root)
    for name in folder.names:
        kit = root / "sites" / name
        create(kit / "identity", name, None)
        create_node_key(kit / "node")
        request = make_request(
            register.federation, open_private(kit / "identity", None), read_node_key(kit / "node")
        )
        register = register.approve(request, folder.names, moment(now))
    write_register(root, register)
    write_roster(root, register, folder.names)


def _study_text(folder: Folder, demo: bool) -> str:
    """Comments are no part of a study's hash."""
    return (f"# {DEMO}\n" if demo else "") + study_yaml(folder.study)


def _site_readme(folder: Folder, name: str, demo: bool) -> str:
    kit = folder.root / "sites" / name / AUTHORITY
    prints = [certificate_fingerprint(one) for one in read_authorities(kit)]
    return site_readme(folder.deployment, name, prints, demo)


def _show_authority(root: Path) -> None:
    certificate = read_certificate(root / "authority" / AUTHORITY)
    _line(f"authority until  {certificate.not_valid_after_utc:%Y-%m-%d}")
    _line(f"its fingerprint  {certificate_fingerprint(certificate)}")


def _new_passphrase(file: Path | None, none: bool) -> str | None:
    if none:
        err.print(NO_PASSPHRASE, style="bold red", soft_wrap=True)
        return None
    if file is not None:
        return read_passphrase(file)
    text: str = typer.prompt(
        f"Passphrase for authority and coordinator, {MIN_PASSPHRASE} characters or more",
        hide_input=True,
        confirmation_prompt="The same again",
        err=True,
    )
    return text


def _old_passphrase(file: Path | None, none: bool) -> str | None:
    if none:
        return None
    if file is not None:
        return read_passphrase(file)
    text: str = typer.prompt("Passphrase of the authority", hide_input=True, err=True)
    return text


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
