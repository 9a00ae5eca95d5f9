"""What one institution alone knows, in every form in which it could lie at the coordinator.

Guarantees:
    * A form is found wherever it stands, at any offset, and as base64 at any of three alignments.
    * Scalars are found however many digits are written, from four on; a number in the middle of a
      longer one is none.
    * Nothing is found by chance: a needle has six bytes or more, but for a single float32, which is
      not looked for in masked vectors. These are as good as random, and long.
"""

import base64
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from common.metrics.evaluation import Evaluation
from common.secagg.packing import pack

LOSS = 61826373.05541
"""Eight digits before the point: no time, size or port looks like it."""
F1 = 0.41826373055
"""Apart from the counts, whose own F1 the total's would be near."""
WINDOW = 8
"""Values in a row: 16 bytes and more, which chance does not make."""
WINDOWS = 16
SHORTEST = 6
_ALPHABETS = (base64.b64encode, base64.urlsafe_b64encode)
_FORMATS = ("{:.4f}", "{:.6f}", "{:.4g}", "{:.6g}", "{:.8g}", "{:.3e}", "{:.6e}")


@dataclass
class Known:
    """What the planted institution alone knows; `bits` is of the levels' modulus."""

    update: np.ndarray = None
    levels: np.ndarray = None
    counts: np.ndarray = None
    bits: int = 32


class PlantedEvaluation(Evaluation):
    """Counts and an F1 that no data make."""

    @classmethod
    def for_labels(cls, labels):
        size = Evaluation.size(labels)
        # nine digits, no two alike; nobody has as many words, and four times that still fits
        return cls(labels, np.arange(size, dtype=np.int64) ** 2 * 20_011 + 300_000_007)

    @property
    def f1(self):
        return F1


@dataclass(frozen=True)
class Needle:
    """One form of one thing.

    Attributes:
        starts: a number that starts with these digits, of which more may follow.
    """

    what: str
    form: str
    raw: bytes
    starts: bool = False

    def lies_in(self, data):
        """Digits beside it make it another number."""
        at = data.find(self.raw)
        while at >= 0 and self.form == "decimal" and self._is_part(data, at):
            at = data.find(self.raw, at + 1)
        return at >= 0

    def _is_part(self, data, at):
        end = at + len(self.raw)
        after = not self.starts and data[end : end + 1].isdigit()
        return data[max(0, at - 1) : at].isdigit() or after


def needles(known):
    """All that must not be found."""
    for start in windows(known.update):
        row = known.update[start : start + WINDOW]
        yield from of_row("update", row, ("f4", "f8", "f2"))
    for start in windows(known.levels) if known.levels is not None else ():
        row = known.levels[start : start + WINDOW]
        yield from of_row("levels", row, ("u4", "i4", "i8", "f4", "f8"))
        yield from in_binary("levels", "packed", pack(row, known.bits))
    for start in range(0, len(known.counts) - 3, 4):
        yield from of_row("counts", known.counts[start : start + 4], ("u4", "i8", "f4", "f8"))
    for count in known.counts.tolist():
        yield from of_count(count)
    for what, value in (("loss", LOSS), ("f1", F1)):
        yield from of_scalar(what, value)


def of_row(what, row, kinds):
    """Numbers in a row, as bytes and as text."""
    yield from in_numbers(what, row, kinds)
    values = row.tolist()
    for write in (repr, *(form.format for form in _FORMATS)):
        for gap in (", ", ",", " ", "\n", "\t"):
            yield Needle(what, "decimal", gap.join(write(n) for n in values).encode())


def of_count(count):
    """One count by itself; CBOR's and MessagePack's four bytes have a byte before them."""
    yield Needle("counts", "decimal", str(count).encode())
    yield from in_numbers("counts", [count], ("i8", "f8"))
    for form, mark in (("cbor", b"\x1a"), ("msgpack", b"\xce")):
        yield Needle("counts", form, mark + count.to_bytes(4, "big"))


def of_scalar(what, value):
    """One real number by itself, also as it is after a float32, and in percent."""
    yield from in_numbers(what, [value], ("f8", "f4"))
    yield Needle(what, "decimal", str(np.float32(value))[:8].encode(), starts=True)
    for one in (value, float(np.float32(value)), 100 * value):
        yield Needle(what, "decimal", repr(one)[:8].encode(), starts=True)
        for form in _FORMATS:
            if len(form.format(one)) >= SHORTEST:
                yield Needle(what, "decimal", form.format(one).encode())


def in_numbers(what, numbers, kinds):
    """In binary, little and big endian."""
    for kind in kinds:
        for order in "<>":
            raw = np.asarray(numbers).astype(np.dtype(kind).newbyteorder(order)).tobytes()
            yield from in_binary(what, f"{kind}{order}", raw)


def in_binary(what, form, raw):
    """Bytes as they are, in hexadecimal and in base64."""
    yield Needle(what, form, raw)
    yield Needle(what, f"hex {form}", raw.hex().encode())
    yield Needle(what, f"hex {form}", raw.hex().upper().encode())
    if len(raw) >= SHORTEST:
        yield from (Needle(what, f"base64 {form}", text) for text in in_base64(raw))
    else:  # four bytes alone make five characters at most: with the end of the text after them
        yield Needle(what, f"base64 {form}", base64.b64encode(raw))


def in_base64(raw):
    """The characters that depend on nothing else, at each of three alignments."""
    for offset in range(3):
        first, end = -(-8 * offset // 6), 8 * (offset + len(raw)) // 6
        yield from {encode(bytes(offset) + raw)[first:end] for encode in _ALPHABETS}


def windows(vector):
    """Starts of rows without a repeated value, spread over the vector; multiples of eight."""
    starts = [
        start
        for start in range(0, len(vector) - WINDOW, 8)
        if len(set(vector[start : start + WINDOW].tolist()) - {0}) == WINDOW
    ]
    return starts[:: max(1, len(starts) // WINDOWS)][:WINDOWS]


def found_in(view, things, random=()):
    """What is found: {what: {form: where}}.

    Args:
        random: masked vectors, which are cut out before a needle below `SHORTEST` is looked for.
    """
    found = {}
    for where, data in view:
        rest = data
        for vector in random:
            rest = rest.replace(vector, b"")
        for thing in things:
            if thing.lies_in(rest if len(thing.raw) < SHORTEST else data):
                found.setdefault(thing.what, {}).setdefault(thing.form, where)
    return found


def content_of(message):
    """A Flower message's metadata, error and payload."""
    said = repr(message.metadata).encode()
    if message.has_error():
        return said + repr(message.error).encode()
    parts = [said]
    for record in message.content.values():
        arrays = isinstance(record, ArrayRecord)
        parts += [a.data for a in record.values()] if arrays else [repr(dict(record)).encode()]
    return b"\n".join(parts)


def files_below(*roots):
    """(path, content) of each file, of folders and files that are there."""
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file():
                yield str(path), path.read_bytes()
