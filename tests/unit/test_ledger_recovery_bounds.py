"""What a recovery assumes is never less than what any readable entry states, or than the caps."""

from dataclasses import replace

import pytest

from common.privacy.ledger import Cap, check_caps, make_reserve
from common.privacy.ledger_entries import Assumed
from common.privacy.ledger_recovery import Given, plan_recovery
from common.privacy.ledger_salvage import Proof, salvage
from tests.ledgers import (
    DELTA,
    INSTITUTION,
    SIGNER,
    STRANGER,
    Chain,
    charge,
    digest,
    recover,
    refused,
    steps,
    toy_epsilon,
)

WIDE = Cap(unit="patient", delta=DELTA, epsilon_lifetime=50.0)
LOW = Cap(unit="patient", delta=DELTA, epsilon_lifetime=5.0)
DOCUMENT = Cap(unit="document", delta=DELTA, epsilon_lifetime=4.0)


def recovered(*files, caps=(LOW,), assume=None, studies=(), key=SIGNER.public_key):
    return plan_recovery(
        salvage(files, INSTITUTION, key), reason="test", caps=caps, assume=assume or {}, heads=(),
        studies=studies, epsilon=toy_epsilon,
    )  # fmt: skip


def charged(chain, *asked, caps=()):
    for one in asked:
        chain.add(make_reserve(chain.state, caps, one, toy_epsilon))
    return chain


def without(chain, *numbers):
    """The file with these lines unreadable."""
    lines = [b"?" * 50 if n in numbers else line for n, line in enumerate(chain.lines, 1)]
    return b"".join(line + b"\n" for line in lines)


def forged(chain, number):
    """The file with a wrong, well-formed signature on one line."""
    lines, entry = chain.lines, chain.entries[number - 1]
    lines[number - 1] = replace(entry, signature="0" * 128).line()
    return b"".join(line + b"\n" for line in lines)


def patient(epsilon, delta=DELTA):
    return (Assumed(unit="patient", epsilon=epsilon, delta=delta),)


def test_the_last_readable_reserve_speaks_for_the_lost_ones_before_it():
    chain = charged(Chain(), *(charge(n) for n in range(1, 13)), caps=(WIDE,))
    assert recovered(without(chain, *range(2, 13))).assumed == patient(30.0)
    assert recovered(without(chain, *range(3, 14))).assumed == patient(5.0)  # only round 1: the cap


def test_what_an_earlier_recovery_assumed_outlives_its_entry():
    first = Chain(ledger="9" * 32).add(recovered(b"", caps=(), assume=GIVEN))
    raised = replace(WIDE, delta=2 * DELTA, epsilon_lifetime=60.0)
    charged(first, charge(1, "new"), caps=(raised,))
    low = replace(LOW, delta=2 * DELTA)
    assert recovered(without(first, 2), caps=(low,)).assumed == patient(42.5, 2 * DELTA)


def test_what_an_earlier_recovery_assumed_counts_though_nothing_was_charged_since():
    first = Chain(ledger="9" * 32).add(recovered(b"", caps=(), assume=GIVEN))
    assert recovered(first.file).assumed == patient(40.0)


GIVEN = {"patient": Given(epsilon=40.0, delta=DELTA)}


def test_an_assumption_is_made_at_the_greatest_delta_at_which_anything_was_said():
    at_more = replace(WIDE, delta=4 * DELTA)
    chain = charged(Chain(), charge(1), charge(2), caps=(at_more,))
    said = chain.entries[-1].body.figures[-1]
    assert said.after == toy_epsilon([steps(40)], 4 * DELTA) < 5.0
    plan = recovered(without(chain, 2), caps=(replace(LOW, epsilon_lifetime=1.0),))
    assert plan.assumed == patient(said.after, 4 * DELTA)


def test_a_figure_at_a_smaller_delta_counts_in_full():
    chain = charged(Chain(), *(charge(n) for n in range(1, 5)), caps=(WIDE,))
    plan = recovered(without(chain, 2, 3, 4), caps=(replace(LOW, delta=0.25),))
    assert plan.assumed == patient(10.0, 0.25)


def test_without_a_lifetime_figure_what_the_studies_state_adds_up_deltas_too():
    asked = [charge(n, name) for n in (1, 2, 3) for name in ("heart", "lung")]
    chain = charged(Chain(), *asked)
    plan = recovered(without(chain, 2, 3, 4), caps=(replace(LOW, epsilon_lifetime=1.0),))
    assert plan.assumed == patient(15.0, 2 * DELTA)


def test_where_nothing_is_hidden_the_studies_are_composed_and_not_added_up():
    chain = charged(Chain(), charge(1), charge(1, "lung"))
    assert recovered(chain.file).assumed == patient(5.0)


def test_a_study_after_the_last_lifetime_figure_is_added_to_it():
    chain = charged(Chain(), *(charge(n) for n in range(1, 5)), caps=(WIDE,))
    charged(chain, charge(1, "lung"), charge(2, "lung"))
    plan = recovered(without(chain, 2, 3, 4, 6))
    assert plan.assumed == patient(15.0, 2 * DELTA)


def test_what_a_search_took_is_added_to_its_study():
    chain = charged(Chain(), charge(0, purpose="search"), charge(1), charge(2))
    plan = recovered(without(chain, 3), caps=(replace(LOW, epsilon_lifetime=1.0),))
    assert plan.assumed == patient(7.5, 2 * DELTA)


def test_the_figure_of_a_cap_per_study_speaks_for_a_lost_search():
    per_study = Cap(unit="patient", delta=DELTA, epsilon_per_study=50.0)
    chain = charged(Chain(), *(charge(0, request=digest(n), purpose="search") for n in "abc"))
    charged(chain, charge(1), caps=(per_study,))
    plan = recovered(without(chain, 2, 3, 4), caps=(replace(LOW, epsilon_lifetime=1.0),))
    assert plan.assumed == patient(10.0)


# what nobody vouches for


@pytest.mark.parametrize("institution", [INSTITUTION, "an-earlier-name"])
@pytest.mark.parametrize("key", [None, STRANGER.public_key])
@pytest.mark.parametrize("lost", [(), (1,)])
def test_with_its_key_lost_or_replaced_or_its_name_changed_a_ledger_still_counts(
    institution, key, lost
):
    chain = charged(Chain(institution=institution), *(charge(n) for n in range(1, 9)))
    plan = recovered(without(chain, *lost), key=key)
    assert plan.assumed == patient(20.0)
    assert digest("heart") in plan.closed


def test_an_entry_with_a_wrong_signature_adds_and_is_not_carried():
    chain = charged(Chain(), *(charge(n) for n in range(1, 5)), caps=(WIDE,))
    plan = recovered(forged(chain, 5))
    assert plan.assumed == patient(10.0)
    assert [c.events for c in plan.carried] == [(steps(60),)]


def test_an_unproven_entry_lowers_nothing():
    chain = charged(Chain(), *(charge(n) for n in range(1, 9)))
    gapped = without(chain, 2, 3, 4)
    assert recovered(gapped).assumed == patient(20.0)
    small, late = Chain(STRANGER, ledger="1" * 32), Chain(STRANGER, ledger="2" * 32)
    small.add(recover(assumed=patient(0.5)))
    charged(late, charge(1, "x"), caps=(replace(WIDE, delta=0.5),))
    for other in (small, late):
        for files in ((gapped, other.file), (other.file, gapped)):
            (plan,) = recovered(*files).assumed
            assert plan.epsilon >= 20.0
            assert plan.delta >= DELTA


def test_a_proven_figure_covers_no_unproven_reserve_before_it():
    own = charged(Chain(ledger="1" * 32), charge(1, "lung"), caps=(WIDE,))
    key = Chain(STRANGER, institution="an-earlier-name")
    charged(key, *(charge(n) for n in range(1, 9)))
    plan = recovered(without(key, 1, 2, 3), own.file)
    assert plan.assumed == patient(22.5, 2 * DELTA)


def test_unproven_events_count_whatever_is_stated_beside_them():
    chain = Chain(STRANGER, institution="another")
    one = make_reserve(chain.state, (), charge(1, events=(steps(80),)), toy_epsilon)
    chain.add(replace(one, epsilon=0.0, figures=()))
    assert recovered(chain.file).assumed == patient(10.0)


def test_unproven_studies_are_added_up_and_not_composed():
    chain = charged(Chain(STRANGER, institution="another"), *(charge(1, s) for s in "abc"))
    assert recovered(chain.file).assumed == patient(7.5, 3 * DELTA)


def test_an_entry_keeps_the_best_proof_that_any_file_gives():
    chain = charged(Chain(), charge(1), charge(2))
    for files in ((chain.file, without(chain, 1)), (without(chain, 1), chain.file)):
        assert recovered(*files, key=None).carried[0].events == (steps(40),)


def test_who_vouches_for_an_entry_is_known():
    def proof(chain, key):
        return {one.proof for one in salvage([chain.file], INSTITUTION, key).entries}

    assert proof(Chain(), SIGNER.public_key) == {Proof.KEY}
    assert proof(Chain(), None) == proof(Chain(), STRANGER.public_key) == {Proof.OPEN}
    assert proof(Chain(institution="another"), None) == {Proof.NONE}


def test_a_sum_that_is_not_finite_is_refused():
    chain = Chain()
    for number in (1, 2):
        one = make_reserve(chain.state, (), charge(1, str(number)), toy_epsilon)
        chain.add(replace(one, epsilon=1e308))
    error = refused(recovered, chain.file)
    assert "finite" in error.message


# which units


def check(plan, *caps, asked=None):
    state = Chain(ledger="9" * 32).add(plan).state
    return check_caps(state, caps, asked or charge(1, "new"), toy_epsilon)


RAISED = replace(WIDE, delta=2 * DELTA, epsilon_lifetime=99.0)


def test_with_caps_on_two_units_only_the_one_with_proven_spend_is_assumed():
    chain = charged(Chain(), charge(1))
    plan = recovered(chain.file, caps=(DOCUMENT, WIDE))
    assert plan.assumed == patient(50.0)
    for caps in ((RAISED,), (DOCUMENT, RAISED)):
        assert check(plan, *caps)[-1].after == 52.5


def test_a_unit_that_only_an_unproven_entry_names_takes_no_cap_away():
    chain = charged(Chain(STRANGER, institution="another"), charge(1, unit="record"))
    none = {"record": Given(epsilon=0.0, delta=DELTA)}
    error = refused(recovered, chain.file, caps=(LOW,), assume=none)
    assert "per record (an entry that nobody vouches for) and per patient (its cap)" in str(error)
    assert "move the file" in error.remedy
    assert recovered(b"", caps=(LOW,), assume=none).assumed[-1:] == patient(5.0)


def test_with_nothing_readable_two_caps_are_refused_and_the_remedy_works():
    error = refused(recovered, b"", caps=(DOCUMENT, LOW))
    assert "do not add up" in error.message
    assert "policy.budget" in error.remedy
    plan = recovered(b"", caps=(LOW,))
    assert plan.assumed == patient(5.0)
    assert check(plan, DOCUMENT, RAISED)


def test_a_unit_of_which_the_operator_says_zero_is_no_spend():
    per_study = Cap(unit="document", delta=DELTA, epsilon_per_study=5.0)
    assert "--assume document" in refused(recovered, b"", caps=(per_study, LOW)).remedy
    plan = recovered(b"", caps=(per_study, LOW), assume={"document": Given(epsilon=0.0)})
    assert [(a.unit, a.epsilon) for a in plan.assumed] == [("document", 0.0), ("patient", 5.0)]
    assert check(plan, per_study, RAISED)[-1].before == 5.0


def test_zero_from_the_operator_lowers_no_cap():
    assert recovered(b"", assume={"patient": Given(epsilon=0.0)}).assumed == patient(5.0)


def test_after_a_recovery_a_charge_on_another_unit_has_one_remedy_that_works():
    plan = recovered(b"", caps=(LOW,))
    on_document = charge(1, "new", unit="document")
    for caps in ((), (replace(RAISED, unit="document"),)):
        assert "on unit patient" in refused(check, plan, *caps, asked=on_document).remedy
    assert check(plan, RAISED)


def test_after_a_recovery_with_two_units_spent_the_same_is_said_under_every_cap():
    both = {"document": Given(epsilon=1.0, delta=DELTA), "patient": Given(epsilon=1.0, delta=DELTA)}
    plan = recovered(b"", caps=(), assume=both)
    per_study = Cap(unit="patient", delta=2 * DELTA, epsilon_per_study=9.0)
    for caps in ((), (RAISED,), (per_study,)):
        assert "no more charges" in refused(check, plan, *caps).remedy
