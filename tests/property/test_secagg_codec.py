"""100,000 broken messages: the codec and both machines raise their typed errors, and only these.

Inputs are drawn from a fixed seed: bytes at random, and real messages of every kind with bits
flipped, ends cut, pieces repeated, taken out, or put in from another message.
"""

import random

import pytest

from common.secagg import bundle, institution, statements
from common.secagg.codec import decode, encode
from common.secagg.errors import MalformedError, SecaggError
from common.secagg.messages import HEADER_BYTES, SIGNATURE_BYTES, Complaint, Kind
from tests.secagg_parties import STAGES, Federation, Parties, answered, bytes_of, parameters

PARTIES = Parties(parameters(5))
RUN = Federation(PARTIES, stays={4: 2}).run()
COMPLAINT = PARTIES.testified(Complaint(session=PARTIES.session(), sender=1, accused=2))
SAMPLES = sorted({decode(data).kind: data for data in (*RUN.heard.values(), COMPLAINT)}.items())


def flip(draw, data):
    broken = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
    return bytes(broken)


def flip_after_the_header(draw, data):
    return data[:HEADER_BYTES] + flip(draw, data[HEADER_BYTES:] or b"\0")


def cut(draw, data):
    return data[: draw.randrange(len(data))]


def extend(draw, data):
    return data + draw.randbytes(draw.choice((1, 2, 33, 162)))


def repeat(draw, data):
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((1, 2, 35, 66, 150, 162)))
    return data[:end] + data[start:]


def remove(draw, data):
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.choice((1, 2, 35, 66, 150, 162)) :]


def cross(draw, data):
    other = draw.choice(SAMPLES)[1]
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def another_kind(draw, data):
    return data[:5] + bytes([draw.randrange(256)]) + data[6:]


def numbers(draw, data):
    at = draw.randrange(HEADER_BYTES, max(HEADER_BYTES + 1, len(data)))
    return data[:at] + draw.choice((b"\xff\xff", b"\0\0", b"\0\1", b"\xff" * 4)) + data[at + 2 :]


def noise(draw, data):
    return draw.randbytes(draw.randrange(2 * len(data)))


WAYS = (
    flip,
    flip_after_the_header,
    cut,
    extend,
    repeat,
    remove,
    cross,
    another_kind,
    numbers,
    noise,
)


def broken_messages(count, seed):
    draw = random.Random(seed)
    for number in range(count):
        yield WAYS[number % len(WAYS)](draw, draw.choice(SAMPLES)[1])


def test_codec_of_100_000_broken_messages_has_typed_errors_and_one_form():
    outcomes = {"refused": 0, "read": 0}
    for data in broken_messages(100_000, 1):
        try:
            message = decode(data)
        except MalformedError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert encode(message) == data
    # both happen often: flipped keys and signatures are for the machines to refuse
    assert min(outcomes.values()) > 10_000


@pytest.mark.parametrize("stage", STAGES)
def test_institution_answers_nothing_that_is_not_signed_to_the_bit(stage):
    federation = Federation(PARTIES, stays={4: 2}).reach(stage)
    state, request = federation.states[0], federation.requests[0]
    random_bytes = bytes_of(institution.random_bytes(state), "fuzz")
    draw, refused = random.Random(stage), 0
    for number in range(500):
        data = WAYS[number % len(WAYS)](draw, request)
        if data == request:
            continue
        with pytest.raises(SecaggError):
            institution.receive(state, data, random_bytes)
        refused += 1
    assert refused > 400


@pytest.mark.parametrize("stage", STAGES)
def test_institution_answers_broken_messages_with_typed_errors_only(stage):
    """The coordinator has signed them."""
    federation = Federation(PARTIES, stays={4: 2}).reach(stage)
    state = federation.states[0]
    random_bytes = bytes_of(institution.random_bytes(state), "fuzz")
    request = federation.requests[0]
    text = request[:-SIGNATURE_BYTES]
    draw, refused = random.Random(stage), 0
    for number in range(1500):
        broken = WAYS[number % len(WAYS)](draw, text)
        signature = statements.sign(PARTIES.coordinator, statements.REQUEST, broken)
        data = broken + signature
        try:
            step = institution.receive(state, data, random_bytes)
        except SecaggError:
            refused += 1
        else:
            # another model, round or set that a coordinator could mean, or too few are left
            assert step.aborted is not None or decode(data).kind is decode(request).kind
        assert federation.states[0] is state
    assert refused > 1000


@pytest.mark.parametrize("stage", STAGES)
def test_coordinator_answers_broken_messages_with_typed_errors_only(stage):
    remembered = {}
    federation = Federation(PARTIES, stays={4: 2}, remembered=remembered).reach(stage)
    reply = federation.answer(stage, 0, federation.requests[0])
    draw, machine, refused = random.Random(stage), federation.machine, 0
    for number in range(1500):
        data = WAYS[number % len(WAYS)](draw, reply)
        before = answered(machine)
        try:
            machine.receive(0, data)
        except SecaggError:
            refused += 1
            assert answered(machine) == before
        else:
            # a box or a vector that its sender could have meant; another machine goes on
            machine = Federation(PARTIES, stays={4: 2}, remembered=remembered).reach(stage).machine
    assert refused > 1000


def test_bundles_have_typed_errors_and_one_form():
    draw = random.Random(2)
    good = bundle.join([data for _, data in SAMPLES[:3]])
    ways = (flip, cut, extend, repeat, remove, noise)
    for number in range(20_000):
        data = ways[number % len(ways)](draw, good)
        try:
            parts = bundle.split(data)
        except MalformedError:
            continue
        assert bundle.join(parts) == data


def test_fuzz_starts_from_every_kind():
    assert [kind for kind, _ in SAMPLES] == list(Kind)
