"""What the coordinator asks of whoever carries its bytes, and what waiting for them costs."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from common.wire import Kind

_GRACE_PART: Final = 0.25
"""Of the study's deadline."""


def doubled(first: float, most: float, times: int) -> float:
    """A wait that doubles so many times, up to its longest; of any number of times."""
    return min(most, first * 2.0 ** min(times, 32))


class Lost(Enum):
    """Why there is no answer, which is logged."""

    ON_THE_WAY = auto()
    """The node is away, or what was sent to it, or from it, is gone."""
    FAILED = auto()
    """The institution's own doing."""
    TOO_LARGE = auto()
    """More bytes than a reply can have: it was not taken."""


Take = Callable[[str, bytes | Lost], None]
"""Told an institution's name and its reply, once it is whole, or `Lost.TOO_LARGE`."""
Leaving = Callable[[], None]
"""Called once, just before the first of a trip's requests leaves; not if none does."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A request, whole only while it is sent: the model in it is one object for all institutions.

    Attributes:
        parts: `common.wire.in_parts`.
    """

    parts: tuple[bytes, ...] = field(repr=False)

    @property
    def head(self) -> bytes:
        """All up to the model, which it names."""
        return self.parts[0]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


class Mail(Protocol):
    """How bytes reach nodes."""

    def online(self) -> Collection[int]:
        """Nodes that can be reached."""

    def send(
        self, kind: Kind, round_: int, requests: Mapping[int, Letter], ttl: float, most: int
    ) -> list[str]:
        """Send each node its request, to be answered within `ttl` seconds, in at most `most` bytes.

        Returns:
            A message's id for each request, in order; empty where it could not be sent.
        """

    def fetch(self, messages: Collection[str], most: int) -> Iterator[tuple[str, bytes | Lost]]:
        """What is whole since, with the message that it answers, one after the other.

        Waits for nothing; nothing of more than `most` bytes is taken.
        """

    def drop(self, messages: Collection[str]) -> None:
        """Nobody awaits an answer to these any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What waiting costs.

    Attributes:
        poll_s: between two looks for replies.
        look_s: between two looks for nodes.
        grace_s: longest that all trips of a run together wait for a node that says nothing.
        sleep, clock: of this process, unless a test has its own.
    """

    poll_s: float = 0.1
    look_s: float = 1.0
    grace_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def grace(self, deadline_s: float) -> float:
        """Seconds, in a study with this deadline."""
        return min(self.grace_s, _GRACE_PART * deadline_s)
