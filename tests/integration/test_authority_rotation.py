"""One authority after another: who is let in and who is shut out after each step, over TLS."""

import contextlib
import datetime
import re
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.uplink import Uplink
from common.config.deployment import parse_deployment
from common.config.load import parse_site
from common.errors import IdentityError
from common.io.authority_files import CURRENT, NEXT, OLD, begin_rotation, end_rotation, move_to_next
from common.io.certificate_files import (
    certificate_fingerprint,
    create_authority,
    create_node_key,
    create_server,
    expiry_notices,
    open_authority,
    read_authorities,
    read_certificate,
    renew_server,
    require_authority,
    require_server,
)
from scripts.cli import app
from scripts.doctor import coordinator, keys, tls
from scripts.doctor.network import Route
from server.door import open_door
from server.limits import Limits

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
HOSTS = ("127.0.0.1",)
FEDERATION = """\
federation: northern
study: study.yaml
server: {names: [localhost], addresses: [127.0.0.1], port: 9443}
"""


@pytest.fixture
def root(tmp_path):
    """A federation's folder, as far as certificates go."""
    create_authority(tmp_path / CURRENT, "test", None, NOW, 100)
    create_server(tmp_path / "server", open_authority(tmp_path / CURRENT, None), HOSTS, NOW, 50)
    return tmp_path


def begin(root):
    begin_rotation(root, "test", None, NOW, 900)


def move(root):
    move_to_next(root, None, HOSTS, NOW, 50)


def sent(root, to):
    """What institutions have as `ca.crt` after a step, kept in a file."""
    from common.io.authority_files import trusted

    (root / to).write_bytes(trusted(root))
    return root / to


@contextlib.contextmanager
def served(root):
    """The route to a server with the folder's certificates that speaks TLS and no more."""
    files = root / "server"
    door = open_door("127.0.0.1", 0, f"{files}/server.crt", f"{files}/server.key", Limits())

    def answer():
        while True:
            try:
                link, _ = door.socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), link:
                door.tls.wrap_socket(link, server_side=True).close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield Route(host="127.0.0.1", port=door.socket.getsockname()[1])
    finally:
        door.socket.shutdown(socket.SHUT_RDWR)
        door.socket.close()
        thread.join(10)


def reaches(root, trust: Path) -> bool:
    """Whether an institution with this `ca.crt` gets a TLS connection."""
    with served(root) as route:
        context = ssl.create_default_context(cafile=str(trust))
        raw = socket.create_connection((route.host, route.port), 5)
        try:
            with context.wrap_socket(raw, server_hostname=route.host):
                return True
        except ssl.SSLCertVerificationError:
            return False
        finally:
            raw.close()


def test_nobody_who_did_as_he_was_asked_is_shut_out_at_any_step(root):
    first = sent(root, "first.crt")
    assert reaches(root, first)
    begin(root)
    both = sent(root, "both.crt")
    assert len(read_authorities(both)) == 2
    assert [reaches(root, one) for one in (first, both)] == [True, True]
    move(root)
    moved = sent(root, "moved.crt")
    assert set(read_authorities(moved)) == set(read_authorities(both))
    assert [reaches(root, one) for one in (first, both, moved)] == [False, True, True]
    end_rotation(root)
    last = sent(root, "last.crt")
    assert [reaches(root, one) for one in (first, both, last)] == [False, True, True]
    assert read_authorities(last) == (read_certificate(root / CURRENT / "ca.crt"),)
    assert not (root / OLD).exists()


def test_who_has_only_the_new_authority_refuses_a_server_of_the_old_one(root):
    """What ending the rotation is for: the old key is worth nothing any more."""
    shutil.copytree(root, root / "stolen")
    begin(root)
    move(root)
    both = sent(root, "both.crt")
    end_rotation(root)
    last = sent(root, "last.crt")
    assert [reaches(root / "stolen", one) for one in (both, last)] == [True, False]


def test_the_server_starts_with_its_files_after_each_step(root):
    for step in (begin, move, end_rotation):
        step(root)
        require_server(root / "server", HOSTS, NOW)


def test_the_steps_have_an_order(root):
    with pytest.raises(IdentityError, match="no rotation was begun"):
        move(root)
    with pytest.raises(IdentityError, match="has not moved"):
        end_rotation(root)
    begin(root)
    with pytest.raises(IdentityError, match="under way") as caught:
        begin(root)
    assert "--rotate move" in caught.value.remedy
    with pytest.raises(IdentityError, match="has not moved"):
        end_rotation(root)
    move(root)
    with pytest.raises(IdentityError, match="under way") as caught:
        begin(root)
    assert "--rotate end" in caught.value.remedy
    end_rotation(root)
    begin(root)


@pytest.mark.parametrize("step", [begin, move])
def test_without_the_authoritys_folder_nothing_is_begun_and_the_server_does_not_move(root, step):
    """It is kept elsewhere, as the docs ask."""
    if step is move:
        begin(root)
    shutil.rmtree(root / CURRENT)
    before = sorted(p.read_bytes() for p in root.rglob("*.crt"))
    with pytest.raises(IdentityError, match="is not there") as caught:
        step(root)
    assert "bring the folder" in caught.value.remedy
    assert sorted(p.read_bytes() for p in root.rglob("*.crt")) == before


@pytest.mark.parametrize("between", [b"\n" * 70_000, b"TRUSTED"])
def test_a_second_certificate_that_only_others_would_read_is_refused(root, tmp_path, between):
    """gRPC reads the whole file, and blocks under other headings, too."""
    create_authority(tmp_path / "evil", "evil", None, NOW, 100)
    evil = (tmp_path / "evil" / "ca.crt").read_bytes()
    if between == b"TRUSTED":
        between, evil = b"", evil.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")
    path = root / CURRENT / "ca.crt"
    path.write_bytes(path.read_bytes() + between + evil)
    for read in (read_certificate, read_authorities):
        with pytest.raises(IdentityError, match="beside certificates"):
            read(path)


def test_a_move_that_a_crash_broke_off_is_finished_by_another(root, monkeypatch):
    """At each of its renames, of files and of folders."""
    begin(root)
    renames = Path.rename
    for allowed in range(2):
        left = [allowed]

        def rename(path, target, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return renames(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(KeyboardInterrupt):
                move(root)
        assert (root / OLD).exists() == (allowed == 1)
    move(root)
    assert not (root / NEXT).exists()
    require_server(root / "server", HOSTS, NOW)
    made = read_certificate(root / "server" / "ca.crt")
    assert made == read_certificate(root / CURRENT / "ca.crt")
    assert made != read_certificate(root / OLD / "ca.crt")


def test_the_old_key_is_kept_while_the_server_shows_its_certificates(root):
    old = shutil.copytree(root / "server", root / "before")
    begin(root)
    move(root)
    shutil.rmtree(root / "server")
    shutil.copytree(old, root / "server")
    with pytest.raises(IdentityError, match="not the current authority's"):
        end_rotation(root)
    assert (root / OLD / "authority.key").exists()


def test_of_two_authorities_one_that_holds_is_enough_and_the_later_end_is_told(root):
    begin(root)
    both = sent(root, "both.crt")
    later = NOW + 200 * DAY  # the first is over, the second holds 900 days
    require_authority(both, later)
    create_node_key(root / "node")
    site = parse_site(
        "institution: north\nstudy: s.yaml\ncoordinator: fl.example.org:1\nstate: s\n"
        "authority: both.crt\nnode: node\n"
        "data: {train: {path: a.jsonl, format: jsonl}, test: {path: b.jsonl, format: jsonl}}\n",
        "site.yaml",
    )
    assert Uplink.of(site, root / "site.yaml", later).notice == ""
    assert "expires on" in Uplink.of(site, root / "site.yaml", NOW + 880 * DAY).notice
    assert keys.authority(both, lambda: NOW).state == "ok"
    soon = keys.authority(both, lambda: NOW + 880 * DAY)
    assert (soon.state, "expires on" in str(soon)) == ("warning", True)
    with pytest.raises(IdentityError, match="holds only from"):
        require_authority(both, NOW + 901 * DAY)


def test_both_roles_are_told_before_the_authority_ends(root):
    late = NOW + 90 * DAY  # of 100; the server's own certificates are over
    assert any("ca.crt expires on" in notice for notice in expiry_notices(root / "server", late))
    assert not any("ca.crt" in notice for notice in expiry_notices(root / "server", NOW))
    found = tls.certificate_life(root / "server" / "ca.crt", lambda: late, "rotate")
    assert found.state == "warning"


def test_an_authority_that_is_over_is_replaced_as_the_errors_say(root):
    late = NOW + 101 * DAY  # of 100
    authority = open_authority(root / CURRENT, None)
    with pytest.raises(IdentityError, match="authority's certificate expired") as renewed:
        renew_server(root / "server", authority, HOSTS, late, 50)
    with pytest.raises(IdentityError, match="authority's certificate expired") as started:
        require_server(root / "server", HOSTS, late)
    for refused in (renewed, started):
        steps = re.findall(r"--rotate (\w+)", refused.value.remedy)
        assert steps == ["begin", "move", "end"]
    begin_rotation(root, "test", None, late, 900)
    move_to_next(root, None, HOSTS, late, 50)
    require_server(root / "server", HOSTS, late)
    require_authority(sent(root, "moved.crt"), late)
    end_rotation(root)
    require_authority(sent(root, "last.crt"), late)


def test_more_than_two_authorities_are_refused(root):
    data = (root / CURRENT / "ca.crt").read_bytes()
    (root / "three.crt").write_bytes(3 * data)
    with pytest.raises(IdentityError, match="3 certificates"):
        require_authority(root / "three.crt", NOW)
    server = (root / "server" / "server.crt").read_bytes()
    (root / "mixed.crt").write_bytes(data + server)
    with pytest.raises(IdentityError, match="not the certificate of an authority"):
        require_authority(root / "mixed.crt", NOW)


def test_the_doctor_says_that_the_server_has_moved_to_another_authority(root):
    first = sent(root, "first.crt")
    begin(root)
    both = sent(root, "both.crt")
    move(root)
    with served(root) as route:
        with pytest.raises(IdentityError, match="of another authority"):
            tls.server_chain(route, first, 5.0, lambda: NOW)
        assert tls.server_chain(route, both, 5.0, lambda: NOW).state == "ok"


def test_the_doctor_says_how_far_a_rotation_is_and_looks_at_every_key(root):
    deployment = parse_deployment(FEDERATION, "f")

    def looked():
        found = [c.looked_at for c in coordinator._keys(root, root, None, deployment, lambda: NOW)]
        return keys.rotation(root), {n for n in (CURRENT, NEXT, OLD) if str(root / n) in found}

    assert (looked()[0].state, looked()[1]) == ("ok", {CURRENT})
    begin(root)
    assert "--rotate move" in looked()[0].remedy
    assert looked()[1] == {CURRENT, NEXT}
    move(root)
    assert "--rotate end" in looked()[0].remedy
    assert looked()[1] == {CURRENT, OLD}
    assert keys.authority_key(root / OLD).state == "warning"


def test_the_verb_writes_the_kits_and_shows_what_is_to_be_compared(tiny_study, tmp_path):
    names = ("cancer-centre", "cardiac-centre")
    (tmp_path / "study.yaml").write_text(tiny_study())
    (tmp_path / "FEDERATION.yaml").write_text(FEDERATION)
    fed = tmp_path / "fed"

    def provision(*more, code=0):
        arguments = ["provision", str(tmp_path / "FEDERATION.yaml"), "--out", str(fed), *more]
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code != 0) == bool(code), done.output
        return done.output

    provision("--no-passphrase")
    said = provision("--rotate", "begin", "--no-passphrase")
    following = certificate_fingerprint(read_certificate(fed / NEXT / "ca.crt"))
    assert following in said
    for name in names:
        kit = fed / "sites" / name
        assert len(read_authorities(kit / "ca.crt")) == 2
        assert following in (kit / "README.txt").read_text()
        assert "BEGIN PRIVATE" not in (kit / "ca.crt").read_text()
    (kit / "ca.crt").unlink(), shutil.rmtree(kit)
    said = provision("--rotate", "begin", "--no-passphrase", code=10)
    assert f"no folder {kit}" in said
    kit = fed / "sites" / names[0]
    assert following in CliRunner().invoke(app, ["enrol", "show", str(kit / "ca.crt")]).output
    provision("--rotate", "begin", "--renew", code=2)
    shutil.copy(fed / CURRENT / "ca.crt", kit / "ca.crt")  # as if a crash came before the kits
    provision("--rotate", "begin", "--no-passphrase", code=10)
    assert len(read_authorities(kit / "ca.crt")) == 2
    provision("--rotate", "move", "--no-passphrase")
    require_server(fed / "server", ("localhost", "127.0.0.1"), NOW)
    assert "deleted" in provision("--rotate", "end")
    assert len(read_authorities(fed / "sites" / names[0] / "ca.crt")) == 1
    provision("--renew", "--no-passphrase")
