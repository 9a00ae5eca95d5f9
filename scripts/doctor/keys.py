"""Keys and what names them: modes, form, who they belong to, sealed or not. Nothing secret is told.

What is wrong with a file is said by the functions that `fedner client` and `fedner server` open it
with: here it is asked of all of them, one after the other.
"""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.config.site import Site
from common.config.study import Study
from common.errors import IdentityError
from common.identity.authority import OPEN_KEY_FORMAT, expiry_notice
from common.identity.enrolment import node_line
from common.identity.identity import OPEN_FORMAT
from common.io.authority_files import NEXT, OLD
from common.io.certificate_files import (
    AUTHORITY_KEY,
    NODE_KEY,
    NODE_PUBLIC,
    SERVER,
    certificate_fingerprint,
    read_authorities,
    read_node_key,
    require_authority,
    require_server,
)
from common.io.identity_files import (
    PRIVATE,
    open_private,
    os_errors,
    read_guarded,
    read_own,
    read_passphrase,
)
from common.io.register_file import NODES, read_register
from common.io.standing import coordinator_standing, institution_standing
from scripts.doctor.checks import Finding, failed, ok, warning
from server.federation import Federation

_OPEN: Final = "it lies open in its file, for whoever can read or restore it, a backup included"
_AUTHORITY_ENDS: Final = (
    "ask the coordinator for a ca.crt with the next authority: docs/provisioning.md, Renewal"
)
_SEAL: Final = "make one with a passphrase (docs/identity.md), or accept that on purpose"


def authority(path: Path, clock: Callable[[], datetime.datetime]) -> Finding:
    """The certificate that an institution trusts, or two, and how long the last of them holds."""
    now = clock()
    require_authority(path, now)
    found = read_authorities(path)
    prints = " and ".join(map(certificate_fingerprint, found))
    whose = "an authority's" if len(found) == 1 else "of two authorities, the later one first"
    said = f"{whose}; compare by telephone: {prints}"
    notice = expiry_notice(str(path), found[0], now)
    return ok(said) if notice is None else warning(f"{said}; {notice}", _AUTHORITY_ENDS)


def node(folder: Path) -> Finding:
    """A node key, and the public half beside it."""
    line, path = node_line(read_node_key(folder).public_key()), folder / NODE_PUBLIC
    with os_errors(path):
        said = path.read_text("ascii", errors="replace").split()
    if said[:2] != line.split()[:2]:
        return failed(
            f"{path}: is not the public half of {NODE_KEY}",
            "put the two files back that were made together; enrolled is what the request held",
        )
    return ok("mode 0600, matches its public half; Flower takes no sealed node key")


def identity(folder: Path, name: str | None, passphrase: Path | None) -> Finding:
    """A long-term identity, opened as an unattended start opens it.

    Args:
        name: whose it must be; anybody's if absent.
        passphrase: the file with it, if there is one.
    """
    public = read_own(folder)
    if name is not None and public.name != name:
        return failed(
            f"{folder}: is the identity of {public.name}, not of {name}",
            "name the folder of this institution's own identity",
        )
    if is_open(folder / PRIVATE, OPEN_FORMAT):
        if passphrase is not None:
            open_private(folder, read_passphrase(passphrase))  # refuses a needless one
        return warning(f"{public.name}'s, not sealed: {_OPEN}", _SEAL)
    if passphrase is None:
        return failed(
            f"{folder}: is sealed, and no passphrase file is named: a start would need a person",
            "name one, `passphrase_file` in the site file or --passphrase-file: "
            "docs/provisioning.md, Unattended start",
        )
    open_private(folder, read_passphrase(passphrase))
    return ok(f"{public.name}'s, sealed; opens with {passphrase}")


def roster_of(site: Site, base: Path, study: Study) -> Finding:
    """The roster that this site pins, with its own key in it."""
    if study.secure is None:
        return ok("the study has no secure aggregation, and needs none")
    standing = institution_standing(site, base, study)
    return ok(f"{standing.roster.sha256}, pinned, of the study's institutions, with this key")


def server_pairs(federation: Path, hosts: tuple[str, ...], now: datetime.datetime) -> Finding:
    """Keys and certificates of the public and the loopback socket."""
    require_server(federation / SERVER, hosts, now)
    return ok(f"mode 0600, match, of this authority, for {', '.join(hosts)}")


def authority_key(folder: Path) -> Finding:
    """An authority's key, which need not lie on the server."""
    path = folder / AUTHORITY_KEY
    if not path.exists():
        return ok("not on this machine: only `fedner provision` needs it")
    if is_open(path, OPEN_KEY_FORMAT):
        return warning(f"not sealed: {_OPEN}", "move it to a machine that is not the server")
    return warning(
        "sealed, but on this machine", "keep it off the server: only `fedner provision` needs it"
    )


def rotation(federation: Path) -> Finding:
    """Whether one authority is being replaced by another, and what comes next."""
    if (federation / NEXT).is_dir():
        return warning(
            "another authority is to follow; the server still shows this one's certificates",
            "once every institution has the ca.crt with both: `fedner provision --rotate move`",
        )
    if (federation / OLD).is_dir():
        return warning(
            "the server has moved to another authority; institutions still trust the old one, too",
            "`fedner provision --rotate end`, then send each institution its ca.crt",
        )
    return ok("one authority; none is to follow")


def node_keys(federation: Path) -> Finding:
    """Register and the node keys that the server will register; no other file lies there."""
    register = read_register(federation)
    wanted = {f"{n}.pub": f"{request.node_key} {n}" for n, request in register.approved.items()}
    wrong = []
    for path in sorted((federation / NODES).glob("*")):
        with os_errors(path):
            said = path.read_text("ascii", errors="replace").strip()
        if wanted.pop(path.name, None) != said:
            wrong.append(path.name)
    if wrong or wanted:
        return failed(
            f"{federation / NODES}: not as the register says: {', '.join([*wrong, *wanted])}",
            "put the folder back from a copy, or approve the requests again: it is written then",
        )
    return ok(f"{len(register.approved)} enrolled, their node keys are the register's")


def coordinators_roster(federation: Federation, passphrase: Path | None, study: Study) -> Finding:
    """The roster that the coordinator stands on."""
    if study.secure is None:
        return ok("the study has no secure aggregation, and needs none")
    if not federation.roster.is_file():
        return failed(
            f"{federation.roster}: is not there",
            "it is written once all are enrolled: `fedner enrol list` shows who is not",
        )
    words = None if passphrase is None else read_passphrase(passphrase)
    found = coordinator_standing(federation.coordinator, words, federation.roster, study)
    return ok(f"{found.roster.sha256}, of the study's institutions, with this key")


def is_open(path: Path, open_format: str) -> bool:
    """Whether a private file says that it is not sealed.

    Raises:
        IdentityError: unreadable, open to others, or no such file.
    """
    try:
        return bool(json.loads(read_guarded(path))["format"] == open_format)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IdentityError(
            "is damaged, or no private key", place=str(path), remedy="put a copy back"
        ) from None
