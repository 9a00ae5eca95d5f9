"""One certificate authority after another: institutions trust both until all have the new one.

    authority/        whose certificates the server shows
    authority-next/   begun: institutions are sent both certificates
    authority-old/    the server has moved: institutions still trust both

    ca.crt in sites/NAME/   one certificate, or two while a rotation is under way

Guarantees:
    - No step overwrites or deletes a key that is still needed: the old authority's is gone only
      with `end_rotation`.
    - Each step can be run again after a crash in the middle of it.
    - The server's certificate moves only to an authority whose rotation was begun, so that there
      was a file with both to send.
"""

import datetime
import os
import shutil
from pathlib import Path
from typing import Final

from cryptography import x509

from common.errors import IdentityError
from common.io.certificate_files import (
    AUTHORITY,
    SERVER,
    create_authority,
    move_server,
    open_authority,
    read_certificate,
)
from common.io.disk import DISK
from common.io.identity_files import os_errors

CURRENT: Final = "authority"
NEXT: Final = "authority-next"
OLD: Final = "authority-old"


def trusted(root: Path) -> bytes:
    """What institutions are sent as `ca.crt`: the current certificate, and the other, if any."""
    others = (root / name / AUTHORITY for name in (NEXT, OLD) if (root / name).is_dir())
    with os_errors(root):
        return b"".join(path.read_bytes() for path in (root / CURRENT / AUTHORITY, *others))


def _require_current(root: Path) -> None:
    """Refuse a step without the authority's folder, before anything is written."""
    if not any((root / name / AUTHORITY).is_file() for name in (CURRENT, OLD)):
        raise IdentityError(
            "is not there",
            place=str(root / CURRENT),
            remedy="bring the folder here from where it is kept",
        )


def begin_rotation(
    root: Path, name: str, passphrase: str | None, now: datetime.datetime, days: int
) -> x509.Certificate:
    """Make the next authority beside the current one; its certificate.

    Raises:
        IdentityError: a rotation is under way, the authority is not there, or the passphrase is too
            short.
    """
    _require_current(root)
    under_way = next((n for n in (NEXT, OLD) if os.path.lexists(root / n)), None)
    if under_way is not None:
        step = "move" if under_way == NEXT else "end"
        raise IdentityError(
            "is there already: a rotation is under way",
            place=str(root / under_way),
            remedy=f"finish it first: `--rotate {step}`",
        )
    return create_authority(root / NEXT, name, passphrase, now, days)


def move_to_next(
    root: Path,
    passphrase: str | None,
    hosts: tuple[str, ...],
    now: datetime.datetime,
    days: int,
) -> None:
    """Give the server certificates of the next authority, which becomes the current one.

    Raises:
        IdentityError: no rotation was begun, the authority is not there, or the key does not open.
    """
    _require_current(root)
    if not os.path.lexists(root / NEXT):
        raise IdentityError(
            "is not there: no rotation was begun",
            place=str(root / NEXT),
            remedy="`--rotate begin`, and send institutions the certificates first",
        )
    move_server(root / SERVER, open_authority(root / NEXT, passphrase), hosts, now, days)
    with os_errors(root):
        if not os.path.lexists(root / OLD):  # else a crash came between the two
            (root / CURRENT).rename(root / OLD)
        (root / NEXT).rename(root / CURRENT)
        DISK.fsync_folder(root)


def end_rotation(root: Path) -> None:
    """Forget the old authority, whose key is deleted.

    Raises:
        IdentityError: the server has not moved, or it still shows the old one's certificates.
    """
    if not os.path.lexists(root / OLD) or os.path.lexists(root / NEXT):
        raise IdentityError(
            "is not there: the server has not moved to another authority",
            place=str(root / OLD),
            remedy="`--rotate begin`, then `--rotate move`",
        )
    if read_certificate(root / SERVER / AUTHORITY) != read_certificate(root / CURRENT / AUTHORITY):
        raise IdentityError(
            "is not the current authority's",
            place=str(root / SERVER / AUTHORITY),
            remedy="put the folder `server` back that `--rotate move` wrote",
        )
    with os_errors(root):
        shutil.rmtree(root / OLD)
        DISK.fsync_folder(root)
