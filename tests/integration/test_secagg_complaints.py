"""A box that does not open: the coordinator learns whose; either of the two may be at fault."""

from dataclasses import replace

import numpy as np
import pytest

from common.secagg import errors, institution, statements
from common.secagg.codec import decode, encode
from common.secagg.machine import Machine
from common.secagg.messages import Complaint
from common.secagg.transitions import Phase
from tests.secagg_parties import Federation, Parties, advance, answered, bytes_of, parameters

PARTIES = Parties(parameters(5))
HOLDER, DEALER = 0, 2


def broken_box(federation):
    """The dealer closes other bytes for the holder than those it commits to."""
    reply = decode(federation.answer("share", DEALER, federation.requests[DEALER]))
    first, *others = reply.boxes
    assert first.peer == HOLDER
    bad = replace(first, box=bytes(len(first.box)))
    return PARTIES.testified(replace(reply, boxes=(bad, *others)))


def session_with_a_broken_box():
    """A session before `mask`."""
    bad = broken_box(Federation(PARTIES).reach("share"))
    rewrite = {"share": lambda i, reply: bad if i == DEALER else reply}
    return Federation(PARTIES, to_coordinator=rewrite).reach("mask")


def complaint_of(federation, index=HOLDER):
    state = federation.states[index]
    with pytest.raises((errors.BoxError, errors.ShareError)) as caught:
        advance(state, federation.requests[index], index)
    return institution.complaint(state, caught.value)


def test_coordinator_is_told_whose_box_does_not_open_and_blames_neither():
    federation = session_with_a_broken_box()
    with pytest.raises(errors.ComplaintError) as caught:
        federation.machine.receive(HOLDER, complaint_of(federation))
    assert (caught.value.peer, caught.value.accused) == ("site-000", "site-002")
    assert caught.value.message == (
        "site-000 says that the box of site-002 does not open: one of the two is at fault, and "
        "nothing here tells which"
    )


def test_complaint_says_names_and_nothing_else():
    federation = session_with_a_broken_box()
    told = decode(complaint_of(federation))
    said = Complaint(session=PARTIES.session(), sender=HOLDER, accused=DEALER)
    assert replace(told, signature=b"") == said
    assert encode(told) == PARTIES.testified(said)


def unsigned(federation, sender, message):
    """The coordinator refuses, blames nobody, and is as it was."""
    before = answered(federation.machine)
    with pytest.raises(errors.UnsignedError, match="who carried it may be at fault"):
        federation.machine.receive(sender, message)
    assert answered(federation.machine) == before
    return True


def test_complaints_that_who_carries_the_messages_made_up_are_refused():
    """Else three of them, of one accused, would show it "beside more than `collusion` others"."""
    federation = Federation(PARTIES).reach("mask")
    for holder in (0, 1, 3):
        made_up = Complaint(session=PARTIES.session(), sender=holder, accused=DEALER)
        assert unsigned(federation, holder, encode(replace(made_up, signature=bytes(64))))
        for other in (4, DEALER):
            assert unsigned(federation, holder, PARTIES.testified(made_up, other))
    of_another = decode(complaint_of(session_with_a_broken_box()))
    assert unsigned(federation, HOLDER, encode(replace(of_another, accused=1)))
    as_request = statements.signed(PARTIES.signers[HOLDER], of_another)
    assert unsigned(federation, HOLDER, as_request)


def test_boxes_that_who_carries_the_messages_changed_are_refused():
    """Else honest holders would complain of an honest dealer, or its shares would seem wrong."""
    federation = Federation(PARTIES).reach("share")
    reply = decode(federation.answer("share", DEALER, federation.requests[DEALER]))
    first, *others = reply.boxes
    for field in ("box", "key_digest", "seed_digest"):
        bad = replace(first, **{field: bytes(len(getattr(first, field)))})
        assert unsigned(federation, DEALER, encode(replace(reply, boxes=(bad, *others))))
    federation.machine.receive(DEALER, encode(reply))


@pytest.mark.parametrize("kind", ["seeds", "keys"])
def test_shares_that_who_carries_the_messages_changed_name_no_holder(kind):
    federation = Federation(PARTIES, stays={4: 2}).reach("open")
    reply = decode(federation.answer("open", HOLDER, federation.requests[HOLDER]))
    *others, (owner, share) = getattr(reply, kind)
    changed = (owner, share[:-1] + bytes([share[-1] ^ 1]))
    forged = encode(replace(reply, **{kind: (*others, changed)}))
    assert unsigned(federation, HOLDER, forged)
    with pytest.raises(errors.ShareError):  # of one's own making, it does
        federation.machine.receive(HOLDER, PARTIES.testified(decode(forged)))


def test_sum_goes_on_without_who_complained():
    federation = session_with_a_broken_box()
    machine, complaint = federation.machine, complaint_of(federation)
    for i, request in federation.requests.items():
        if i != HOLDER:
            machine.receive(i, federation.answer("mask", i, request))
    with pytest.raises(errors.ComplaintError):
        machine.receive(HOLDER, complaint)
    assert answered(machine)[Phase.MASKED] == {1, 2, 3, 4}
    federation.requests = machine.close()
    for stage in ("sign", "open"):
        federation.stage(stage, federation.requests)
        federation.requests = machine.close()
    assert np.array_equal(machine.total, PARTIES.plain_sum(range(1, 5)))


def test_who_complained_still_answers_an_instruction_with_good_boxes():
    federation = Federation(PARTIES).reach("mask")
    true = federation.requests[HOLDER]
    told = decode(true)
    bad = replace(told.boxes[1], box=bytes(len(told.boxes[1].box)))
    boxes = (told.boxes[0], bad, *told.boxes[2:])
    federation.requests[HOLDER] = PARTIES.signed(replace(told, boxes=boxes))
    with pytest.raises(errors.ComplaintError):
        federation.machine.receive(HOLDER, complaint_of(federation))
    federation.machine.receive(HOLDER, federation.answer("mask", HOLDER, true))
    assert HOLDER in federation.machine.survivors


@pytest.mark.parametrize("stage", ["advertise", "share", "sign", "open"])
def test_complaint_at_another_stage_is_out_of_order(stage):
    federation = Federation(PARTIES).reach(stage)
    told = Complaint(session=PARTIES.session(), sender=HOLDER, accused=DEALER)
    with pytest.raises(errors.OutOfOrderError):
        federation.machine.receive(HOLDER, PARTIES.testified(told))


@pytest.mark.parametrize("accused", [HOLDER, 4, 5, 65535])
def test_complaint_of_one_whose_box_was_not_sent_is_refused(accused):
    federation = Federation(PARTIES, stays={4: 1}).reach("mask")
    told = Complaint(session=PARTIES.session(), sender=HOLDER, accused=accused)
    with pytest.raises(errors.UnknownInstitutionError):
        federation.machine.receive(HOLDER, PARTIES.testified(told))
    assert federation.machine.phase is Phase.MASKED


def test_complaint_in_the_name_of_another_or_of_another_session_is_refused():
    federation = Federation(PARTIES).reach("mask")
    told = Complaint(session=PARTIES.session(), sender=1, accused=DEALER)
    with pytest.raises(errors.WrongSenderError):
        federation.machine.receive(HOLDER, PARTIES.testified(told))
    later = replace(told, session=PARTIES.session(2))
    with pytest.raises(errors.WrongSessionError):
        federation.machine.receive(1, PARTIES.testified(later))


def test_no_other_refusal_makes_a_complaint():
    federation = Federation(PARTIES).reach("mask")
    state = federation.states[HOLDER]
    for error in (
        errors.UnsignedError("x", peer="coordinator"),
        errors.WrongSenderError("x", peer="coordinator"),
        errors.UnknownInstitutionError("x", peer="site-001"),
    ):
        assert institution.complaint(state, error) == b""
    box = errors.BoxError("x", peer="site-001")
    assert institution.complaint(state, box)
    for stage in ("advertise", "share", "sign", "open"):
        other = Federation(PARTIES).reach(stage).states[HOLDER]
        assert institution.complaint(other, box) == b""


def test_machine_complains_and_keeps_its_state():
    federation = session_with_a_broken_box()
    machine = Machine(PARTIES.party(HOLDER), {}, lambda n: bytes_of(n, "unused"))
    machine._state = federation.states[HOLDER]
    with pytest.raises(errors.BoxError) as caught:
        machine.receive(federation.requests[HOLDER])
    assert decode(machine.complaint(caught.value)).accused == DEALER
    assert machine._state is federation.states[HOLDER]


def test_complaint_is_a_request_to_nobody():
    federation = Federation(PARTIES).reach("mask")
    told = Complaint(session=PARTIES.session(), sender=1, accused=DEALER)
    with pytest.raises(errors.UnsignedError):
        advance(federation.states[HOLDER], PARTIES.testified(told), HOLDER)
