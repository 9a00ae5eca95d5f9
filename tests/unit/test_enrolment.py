"""Certificates, requests and the register: each promise, on real keys."""

import dataclasses
import datetime
import json
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.config.deployment import parse_deployment
from common.errors import ConfigError, IdentityError
from common.identity.authority import (
    CURVE,
    NONCE_BYTES,
    SALT_BYTES,
    authority_certificate,
    check_server,
    expiry_notice,
    hosts_of,
    open_key,
    seal_key,
    server_certificate,
)
from common.identity.enrolment import (
    EnrolmentRequest,
    Register,
    load_node_key,
    make_request,
    node_line,
)
from common.identity.identity import Identity

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
HOSTS = ("fl.example.org", "192.0.2.10", "2001:db8::10")
WHEN = "2026-05-01T12:00:00Z"
NAMES = ("north", "south")
CA_KEY, SERVER_KEY, NODE_KEY, OTHER_KEY = (ec.generate_private_key(CURVE) for _ in range(4))
WORDS = "correct horse battery"
SALT = bytes(SALT_BYTES + NONCE_BYTES)

CA = authority_certificate("test", CA_KEY, 1, NOW, 365)


def server(hosts=HOSTS, days=90, now=NOW, ca=CA):
    return server_certificate(ca, CA_KEY, SERVER_KEY.public_key(), hosts, 2, now, days)


def identity(name="north", seed=1):
    return Identity.of(name, bytes([seed]) * 32)


def request(name="north", seed=1, node=NODE_KEY, federation="fed"):
    return make_request(federation, identity(name, seed), node)


def test_a_server_certificate_has_the_hosts_given_and_serves_as_a_server_only():
    made = server()
    assert hosts_of(made) == HOSTS
    extensions = made.extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [u.dotted_string for u in usage] == ["1.3.6.1.5.5.7.3.1"]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    limit = CA.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limit.critical, limit.value.path_length) == (True, 0)


def test_a_certificate_never_outlives_its_authority_and_none_comes_of_an_expired_one():
    assert server(days=800).not_valid_after_utc == CA.not_valid_after_utc
    with pytest.raises(IdentityError, match="authority's certificate expired"):
        server(now=NOW + 366 * DAY)
    with pytest.raises(IdentityError, match="not that of its certificate"):
        server_certificate(CA, OTHER_KEY, SERVER_KEY.public_key(), HOSTS, 2, NOW, 1)


def test_a_good_certificate_is_taken_by_every_host_and_by_the_web_pki_rules():
    made = server()
    for host in HOSTS:
        check_server(made, CA, host, NOW)
    from cryptography.x509.verification import PolicyBuilder, Store

    policy = PolicyBuilder().store(Store([CA])).time(NOW)
    policy.build_server_verifier(x509.DNSName(HOSTS[0])).verify(made, [])


def test_a_certificate_that_is_over_early_misnamed_or_anothers_is_refused():
    made = server()
    with pytest.raises(IdentityError, match="server's certificate expired on 2026-07-30"):
        check_server(made, CA, HOSTS[0], NOW + 91 * DAY)
    with pytest.raises(IdentityError, match="holds only from"):
        check_server(made, CA, HOSTS[0], NOW - 2 * DAY)
    for host in ("example.org", "x.fl.example.org", "192.0.2.11", ""):
        with pytest.raises(IdentityError, match=r"is for fl\.example\.org"):
            check_server(made, CA, host, NOW)
    other = authority_certificate("test", OTHER_KEY, 1, NOW, 365)
    with pytest.raises(IdentityError, match="another authority"):
        check_server(made, other, HOSTS[0], NOW)


def test_expiry_is_told_thirty_days_before_or_in_the_last_third():
    long, short = server(days=90), server(days=3)
    assert expiry_notice("it", long, NOW + 59 * DAY) is None
    assert "expires on 2026-07-30" in expiry_notice("it", long, NOW + 61 * DAY)
    assert expiry_notice("it", short, NOW + DAY) is None
    assert "in 0 days" in expiry_notice("it", short, NOW + 2.5 * DAY)
    assert "connections are refused" in expiry_notice("it", long, NOW + 91 * DAY)


def test_an_authoritys_key_opens_with_its_passphrase_only():
    sealed, plain = seal_key(CA_KEY, WORDS, SALT), seal_key(CA_KEY, None, SALT)
    assert open_key(sealed, WORDS).private_numbers() == CA_KEY.private_numbers()
    assert open_key(plain, None).private_numbers() == CA_KEY.private_numbers()
    for data, words, said in (
        (sealed, WORDS + "x", "is wrong"), (sealed, None, "needs its passphrase"),
        (plain, WORDS, "has no passphrase"), (b"{}", None, "damaged"),
        (sealed.replace(b"v1", b"v2"), WORDS, "damaged"), (b"\xff", None, "damaged"),
    ):  # fmt: skip
        with pytest.raises(IdentityError, match=said):
            open_key(data, words)
    with pytest.raises(IdentityError, match="12 characters"):
        seal_key(CA_KEY, "short", SALT)


def test_a_request_survives_its_file_and_holds_no_private_part():
    made = request()
    data = made.to_bytes()
    assert EnrolmentRequest.from_bytes(data) == made
    assert b"PRIVATE" not in data
    assert (bytes([1]) * 32).hex().encode() not in data
    assert f"{NODE_KEY.private_numbers().private_value:x}".encode() not in data


FIELDS = ("federation", "name", "public_key", "identity_signature", "node_key", "node_signature",
          "signature")  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_request_can_be_another_requests(field):
    mine = json.loads(request().to_bytes())
    others = json.loads(request("south", 2, OTHER_KEY, "fed2").to_bytes())
    with pytest.raises(IdentityError):
        EnrolmentRequest.from_bytes(json.dumps(mine | {field: others[field]}).encode())


@pytest.mark.parametrize("field", [*FIELDS, "format", "extra"])
def test_a_request_with_a_field_too_many_too_few_or_no_text_is_refused(field):
    content = json.loads(request().to_bytes())
    for changed in (content | {field: 1}, {k: v for k, v in content.items() if k != field}):
        if changed != content:
            with pytest.raises(IdentityError):
                EnrolmentRequest.from_bytes(json.dumps(changed).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 100000, b"\xff", b'"x"'])
def test_what_is_no_request_is_refused(data):
    with pytest.raises(IdentityError, match="not an enrolment request"):
        EnrolmentRequest.from_bytes(data)


def test_a_node_key_without_its_private_key_cannot_be_claimed():
    mine = request()
    with pytest.raises(IdentityError, match="node key"):
        dataclasses.replace(mine, node_key=node_line(OTHER_KEY.public_key()))


def test_a_node_key_of_another_kind_or_spelling_is_refused():
    line = node_line(NODE_KEY.public_key())
    p256 = node_line(ec.generate_private_key(ec.SECP256R1()).public_key())
    pem = NODE_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for wrong in (p256, pem.decode(), line + " comment", line + "\n", "", "ssh-ed25519 AAAA"):
        with pytest.raises(IdentityError, match="P-384"):
            load_node_key(wrong)


def test_the_register_takes_only_the_studys_institutions_of_this_federation():
    register = Register(federation="fed")
    with pytest.raises(IdentityError, match="not in the study"):
        register.approve(request("east"), NAMES, WHEN)
    with pytest.raises(IdentityError, match="for the federation other"):
        register.approve(request(federation="other"), NAMES, WHEN)


def test_an_institution_has_one_pair_of_keys_and_nobody_elses():
    register = Register(federation="fed").approve(request(), NAMES, WHEN)
    assert register.approve(request(), NAMES, WHEN) is register
    with pytest.raises(IdentityError, match="enrolled with other keys"):
        register.approve(request("north", 2, OTHER_KEY), NAMES, WHEN)
    for taken in (request("south", 2, NODE_KEY), request("south", 1, OTHER_KEY)):
        with pytest.raises(IdentityError, match="north is enrolled with a key of this"):
            register.approve(taken, NAMES, WHEN)


@pytest.mark.parametrize("state", ["revoked", "left"])
def test_what_ended_stays_known_and_never_comes_back(state):
    register = Register(federation="fed").approve(request(), NAMES, WHEN)
    ended = register.end("north", state, WHEN, "stolen")
    assert not ended.approved
    assert [e.state for e in ended.entries] == [state]
    for again in (request(), request("north", 2, NODE_KEY), request("north", 1, OTHER_KEY)):
        with pytest.raises(IdentityError, match="was revoked"):
            ended.approve(again, NAMES, WHEN)
    anew = ended.approve(request("north", 2, OTHER_KEY), NAMES, WHEN)
    assert set(anew.approved) == {"north"}
    with pytest.raises(IdentityError, match="not enrolled"):
        ended.end("north", state, WHEN, "")


def test_a_register_survives_its_file_and_a_changed_one_is_refused():
    register = Register(federation="fed", demo=True).approve(request(), NAMES, WHEN)
    register = register.end("north", "left", WHEN, "said so")
    data = register.to_bytes()
    assert Register.from_bytes(data) == register
    content = json.loads(data)
    other = json.loads(request("south", 2, OTHER_KEY).to_bytes())
    content["entries"][0]["request"]["node_key"] = other["node_key"]
    for wrong in (json.dumps(content).encode(), b"{}", data[:-9], data.replace(b'"left"', b'"x"'),
                  data.replace(b"12:00:00Z", b"noon"), data.replace(b"true", b"1")):  # fmt: skip
        with pytest.raises(IdentityError):
            Register.from_bytes(wrong)


TEXT = """\
federation: fed
study: study.yaml
server:
  names: [fl.example.org]
  addresses: [192.0.2.10]
"""


def test_a_deployment_has_defaults_and_a_public_address():
    found = parse_deployment(TEXT, "F")
    assert found.server.public == "fl.example.org:9192"
    assert (found.validity.authority_days, found.validity.server_days) == (1825, 180)
    six = parse_deployment(
        TEXT.replace("[fl.example.org]", "[]").replace("192.0.2.10", '"::1"'), "F"
    )
    assert six.server.public == "[::1]:9192"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fl.example.org", "FL.example.org", "F:4: server.names"),
        ("fl.example.org", '"*.example.org"', "not a DNS name"),
        ("fl.example.org", "https://x", "not a DNS name"),
        ("fl.example.org", "192.0.2.1", "not a DNS name"),
        ("fl.example.org", "-x", "not a DNS name"),
        ("192.0.2.10", "192.0.2.10:9192", "not an IP address"),
        ("192.0.2.10", "0.0.0.0", "not an IP address"),
        ("federation: fed", "federation: Fed", "federation"),
        ("study: study.yaml", "studdy: x", "unknown key"),
        ("[192.0.2.10]", "[192.0.2.10]\n  port: 0", "server.port"),
        ("[192.0.2.10]", "[192.0.2.10]\n  listen: here", "not an IP address"),
        ("[192.0.2.10]", "[]\nvalidity: {server_days: 900}", "server_days"),
        ("[192.0.2.10]", "[]\nvalidity: {authority_days: 9}", "outlive"),
    ],
)
def test_a_deployment_that_is_wrong_is_refused_with_its_place(old, new, said):
    with pytest.raises(ConfigError, match=said):
        parse_deployment(TEXT.replace(old, new), "F")


def test_a_server_that_is_nowhere_is_refused():
    text = "federation: fed\nstudy: s\nserver: {}\n"
    with pytest.raises(ConfigError, match="needs a name or an address"):
        parse_deployment(text, "F")


def test_openssl_takes_authority_and_certificate(tmp_path):
    pem = serialization.Encoding.PEM
    (tmp_path / "ca.crt").write_bytes(CA.public_bytes(pem))
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    assert context.cert_store_stats()["x509_ca"] >= 1
