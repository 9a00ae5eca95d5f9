"""What one stranger, one node and all together may hold of the public socket. Counts only, no I/O.

Guarantees:
    - At most `per_address` connections of one address and `connections` of all are let in; IPv6
      addresses count by their /64, which one household or machine has to itself, and IPv4 addresses
      written as IPv6 as what they are.
    - Room for a body is taken whole before its first byte is read, and given back when the answer
      is out. So all bodies together never hold more than `bodies`, a node never more than
      `node_bodies`, and a body that was begun has room to its end.
    - Of as many nodes as `node_bodies` fits into `bodies`, none takes another's room.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be held, and for how long.

    Attributes:
        max_body: bytes; Flower sends arrays in pieces of 5 MiB.
        node_bodies: bytes of bodies in one node's requests; Flower's nodes send two pieces at once.
        bodies: bytes of bodies in all requests.
        min_rate: bytes a second of a body.
        patience_s: before `min_rate` counts.
        head_s: until the first request's head is whole.
        idle_s: from one answer to the next whole head.
        answer_s: until a node has read what waits for it: an answer may have 5 MiB.
        handshake_s: for TLS.

    Raises:
        ValueError: a node's share doesn't fit a body, or all room not a node's share.
    """

    max_body: int = 16 << 20
    node_bodies: int = 64 << 20
    bodies: int = 512 << 20
    min_rate: int = 8 << 10
    patience_s: float = 20.0
    head_s: float = 20.0
    idle_s: float = 120.0
    answer_s: float = 120.0
    handshake_s: float = 10.0
    per_address: int = 64
    connections: int = 1024

    def __post_init__(self) -> None:
        if not self.max_body <= self.node_bodies <= self.bodies:
            raise ValueError("expected max_body <= node_bodies <= bodies")


class Crowd:
    """Open connections by address."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one in, if there is room."""
        block = block_of(address)
        full = self._open.total() >= self._limits.connections
        if full or self._open[block] >= self._limits.per_address:
            return False
        self._open[block] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one out."""
        self._open[block_of(address)] -= 1
        self._open += Counter()  # forget addresses that hold nothing


def block_of(address: str) -> str:
    """What an address is counted as: itself, or an IPv6 address's /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


class Room:
    """Bytes that the bodies of requests hold, by node."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._held: Counter[int] = Counter()

    @property
    def held(self) -> int:
        """Bytes, of all nodes."""
        return self._held.total()

    @contextmanager
    def body(self, node: int, size: int) -> Iterator[bool]:
        """Hold so many bytes while the context lasts; whether they were there."""
        free = self._limits.bodies - self.held
        if size > min(free, self._limits.node_bodies - self._held[node]):
            yield False
            return
        self._held[node] += size
        try:
            yield True
        finally:
            self._held[node] -= size
            self._held += Counter()  # forget nodes that hold nothing
