"""One key for one use, boxes bound to their session and parties, secrets that do not print."""

import copy
import hashlib
import hmac
import pickle
from dataclasses import replace

import numpy as np
import pytest

from common.errors import ConfigError
from common.secagg import keys
from common.secagg.errors import BoxError, WeakKeyError
from common.secagg.masks import add_masks_
from common.secagg.shamir import SHARE_BYTES
from tests.secagg_parties import Parties, bytes_of, parameters, seed

SESSION = Parties(parameters(5)).session()
ONE, TWO = seed("one"), seed("two")
SHARES = keys.Shares(key=b"\x00" + seed("key"), seed=b"\x00" + seed("seed"))


def hkdf_sha256(secret, info):
    """RFC 5869 with no salt and one block, from the standard library alone."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def box_key(own=ONE, peer=TWO, sender=1, receiver=2, mine=1, session=SESSION):
    return keys.box_key(own, keys.public_key(peer), session, sender, receiver, mine)


def test_box_key_is_hkdf_of_the_x25519_vector_of_rfc_7748():
    # section 5.2, the first vector
    private = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    public = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    secret = bytes.fromhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    info = b"fedner secagg box v1\n\x03" + SESSION.to_bytes() + b"\x00\x01\x00\x02"
    info += keys.public_key(private) + public
    assert keys.box_key(private, public, SESSION, 1, 2, 1) == hkdf_sha256(secret, info)


def test_both_ends_of_a_box_have_one_key():
    assert box_key() == box_key(own=TWO, peer=ONE, mine=2)


def test_box_keys_differ_by_direction_session_and_use():
    other = Parties(parameters(5)).session(1, 2)
    public = keys.public_key(TWO)
    mask = keys.pair_mask(ONE, public, SESSION, 1, 2).key
    found = [box_key(), box_key(sender=2, receiver=1), box_key(session=other),
             box_key(receiver=3), box_key(own=seed("three")), mask]  # fmt: skip
    assert len(set(found)) == len(found)


def test_keys_are_hkdf_of_secret_label_session_parties_and_public_keys():
    seed_key = keys.self_mask(ONE, SESSION, 3).key
    info = b"fedner secagg self mask v1\n\x03" + SESSION.to_bytes() + b"\x00\x03\x00\x03"
    assert seed_key == hkdf_sha256(ONE, info)


def test_pair_masks_cancel_and_the_lower_index_adds():
    low = keys.pair_mask(ONE, keys.public_key(TWO), SESSION, 1, 4)
    high = keys.pair_mask(TWO, keys.public_key(ONE), SESSION, 4, 1)
    assert (low.sign, high.sign) == (1, -1)
    values = np.arange(100, dtype=np.uint32)
    add_masks_(values, [low], 24)
    assert not np.array_equal(values, np.arange(100))
    add_masks_(values, [high], 24)
    assert np.array_equal(values, np.arange(100))


def test_box_opens_for_its_receiver_only_as_its_senders():
    box = replace(keys.seal(box_key(), SESSION, 1, 2, SHARES), peer=1)
    opened = keys.unseal(box_key(own=TWO, peer=ONE, mine=2), SESSION, box, 2, "north")
    assert (opened.key, opened.seed) == (SHARES.key, SHARES.seed)
    other = Parties(parameters(5)).session(1, 2)
    for session, changed, receiver in ((other, box, 2), (SESSION, replace(box, peer=3), 2),
                                       (SESSION, box, 3)):  # fmt: skip
        with pytest.raises(BoxError, match="north"):
            keys.unseal(box_key(), session, changed, receiver, "north")
    with pytest.raises(BoxError):
        keys.unseal(box_key(sender=2, receiver=1), SESSION, box, 2, "north")


def test_every_bit_of_a_box_counts():
    box = replace(keys.seal(box_key(), SESSION, 1, 2, SHARES), peer=1)
    for bit in range(0, 8 * len(box.box), 7):
        broken = bytearray(box.box)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BoxError):
            keys.unseal(box_key(), SESSION, replace(box, box=bytes(broken)), 2, "north")


def test_digests_and_commitments_differ_by_label_owner_holder_and_session():
    other = Parties(parameters(5)).session(1, 2)
    found = {
        keys.share_digest(label, session, owner, holder, SHARES.key)
        for label in (keys.KEY_SHARE, keys.SEED_SHARE)
        for session in (SESSION, other)
        for owner, holder in ((1, 2), (2, 1), (1, 3))
    } | {keys.commitment(s, i, ONE) for s in (SESSION, other) for i in (1, 2)}
    assert len(found) == 16


@pytest.mark.parametrize("point", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_public_key_of_small_order_is_refused(point):
    public = point.to_bytes(32, "little")
    with pytest.raises(WeakKeyError):
        keys.require_strong(public, "north")
    with pytest.raises(WeakKeyError):
        keys.pair_mask(ONE, public, SESSION, 0, 1)
    keys.require_strong(keys.public_key(TWO), "north")


@pytest.mark.parametrize("point", [9 + 2**255, 9 + 2**255 - 19, 2**256 - 1, 2**255 - 1])
def test_a_public_key_in_a_second_spelling_is_refused(point):
    """X25519 takes both: the same secret would come from a key that looks like another."""
    with pytest.raises(WeakKeyError, match="canonically"):
        keys.require_strong(point.to_bytes(32, "little"), "north")
    keys.require_strong((9).to_bytes(32, "little"), "north")


def test_secrets_take_96_bytes_and_use_each_once():
    random = bytes_of(96, "secrets")
    secrets = keys.Secrets.of(random)
    assert secrets.box_key + secrets.mask_key + secrets.seed == random
    for n in (0, 95, 97):
        with pytest.raises(ConfigError, match="96"):
            keys.Secrets.of(bytes(n))


def test_secrets_do_not_print_and_are_not_pickled_or_copied():
    secrets = keys.Secrets.of(bytes_of(96, "secrets"))
    shown = repr(secrets) + repr(SHARES)
    for value in (secrets.box_key, secrets.mask_key, secrets.seed, SHARES.key, SHARES.seed):
        assert value.hex() not in shown
        assert repr(value)[2:-1] not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            leak(secrets)
    assert len(SHARES.key) == SHARE_BYTES
