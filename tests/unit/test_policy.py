"""What an institution does not allow in so many words is refused."""

import dataclasses

from common.config.canonical import study_hash
from common.config.load import parse_study
from common.config.site import Policy
from common.policy import decide

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


def test_all_reasons_are_given_at_once() -> None:
    assert len(decide(STUDY, Policy(study_sha256="0" * 64), "west").reasons) == 4
