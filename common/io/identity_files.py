"""The folder of an identity: `public.json` to give away, `private.key` to keep.

Guarantees:
    - A folder is there whole or not at all, on disk when `create` returns; nothing is overwritten.
    - The private key is read only from a plain file of this user with mode 0600 or less, in a
      folder of this user with mode 0700 or less, and never through a link.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from common.errors import IdentityError
from common.identity.identity import (
    RANDOM_BYTES,
    Identity,
    PublicIdentity,
    claimed_public_key,
    new_identity,
    open_identity,
)
from common.io.credentials import credential_name, read_credential
from common.io.disk import DISK, replace_file

PUBLIC: Final = "public.json"
PRIVATE: Final = "private.key"
MAX_BYTES: Final = 1 << 16

Random = Callable[[int], bytes]


def create(
    folder: Path, name: str, passphrase: str | None, *, random: Random = os.urandom
) -> PublicIdentity:
    """Make a new identity in a folder that is not there yet.

    Raises:
        IdentityError: the folder exists or can't be made, a bad name or passphrase.
    """
    if os.path.lexists(folder):
        raise _exists(folder)
    identity, private = new_identity(name, passphrase, random(RANDOM_BYTES))
    with os_errors(folder):
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            replace_file(DISK, beside / PRIVATE, private)
            replace_file(DISK, beside / PUBLIC, identity.public.to_bytes())
            _take_place(beside, folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        DISK.fsync_folder(folder.parent)
    return identity.public


def read_public(path: Path) -> PublicIdentity:
    """A public identity: its file, or the folder that holds it.

    Raises:
        IdentityError: unreadable, malformed, or not signed by its own key.
    """
    file = path / PUBLIC if path.is_dir() else path
    with os_errors(file), file.open("rb") as stream:
        data = stream.read(MAX_BYTES)
    with _at(file):
        return PublicIdentity.from_bytes(data)


def read_own(folder: Path) -> PublicIdentity:
    """The public side of one's own identity; it must be that of the private key beside it.

    Raises:
        IdentityError: as `read_public`, or the two files are of different keys.
    """
    public = read_public(folder / PUBLIC)
    data = read_guarded(folder / PRIVATE)
    with _at(folder / PRIVATE):
        claimed = claimed_public_key(data)
    _require_same(folder, public, claimed)
    return public


def open_private(folder: Path, passphrase: str | None) -> Identity:
    """One's own identity, private key and all.

    Raises:
        IdentityError: unreadable, damaged, open to others, or a wrong passphrase; see
            `common.identity.identity.open_identity`.
    """
    public = read_public(folder / PUBLIC)
    data = read_guarded(folder / PRIVATE)
    with _at(folder / PRIVATE):
        identity = open_identity(data, passphrase)
    _require_same(folder, public, (identity.name, identity.signer.public_key))
    return identity


def read_passphrase(path: Path) -> str:
    """The first line of a file that only its owner may read, or of a credential of systemd's.

    Args:
        path: of the file; `credential:NAME`, in any folder, for a credential.

    Raises:
        IdentityError: it is not there, others may read it, or it holds no line of UTF-8.
    """
    name = credential_name(path)
    if name is None and not os.path.lexists(path):
        raise IdentityError(
            "is not there, and is named as the file with the passphrase",
            place=str(path),
            remedy="for a key that is still to be made, make it: (umask 077; openssl rand -hex 32 "
            f"> {path.name}); for one that is sealed already, put the file back that sealed it; "
            "for one without a passphrase, name no file",
        )
    data = read_guarded(path, own_folder=False) if name is None else read_credential(name)
    try:
        text = data.decode("utf-8").split("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise IdentityError(
            "holds no passphrase: expected one line of UTF-8",
            place=str(path),
            remedy="put the file back that sealed the key, or write the passphrase into its first "
            "line",
        )
    return text


def read_guarded(path: Path, *, own_folder: bool = True) -> bytes:
    """A small plain file of this user that nobody else may touch; never through a link.

    Args:
        own_folder: whether its folder must be this user's alone, too.

    Raises:
        IdentityError: whatever is not that.
    """
    with os_errors(path):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if own_folder:
                _require_own(path.parent, os.fstat(folder), 0o700)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path.name, flags, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IdentityError(
                    "is not a plain file",
                    place=str(path),
                    remedy="put a copy of the file itself there",
                )
            _require_own(path, status, 0o600)
            return stream.read(MAX_BYTES)


def _take_place(beside: Path, folder: Path) -> None:
    """Rename a folder to a name that is free; an empty folder that was just made there counts."""
    try:
        beside.rename(folder)
    except (FileExistsError, NotADirectoryError):
        raise _exists(folder) from None
    except OSError as error:
        raise (_exists(folder) if os.path.lexists(folder) else error) from None


def _exists(folder: Path) -> IdentityError:
    return IdentityError(
        "is there already; a key is never overwritten",
        place=str(folder),
        remedy="name a folder that is not there yet",
    )


def _require_own(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise IdentityError(
            "belongs to another user",
            place=str(path),
            remedy="run fedner as its owner, or make an identity of your own",
        )
    if status.st_mode & 0o077:
        raise IdentityError(
            f"others than its owner may use it (mode {status.st_mode & 0o777:04o})",
            place=str(path),
            remedy=f"chmod {mode:o} {path}; if someone may have read a key or passphrase there, "
            "make a new identity",
        )


def _require_same(folder: Path, public: PublicIdentity, claimed: tuple[str, str]) -> None:
    if claimed != (public.name, public.public_key):
        raise IdentityError(
            f"{PUBLIC} and {PRIVATE} are of different identities",
            place=str(folder),
            remedy="put the two files back that `fedner identity new` made together",
        )


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Errors of the disk as `IdentityError`, with the file's name."""
    try:
        yield
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise IdentityError(f"can't be used: {said}", place=str(path)) from None


@contextmanager
def _at(path: Path) -> Iterator[None]:
    """Errors of what a file holds, with the file's name."""
    try:
        yield
    except IdentityError as error:
        raise IdentityError(error.message, place=str(path), remedy=error.remedy) from None
