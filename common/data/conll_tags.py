"""IOB1, IOB2 and IOBES: entities of one sentence as one tag per token, and back.

IOB1 (Ramshaw & Marcus 1995; Tjong Kim Sang & Veenstra 1999): `I-X` opens an entity unless the
token before is in an entity of type X; `B-X` is used only where an entity follows another one
immediately, so it is refused after `O` and at the start of a sentence (the file is then IOB2).
IOB2: `B-X` opens every entity, `I-X` continues one of type X.
IOBES: `B-X I-X* E-X` for two tokens and more, `S-X` for one.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from common.data.report import check_label
from common.errors import DataError

Scheme = Literal["iob1", "iob2", "iobes"]
TokenSpan = tuple[int, int, str]
"""First token, token after the last, label."""

PREFIXES: dict[Scheme, str] = {"iob1": "IB", "iob2": "BI", "iobes": "BIES"}


def decode_tags(
    tags: Sequence[str], scheme: Scheme, place: Callable[[int], str]
) -> tuple[TokenSpan, ...]:
    """Entities of one sentence, in order.

    Args:
        tags: `[tokens]`.
        place: where the tag with this index stands, for errors.

    Raises:
        DataError: an unknown prefix, no label, or a tag that the scheme does not allow here.
    """
    spans: list[TokenSpan] = []
    start, label = 0, ""  # label "" : outside
    for index, tag in enumerate(tags):
        prefix, new_label = split_tag(tag, scheme, place(index))
        if fault := _fault(scheme, prefix, new_label, label):
            raise DataError(fault, place=place(index), remedy="correct the tag or the `scheme`")
        if label and _closes_before(scheme, prefix, new_label, label):
            spans.append((start, index, label))
            label = ""
        if new_label and not label:
            start, label = index, new_label
        if prefix in ("E", "S"):
            spans.append((start, index + 1, label))
            label = ""
    if label and scheme == "iobes":
        raise DataError(
            "expected the entity to end with E- before the sentence does",
            place=place(len(tags) - 1),
            remedy="correct the tag or the `scheme`",
        )
    return (*spans, (start, len(tags), label)) if label else tuple(spans)


def split_tag(tag: str, scheme: Scheme, place: str) -> tuple[str, str]:
    """`B-X` to `("B", "X")`, `O` to `("O", "")`."""
    if tag == "O":
        return "O", ""
    prefix, dash, label = tag.partition("-")
    if len(prefix) != 1 or prefix not in PREFIXES[scheme] or not dash:
        expected = ", ".join(f"{letter}-LABEL" for letter in PREFIXES[scheme])
        raise DataError(
            f"expected a tag of {scheme}: O, {expected}",
            place=place,
            remedy="check `column` (which column holds the tags) and `scheme`",
        )
    return prefix, check_label(label, place)


def _closes_before(scheme: Scheme, prefix: str, new_label: str, label: str) -> bool:
    """Whether the open entity ended with the token before."""
    return prefix in ("O", "B") or (scheme == "iob1" and new_label != label)


def _fault(scheme: Scheme, prefix: str, new_label: str, label: str) -> str | None:
    """What is wrong with this tag after a token of entity `label` ("" outside)."""
    continues = prefix in ("I", "E") and scheme != "iob1"
    if continues and new_label != label:
        return f"{prefix}- continues no entity of its type; expected B- first"
    if scheme == "iobes" and label and not continues:
        return "expected the entity before to end with E-"
    if scheme == "iob1" and prefix == "B" and not label:
        return "B- follows no entity; in iob1 an entity opens with I-"
    return None


def encode_tags(spans: Sequence[TokenSpan], tokens: int, scheme: Scheme) -> list[str]:
    """Tags `[tokens]` of ascending, disjoint entities."""
    tags = ["O"] * tokens
    for first, last, label in spans:
        tags[first:last] = [f"I-{label}"] * (last - first)
        after_same = first > 0 and tags[first - 1][2:] == label
        if scheme != "iob1" or after_same:
            tags[first] = f"B-{label}"
        if scheme == "iobes":
            tags[last - 1] = f"E-{label}"
            if last - first == 1:
                tags[first] = f"S-{label}"
    return tags
