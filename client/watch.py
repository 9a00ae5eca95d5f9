"""What a session tells of a request on its way, to whoever keeps the audit log."""

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


class Unwatched:
    """Of a session that nobody watches, as in a simulation."""

    def heard(self, request: Request) -> None:
        """Nothing."""

    def working(self) -> None:
        """Nothing."""

    def refused(self, kind: Kind, round_: int, code: Refusal, why: str) -> None:
        """Nothing."""
