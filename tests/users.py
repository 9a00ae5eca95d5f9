"""Processes of other OS users, as the unit files start them: no capabilities, nothing to gain.

Each runs in a mount namespace of its own, with users and groups of the test's, and in which Python
and this checkout can be read wherever they lie. Only root can make it.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import client

GROUP, WORKER, RELAY, STRANGER = 41_009, 41_001, 41_002, 41_003
NAMES = {WORKER: "fedner-worker", RELAY: "fedner-relay", STRANGER: "stranger"}
GROUPS = {WORKER: [WORKER, GROUP], RELAY: [RELAY, GROUP], STRANGER: [STRANGER]}
GROUP_NAME = "fedner-door"

LOCAL_SOCKETS_ONLY = """
import ctypes, platform, runpy, struct, sys
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]  # of socket(2)
rules = [  # a family that is not AF_UNIX (1) is EAFNOSUPPORT (97): RestrictAddressFamilies=AF_UNIX
    (0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 1, 0, 1),
    (0x06, 0, 0, 0x00050000 | 97), (0x06, 0, 0, 0x7FFF0000),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]

program = Program(len(rules), ctypes.addressof(code))
if ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit("the kernel took no filter")
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""`-c LOCAL_SOCKETS_ONLY MODULE ...` runs a module that can make Unix sockets and no others."""


def can_be_made() -> bool:
    """Whether this process may become other users, with mounts of their own."""
    if os.geteuid() != 0:
        return False
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], check=False)
    return tried.returncode == 0


needed = pytest.mark.skipif(
    not can_be_made(), reason="only root can become other users in namespaces of their own"
)


class Users:
    """Makes command lines.

    Args:
        folder: of the test's, outside of folders that only this user may walk through.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        names = [f"{name}:x:{user}:{user}::/:/bin/false" for user, name in NAMES.items()]
        groups = [f"{name}:x:{user}:" for user, name in NAMES.items()]
        members = ",".join((NAMES[WORKER], NAMES[RELAY]))
        (folder / "passwd").write_text("root:x:0:0::/root:/bin/sh\n" + "\n".join(names) + "\n")
        groups = ["root:x:0:", *groups, f"{GROUP_NAME}:x:{GROUP}:{members}"]
        (folder / "group").write_text("\n".join(groups) + "\n")

    def command(self, user, *argv, network=True, writable=None, groups=None):
        """A command of another user's.

        Args:
            network: whether it sees this machine's interfaces; else none but a dead loopback.
            writable: the only folders that can be written to; all, if absent.
        """
        script = ["set -e", *self._mounts()]
        if writable is not None:
            script += [f"mount --bind {shlex.quote(str(p))} {shlex.quote(str(p))}"
                       for p in writable]  # fmt: skip
            script += ["mount -o remount,ro,bind /"]
        wanted = ",".join(map(str, groups if groups is not None else GROUPS[user]))
        script += [
            f"exec setpriv --reuid {user} --regid {user} --groups {wanted} --no-new-privs "
            '--inh-caps=-all --bounding-set=-all "$@"'
        ]
        net = () if network else ("--net",)
        return ["unshare", "--mount", *net, "sh", "-c", "\n".join(script), "sh", *map(str, argv)]

    def python(self, user, *argv, **how):
        """`command` with this Python."""
        return self.command(user, sys.executable, "-P", *argv, **how)

    def _mounts(self):
        for name in ("passwd", "group"):
            yield f"mount --bind {shlex.quote(str(self.folder / name))} /etc/{name}"
        hidden = {}
        for path in {Path(sys.base_prefix), Path(sys.prefix), Path(client.__file__).parents[1]}:
            closed = [p for p in reversed(path.parents) if not p.stat().st_mode & 1]
            if closed:
                hidden.setdefault(closed[0], []).append(path)
        for closed, paths in hidden.items():
            aside = [self.folder / "aside" / str(i) for i, _ in enumerate(paths)]
            for path, place in zip(paths, aside, strict=True):
                yield f"mkdir -p {shlex.quote(str(place))}"
                yield f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(place))}"
            yield f"mount -t tmpfs -o mode=0755 none {shlex.quote(str(closed))}"
            for path, place in zip(paths, aside, strict=True):
                yield f"mkdir -p {shlex.quote(str(path))}"
                yield f"mount --bind {shlex.quote(str(place))} {shlex.quote(str(path))}"


def own(path: Path, user: int) -> None:
    """Give a folder and all in it to a user, with nothing for others."""
    for each in (path, *path.rglob("*")):
        os.chown(each, user, user)
        each.chmod(0o700 if each.is_dir() else 0o600)
