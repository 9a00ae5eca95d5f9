"""Bytes are exactly one message or a `ProtocolError`; nothing is said in clear beyond the list."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.study import NAME_PATTERN
from common.errors import ProtocolError
from common.wire import (
    CLEAR_FACTS,
    CLEAR_FIELDS,
    KINDS,
    MAGIC,
    MAX_HEADER_BYTES,
    Refusal,
    Reply,
    Request,
    counts_from_bytes,
    counts_to_bytes,
    decode_reply,
    decode_request,
    encode,
    vector_from_bytes,
    vector_to_bytes,
)

STUDY = "ab" * 32
REQUEST = Request(kind="train", study=STUDY, round=3, body=b"\x00\x01\xfe")
REPLY = Reply(kind="evaluate", study=STUDY, round=3, institution="north", body=b"zorblax")
HELLO = Reply(
    kind="hello",
    study=STUDY,
    round=0,
    institution="north",
    facts={"version": "1", "dimension": 7, "layout": "l", "initial": "i", "encoder": "e"},
)
REFUSED = replace(REPLY, refusal=Refusal.POLICY.value, body=b"")

Decode = Callable[[bytes], Request | Reply]
MESSAGES: list[tuple[Decode, Request | Reply]] = [
    (decode_request, REQUEST),
    (decode_reply, REPLY),
    (decode_reply, HELLO),
    (decode_reply, REFUSED),
]
all_messages = pytest.mark.parametrize(
    ("decode", "message"), MESSAGES, ids=["request", "reply", "hello", "refusal"]
)


def header_of(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from(">I", data, 4)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def framed(text: bytes, body: bytes = b"") -> bytes:
    return MAGIC + struct.pack(">I", len(text)) + text + body


def message(header: Any, body: bytes = b"") -> bytes:
    return framed(json.dumps(header, sort_keys=True, separators=(",", ":")).encode(), body)


@all_messages
def test_what_is_encoded_is_decoded(decode: Decode, message: Request | Reply) -> None:
    assert decode(encode(message)) == message


_TEXT = st.text(max_size=8)


@given(
    st.builds(
        Request,
        kind=st.sampled_from(KINDS),
        study=_TEXT,
        round=st.integers(0, (1 << 31) - 1),
        body=st.binary(max_size=20),
    )
)
def test_any_request_is_decoded_as_it_was(request: Request) -> None:
    assert decode_request(encode(request)) == request


@given(
    st.builds(
        Reply,
        kind=st.sampled_from(KINDS),
        study=_TEXT,
        round=st.integers(0, (1 << 31) - 1),
        institution=st.from_regex(NAME_PATTERN, fullmatch=True),
        refusal=st.sampled_from(["", *(code.value for code in Refusal)]),
        body=st.binary(max_size=20),
    )
)
def test_any_reply_is_decoded_as_it_was(reply: Reply) -> None:
    assert decode_reply(encode(reply)) == reply


def test_the_frame_is_magic_then_length_then_header_then_body() -> None:
    data = encode(REQUEST)
    assert data[:4] == b"FDN4"
    (length,) = struct.unpack(">I", data[4:8])
    assert json.loads(data[8 : 8 + length]) == {
        "kind": "train",
        "study": STUDY,
        "round": 3,
        "receipts": {},
        "receipts_signature": "",
        "body_sha256": hashlib.sha256(REQUEST.body).hexdigest(),
        "sums_sha256": hashlib.sha256(b"").hexdigest(),
        "sums_bytes": 0,
    }
    assert data[8 + length :] == REQUEST.body


def test_a_reply_says_in_clear_what_is_on_the_list_and_the_hash_of_its_body() -> None:
    for reply in (REPLY, HELLO, REFUSED):
        assert set(header_of(encode(reply))) == CLEAR_FIELDS | {
            "body_sha256",
            "sums_sha256",
            "sums_bytes",
        }
        assert set(reply.facts) <= CLEAR_FACTS


def test_no_body_shows_in_a_repr() -> None:
    assert "zorblax" not in repr(REPLY)
    assert "xfe" not in repr(REQUEST)


@all_messages
def test_every_truncation_is_refused(decode: Decode, message: Request | Reply) -> None:
    data = encode(message)
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            decode(data[:length])


@all_messages
def test_bytes_after_the_body_are_refused(decode: Decode, message: Request | Reply) -> None:
    with pytest.raises(ProtocolError):
        decode(encode(message) + b"\0")


@all_messages
def test_a_changed_byte_is_refused_or_is_exactly_another_message(
    decode: Decode, message: Request | Reply
) -> None:
    data = encode(message)
    for at in range(len(data)):
        for value in {data[at] ^ 1, data[at] ^ 0x20, data[at] ^ 0x80, 0, 0x20, 0x22, 0x39}:
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                read = decode(changed)
            except ProtocolError:
                continue
            assert encode(read) == changed
            assert (read == message) == (changed == data)
            assert read.body == message.body


@all_messages
def test_no_changed_byte_outside_the_values_of_the_header_is_read(
    decode: Decode, message: Request | Reply
) -> None:
    data = encode(message)
    header_end = 8 + struct.unpack_from(">I", data, 4)[0]
    for at in [*range(8), *range(header_end, len(data))]:
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(ProtocolError):
                decode(changed)


def test_a_request_is_no_reply_and_a_reply_is_no_request() -> None:
    with pytest.raises(ProtocolError, match="exactly its keys"):
        decode_reply(encode(REQUEST))
    with pytest.raises(ProtocolError, match="exactly its keys"):
        decode_request(encode(REPLY))


@pytest.mark.parametrize("key", sorted(CLEAR_FIELDS | {"body_sha256", "sums_sha256", "sums_bytes"}))
def test_a_reply_with_a_key_less_or_of_another_type_is_refused(key: str) -> None:
    header = header_of(encode(HELLO))
    without = {k: v for k, v in header.items() if k != key}
    with pytest.raises(ProtocolError, match="exactly its keys"):
        decode_reply(message(without))
    for value in (None, True, 1.5, [], "x" if key in {"round", "facts", "sums_bytes"} else 0):
        with pytest.raises(ProtocolError):
            decode_reply(message(header | {key: value}))


def test_a_reply_with_a_key_more_is_refused() -> None:
    with pytest.raises(ProtocolError, match="exactly its keys"):
        decode_reply(message(header_of(encode(REPLY)) | {"loss": "0.1"}, REPLY.body))


@pytest.mark.parametrize("round_", [-1, 1 << 31, True, 1.0, "1", None])
def test_a_round_out_of_range_or_of_another_type_is_refused(round_: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_request(message(header_of(encode(REQUEST)) | {"round": round_}, REQUEST.body))


@pytest.mark.parametrize("kind", ["", "Train", "query", "hello "])
def test_an_unknown_kind_is_refused(kind: str) -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        decode_request(message(header_of(encode(REQUEST)) | {"kind": kind}, REQUEST.body))


@pytest.mark.parametrize("name", ["loss", "documents", "patients", "", "Version"])
def test_a_fact_that_is_not_on_the_list_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="allow-list"):
        decode_reply(encode(replace(HELLO, facts={**HELLO.facts, name: 1})))


@pytest.mark.parametrize("value", [0.5, True, None, ["x"], {"x": 1}])
def test_a_fact_that_is_neither_text_nor_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ProtocolError, match="allow-list"):
        decode_reply(encode(replace(HELLO, facts={"version": value})))


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_facts_beside_an_update_or_counts_are_refused(kind: Any) -> None:
    with pytest.raises(ProtocolError, match="only `hello`"):
        decode_reply(encode(replace(HELLO, kind=kind, round=1)))


@pytest.mark.parametrize("code", ["no", "policy: 3 patients", "Policy", " "])
def test_a_refusal_in_other_words_than_the_codes_is_refused(code: str) -> None:
    with pytest.raises(ProtocolError, match="unknown refusal"):
        decode_reply(encode(replace(REFUSED, refusal=code)))


def test_a_header_longer_than_the_limit_is_refused_though_it_is_all_there() -> None:
    room = MAX_HEADER_BYTES - len(encode(replace(REQUEST, study="", body=b""))) + 8
    fits = replace(REQUEST, study="s" * room)
    assert decode_request(encode(fits)) == fits
    with pytest.raises(ProtocolError, match="too long"):
        decode_request(encode(replace(REQUEST, study="s" * (room + 1))))


@pytest.mark.parametrize("length", [0xFFFFFFFF, MAX_HEADER_BYTES, 100])
def test_a_header_length_beyond_the_message_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="too long or truncated"):
        decode_request(MAGIC + struct.pack(">I", length) + b"{}")


@pytest.mark.parametrize("magic", [b"FDN0", b"FDN1", b"fdn2", b"\0\0\0\0"])
def test_another_version_is_refused_with_the_remedy(magic: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request(magic + encode(REQUEST)[4:])
    assert "the same fedner everywhere" in (caught.value.remedy or "")


TEXT = encode(REQUEST)[8 : -len(REQUEST.body)]
OTHER_SPELLINGS = {
    "blanks": TEXT.replace(b":", b": "),
    "a blank at the end": TEXT + b" ",
    "keys in another order": json.dumps(
        dict(reversed(header_of(encode(REQUEST)).items())), separators=(",", ":")
    ).encode(),
    "a key twice": TEXT.replace(b'"round":3', b'"round":0,"round":3'),
    "an escape": TEXT.replace(b'"train"', b'"\\u0074rain"'),
    "a negative zero": TEXT.replace(b'"round":3', b'"round":-0'),
    "not ASCII": TEXT.replace(b'"ab', '"ä'.encode()),
    "NaN": TEXT.replace(b'"round":3', b'"round":NaN'),
    "no JSON": b"{",
    "empty": b"",
    "a list": b"[]",
    "a number": b"1",
    "many digits": TEXT.replace(b'"round":3', b'"round":' + b"9" * 5000),
    "nested too deep": b"[" * 30_000 + b"]" * 30_000,
}


@pytest.mark.parametrize("text", OTHER_SPELLINGS.values(), ids=OTHER_SPELLINGS)
def test_a_header_that_is_written_in_another_way_is_refused(text: bytes) -> None:
    assert decode_request(framed(TEXT, REQUEST.body)) == REQUEST
    with pytest.raises(ProtocolError):
        decode_request(framed(text, REQUEST.body))


def _refuses_or_reads_exactly(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        try:
            read = decode(data)
        except ProtocolError:
            continue
        assert encode(read) == data


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_no_other_error(data: bytes) -> None:
    _refuses_or_reads_exactly(data)
    _refuses_or_reads_exactly(MAGIC + data)
    _refuses_or_reads_exactly(framed(data))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    sorted(CLEAR_FIELDS | {"body_sha256", "sums_sha256", "sums_bytes", "extra"})
)


@given(st.dictionaries(_KEYS, _JSON), st.sampled_from([REQUEST, REPLY, HELLO]))
def test_random_headers_are_refused_with_no_other_error(
    changes: dict[str, Any], base: Request | Reply
) -> None:
    _refuses_or_reads_exactly(message(header_of(encode(base)) | changes, base.body))
    _refuses_or_reads_exactly(message(changes))


def test_a_vector_is_little_endian_float32_and_read_only() -> None:
    body = vector_to_bytes(np.array([1.0, -2.5], np.float32))
    assert body == struct.pack("<2f", 1.0, -2.5)
    assert vector_to_bytes(np.array([1.0, -2.5], ">f4")) == body
    vector = vector_from_bytes(body, 2)
    assert vector.dtype == np.dtype("<f4")
    assert vector.tolist() == [1.0, -2.5]
    assert not vector.flags.writeable


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_with_a_value_that_is_not_finite_is_refused(value: float) -> None:
    body = vector_to_bytes(np.array([1.0, value, 2.0], np.float32))
    with pytest.raises(ProtocolError, match="not finite"):
        vector_from_bytes(body, 3)


@pytest.mark.parametrize("length", [0, 4, 7, 9, 11, 12, 16])
def test_a_vector_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="expected a vector of 2 values"):
        vector_from_bytes(bytes(length), 2)


def test_counts_are_little_endian_int64_and_read_only() -> None:
    body = counts_to_bytes(np.array([0, 1 << 40]))
    assert body == struct.pack("<2q", 0, 1 << 40)
    counts = counts_from_bytes(body, 2)
    assert counts.tolist() == [0, 1 << 40]
    assert not counts.flags.writeable


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ProtocolError, match="negative"):
        counts_from_bytes(counts_to_bytes(np.array([5, -1, 3])), 3)


@pytest.mark.parametrize("length", [0, 8, 15, 17, 24])
def test_counts_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="expected 2 counts"):
        counts_from_bytes(bytes(length), 2)
