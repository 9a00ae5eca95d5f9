"""One line of an audit log after the other: what must hold for each, given those before.

Guarantees:
    * A line is wrong unless it has the next number, names the hash of the line before, is `open`
      exactly if it is the first, and is signed with the key that stands, or by nobody if none does.
    * The key that stands is that of the newest `open` or `start`, that entry included.
"""

from dataclasses import dataclass

from common.audit.codec import NO_HASH, Entry, Head
from common.audit.entries import Open, Reply, Spend, Start, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Where a log stands after some entries; as constructed, before the first.

    Attributes:
        seq, hash: of the last line.
        time: of the last entry.
        key: public key that signs; `None`: nobody does.
        running: whether a process started and has not said that it ended.
        spend: the newest one.
        ledger: head of the privacy ledger in the newest reply that has one: at a site, its own.
    """

    seq: int = 0
    hash: str = NO_HASH
    time: int = 0
    key: str | None = None
    opened: Open | None = None
    running: bool = False
    spend: Spend | None = None
    ledger: str = ""

    @property
    def head(self) -> Head | None:
        """`None` for an empty log."""
        if self.opened is None:
            return None
        return Head(log=self.opened.log, seq=self.seq, hash=self.hash)

    def after(self, entry: Entry) -> "Chain":
        """One entry further on, whether or not it is right."""
        body = entry.body
        return Chain(
            seq=entry.seq,
            hash=entry.hash(),
            time=entry.time,
            key=self._key_at(entry),
            opened=body if isinstance(body, Open) and self.opened is None else self.opened,
            running=isinstance(body, Start) or (self.running and not isinstance(body, Stop)),
            spend=body if isinstance(body, Spend) else self.spend,
            ledger=(body.ledger if isinstance(body, Reply) else "") or self.ledger,
        )

    def wrong(self, entry: Entry) -> str:
        """What is wrong with an entry that comes next; empty if nothing is."""
        if entry.seq != self.seq + 1:
            return f"says it is number {entry.seq}, expected {self.seq + 1}"
        if entry.prev != self.hash:
            return "does not follow from the line before"
        if isinstance(entry.body, Open) != (self.seq == 0):
            return f"is `{entry.kind}`: a log has `open` first, and only there"
        return self._wrongly_signed(entry)

    def _wrongly_signed(self, entry: Entry) -> str:
        key = self._key_at(entry)
        if key is None:
            return "is signed, and no key stands for it" if entry.signature else ""
        if not entry.signature:
            return "is not signed"
        return "" if entry.is_signed_by(key) else "has a wrong signature"

    def notes(self, entry: Entry) -> list[str]:
        """What a reader should know of an entry that comes next, though nothing is wrong."""
        said = []
        key = self._key_at(entry)
        if key != self.key and self.seq:
            said.append(
                f"and those after it are signed with {key or 'no key'}, another than before"
            )
        if entry.time < self.time:
            said.append(
                f"is {self.time - entry.time} s older than the line before: a clock was set"
            )
        if isinstance(entry.body, Start) and self.running:
            said.append("starts a process; the one before ended without a word")
        return said

    def _key_at(self, entry: Entry) -> str | None:
        body = entry.body
        return body.public_key if isinstance(body, Open | Start) else self.key
