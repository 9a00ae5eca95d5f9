"""A plan says what the study will cost, and its noise is sized for what the study asks."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from common.config.load import parse_study
from common.config.study import Study
from common.errors import BudgetError, ConfigError
from common.privacy.accountant import epsilon as account
from common.privacy.events import GaussianSteps
from common.privacy.noise import check_truncation
from common.privacy.notice import notices
from common.privacy.plan import ACCOUNTANTS, evaluation_due, plan_of
from common.privacy.report import protection_section
from common.privacy.statement import NoisedCountsStatement, statement, steps_in_words
from scripts.verbs.config import check

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "configs" / "ncbi-4-private.yaml"
MINILM_WEIGHTS = 22_713_216

SETTINGS = {
    "mechanism": "local",
    "unit": "record",
    "epsilon": "4",
    "delta": "1e-5",
    "clip": "0.5",
    "sampling_rate": "0.1",
    "steps_per_round": "4",
    "declared_units": "{north: 200, south: 300}",
    "evaluation": "exact",
    "settings_from": "public",
}
NOISED = "{epsilon: 0.5, clip: 3}"


def study(*, rounds: int = 5, evaluate_every: int = 2, **changes: str | None) -> Study:
    """A study with privacy; a setting that is `None` is left out."""
    settings = {k: v for k, v in (SETTINGS | changes).items() if v is not None}
    text = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return parse_study(
        f"""\
study: private
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
model: {{train: full, dropout: 0}}
training: {{rounds: {rounds}, learning_rate: 1e-3}}
federation: {{institutions: [north, south], evaluate_every: {evaluate_every}}}
privacy: {{{text}}}
secure_aggregation: none
""",
        "private.yaml",
    )


def without_privacy() -> Study:
    return dataclasses.replace(study(), privacy="none")


# --- the mechanism


def test_the_mechanism_is_that_of_the_study() -> None:
    mechanism = plan_of(study(noise_multiplier="2", epsilon=None), "north").mechanism
    assert mechanism.unit == "record"
    assert (mechanism.sampling_rate, mechanism.clip, mechanism.steps_per_round) == (0.1, 0.5, 4)
    assert mechanism.noise_multiplier == 2.0
    assert mechanism.noise_stddev == 1.0


def test_a_round_is_charged_with_its_own_steps() -> None:
    plan = plan_of(study(noise_multiplier="2", epsilon=None), "north")
    expected = GaussianSteps(sampling_rate=0.1, noise_multiplier=2.0, steps=4)
    assert plan.training_event == plan.mechanism.event == expected
    assert plan.events == (dataclasses.replace(expected, steps=20),)
    assert plan.steps == plan.noise_draws == 20


def test_the_divisor_is_the_declared_expectation_of_the_institution() -> None:
    assert plan_of(study(), "north").mechanism.divisor == pytest.approx(20.0)
    assert plan_of(study(), "south").mechanism.divisor == pytest.approx(30.0)
    assert plan_of(study(declared_units="250"), "south").mechanism.divisor == pytest.approx(25.0)


def test_declared_sizes_change_the_divisor_and_nothing_else() -> None:
    north, south = plan_of(study(), "north"), plan_of(study(), "south")
    assert south.epsilon == north.epsilon
    assert south.mechanism == dataclasses.replace(north.mechanism, divisor=south.mechanism.divisor)


def test_there_is_no_plan_without_privacy_or_for_a_stranger() -> None:
    with pytest.raises(ConfigError, match="no privacy plan"):
        plan_of(without_privacy(), "north")
    for name in ("west", "", "North"):
        with pytest.raises(ConfigError, match="no privacy plan"):
            plan_of(study(), name)
        with pytest.raises(ConfigError, match="no privacy plan"):
            plan_of(study(declared_units="200"), name)


# --- what it costs


@pytest.mark.parametrize("evaluation", ["exact", NOISED])
def test_the_whole_study_costs_at_most_the_epsilon_asked_for_and_hardly_less(
    evaluation: str,
) -> None:
    plan = plan_of(study(evaluation=evaluation), "north")
    assert 0.99 * 4 < plan.epsilon <= 4
    assert plan.epsilon == account(plan.events, 1e-5)


def test_a_given_noise_multiplier_is_taken_and_epsilon_follows() -> None:
    asked = plan_of(study(), "north")
    noise = asked.mechanism.noise_multiplier
    given = plan_of(study(epsilon=None, noise_multiplier=repr(noise)), "north")
    assert given == asked
    louder = plan_of(study(epsilon=None, noise_multiplier=repr(1.5 * noise)), "north")
    assert louder.epsilon < asked.epsilon


def test_rounds_of_the_ledger_compose_to_the_plan() -> None:
    plan = plan_of(study(evaluation=NOISED), "north")
    assert plan.evaluation_event is not None
    charged = [plan.training_event] * plan.rounds + [plan.evaluation_event] * plan.evaluations
    assert account(charged, plan.delta) == pytest.approx(plan.epsilon, rel=1e-6)


def test_spare_rounds_are_inside_the_epsilon_asked_for() -> None:
    plain, spare = (plan_of(study(evaluation=NOISED, spare_rounds=k), "north") for k in ("0", "2"))
    assert plain == plan_of(study(evaluation=NOISED), "north")
    assert (spare.rounds, spare.spare_rounds, spare.steps) == (5, 2, 28)
    assert spare.noise_draws == 28 + spare.evaluations
    assert spare.evaluations == plain.evaluations
    assert 0.99 * 4 < spare.epsilon <= 4
    assert spare.mechanism.noise_multiplier > plain.mechanism.noise_multiplier
    longer = plan_of(study(evaluation=NOISED, rounds=7, evaluate_every=3), "north")
    assert longer.evaluations == spare.evaluations
    assert spare.mechanism.noise_multiplier == longer.mechanism.noise_multiplier
    assert plain.epsilon_without_spare(1e-5) == plain.epsilon
    assert spare.epsilon_without_spare(1e-5) == account(
        [spare.training_event] * 5 + [spare.evaluation_event] * 3, 1e-5
    )
    assert spare.epsilon_without_spare(1e-5) < spare.epsilon


def test_a_statement_says_epsilon_with_and_without_the_spare_rounds_used() -> None:
    made = study(spare_rounds="2")
    said, plan = statement(made, "north"), plan_of(made, "north")
    assert said.epsilon == plan.epsilon
    assert said.epsilon_without_spare == plan.epsilon_without_spare(1e-5) < plan.epsilon
    assert steps_in_words(said) == "28 (5 rounds and 2 spare ones of 4)"
    section = protection_section(made)
    assert f"| epsilon if no spare round is used | {said.epsilon_without_spare:.4g} |" in section
    assert f"epsilon is {said.epsilon_without_spare:.4g}" in " ".join(notices(made))
    assert statement(study(), "north").epsilon_without_spare is None
    assert "spare" not in protection_section(study())
    assert "SPARE" not in " ".join(notices(study()))


def test_noised_evaluation_takes_its_share_of_epsilon_from_training() -> None:
    exact, noised = plan_of(study(), "north"), plan_of(study(evaluation=NOISED), "north")
    assert exact.counts is exact.evaluation_event is None
    assert noised.counts is not None
    assert noised.mechanism.noise_multiplier > exact.mechanism.noise_multiplier
    evaluations = (noised.counts.times(noised.evaluations),)
    assert 0.49 < account(evaluations, 1e-5) <= 0.5
    assert noised.counts.noise_stddev == 3 * noised.counts.noise_multiplier
    assert noised.noise_draws == noised.steps + 3


@pytest.mark.parametrize(
    ("rounds", "every", "due"),
    [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 1, [1, 2, 3]), (2, 9, [2]), (1, 1, [1])],
)
def test_evaluations_are_those_of_the_schedule(rounds: int, every: int, due: list[int]) -> None:
    made = study(rounds=rounds, evaluate_every=every)
    assert [r for r in range(1, rounds + 1) if evaluation_due(made, r)] == due
    assert plan_of(made, "north").evaluations == len(due)


def test_an_evaluation_is_one_gaussian_mechanism_on_all_units() -> None:
    event = plan_of(study(evaluation=NOISED), "north").evaluation_event
    assert event is not None
    assert (event.sampling_rate, event.steps) == (1.0, 1)


def test_a_search_composes_its_runs_with_this_one() -> None:
    search = (
        "{description: two clips, trials: "
        "[{runs: 2, sampling_rate: 0.5, noise_multiplier: 2.0, steps: 10}]}"
    )
    plan = plan_of(study(settings_from="search", search=search), "north")
    assert plan.epsilon == plan_of(study(), "north").epsilon
    trials = GaussianSteps(sampling_rate=0.5, noise_multiplier=2.0, steps=20)
    whole = account([*plan.events, trials], 1e-5)
    assert plan.epsilon_with_search(1e-5) == pytest.approx(whole, rel=1e-6)
    assert plan.epsilon_with_search(1e-5) > plan.epsilon
    assert plan_of(study(), "north").epsilon_with_search(1e-5) == plan.epsilon


def test_the_cost_is_known_at_other_deltas() -> None:
    plan = plan_of(study(), "north")
    assert plan.epsilon_at(1e-5) == plan.epsilon
    assert plan.epsilon_at(1e-6) > plan.epsilon > plan.epsilon_at(1e-4)


def test_an_epsilon_that_no_noise_gives_is_refused() -> None:
    with pytest.raises(BudgetError):
        plan_of(study(epsilon="1e-12"), "north")


def test_the_samples_noise_reaches_far_enough_for_every_weight_of_its_encoder() -> None:
    sample = parse_study(SAMPLE.read_text("utf-8"), str(SAMPLE))
    for name in sample.federation.institutions:
        plan = plan_of(sample, name)
        added = check_truncation(MINILM_WEIGHTS, plan.noise_draws, plan.delta, plan.epsilon)
        assert added > 0
        assert plan.epsilon <= 8


# --- what a report says


def test_a_statement_has_every_figure_of_the_plan() -> None:
    made = study(evaluation=NOISED)
    plan, said = plan_of(made, "south"), statement(made, "south")
    assert (said.study, said.institution, said.unit) == ("private", "south", "record")
    assert (said.epsilon, said.delta) == (plan.epsilon, 1e-5)
    assert said.noise_multiplier == plan.mechanism.noise_multiplier
    assert (said.rounds, said.steps_per_round, said.steps) == (5, 4, 20)
    assert (said.sampling_rate, said.clip, said.divisor) == (0.1, 0.5, plan.mechanism.divisor)
    assert plan.counts is not None
    assert said.evaluation == NoisedCountsStatement(
        evaluations=3, clip=3, noise_multiplier=plan.counts.noise_multiplier
    )
    assert not said.insecure_seed


def test_three_accountants_stand_beside_each_other_and_the_tight_one_is_reported() -> None:
    said = statement(study(), "north")
    assert tuple(said.epsilon_by) == ACCOUNTANTS == ("pld", "prv", "rdp")
    assert said.epsilon == said.epsilon_by["pld"] <= said.epsilon_by["rdp"]
    assert said.epsilon_by["prv"] == pytest.approx(said.epsilon, rel=0.02)


def test_every_adversary_of_the_local_mechanism_has_the_same_figures() -> None:
    said = statement(study(), "north")
    public, coordinator, colluding = said.adversaries
    assert "public" in public.who
    assert "coordinator" in coordinator.who
    assert "colluding" in colluding.who
    for adversary in said.adversaries:
        assert (adversary.epsilon, adversary.delta) == (said.epsilon, said.delta)


def test_a_statement_names_what_is_not_covered() -> None:
    exact, noised = statement(study(), "north"), statement(study(evaluation=NOISED), "north")
    assert exact.evaluation == "exact"
    assert any("held-out units" in s for s in exact.not_covered)
    assert not any("held-out" in s for s in exact.covered)
    assert not any("held-out units" in s for s in noised.not_covered)
    assert any("held-out" in s for s in noised.covered)
    for said in (exact, noised):
        assert any(f"epsilon {2 * said.epsilon:.4g}" in s for s in said.not_covered)
        assert any("k records of one patient" in s for s in said.not_covered)
        assert any("other studies" in s for s in said.not_covered)


def test_a_study_on_patients_does_not_warn_of_a_patients_many_records() -> None:
    said = statement(study(unit="patient"), "north")
    assert not any("of one patient" in s for s in said.not_covered)
    assert any("several institutions" in s for s in said.not_covered)


@pytest.mark.parametrize(
    ("unit", "context", "words"),
    [
        ("record", "sentence", "one sentence"),
        ("record", "document", "one document"),
        ("document", "sentence", "one document"),
        ("patient", "document", "all records of one patient"),
    ],
)
def test_the_unit_is_said_in_words(unit: str, context: str, words: str) -> None:
    made = study(unit=unit)
    made = dataclasses.replace(made, text=dataclasses.replace(made.text, context=context))
    assert statement(made, "north").unit_is == words


def test_the_cost_of_a_search_is_stated_with_what_it_was() -> None:
    search = (
        "{description: two clips, trials: "
        "[{runs: 2, sampling_rate: 0.5, noise_multiplier: 2.0, steps: 10}]}"
    )
    said = statement(study(settings_from="search", search=search), "north")
    assert said.epsilon_with_search is not None
    assert said.epsilon_with_search > said.epsilon
    assert "2 more runs" in said.settings_from
    assert "two clips" in said.settings_from
    free = statement(study(), "north")
    assert free.epsilon_with_search is None
    assert free.settings_from == "found on public data: no cost"


def test_a_statement_is_plain_json() -> None:
    said = statement(study(evaluation=NOISED, insecure_seed="3"), "north")
    content = json.loads(json.dumps(said.as_dict(), allow_nan=False))
    assert content["insecure_seed"] is True
    assert content["epsilon_by"]["pld"] == said.epsilon
    assert content["evaluation"]["evaluations"] == 3
    assert math.isfinite(content["adversaries"][0]["epsilon"])


def test_there_is_no_statement_without_privacy() -> None:
    with pytest.raises(ConfigError):
        statement(without_privacy(), "north")


# --- what the command line shows


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    check(path)
    return " ".join(capsys.readouterr().out.split())


def test_config_check_shows_the_plan_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(SAMPLE, capsys)
    sample = parse_study(SAMPLE.read_text("utf-8"), str(SAMPLE))
    said = statement(sample, "north")
    for name, value in said.epsilon_by.items():
        assert f"epsilon, {name} {value:.4f}" in text
    assert f"noise multiplier {said.noise_multiplier:g} × clip {said.clip:g}" in text
    for name in sample.federation.institutions:
        assert f"{name} {said.divisor / said.sampling_rate:,.0f} {said.divisor:,.1f}" in text
    for sentence in (*said.covered, *said.not_covered):
        assert sentence in text


def test_config_check_of_a_site_shows_what_its_caps_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(SAMPLE.read_text("utf-8"))
    (tmp_path / "site.yaml").write_text(
        """\
institution: east
study: study.yaml
coordinator: 127.0.0.1:9192
state: state
data: {train: {format: jsonl, path: a}, test: {format: jsonl, path: b}}
policy:
  accept_secure_aggregation_none: true
  accept_exact_evaluation: true
  accept_one_user: true
  budget: [{unit: record, delta: 1e-5, epsilon_per_study: 100, epsilon_lifetime: 200}]
"""
    )
    text = shown(tmp_path / "site.yaml", capsys)
    sample = parse_study(SAMPLE.read_text("utf-8"), str(SAMPLE))
    epsilon = plan_of(sample, "east").epsilon_with_search(1e-5)
    assert f"record 1e-05 100 {epsilon:.4f} {100 - epsilon:.4f} 200" in text
    assert "fedner budget show" in text
    assert "north" not in text


def test_config_check_of_a_study_without_privacy_shows_no_plan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "plan" not in shown(ROOT / "configs" / "ncbi-4.yaml", capsys)
