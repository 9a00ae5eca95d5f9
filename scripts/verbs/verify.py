"""`fedner verify`: an exported model against its manifest, and the manifest against a key."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import IdentityError, UsageError
from common.identity.fingerprint import key_fingerprint
from common.identity.identity import require_public_key
from common.io.configs import load_roster
from common.io.export import foreign_code, verify_export
from common.io.identity_files import read_public
from scripts.console import err, out

COORDINATOR = "coordinator"
UNCHECKED = (
    "NO SIGNATURE WAS CHECKED. The files are those of the manifest; who can change a file can "
    "change the manifest with it."
)


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `fedner export` wrote.")],
    key: Annotated[
        str | None,
        typer.Option(help="Public key that must have signed: hexadecimal, or `public.json`."),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="Instead of a key: a roster that you have compared.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Who of the roster must have signed; the coordinator if absent."),
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Compare files and manifest alone.")
    ] = False,
) -> None:
    """Check the signature, and that the folder holds exactly what was signed.

    Exits with 10 for another signer or none, with 5 for files that were changed, added or lost.

    Example: fedner verify exported --key coordinator/public.json
    """
    public_key = _public_key(key, roster, by, unsigned)
    manifest = verify_export(folder, public_key)
    for line in (
        f"{folder}: {len(manifest.files)} files of study {manifest.study} "
        f"{manifest.study_sha256}, each as the manifest says",
        f"exported by fedner {manifest.fedner}",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    _show_code(foreign_code(folder))
    if public_key is None or manifest.signed is None:
        err.print(UNCHECKED, style="bold red", soft_wrap=True)
        return
    named = "" if roster is None else f" by {by or COORDINATOR} of {roster}"
    for line in (
        f"signed{named} with {public_key}, fingerprint {key_fingerprint(public_key)}",
        f"the signer calls itself {manifest.signed.name}; nobody but the signer says so",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_code(foreign: tuple[str, ...]) -> None:
    if foreign:
        said = f"OTHER CODE THAN THIS FEDNER'S is in it, or named by it: {'; '.join(foreign)}"
        err.print(said, style="bold red", markup=False, highlight=False, soft_wrap=True)
    else:
        out.print("the programs in it are those of this fedner, byte for byte", highlight=False)


def _public_key(key: str | None, roster: Path | None, by: str | None, unsigned: bool) -> str | None:
    if (key is not None) + (roster is not None) + unsigned != 1:
        raise UsageError(
            "give exactly one of --key KEY, --roster ROSTER and --unsigned",
            remedy="`fedner identity show` prints a key to its owner; get it from there",
        )
    if by is not None and roster is None:
        raise UsageError("--by names one of --roster")
    if roster is not None:
        return _of_roster(roster, by)
    if key is None:
        return None
    if Path(key).exists():
        return read_public(Path(key)).public_key
    require_public_key(key, "--key")
    return key


def _of_roster(path: Path, by: str | None) -> str:
    found = load_roster(path)
    if by is None:
        return found.coordinator
    if by not in found.public_keys:
        raise IdentityError(
            f"does not name {by}, only {', '.join(found.names)}",
            place=str(path),
            remedy="leave --by out for the coordinator",
        )
    return found.public_keys[by]
