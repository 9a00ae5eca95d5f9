"""How our bytes travel in Flower's records: the names that relay and coordinator share."""

from enum import StrEnum
from typing import Final

RECORD: Final = "fedner"
STYPE: Final = "fedner.bytes"


class RelayRefusal(StrEnum):
    """What the relay says when it has no reply of the worker to give."""

    MALFORMED = "malformed-request"
    FAILED = "relay-failed"
    UNREACHABLE = "worker-unreachable"
    TIMEOUT = "worker-timeout"
    BUSY = "worker-busy-or-request-too-large"
    WORKER_FAILED = "worker-failed"
