"""Whether an audit log is what was written: read to its end, line by line.

Guarantees:
    * A changed byte, and a line that was removed, put in or moved, is found, with its number.
    * A cut end shows against a head that is kept elsewhere, and against nothing else.
    * Without signatures all of this holds only against someone who does not make the chain anew.
      With them, against everyone without the key; whose key it is, only he can say who has it from
      elsewhere (`keys`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from common.audit.chain import Chain
from common.audit.codec import Entry, Head, MalformedError, hash_of, parse_entry

MAX_UNFINISHED: Final = 1 << 20
"""The longest end with lost pages, in bytes, that a crash can leave: no more is written at once."""

_Line = tuple[bytes, Entry | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a line, counted from 1."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line} {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a log is found to be.

    Attributes:
        entries: all that can be read.
        chain: after the last of them.
        broken: what shows that the log is not what was written, in order of lines.
        notes: keys that change, a clock set back, a process that ended without a word.
        lines: whole ones.
        unfinished: an end as a crash may leave it: part of a line, a last line that is no entry,
            or lost pages, which read as zeros.
        whole: bytes before it.
    """

    entries: tuple[Entry, ...]
    chain: Chain
    broken: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    lines: int
    unfinished: bytes
    whole: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """All that speaks against the log, an unfinished end included, in order of lines."""
        if not self.unfinished:
            return self.broken
        what = f"is unfinished or damaged ({len(self.unfinished)} bytes): a crash leaves that, too"
        return tuple(sorted((*self.broken, Finding(line=self.lines + 1, what=what)), key=_line_of))


def examine(data: bytes, keys: Sequence[str] = (), heads: Sequence[Head] = ()) -> Examined:
    """Read a log to its end.

    Args:
        keys: public keys, one of which must have signed each entry; any will do if empty.
        heads: which the log must hold.
    """
    lines, unfinished = _split(data)
    reading = _Reading()
    for line, entry in lines:
        reading.take(line, entry, keys)
    broken = [*reading.broken, *_lacking(reading.chain, reading.hashes, heads)]
    return Examined(
        entries=tuple(reading.entries),
        chain=reading.chain,
        broken=tuple(sorted(broken, key=_line_of)),
        notes=tuple(reading.notes),
        lines=len(lines),
        unfinished=unfinished,
        whole=len(data) - len(unfinished),
    )


def readable(data: bytes) -> tuple[Entry, ...]:
    """Every line that is an entry, wherever it stands and whatever is wrong around it."""
    parsed = (_parsed(line) for line in data.split(b"\n"))
    return tuple(entry for entry in parsed if not isinstance(entry, str))


@dataclass(slots=True)
class _Reading:
    """What was found so far; `hashes`: of all lines."""

    chain: Chain = field(default_factory=Chain)
    entries: list[Entry] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    broken: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def take(self, line: bytes, entry: Entry | str, keys: Sequence[str]) -> None:
        if isinstance(entry, str):
            self._say(self.broken, f"is no entry: {entry}")
            self.chain = replace(self.chain, seq=self.chain.seq + 1, hash=hash_of(line))
        else:
            self._follow(entry, keys)
        self.hashes.append(self.chain.hash)

    def _follow(self, entry: Entry, keys: Sequence[str]) -> None:
        before, self.chain = self.chain, self.chain.after(entry)
        self._say(self.broken, before.wrong(entry) or _not_by(self.chain, keys))
        for note in before.notes(entry):
            self._say(self.notes, note)
        self.entries.append(entry)

    def _say(self, to: list[Finding], what: str) -> None:
        if what:
            to.append(Finding(line=len(self.hashes) + 1, what=what))


def _split(data: bytes) -> tuple[list[_Line], bytes]:
    """Whole lines, each with its entry or what is wrong with it, and the unfinished end."""
    *whole, rest = data.split(b"\n")
    lines = [(line, _parsed(line)) for line in whole]
    bad = next((i for i, (_, entry) in enumerate(lines) if isinstance(entry, str)), len(lines))
    end = b"\n".join([*whole[bad:], rest])
    only_the_last = bad >= len(lines) - (not rest)
    lost_pages = b"\0" in end and len(end) <= MAX_UNFINISHED
    return (lines[:bad], end) if only_the_last or lost_pages else (lines, rest)


def _line_of(found: Finding) -> int:
    return found.line


def _parsed(line: bytes) -> Entry | str:
    try:
        return parse_entry(line)
    except MalformedError as error:
        return str(error)


def _not_by(chain: Chain, keys: Sequence[str]) -> str:
    if not keys or chain.key in keys:
        return ""
    return f"is signed with {chain.key}" if chain.key else "is signed by nobody"


def _lacking(chain: Chain, hashes: Sequence[str], heads: Sequence[Head]) -> Iterator[Finding]:
    """What a head shows: another log, a cut end, another history."""
    opened = chain.opened
    for head in heads:
        if opened is None or opened.log != head.log:
            yield Finding(line=1, what=f"opens another log than {head.log}, which a head names")
        elif head.seq > len(hashes):
            what = f"is missing: a head from elsewhere has seen line {head.seq}"
            yield Finding(line=len(hashes) + 1, what=what)
        elif hashes[head.seq - 1] != head.hash:
            yield Finding(line=head.seq, what="is another than a head from elsewhere has seen")
