"""What a site's audit log tells of a ledger: to a recovery, and of copies that are too old."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.ledger_seen import charges_in, logged
from common.audit.examine import readable
from common.io.audit_file import Salvaged
from common.privacy.ledger import Cap, make_reserve
from common.privacy.ledger_codec import head_from_text
from common.privacy.ledger_entries import Assumed
from common.privacy.ledger_recovery import Given, plan_recovery
from common.privacy.ledger_salvage import salvage
from common.privacy.ledger_stated import Charged
from tests.audits import HEAD, STUDY, Written, opening, reply, spend, start
from tests.ledgers import (
    DELTA,
    INSTITUTION,
    SIGNER,
    STRANGER,
    Chain,
    anchor,
    charge,
    digest,
    recover,
    refused,
    reserve,
    toy_epsilon,
)
from tests.unit.test_ledger_recovery_bounds import DOCUMENT, LOW, forged, without

FIRST, SECOND = "0" * 32, "9" * 32
HEART = Charged(
    study=digest("heart"), unit="patient", epsilon=3.0, delta=DELTA, ledger=FIRST, reserve=8
)
LUNG = replace(HEART, study=digest("lung"), epsilon=4.0, delta=DELTA / 2)
WIDE = Cap(unit="patient", delta=DELTA, epsilon_lifetime=50.0)


def log(*bodies, aside=()):
    written = Written([opening(), start(), *bodies]).file
    return Salvaged(entries=readable(written), aside=aside, fault="")


def recovered(*files, caps=(LOW,), assume=None, charges=(HEART, LUNG)):
    return plan_recovery(
        salvage(files, INSTITUTION, SIGNER.public_key), reason="test", caps=caps,
        assume=assume or {}, heads=(), studies=(), charges=charges, epsilon=toy_epsilon,
    )  # fmt: skip


def with_no_cap(*files, charges=(HEART, LUNG)):
    """What is assumed of patients."""
    given = {"patient": Given(epsilon=0.0)}
    (one,) = recovered(*files, caps=(), charges=charges, assume=given).assumed
    return one


def test_the_newest_head_of_each_ledger_is_told():
    newer, other = HEAD.replace(":7:", ":9:"), HEAD.replace("a" * 32, "b" * 32)
    endless = HEAD.replace(":7:", f":{'9' * 18}:")
    said = (HEAD, other, newer, "", endless)
    found = log(*(reply(ledger=head) for head in said))
    logged(Path("x"), log(reply(ledger=endless))).check(None)
    (aside,) = log(reply(ledger=HEAD.replace("a" * 32, "c" * 32))).entries[2:]
    third = logged(Path("x"), replace(found, aside=(aside,))).heads
    assert {head.ledger for head in third} == {"a" * 32, "b" * 32, "c" * 32}
    assert set(logged(Path("x"), found).heads) == {head_from_text(newer), head_from_text(other)}


def test_a_studys_greatest_figures_are_told_for_each_unit_and_ledger():
    found = log(
        spend(2), spend(3, delta=1e-6), spend(1, delta=1e-4, reserve=1),
        spend(4, unit="record"), spend(1, ledger="b" * 32),
    )  # fmt: skip
    one = Charged(study=STUDY, unit="patient", epsilon=1.5, delta=1e-4, ledger="a" * 32, reserve=6)
    assert set(charges_in(found.entries)) == {
        one,
        replace(one, unit="record", epsilon=2.0, delta=1e-5, reserve=8),
        replace(one, ledger="b" * 32, epsilon=0.5, delta=1e-5, reserve=2),
    }


def test_studies_that_only_the_log_knows_take_no_further_charge():
    assert set(recovered().closed) == {HEART.study, LUNG.study}


def test_a_lifetime_cap_above_all_figures_bounds_what_the_log_tells():
    assert recovered().assumed == (Assumed(unit="patient", epsilon=5.0, delta=DELTA),)


def test_a_cap_that_is_below_a_figure_did_not_bound_what_was_charged():
    lowered = replace(LOW, epsilon_lifetime=3.5, delta=DELTA / 4)
    told = recovered(caps=[lowered]).assumed
    assert told == (Assumed(unit="patient", epsilon=7.0, delta=1.5 * DELTA),)


def test_without_a_lifetime_cap_the_logs_studies_add_up_and_the_operator_must_still_speak():
    per_study = replace(LOW, epsilon_lifetime=None, epsilon_per_study=4.0)
    for caps in ((), (per_study,)):
        error = refused(recovered, caps=caps)
        assert "--assume patient=EPSILON" in error.remedy
        low = recovered(caps=caps, assume={"patient": Given(epsilon=0.0)})
        assert low.assumed == (Assumed(unit="patient", epsilon=7.0, delta=1.5 * DELTA),)
        high = recovered(caps=caps, assume={"patient": Given(epsilon=9.0, delta=0.1)})
        assert high.assumed == (Assumed(unit="patient", epsilon=9.0, delta=0.1),)


def test_the_charges_of_another_unit_do_not_count_for_this_one():
    other = replace(LUNG, unit="document")
    both = recovered(caps=(), charges=[HEART, other],
                     assume={u: Given(epsilon=0.0) for u in ("patient", "document")})  # fmt: skip
    assert {(a.unit, a.epsilon) for a in both.assumed} == {("patient", 3.0), ("document", 4.0)}


def test_a_unit_that_only_the_log_knows_is_not_left_out_beside_a_readable_one():
    chain = Chain()
    chain.add(reserve(chain, 1))
    broken = without(chain.add(reserve(chain, 2)), 3)
    record = replace(HEART, unit="record")
    error = refused(recovered, broken, charges=[record])
    assert "per record is not known" in error.message
    plan = recovered(broken, charges=[record], assume={"record": Given(epsilon=0.0)})
    assert Assumed(unit="record", epsilon=3.0, delta=DELTA) in plan.assumed


def test_what_readable_reserves_account_for_is_not_counted_twice():
    chain = Chain()
    own = chain.add(reserve(chain, 1)).state.reserves[2].body
    told = replace(HEART, study=own.study, epsilon=own.epsilon, delta=own.delta, reserve=2)
    for charges in ([told], [replace(told, epsilon=own.epsilon / 2)]):
        assert with_no_cap(chain.file, charges=charges).epsilon == own.epsilon
        assert with_no_cap(chain.file, charges=charges).delta == own.delta
    more = replace(told, epsilon=2 * own.epsilon)
    assert with_no_cap(chain.file, charges=[more]).epsilon == 2 * own.epsilon
    assert with_no_cap(chain.file, charges=[told, LUNG]).epsilon == own.epsilon + LUNG.epsilon


def test_a_reserve_covers_its_own_ledgers_study_and_unit_alone():
    chain = Chain()
    own = chain.add(reserve(chain, 1)).state.reserves[2].body
    told = replace(HEART, study=own.study, epsilon=own.epsilon, delta=own.delta, reserve=2)
    assert with_no_cap(chain.file, charges=[replace(told, ledger=SECOND)]).epsilon == 5.0
    assert with_no_cap(chain.file, charges=[replace(told, study=digest("x"))]).epsilon == 5.0
    both = recovered(chain.file, caps=(), charges=[replace(told, unit="record")],
                     assume={u: Given(epsilon=0.0) for u in ("patient", "record")})  # fmt: skip
    assert {(a.unit, a.epsilon) for a in both.assumed} == {("patient", 2.5), ("record", 2.5)}


def test_what_the_log_tells_beside_readable_spend_is_added_to_it():
    """A reserve that is not in the log yet, and one that is there alone."""
    chain = Chain()
    chain.add(reserve(chain, 1, study="heart"))
    told = with_no_cap(chain.file, charges=[LUNG])
    assert (told.epsilon, told.delta) == (2.5 + 4.0, 1.5 * DELTA)


def test_a_later_lifetime_figure_covers_a_charge_and_an_earlier_one_does_not():
    chain = Chain()
    for number, study in ((1, "heart"), (2, "liver")):
        proposed = charge(number, study)
        chain.add(make_reserve(chain.state, (WIDE,), proposed, toy_epsilon))
    lost = replace(HEART, study=digest("lost"), reserve=3)
    assert with_no_cap(chain.file, charges=[lost]).epsilon == 5.0
    assert with_no_cap(chain.file, charges=[replace(lost, reserve=4)]).epsilon == 5.0 + 3.0


def test_charges_in_a_ledger_that_a_recovery_did_not_know_of_were_not_bounded_by_a_later_cap():
    """The log was not there at the first recovery, and is back at the second."""
    plan = recovered(caps=(), charges=(), assume={"patient": Given(epsilon=1.0, delta=DELTA)})
    second = Chain(ledger=SECOND).add(plan)
    cap = replace(WIDE, delta=4 * DELTA)
    second.add(make_reserve(second.state, (cap,), charge(1, "liver"), toy_epsilon))
    before = second.state.reserves[3].body.figures[-1].after
    for file in (second.file, without(second, 1)):
        (told,) = recovered(file, caps=[cap]).assumed
        assert told.epsilon == 50.0  # the cap itself is higher
        low = replace(cap, epsilon_lifetime=before)
        (told,) = recovered(file, caps=[low]).assumed
        assert told.epsilon == before + 7.0


def test_a_cap_that_the_newest_reserve_was_not_held_to_bounds_nothing():
    for held in ((), (WIDE,)):
        chain = Chain()
        chain.add(make_reserve(chain.state, held, charge(1, "liver"), toy_epsilon))
        (told,) = recovered(chain.file, charges=[HEART]).assumed
        assert told.epsilon == 2.5 + 3.0
    chain = Chain()
    chain.add(make_reserve(chain.state, (LOW,), charge(1, "liver"), toy_epsilon))
    assert recovered(chain.file, charges=[HEART]).assumed[0].epsilon == 5.0


def test_a_figure_at_a_smaller_delta_does_not_speak_against_a_cap():
    strict = replace(HEART, epsilon=6.0, delta=DELTA / 4)
    assert recovered(charges=[strict, LUNG]).assumed[0].epsilon == 5.0
    assert recovered(charges=[replace(strict, delta=DELTA), LUNG]).assumed[0].epsilon == 10.0


@pytest.mark.parametrize("anchored", [True, False])
def test_a_damaged_first_line_makes_nothing_count_twice(anchored):
    chain = Chain()
    own = chain.add(reserve(chain, 1)).state.reserves[2].body
    if anchored:
        chain.add(anchor(chain))
    told = replace(HEART, study=own.study, epsilon=2.5, delta=own.delta, reserve=2)
    assert with_no_cap(without(chain, 1), charges=[told]).epsilon == 2.5
    later = replace(told, reserve=9)
    expected = 2.5 if anchored else 5.0  # no line says that it is the same ledger
    assert with_no_cap(without(chain, 1), charges=[later]).epsilon == expected


def test_a_recovery_again_and_again_counts_nothing_twice():
    """Without heads, and with what the first one carried over."""
    chain = Chain()
    for number, study in ((1, "heart"), (2, "lung")):
        chain.add(make_reserve(chain.state, (), charge(number, study), toy_epsilon))
    charges = [
        Charged(study=r.body.study, unit="patient", epsilon=r.body.epsilon, delta=r.body.delta,
                ledger=FIRST, reserve=r.seq)
        for r in chain.state.reserves.values()
    ]  # fmt: skip
    given = {"patient": Given(epsilon=0.0)}
    for file, whole in ((chain.file, 5.0), (b"", 5.0)):
        for ledger in (SECOND, "8" * 32, "7" * 32):
            plan = recovered(file, caps=(), charges=charges, assume=given)
            assert plan.assumed[0].epsilon == whole
            file = Chain(ledger=ledger).add(plan).file


def test_a_lost_key_makes_nothing_count_twice():
    chain = Chain(STRANGER)
    own = chain.add(reserve(chain, 1)).state.reserves[2].body
    told = replace(HEART, study=own.study, epsilon=2.5, delta=own.delta, reserve=2)
    assert with_no_cap(chain.file, charges=[told]).epsilon == 2.5


@pytest.mark.parametrize("signer", [SIGNER, STRANGER])
def test_only_the_institutions_own_entries_cover_what_the_log_tells(signer):
    chain = Chain(signer)
    first = chain.add(reserve(chain, 1)).state.reserves[2].body
    told = replace(HEART, study=first.study, epsilon=2.5, reserve=2)
    known = with_no_cap(chain.file, charges=[told])
    assert known.delta == DELTA
    assert with_no_cap(forged(chain, 2), charges=[told]).epsilon >= 2.5
    hostile = Chain(signer, ledger=SECOND)
    hostile.add(recover(ledgers=(), closed=(HEART.study, LUNG.study), assumed=()))
    assert with_no_cap(hostile.file).epsilon == 7.0


def test_a_recovery_that_closed_a_study_has_not_therefore_counted_it():
    """Of an earlier version, which did not read the log; and one that knew the ledger's id."""
    for ledgers, total in (((), 1.0 + 7.0), ((FIRST,), 7.0)):
        again = Chain(ledger=SECOND)
        again.add(
            recover(
                ledgers=ledgers, closed=(HEART.study, LUNG.study), heads=(), carried=(),
                assumed=(Assumed(unit="patient", epsilon=1.0, delta=DELTA),),
            )
        )  # fmt: skip
        assert with_no_cap(again.file).epsilon == total


def test_what_an_earlier_recovery_has_assumed_is_not_counted_twice():
    plan = recovered(caps=(), assume={"patient": Given(epsilon=0.0)})
    assert plan.ledgers == (FIRST,)
    again = Chain(ledger=SECOND).add(plan)
    assert with_no_cap(again.file).epsilon == 7.0
    later = replace(HEART, study=digest("liver"), ledger=SECOND)
    assert with_no_cap(again.file, charges=[HEART, LUNG, later]).epsilon == 10.0
    lowered = replace(LOW, epsilon_lifetime=6.0)
    assert recovered(again.file, caps=[lowered], charges=[HEART, LUNG, later]).assumed[0] == (
        Assumed(unit="patient", epsilon=10.0, delta=2.5 * DELTA)
    )


def test_a_second_unit_of_the_log_is_one_that_was_charged_if_it_spent_anything():
    document = replace(LUNG, unit="document")
    plan = recovered(caps=(LOW, DOCUMENT), charges=[HEART, document])
    assert {a.unit for a in plan.assumed} == {"patient", "document"}
    free = replace(document, epsilon=0.0)
    error = refused(recovered, caps=(LOW, DOCUMENT), charges=[HEART, free])
    assert "per document (its cap)" in error.message
