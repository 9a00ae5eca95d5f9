"""What of a ledger's files can be trusted after a start: all, all but a torn end, or nothing."""

import json
from dataclasses import dataclass

from common.errors import BudgetError
from common.privacy.ledger_codec import (
    MalformedError,
    entries_to_lines,
    parse_entry,
    parse_head,
)
from common.privacy.ledger_entries import Head
from common.privacy.ledger_state import (
    REMEDY,
    LedgerState,
    bad_entry,
    check_entry,
    check_known,
    fold,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What lies on disk.

    Attributes:
        state: `None` if the ledger is to be opened for the first time.
        good_bytes: length of the verified lines.
        torn: what follows them: an entry that was never acknowledged.
        unacknowledged: whether the last verified entry is one beyond `ledger.head`.
    """

    state: LedgerState | None
    good_bytes: int
    torn: bytes
    unacknowledged: bool


def examine(
    ledger: bytes | None,
    head: bytes | None,
    *,
    institution: str | None = None,
    public_key: str | None = None,
    known_head: Head | None = None,
) -> Examined:
    """Verify the ledger's file against `ledger.head` and what is known from elsewhere.

    Accepted, where n counts verified lines and "torn" is an unfinished or unparseable last line:

    | n | torn | ledger.head | what happened |
    |---|---|---|---|
    | 0 | any | none | a first start, or one that crashed; the file may be missing too |
    | 1 | no | none | crash between the first entry and its head |
    | n | no | n | nothing |
    | n | yes | n | crash while entry n + 1 was written |
    | n + 1 | no | n | crash between entry n + 1 and its head |

    Args:
        ledger, head: content of the files; `None` if missing.
        known_head: the newest head that the counterpart has countersigned, if the caller has it.

    Raises:
        BudgetError: everything else, naming the entry.
    """
    lines, torn = _split(ledger or b"")
    state = fold(lines)
    mark = head_of(head, "ledger.head")
    if state is None:
        _check_fresh(ledger, mark, known_head)
    else:
        _check_owner(state, institution, public_key)
        _check_head(state, mark, bool(torn))
        check_known(state, known_head)
    return Examined(
        state=state,
        good_bytes=sum(len(line) + 1 for line in lines),
        torn=torn,
        unacknowledged=state is not None and (mark is None or mark.seq < state.seq),
    )


def verify_file(data: bytes, public_key: str, known_head: Head | None = None) -> LedgerState:
    """Verify a ledger's file, or an export's entries, with nothing but the institution's key.

    Args:
        known_head: an entry that must be in it. One of a ledger that this one follows by a recovery
            is not: unlike the institution itself, who asks here wants to see it.

    Raises:
        BudgetError: naming the first bad entry. An unfinished last entry is bad here.
    """
    *lines, rest = _lines_of(data).split(b"\n")
    state = fold([*lines, rest] if rest else lines)
    if state is None:
        raise bad_entry(1, "is missing: the file is empty")
    _check_owner(state, None, public_key)
    _check_holds(state, known_head)
    if rest:
        raise bad_entry(state.seq, "has no end of line")
    return state


def check_counterpart(state: LedgerState, public_key: str | None) -> None:
    """Whether the newest receipt in a ledger bears this key; `None` is any, or none.

    Raises:
        BudgetError: it bears another, or there is none.
    """
    if public_key is None or (state.anchored and state.anchored.public_key == public_key):
        return
    found = (
        f"countersigned with {state.anchored.public_key}" if state.anchored else "not countersigned"
    )
    raise BudgetError(
        f"is {found}, expected to be countersigned with {public_key}",
        place=f"entry {state.anchored.seq if state.anchored else state.seq}",
        remedy="ask the coordinator for its key and its newest receipt of this institution; if "
        "they are others, do not rely on this ledger's end",
    )


def _check_holds(state: LedgerState, head: Head | None) -> None:
    check_known(state, head)
    if head is not None and not state.holds(head):
        raise BudgetError(
            f"follows ledger {head.ledger} by a recovery: entry {head.seq} of that is not in it",
            place="entry 2",
            remedy="check the file that was kept of the lost ledger (`ledger.lost-N`) against this "
            "head, and this one against its own; what counts for the time before stands in entry 2",
        )


def _lines_of(data: bytes) -> bytes:
    """The lines of a ledger, or those that an export holds."""
    try:
        whole = json.loads(data)
        return entries_to_lines(whole["entries"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return data


def _split(ledger: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines, and the torn rest: without a newline, or the last line if it is unparseable."""
    *lines, rest = ledger.split(b"\n")
    if rest or not lines:
        return lines, rest
    try:
        parse_entry(lines[-1])
    except MalformedError:
        return lines[:-1], lines[-1] + b"\n"
    return lines, b""


def head_of(data: bytes | None, place: str) -> Head | None:
    """The head in a file; `None` if there is no file.

    Raises:
        BudgetError: it is damaged.
    """
    if data is None:
        return None
    try:
        return parse_head(data)
    except MalformedError as error:
        raise BudgetError(f"is damaged ({error})", place=place, remedy=REMEDY) from None


def _check_fresh(ledger: bytes | None, mark: Head | None, known: Head | None) -> None:
    expected = mark or known
    if expected is None:
        return
    what = "is missing" if ledger is None else "has no readable entry"
    source = "ledger.head" if mark else "the counterpart"
    raise BudgetError(
        f"the ledger {what}, but {source} knows entry {expected.seq} of ledger {expected.ledger}",
        place="entry 1",
        remedy=REMEDY,
    )


def _check_owner(state: LedgerState, institution: str | None, public_key: str | None) -> None:
    opened = state.opened
    if institution not in (None, opened.institution):
        raise BudgetError(
            f"this is the ledger of {opened.institution}, expected that of {institution}",
            place="entry 1",
            remedy="check `state` in the site file; each institution has a folder of its own",
        )
    if public_key not in (None, opened.public_key):
        raise BudgetError(
            f"the ledger is signed with {opened.public_key}, expected {public_key}",
            place="entry 1",
            remedy=REMEDY,
        )


def _check_head(state: LedgerState, mark: Head | None, torn: bool) -> None:
    if mark is None:
        check_entry(state.seq == 1 and not torn, state.seq, "is there, but ledger.head is missing")
        return
    if mark.ledger != state.opened.ledger:
        raise bad_entry(1, f"opens another ledger than {mark.ledger}, which ledger.head names")
    if mark.seq > state.seq:
        what = "is damaged" if torn else "is missing"
        raise bad_entry(state.seq + 1, f"{what}; ledger.head has seen entry {mark.seq}")
    check_entry(state.holds(mark), mark.seq, "is not the one that ledger.head has seen")
    check_entry(
        state.seq <= mark.seq + (not torn),
        mark.seq,
        "is the last one in ledger.head, which is an old copy",
    )
