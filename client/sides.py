"""`fedner client --side`: an institution's two sides, each supervised by a user of its own.

Guarantees:
    - The worker's side starts the worker alone: no network socket, no node key. It refuses a user
      that is not in the relay's group before anything is opened.
    - The relay's side reads the relay's file, the authority's certificate and the node key, and
      nothing of the worker's. It refuses the worker's own user.
    - Neither side runs as root, whom no mode keeps out of anything.
    - Each side starts again what ends, by the same rules as `client.supervisor`; neither needs the
      other to run. A relay without a worker answers the coordinator that there is none.
"""

import datetime
import errno
import grp
import os
import socket
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

from client.endpoint import group_id, require_member, user_name
from client.site_paths import SitePaths
from client.supervisor import (
    SAY_EVERY_S,
    await_locks,
    await_worker,
    check_runnable,
    keep_alive,
    outward_children,
    worker_child,
)
from client.uplink import Uplink
from common.config.relay import RelaySite
from common.config.site import START_LIMIT_S, Site
from common.errors import ConfigError, FederationError, PolicyError
from common.io.disk import DISK
from common.io.processes import stopping

Tell = Callable[[str], None]


class Side(StrEnum):
    """Which half of an institution a command is about."""

    WORKER = "worker"
    RELAY = "relay"


_GRACE_S: Final = 2.0
"""In which a worker that just starts may not have opened its door to the group yet."""
_CONNECT_S: Final = 5.0
_LOCK: Final = "relay-side.lock"  # not among those that a worker waits for


def check_worker(site: Site, site_path: Path) -> int:
    """Refuse what `--side worker` can't run, whoever asks; the relay's group.

    Raises:
        ConfigError: the site is for one OS user, or the group is not there.
    """
    if site.relay_group is None:
        raise ConfigError(
            "the site names no `relay_group`: worker and relay would be one OS user",
            place=str(site_path),
            remedy="add `relay_group` and `socket`: docs/deployment.md",
        )
    return group_id(site.relay_group)


def check_start(site: Site, site_path: Path) -> str:
    """Refuse what `fedner client`, or its worker's side, can't run; a notice, empty if none.

    Raises:
        PolicyError, ConfigError: see `check_worker`, or `client.supervisor.check_runnable`.
    """
    if site.relay_group is None:
        return check_runnable(site, site_path).notice
    check_worker(site, site_path)
    return ""


def supervise_worker(site: Site, site_path: Path, tell: Tell) -> None:
    """Run an institution's worker until interrupted.

    Raises:
        PolicyError: this is root.
        ConfigError: see `check_worker`, or this user is not in the group.
        FederationError: another process has the institution's state, or the worker can't start.
        FednerError: of the worker's own kind, with its exit code, where the worker ends with an
            error that a restart won't mend.
    """
    group = check_worker(site, site_path)
    require_no_root(site_path)
    require_member(group, str(site.relay_group))
    paths = SitePaths.of(site, site_path.parent)
    _make_state(paths.state, "state")
    worker = worker_child(site_path)
    with stopping(worker):
        await_locks(paths.state, tell)
        worker.start()
        await_worker(worker, paths.health, paths, site.start_limit_s, tell)
        tell(f"{site.institution}: worker is ready for the group {site.relay_group} at "
             f"{paths.socket}; logs under {paths.state}; Ctrl-C ends")  # fmt: skip
        keep_alive([worker], paths.state, tell)


def supervise_relay(relay: RelaySite, path: Path, tell: Tell) -> None:
    """Run an institution's SuperNode and relay until interrupted.

    Args:
        path: of the relay's file.

    Raises:
        PolicyError: this is root, the worker's own user, or one whom the worker lets not in.
        ConfigError: no way to the coordinator, see `Uplink.of`.
        FederationError: no worker answers in time, or another relay has this folder.
    """
    require_no_root(path)
    uplink = Uplink.of(relay, path, datetime.datetime.now(datetime.UTC))
    paths = relay_paths(relay, path)
    if uplink.notice:
        tell(uplink.notice)
    _make_state(paths.state, "state")
    lock = DISK.lock(paths.state / _LOCK)
    if lock is None:
        raise FederationError(
            "another relay runs with this folder",
            place=str(paths.state),
            remedy="one relay per institution: stop the other one",
        )
    await_socket(paths.socket, tell, relay.start_limit_s)
    children = outward_children(paths, uplink, relay.institution)
    with stopping(*children):
        for child in children:
            child.start()
        tell(f"{relay.institution}: connecting to {relay.coordinator}; logs under {paths.state}; "
             "Ctrl-C ends")  # fmt: skip
        keep_alive(children, paths.state, tell)


def relay_paths(relay: RelaySite, path: Path) -> SitePaths:
    """Of a relay's file; relative ones start at its folder."""
    base = path.parent
    return SitePaths((base / relay.state).absolute(), (base / relay.socket).absolute())


def require_no_root(path: Path) -> None:
    """Refuse to be root.

    Raises:
        PolicyError: it is.
    """
    if os.geteuid() == 0:
        raise PolicyError(
            "neither side runs as root: the relay could read the worker's files, and the worker "
            "could not tell the relay apart",
            place=str(path),
            remedy="each side as a user of its own, by the units in configs/systemd or by "
            "`runuser -u USER -- fedner client …`: docs/deployment.md",
        )


def await_socket(path: Path, tell: Tell, limit_s: float = START_LIMIT_S) -> None:
    """Wait until the worker's socket takes connections from this user.

    Raises:
        PolicyError: this user is the worker's own, or is not let in.
        FederationError: nobody listens after `limit_s`.
    """
    started, due_s = time.monotonic(), 0.0
    while why := probe(path):
        waited = time.monotonic() - started
        if why == errno.EACCES and waited > _GRACE_S:
            raise PolicyError(
                f"this user, {user_name(os.geteuid())}, may not reach the worker's socket: "
                f"{barrier(path)}",
                place=str(path),
                remedy="run the relay's side as a user in the socket's group who is not the "
                "worker's: docs/deployment.md",
            )
        if waited > limit_s:
            raise FederationError(
                f"no worker listens here ({os.strerror(why)})",
                place=str(path),
                remedy="start the worker's side, and compare `socket` in both files; for a longer "
                "wait a larger `start_limit_s` in the relay's",
            )
        if waited >= due_s:
            tell(f"waiting for the worker at {path}")
            due_s += SAY_EVERY_S
        time.sleep(0.2)
    if _owner(path) == os.geteuid():
        raise PolicyError(
            "the socket is this user's own: worker and relay would be one OS user",
            place=str(path),
            remedy="run the two sides as two users: docs/deployment.md",
        )


def _owner(path: Path) -> int:
    """Whose a socket is that took a connection just now.

    Raises:
        FederationError: it is gone.
    """
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        raise FederationError(
            "the worker ended just now",
            place=str(path),
            remedy="look at the worker's side, and start this one again",
        ) from None


def probe(path: Path) -> int:
    """Connect to a socket, and go: 0, or the error's number."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(_CONNECT_S)  # a worker that is stopped takes none
        try:
            return one.connect_ex(str(path))
        except OSError as error:  # the path is too long
            return error.errno or errno.ENAMETOOLONG


def barrier(path: Path) -> str:
    """What keeps this user out, as well as it can see that."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            return f"it can't walk through {folder}"
    try:
        found = path.lstat()
    except FileNotFoundError:
        return "it is gone"
    if found.st_uid == os.geteuid():
        return "the worker runs as the same one"
    try:
        return f"it is not in the group {grp.getgrgid(found.st_gid).gr_name}"
    except KeyError:
        return f"it is not in the group with the number {found.st_gid}"


def _make_state(state: Path, field: str) -> None:
    """The side's own folder, for nobody else.

    Raises:
        ConfigError: it can't be made, or is another user's.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
    except (PermissionError, FileExistsError) as error:
        raise ConfigError(
            f"this user, {user_name(os.geteuid())}, can't have {state}: {error.strerror}",
            place=field,
            remedy="name a folder of this side's own user, or start as that user",
        ) from None
