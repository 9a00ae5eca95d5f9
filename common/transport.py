"""How our bytes travel in Flower's records: the names that relay and coordinator share.

Of each message the coordinator says how large a reply to it may be, in what Flower calls its group:
the gate holds nodes to that.
"""

import re
from enum import StrEnum
from typing import Final

RECORD: Final = "fedner"
STYPE: Final = "fedner.bytes"
UNSAID_BYTES: Final = 1 << 30
"""How large a reply may be to a message that does not say: of another app than ours."""


def group_of(round_: int, most: int) -> str:
    """What Flower shows as a message's group.

    Args:
        most: bytes of a reply.
    """
    return f"{round_} {most}"


def most_in(group: str) -> int:
    """Bytes that a reply to a message of this group may have."""
    found = re.fullmatch(r"[0-9]{1,9} ([0-9]{1,15})", group)
    return int(found[1]) if found else UNSAID_BYTES


def most_on_the_way(most: int) -> int:
    """Bytes of all objects into which Flower takes a reply apart: one each 5 MiB, and few others,
    whose heads name one another."""
    return most + (most >> 12) + (1 << 16)


class RelayRefusal(StrEnum):
    """What the relay says when it has no reply of the worker to give."""

    MALFORMED = "malformed-request"
    FAILED = "relay-failed"
    UNREACHABLE = "worker-unreachable"
    TIMEOUT = "worker-timeout"
    BUSY = "worker-busy-or-request-too-large"
    WORKER_FAILED = "worker-failed"
