"""A ledger in one JSON file for others: entries, key and figures; and what of it can be believed.

Guarantees:
    - `check_export` accepts an export only if everything in it follows from its signed entries,
      but for the caps, which it returns: the site's policy stands in no entry.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from common.errors import BudgetError
from common.privacy.events import UNITS
from common.privacy.ledger import Cap
from common.privacy.ledger_report import Account, summary
from common.privacy.ledger_state import LedgerState

TOLERANCE: Final = 1e-6
"""Relative: the accountants' libraries round differently from one version to the next."""

_ABSENT: Final = object()
_KEYS: Final = {"format", "institution", "public_key", "head", "summary", "entries"}


def export_of(
    state: LedgerState, lines: bytes, caps: Sequence[Cap], account: Account
) -> dict[str, Any]:
    """The content of an export.

    Args:
        lines: of the ledger, verified.
        caps: of the site's policy.
    """
    return {
        "format": state.opened.format,
        "institution": state.opened.institution,
        "public_key": state.opened.public_key,
        "head": str(state.head),
        "summary": summary(state, caps, account),
        "entries": [json.loads(line) for line in lines.splitlines()],
    }


def check_export(
    data: bytes, state: LedgerState, account: Callable[[], Account]
) -> tuple[Cap, ...] | None:
    """Compare what an export says with what its entries give; epsilons up to `TOLERANCE`.

    Args:
        data: the file that `state` was verified from.
        account: gives the accountants; called only if there are figures to be computed.

    Returns:
        The caps that its figures are read against, which nobody has signed; `None` if `data` is a
        ledger's file and no export.

    Raises:
        BudgetError: naming the first difference, or a name that is not known or stands twice.
    """
    told = _object(data)
    if told is None:
        return None
    if unknown := sorted(set(told) - _KEYS):
        raise _wrong(unknown[0], "is no part of an export")
    caps = _caps_in(told["summary"]) if "summary" in told else ()
    true: dict[str, Any] = {
        "format": state.opened.format,
        "institution": state.opened.institution,
        "public_key": state.opened.public_key,
        "head": str(state.head),
    }
    if "summary" in told:
        true["summary"] = summary(state, caps, account())
    for name in sorted(_KEYS & set(told) - {"entries"}):
        _compare(name, told[name], true[name])
    return caps


def _object(data: bytes) -> dict[str, Any] | None:
    """The JSON object, if it is one with entries. Raises BudgetError if a name stands twice."""
    try:
        whole = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return whole if isinstance(whole, dict) and "entries" in whole else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise _wrong(next(n for n in names if names.count(n) > 1), "stands twice")
    return content


def _caps_in(told: object) -> tuple[Cap, ...]:
    """The caps that a summary's rows name.

    Raises:
        BudgetError: they are no caps.
    """
    rows = told.get("units") if isinstance(told, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise _wrong("summary.units", "is no list of units")
    caps = [_cap(f"summary.units[{number}]", row) for number, row in enumerate(rows)]
    return tuple(cap for cap in caps if cap is not None)


def _cap(place: str, row: Mapping[str, Any]) -> Cap | None:
    unit, delta = row.get("unit"), row.get("delta")
    known = next((u for u in UNITS if u == unit), None)
    if known is None or not isinstance(delta, float) or not 0 < delta < 1:
        raise _wrong(place, "names no unit with a delta between 0 and 1")
    limits = [row.get("cap"), row.get("cap_per_study")]
    if not all(one is None or (isinstance(one, float) and math.isfinite(one)) for one in limits):
        raise _wrong(place, "has a cap that is no number")
    if limits == [None, None]:
        return None
    return Cap(unit=known, delta=delta, epsilon_lifetime=limits[0], epsilon_per_study=limits[1])


def _compare(place: str, told: object, true: object) -> None:
    """Raise BudgetError at the first difference."""
    if isinstance(told, Mapping) and isinstance(true, Mapping):
        for name in sorted({*map(str, told), *map(str, true)}):
            _compare(f"{place}.{name}", told.get(name, _ABSENT), true.get(name, _ABSENT))
    elif isinstance(told, list) and isinstance(true, list):
        for number, (one, other) in enumerate(zip_longest(told, true, fillvalue=_ABSENT)):
            _compare(f"{place}[{number}]", one, other)
    elif not (told == true if place.endswith(".delta") else _is_same(told, true)):
        raise _wrong(place, f"says {_shown(told)}, its entries give {_shown(true)}")


def _is_same(told: object, true: object) -> bool:
    if isinstance(told, float) and isinstance(true, float):
        return math.isclose(told, true, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(told) is type(true) and told == true


def _shown(value: object) -> str:
    if isinstance(value, Mapping | list):
        return "another structure"
    return "nothing" if value is _ABSENT else ascii(value)[:120]


def _wrong(place: str, what: str) -> BudgetError:
    return BudgetError(
        what,
        place=place,
        remedy="do not rely on this export: ask the institution for its `ledger.jsonl`, or for "
        "another export made and checked with the same version of fedner",
    )
