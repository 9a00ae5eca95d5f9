"""Whoever is not the coordinator asks an institution for nothing, in either adversary mode.

Each of the five requests is unsigned, signed by another, or bears the coordinator's signature of
something else. The institution refuses by one rule, its state is as it was, and it answers the true
request afterwards.
"""

from dataclasses import replace

import pytest

from common.identity.signing import Signer
from common.secagg import errors, statements
from common.secagg.codec import decode, encode, signed_part
from common.secagg.messages import SIGNATURE_BYTES
from tests.secagg_parties import STAGES, Federation, Parties, advance, parameters, seed

TRUSTED = parameters(5, adversary="semi_honest", threshold=3)
MODES = {"malicious": Parties(parameters(5)), "semi_honest": Parties(TRUSTED)}
CASES = [
    (mode, stage) for mode in MODES for stage in STAGES if (mode, stage) != ("semi_honest", "sign")
]
each_request = pytest.mark.parametrize(("mode", "stage"), CASES)


class Asked:
    """A session whose next request institution 0 is about to hear."""

    def __init__(self, mode, stage, round_=1):
        parties = MODES[mode]
        machine = parties.machine(parties.session(round_))
        self.parties, self.stage = parties, stage
        self.federation = Federation(parties, machine=machine).reach(stage)
        self.request = self.federation.requests[0]

    @property
    def signature(self):
        return decode(self.request).signature

    def refuses(self, message):
        state = self.federation.states[0]
        with pytest.raises(errors.UnsignedError) as caught:
            advance(state, message, 0)
        assert (type(caught.value), caught.value.rule) == (errors.UnsignedError, "unsigned")
        assert caught.value.peer == "coordinator"
        assert self.federation.states[0] is state
        return True

    def answers(self):
        return advance(self.federation.states[0], self.request, 0).aborted is None


def under(request, signature):
    """The request under another signature."""
    assert len(signature) == SIGNATURE_BYTES
    return request[:-SIGNATURE_BYTES] + signature


@each_request
def test_unsigned_request_is_refused(mode, stage):
    asked = Asked(mode, stage)
    assert asked.refuses(under(asked.request, bytes(SIGNATURE_BYTES)))
    with pytest.raises(errors.MalformedError):
        advance(asked.federation.states[0], asked.request[:-SIGNATURE_BYTES], 0)
    assert asked.answers()


@each_request
@pytest.mark.parametrize("who", ["a stranger", "an institution", "this institution"])
def test_request_signed_by_another_key_is_refused(mode, stage, who):
    asked = Asked(mode, stage)
    signers = {
        "a stranger": Signer(seed("stranger")),
        "an institution": asked.parties.signers[1],
        "this institution": asked.parties.signers[0],
    }
    assert asked.refuses(statements.signed(signers[who], decode(asked.request)))
    assert asked.answers()


@each_request
def test_signature_of_another_kind_of_request_is_refused(mode, stage):
    asked = Asked(mode, stage)
    for other in STAGES:
        if (mode, other) in CASES and other != stage:
            assert asked.refuses(under(asked.request, Asked(mode, other).signature))
    assert asked.answers()


@each_request
def test_signature_of_another_session_is_refused(mode, stage):
    asked = Asked(mode, stage)
    assert asked.refuses(under(asked.request, Asked(mode, stage, round_=2).signature))
    assert asked.answers()


def changes(message):
    """What a stranger might like another of in a request; an invitation has its session alone."""
    for field in ("adverts", "boxes", "signatures"):
        entries = getattr(message, field, ())
        if entries:
            yield replace(message, **{field: entries[:-1]})
    if hasattr(message, "model"):
        yield replace(message, model=bytes(32))
        yield replace(message, receiver=1)
        first, second, *more = message.boxes
        swapped = (replace(second, peer=first.peer), replace(first, peer=second.peer), *more)
        yield replace(message, boxes=swapped)
    if hasattr(message, "survivors"):
        yield replace(message, survivors=message.survivors[:-1], dropped=(4,))
        yield replace(message, dropped=(4,))


@pytest.mark.parametrize(("mode", "stage"), [case for case in CASES if case[1] != "advertise"])
def test_signature_of_another_body_is_refused(mode, stage):
    asked = Asked(mode, stage)
    others = list(changes(decode(asked.request)))
    assert len(others) >= 1
    for other in others:
        assert asked.refuses(encode(other))  # under the signature of the true one
        assert asked.refuses(under(asked.request, asked.parties.signed(other)[-SIGNATURE_BYTES:]))
    assert asked.answers()


def test_signature_of_another_institutions_instruction_is_refused():
    asked = Asked("malicious", "mask")
    assert asked.refuses(under(asked.request, decode(asked.federation.requests[1]).signature))


@each_request
def test_bit_flipped_anywhere_after_the_session_is_refused(mode, stage):
    asked = Asked(mode, stage)
    state = asked.federation.states[0]
    for at in range(79, len(asked.request), 5):
        broken = bytearray(asked.request)
        broken[at] ^= 1
        with pytest.raises((errors.UnsignedError, errors.MalformedError)):
            advance(state, bytes(broken), 0)


@each_request
def test_repeated_request_needs_its_signature_too(mode, stage):
    asked = Asked(mode, stage)
    asked.federation.answer(stage, 0, asked.request)
    assert asked.refuses(under(asked.request, bytes(SIGNATURE_BYTES)))


def test_signature_is_checked_before_stage_and_content():
    """Of what nobody signed, not even the order of stages or the roster is told."""
    asked, ahead = Asked("malicious", "share"), Asked("malicious", "open")
    assert asked.refuses(under(ahead.request, bytes(SIGNATURE_BYTES)))
    told = decode(asked.request)
    padded = replace(told, adverts=(*told.adverts, replace(told.adverts[4], sender=5)))
    assert asked.refuses(encode(replace(padded, signature=bytes(SIGNATURE_BYTES))))


def test_replies_bear_no_signature_of_the_coordinator_and_are_no_requests():
    asked = Asked("malicious", "open")
    for (stage, index, way), reply in asked.federation.heard.items():
        if way == "reply" and index == 1:
            assert asked.refuses(reply), stage


def test_request_for_all_is_one_message_and_its_label_is_its_own():
    for stage in ("advertise", "share", "sign", "open"):
        requests = Asked("malicious", stage).federation.requests.values()
        assert len({id(request) for request in requests}) == 1
    asked = Asked("malicious", "share")
    text = signed_part(decode(asked.request))
    assert text == asked.request[:-SIGNATURE_BYTES]
    for label in (statements.ADVERT, statements.VIEW):
        wrong = statements.sign(asked.parties.coordinator, label, text)
        assert asked.refuses(under(asked.request, wrong))
