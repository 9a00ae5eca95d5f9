"""Each field of the policy, looser than the study, equal and stricter; each with its code."""

import dataclasses
import datetime
from pathlib import Path

import pytest

from common.config.canonical import study_hash
from common.config.hours import Window
from common.config.site import Budget, Policy, Signatory
from common.config.study import Study
from common.identity.sign_off import SignOff, sign_off
from common.identity.signing import Signer
from common.policy import Code, Facts, decide
from common.privacy.plan import plan_of
from tests.unit.test_plan import NOISED
from tests.unit.test_plan import study as private
from tests.unit.test_policy import OPEN, STUDY
from tests.unit.test_secagg_config import secure

MADE = private(evaluation=NOISED, unit="document")
PLAN = plan_of(MADE, "north")
SIGMA = PLAN.mechanism.noise_multiplier
COST = PLAN.epsilon
ROSTER, OTHER = "ab" * 32, "cd" * 32
MONDAY_NOON = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)
ACCEPTS = Policy(accept_secure_aggregation_none=True)
SUMS = Policy(accept_privacy_none=True, roster_sha256=ROSTER)
ETHICS, OFFICER = Signer(bytes(range(32))), Signer(bytes(32))
TWO = (
    Signatory(role="ethics committee", public_key=ETHICS.public_key),
    Signatory(role="privacy officer", public_key=OFFICER.public_key),
)


def codes(study: Study, policy: Policy, facts: Facts | None = None) -> tuple[Code, ...]:
    return decide(study, policy, "north", facts or Facts()).codes


def budget(per_study: float) -> tuple[Budget, ...]:
    return (Budget(unit="document", delta=1e-5, epsilon_per_study=per_study),)


LOOSER, EQUAL, STRICTER = "looser", "equal", "stricter"
FIELDS = [
    # study, base policy, field, value, how the policy stands to the study, code if refused
    (STUDY, OPEN, "accept_privacy_none", True, LOOSER, None),
    (STUDY, OPEN, "accept_privacy_none", False, STRICTER, Code.PRIVACY_NONE),
    (STUDY, OPEN, "accept_secure_aggregation_none", False, STRICTER, Code.AGGREGATION_NONE),
    (STUDY, OPEN, "study_sha256", None, LOOSER, None),
    (STUDY, OPEN, "study_sha256", study_hash(STUDY), EQUAL, None),
    (STUDY, OPEN, "study_sha256", (OTHER, study_hash(STUDY)), LOOSER, None),
    (STUDY, OPEN, "study_sha256", (OTHER,), STRICTER, Code.STUDY),
    (STUDY, OPEN, "study_sha256", (OTHER, ROSTER), STRICTER, Code.STUDY),
    (STUDY, OPEN, "tasks", ("ner",), EQUAL, None),
    (STUDY, OPEN, "labels", None, LOOSER, None),
    (STUDY, OPEN, "labels", (*STUDY.task.labels, "Gene"), LOOSER, None),
    (STUDY, OPEN, "labels", STUDY.task.labels[::-1], EQUAL, None),
    (STUDY, OPEN, "labels", STUDY.task.labels[1:], STRICTER, Code.LABELS),
    (MADE, ACCEPTS, "max_rounds", 6, LOOSER, None),
    (MADE, ACCEPTS, "max_rounds", 5, EQUAL, None),
    (MADE, ACCEPTS, "max_rounds", 4, STRICTER, Code.ROUNDS),
    (MADE, ACCEPTS, "min_noise_multiplier", 0.9 * SIGMA, LOOSER, None),
    (MADE, ACCEPTS, "min_noise_multiplier", SIGMA, EQUAL, None),
    (MADE, ACCEPTS, "min_noise_multiplier", 1.0001 * SIGMA, STRICTER, Code.NOISE),
    (MADE, ACCEPTS, "minimum_unit", "record", LOOSER, None),
    (MADE, ACCEPTS, "minimum_unit", "document", EQUAL, None),
    (MADE, ACCEPTS, "minimum_unit", "patient", STRICTER, Code.UNIT),
    (MADE, ACCEPTS, "budget", budget(1.1 * COST), LOOSER, None),
    (MADE, ACCEPTS, "budget", budget(COST), EQUAL, None),
    (MADE, ACCEPTS, "budget", budget(0.999 * COST), STRICTER, Code.BUDGET),
    (private(), ACCEPTS, "accept_exact_evaluation", True, LOOSER, None),
    (private(), ACCEPTS, "accept_exact_evaluation", False, STRICTER, Code.EVALUATION),
    (private(evaluation=NOISED, insecure_seed="1"), ACCEPTS, "accept_insecure_seed", True, LOOSER,
     None),
    (private(evaluation=NOISED, insecure_seed="1"), ACCEPTS, "accept_insecure_seed", False,
     STRICTER, Code.SEED),
    (secure("{}", 5), SUMS, "min_cohort", 3, LOOSER, None),
    (secure("{}", 5), SUMS, "min_cohort", 4, EQUAL, None),
    (secure("{}", 5), SUMS, "min_cohort", 5, STRICTER, Code.COHORT),
    (secure("{adversary: semi_honest}"), SUMS, "accept_semi_honest", True, LOOSER, None),
    (secure("{adversary: semi_honest}"), SUMS, "accept_semi_honest", False, STRICTER,
     Code.SEMI_HONEST),
    (secure(f"{{roster_sha256: {ROSTER}}}"), SUMS, "roster_sha256", ROSTER, EQUAL, None),
    (secure(f"{{roster_sha256: {ROSTER}}}"), SUMS, "roster_sha256", OTHER, STRICTER, Code.ROSTER),
    (secure("{}"), SUMS, "roster_sha256", None, STRICTER, Code.ROSTER),
]  # fmt: skip


@pytest.mark.parametrize(("study", "base", "field", "value", "how", "code"), FIELDS)
def test_a_field_refuses_exactly_what_is_weaker_than_it(study, base, field, value, how, code):
    found = codes(study, dataclasses.replace(base, **{field: value}))
    assert found == (() if code is None else (code,))
    assert (how == STRICTER) == (code is not None)


def test_every_field_of_the_policy_has_a_case_here():
    """`coordinator_key` is the ledger's; the others are tried below, with their facts."""
    with_facts = {"sign_offs", "code_sha256", "hours", "accept_one_user"}
    elsewhere = {"coordinator_key", "accept_unknown_exclusions"}
    tried = {field for _, _, field, *_ in FIELDS}
    assert tried | with_facts | elsewhere == {f.name for f in dataclasses.fields(Policy)}


def test_the_least_noise_holds_for_counts_as_well():
    counted = private(noise_multiplier="20", epsilon=None, evaluation="{epsilon: 3, clip: 3}")
    counts = plan_of(counted, "north").counts
    assert counts is not None
    assert counts.noise_multiplier < 20
    least = dataclasses.replace(ACCEPTS, min_noise_multiplier=counts.noise_multiplier)
    assert codes(counted, least) == ()
    (refused,) = decide(
        counted, dataclasses.replace(ACCEPTS, min_noise_multiplier=15.0), "north"
    ).refusals
    assert refused.code is Code.NOISE
    assert "counts have noise multiplier" in refused.message


def test_a_site_with_a_least_noise_takes_no_study_without_any():
    assert codes(STUDY, dataclasses.replace(OPEN, min_noise_multiplier=0.1)) == (Code.NOISE,)


@pytest.mark.parametrize(
    "changes", [{"evaluation": "exact"}, {"evaluation": NOISED, "insecure_seed": "1"}]
)
def test_a_site_with_a_least_noise_takes_no_counts_without_and_no_seed_that_takes_it_off(changes):
    accepts = dataclasses.replace(ACCEPTS, accept_exact_evaluation=True, accept_insecure_seed=True)
    study = private(**changes)
    assert codes(study, accepts) == ()
    assert codes(study, dataclasses.replace(accepts, min_noise_multiplier=1e-6)) == (Code.NOISE,)


def test_a_reason_names_both_figures():
    policy = dataclasses.replace(ACCEPTS, max_rounds=4, min_noise_multiplier=99.0)
    rounds, noise, counts = decide(MADE, policy, "north").reasons
    assert rounds == "the study has 5 rounds; the site's `max_rounds` is 4"
    assert noise.startswith(f"the study's updates have noise multiplier {SIGMA:.4g}")
    assert "`min_noise_multiplier` is 99" in counts


# --- facts


@pytest.mark.parametrize(
    ("users", "accepted", "allowed"),
    [
        ("none", False, True),
        ("apart", False, True),
        ("one", True, True),
        ("apart", True, True),
        ("one", False, False),
    ],
)
def test_one_user_for_relay_and_worker_is_refused_unless_accepted(users, accepted, allowed):
    policy = dataclasses.replace(OPEN, accept_one_user=accepted)
    assert codes(STUDY, policy, Facts(users=users)) == (() if allowed else (Code.USERS,))


@pytest.mark.parametrize(
    ("pin", "found", "allowed"),
    [(None, ROSTER, True), (ROSTER, ROSTER, True), (ROSTER, OTHER, False), (ROSTER, None, False)],
)
def test_only_the_pinned_code_takes_part(pin, found, allowed):
    policy = dataclasses.replace(OPEN, code_sha256=pin)
    found = codes(STUDY, policy, Facts(code_sha256=found))
    assert found == (() if allowed else (Code.CODE,))


def at(day: int, clock: str) -> datetime.datetime:
    """A moment in the week of Monday, 23 November 2026."""
    hour, minute = map(int, clock.split(":"))
    return MONDAY_NOON.replace(day=23 + day, hour=hour, minute=minute)


NIGHTS = Window(days=("mon", "fri"), start="20:00", end="06:00")
OFFICE = Window(days=("mon",), start="08:30", end="17:00")


@pytest.mark.parametrize(
    ("window", "moment", "open_"),
    [
        (OFFICE, at(0, "08:29"), False),
        (OFFICE, at(0, "08:30"), True),
        (OFFICE, at(0, "16:59"), True),
        (OFFICE, at(0, "17:00"), False),
        (OFFICE, at(1, "12:00"), False),
        (NIGHTS, at(0, "19:59"), False),
        (NIGHTS, at(0, "20:00"), True),
        (NIGHTS, at(1, "05:59"), True),
        (NIGHTS, at(1, "06:00"), False),
        (NIGHTS, at(0, "05:59"), False),
        (NIGHTS, at(1, "21:00"), False),
        (NIGHTS, at(5, "03:00"), True),
        (Window(start="00:00", end="24:00"), at(6, "23:59"), True),
        (Window(start="00:00", end="24:00"), at(2, "00:00"), True),
        (Window(days=("sun",), start="22:00", end="02:00"), at(0, "01:00"), True),
    ],
)
def test_a_window_begins_with_its_start_and_is_over_at_its_end(window, moment, open_):
    assert window.holds(moment) == open_
    policy = dataclasses.replace(OPEN, hours=(window,))
    for asked in ("train", "evaluate"):
        found = codes(STUDY, policy, Facts(asked=asked, now=moment))
        assert found == (() if open_ else (Code.HOURS,))


def test_a_moment_counts_in_utc_whatever_its_zone():
    zone = datetime.timezone(datetime.timedelta(hours=5))
    assert OFFICE.holds(at(0, "08:30").astimezone(zone))
    assert not OFFICE.holds(at(0, "08:30").replace(tzinfo=zone))
    with pytest.raises(ValueError, match="time zone"):
        Facts(now=MONDAY_NOON.replace(tzinfo=None))


def test_several_windows_are_open_together():
    policy = dataclasses.replace(OPEN, hours=(OFFICE, NIGHTS))
    for moment, found in (("09:00", ()), ("18:00", (Code.HOURS,)), ("21:00", ())):
        assert codes(STUDY, policy, Facts(asked="train", now=at(0, moment))) == found


def test_greetings_and_later_stages_of_a_sum_know_no_hours():
    policy = dataclasses.replace(OPEN, hours=(OFFICE,))
    for asked in ("start", "hello", "sum"):
        assert codes(STUDY, policy, Facts(asked=asked, now=at(3, "03:00"))) == ()


def test_without_a_clock_no_hour_is_open():
    policy = dataclasses.replace(OPEN, hours=(Window(start="00:00", end="24:00"),))
    assert codes(STUDY, policy, Facts(asked="train")) == (Code.HOURS,)


def test_a_lifetime_that_is_overspent_refuses_and_one_that_is_full_does_not():
    """A full one still has its retries answered; the ledger refuses each new charge by itself."""
    cap = Budget(unit="document", delta=1e-5, epsilon_lifetime=3.0)
    policy = dataclasses.replace(ACCEPTS, budget=(cap,))
    for spent, found in ((2.9, ()), (3.0, ()), (3.1, (Code.BUDGET,)), (float("nan"), None)):
        got = codes(MADE, policy, Facts(spent={"document": spent}))
        assert got == ((Code.BUDGET,) if found is None else found)
    assert codes(MADE, policy, Facts(spent={"patient": 9.0})) == ()


# --- sign-offs


def signed(*offs: SignOff, policy: Policy = OPEN) -> tuple[Code, ...]:
    return codes(STUDY, dataclasses.replace(policy, sign_offs=TWO), Facts(sign_offs=offs))


def both(study: Study = STUDY, roster: str = "") -> tuple[SignOff, SignOff]:
    found = study_hash(study)
    return (
        sign_off(ETHICS, "ethics committee", found, roster),
        sign_off(OFFICER, "privacy officer", found, roster),
    )


def test_a_study_needs_every_sign_off_that_the_policy_names():
    ethics, officer = both()
    assert signed(ethics, officer) == ()
    assert signed(officer, ethics, *both(MADE)) == ()
    assert signed(ethics) == signed(officer) == (Code.SIGN_OFF,)
    assert signed() == (Code.SIGN_OFF, Code.SIGN_OFF)


def test_a_sign_off_of_another_study_or_roster_counts_for_nothing():
    assert len(signed(*both(MADE))) == 2
    assert len(signed(*both(roster=ROSTER))) == 2
    pins = dataclasses.replace(OPEN, roster_sha256=ROSTER)
    assert len(signed(*both(), policy=pins)) == 2
    assert signed(*both(roster=ROSTER), policy=pins) == ()


def test_a_sign_off_in_anothers_role_or_with_anothers_key_counts_for_nothing():
    ethics, officer = both()
    swapped = sign_off(OFFICER, "ethics committee", study_hash(STUDY))
    assert signed(swapped, officer) == (Code.SIGN_OFF,)
    forged = dataclasses.replace(swapped, public_key=ETHICS.public_key)
    assert signed(forged, officer) == (Code.SIGN_OFF,)
    for field, value in (("role", "privacy officer"), ("study", OTHER), ("roster", ROSTER)):
        assert signed(dataclasses.replace(ethics, **{field: value}), officer) == (Code.SIGN_OFF,)


@pytest.mark.parametrize(
    ("field", "made_for"), [("role", "chair"), ("study", OTHER), ("roster", ROSTER)]
)
def test_a_sign_off_of_something_else_that_was_rewritten_counts_for_nothing(field, made_for):
    """All it says is right, and its key, too; its signature is over something else."""
    truly = {"role": "ethics committee", "study": study_hash(STUDY), "roster": ""}
    other = sign_off(ETHICS, **{**truly, field: made_for})
    rewritten = dataclasses.replace(other, **{field: truly[field]})
    assert signed(rewritten, both()[1]) == (Code.SIGN_OFF,)
    assert signed(sign_off(ETHICS, **truly), both()[1]) == ()


def test_one_person_can_not_sign_twice():
    for role, key in (("ethics committee", OFFICER.public_key), ("chair", ETHICS.public_key)):
        again = Signatory(role=role, public_key=key)
        with pytest.raises(ValueError, match="one role or with one key"):
            Policy(sign_offs=(TWO[0], again))


# --- who has withdrawn


def test_a_list_of_the_withdrawn_that_can_not_be_read_refuses():
    facts = Facts(asked="train", exclude_problem="withdrawn.txt: can't be read")
    (refused,) = decide(STUDY, OPEN, "north", facts).refusals
    assert refused.code is Code.EXCLUDE
    assert "withdrawn.txt" in refused.message


@pytest.mark.parametrize(("unknown", "accepted"), [(0, False), (0, True), (2, False), (2, True)])
def test_ids_that_nobody_knows_refuse_unless_accepted(unknown, accepted):
    policy = dataclasses.replace(OPEN, accept_unknown_exclusions=accepted)
    found = codes(STUDY, policy, Facts(exclude_unknown=unknown))
    assert found == ((Code.EXCLUDE_UNKNOWN,) if unknown and not accepted else ())


def test_a_decision_prints_codes_and_reasons_and_repeats_itself():
    policy, facts = Policy(max_rounds=1), Facts(users="one")
    first = decide(MADE, policy, "north", facts)
    assert first == decide(MADE, policy, "north", facts)
    assert str(first).startswith("[one-user] worker and relay")
    assert "\n[rounds] the study has 5 rounds" in str(first)
    assert len(first.codes) == len(first.reasons) == 3


def test_the_page_on_the_policy_has_every_field_and_code():
    text = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for field in dataclasses.fields(Policy):
        assert any(row.startswith(f"| `{field.name}`") for row in rows), field.name
    for code in Code:
        assert any(row.endswith(f"| `{code}` |") for row in rows), code
