"""`fedner config`: check a study or a site file; every key there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from client.sides import check_start
from client.witness import Witness
from common.config.canonical import study_hash
from common.config.reference import reference
from common.config.site import Budget, Site
from common.config.study import Study
from common.errors import PolicyError
from common.io.configs import load_any, load_study
from common.io.standing import institution_standing
from common.policy import decide
from common.privacy.plan import Plan, plan_of
from common.privacy.statement import NoisedCountsStatement, Statement, statement, steps_in_words
from scripts.console import out, show_notices

app = typer.Typer(help="Study and site files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Study and site files."""


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A study or a site file.")],
) -> None:
    """Check a file against the schema; a site also against its study, by its own policy.

    A study with privacy is shown with its plan: noise, epsilon by three accountants, batches,
    steps, and what is not covered.

    Example: fedner config check configs/quickstart.yaml
    """
    config = load_any(path)
    if isinstance(config, Study):
        out.print(f"{path}: study {config.study}, sha256 {study_hash(config)}", highlight=False)
        show_notices(config)
        _show_plans(config, config.federation.institutions)
        return
    study = load_study(path.parent / config.study)
    now = Witness(config, path.parent).at_start()
    decision = decide(study, config.policy, config.institution, now)
    if not decision.allowed:
        raise PolicyError(
            str(decision),
            place=str(path),
            remedy="take part in another study, or change the site's policy on purpose",
        )
    check_start(config, path)
    if study.secure is not None:
        institution_standing(config, path.parent, study)
        out.print(f"roster {config.policy.roster_sha256}, with this site's key", highlight=False)
    out.print(
        f"{path}: site {config.institution}, takes part in {study.study}, "
        f"sha256 {study_hash(study)}",
        highlight=False,
    )
    show_notices(study)
    _show_plans(study, (config.institution,))
    _show_caps(study, config)


@app.command("reference")
def print_reference() -> None:
    """Print every key of every configuration file, with type, default and meaning, as Markdown.

    Example: fedner config reference > configuration.md
    """
    typer.echo(reference(), nl=False)


def _show_plans(study: Study, institutions: tuple[str, ...]) -> None:
    if study.local_privacy is None:
        return
    said = statement(study, institutions[0])
    out.print(_figures(said))
    table = _table("batches", "units declared", "expected in a step", "noise of the mean gradient")
    for name in institutions:
        table.add_row(name, *_batch(plan_of(study, name), study.local_privacy.declared_at(name)))
    out.print(table)
    for line in _promises(said):
        out.print(line, markup=False, highlight=False)


def _promises(said: Statement) -> Iterator[str]:
    for adversary in said.adversaries:
        yield (
            f"against {adversary.who}: epsilon {adversary.epsilon:.4f}, delta "
            f"{adversary.delta:g}; rests on {adversary.relies_on}"
        )
    yield from (f"covered: {sentence}" for sentence in said.covered)
    yield from (f"not covered: {sentence}" for sentence in said.not_covered)


def _figures(said: Statement) -> Table:
    table = Table(title="privacy plan", title_justify="left", box=box.SIMPLE, show_header=False)
    rows = {
        "unit": f"{said.unit}: {said.unit_is}; {said.neighbours}",
        "mechanism": said.mechanism,
        **{
            f"epsilon, {name}": "no figure" if value is None else f"{value:.4f}"
            for name, value in said.epsilon_by.items()
        },
        "delta": f"{said.delta:g}",
        "accountant": said.accountant,
        "noise multiplier": f"{said.noise_multiplier:g} × clip {said.clip:g}",
        "sampling rate": f"{said.sampling_rate:g}",
        "steps": steps_in_words(said),
        "evaluation": _evaluation(said.evaluation),
        "settings": said.settings_from,
    }
    if said.epsilon_without_spare is not None:
        rows["epsilon if no spare round is used"] = f"{said.epsilon_without_spare:.4f}"
    if said.epsilon_with_search is not None:
        rows["epsilon with the search"] = f"{said.epsilon_with_search:.4f}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _evaluation(evaluation: str | NoisedCountsStatement) -> str:
    if isinstance(evaluation, str):
        return evaluation
    return (
        f"{evaluation.evaluations} times, noise multiplier {evaluation.noise_multiplier:g} × "
        f"clip {evaluation.clip}, within the epsilon above"
    )


def _batch(plan: Plan, declared: int) -> tuple[str, str, str]:
    mechanism = plan.mechanism
    noise = mechanism.noise_stddev / mechanism.divisor
    return f"{declared:,}", f"{mechanism.divisor:,.1f}", f"{noise:.3g} on each weight"


def _show_caps(study: Study, site: Site) -> None:
    if study.local_privacy is None or not site.policy.budget:
        return
    plan = plan_of(study, site.institution)
    table = _table("caps of the site", "delta", "cap per study", "this study", "left", "lifetime")
    for budget in site.policy.budget:
        table.add_row(budget.unit, *_cap(plan, budget, study.local_privacy.unit))
    out.print(table)
    out.print("what a lifetime's cap has left stands in the ledger: `fedner budget show`")


def _cap(plan: Plan, budget: Budget, unit: str) -> tuple[str, ...]:
    spent = plan.epsilon_with_search(budget.delta) if budget.unit == unit else None
    cap, lifetime = budget.epsilon_per_study, budget.epsilon_lifetime
    return (
        f"{budget.delta:g}",
        "none" if cap is None else f"{cap:g}",
        "another unit" if spent is None else f"{spent:.4f}",
        "" if spent is None or cap is None else f"{cap - spent:.4f}",
        "none" if lifetime is None else f"{lifetime:g}",
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table
