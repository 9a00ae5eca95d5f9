"""Who may take part now: the register, read anew as soon as its file is another one.

    fedner enrol revoke NAME    writes register.json; the gate and the coordinator look at it

Guarantees:
    - A node gets a request through only while the register approves its key: looked at before a
      head is believed, and again when its body is whole. Revoking needs no restart, and what comes
      after `fedner enrol revoke` has returned is refused.
    - A register that is missing or damaged lets nobody in and counts all as away, until it is whole
      again; both are said in the log.
    - An institution that is revoked, has left, or is enrolled with other keys than at the start, is
      as one whose node is away, and is named once.

What it has sent before counts: its reply may be in a sum already.
"""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from common.errors import IdentityError
from common.identity.enrolment import EnrolmentRequest, Register, node_pem
from common.io.flower_internals import (
    NodeRefusedError,
    authenticated_node,
    key_in,
    unknown_key,
)
from common.io.register_file import REGISTER, read_register
from server.mail import Mail

log = logging.getLogger("fedner.server")

_UNREADABLE: Final = {"detail": "the register can't be read just now, try again"}


class Approvals:
    """The register of a federation's folder, as it is now.

    Args:
        folder: that `fedner provision` made.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._mark: tuple[int, ...] | None = ()
        self._register: Register | None = None
        self._said = ""

    def look(self) -> Register | None:
        """The register; `None` while it is missing or damaged.

        Read only if its file changed, or could not be read the last time.
        """
        mark = self._mark_now()
        if mark != self._mark or self._register is None:
            self._mark = mark
            self._register = self._read()
        return self._register

    def _mark_now(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._folder / REGISTER)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self) -> Register | None:
        try:
            register = read_register(self._folder)
        except IdentityError as error:
            if str(error) != self._said:
                log.error("nobody is let in: %s", error)
            self._said = str(error)
            return None
        self._said = ""
        return register


class Admission:
    """What the gate asks of a head: a signature by a registered node's key that is approved now.

    Args:
        app: Flower's ASGI application.
    """

    def __init__(self, app: Any, approvals: Approvals):
        self._app, self._approvals = app, approvals
        self._of: Register | None = None
        self._keys: frozenset[bytes] = frozenset()

    async def node_of(self, scope: Mapping[str, Any]) -> int:
        """The node's number.

        Raises:
            NodeRefusedError: its key is not approved or not registered, or the signature is wrong.
        """
        self.require(scope)
        return await authenticated_node(self._app, scope)

    def require(self, scope: Mapping[str, Any]) -> None:
        """Refuse a head whose key the register does not approve now.

        Raises:
            NodeRefusedError: 401, or 503 while the register can't be read.
        """
        register = self._approvals.look()
        if register is None:
            raise NodeRefusedError(503, _UNREADABLE)
        if register is not self._of:
            self._keys = frozenset(node_pem(r.node_key) for r in register.approved.values())
            self._of = register
        if key_in(scope) not in self._keys:
            raise unknown_key(scope["path"])


class ApprovedMail:
    """`server.mail.Mail` to the nodes of institutions that are approved now.

    Args:
        owners: institution by node id.
        on_ended: told once of each that is no more, and `revoked`, `left` or `not-enrolled`; also
            of one that is enrolled with new keys, which only a server that is started anew takes.
    """

    def __init__(
        self,
        mail: Mail,
        approvals: Approvals,
        owners: Mapping[int, str],
        on_ended: Callable[[str, str], None],
    ):
        self._mail, self._approvals, self._owners = mail, approvals, owners
        self._on_ended = on_ended
        self._begun: Mapping[str, EnrolmentRequest] | None = None
        self._told: set[str] = set()
        self.send, self.fetch, self.drop = mail.send, mail.fetch, mail.drop

    def online(self) -> Collection[int]:
        """Nodes that can be reached and may be asked."""
        register = self._approvals.look()
        if register is None:
            return frozenset()
        if self._begun is None:
            self._begun = register.approved
        for name in set(self._owners.values()) - self._told:
            if not self._is_approved(name, register):
                self._told.add(name)
                self._on_ended(name, register.ended_as(name))
        return frozenset(
            node for node in self._mail.online() if self._owners.get(node) not in self._told
        )

    def _is_approved(self, name: str, register: Register) -> bool:
        begun = self._begun or {}
        return name in begun and register.approved.get(name) == begun[name]
