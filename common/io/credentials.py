"""Secrets that systemd hands to a service: `LoadCredentialEncrypted=NAME:...` in its unit.

systemd decrypts them at the start, by the machine's TPM or a key of root's, into a folder in memory
that only this service sees, and names the folder in `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).

Guarantees:
    - Only a plain file right in that folder is read, and never through a link.
    - Folder and file belong to root or to this user; nobody else may write there, and others may
      not read. systemd gives a service's user its access by an ACL, whose mask shows as the group's
      bits: so what is root's may have those.
    - Without the folder there is an error, and no other place is looked at.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from common.errors import IdentityError

SCHEME: Final = "credential:"
VARIABLE: Final = "CREDENTIALS_DIRECTORY"
MAX_BYTES: Final = 1 << 16
_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REMEDY: Final = "`LoadCredentialEncrypted=` in the unit: docs/provisioning.md, Unattended start"
_OUTSIDE: Final = (
    "from a shell, `systemd-run -p User= -p LoadCredentialEncrypted= -E FEDNER_HOME= fedner ...`: "
    "docs/deployment.md, Looking and rehearsing, has the whole line"
)


def credential_name(path: Path) -> str | None:
    """NAME of `credential:NAME`, in place of a path; `None` for any other path.

    Raises:
        IdentityError: something else than a name follows.
    """
    if not path.name.startswith(SCHEME):
        return None
    name = path.name.removeprefix(SCHEME)
    if not re.fullmatch(_NAME, name):
        raise IdentityError(
            f"{name[:80]!r} is not the name of a credential",
            place=SCHEME,
            remedy="letters, digits, `_`, `.` and `-`, as in the unit",
        )
    return name


def read_credential(name: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """What systemd has decrypted for this service under a name.

    Raises:
        IdentityError: not started by systemd with it, or others could have read or written it.
    """
    place = environment.get(VARIABLE, "")
    if not Path(place).is_absolute():
        raise IdentityError(
            f"systemd has handed no credentials to this process: no {VARIABLE}",
            place=f"{SCHEME}{name}",
            remedy=f"{_REMEDY}; {_OUTSIDE}",
        )
    try:
        return _read(Path(place), name)
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise IdentityError(
            f"can't be used: {said}", place=str(Path(place) / name), remedy=_REMEDY
        ) from None


def _read(folder: Path, name: str) -> bytes:
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _require_ours(folder, os.fstat(at))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError("is not a plain file", place=str(folder / name), remedy=_REMEDY)
        _require_ours(folder / name, status)
        return stream.read(MAX_BYTES)


def _require_ours(path: Path, status: os.stat_result) -> None:
    allowed = 0o050 if status.st_uid == 0 else 0
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077 & ~allowed:
        raise IdentityError(
            f"others may use it (owner {status.st_uid}, mode {status.st_mode & 0o777:04o})",
            place=str(path),
            remedy=f"let systemd make the folder: {_REMEDY}",
        )
