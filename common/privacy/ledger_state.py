"""What a privacy ledger says: entries folded one by one, each checked before it counts.

Guarantees:
    - `advance` accepts an entry only if its number, chain, time, signature and place in the order
      of kinds are right; otherwise it raises, and the state before stays as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from common.errors import BudgetError
from common.privacy.events import Unit
from common.privacy.ledger_codec import (
    NO_HASH,
    Entry,
    MalformedError,
    parse_entry,
    verify_receipt,
)
from common.privacy.ledger_entries import (
    Anchor,
    Commit,
    Head,
    Note,
    Open,
    Receipt,
    Recover,
    Reserve,
)

REMEDY: Final = (
    "change nothing in the folder; put back the newest untouched files if you have them, or run "
    "`fedner budget recover`: docs/ledger.md says when"
)

_Request = tuple[str, int, str, str]
"""Study, round, purpose, SHA-256 of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A reserve in its ledger; `vector`: SHA-256 of what was finished for it, if it was."""

    ledger: str
    seq: int
    body: Reserve
    vector: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """A verified ledger.

    Attributes:
        hashes: of the lines, in order.
        time: of the last entry, in UTC seconds.
        reserves: by number of entry.
        requests: numbers of the reserves for each request, in order.
        studies: unit and delta of each study that has a reserve, by hash.
        counterpart: public key of the first receipt, or of the last pinned one.
        anchored: the newest receipt.
        charges: numbers of the reserves and commits after what the newest receipt is of.
    """

    opened: Open
    hashes: tuple[str, ...]
    time: int
    reserves: Mapping[int, Reserved] = field(default_factory=dict)
    requests: Mapping[_Request, tuple[int, ...]] = field(default_factory=dict)
    studies: Mapping[str, tuple[Unit, float]] = field(default_factory=dict)
    counterpart: str | None = None
    anchored: Receipt | None = None
    recovered: Recover | None = None
    notes: tuple[Note, ...] = ()
    charges: tuple[int, ...] = ()

    @property
    def seq(self) -> int:
        """Number of the last entry."""
        return len(self.hashes)

    @property
    def head(self) -> Head:
        return Head(ledger=self.opened.ledger, seq=self.seq, hash=self.hashes[-1])

    def attempts(self, study: str, round: int, purpose: str, request: str) -> tuple[Reserved, ...]:
        """The reserves made for one request, oldest first."""
        numbers = self.requests.get((study, round, purpose, request), ())
        return tuple(self.reserves[number] for number in numbers)

    def holds(self, head: Head) -> bool:
        """Whether `head` is the end of this ledger or a point of its past."""
        return (
            head.ledger == self.opened.ledger
            and head.seq <= self.seq
            and self.hashes[head.seq - 1] == head.hash
        )


def advance(state: LedgerState | None, entry: Entry) -> LedgerState:
    """The state with one entry more; `None` is the state before the first.

    Raises:
        BudgetError: naming the entry's number and what is wrong with it.
    """
    if state is None:
        return _opened(entry)
    check_entry(entry.seq == state.seq + 1, state.seq + 1, f"says it is number {entry.seq}")
    check_entry(entry.prev == state.hashes[-1], entry.seq, "does not follow from the one before")
    check_entry(entry.time >= state.time, entry.seq, "is older than the one before")
    check_entry(entry.is_signed_by(state.opened.public_key), entry.seq, "has a wrong signature")
    moved = replace(state, hashes=(*state.hashes, entry.hash()), time=entry.time)
    match entry.body:
        case Reserve():
            return _reserved(moved, entry.body)
        case Commit():
            return _committed(moved, entry.body)
        case Anchor():
            return _anchored(moved, entry.body)
        case Note():
            return replace(moved, notes=(*moved.notes, entry.body))
        case Recover():
            check_entry(entry.seq == 2, entry.seq, "recovers, but is not the second")
            return replace(moved, recovered=entry.body, counterpart=entry.body.counterpart)
        case Open():
            raise bad_entry(entry.seq, "opens a ledger that is open")


def fold(lines: list[bytes]) -> LedgerState | None:
    """The state after `lines`, each without its newline.

    Raises:
        BudgetError: naming the first bad entry.
    """
    state = None
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_entry(line)
        except MalformedError as error:
            raise bad_entry(number, f"is damaged ({error})") from None
        state = advance(state, entry)
    return state


def check_known(state: LedgerState, known_head: Head | None) -> None:
    """Refuse a ledger that lacks what the counterpart has already seen of it.

    A head of a ledger that this one was recovered from is no longer looked for.

    Raises:
        BudgetError: a restored old copy, or another history.
    """
    if known_head is None or state.holds(known_head):
        return
    recovered = state.recovered
    if recovered is not None and known_head.ledger in recovered.ledgers:
        return
    if known_head.ledger != state.opened.ledger:
        message = f"the counterpart knows ledger {known_head.ledger}, this is another"
    elif known_head.seq > state.seq:
        message = f"the counterpart has seen entry {known_head.seq}, this ledger is an older copy"
    else:
        message = "the counterpart has seen another entry of this number"
    place = f"entry {min(known_head.seq, state.seq + 1)}"
    raise BudgetError(message, place=place, remedy=remedy_with(known_head))


def remedy_with(head: Head | str) -> str:
    """`REMEDY` where a head is known that the ledger has not: a recovery is to be given it."""
    return REMEDY.replace("budget recover`", f"budget recover --head {head}`")


def tells_more(state: LedgerState, receipt: Receipt) -> bool:
    """Whether a receipt is worth an entry: the first one, one with another key, or the first of
    a reserve or commit. Of anything else, receipts would fill the ledger with each other.
    """
    newest = state.anchored
    if newest is None or not state.holds(receipt.head):
        return state.holds(receipt.head)
    charged = bool(state.charges) and state.charges[0] <= receipt.seq
    return receipt.seq > newest.seq and (charged or receipt.public_key != state.counterpart)


def check_receipt(state: LedgerState, receipt: Receipt, pinned: str | None) -> None:
    """Whether a receipt is the counterpart's. Whether its head is right: see `check_known`.

    Args:
        pinned: the counterpart's public key, if known; else that of the first receipt counts.

    Raises:
        BudgetError: another key, or a wrong signature.
    """
    place = f"receipt of entry {receipt.seq}"
    key = pinned or state.counterpart or receipt.public_key
    if receipt.public_key != key:
        raise BudgetError(
            f"signed with {receipt.public_key}, the counterpart's key is {key}",
            place=place,
            remedy="ask the coordinator whether its key has changed; nothing was recorded",
        )
    if not verify_receipt(receipt, key):
        raise BudgetError(
            "the countersignature is wrong",
            place=place,
            remedy="nothing was recorded; ask the coordinator to sign again",
        )


def _opened(entry: Entry) -> LedgerState:
    if not isinstance(entry.body, Open):
        raise bad_entry(1, f"is {entry.kind}, expected open")
    check_entry(entry.seq == 1, 1, f"says it is number {entry.seq}")
    check_entry(entry.prev == NO_HASH, 1, "claims one before it")
    check_entry(entry.time >= 0, 1, "has a time before 1970")
    check_entry(entry.is_signed_by(entry.body.public_key), 1, "has a wrong signature")
    return LedgerState(opened=entry.body, hashes=(entry.hash(),), time=entry.time)


def _reserved(state: LedgerState, body: Reserve) -> LedgerState:
    number, request, kind = state.seq, _request_of(body), (body.unit, body.delta)
    earlier = state.requests.get(request, ())
    attempt = 1 + len(earlier)
    check_entry(body.attempt == attempt, number, f"is attempt {body.attempt}, expected {attempt}")
    known = state.studies.get(body.study, kind)
    check_entry(known == kind, number, "changes the unit or the delta of its study")
    reserved = Reserved(ledger=state.opened.ledger, seq=number, body=body)
    return replace(
        state,
        reserves={**state.reserves, number: reserved},
        requests={**state.requests, request: (*earlier, number)},
        studies={**state.studies, body.study: kind},
        charges=(*state.charges, number),
    )


def _committed(state: LedgerState, body: Commit) -> LedgerState:
    reserved = state.reserves.get(body.reserve)
    if reserved is None:
        raise bad_entry(state.seq, f"commits entry {body.reserve}, which is no reserve")
    check_entry(reserved.vector is None, state.seq, f"commits entry {body.reserve} again")
    done = replace(reserved, vector=body.vector)
    return replace(
        state,
        reserves={**state.reserves, body.reserve: done},
        charges=(*state.charges, state.seq),
    )


def _anchored(state: LedgerState, body: Anchor) -> LedgerState:
    receipt = body.receipt
    newest = state.anchored.seq if state.anchored else 0
    check_entry(newest < receipt.seq < state.seq, state.seq, f"anchors entry {receipt.seq}")
    check_entry(state.holds(receipt.head), state.seq, "anchors another history")
    known = body.pinned or state.counterpart in (None, receipt.public_key)
    check_entry(known, state.seq, "is countersigned with another key than before")
    check_entry(
        verify_receipt(receipt, receipt.public_key), state.seq, "has a wrong countersignature"
    )
    charges = tuple(number for number in state.charges if number > receipt.seq)
    return replace(state, anchored=receipt, counterpart=receipt.public_key, charges=charges)


def _request_of(body: Reserve) -> _Request:
    return body.study, body.round, body.purpose, body.request


def check_entry(right: bool, number: int, wrong: str) -> None:
    """Raise `bad_entry` unless `right`."""
    if not right:
        raise bad_entry(number, wrong)


def bad_entry(number: int, wrong: str) -> BudgetError:
    """The error that names an entry by its number."""
    return BudgetError(wrong, place=f"entry {number}", remedy=REMEDY)
