"""Commands of a Markdown page by who types them: what is read is what is run.

A fence that opens with ```` ```sh PARTY [how] ```` is a block of that party's. Other fences are
nobody's, and left out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, cast, get_args

from common.errors import ConfigError

How = Literal["", "stays", "waits"]
"""Run to its end; goes on beside what follows; runs once this party's staying block has ended."""

PARTIES: Final = ("coordinator", "institution", "everyone", "carrier", "telephone", "records")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands of one party.

    Attributes:
        line: of the page, where its commands begin; from 1.
        text: shell commands, with the last newline.
    """

    party: str
    how: How
    line: int
    text: str

    @property
    def commands(self) -> int:
        """Lines that a person types, without what a here-document holds."""
        count, end = 0, ""
        for line in self.text.splitlines():
            if end:
                end = "" if line == end else end
                continue
            count += 1
            if "<<" in line:
                end = line.partition("<<")[2].strip("'\" ")
        return count


def read_blocks(text: str, place: str, parties: Collection[str] = PARTIES) -> list[Block]:
    """All parties' blocks, in the page's order.

    Args:
        parties: who is known; whoever else a fence names is an error.

    Raises:
        ConfigError: an unknown party or word, or a fence that is not closed.
    """
    blocks: list[Block] = []
    opened: list[str] | None = None
    start, body = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if opened is None:
            if line.startswith("```"):
                opened, start, body = line[3:].split(), number, []
        elif line == "```":
            if opened[:1] == ["sh"] and len(opened) > 1:
                party, how = _checked(opened[1:], f"{place}:{start}", parties)
                made = "".join(f"{one}\n" for one in body)
                blocks.append(Block(party=party, how=how, line=start + 1, text=made))
            opened = None
        else:
            body.append(line)
    if opened is not None:
        raise ConfigError("a fence that is not closed", place=f"{place}:{start}")
    return blocks


def replaced(blocks: list[Block], changes: Mapping[str, str], place: str) -> list[Block]:
    """The blocks with some words changed, each of which must be there.

    Raises:
        ConfigError: one is not.
    """
    for old, new in changes.items():
        if not any(old in block.text for block in blocks):
            raise ConfigError(f"no block has {old!r}", place=place)
        blocks = [replace(block, text=block.text.replace(old, new)) for block in blocks]
    return blocks


def _checked(words: list[str], place: str, parties: Collection[str]) -> tuple[str, How]:
    party, how = words[0], " ".join(words[1:])
    if party not in parties or how not in get_args(How):
        raise ConfigError(
            f"found `{' '.join(words)}`",
            place=place,
            remedy=f"a party of {', '.join(parties)}, and nothing, `stays` or `waits`",
        )
    return party, cast(How, how)
