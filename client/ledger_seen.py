"""What a site's audit log has seen of its privacy ledger.

It gives an old copy of the ledger away, and tells a recovery what a lost one had charged.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path

from common.audit.chain import Chain
from common.audit.codec import Entry
from common.audit.entries import Reply, Spend
from common.errors import BudgetError
from common.io.audit_file import Salvaged
from common.io.ledger_recovery import Logged
from common.privacy.ledger_codec import head_from_text
from common.privacy.ledger_entries import Head
from common.privacy.ledger_state import REMEDY, LedgerState, Reserved, remedy_with
from common.privacy.ledger_stated import Charged


def logged(log: Path, found: Salvaged) -> Logged:
    """What a recovery is to know. The log must have been read before the ledger."""
    chain = reduce(Chain.after, found.entries, Chain())
    entries = (*found.aside, *found.entries)
    return Logged(
        heads=_heads_in(entries),
        charges=charges_in(entries),
        check=partial(check_seen, chain, log),
    )


def check_seen(chain: Chain, log: Path, state: LedgerState | None) -> None:
    """Refuse a ledger that lacks the newest head or reserve in a log, or is another one.

    One that follows a lost ledger by a recovery is right: not all ids of lost ones are known.

    Args:
        chain: where the log stands. It must have been read before the ledger, if a worker may be
            at work.
        log: the log's file, for errors.

    Raises:
        BudgetError: an older copy was put back, or a ledger was begun where one was.
    """
    head = _head(chain.ledger)
    if head is not None and _is_old(state, head.ledger, lambda s: s.holds(head)):
        raise _old(f"the head {head}", log, remedy_with(head))
    spend = chain.spend
    if spend and _is_old(state, spend.ledger, lambda s: _has(s, spend)):
        remedy = REMEDY.replace("budget recover`", "budget recover --old-copy`")
        raise _old(f"the charge of entry {spend.reserve} of ledger {spend.ledger}", log, remedy)


def charges_in(entries: Iterable[Entry]) -> tuple[Charged, ...]:
    """What a log tells of charges, one for each ledger, study and unit: the greatest figures."""
    charges: dict[tuple[str, str, str], Charged] = {}
    for body in (e.body for e in entries if isinstance(e.body, Spend)):
        one = Charged(
            study=body.study, unit=body.unit, epsilon=body.epsilon, delta=body.delta,
            ledger=body.ledger, reserve=body.reserve,
        )  # fmt: skip
        key = (one.ledger, one.study, one.unit)
        charges[key] = charges.get(key, one).or_more(one)
    return tuple(charges.values())


def _heads_in(entries: Iterable[Entry]) -> tuple[Head, ...]:
    """The newest head of each ledger that a log's replies name."""
    heads = (_head(e.body.ledger) for e in entries if isinstance(e.body, Reply))
    return tuple({head.ledger: head for head in heads if head is not None}.values())


def _head(text: str) -> Head | None:
    """`None` for an empty text, and for a number that no ledger of a site's own has."""
    with suppress(BudgetError):
        return head_from_text(text)
    return None


def spend_of(reserved: Reserved) -> Spend:
    """A reserve, as the log has it."""
    body = reserved.body
    return Spend(
        study=body.study, round=body.round, purpose=body.purpose, attempt=body.attempt,
        unit=body.unit, epsilon=body.epsilon, delta=body.delta, target=body.target,
        ledger=reserved.ledger, reserve=reserved.seq,
    )  # fmt: skip


def _is_old(state: LedgerState | None, ledger: str, holds: Callable[[LedgerState], bool]) -> bool:
    """Whether a ledger lacks what is known of the one with this id."""
    if state is None or state.opened.ledger != ledger:
        return state is None or state.recovered is None
    return not holds(state)


def _has(state: LedgerState, spend: Spend) -> bool:
    reserved = state.reserves.get(spend.reserve)
    return reserved is not None and spend_of(reserved) == spend


def _old(what: str, log: Path, remedy: str) -> BudgetError:
    return BudgetError(
        f"has {what}, which the privacy ledger has not: it is an older copy, or another",
        place=str(log),
        remedy=remedy,
    )
