"""Folders and logs that no other user of the machine may read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.errors import ConfigError


def make_private(folder: Path) -> None:
    """Close a folder to other users: one that was made before fedner did so may be open.

    Raises:
        ConfigError: it is another user's.
    """
    with _another_users(folder):
        folder.chmod(0o700)


def open_log(path: Path) -> BinaryIO:
    """A log, open at its end and made if there is none; closed to other users.

    Raises:
        ConfigError: file or folder is another user's.
    """
    with _another_users(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        except BaseException:
            os.close(descriptor)
            raise
    return os.fdopen(descriptor, "ab")


@contextmanager
def _another_users(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ConfigError(
            f"can't be kept by this user (number {os.geteuid()}) and from all others: "
            f"{error.strerror}",
            place=str(path),
            remedy="start as the user who owns the folder; or, as root, give the folder with all "
            f"in it to this one: chown -R {os.geteuid()} FOLDER",
        ) from None
