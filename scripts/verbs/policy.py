"""`fedner policy`: sign-offs of a study, and what a site's policy says of it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from client.witness import Witness
from common.config.canonical import study_hash
from common.config.site import Site
from common.errors import PolicyError, UsageError
from common.identity.identity import Identity
from common.identity.sign_off import NO_ROSTER, sign_off
from common.io.atomic import write_bytes
from common.io.configs import load_roster, load_site, load_study
from common.io.identity_files import open_private, read_passphrase
from common.io.sign_offs import read_sign_offs
from common.policy import decide
from scripts.console import out, show_notices, show_path

app = typer.Typer(help="What a site allows, and who has signed for it.", no_args_is_help=True)

SitePath = Annotated[Path, typer.Argument(metavar="SITE", help="This institution's site file.")]


@app.callback()
def _group() -> None:
    """What a site allows, and who has signed for it."""


@app.command("sign")
def sign(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study file, as it was read.")],
    key: Annotated[Path, typer.Option(help="Folder that `fedner identity new` made.")],
    role: Annotated[str, typer.Option("--as", help="Role, as the site's policy names it.")],
    to: Annotated[Path, typer.Option("--out", help="A file to write; never overwritten.")],
    roster_path: Annotated[
        Path | None, typer.Option("--roster", help="The roster that the site pins, if it does.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="A file of mode 0600 that holds the key's passphrase.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="The key lies open in its file.")
    ] = False,
) -> None:
    """Sign for a study, and for the roster that it is carried out under.

    Example: fedner policy sign study.yaml --key ethics --as "ethics committee" --roster roster.yaml --out ethics.json
    """  # noqa: E501
    if to.exists():
        raise UsageError("is there already", place=str(to), remedy="name a new file with --out")
    study = load_study(path)
    roster = NO_ROSTER if roster_path is None else load_roster(roster_path).sha256
    show_notices(study)
    identity = _open(key, passphrase_file, no_passphrase)
    made = sign_off(identity.signer, role, study_hash(study), roster)
    write_bytes(to, made.to_bytes())
    _line(f"signed as   {role}, with key {made.public_key}")
    _line(f"for study   {study.study}, {made.study}")
    _line(f"and roster  {roster or 'none: it counts only where the site pins no roster'}")
    show_path("written", to)


@app.command("verify")
def verify(path: SitePath) -> None:
    """Show which of the sign-offs that the site needs for its study are there, and right.

    Example: fedner policy verify site.yaml
    """
    site = load_site(path)
    found, problems = read_sign_offs(path.parent / (site.sign_offs or "."))
    if not site.policy.sign_offs:
        _line(f"{path}: the policy needs no sign-off")
        return
    study = study_hash(load_study(path.parent / site.study))
    roster = site.policy.roster_sha256 or NO_ROSTER
    missing = []
    for one in site.policy.sign_offs:
        right = any(off.covers(one.role, one.public_key, study, roster) for off in found)
        _line(f"{'signed ' if right else 'MISSING'}  {one.role}, key {one.public_key}")
        missing += [] if right else [one.role]
    for problem in problems:
        _line(f"is none  {problem}")
    if missing:
        raise PolicyError(
            f"no sign-off of study {study} as {', '.join(missing)}",
            place=str(path),
            remedy=f"have it made with `fedner policy sign`, put it into {site.sign_offs}; a "
            "sign-off names the site's roster, too",
        )


@app.command("check")
def check(path: SitePath) -> None:
    """What the worker would decide now, with the hashes that a policy can pin.

    The ids of the list of the withdrawn are compared with the data by the worker alone.

    Example: fedner policy check site.yaml
    """
    site = load_site(path)
    study, witness = load_study(path.parent / site.study), Witness(site, path.parent)
    facts = replace(witness.at_start(), asked="train")
    _line(f"study_sha256: {study_hash(study)}")
    _line(f"code_sha256: {facts.code_sha256}")
    _line(f"relay and worker: {_users(site)}")
    decision = decide(study, site.policy, site.institution, facts)
    if not decision.allowed:
        raise PolicyError(
            "\n  ".join(("would be refused now:", *map(str, decision.refusals))),
            place=str(path),
            remedy="take part in another study, or change the site's policy on purpose",
        )
    _line(f"{path}: takes part in {study.study} now")


def _users(site: Site) -> str:
    if site.relay_group is None:
        return "one OS user"
    return f"two OS users, through group {site.relay_group}; the worker tries it when it starts"


def _open(folder: Path, passphrase_file: Path | None, none: bool) -> Identity:
    if none:
        return open_private(folder, None)
    if passphrase_file is not None:
        return open_private(folder, read_passphrase(passphrase_file))
    text: str = typer.prompt("Passphrase of the key", hide_input=True, err=True)
    return open_private(folder, text)


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
