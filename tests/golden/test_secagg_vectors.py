"""Messages of a secure sum from fixed random bytes must never change by accident.

`secagg_vectors.json` holds every message of a session of four institutions of which the last
vanishes after it has shared its keys, and beside the good ones hostile ones with the rule that
refuses each. All inputs stand in `tests.secagg_parties`. Written anew, when the protocol is
changed on purpose and its version with it, by

    .venv/bin/python -m tests.golden.test_secagg_vectors
"""

import hashlib
import json
from pathlib import Path

import pytest

from common.secagg import codec, institution, statements
from common.secagg.codec import decode
from common.secagg.errors import MalformedError, SecaggError
from common.secagg.messages import HEADER_BYTES
from tests.secagg_parties import MODEL, STAGES, Federation, Parties, advance, parameters

PATH = Path(__file__).with_name("secagg_vectors.json")
PARTIES = Parties(parameters(4))
STAYS = {3: 2}


def session():
    return Federation(PARTIES, stays=STAYS)


def named(federation):
    """Every message by stage, institution and way, in hexadecimal."""
    return {
        f"{stage} {index} {way}": data.hex()
        for (stage, index, way), data in sorted(federation.heard.items())
    }


def hostile(good):
    """Broken forms of the requests to institution 0: name, stage, message."""
    for stage in STAGES:
        data = bytes.fromhex(good[f"{stage} 0 request"])
        yield f"{stage}: cut by a byte", stage, data[:-1]
        yield f"{stage}: a byte too many", stage, data + b"\0"
        yield f"{stage}: the version before", stage, data[:4] + b"\2" + data[5:]
        yield f"{stage}: another study", stage, data[:6] + b"\xff" + data[7:]
        yield f"{stage}: another roster", stage, data[:38] + b"\xff" + data[39:]
        yield f"{stage}: another attempt", stage, data[:78] + b"\2" + data[79:]
        yield f"{stage}: no signature", stage, data[:-64] + bytes(64)
        yield f"{stage}: a bit of the signature", stage, data[:-1] + bytes([data[-1] ^ 1])
        yield f"{stage}: signed by an institution", stage, signed(data[:-64], PARTIES.signers[1])
        if stage != "advertise":
            yield f"{stage}: a bit of what is signed", stage, flipped(data, -65)
    yield from signed_lies(good)


def signed_lies(good):
    """What the coordinator has signed and must not have."""
    texts = {stage: bytes.fromhex(good[f"{stage} 0 request"])[:-64] for stage in STAGES}
    lies = (
        ("share: a bit of a key", "share", flipped(texts["share"], HEADER_BYTES + 40)),
        ("mask: a bit of a box", "mask", flipped(texts["mask"], -1)),
        ("mask: another institution's", "mask", flipped(texts["mask"], HEADER_BYTES + 33)),
        ("sign: a survivor who dropped out", "sign", texts["sign"][:-2] + b"\0\2"),
        ("sign: a drop-out who is unknown", "sign", texts["sign"][:-2] + b"\0\7"),
        ("open: a bit of a view's signature", "open", flipped(texts["open"], -1)),
    )
    for name, stage, text in lies:
        yield name, stage, signed(text, PARTIES.coordinator)


def signed(text, signer):
    return text + statements.sign(signer, statements.REQUEST, text)


def flipped(data, at):
    """With another last bit of one byte."""
    broken = bytearray(data)
    broken[at] ^= 1
    return bytes(broken)


def rule(stage, message):
    """By which rule institution 0 refuses, or `none`."""
    federation = session().reach(stage)
    try:
        step = advance(federation.states[0], message, 0)
    except SecaggError as error:
        return error.rule
    return "none" if step.aborted is None else step.aborted.rule


def write():
    federation = session().run()
    good = named(federation)
    vectors = {
        "good": good,
        "total": federation.machine.total.tolist(),
        "hostile": [
            {"name": name, "stage": stage, "message": data.hex(), "rule": rule(stage, data)}
            for name, stage, data in hostile(good)
        ],
    }
    PATH.write_text(json.dumps(vectors, indent=1) + "\n")


VECTORS = json.loads(PATH.read_text()) if PATH.exists() else {"good": {}, "hostile": []}


def test_every_message_of_the_session_is_the_stored_one():
    federation = session().run()
    assert named(federation) == VECTORS["good"]
    assert len(VECTORS["good"]) == 2 * (4 + 4 + 3 + 3 + 3)
    assert federation.machine.total.tolist() == VECTORS["total"]


def test_stored_messages_are_read_and_written_alike():
    for data in VECTORS["good"].values():
        assert codec.encode(decode(bytes.fromhex(data))).hex() == data


def test_stored_bytes_are_these():
    digest = hashlib.sha256("".join(VECTORS["good"].values()).encode()).hexdigest()
    assert digest == "be573023b028cd1ffd65ac898f39e09e427aeb2468e2f9b83b88c05a57a74b11"


@pytest.mark.parametrize("vector", VECTORS["hostile"], ids=lambda vector: vector["name"])
def test_hostile_message_is_refused_by_its_rule(vector):
    assert vector["rule"] != "none"
    assert rule(vector["stage"], bytes.fromhex(vector["message"])) == vector["rule"]


def test_replies_of_the_stored_session_are_no_requests():
    federation = session().reach("share")
    for name, data in VECTORS["good"].items():
        if name.endswith("reply"):
            with pytest.raises(SecaggError) as caught:
                institution.receive(federation.states[0], bytes.fromhex(data), MODEL)
            assert not isinstance(caught.value, MalformedError)


if __name__ == "__main__":
    write()
