"""The worker's socket as a file: who may reach it, and whose it is.

Guarantees:
    * The directory is the worker's own and no wider than 0700 (0710 for one named group); the
      socket has mode 0600. A wider or foreign directory is refused.
    * For a named group the socket has mode 0060: the kernel, which looks at the owner's bits alone
      for the owner, lets that group in and not the worker's own user. So whoever speaks here runs
      as another user (or as root, whom no mode keeps out). `require_apart` tries it, before the
      first connection is taken.
    * The socket has its final mode from the moment on when it is there.
    * A path belongs to one worker: the lock file beside it is held for the worker's life.
    * Only a socket on which no one listens is removed, and never anything but a socket.
"""

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import Final

import grpc

from client.relay import MAX_SOCKET_PATH_BYTES
from common.errors import ConfigError, FederationError, PolicyError

MAX_CONNECTIONS: Final = 16
HANDSHAKE_LIMIT_S: Final = 10.0
IDLE_LIMIT_S: Final = 60.0


def prepare_directory(directory: Path, relay_group: int | None) -> None:
    """Make the directory, or check that it is narrow enough.

    Raises:
        FederationError: it can't be made, or is wider or another's.
    """
    mode = 0o700 if relay_group is None else 0o710
    if not directory.exists():
        _make(directory, relay_group, mode)
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


def _make(directory: Path, relay_group: int | None, mode: int) -> None:
    """For a group, the folder above must be there: somebody else has to walk through it."""
    try:
        directory.mkdir(parents=relay_group is None, mode=0o700)
        if relay_group is not None:
            os.chown(directory, -1, relay_group)
        directory.chmod(mode)
    except (FileNotFoundError, PermissionError) as error:
        raise FederationError(
            f"the socket's directory can't be made: {error.strerror}",
            place=str(directory),
            remedy=f"make {directory.parent} first, the worker's own, of mode 0711: "
            "docs/deployment.md",
        ) from None


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


def limits(max_message_bytes: int) -> tuple[tuple[str, int], ...]:
    """Options of a server on a local socket: connections, their silence, and a message's size."""
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
        ("grpc.max_concurrent_streams", MAX_CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_LIMIT_S * 1000)),
        ("grpc.max_connection_idle_ms", int(IDLE_LIMIT_S * 1000)),
        ("grpc.so_reuseport", 0),
    )


def bind(server: grpc.Server, path: Path, relay_group: int | None) -> None:
    """Listen on `path`; nothing is taken before the server starts.

    Raises:
        PolicyError: a socket for another user's relay could be reached by this one.
    """
    mode = 0o600 if relay_group is None else 0o060
    before = os.umask(0o777 & ~mode)
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(before)
    if relay_group is not None:
        os.chown(path, -1, relay_group)
    path.chmod(mode)
    if relay_group is not None:
        require_apart(path)


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


def require_member(group: int, name: str) -> None:
    """See that this process may give a file to the group.

    Raises:
        ConfigError: its user is not in the group.
    """
    if os.geteuid() != 0 and group not in {os.getegid(), *os.getgroups()}:
        raise ConfigError(
            f"the worker's user {user_name(os.geteuid())} is not in the group {name}",
            place="relay_group",
            remedy=f"usermod --append --groups {name} {user_name(os.geteuid())}, then start anew",
        )


def user_name(user: int) -> str:
    """A user's name; its number, where it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


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
            remedy="make it, with the relay's user and the worker's in it: docs/deployment.md",
        ) from None
