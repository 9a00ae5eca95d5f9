"""Keys that nobody can hold are refused, and a roster's hash covers all that it says."""

import dataclasses
import json

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from common.config.load import parse_roster
from common.errors import ConfigError, IdentityError
from common.identity.fingerprint import GROUPS, key_fingerprint, roster_fingerprint
from common.identity.identity import (
    MIN_PASSPHRASE,
    OPEN_FORMAT,
    RANDOM_BYTES,
    SEALED_FORMAT,
    Identity,
    PublicIdentity,
    claimed_public_key,
    new_identity,
    open_identity,
    require_public_key,
)
from common.identity.points import why_no_public_key
from common.identity.roster import Roster, require_member, require_names, require_pin, roster_bytes
from common.identity.signing import Signer, verify

SEEDS = [bytes([i]) * 32 for i in range(5)]
COORDINATOR, NORTH, SOUTH, WEST, OTHER = (Signer(seed).public_key for seed in SEEDS)
RANDOM = bytes(range(RANDOM_BYTES))
WORDS = "correct horse battery"

TEXT = f"""\
coordinator: "{COORDINATOR}"
institutions:
  - {{name: north, public_key: "{NORTH}"}}
  - {{name: south, public_key: "{SOUTH}"}}
  - {{name: west, public_key: "{WEST}"}}
note: agreed in May
"""
HASH = "3dc4a7999a3017acd2b9f57f4ff1353499c6fac50e8c104da18c2c5b02b8f752"

P = 2**255 - 19
LOW_ORDER = [
    # the eight points of the torsion subgroup: order 1, 2, 4, 4, 8, 8, 8, 8
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "00" * 32,
    "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
SECOND_ENCODINGS = [
    (P + 1).to_bytes(32, "little").hex(),  # y = 1
    P.to_bytes(32, "little").hex(),  # y = 0
    "01" + "00" * 30 + "80",  # x = 0 with a sign
    "ee" + "ff" * 31,
]
NO_POINTS = ["02" + "00" * 31, "ff" * 32]


def roster(text: str = TEXT) -> Roster:
    return parse_roster(text, "roster.yaml")


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        roster(text)
    return caught.value


# --- public keys


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_accepted(seed: bytes) -> None:
    assert why_no_public_key(bytes.fromhex(Signer(seed).public_key)) is None


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_key_of_low_order_is_refused(key: str) -> None:
    assert "low order" in (why_no_public_key(bytes.fromhex(key)) or "")


def test_with_a_key_of_low_order_a_signature_is_made_without_a_private_key() -> None:
    # why they are refused: R = the neutral point and S = 0 verify any message under it
    forged = "01" + "00" * 31 + "00" * 32
    assert verify(LOW_ORDER[0], b"label", b"any message", forged)
    assert verify(LOW_ORDER[0], b"label", b"another", forged)


@pytest.mark.parametrize("key", SECOND_ENCODINGS + NO_POINTS)
def test_what_is_no_canonical_point_is_refused(key: str) -> None:
    assert why_no_public_key(bytes.fromhex(key)) == "not the encoding of a point of the curve"
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))  # the library takes it


def test_a_key_plus_a_point_of_low_order_is_refused() -> None:
    # the negative of a key's y and x is the key plus the point of order 2, (0, -1)
    number = int.from_bytes(bytes.fromhex(NORTH), "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    mixed = ((1 - sign) << 255 | (P - y)).to_bytes(32, "little")
    assert "outside the group" in (why_no_public_key(mixed) or "")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    assert f"{length} bytes" in (why_no_public_key(bytes(length)) or "")


@pytest.mark.parametrize("key", ["", "ab", NORTH.upper(), NORTH[:-1] + "g", NORTH + "00"])
def test_a_key_that_is_not_plain_hexadecimal_is_refused(key: str) -> None:
    with pytest.raises(IdentityError, match="64 lower-case"):
        require_public_key(key)


# --- fingerprints


def test_a_fingerprint_is_eight_groups_of_five_digits() -> None:
    for text in (key_fingerprint(NORTH), roster_fingerprint("00" * 32)):
        groups = text.split(" ")
        assert len(groups) == GROUPS == 8
        assert all(len(g) == 5 and g.isdecimal() for g in groups)


def test_fingerprints_differ_by_key_and_by_what_they_are_of() -> None:
    found = {key_fingerprint(NORTH), key_fingerprint(SOUTH), roster_fingerprint(NORTH)}
    assert len(found) == 3
    assert key_fingerprint(NORTH) == "43141 84321 26417 68734 91014 90323 42267 95143"


# --- rosters


def test_a_roster_gives_its_parties_in_order() -> None:
    assert roster().names == ("north", "south", "west")
    assert roster().public_keys == {"north": NORTH, "south": SOUTH, "west": WEST}
    assert roster().coordinator == COORDINATOR


def test_the_hash_of_a_fixed_roster_is_this() -> None:
    assert roster().sha256 == HASH


def test_the_hash_does_not_depend_on_the_layout() -> None:
    content = yaml.safe_load(TEXT)
    for text in (
        json.dumps(content),
        yaml.safe_dump(content, sort_keys=True),
        yaml.safe_dump(dict(reversed(content.items())), sort_keys=False, default_flow_style=False),
        "# a comment\n" + TEXT.replace('"', "'"),
    ):
        assert text != TEXT
        assert roster(text).sha256 == HASH


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (COORDINATOR, OTHER),
        (WEST, OTHER),
        ("name: west", "name: east"),
        ("agreed in May", "agreed in June"),
        ("note: agreed in May\n", ""),
        (f'  - {{name: west, public_key: "{WEST}"}}\n', ""),
    ],
)
def test_the_hash_covers_all_that_a_roster_says(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert roster(TEXT.replace(old, new)).sha256 != HASH


def test_the_order_of_the_institutions_is_part_of_the_hash() -> None:
    swapped = dataclasses.replace(roster(), institutions=roster().institutions[::-1])
    assert swapped.sha256 != HASH


def test_no_two_rosters_have_the_same_encoding() -> None:
    # names can't hold what would let one list read as another
    decoded = json.loads(roster_bytes(roster()))
    assert decoded["institutions"] == [["north", NORTH], ["south", SOUTH], ["west", WEST]]
    assert set(decoded) == {f.name for f in dataclasses.fields(Roster)}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: west", "name: north", "two institutions have the name north"),
        (WEST, NORTH, f"two institutions have the public key {NORTH}"),
        (WEST, COORDINATOR, "coordinator: the coordinator's key is that of west, too"),
        (WEST, LOW_ORDER[4], "institutions.2.public_key: is not a public key: a point of low"),
        (COORDINATOR, LOW_ORDER[0], "coordinator: is not a public key: a point of low order"),
        (WEST, SECOND_ENCODINGS[0], "institutions.2.public_key: is not a public key: not the enc"),
        (WEST, WEST.upper(), "institutions.2.public_key: "),
        (WEST, WEST[:-2], "institutions.2.public_key: "),
        ("name: west", "name: West", "institutions.2.name: "),
        ("note: agreed", "notes: agreed", "notes: unknown key"),
        ("name: west", "nam: west", "institutions.2.name: missing"),
        (f'coordinator: "{COORDINATOR}"\n', "", "coordinator: missing"),
    ],
)
def test_a_wrong_roster_is_refused_with_its_path(old: str, new: str, said: str) -> None:
    assert TEXT.count(old) == 1
    error = refused(TEXT.replace(old, new))
    assert said in error.message
    assert (error.place or "").startswith("roster.yaml:")


def test_a_roster_without_institutions_is_refused() -> None:
    assert "institutions" in refused(f'coordinator: "{COORDINATOR}"\ninstitutions: []\n').message


def test_only_the_pinned_roster_counts() -> None:
    require_pin(roster(), HASH, "the site's policy")
    with pytest.raises(IdentityError, match=f"the site's policy pins roster {'0' * 64}") as caught:
        require_pin(roster(), "0" * 64, "the site's policy")
    assert HASH in caught.value.message


def test_a_roster_that_nobody_pinned_does_not_count() -> None:
    with pytest.raises(IdentityError, match="pins no roster"):
        require_pin(roster(), None, "the site's policy")


@pytest.mark.parametrize(
    "names",
    [
        ("north", "south"),
        ("north", "south", "west", "east"),
        ("south", "north", "west"),
        ("north", "south", "east"),
        (),
    ],
)
def test_a_padded_cut_or_reordered_roster_does_not_fit_a_study(names: tuple[str, ...]) -> None:
    require_names(roster(), ("north", "south", "west"))
    with pytest.raises(IdentityError, match="the roster's are north, south, west"):
        require_names(roster(), names)


def test_a_roster_with_another_key_for_this_site_is_refused() -> None:
    require_member(roster(), "north", NORTH)
    with pytest.raises(IdentityError, match="another key for north"):
        require_member(roster(), "north", OTHER)
    with pytest.raises(IdentityError, match="does not name east"):
        require_member(roster(), "east", OTHER)


# --- private keys


def test_a_sealed_identity_opens_with_its_passphrase_alone() -> None:
    made, data = new_identity("north", WORDS, RANDOM)
    assert open_identity(data, WORDS).signer.public_key == made.signer.public_key
    assert made.signer.public_key == Signer(RANDOM[:32]).public_key
    with pytest.raises(IdentityError, match="the passphrase is wrong"):
        open_identity(data, WORDS + " ")
    with pytest.raises(IdentityError, match="needs its passphrase"):
        open_identity(data, None)


def test_a_passphrase_is_the_same_however_its_accents_are_composed() -> None:
    _, data = new_identity("north", "caf\u00e9 caf\u00e9 caf\u00e9", RANDOM)
    assert open_identity(data, "cafe\u0301 cafe\u0301 cafe\u0301").name == "north"


def test_an_open_identity_takes_no_passphrase() -> None:
    made, data = new_identity("north", None, RANDOM)
    assert open_identity(data, None).signer.public_key == made.signer.public_key
    with pytest.raises(IdentityError, match="has no passphrase, and one was given"):
        open_identity(data, WORDS)


def test_a_sealed_file_does_not_hold_the_seed() -> None:
    _, data = new_identity("north", WORDS, RANDOM)
    assert RANDOM[:32].hex().encode() not in data
    assert WORDS.encode() not in data
    assert RANDOM[:32].hex().encode() in new_identity("north", None, RANDOM)[1]


def test_a_file_tells_name_and_public_key_unopened() -> None:
    made, data = new_identity("north", WORDS, RANDOM)
    assert claimed_public_key(data) == ("north", made.signer.public_key)


@pytest.mark.parametrize("passphrase", [None, WORDS])
def test_damage_is_told_from_a_wrong_passphrase(passphrase: str | None) -> None:
    _, data = new_identity("north", passphrase, RANDOM)
    seed = json.loads(data)["seed"].encode()
    flipped = data.replace(seed[:8], b"00000000" if seed[:8] != b"00000000" else b"11111111")
    for damaged in (flipped, data[:-10], b"", b"\xff", b"[]", b"{}", b"[" * 5000, data[1:]):
        with pytest.raises(IdentityError, match="is damaged"):
            open_identity(damaged, passphrase)


def resealed(data: bytes, **changes: str) -> bytes:
    """A forger's file: changed, with a checksum that fits."""
    from common.identity.identity import _checksum

    content = json.loads(data) | changes
    content["sha256"] = _checksum(content)
    return json.dumps(content).encode()


def test_a_sealed_seed_opens_only_as_the_identity_it_was_sealed_for() -> None:
    _, data = new_identity("north", WORDS, RANDOM)
    for changes in ({"name": "south"}, {"public_key": SOUTH}):
        with pytest.raises(IdentityError, match="the passphrase is wrong"):
            open_identity(resealed(data, **changes), WORDS)


def test_an_open_seed_beside_another_public_key_is_refused() -> None:
    _, data = new_identity("north", None, RANDOM)
    with pytest.raises(IdentityError, match="not that of the public key"):
        open_identity(resealed(data, public_key=SOUTH), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "fedner private key v1, scrypt 2^4 8 1, aes-256-gcm"},
        {"format": OPEN_FORMAT},
        {"salt": ""},
        {"nonce": "00"},
        {"seed": "00"},
        {"seed": "zz" * 48},
    ],
)
def test_no_file_can_ask_for_weaker_parameters(changes: dict[str, str]) -> None:
    _, data = new_identity("north", WORDS, RANDOM)
    assert json.loads(data)["format"] == SEALED_FORMAT
    with pytest.raises(IdentityError, match="no private key of this version"):
        open_identity(resealed(data, **changes), WORDS)


def test_a_short_passphrase_is_refused_for_a_new_key() -> None:
    with pytest.raises(IdentityError, match=f"at least {MIN_PASSPHRASE}"):
        new_identity("north", "x" * (MIN_PASSPHRASE - 1), RANDOM)


@pytest.mark.parametrize("name", ["North", "", "a b", "../x", "n" * 64])
def test_a_name_that_no_study_can_have_is_refused(name: str) -> None:
    with pytest.raises(IdentityError, match="is not a name"):
        new_identity(name, None, RANDOM)


def test_too_little_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match=f"{RANDOM_BYTES} random bytes"):
        new_identity("north", None, RANDOM[:-1])


def test_seed_and_passphrase_stand_in_no_text_and_no_error() -> None:
    made, data = new_identity("north", WORDS, RANDOM)
    said = [repr(made), str(made), repr(made.public)]
    for text in (WORDS + "x", None):
        with pytest.raises(IdentityError) as caught:
            open_identity(data, text)
        said += [str(caught.value), repr(caught.value)]
        assert caught.value.__cause__ is None
    for secret in (RANDOM[:32].hex(), str(RANDOM[:32]), WORDS):
        assert all(secret not in text for text in said)


# --- public identities


def test_a_public_identity_goes_through_its_file() -> None:
    public = Identity.of("north", SEEDS[1]).public
    assert PublicIdentity.from_bytes(public.to_bytes()) == public
    assert public.public_key == NORTH


def test_nobody_presents_a_key_under_another_name_or_anothers_key() -> None:
    public = Identity.of("north", SEEDS[1]).public
    for changes in ({"name": "south"}, {"public_key": SOUTH}, {"signature": "00" * 64}):
        with pytest.raises(IdentityError, match="not signed with that key"):
            dataclasses.replace(public, **changes)


def test_a_public_identity_of_low_order_is_refused_before_its_signature_counts() -> None:
    forged = "01" + "00" * 31 + "00" * 32
    with pytest.raises(IdentityError, match="low order"):
        PublicIdentity(name="north", public_key=LOW_ORDER[0], signature=forged)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"null", b'{"format": 1}'])
def test_what_is_no_public_identity_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError, match="not a public identity"):
        PublicIdentity.from_bytes(data)


def test_a_public_identity_of_another_version_is_refused() -> None:
    data = Identity.of("north", SEEDS[1]).public.to_bytes()
    with pytest.raises(IdentityError, match="not a public identity"):
        PublicIdentity.from_bytes(data.replace(b"identity v1", b"identity v2"))
