"""A study's protection in words, for the saved model's card."""

from common.config.study import Study
from common.privacy.statement import NoisedCountsStatement, Statement, statement, steps_in_words


def protection_section(study: Study) -> str:
    """Markdown; empty for a study without a mechanism."""
    if study.local_privacy is None:
        return ""
    parts = [statement(study, name) for name in study.federation.institutions]
    said = parts[0]
    divisors = ", ".join(f"{part.institution} {part.divisor:g}" for part in parts)
    rows = [*_figures(said), ("divisors", divisors)]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    promises = "\n".join(
        f"| {a.who} | {a.epsilon:.4g} | {a.delta:g} | {a.relies_on} |" for a in said.adversaries
    )
    return (
        f"## Privacy\n\n{said.mechanism}.\n\n| | |\n|---|---|\n{table}\n\n"
        f"| against | epsilon | delta | relies on |\n|---|---|---|---|\n{promises}\n\n"
        f"Covered:\n{_list(said.covered)}\n\nNot covered:\n{_list(said.not_covered)}\n\n"
        "These are the figures of the plan. What each institution has spent in truth, repeated "
        "rounds included, stands in its own ledger.\n\n"
    )


def _figures(said: Statement) -> list[tuple[str, str]]:
    by = ", ".join(
        f"{name} {'none' if value is None else f'{value:.4g}'}"
        for name, value in said.epsilon_by.items()
    )
    rows = [
        ("unit", f"`{said.unit}`: {said.unit_is}"),
        ("neighbouring data sets", said.neighbours),
        ("epsilon", f"{said.epsilon:.4g} at delta {said.delta:g}"),
        ("by accountant", by),
        ("accountants", said.accountant),
        ("noise multiplier", f"{said.noise_multiplier:g}"),
        ("sampling rate", f"{said.sampling_rate:g}"),
        ("steps", steps_in_words(said)),
        ("clip", f"{said.clip:g}"),
        ("evaluation", _evaluation(said.evaluation)),
        ("settings", said.settings_from),
    ]
    if said.epsilon_without_spare is not None:
        rows.append(("epsilon if no spare round is used", f"{said.epsilon_without_spare:.4g}"))
    if said.epsilon_with_search is not None:
        rows.append(("epsilon with the search", f"{said.epsilon_with_search:.4g}"))
    if said.insecure_seed:
        rows.insert(
            0, ("**INSECURE SEED**", "**nothing below holds: anyone can remove the noise**")
        )
    return rows


def _evaluation(evaluation: str | NoisedCountsStatement) -> str:
    if isinstance(evaluation, str):
        return evaluation
    return (
        f"{evaluation.evaluations} times, counts clipped to {evaluation.clip} per unit, noise "
        f"multiplier {evaluation.noise_multiplier:g}"
    )


def _list(items: tuple[str, ...]) -> str:
    return "\n".join(f"- {item}" for item in items)
