"""What an institution does not allow in so many words is refused."""

import dataclasses

import pytest

from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.site import Budget, Policy
from common.config.study import Study
from common.policy import decide
from common.privacy.events import UNITS
from common.privacy.plan import plan_of
from tests.unit.test_plan import NOISED
from tests.unit.test_plan import study as private
from tests.unit.test_secagg_config import NAMES, secure

STUDY = parse_study(
    f"""\
study: s
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
training: {{rounds: 1, learning_rate: 1e-3}}
federation: {{institutions: [north, south]}}
privacy: none
secure_aggregation: none
""",
    "study.yaml",
)
OPEN = Policy(accept_privacy_none=True, accept_secure_aggregation_none=True)


def test_a_study_is_allowed_when_all_it_does_without_is_accepted() -> None:
    decision = decide(STUDY, OPEN, "north")
    assert decision.allowed
    assert decision.reasons == ()


def test_a_policy_that_says_nothing_refuses_for_both_missing_protections() -> None:
    decision = decide(STUDY, Policy(), "north")
    assert not decision.allowed
    privacy, aggregation = decision.reasons
    assert "accept_privacy_none: true" in privacy
    assert "accept_secure_aggregation_none: true" in aggregation


def test_each_missing_protection_is_refused_by_itself() -> None:
    for name in ("accept_privacy_none", "accept_secure_aggregation_none"):
        (reason,) = decide(STUDY, dataclasses.replace(OPEN, **{name: False}), "north").reasons
        assert f"`{name}: true`" in reason


def test_accepting_one_user_accepts_nothing_else() -> None:
    assert len(decide(STUDY, Policy(accept_one_user=True), "north").reasons) == 2


def test_an_institution_off_the_roster_takes_no_part() -> None:
    for name in ("west", "North", "", "north "):
        (reason,) = decide(STUDY, OPEN, name).reasons
        assert "not on the study's roster" in reason


def test_a_pinned_study_is_the_only_one_allowed() -> None:
    pinned = dataclasses.replace(OPEN, study_sha256=study_hash(STUDY))
    assert decide(STUDY, pinned, "north").allowed
    other = dataclasses.replace(
        STUDY, training=dataclasses.replace(STUDY.training, learning_rate=2e-3)
    )
    (reason,) = decide(other, pinned, "north").reasons
    assert study_hash(STUDY) in reason
    assert study_hash(other) in reason


def test_a_task_that_the_site_does_not_name_is_refused() -> None:
    """As a later version may have one: there is a single kind of task now."""
    later = dataclasses.replace(STUDY, task=dataclasses.replace(STUDY.task))
    object.__setattr__(later.task, "kind", "relations")
    (reason,) = decide(later, OPEN, "north").reasons
    assert reason == "the study's task is relations; the site's `tasks` are ner"


def test_all_reasons_are_given_at_once() -> None:
    assert len(decide(STUDY, Policy(study_sha256="0" * 64), "west").reasons) == 4


# --- studies with secure aggregation

ROSTER = "ab" * 32
PINS = Policy(accept_privacy_none=True, roster_sha256=ROSTER)


def test_a_study_with_secure_aggregation_is_allowed_where_its_roster_is_pinned() -> None:
    assert reasons(secure("{}"), PINS) == ()
    assert reasons(secure(f"{{roster_sha256: {ROSTER}}}"), PINS) == ()


def test_secure_aggregation_without_a_pinned_roster_is_refused() -> None:
    (reason,) = reasons(secure("{}"), Policy(accept_privacy_none=True))
    assert "pins no roster" in reason


def test_a_study_for_another_roster_is_refused_with_both_hashes() -> None:
    (reason,) = reasons(secure(f"{{roster_sha256: {'cd' * 32}}}"), PINS)
    assert ROSTER in reason
    assert "cd" * 32 in reason


def test_a_trusted_coordinator_is_allowed_only_in_so_many_words() -> None:
    study = secure("{adversary: semi_honest}")
    (reason,) = reasons(study, PINS)
    assert "accept_semi_honest: true" in reason
    assert reasons(study, dataclasses.replace(PINS, accept_semi_honest=True)) == ()


def test_a_smaller_cohort_than_the_sites_minimum_is_refused() -> None:
    study = secure("{}", n=5)
    assert reasons(study, dataclasses.replace(PINS, min_cohort=4)) == ()
    (reason,) = reasons(study, dataclasses.replace(PINS, min_cohort=5))
    assert "sums of 4 institutions" in reason
    assert "`min_cohort` is 5" in reason
    assert reasons(secure("{min_cohort: 5}", n=5), dataclasses.replace(PINS, min_cohort=5)) == ()


def test_accepting_a_study_without_secure_aggregation_accepts_no_weaker_one() -> None:
    policy = Policy(accept_privacy_none=True, accept_secure_aggregation_none=True)
    assert len(reasons(secure("{adversary: semi_honest}"), policy)) == 2


def test_all_that_is_weaker_is_said_at_once() -> None:
    policy = dataclasses.replace(PINS, min_cohort=9, roster_sha256="ef" * 32)
    study = secure(f"{{adversary: semi_honest, roster_sha256: {ROSTER}}}")
    assert len(reasons(study, policy)) == 3


# --- studies with privacy

ACCEPTS = Policy(accept_secure_aggregation_none=True)


def capped(unit: str, per_study: float | None = None, delta: float = 1e-5) -> Policy:
    budget = Budget(
        unit=unit,
        delta=delta,
        epsilon_per_study=per_study,
        epsilon_lifetime=None if per_study else 0.001,
    )
    return dataclasses.replace(ACCEPTS, budget=(budget,))


def reasons(study: Study, policy: Policy = ACCEPTS, name: str = NAMES[0]) -> tuple[str, ...]:
    return decide(study, policy, name).reasons


def test_a_study_with_noised_training_and_evaluation_needs_no_permission_for_privacy() -> None:
    assert reasons(private(evaluation=NOISED)) == ()
    (reason,) = reasons(private(evaluation=NOISED), Policy())
    assert "secure_aggregation" in reason


def test_exact_evaluation_beside_privacy_is_allowed_only_in_so_many_words() -> None:
    (reason,) = reasons(private())
    assert "accept_exact_evaluation: true" in reason
    assert reasons(private(), dataclasses.replace(ACCEPTS, accept_exact_evaluation=True)) == ()


def test_an_insecure_seed_is_allowed_only_in_so_many_words() -> None:
    seeded = private(evaluation=NOISED, insecure_seed="1")
    (reason,) = reasons(seeded)
    assert "accept_insecure_seed: true" in reason
    assert reasons(seeded, dataclasses.replace(ACCEPTS, accept_insecure_seed=True)) == ()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("least", UNITS)
def test_a_finer_unit_than_the_sites_minimum_is_refused(unit: str, least: str) -> None:
    policy = dataclasses.replace(ACCEPTS, minimum_unit=least)
    allowed = UNITS.index(unit) >= UNITS.index(least)
    assert decide(private(evaluation=NOISED, unit=unit), policy, "north").allowed == allowed


def test_a_study_that_costs_more_than_the_cap_is_refused_with_the_figures() -> None:
    made = private(evaluation=NOISED)
    assert reasons(made, capped("record", 4.0)) == ()
    (reason,) = reasons(made, capped("record", 3.5))
    assert f"{plan_of(made, 'north').epsilon:.4g}" in reason
    assert "`epsilon_per_study` is 3.5" in reason


def test_the_cap_is_read_at_its_own_delta() -> None:
    made = private(evaluation=NOISED)
    (reason,) = reasons(made, capped("record", 4.0, delta=1e-7))
    assert "delta 1e-07" in reason
    assert reasons(made, capped("record", 3.5, delta=1e-3)) == ()


def test_an_insecure_seed_beside_a_budget_is_refused() -> None:
    made = private(evaluation=NOISED, insecure_seed="1")
    policy = dataclasses.replace(capped("record", 100.0), accept_insecure_seed=True)
    assert any("no epsilon bounds" in reason for reason in reasons(made, policy))


def test_the_cap_counts_the_search_for_settings() -> None:
    search = (
        "{description: rates, trials: "
        "[{runs: 4, sampling_rate: 0.5, noise_multiplier: 1.0, steps: 10}]}"
    )
    made = private(evaluation=NOISED, settings_from="search", search=search)
    (reason,) = reasons(made, capped("record", 4.0))
    assert "with the search" in reason


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("cap", UNITS)
def test_only_a_cap_on_the_studys_own_unit_lets_it_pass(unit: str, cap: str) -> None:
    made = private(evaluation=NOISED, unit=unit)
    for policy in (capped(cap, 100.0), capped(cap)):
        found = reasons(made, policy)
        assert (found == ()) == (unit == cap)
        if UNITS.index(unit) < UNITS.index(cap):
            assert found == (
                f"the study protects each {unit}; the site caps the loss of each {cap}",
            )


def test_a_cap_on_a_coarser_unit_refuses_beside_one_on_the_studys_own() -> None:
    both = capped("record", 100.0).budget + capped("patient", 100.0).budget
    policy = dataclasses.replace(ACCEPTS, budget=both)
    assert len(reasons(private(evaluation=NOISED), policy)) == 1
    assert reasons(private(evaluation=NOISED, unit="patient"), policy) == ()


def test_a_study_whose_cost_is_not_to_be_found_is_refused() -> None:
    made = private(evaluation="exact", epsilon="1e-12")
    policy = dataclasses.replace(capped("record", 4.0), accept_exact_evaluation=True)
    (reason,) = reasons(made, policy)
    assert "can't be found" in reason


def test_a_site_with_a_budget_takes_no_study_without_privacy() -> None:
    policy = dataclasses.replace(capped("record", 4.0), accept_privacy_none=True)
    (reason,) = reasons(STUDY, policy)
    assert "no epsilon bounds" in reason


def test_a_stranger_to_a_study_with_privacy_is_told_so() -> None:
    (reason,) = reasons(private(evaluation=NOISED), capped("record", 4.0), "west")
    assert "not on the study's roster" in reason
