"""The worker's socket as a file: who may reach it, and whose it is.

Guarantees:
    * The directory is the worker's own and no wider than 0700 (0710 for one named group); the
      socket has mode 0600 (0660 for that group). A wider or foreign directory is refused.
    * A path belongs to one worker: the lock file beside it is held for the worker's life.
    * Only a socket on which no one listens is removed, and never anything but a socket.
"""

import fcntl
import os
import socket
import stat
from pathlib import Path

import grpc

from client.relay import MAX_SOCKET_PATH_BYTES
from common.errors import FederationError


def prepare_directory(directory: Path, relay_group: int | None) -> None:
    """Make the directory, or check that it is narrow enough."""
    mode = 0o700 if relay_group is None else 0o710
    if not directory.exists():
        directory.mkdir(parents=True, mode=0o700)
        if relay_group is not None:
            os.chown(directory, -1, relay_group)
        directory.chmod(mode)
    found = directory.lstat()
    wrong_group = relay_group is not None and found.st_gid != relay_group
    too_wide = stat.S_IMODE(found.st_mode) & ~mode
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or too_wide or wrong_group:
        raise FederationError(
            f"the socket's directory must be the worker's own, with mode {mode:04o} or narrower"
            + ("" if relay_group is None else f" and group {relay_group}"),
            place=str(directory),
            remedy=f"chmod {mode:o} it, or name a directory that doesn't exist yet",
        )


def claim(path: Path) -> int:
    """Lock the path for this worker's life and clear away a dead worker's socket."""
    if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
        raise FederationError(
            f"a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes",
            place=str(path),
            remedy="name a shorter path, such as one under /run",
        )
    lock_file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_stale(path)
    except BlockingIOError:
        os.close(lock_file)
        raise _taken(path) from None
    except BaseException:
        os.close(lock_file)
        raise
    return lock_file


def _remove_stale(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FederationError(
            "there is something other than a socket here",
            place=str(path),
            remedy="name another socket path",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise _taken(path)
    path.unlink()


def _taken(path: Path) -> FederationError:
    return FederationError(
        "another worker serves this socket",
        place=str(path),
        remedy="stop the other worker, or name another socket path",
    )


def bind(server: grpc.Server, path: Path, relay_group: int | None) -> None:
    """Listen on `path` and narrow its mode; the directory protects it until then."""
    server.add_insecure_port(f"unix:{path}")
    if relay_group is not None:
        os.chown(path, -1, relay_group)
    path.chmod(0o600 if relay_group is None else 0o660)
