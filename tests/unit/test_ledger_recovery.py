"""A ledger that follows a lost one never counts less than what may have been spent."""

import json
from dataclasses import replace

import pytest

from common.errors import BudgetError
from common.privacy.ledger import Cap, check_caps, make_reserve
from common.privacy.ledger_codec import (
    encode_head,
)
from common.privacy.ledger_entries import Assumed
from common.privacy.ledger_examine import examine
from common.privacy.ledger_recovery import Given, plan_recovery
from common.privacy.ledger_report import summary
from common.privacy.ledger_salvage import salvage
from common.privacy.ledger_spend import assumed, lifetime_epsilon, spent
from tests.ledgers import (
    COORDINATOR,
    DELTA,
    INSTITUTION,
    SIGNER,
    STEPS,
    STRANGER,
    Chain,
    charge,
    digest,
    long_chain,
    refused,
    reserve,
    steps,
    toy_epsilon,
)

PATIENT = Cap(unit="patient", delta=DELTA, epsilon_lifetime=10.0, epsilon_per_study=5.0)


@pytest.fixture
def chain():
    return long_chain()


def recovered(file, *, caps=(PATIENT,), assume=None, heads=(), studies=(), key=SIGNER.public_key):
    found = salvage([file], INSTITUTION, key)
    return plan_recovery(
        found, reason="test", caps=caps, assume=assume or {}, heads=heads, studies=studies,
        epsilon=toy_epsilon,
    )  # fmt: skip


def after(plan):
    return Chain(ledger="9" * 32).add(plan)


def test_a_recovery_counts_the_whole_lifetime_cap_as_spent(chain):
    new = after(recovered(chain.file))
    assert assumed(new.state, "patient") == Assumed(unit="patient", epsilon=10.0, delta=DELTA)
    assert lifetime_epsilon(new.state, "patient", DELTA, (), toy_epsilon) == 10.0
    error = refused(check_caps, new.state, (PATIENT,), charge(1, "liver"), toy_epsilon)
    assert "lifetime cap of 10" in error.message


def test_after_a_recovery_a_person_must_raise_epsilon_and_delta(chain):
    new = after(recovered(chain.file))
    proposed = charge(1, "liver")
    higher = replace(PATIENT, epsilon_lifetime=20.0)
    refused(check_caps, new.state, (higher,), proposed, toy_epsilon)
    both = replace(higher, delta=2 * DELTA)
    figures = check_caps(new.state, (both,), proposed, toy_epsilon)
    assert (figures[-1].before, figures[-1].after) == (10.0, 12.5)


def test_a_recovery_never_lowers_spend_below_what_is_readable(chain):
    for number in range(4, 12):
        chain.add(reserve(chain, number))
    assert toy_epsilon(spent(chain.state, unit="patient"), DELTA) == 27.5
    plan = recovered(chain.file)
    assert plan.assumed == (Assumed(unit="patient", epsilon=27.5, delta=DELTA),)
    assert spent(after(plan).state, unit="patient") == spent(chain.state, unit="patient")


def test_a_recovery_reads_what_stands_after_the_damage_too(chain):
    lines = chain.lines
    lines[1] = lines[1][:100] + b"?" + lines[1][101:]
    damaged = b"".join(line + b"\n" for line in lines)
    plan = recovered(damaged)
    assert spent(after(plan).state, unit="patient") == (steps(2 * STEPS),)
    assert plan.heads == (chain.state.head,)
    assert plan.counterpart == COORDINATOR.public_key


def test_a_recovery_counts_no_entry_twice_and_a_strangers_only_as_what_may_have_been(chain):
    stranger = Chain(STRANGER, institution="north-clinic")
    stranger.add(reserve(stranger, 1, "lung"))
    plan = recovered(chain.file + chain.file + stranger.file)
    assert spent(after(plan).state, unit="patient") == (steps(3 * STEPS),)
    assert digest("lung") in plan.closed
    assert plan.ledgers == ("0" * 32,)


def test_a_recovery_without_the_key_believes_the_key_in_the_file(chain):
    plan = recovered(chain.file, key=None)
    assert spent(after(plan).state, unit="patient") == (steps(3 * STEPS),)


def test_a_second_recovery_keeps_what_the_first_assumed(chain):
    first = after(recovered(chain.file, studies=(digest("brain"),)))
    raised = Cap(unit="patient", delta=2 * DELTA, epsilon_lifetime=20.0)
    first.add(make_reserve(first.state, (raised,), charge(1, "liver"), toy_epsilon))
    lowered = Cap(unit="patient", delta=DELTA, epsilon_lifetime=1.0)
    plan = recovered(first.file, caps=(lowered,))
    assert plan.assumed == (Assumed(unit="patient", epsilon=12.5, delta=2 * DELTA),)
    assert set(plan.ledgers) == {"0" * 32, "9" * 32}
    assert {digest("heart"), digest("brain"), digest("liver")} <= set(plan.closed)
    assert spent(Chain(ledger="8" * 32).add(plan).state, unit="patient") == (steps(4 * STEPS),)


def test_a_recovery_closes_the_studies_that_may_have_spent_more(chain):
    new = after(recovered(chain.file, studies=(digest("brain"),)))
    raised = Cap(unit="patient", delta=2 * DELTA, epsilon_lifetime=99.0)
    for study in ("heart", "brain"):
        error = refused(check_caps, new.state, (raised,), charge(1, study), toy_epsilon)
        assert "not known" in error.message


def test_after_a_recovery_a_lifetime_cap_is_needed(chain):
    new = after(recovered(chain.file))
    for caps in ((), (Cap(unit="patient", delta=0.1, epsilon_per_study=99.0),)):
        error = refused(check_caps, new.state, caps, charge(1, "liver"), toy_epsilon)
        assert "follows a lost one" in error.message


def test_a_recovery_guesses_nothing(chain):
    assert "--assume patient=EPSILON" in refused(recovered, chain.file, caps=()).remedy
    assert "--assume record=EPSILON" in refused(recovered, b"", caps=()).remedy
    only = Cap(unit="patient", delta=DELTA, epsilon_per_study=3.0)
    assert "--assume" in refused(recovered, chain.file, caps=(only,)).remedy
    given = {"patient": Given(epsilon=3.0)}
    assert "@DELTA" in refused(recovered, b"", caps=(), assume=given).remedy
    assert recovered(chain.file, caps=(), assume=given).assumed == (
        Assumed(unit="patient", epsilon=7.5, delta=DELTA),
    )
    given = {"patient": Given(epsilon=8.0, delta=0.25)}
    assert recovered(b"", caps=(), assume=given).assumed == (
        Assumed(unit="patient", epsilon=8.0, delta=0.25),
    )


def test_a_head_of_the_lost_ledger_is_no_longer_looked_for(chain):
    known = chain.state.head
    new = after(recovered(b"", heads=(known,)))
    head = encode_head(new.state.head)
    assert examine(new.file, head, known_head=known).state == new.state
    refused(examine, new.file, head, known_head=replace(known, ledger="7" * 32))


def account(events, delta, name):
    return toy_epsilon(events, delta) * {"pld": 1, "prv": 2, "rdp": 3}[name]


def test_the_summary_has_spend_caps_and_what_is_left(chain):
    shown = summary(chain.state, (replace(PATIENT, epsilon_per_study=9.0),), account)
    unit, study = shown["units"][0], shown["studies"][0]
    assert unit["epsilon"] == {"pld": 7.5, "prv": 15.0, "rdp": 22.5}
    assert (unit["cap"], unit["left"], unit["steps"]) == (10.0, 2.5, 60)
    assert (study["cap"], study["left_of_cap"], study["target"]) == (9.0, 1.5, 1000.0)
    assert (study["committed"], study["uncommitted"], study["rounds"]) == (2, 1, 2)
    assert shown["countersigned"] == 8
    json.dumps(shown, allow_nan=False)


def test_the_summary_of_a_recovered_ledger_says_what_was_assumed(chain):
    shown = summary(after(recovered(chain.file)).state, (), account)
    assert shown["recovered"] == "test"
    assert shown["units"][0]["assumed"] == {"epsilon": 10.0, "delta": DELTA}
    assert shown["units"][0]["epsilon"]["pld"] == 10.0
    assert shown["studies"][0]["before_recovery"]
    json.dumps(shown, allow_nan=False)


def test_an_accountant_without_a_figure_leaves_the_others_alone(chain):
    def account_but_prv(events, delta, name):
        if name == "prv":
            raise BudgetError("prv has none")
        return account(events, delta, name)

    shown = summary(chain.state, (PATIENT,), account_but_prv)
    for row in (*shown["units"], *shown["studies"]):
        assert row["epsilon"] == {"pld": 7.5, "prv": None, "rdp": 22.5}
