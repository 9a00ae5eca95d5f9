"""What lies beside a ledger's file and shows that there was more of it: an old copy tells no more.

Guarantees:
    - What a crash leaves is no trace: each of these is written only after what it is a trace of was
      acknowledged, and so is on disk. A recovery that was broken off leaves one, and is to be run
      again.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from common.errors import BudgetError
from common.privacy.ledger_codec import (
    NO_HASH,
    Entry,
    MalformedError,
    parse_entry,
    parse_head,
)
from common.privacy.ledger_entries import FORMAT, Open
from common.privacy.ledger_state import REMEDY, LedgerState

TORN: Final = "ledger.torn-"
LOST: Final = "ledger.lost-"
SEALED: Final = ".sealed"
VAULT_KEY: Final = "vault.key"
VAULT: Final = "vault"
_VECTOR: Final = re.compile(
    rf"\.?([0-9a-f]{{32}})-([1-9][0-9]{{0,15}}){re.escape(SEALED)}(\.new|\.damaged-[0-9]+)?"
)
_LAST_TIME: Final = 10**10 - 1
_BEGINS: Final = b'{"body":{"format":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Names beside a ledger.

    Attributes:
        folder: in its folder.
        vault: in its vault.
        torn: content of the unfinished ends; read only where there is no `ledger.head`.
        lost: content of what recoveries put aside.
    """

    folder: tuple[str, ...] = ()
    vault: tuple[str, ...] = ()
    torn: Mapping[str, bytes] = field(default_factory=dict)
    lost: Mapping[str, bytes] = field(default_factory=dict)


def check_first(traces: Traces, institution: str, ledger: bytes, state: LedgerState | None) -> None:
    """Refuse to begin a ledger where one was: there is no `ledger.head`, and at most one entry.

    Args:
        ledger: content of its file.

    Raises:
        BudgetError: a first start, or one that crashed, does not leave that.
    """
    first = first_bytes(institution)
    if state is None and len(ledger) > first:
        raise BudgetError(
            f"there is no readable entry in {len(ledger)} bytes, and a first start that broke off "
            f"leaves at most {first}",
            place="entry 1",
            remedy=REMEDY,
        )
    for name in _of_an_earlier(traces, first):
        what = "no ledger" if state is None else "one entry and no ledger.head"
        raise BudgetError(
            f"there is {what}, but {name} of an earlier one", place="entry 1", remedy=REMEDY
        )


def check_vectors(traces: Traces, state: LedgerState) -> None:
    """Refuse a ledger that lacks the reserve of a vector in its vault.

    A vector of another ledger is one of those that this one was recovered from: not all of their
    ids are known then.

    Raises:
        BudgetError: naming the vector.
    """
    for name in traces.vault:
        if not (parts := _VECTOR.fullmatch(name)):
            continue
        ledger, seq = parts[1], int(parts[2])
        if ledger == state.opened.ledger and seq not in state.reserves:
            raise BudgetError(
                f"is the vector of entry {seq}, which is no reserve in this ledger of {state.seq} "
                "entries: it is an older copy",
                place=f"{VAULT}/{name}",
                remedy=REMEDY,
            )
        if ledger != state.opened.ledger and state.recovered is None:
            raise BudgetError(
                f"is the vector of entry {seq} of ledger {ledger}; this is another, and follows "
                "none by a recovery",
                place=f"{VAULT}/{name}",
                remedy=REMEDY,
            )


def check_replaced(traces: Traces, state: LedgerState) -> None:
    """Refuse a ledger that a recovery has put aside.

    Raises:
        BudgetError: naming where it lies.
    """
    for name, data in traces.lost.items():
        if ledger_of(data) == state.opened.ledger:
            raise BudgetError(
                "a recovery has put this ledger aside: another follows it, or it was broken off",
                place=name,
                remedy="put back the ledger that followed; if there is none, run `fedner budget "
                "recover --old-copy` again",
            )


def ledger_of(lost: bytes) -> str | None:
    """Id of the ledger whose file or head this is; `None` if that can't be read."""
    with suppress(MalformedError):
        return parse_head(lost).ledger
    with suppress(MalformedError):
        body = parse_entry(lost.partition(b"\n")[0]).body
        return body.ledger if isinstance(body, Open) else None
    return None


def first_bytes(institution: str) -> int:
    """How long the first line of an institution's ledger is at most, with its newline."""
    body = Open(format=FORMAT, institution=institution, public_key=NO_HASH, ledger="0" * 32)
    entry = Entry(seq=1, time=_LAST_TIME, body=body, prev=NO_HASH, signature="0" * 128)
    return len(entry.line()) + 1


def _of_an_earlier(traces: Traces, first: int) -> Iterator[str]:
    """Names that are not there before a first entry and its head are."""
    yield from (name for name in traces.folder if name.startswith(LOST) or name == VAULT_KEY)
    yield from (name for name, data in traces.torn.items() if not _is_first(data, first))
    yield from (f"{VAULT}/{name}" for name in traces.vault if SEALED in name)


def _is_first(torn: bytes, first: int) -> bool:
    """Whether an unfinished end may be of a first entry: its beginning, or zeros."""
    begins = torn[: len(_BEGINS)].rstrip(b"\0")
    return len(torn) <= first and _BEGINS.startswith(begins)
