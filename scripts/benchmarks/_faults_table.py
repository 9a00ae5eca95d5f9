"""The fault table in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]


def print_table(lines: Sequence[Line], names: Sequence[str]) -> None:
    """Of all rows those that were made, in the given order."""
    by_name = {line["row"]: line for line in lines}
    print("| fault | outcome | charged for it | F1 after | weights |")
    print("|---|---|---|---:|---|")
    for name in names:
        if name in by_name:
            line = by_name[name]
            cells = (line["fault"], outcome(line), spend(line), _f1(line), _equal(line))
            print(f"| {' | '.join(cells)} |")
    if "ledgers" in by_name:
        print_ledgers(by_name["ledgers"])


def print_ledgers(line: Line) -> None:
    """What each site has paid by its ledger, and what that many rounds and evaluations cost."""
    same = "all equal" if line["equal"] else "NOT all equal"
    print(f"\nmodels of the last run's {line['rounds']} rounds, faulty and undisturbed: {same}\n")
    print("| site | rounds | evaluations | charged twice | epsilon by ledger | by plan |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, paid in line["spent"].items():
        sums = " | ".join(str(paid[key]) for key in ("train", "evaluate", "twice"))
        print(f"| {name} | {sums} | {paid['epsilon']:.6f} | {paid['expected']:.6f} |")


def outcome(line: Line) -> str:
    """What came of a fault, in words."""
    if "failed" in line:
        return f"NOT SHOWN: {_short(line['failed'])}"
    if "shown" in line:
        return f"{line['shown']} (by its test)"
    if "replied" in line:
        return _policy(line)
    parts = [_sum(one) for one in line.get("sums", [])]
    return "; ".join(part for part in (*dict.fromkeys(parts), line["ended"], line["said"]) if part)


def _policy(line: Line) -> str:
    ends = "serves, refuses the request" if line["exit"] is None else f"ends with {line['exit']}"
    logged = f"`{line['code']}`" if line["logged"] else "NOT the code"
    wrong = "" if line["as_expected"] else " NOT AS EXPECTED"
    return f"worker {ends}, log has {logged}; the coordinator gets `{line['replied']}`{wrong}"


def _sum(one: Line) -> str:
    here = f"done over {len(one['survivors'])}"
    if len(one["survivors"]) < 6:
        here += f", without {', '.join(missing(one))}"
    if one["attempts"] > 1:
        here += f", attempt {one['attempts']}"
    codes = ", ".join(sorted({f"{name}: {code}" for name, _, code in one["refused"]}))
    return f"{here}, {one['seconds']:.0f} s" + (f" ({codes})" if codes else "")


def missing(one: Line) -> list[str]:
    """Who is not in a sum."""
    return [name for name in one["charged"] if name not in one["survivors"]]


def spend(line: Line) -> str:
    """What each site was charged for the rounds of a row; `WRONG` if not what they cost.

    Of a policy's row the reserves of its site. Empty where nobody looked: of a row by a test, too.
    """
    if "sums" not in line:
        return _reserves(line.get("charged"))
    parts = []
    for one in line.get("sums", []):
        charged, survivors = one["charged"], one["survivors"]
        wrong = [n for n, k in charged.items() if k > 1 or (n in survivors and k != 1)]
        vain = [n for n in missing(one) if charged[n] == 1]
        said = f"{len(survivors)} once" if not wrong else f"WRONG: {', '.join(wrong)}"
        parts.append(said + (f"; {', '.join(vain)} once, not in the sum" if vain else ""))
    return "; ".join(dict.fromkeys(parts)) or "nothing"


def _reserves(count: int | None) -> str:
    if not count:
        return "" if count is None else "nothing"
    return f"{count} reserve{'s' if count > 1 else ''}"


def _f1(line: Line) -> str:
    found = line.get("f1")
    return "" if found is None else f"{found:.4f}"


def _equal(line: Line) -> str:
    return {True: "equal", False: "OTHER", None: ""}[line.get("equal")]


def _short(text: str) -> str:
    return " ".join(text.split())[:160].replace("|", "/")
