"""The worker's socket as a file: who may reach it, and whose it is.

Guarantees:
    * The directory is the worker's own and no wider than 0700 (0710 for one named group); the
      socket has mode 0600. A wider or foreign directory is refused.
    * For a named group the socket has mode 0060: the kernel, which looks at the owner's bits alone
      for the owner, lets that group in and not the worker's own user. So whoever speaks here runs
      as another user (or as root, whom no mode keeps out). `require_apart` tries it.
    * A path belongs to one worker: the lock file beside it is held for the worker's life.
    * Only a socket on which no one listens is removed, and never anything but a socket.
"""

import errno
import fcntl
import grp
import os
import socket
import stat
from pathlib import Path

import grpc

from client.relay import MAX_SOCKET_PATH_BYTES
from common.errors import ConfigError, FederationError, PolicyError


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
    mode = stat.S_IMODE(path.lstat().st_mode)
    path.chmod(0o600)  # one for a group keeps its owner out, who would take it for dead
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            path.chmod(mode)
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
    path.chmod(0o600 if relay_group is None else 0o060)


def require_apart(path: Path) -> None:
    """See that this very user can't reach the socket, and so that the relay is another.

    Raises:
        PolicyError: it can: the worker has the rights of root, or the file system knows no modes.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == errno.EACCES:
            return
    raise PolicyError(
        "the worker's own user can connect to the socket, so that the relay can't be told to be "
        "another user",
        place=str(path),
        remedy="run the worker as a user of its own, not as root and without CAP_DAC_OVERRIDE, on "
        "a file system with Unix permissions",
    )


def group_id(name: str) -> int:
    """The number of the group through which the relay's user comes.

    Raises:
        ConfigError: there is no such group.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"there is no group {name} on this machine",
            place="relay_group",
            remedy="make it, with the relay's user and the worker's in it: docs/policy.md",
        ) from None
