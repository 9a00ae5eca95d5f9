"""What a site's audit log tells of a ledger: to a recovery, and of copies that are too old."""

from dataclasses import replace

from client.ledger_seen import charges_in, heads_in
from common.privacy.ledger_codec import head_from_text
from common.privacy.ledger_entries import Assumed
from common.privacy.ledger_recovery import Given, plan_recovery
from common.privacy.ledger_salvage import salvage
from common.privacy.ledger_stated import Charged
from tests.audits import HEAD, STUDY, Written, opening, reply, spend
from tests.ledgers import DELTA, INSTITUTION, SIGNER, Chain, digest, refused, reserve, toy_epsilon
from tests.unit.test_ledger_recovery_bounds import DOCUMENT, LOW, without

HEART = Charged(study=digest("heart"), unit="patient", epsilon=3.0, delta=DELTA)
LUNG = Charged(study=digest("lung"), unit="patient", epsilon=4.0, delta=DELTA / 2)


def entries(*bodies):
    log = Written([opening()])
    made = []
    for body in bodies:
        made.append(log.make(body))
        log.add(body)
    return made


def recovered(file=b"", *, caps=(LOW,), assume=None, charges=(HEART, LUNG)):
    return plan_recovery(
        salvage([file], INSTITUTION, SIGNER.public_key), reason="test", caps=caps,
        assume=assume or {}, heads=(), studies=(), charges=charges, epsilon=toy_epsilon,
    )  # fmt: skip


def test_the_newest_head_of_each_ledger_is_told():
    newer, other = HEAD.replace(":7:", ":9:"), HEAD.replace("a" * 32, "b" * 32)
    told = heads_in(entries(reply(), reply(ledger=other), reply(ledger=newer), reply(ledger="")))
    assert set(told) == {head_from_text(newer), head_from_text(other)}


def test_a_studys_greatest_epsilon_and_delta_are_told():
    other = digest("other")
    told = charges_in(
        entries(spend(2), spend(3, delta=1e-6), spend(1), spend(4, study=other, unit="record"))
    )
    assert told == (
        Charged(study=STUDY, unit="patient", epsilon=1.5, delta=1e-5),
        Charged(study=other, unit="record", epsilon=2.0, delta=1e-5),
    )


def test_studies_that_only_the_log_knows_take_no_further_charge():
    assert set(recovered().closed) == {HEART.study, LUNG.study}


def test_a_lifetime_cap_bounds_what_the_log_tells_unless_it_was_lowered_since():
    lowered = replace(LOW, epsilon_lifetime=3.5, delta=1e-4)
    assert recovered().assumed == (Assumed(unit="patient", epsilon=5.0, delta=DELTA),)
    told = recovered(caps=[lowered]).assumed
    assert told == (Assumed(unit="patient", epsilon=4.0, delta=1e-4),)


def test_without_a_lifetime_cap_the_logs_studies_add_up_and_the_operator_must_still_speak():
    per_study = replace(LOW, epsilon_lifetime=None, epsilon_per_study=4.0)
    for caps in ((), (per_study,)):
        error = refused(recovered, caps=caps)
        assert "--assume patient=EPSILON" in error.remedy
        low = recovered(caps=caps, assume={"patient": Given(epsilon=0.0)})
        assert low.assumed == (Assumed(unit="patient", epsilon=7.0, delta=1.5 * DELTA),)
        high = recovered(caps=caps, assume={"patient": Given(epsilon=9.0, delta=0.1)})
        assert high.assumed == (Assumed(unit="patient", epsilon=9.0, delta=0.1),)


def test_a_unit_that_only_the_log_knows_is_not_left_out_beside_a_readable_one():
    chain = Chain()
    chain.add(reserve(chain, 1))
    broken = without(chain.add(reserve(chain, 2)), 3)
    record = replace(HEART, unit="record")
    error = refused(recovered, broken, charges=[record])
    assert "per record is not known" in error.message
    plan = recovered(broken, charges=[record], assume={"record": Given(epsilon=0.0)})
    assert Assumed(unit="record", epsilon=3.0, delta=DELTA) in plan.assumed


def test_what_readable_entries_account_for_is_not_counted_twice():
    chain = Chain()
    own = chain.add(reserve(chain, 1)).state.reserves[2].body
    told = Charged(study=own.study, unit="patient", epsilon=own.epsilon, delta=own.delta)
    for charges in ([told], [replace(told, epsilon=own.epsilon / 2)]):
        assert with_no_cap(chain, *charges).epsilon == own.epsilon
        assert with_no_cap(chain, *charges).delta == own.delta
    more = replace(told, epsilon=2 * own.epsilon)
    assert with_no_cap(chain, more).epsilon == 2 * own.epsilon
    assert with_no_cap(chain, told, LUNG).epsilon == own.epsilon + LUNG.epsilon


def test_what_an_earlier_recovery_has_assumed_is_not_counted_twice():
    again = Chain(ledger="9" * 32)
    again.add(recovered(caps=(), assume={"patient": Given(epsilon=0.0)}))
    assert with_no_cap(again, HEART, LUNG).epsilon == HEART.epsilon + LUNG.epsilon
    later = replace(HEART, study=digest("liver"))
    assert with_no_cap(again, HEART, LUNG, later).epsilon == 10.0


def with_no_cap(chain, *charges):
    """What is assumed."""
    given = {"patient": Given(epsilon=0.0)}
    (one,) = recovered(chain.file, caps=(), charges=charges, assume=given).assumed
    return one


def test_a_second_unit_of_the_log_is_one_that_was_charged():
    both = [HEART, replace(LUNG, unit="document")]
    plan = recovered(caps=(LOW, DOCUMENT), charges=both)
    assert {a.unit for a in plan.assumed} == {"patient", "document"}
