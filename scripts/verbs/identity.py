"""`fedner identity`: the long-term key of an institution or of the coordinator."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import UsageError
from common.identity.fingerprint import key_fingerprint
from common.identity.identity import MIN_PASSPHRASE, PublicIdentity, require_name
from common.io.identity_files import PRIVATE, PUBLIC, create, read_own, read_passphrase, read_public
from scripts.console import err, out

NO_PASSPHRASE = (
    "NO PASSPHRASE. The private key lies open in its file: whoever can read or restore the file, "
    "a backup of it included, can act as {name} in every study."
)

app = typer.Typer(help="Long-term keys of institutions and coordinator.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Long-term keys of institutions and coordinator."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="As in the study's `federation.institutions`.")],
    folder: Annotated[Path, typer.Option("--out", help="A folder to make.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="A file of mode 0600 that holds the passphrase.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the private key open in its file.")
    ] = False,
) -> None:
    """Make an identity: a private key to keep, and a public file to give away.

    Asks for a passphrase twice, unless an option says otherwise. Never overwrites a key.

    Example: fedner identity new cardiac-centre --out identity
    """
    if no_passphrase and passphrase_file is not None:
        raise UsageError("give --passphrase-file or --no-passphrase, not both")
    require_name(name)  # before anybody thinks up a passphrase
    if no_passphrase:
        err.print(NO_PASSPHRASE.format(name=name), style="bold red", soft_wrap=True)
        passphrase = None
    elif passphrase_file is not None:
        passphrase = read_passphrase(passphrase_file)
    else:
        passphrase = _ask()
    _show(create(folder, name, passphrase))
    for line in (
        f"keep to yourself   {folder / PRIVATE}",
        f"give to the others {folder / PUBLIC}",
        "Then compare the fingerprint with them, all of it, over a line that is not the "
        "coordinator's.",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command("show")
def show(
    path: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="An identity's folder, or a public file.")
    ],
) -> None:
    """Show name, public key and fingerprint; needs no passphrase.

    Example: fedner identity show identity
    """
    _show(read_own(path) if path.is_dir() else read_public(path))


def _ask() -> str:
    text: str = typer.prompt(
        f"Passphrase, {MIN_PASSPHRASE} characters or more",
        hide_input=True,
        confirmation_prompt="The same again",
        err=True,
    )
    return text


def _show(public: PublicIdentity) -> None:
    for line in (
        f"name               {public.name}",
        f"public key         {public.public_key}",
        f"fingerprint        {key_fingerprint(public.public_key)}",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
