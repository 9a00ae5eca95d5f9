"""The folder of a site's sign-offs: a file each, `*.json`."""

from pathlib import Path
from typing import Final

from common.errors import IdentityError
from common.identity.sign_off import MAX_BYTES, SignOff

MAX_FILES: Final = 100


def read_sign_offs(folder: Path) -> tuple[tuple[SignOff, ...], tuple[str, ...]]:
    """All that can be read as a sign-off, not verified, and what is wrong with the other files.

    A file that can't be read counts for nothing: the policy then lacks its signature.
    """
    found, problems = [], []
    try:
        files = sorted(folder.glob("*.json"))
        if len(files) > MAX_FILES:
            problems.append(f"{folder}: {len(files)} files, of which {MAX_FILES} are read")
        if not folder.is_dir():
            problems.append(f"{folder}: is no folder")
    except OSError as error:
        return (), (f"{folder}: can't be read: {type(error).__name__}",)
    for file in files[:MAX_FILES]:
        try:
            found.append(read_sign_off(file))
        except IdentityError as error:
            problems.append(f"{error.place}: {error.message}")
    return tuple(found), tuple(problems)


def read_sign_off(path: Path) -> SignOff:
    """One file.

    Raises:
        IdentityError: unreadable, or none.
    """
    try:
        with path.open("rb") as stream:
            return SignOff.from_bytes(stream.read(MAX_BYTES + 1))
    except OSError as error:
        said = f"can't be read: {type(error).__name__}"
        raise IdentityError(said, place=str(path)) from None
    except IdentityError as error:
        raise IdentityError(error.message, place=str(path), remedy=error.remedy) from None
