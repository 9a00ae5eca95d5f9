"""How an institution may reach the coordinator, by its site file, with real certificates."""

import dataclasses
import datetime
from pathlib import Path

import pytest

from client.supervisor import check_runnable
from client.uplink import Uplink
from common.config.load import parse_site
from common.errors import ConfigError
from common.io.addresses import parse_address, parse_loopback
from common.io.certificate_files import (
    create_authority,
    create_node_key,
    create_server,
    open_authority,
)

NOW = datetime.datetime(2025, 5, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
SITE = """\
institution: north
study: study.yaml
coordinator: "fl.example.org:9192"
state: state
data:
  train: {format: jsonl, path: train.jsonl}
  test: {format: jsonl, path: test.jsonl}
policy: {accept_one_user: true}
"""
BOTH = "authority: ca.crt\nnode: node\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A site's folder with an authority of 30 days, a server's certificate and a node key."""
    create_authority(tmp_path / "authority", "test", None, NOW, 30)
    create_server(tmp_path / "server", open_authority(tmp_path / "authority", None), ("x",), NOW, 9)
    (tmp_path / "ca.crt").write_bytes((tmp_path / "authority" / "ca.crt").read_bytes())
    create_node_key(tmp_path / "node")
    return tmp_path


def uplink(place: Path, text: str = SITE + BOTH, now: datetime.datetime = NOW) -> Uplink:
    return Uplink.of(parse_site(text, "site.yaml"), place / "site.yaml", now)


def refused(place: Path, text: str = SITE + BOTH, now: datetime.datetime = NOW) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        uplink(place, text, now)
    return caught.value


def test_with_authority_and_node_another_machine_is_reached_by_tls_and_key_alone(
    place: Path,
) -> None:
    found = uplink(place)
    assert found.arguments == (
        "--superlink", "fl.example.org:9192",
        "--root-certificates", str(place / "ca.crt"),
        "--auth-supernode-private-key", str(place / "node" / "node.key"),
    )  # fmt: skip
    assert found.notice == ""


def test_without_them_only_this_machine_is_reached_and_it_says_so(place: Path) -> None:
    found = uplink(place, SITE.replace("fl.example.org", "127.0.0.1"))
    assert found.arguments == ("--superlink", "127.0.0.1:9192", "--insecure")
    assert "NO TLS" in found.notice
    error = refused(place, SITE)
    assert "fl.example.org:9192 is not on this machine" in error.message
    assert "`authority` and `node`" in str(error.remedy)


@pytest.mark.parametrize(
    ("line", "missing"), [("authority: ca.crt\n", "node"), ("node: node\n", "authority")]
)
def test_one_of_the_two_is_refused_on_this_machine_too(
    place: Path, line: str, missing: str
) -> None:
    for text in (SITE, SITE.replace("fl.example.org", "127.0.0.1")):
        assert f"`{missing}` is missing" in refused(place, text + line).message


def test_an_authority_that_is_over_or_does_not_hold_yet_is_refused(place: Path) -> None:
    for now in (NOW + 31 * DAY, NOW - 2 * DAY):
        error = refused(place, now=now)
        assert error.place == f"{place / 'site.yaml'}: authority"
        assert "holds only from 2025-04-30 00:00 UTC to 2025-05-31" in error.message
        assert "clock" in str(error.remedy)


def test_an_authority_that_is_over_soon_is_told(place: Path) -> None:
    assert "expires on 2025-05-31" in uplink(place, now=NOW + 25 * DAY).notice


def test_a_servers_certificate_is_no_authority(place: Path) -> None:
    error = refused(place, SITE + "authority: server/server.crt\nnode: node\n")
    assert "not the certificate of an authority" in error.message


@pytest.mark.parametrize(("file", "field"), [("ca.crt", "authority"), ("node/node.key", "node")])
def test_a_missing_or_damaged_file_is_told_at_the_field_that_names_it(
    place: Path, file: str, field: str
) -> None:
    (place / file).write_text("nothing of the kind")
    damaged = refused(place)
    (place / file).unlink()
    missing = refused(place)
    for error in (damaged, missing):
        assert error.place == f"{place / 'site.yaml'}: {field}"
        assert str(place / file) in error.message
        assert error.remedy
        assert error.__context__ is not None
        assert error.__suppress_context__


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_node_key_that_others_can_read_is_refused(place: Path, mode: int) -> None:
    (place / "node" / "node.key").chmod(mode)
    assert "others than its owner" in refused(place).message


def test_the_supervisor_refuses_before_it_starts_anything(place: Path) -> None:
    site = parse_site(SITE + BOTH, "site.yaml")
    with pytest.raises(ConfigError, match="holds only"):
        check_runnable(site, place / "site.yaml")  # the authority is one of long ago
    create_authority(place / "now", "test", None, datetime.datetime.now(datetime.UTC), 30)
    (place / "ca.crt").write_bytes((place / "now" / "ca.crt").read_bytes())
    found = check_runnable(site, place / "site.yaml")
    assert found.arguments[:2] == ("--superlink", "fl.example.org:9192")
    odd = dataclasses.replace(site, coordinator="fl.example.org:99999")
    with pytest.raises(ConfigError, match="expected host:port"):
        check_runnable(odd, place / "site.yaml")


def test_addresses_have_host_and_port() -> None:
    assert parse_address("fl.example.org:9192", "x") == ("fl.example.org", 9192)
    assert parse_address("[2001:db8::1]:9192", "x") == ("2001:db8::1", 9192)
    assert parse_loopback("[::1]:1", "x") == ("::1", 1)
    for wrong in ("host", "host:", ":1", "host:0", "host:65536", "host:٣"):
        with pytest.raises(ConfigError, match="expected host:port"):
            parse_address(wrong, "x")
