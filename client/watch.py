"""What a session tells of a request on its way, to the audit log and to the site's own figures."""

from typing import Protocol

from common.wire import Kind, Refusal, Request


class Watch(Protocol):
    """Told by a session how a request fares, as it happens."""

    def heard(self, request: Request) -> None:
        """It can be read; whether it is allowed is not yet decided."""

    def working(self) -> None:
        """It is allowed; no data were touched for it, and nothing leaves before this returns.

        What is raised here refuses it.
        """

    def refused(self, kind: Kind, round_: int, code: Refusal, why: str) -> None:
        """It is refused; `why` is no document's text."""


class Watches:
    """Several, told in this order; with none, a session that nobody watches, as in a simulation."""

    def __init__(self, *watches: Watch):
        self._watches = watches

    def heard(self, request: Request) -> None:
        """To all."""
        for watch in self._watches:
            watch.heard(request)

    def working(self) -> None:
        """To all; what one raises refuses the request, and the rest are not told."""
        for watch in self._watches:
            watch.working()

    def refused(self, kind: Kind, round_: int, code: Refusal, why: str) -> None:
        """To all."""
        for watch in self._watches:
            watch.refused(kind, round_, code, why)
