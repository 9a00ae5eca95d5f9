"""Messages have one form, and what is not exactly one is a typed error."""

from dataclasses import replace

import pytest

from common.errors import ConfigError
from common.secagg import bundle, messages
from common.secagg.codec import decode, encode, signed_part
from common.secagg.errors import MalformedError
from common.secagg.messages import Complaint, Kind, Request, Survivors, Testimony
from common.secagg.session import SESSION_BYTES, Session
from tests.secagg_parties import Federation, Parties, parameters

PARTIES = Parties(parameters(5))
RUN = Federation(PARTIES, stays={4: 2}).run()
COMPLAINT = PARTIES.testified(Complaint(session=PARTIES.session(), sender=1, accused=2))
SAMPLES = {decode(data).kind: data for data in (*RUN.heard.values(), COMPLAINT)}


def test_samples_are_of_every_kind():
    assert set(SAMPLES) == set(Kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_message_has_one_form(kind):
    message = decode(SAMPLES[kind])
    assert message.kind is kind
    assert encode(message) == SAMPLES[kind]
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    ("kind", "size"),
    [(Kind.INVITATION, 64), (Kind.ADVERT, 162), (Kind.ADVERTS, 2 + 5 * 162 + 64),
     (Kind.BOXES, 2 + 2 + 4 * 150 + 64), (Kind.INSTRUCTION, 32 + 2 + 2 + 4 * 150 + 64),
     (Kind.MASKED, 2 + 4 + 15), (Kind.SURVIVORS, 2 + 4 * 2 + 2 + 2 + 64), (Kind.CONSISTENT, 66),
     (Kind.UNMASK, 2 + 4 * 2 + 2 + 2 + 2 + 4 * 66 + 64),
     (Kind.OPENING, 2 + 2 + 4 * 35 + 2 + 35 + 64), (Kind.COMPLAINT, 4 + 64)],
)  # fmt: skip
def test_sizes_are_those_of_the_table(kind, size):
    assert messages.HEADER_BYTES == 79
    assert SESSION_BYTES == 73
    assert len(SAMPLES[kind]) == 79 + size


@pytest.mark.parametrize("kind", list(Kind))
def test_message_cut_anywhere_is_refused(kind):
    data = SAMPLES[kind]
    # what a vector's length is, the coordinator checks
    last = messages.MASKED_HEAD_BYTES if kind is Kind.MASKED else len(data)
    for size in range(last):
        with pytest.raises(MalformedError):
            decode(data[:size])


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.MASKED])
def test_byte_too_many_is_refused(kind):
    with pytest.raises(MalformedError, match="1 bytes after the end"):
        decode(SAMPLES[kind] + b"\0")


def test_requests_are_the_odd_kinds_and_end_with_their_signature_as_testimonies_do():
    testimonies = {Kind.BOXES, Kind.OPENING, Kind.COMPLAINT}
    for kind, data in SAMPLES.items():
        message = decode(data)
        assert isinstance(message, Request) == (kind % 2 == 1)
        assert isinstance(message, Testimony) == (kind in testimonies)
        if kind % 2 or kind in testimonies:
            assert data[-64:] == message.signature
            assert signed_part(message) == data[:-64]


def test_other_version_kind_or_magic_is_refused():
    data = SAMPLES[Kind.SURVIVORS]
    for at, value, words in ((0, 0, "not a message"), (4, 1, "version 1"), (4, 2, "version 2"),
                             (5, 0, "kind 0"), (5, 11, "kind 11"), (70, 0, "purpose 0"),
                             (70, 3, "purpose 3")):  # fmt: skip
        broken = bytearray(data)
        broken[at] = value
        with pytest.raises(MalformedError, match=words):
            decode(bytes(broken))


@pytest.mark.parametrize("at", [71, 75])
def test_round_and_attempt_zero_are_refused(at):
    broken = bytearray(SAMPLES[Kind.SURVIVORS])
    broken[at : at + 4] = bytes(4)
    with pytest.raises(MalformedError, match="expected 1 to"):
        decode(bytes(broken))


@pytest.mark.parametrize("survivors", [(1, 0), (0, 0), (0, 2, 1)])
def test_list_out_of_order_or_with_one_index_twice_is_refused(survivors):
    message = Survivors(
        session=PARTIES.session(), survivors=survivors, dropped=(), signature=bytes(64)
    )
    with pytest.raises(MalformedError, match="index"):
        decode(encode(message))


def test_count_without_its_bytes_is_refused_at_once():
    data = bytearray(SAMPLES[Kind.ADVERTS])
    data[79:81] = b"\xff\xff"
    with pytest.raises(MalformedError, match="65535 entries in 874 bytes"):
        decode(bytes(data))


@pytest.mark.parametrize(
    "change", [{"round": 0}, {"attempt": 0}, {"round": 2**32}, {"round": True}, {"purpose": "x"},
               {"study": "AA" * 32}, {"study": "aa" * 31}, {"roster": "zz" * 32}],
)  # fmt: skip
def test_impossible_sessions_are_refused(change):
    with pytest.raises(ConfigError):
        replace(PARTIES.session(), **change)


def test_sessions_have_distinct_bytes():
    sessions = [PARTIES.session(r, a, p) for r in (1, 2, 256) for a in (1, 2) for p in
                ("train", "evaluate")]  # fmt: skip
    assert len({session.to_bytes() for session in sessions}) == 12
    assert isinstance(sessions[0], Session)


def test_secrets_of_an_opening_do_not_print():
    opening = decode(SAMPLES[Kind.OPENING])
    shown = repr(opening)
    for _, share in (*opening.seeds, *opening.keys):
        assert share.hex() not in shown
        assert repr(share)[2:-1] not in shown


def test_bundle_gives_its_messages_back():
    parts = tuple(SAMPLES.values())[:3]
    assert bundle.split(bundle.join(parts)) == parts
    assert bundle.split(bundle.join([b"x"])) == (b"x",)


def test_impossible_bundles_are_refused():
    for parts in ([], [b"x"] * 5, [b"x", b""]):
        with pytest.raises(MalformedError):
            bundle.join(parts)
    good = bundle.join([b"abc", b"de"])
    broken = [good[:size] for size in range(len(good))]
    broken += [good + b"\0", b"FDSX" + good[4:], good[:4] + b"\2" + good[5:]]
    broken += [good[:5] + bytes([n]) + good[6:] for n in (0, 1, 3, 255)]
    broken += [good[:5] + b"\1" + bytes(4), good[:5] + b"\0"]
    for data in broken:
        with pytest.raises(MalformedError):
            bundle.split(data)


@pytest.mark.parametrize(
    "kind", [Kind.ADVERT, Kind.BOXES, Kind.CONSISTENT, Kind.OPENING, Kind.COMPLAINT]
)
def test_no_reply_is_larger_than_is_said(kind):
    assert len(SAMPLES[kind]) <= messages.reply_bytes(5, 0)
    assert messages.reply_bytes(5, 0) < 1200


def test_of_a_vector_it_is_said_to_the_byte():
    head = len(SAMPLES[Kind.MASKED]) - 15
    assert messages.reply_bytes(5, 10**6) == head + 10**6
    sizes = [messages.reply_bytes(5, 10**6), 100]
    assert len(bundle.join([bytes(size) for size in sizes])) == bundle.bundle_bytes(sizes)
