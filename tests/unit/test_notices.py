"""A run says which protections it has and which it does without, in fixed words."""

import dataclasses

import pytest

from common.config.load import parse_study
from common.privacy.notice import (
    EXACT_COUNTS_OF_CHANGING_COHORTS,
    EXACT_EVALUATION,
    INSECURE_SEED,
    ROSTER_NOT_IN_STUDY,
    SEMI_HONEST,
    WITHOUT_PRIVACY,
    WITHOUT_SECURE_AGGREGATION,
    notices,
)
from common.privacy.plan import plan_of
from tests.unit.test_plan import NOISED, study
from tests.unit.test_policy import STUDY
from tests.unit.test_secagg_config import PRIVATE, secure, text


def test_a_study_without_protection_says_both_notices() -> None:
    assert notices(STUDY) == (WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION)


def test_the_notices_say_so_at_their_start() -> None:
    assert WITHOUT_PRIVACY.startswith("PRIVACY: NONE.")
    assert WITHOUT_SECURE_AGGREGATION.startswith("SECURE AGGREGATION: NONE.")
    assert INSECURE_SEED.startswith("INSECURE SEED.")
    assert EXACT_EVALUATION.startswith("EVALUATION: EXACT.")


PINNED = f"roster_sha256: {'ab' * 32}"


def test_secure_aggregation_is_said_with_adversary_threshold_collusion_and_cohort() -> None:
    _, said = notices(secure(f"{{{PINNED}}}", n=8))
    assert said.startswith("SECURE AGGREGATION: MALICIOUS.")
    assert "sums over 6 to 8 institutions" in said
    assert "even if it lies" in said
    assert "at most 3 of the 8 collude" in said
    assert said.endswith("6 must stay to the end of a round.")
    assert WITHOUT_SECURE_AGGREGATION not in notices(secure(f"{{{PINNED}}}"))
    assert "sums over all 3 institutions" in notices(secure(f"{{{PINNED}}}", n=3))[1]


def test_a_coordinator_that_is_trusted_is_said_loudly_and_first() -> None:
    _, trusted, said = notices(secure(f"{{adversary: semi_honest, {PINNED}}}"))
    assert trusted == SEMI_HONEST
    assert said.startswith("SECURE AGGREGATION: SEMI-HONEST.")
    assert "if it follows the protocol" in said
    assert "even if it lies" not in said


def test_a_roster_that_the_study_does_not_name_is_said() -> None:
    assert notices(secure("{}"))[-1] == ROSTER_NOT_IN_STUDY
    assert ROSTER_NOT_IN_STUDY not in notices(secure(f"{{{PINNED}}}"))


def evaluated(n: int, rounds: int, every: int = 1, section: str = PINNED) -> tuple[str, ...]:
    """Notices of a study that evaluates so often."""
    made = secure(f"{{{section}}}", n=n)
    return notices(
        dataclasses.replace(
            made,
            training=dataclasses.replace(made.training, rounds=rounds),
            federation=dataclasses.replace(made.federation, evaluate_every=every),
        )
    )


def test_exact_counts_over_cohorts_that_may_differ_are_said_if_there_are_two_to_subtract() -> None:
    assert EXACT_COUNTS_OF_CHANGING_COHORTS in evaluated(n=4, rounds=2)
    assert EXACT_COUNTS_OF_CHANGING_COHORTS in evaluated(n=4, rounds=3, every=2)
    for once in (evaluated(n=4, rounds=1), evaluated(n=4, rounds=2, every=2)):
        assert EXACT_COUNTS_OF_CHANGING_COHORTS not in once


def test_a_cohort_that_can_not_change_is_not_said_to_show_anyones_counts() -> None:
    assert EXACT_COUNTS_OF_CHANGING_COHORTS not in evaluated(n=3, rounds=2)
    all_four = evaluated(n=4, rounds=2, section=f"min_cohort: 4, {PINNED}")
    assert EXACT_COUNTS_OF_CHANGING_COHORTS not in all_four


@pytest.mark.parametrize(
    ("evaluation", "said"), [("exact", True), ("{epsilon: 1, clip: 3}", False)]
)
def test_noised_counts_are_not_said_to_show_anyones(evaluation: str, said: bool) -> None:
    private = PRIVATE.replace("exact", evaluation)
    made = parse_study(
        text("{}").replace("privacy: none\n", private).replace("rounds: 1", "rounds: 2"), "s.yaml"
    )
    assert (EXACT_COUNTS_OF_CHANGING_COHORTS in notices(made)) == said


def test_a_weight_that_outweighs_the_rest_is_said() -> None:
    made = secure(f"{{{PINNED}}}")
    names = made.federation.institutions
    for heavy, said in ((3.0, False), (4.0, True)):
        weights = dict.fromkeys(names, 1.0) | {names[1]: heavy}
        weighted = dataclasses.replace(
            made, aggregation=dataclasses.replace(made.aggregation, weights=weights)
        )
        last = notices(weighted)[-1]
        assert last.startswith("ONE WEIGHT OUTWEIGHS THE REST.") == said
        assert (f"{names[1]} counts 57%" in last) == said


def test_local_privacy_is_said_with_unit_figures_and_adversaries() -> None:
    made = study(evaluation=NOISED)
    said, aggregation = notices(made)
    assert said.startswith("PRIVACY: LOCAL.")
    assert "`record` (one sentence)" in said
    assert f"epsilon {plan_of(made, 'north').epsilon:.4g} at delta 1e-05" in said
    for adversary in ("the public", "the coordinator", "all other institutions"):
        assert adversary in said
    assert aggregation == WITHOUT_SECURE_AGGREGATION
    assert WITHOUT_PRIVACY not in notices(made)


def test_exact_evaluation_is_said_beside_privacy() -> None:
    assert notices(study())[1:] == (EXACT_EVALUATION, WITHOUT_SECURE_AGGREGATION)


def test_an_insecure_seed_is_said_first() -> None:
    assert notices(study(insecure_seed="1"))[0] == INSECURE_SEED
    assert len(notices(study(insecure_seed="1"))) == len(notices(study())) + 1


@pytest.mark.parametrize("trials", [1, 5])
def test_a_search_on_private_data_is_said_with_its_cost(trials: int) -> None:
    made = study(
        evaluation=NOISED,
        settings_from="search",
        search="{description: rates, trials: "
        f"[{{runs: {trials}, sampling_rate: 0.5, noise_multiplier: 2.0, steps: 10}}]}}",
    )
    _, searched, _ = notices(made)
    total = plan_of(made, "north").epsilon_with_search(1e-5)
    assert searched.startswith("SETTINGS SEARCHED")
    assert f"its {trials} runs epsilon is {total:.4g} at delta 1e-05" in searched
