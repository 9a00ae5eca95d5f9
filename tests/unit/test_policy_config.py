"""The site file's policy: what can be written, and what is refused with line, path and remedy."""

from pathlib import Path

import pytest

from client.site_paths import SitePaths
from common.config.load import parse_site
from common.config.site import Policy, Site
from common.errors import ConfigError, IdentityError
from common.identity.sign_off import FORMAT, SignOff, sign_off
from common.identity.signing import Signer
from tests.unit.test_config import SITE

KEY, OTHER = "ab" * 32, "cd" * 32
SIGNER = Signer(bytes(range(32)))
POLICY = "policy: {accept_privacy_none: true}\n"


def site(policy: str, more: str = "") -> Site:
    return parse_site(SITE.replace(POLICY, f"{more}policy: {{{policy}}}\n"), "f.yaml")


def refused(policy: str, more: str = "") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        site(policy, more)
    return caught.value


def test_all_that_a_policy_can_say_is_read() -> None:
    found = site(
        f'study_sha256: [{KEY}, "{OTHER}"], code_sha256: {KEY}, tasks: [ner], labels: [Disease], '
        'max_rounds: 9, min_noise_multiplier: 0.5, hours: [{days: [mon], start: "20:00", '
        f'end: "06:00"}}], sign_offs: [{{role: ethics committee, public_key: {KEY}}}], '
        "accept_unknown_exclusions: true",
        "sign_offs: sign-offs\nrelay_group: fedner-relay\nsocket: /run/f/n/socket\n"
        "exclude: withdrawn.txt\n",
    )
    assert found.policy.studies == (KEY, OTHER)
    assert found.policy.labels == ("Disease",)
    assert str(found.policy.hours[0]) == "mon 20:00 to 06:00 UTC"
    assert found.policy.sign_offs[0].role == "ethics committee"
    assert (found.relay_group, found.exclude) == ("fedner-relay", "withdrawn.txt")


def test_one_pinned_study_needs_no_list() -> None:
    assert site(f"study_sha256: {KEY}").policy.studies == (KEY,)
    assert Policy().studies is None


def test_a_policy_that_says_nothing_has_no_hole() -> None:
    policy = Policy()
    assert (policy.sign_offs, policy.hours, policy.tasks) == ((), (), ("ner",))
    assert not policy.accept_unknown_exclusions
    assert not any(getattr(policy, name) for name in dir(policy) if name.startswith("accept_"))


@pytest.mark.parametrize(
    ("policy", "path", "said"),
    [
        ("study_sha256: []", "policy.study_sha256: ", "at least 1"),
        ("study_sha256: [abc]", "policy.study_sha256.0: ", "pattern"),
        ("code_sha256: abc", "policy.code_sha256: ", "pattern"),
        ("tasks: []", "policy.tasks: ", "at least 1"),
        ("tasks: [relations]", "policy.tasks.0: ", "'ner'"),
        ("labels: []", "policy.labels: ", "at least 1"),
        ("max_rounds: 0", "policy.max_rounds: ", "greater than or equal to 1"),
        ("min_noise_multiplier: 0", "policy.min_noise_multiplier: ", "greater than 0"),
        ("hours: [{start: 20:00, end: '22:00'}]", "policy.hours.0.start: ", "in quotes"),
        ("hours: [{start: '24:00', end: '01:00'}]", "policy.hours.0.start: ", "pattern"),
        ("hours: [{start: '8:00', end: '17:00'}]", "policy.hours.0.start: ", "pattern"),
        ("hours: [{start: '08:00', end: '08:00'}]", "policy.hours.0: ", "are the same"),
        ("hours: [{start: '08:00', end: '09:00', days: [Mo]}]", "policy.hours.0.days.0: ", "'mon'"),
        ("hours: [{start: '08:00', end: '09:00', days: []}]", "policy.hours.0.days: ", "least 1"),
        ("hours: [{start: '08:00'}]", "policy.hours.0.end: ", "missing"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_path(policy: str, path: str, said: str) -> None:
    error = refused(policy)
    assert error.message.startswith(path)
    assert said in error.message
    assert error.place == "f.yaml:8"


def test_a_time_without_quotes_says_how_to_write_it() -> None:
    assert "with the quotes" in (refused("hours: [{start: 20:00, end: 22:00}]").remedy or "")


def test_needed_sign_offs_need_a_folder() -> None:
    error = refused(f"sign_offs: [{{role: ethics committee, public_key: {KEY}}}]")
    assert "names no folder" in error.message
    assert "fedner policy sign" in (error.remedy or "")


@pytest.mark.parametrize("group", ["''", "'a b'", "'../x'", "'-r'", "'1000'"])
def test_a_group_is_a_name(group: str) -> None:
    assert refused("", f"relay_group: {group}\n").message.startswith("relay_group: ")


@pytest.mark.parametrize("place", ["", "socket: state/worker/socket\n", "socket: state/s\n"])
def test_a_relay_of_another_user_is_not_sent_through_the_state_folder(place: str) -> None:
    error = refused("", f"relay_group: g\n{place}")
    assert "must not lie in `state`" in error.message
    assert site("", f"{place}").relay_group is None
    assert site("", "relay_group: g\nsocket: /run/fedner/north/socket\n").socket is not None


def test_the_socket_lies_where_the_site_says() -> None:
    base = Path("/srv/fedner")
    assert SitePaths.of(site(""), base).socket == base / "state" / "worker" / "socket"
    elsewhere = SitePaths.of(site("", "relay_group: g\nsocket: /run/f/n/socket\n"), base)
    assert elsewhere.socket == Path("/run/f/n/socket")
    assert elsewhere.ledger == base / "state" / "ledger"


# --- the file of a sign-off


def test_a_sign_off_survives_its_file() -> None:
    made = sign_off(SIGNER, "ethics committee", KEY, OTHER)
    read = SignOff.from_bytes(made.to_bytes())
    assert read == made
    assert read.covers("ethics committee", SIGNER.public_key, KEY, OTHER)


def test_a_sign_off_with_one_byte_changed_counts_for_nothing() -> None:
    data = sign_off(SIGNER, "ethics committee", KEY, OTHER).to_bytes()
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            read = SignOff.from_bytes(changed)
        except IdentityError:
            continue
        assert not read.covers("ethics committee", SIGNER.public_key, KEY, OTHER), place


def test_another_signature_of_the_same_key_is_no_sign_off() -> None:
    made = sign_off(SIGNER, "ethics committee", KEY)
    message = b'{"role":"ethics committee","roster":"","study":"' + KEY.encode() + b'"}'
    for label, signature in ((b"fedner identity v1", False), (FORMAT.encode(), True)):
        other = SignOff(
            role=made.role,
            study=KEY,
            roster="",
            public_key=SIGNER.public_key,
            signature=SIGNER.sign(label, message),
        )
        assert other.covers(made.role, SIGNER.public_key, KEY, "") == signature


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"[" * 5000, b'{"format": "fedner sign-off v1"}']
)
def test_what_is_no_sign_off_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(IdentityError, match="no sign-off"):
        SignOff.from_bytes(data)


@pytest.mark.parametrize("role", ["", "x" * 81, "two\nlines", "\x1b[2J"])
def test_a_role_is_a_short_line(role: str) -> None:
    with pytest.raises(IdentityError, match="`role`"):
        sign_off(SIGNER, role, KEY)
