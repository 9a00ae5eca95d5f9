"""How `fedner budget` shows a ledger."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from common.identity.fingerprint import key_fingerprint
from common.privacy.ledger import Cap
from common.privacy.ledger_entries import Assumed, Recover
from common.privacy.ledger_report import ACCOUNTANTS
from common.privacy.ledger_state import LedgerState
from scripts.console import out
from scripts.highlight import visible


def show_figures(figures: Mapping[str, Any]) -> None:
    """What `summary` gives: who and how far, and two tables."""
    _show_head(figures)
    out.print(_units_table(figures["units"]))
    out.print(_studies_table(figures["studies"]))


def show_verified(path: Path, state: LedgerState, caps: Sequence[Cap] | None) -> None:
    """What was found right, and on whose word the rest rests.

    Args:
        caps: those of an export; `None` if it is none.
    """
    _say(
        [
            f"{path}: {state.seq} entries of {state.opened.institution}, {len(state.reserves)} "
            "reserves; chain and signatures are right",
            *(_followed(state.recovered) if state.recovered else ()),
            *_countersigned(state),
            *(
                ["what the export says beside its entries follows from them"]
                if caps is not None
                else ()
            ),
            *(_unsigned(cap) for cap in caps or ()),
            f"head {state.head}",
        ]
    )


def show_recovered(state: LedgerState) -> None:
    """What a recovery has assumed and kept."""
    recovered = state.recovered
    _say(
        [
            *(_counts(a) for a in (recovered.assumed if recovered else ())),
            *(f"kept as {name}" for name in (recovered.kept if recovered else ())),
            f"head {state.head}",
        ]
    )


def _followed(recovered: Recover) -> list[str]:
    ledgers = ", ".join(recovered.ledgers) or "an unknown one"
    return [
        f"follows a lost ledger ({ledgers}), since: {recovered.reason}",
        *(f"for the time before, {_counts(a)}" for a in recovered.assumed),
    ]


def _countersigned(state: LedgerState) -> list[str]:
    if state.anchored is None:
        return ["countersigned by nobody yet; a cut end shows only against a head from elsewhere"]
    key = state.anchored.public_key
    return [
        f"countersigned up to entry {state.anchored.seq}; a cut end shows only against a head from "
        "elsewhere",
        f"countersigned with {key}, fingerprint {key_fingerprint(key)}: whether it is the "
        "coordinator's, the coordinator knows (--coordinator-key)",
    ]


def _unsigned(cap: Cap) -> str:
    limits = (("lifetime", cap.epsilon_lifetime), ("per study", cap.epsilon_per_study))
    said = " and ".join(f"{value:g} {name}" for name, value in limits if value is not None)
    return f"signed by nobody: its caps per {cap.unit} at delta {cap.delta:g}, {said}"


def _counts(assumed: Assumed) -> str:
    return (
        f"per {assumed.unit}: epsilon {assumed.epsilon:g} at delta {assumed.delta:g} counts as "
        "spent"
    )


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(visible(line), markup=False, highlight=False, soft_wrap=True)


def _show_head(figures: Mapping[str, Any]) -> None:
    seen = figures["countersigned"]
    lines = [
        f"{figures['institution']}: ledger {figures['ledger']}, {figures['entries']} entries, "
        + (f"countersigned up to {seen}" if seen else "not countersigned yet"),
        f"public key {figures['public_key']}",
        f"head {figures['head']}",
    ]
    if figures["recovered"]:
        lines.append(f"recovered from a lost ledger: {figures['recovered']}")
    lines += [f"note: {note}" for note in figures["notes"]]
    _say(lines)


def _units_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    heads = ("unit", "delta", *_EPSILONS, "steps", "lifetime cap", "left", "assumed lost")
    table = _table("all studies together", heads)
    for row in rows:
        lost = row["assumed"]
        table.add_row(
            row["unit"],
            f"{row['delta']:g}",
            *(_figure(row["epsilon"][name]) for name in ACCOUNTANTS),
            str(row["steps"]),
            _figure(row["cap"], "none"),
            _figure(row["left"], ""),
            f"{lost['epsilon']:g} at {lost['delta']:g}" if lost else "",
        )
    return table


def _studies_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    heads = (
        "study", "unit", "delta", *_EPSILONS, "target", "left", "cap", "left of cap", "rounds",
        "steps", "committed", "not committed",
    )  # fmt: skip
    table = _table("by study", heads)
    for row in rows:
        table.add_row(
            f"{row['name']} {row['study'][:8]}" + (" (lost)" if row["before_recovery"] else ""),
            row["unit"],
            f"{row['delta']:g}",
            *(_figure(row["epsilon"][name]) for name in ACCOUNTANTS),
            _figure(row["target"], ""),
            _figure(row["left"], ""),
            _figure(row["cap"], "none"),
            _figure(row["left_of_cap"], ""),
            *(str(row[name]) for name in ("rounds", "steps", "committed", "uncommitted")),
        )
    return table


_EPSILONS = ("epsilon (PLD)", "PRV", "RDP")


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold", justify="left" if head in _WORDS else "right")
    return table


_WORDS = frozenset({"unit", "study"})


def _figure(value: float | None, absent: str = "unbounded") -> str:
    return absent if value is None else f"{value:.4f}"
