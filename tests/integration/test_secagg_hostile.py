"""A coordinator that lies, peers that lie, and thieves of messages: each refused by its own rule.

What the coordinator says here it has signed; `test_secagg_signed` is of what it has not.
Whenever an institution refuses, its state is the one that it had.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from common.errors import ConfigError
from common.secagg import errors, institution, keys, statements
from common.secagg.codec import decode, encode
from common.secagg.messages import Box, Survivors, Testimony
from common.secagg.shamir import PRIME, SHARE_BYTES
from common.secagg.states import Durable, Idle
from common.secagg.transitions import Stage
from tests.secagg_parties import MODEL, Federation, Parties, advance, answered, parameters, seed

PARTIES = Parties(parameters(5))
REMEMBERED: dict = {}
OTHER_MODEL = b"\x4d" * 32
ZERO_SIGNATURE = bytes(64)


def reach(stage, **changes):
    """A session up to a stage."""
    return Federation(PARTIES, remembered=REMEMBERED, **changes).reach(stage)


def told(federation, index=0):
    """The request that an institution is about to get, as a message."""
    return decode(federation.requests[index])


def refused(federation, message, error, index=0):
    """The institution refuses, and its state is as it was; the error is handed back."""
    state = federation.states[index]
    with pytest.raises(error) as caught:
        advance(state, PARTIES.signed(message), index)
    assert type(caught.value) is error
    assert federation.states[index] is state
    advance(state, federation.requests[index], index)
    return caught.value


def aborted(federation, message, error, index=0):
    """The institution gives the session up: it says why, and no reply or secret is left."""
    step = advance(federation.states[index], PARTIES.signed(message), index)
    assert type(step.aborted) is error
    assert step.reply == b""
    assert step.state.stage is Stage.FAILED
    with pytest.raises(errors.FailedError):
        advance(step.state, federation.requests[index], index)
    return step.aborted


def changed(entries, at, **fields):
    """Entries of a message, one of them with other fields."""
    return tuple(replace(e, **fields) if i == at else e for i, e in enumerate(entries))


# instructions


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "open"])
def test_message_of_another_study_is_refused(stage):
    federation = reach(stage)
    message = told(federation)
    other = replace(message.session, study="9f" * 32)
    refused(federation, replace(message, session=other), errors.WrongStudyError)


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "open"])
def test_message_under_another_roster_is_refused(stage):
    federation = reach(stage)
    message = told(federation)
    other = replace(message.session, roster="9f" * 32)
    refused(federation, replace(message, session=other), errors.WrongRosterError)


@pytest.mark.parametrize("other", [{"round": 2}, {"attempt": 2}, {"purpose": "evaluate"}])
@pytest.mark.parametrize("stage", ["share", "mask", "sign", "open"])
def test_message_of_another_session_is_refused(stage, other):
    federation = reach(stage)
    message = told(federation)
    session = replace(message.session, **other)
    refused(federation, replace(message, session=session), errors.WrongSessionError)


def test_instruction_for_another_institution_is_refused():
    federation = reach("mask")
    refused(federation, replace(told(federation), receiver=1), errors.WrongSenderError)


# freshness


@pytest.mark.parametrize("order", [(3, 2), (3, 1), (2, 9)])
def test_session_that_is_not_newer_is_refused(order):
    idle = Idle(party=PARTIES.party(0), newest={"train": (3, 2)})
    session = PARTIES.session(*order)
    request = PARTIES.machine(session).invite()[0]
    with pytest.raises(errors.StaleError, match=r"3\.2 was begun"):
        advance(idle, request)


@pytest.mark.parametrize(
    ("order", "purpose"), [((3, 3), "train"), ((4, 1), "train"), ((1, 1), "evaluate")]
)
def test_newer_session_and_other_purpose_are_begun(order, purpose):
    idle = Idle(party=PARTIES.party(0), newest={"train": (3, 2)})
    request = PARTIES.machine(PARTIES.session(*order, purpose)).invite()[0]
    assert advance(idle, request).durable.session.order == order


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "open"])
def test_same_request_gets_the_same_bytes_and_no_second_answer(stage):
    federation = reach(stage)
    request = federation.requests[0]
    reply = federation.answer(stage, 0, request)
    state = federation.states[0]
    again = advance(state, request, "other random bytes")
    assert again.state is state
    assert again.reply == reply
    assert again.durable == Durable(
        session=PARTIES.session(),
        stage=state.stage,
        reply_sha256=hashlib.sha256(reply).hexdigest(),
        survivors=(0, 1, 2, 3, 4) if stage == "open" else (),
    )


def second(federation, stage):
    """Another valid request of a stage that was answered."""
    message = told(federation)
    if stage == "share":
        return replace(message, adverts=message.adverts[:4])
    if stage == "mask":
        return replace(message, model=OTHER_MODEL)
    if stage == "sign":
        return replace(message, survivors=(0, 1, 2, 3), dropped=(4,))
    return replace(message, signatures=message.signatures[:4])


@pytest.mark.parametrize("stage", ["share", "mask", "sign", "open"])
def test_stage_answered_is_not_answered_again_in_another_way(stage):
    federation = reach(stage)
    request = PARTIES.signed(second(federation, stage))
    # it is a good request of its own
    federation.answer(stage, 1, PARTIES.signed(replace(decode(request), receiver=1, boxes=told(
        federation, 1).boxes)) if stage == "mask" else request)  # fmt: skip
    federation.answer(stage, 0, federation.requests[0])
    state = federation.states[0]
    with pytest.raises(errors.AnsweredError):
        advance(state, request)
    assert federation.states[0] is state


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "open"])
def test_stage_is_not_answered_again_after_a_restart(stage):
    federation = reach(stage)
    federation.answer(stage, 0, federation.requests[0])
    order = federation.states[0].answered.durable.session.order
    restarted = Idle(party=PARTIES.party(0), newest={"train": order})
    for request in (
        told(federation),
        *([] if stage == "advertise" else [second(federation, stage)]),
    ):
        with pytest.raises(errors.StaleError):
            advance(restarted, PARTIES.signed(request))


def test_vector_is_masked_once():
    federation = reach("mask")
    federation.answer("mask", 0, federation.requests[0])
    with pytest.raises(errors.AnsweredError):
        institution.submit(federation.states[0], PARTIES.vector(1))


def test_vector_without_an_instruction_is_not_masked():
    federation = reach("mask")
    vector = PARTIES.vector(0)
    with pytest.raises(errors.OutOfOrderError):
        institution.submit(federation.states[0], vector)
    assert np.array_equal(vector, PARTIES.vector(0))


@pytest.mark.parametrize(("stage", "ahead"), [("advertise", "share"), ("share", "mask"),
                                              ("mask", "sign"), ("sign", "open")])  # fmt: skip
def test_stage_is_not_left_out(stage, ahead):
    refused(reach(stage), told(reach(ahead)), errors.OutOfOrderError)


def test_unmasking_without_the_consistency_stage_is_refused():
    refused(reach("sign"), told(reach("open")), errors.OutOfOrderError)


# keys


def forged(advert, owner, **fields):
    """An advert with other fields, signed by an institution."""
    unsigned = replace(advert, **fields)
    text = statements.advert_text(unsigned)
    return replace(
        unsigned, signature=statements.sign(PARTIES.signers[owner], statements.ADVERT, text)
    )


def share_with(at, advert):
    """A federation before `share`, and adverts of which one is replaced."""
    federation = reach("share")
    message = told(federation)
    adverts = [advert if a.sender == at else a for a in message.adverts]
    return federation, replace(message, adverts=tuple(adverts))


@pytest.mark.parametrize("field", ["box_key", "mask_key", "commitment"])
def test_swapped_key_is_refused(field):
    advert = told(reach("share")).adverts[1]
    federation, message = share_with(1, replace(advert, **{field: keys.public_key(seed("mine"))}))
    assert refused(federation, message, errors.AdvertError).peer == "site-001"


def test_unsigned_keys_are_refused():
    advert = told(reach("share")).adverts[1]
    federation, message = share_with(1, replace(advert, signature=ZERO_SIGNATURE))
    refused(federation, message, errors.AdvertError)


def test_keys_signed_by_another_institution_are_refused():
    advert = told(reach("share")).adverts[1]
    federation, message = share_with(1, forged(advert, 2, box_key=keys.public_key(seed("mine"))))
    refused(federation, message, errors.AdvertError)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_replayed_keys_of_another_session_are_refused(order):
    other = Federation(PARTIES, machine=PARTIES.machine(PARTIES.session(*order))).reach("share")
    advert = replace(told(other).adverts[1], session=PARTIES.session())
    federation, message = share_with(1, advert)
    refused(federation, message, errors.AdvertError)


@pytest.mark.parametrize("field", ["box_key", "mask_key", "commitment"])
def test_key_that_two_institutions_use_is_refused(field):
    adverts = told(reach("share")).adverts
    advert = forged(adverts[2], 2, **{field: getattr(adverts[1], field)})
    federation, message = share_with(2, advert)
    assert refused(federation, message, errors.ReusedKeyError).peer == "site-002"


def test_one_key_for_boxes_and_masks_is_refused():
    adverts = told(reach("share")).adverts
    federation, message = share_with(2, forged(adverts[2], 2, mask_key=adverts[2].box_key))
    refused(federation, message, errors.ReusedKeyError)


def test_own_keys_replaced_or_left_out_are_refused():
    federation = reach("share")
    message = told(federation)
    advert = forged(message.adverts[0], 0, box_key=keys.public_key(seed("mine")))
    for adverts in ((advert, *message.adverts[1:]), message.adverts[1:]):
        refused(federation, replace(message, adverts=adverts), errors.OwnAdvertError)


@pytest.mark.parametrize("field", ["box_key", "mask_key"])
@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_key_of_small_order_is_refused(field, point):
    advert = told(reach("share")).adverts[1]
    federation, message = share_with(1, forged(advert, 1, **{field: point}))
    assert refused(federation, message, errors.WeakKeyError).peer == "site-001"
    machine = reach("advertise").machine
    with pytest.raises(errors.WeakKeyError):
        machine.receive(1, encode(forged(advert, 1, **{field: point})))


@pytest.mark.parametrize("field", ["box_key", "mask_key"])
def test_a_reused_key_in_another_spelling_is_refused(field):
    adverts = told(reach("share")).adverts
    top_bit = bytearray(getattr(adverts[2], field))
    top_bit[31] |= 0x80
    federation, message = share_with(1, forged(adverts[1], 1, **{field: bytes(top_bit)}))
    assert refused(federation, message, errors.WeakKeyError).peer == "site-001"


def test_padded_roster_is_refused():
    federation = reach("share")
    message = told(federation)
    extra = forged(message.adverts[4], 4, sender=5, box_key=keys.public_key(seed("mine")))
    padded = replace(message, adverts=(*message.adverts, extra))
    refused(federation, padded, errors.UnknownInstitutionError)


# numbers


@pytest.mark.parametrize("n", [1, 2])
def test_study_of_one_or_two_is_refused_at_load(n):
    with pytest.raises(ConfigError, match="expected 3"):
        parameters(n, threshold=n, collusion=1, min_cohort=n)


@pytest.mark.parametrize("left", [1, 2, 3])
def test_cohort_below_the_threshold_is_refused_before_anything_is_shared(left):
    federation = reach("share")
    message = told(federation)
    few = replace(message, adverts=message.adverts[:left])
    assert "threshold is 4" in aborted(federation, few, errors.BelowThresholdError).message


def test_threshold_that_the_coordinator_lowered_does_not_bind_an_institution():
    low = Parties(parameters(5, adversary="semi_honest", threshold=3))
    federation = Federation(PARTIES, machine=low.machine(), stays={3: 0, 4: 0})
    with pytest.raises(errors.BelowThresholdError):
        federation.run()
    assert {type(error) for error in federation.errors.values()} == {errors.BelowThresholdError}


def test_lowered_threshold_at_the_survivors_is_refused():
    federation = reach("sign")
    few = replace(told(federation), survivors=(0, 1, 2), dropped=(3, 4))
    aborted(federation, few, errors.BelowThresholdError)


def test_site_that_asks_for_more_than_the_study_aborts_below_its_own_cohort():
    for stage in ("share", "sign"):
        states = {0: Idle(party=PARTIES.party(0, min_cohort=5), newest={})}
        federation = Federation(PARTIES, states=states).reach(stage)
        message = told(federation)
        if stage == "share":
            few = replace(message, adverts=message.adverts[:4])
        else:
            few = replace(message, survivors=(0, 1, 2, 3), dropped=(4,))
        aborted(federation, few, errors.BelowCohortError)


# boxes and shares


def test_tampered_box_is_refused():
    federation = reach("mask")
    message = told(federation)
    for field in ("box", "key_digest", "seed_digest"):
        value = bytearray(getattr(message.boxes[1], field))
        value[0] ^= 1
        boxes = changed(message.boxes, 1, **{field: bytes(value)})
        assert (
            refused(federation, replace(message, boxes=boxes), errors.BoxError).peer == "site-002"
        )


def test_box_in_the_name_of_another_sender_is_refused():
    federation = reach("mask")
    message = told(federation)
    boxes = (message.boxes[0], replace(message.boxes[0], peer=2), *message.boxes[2:])
    assert refused(federation, replace(message, boxes=boxes), errors.BoxError).peer == "site-002"


def test_box_for_another_receiver_is_refused():
    federation = reach("mask")
    message = told(federation)
    boxes = (told(federation, 2).boxes[1], *message.boxes[1:])
    assert boxes[0].peer == message.boxes[0].peer == 1
    refused(federation, replace(message, boxes=boxes), errors.BoxError)


def test_box_of_no_neighbour_is_refused():
    federation = reach("mask")
    message = told(federation)
    own = replace(message.boxes[0], peer=0)
    refused(
        federation, replace(message, boxes=(own, *message.boxes)), errors.UnknownInstitutionError
    )


def dealt(federation, dealer, holder, point=None, share=None):
    """A box that a dealer could make: of another point, or of another key share."""
    state = federation.states[dealer]
    session, adverts = state.session, state.adverts
    key = keys.box_key(
        state.secrets.box_key, adverts[holder].box_key, session, dealer, holder, dealer
    )
    shares = keys.Shares(key=share or bytes(SHARE_BYTES), seed=bytes(SHARE_BYTES))
    if point is None:
        return replace(keys.seal(key, session, dealer, holder, shares), peer=dealer)
    aside = keys.seal(key, session, dealer, point, shares)
    bound = keys._bound(session, dealer, holder, aside.key_digest, aside.seed_digest)
    plain = (point + 1).to_bytes(2, "big") + shares.key + shares.seed
    return replace(aside, peer=dealer, box=keys.AESGCM(key).encrypt(bytes(12), plain, bound))


def test_share_of_another_point_is_refused_and_its_dealer_named():
    federation = reach("mask")
    message = told(federation)
    box = dealt(federation, 1, 0, point=3)
    error = refused(
        federation, replace(message, boxes=(box, *message.boxes[1:])), errors.ShareError
    )
    assert error.peer == "site-001"
    assert "a share at 4, expected 1" in error.message


def test_share_outside_the_field_is_refused_and_its_dealer_named():
    federation = reach("mask")
    message = told(federation)
    box = dealt(federation, 1, 0, share=PRIME.to_bytes(SHARE_BYTES, "big"))
    error = refused(
        federation, replace(message, boxes=(box, *message.boxes[1:])), errors.ShareError
    )
    assert (error.peer, "field" in error.message) == ("site-001", True)


def test_share_that_is_not_the_one_committed_to_is_refused_and_its_dealer_named():
    federation = reach("mask")
    message, state = told(federation), federation.states[1]
    key = keys.box_key(state.secrets.box_key, state.adverts[0].box_key, state.session, 1, 0, 1)
    digests = bytes(32), bytes(32)
    plain = (1).to_bytes(2, "big") + bytes(2 * SHARE_BYTES)
    sealed = keys.AESGCM(key).encrypt(bytes(12), plain, keys._bound(state.session, 1, 0, *digests))
    box = Box(peer=1, key_digest=digests[0], seed_digest=digests[1], box=sealed)
    error = refused(
        federation, replace(message, boxes=(box, *message.boxes[1:])), errors.ShareError
    )
    assert (error.peer, "committed" in error.message) == ("site-001", True)


def test_too_few_boxes_end_the_session():
    federation = reach("mask")
    message = told(federation)
    few = replace(message, boxes=message.boxes[:2])
    aborted(federation, few, errors.BelowNeighbourhoodError)


# sets and views


def test_overlap_of_survivors_and_dropouts_is_refused():
    federation = reach("sign")
    message = replace(told(federation), dropped=(1,))
    assert "site-001" in refused(federation, message, errors.OverlapError).message


@pytest.mark.parametrize(
    ("survivors", "dropped"),
    [((1, 2, 3, 4), (0,)), ((1, 2, 3, 4), ()), ((0, 1, 2, 3), ())],
    ids=["own institution dropped", "own institution nowhere", "a dealer nowhere"],
)
def test_sets_that_are_not_those_who_shared_keys_are_refused(survivors, dropped):
    federation = reach("sign")
    message = replace(told(federation), survivors=survivors, dropped=dropped)
    refused(federation, message, errors.SetsError)


def test_survivor_who_shared_no_keys_is_refused():
    federation = reach("sign", stays={4: 1})
    assert told(federation).survivors == (0, 1, 2, 3)
    message = replace(told(federation), survivors=(0, 1, 2, 3, 4))
    refused(federation, message, errors.SetsError)


def test_survivor_who_sent_no_keys_is_refused():
    federation = reach("sign", stays={4: 0})
    message = replace(told(federation), dropped=(4,))
    refused(federation, message, errors.UnknownInstitutionError)


def test_sets_that_isolate_an_institution_on_a_ring_end_the_session():
    ring = parameters(40, collusion=1, threshold=30, degree=8, neighbour_threshold=7)
    federation = Federation(Parties(ring)).reach("sign")
    near = sorted(federation.states[0].neighbours)
    message, gone = told(federation), near[:3]
    left = tuple(i for i in message.survivors if i not in gone)
    one_more = replace(message, survivors=tuple(sorted((*left, gone[0]))), dropped=tuple(gone[1:]))
    assert advance(federation.states[0], PARTIES.signed(one_more), 0).reply
    few = replace(message, survivors=left, dropped=tuple(gone))
    aborted(federation, few, errors.BelowNeighbourhoodError)


def bound(federation, over):
    """Institution 0 knows that the sum may have been opened over these."""
    state = federation.states[0]
    federation.states[0] = replace(state, party=replace(state.party, opened_over=over))
    return federation


def test_vectors_whose_sum_was_opened_over_others_are_not_signed_for():
    federation = bound(Federation(PARTIES, stays={4: 2}).reach("sign"), (0, 1, 2, 3, 4))
    with pytest.raises(errors.OpenedError, match="over site-000, site-001, site-002, site-003,"):
        advance(federation.states[0], federation.requests[0])
    assert advance(bound(federation, (0, 1, 2, 3)).states[0], federation.requests[0]).reply


def test_vectors_whose_sum_was_opened_over_others_are_not_opened_unsigned():
    parties = Parties(parameters(5, adversary="semi_honest", threshold=3))
    federation = bound(Federation(parties, stays={4: 2}).reach("open"), (0, 1, 2, 3, 4))
    with pytest.raises(errors.OpenedError):
        advance(federation.states[0], federation.requests[0])
    assert advance(bound(federation, (0, 1, 2, 3)).states[0], federation.requests[0]).reply


def test_an_institution_is_bound_where_it_opens_and_on_a_ring_where_it_signs():
    federation = reach("open")
    everybody = (0, 1, 2, 3, 4)
    assert federation.states[0].answered.durable.survivors == ()
    assert advance(federation.states[0], federation.requests[0]).durable.survivors == everybody
    ring = parameters(40, collusion=1, threshold=30, degree=8, neighbour_threshold=7)
    signed = Federation(Parties(ring)).reach("open").states[0]
    assert signed.answered.durable.survivors == tuple(range(40))


def groups(rewrite):
    """Sites 0 and 1 get the truth, the others what a rewrite makes of it; all sign."""
    federation = reach("sign")
    message = told(federation)
    other = rewrite(message)
    signatures = {}
    for i in range(5):
        reply = federation.answer("sign", i, PARTIES.signed(message if i < 2 else other))
        signatures[i] = decode(reply).signature
    return federation, signatures


def test_two_survivor_sets_to_two_groups_are_refused():
    def rewrite(message):
        return replace(message, survivors=(0, 2, 3, 4), dropped=(1,))

    federation, signatures = groups(rewrite)
    unmask = replace(told(reach("open")), signatures=tuple(sorted(signatures.items())))
    with pytest.raises(errors.StatementError) as caught:
        advance(federation.states[0], PARTIES.signed(unmask))
    assert caught.value.peer == "site-002"
    few = replace(unmask, signatures=((0, signatures[0]), (1, signatures[1])))
    with pytest.raises(errors.TooFewSignaturesError, match="2 signatures, the threshold is 4"):
        advance(federation.states[0], PARTIES.signed(few))


def test_different_models_to_different_sites_are_refused():
    federation = reach("mask")
    federation.requests[0] = PARTIES.signed(replace(told(federation), model=OTHER_MODEL))
    federation.stage("mask", federation.requests)
    requests = federation.machine.close()
    signatures = {i: decode(federation.answer("sign", i, requests[i])).signature for i in range(5)}
    unmask = replace(told(reach("open")), signatures=tuple(sorted(signatures.items())))
    for index, peer in ((0, "site-001"), (1, "site-000")):
        with pytest.raises(errors.StatementError) as caught:
            advance(federation.states[index], PARTIES.signed(unmask))
        assert caught.value.peer == peer
    with pytest.raises(errors.StatementError):
        federation.machine.receive(0, federation.states[0].answered.reply)


def test_other_sets_than_were_signed_are_refused():
    federation = reach("open")
    message = replace(told(federation), survivors=(0, 1, 2, 3), dropped=(4,))
    refused(
        federation, replace(message, signatures=message.signatures[:4]), errors.ChangedSetsError
    )


def test_fewer_signatures_than_the_threshold_are_refused():
    federation = reach("open")
    message = told(federation)
    few = replace(message, signatures=message.signatures[:3])
    refused(federation, few, errors.TooFewSignaturesError)


def test_forged_signature_is_refused_even_beside_enough_good_ones():
    federation = reach("open")
    message = told(federation)
    signatures = (*message.signatures[:4], (4, ZERO_SIGNATURE))
    error = refused(federation, replace(message, signatures=signatures), errors.StatementError)
    assert error.peer == "site-004"


def test_signature_of_one_in_the_name_of_another_is_refused():
    federation = reach("open")
    message = told(federation)
    signatures = (*message.signatures[:4], (4, message.signatures[3][1]))
    refused(federation, replace(message, signatures=signatures), errors.StatementError)


def test_signer_who_is_no_survivor_is_refused():
    federation = reach("open", stays={4: 2})
    message = told(federation)
    signatures = (*message.signatures, (4, ZERO_SIGNATURE))
    message = replace(message, signatures=signatures)
    refused(federation, message, errors.UnknownInstitutionError)


def test_semi_honest_study_takes_no_survivors_message_and_no_signatures():
    parties = Parties(parameters(5, adversary="semi_honest", threshold=3))
    federation = Federation(parties).reach("open")
    survivors = Survivors(session=parties.session(), survivors=(0, 1, 2, 3, 4), dropped=())
    refused(federation, survivors, errors.OutOfOrderError)
    message = replace(told(federation), signatures=((0, ZERO_SIGNATURE),))
    refused(federation, message, errors.MalformedError)


# what the coordinator refuses


def replies(stage, **changes):
    """A federation at a stage, and every institution's reply, which nobody has heard yet."""
    federation = reach(stage, **changes)
    asked = federation.requests
    return federation, {i: federation.answer(stage, i, asked[i]) for i in asked}


def said(message):
    """The bytes of a reply; where one bears its sender's signature at the end, it is good."""
    return PARTIES.testified(message) if isinstance(message, Testimony) else encode(message)


def rejected(machine, sender, message, error):
    """The coordinator refuses, and takes the true reply afterwards."""
    phase, before = machine.phase, answered(machine)
    with pytest.raises(error) as caught:
        machine.receive(sender, said(message))
    assert type(caught.value) is error
    assert (machine.phase, answered(machine)) == (phase, before)
    return caught.value


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "open"])
def test_reply_in_the_name_of_another_is_rejected(stage):
    federation, answers = replies(stage)
    error = rejected(federation.machine, 1, decode(answers[0]), errors.WrongSenderError)
    assert error.peer == "site-001"


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "open"])
def test_same_reply_twice_is_ignored_and_another_rejected(stage):
    federation, answers = replies(stage)
    machine = federation.machine
    machine.receive(0, answers[0])
    before = answered(machine)
    machine.receive(0, answers[0])
    assert answered(machine) == before
    message = decode(answers[0])
    fields = {"advertise": "signature", "share": "boxes", "mask": "packed", "sign": "signature"}
    value = {"boxes": (), "packed": bytes(len(getattr(message, "packed", b"")))}
    field = fields.get(stage, "seeds")
    other = replace(message, **{field: value.get(field, () if stage == "open" else ZERO_SIGNATURE)})
    rejected(machine, 0, other, errors.AnsweredError)


def test_masked_vector_twice_is_in_the_sum_once():
    federation, answers = replies("mask")
    for i in answers:
        federation.machine.receive(i, answers[i])
        federation.machine.receive(i, answers[i])
    federation.requests = federation.machine.close()
    for stage in ("sign", "open"):
        federation.stage(stage, federation.requests)
        federation.requests = federation.machine.close()
    assert np.array_equal(federation.machine.total, PARTIES.plain_sum(range(5)))


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign"])
def test_late_reply_is_rejected(stage):
    federation, answers = replies(stage)
    for i in range(4):
        federation.machine.receive(i, answers[i])
    federation.machine.close()
    rejected(federation.machine, 4, decode(answers[4]), errors.OutOfOrderError)


def test_reply_of_one_who_was_left_behind_is_rejected():
    _, answers = replies("sign")
    federation = reach("sign", stays={4: 2})
    rejected(federation.machine, 4, decode(answers[4]), errors.UnknownInstitutionError)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [("study", "9f" * 32, errors.WrongStudyError), ("roster", "9f" * 32, errors.WrongRosterError),
     ("round", 2, errors.WrongSessionError), ("attempt", 2, errors.WrongSessionError),
     ("purpose", "evaluate", errors.WrongSessionError)],
)  # fmt: skip
def test_reply_of_another_session_is_rejected(field, value, error):
    federation, answers = replies("sign")
    message = decode(answers[0])
    session = replace(message.session, **{field: value})
    rejected(federation.machine, 0, replace(message, session=session), error)


def test_forged_advert_and_reused_key_are_rejected():
    federation, answers = replies("advertise")
    machine, advert = federation.machine, decode(answers[1])
    rejected(machine, 1, replace(advert, signature=ZERO_SIGNATURE), errors.AdvertError)
    machine.receive(0, answers[0])
    reused = forged(advert, 1, box_key=decode(answers[0]).mask_key)
    rejected(machine, 1, reused, errors.ReusedKeyError)
    machine.receive(1, answers[1])


def test_boxes_for_others_than_the_neighbours_are_rejected():
    federation, answers = replies("share")
    message = decode(answers[0])
    rejected(federation.machine, 0, replace(message, boxes=message.boxes[1:]), errors.SetsError)


def test_vector_of_another_length_is_rejected():
    federation, answers = replies("mask")
    message = decode(answers[0])
    for length, packed in ((4, message.packed[:-3]), (5, message.packed[:-1]), (4, message.packed)):
        broken = replace(message, length=length, packed=bytes(packed))
        rejected(federation.machine, 0, broken, errors.MalformedError)


def test_signature_over_another_view_is_rejected():
    federation, answers = replies("sign")
    message = replace(decode(answers[0]), signature=decode(answers[1]).signature)
    assert rejected(federation.machine, 0, message, errors.StatementError).peer == "site-000"


def other_share(entries, at):
    """Shares, one of them another number."""
    owner, _ = entries[at]
    return (*entries[:at], (owner, bytes(SHARE_BYTES - 1) + b"\x07"), *entries[at + 1 :])


@pytest.mark.parametrize("kind", ["seeds", "keys"])
def test_holder_of_a_share_that_does_not_fit_is_named(kind):
    federation, answers = replies("open", stays={4: 2})
    message = decode(answers[2])
    wrong = replace(message, **{kind: other_share(getattr(message, kind), 0)})
    error = rejected(federation.machine, 2, wrong, errors.ShareError)
    assert error.peer == "site-002"
    assert f"site-00{0 if kind == 'seeds' else 4}" in error.message


def test_shares_of_others_than_were_asked_for_are_rejected():
    federation, answers = replies("open", stays={4: 2})
    message = decode(answers[2])
    both = replace(message, keys=message.seeds[:1])
    rejected(federation.machine, 2, both, errors.SetsError)


def cheat(kind):
    """Institution 1 deals shares of another secret than it announced, and vanishes if need be."""
    federation = Federation(PARTIES, stays={1: 2} if kind == "key" else {}).reach("share")
    state = federation.states[1]
    other = {"mask_key": seed("other")} if kind == "key" else {"seed": seed("other")}
    federation.states[1] = replace(state, secrets=replace(state.secrets, **other))
    for stage in ("share", "mask", "sign", "open"):
        federation.stage(stage, federation.requests)
        federation.requests = federation.machine.close()
        if stage == "share":
            federation.requests = federation.machine.instruct(MODEL)


def test_wrong_share_of_ones_own_seed_is_done_without_where_others_are_enough():
    federation, answers = replies("open")
    message = decode(answers[2])
    wrong = replace(message, seeds=other_share(message.seeds, 2))
    for i, answer in answers.items():
        federation.machine.receive(i, said(wrong) if i == 2 else answer)
    federation.machine.close()
    assert np.array_equal(federation.machine.total, PARTIES.plain_sum(range(5)))


def test_wrong_share_of_ones_own_seed_is_named_where_others_are_too_few():
    federation, answers = replies("open")
    message = decode(answers[2])
    wrong = replace(message, seeds=other_share(message.seeds, 2))
    for i in range(4):
        federation.machine.receive(i, said(wrong) if i == 2 else answers[i])
    with pytest.raises(errors.BrokenSeedError) as caught:
        federation.machine.close()
    assert caught.value.peer == "site-002"


def test_seed_that_breaks_its_commitment_is_found_and_its_dealer_named():
    with pytest.raises(errors.BrokenSeedError) as caught:
        cheat("seed")
    assert caught.value.peer == "site-001"


def test_key_that_is_not_the_one_announced_is_found_and_its_dealer_named():
    with pytest.raises(errors.BrokenKeyError) as caught:
        cheat("key")
    assert caught.value.peer == "site-001"


def test_failed_coordinator_stays_failed():
    federation = reach("mask")
    machine = federation.machine
    with pytest.raises(errors.BelowThresholdError, match=r"0 of 5 .* missing: site-000"):
        machine.close()
    for call in (machine.close, lambda: machine.instruct(MODEL)):
        with pytest.raises(errors.FailedError):
            call()
    with pytest.raises(errors.FailedError):
        machine.receive(0, federation.answer("mask", 0, federation.requests[0]))


def test_one_key_for_two_parties_is_refused():
    context = PARTIES.context
    first, second, *rest = context.public_keys
    for twice in ({"coordinator": first}, {"public_keys": (first, first, *rest)}):
        with pytest.raises(ConfigError, match="one public key stands for two parties"):
            replace(context, **twice)
    replace(context, public_keys=(second, first, *rest))


def test_identities_that_are_not_on_the_roster_are_refused():
    with pytest.raises(ConfigError, match="identity"):
        replace(PARTIES.party(0), index=1)
    parties = Parties(parameters(5))
    parties.coordinator = PARTIES.signers[0]
    with pytest.raises(ConfigError, match="identity"):
        parties.machine()
