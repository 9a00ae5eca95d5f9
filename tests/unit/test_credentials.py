"""Credentials as systemd lays them out, and folders that it would not make."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import IdentityError
from common.io.credentials import VARIABLE, credential_name, read_credential
from common.io.identity_files import create, open_private, read_passphrase

WORDS = b"five words of no meaning\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As systemd makes it for a service: 0500, files 0400."""
    made = tmp_path / "credentials"
    made.mkdir()
    (made / "phrase").write_bytes(WORDS)
    (made / "phrase").chmod(0o400)
    made.chmod(0o500)
    return made


def read(folder: Path, name: str = "phrase") -> bytes:
    return read_credential(name, {VARIABLE: str(folder)})


def refused(folder: Path, name: str = "phrase") -> str:
    with pytest.raises(IdentityError) as caught:
        read(folder, name)
    assert caught.value.remedy
    assert "five words" not in str(caught.value)
    return str(caught.value)


def test_a_credential_is_read_whole(folder: Path) -> None:
    assert read(folder) == WORDS


def test_only_credential_colon_name_is_one_and_wherever_a_relative_path_begins() -> None:
    assert credential_name(Path("credential:phrase")) == "phrase"
    assert credential_name(Path("/etc/fedner") / "credential:a.b-c_1") == "a.b-c_1"
    for path in ("passphrase", "credential", "/run/credentials/phrase", "credential:a/b"):
        assert credential_name(Path(path)) is None
    for path in ("credential:", "credential:.hidden", "credential:a b", "credential:ü"):
        with pytest.raises(IdentityError, match="not the name of a credential"):
            credential_name(Path(path))


def test_outside_of_a_unit_it_is_an_error_and_no_other_place_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for environment in ({}, {VARIABLE: ""}, {VARIABLE: "."}):
        with pytest.raises(IdentityError, match="handed no credentials") as caught:
            read_credential("phrase", environment)
        assert "LoadCredentialEncrypted" in str(caught.value.remedy)
        assert "docs/deployment.md, Looking and rehearsing" in str(caught.value.remedy)


def test_a_missing_credential_and_a_missing_folder_are_told(folder: Path, tmp_path: Path) -> None:
    assert "No such file" in refused(folder, "other")
    assert "No such file" in refused(tmp_path / "none")


def linked(folder: Path) -> None:
    (folder / "phrase").rename(folder / "real")
    (folder / "phrase").symlink_to("real")


def piped(folder: Path) -> None:
    (folder / "phrase").unlink()
    os.mkfifo(folder / "phrase", 0o400)


SPOILT: dict[str, Callable[[Path], None]] = {
    "a file that others can read": lambda f: (f / "phrase").chmod(0o404),
    "a file that its group can write": lambda f: (f / "phrase").chmod(0o420),
    "a folder that others can enter": lambda f: f.chmod(0o501),
    "a folder that its group can write": lambda f: f.chmod(0o520),
    "a link": linked,
    "a pipe": piped,
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_systemd_would_not_make_is_refused(folder: Path, what: str) -> None:
    folder.chmod(0o700)
    SPOILT[what](folder)
    refused(folder)


def test_a_folder_reached_through_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    refused(tmp_path / "link")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


@needs_root
def test_what_is_roots_may_have_the_mask_of_an_acl_in_its_groups_bits(folder: Path) -> None:
    (folder / "phrase").chmod(0o440)
    folder.chmod(0o550)
    assert read(folder) == WORDS


@needs_root
def test_what_is_a_third_users_is_refused_and_ones_own_has_no_group_bits(folder: Path) -> None:
    os.chown(folder / "phrase", 1234, 1234)
    assert "owner 1234" in refused(folder)
    os.chown(folder / "phrase", 65534, 0)
    (folder / "phrase").chmod(0o440)
    os.chown(folder, 65534, 0)
    folder.parent.parent.chmod(0o755)
    folder.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        if os.access(folder, os.R_OK, effective_ids=True):
            assert "mode 0440" in refused(folder)
    finally:
        os.seteuid(0)


def test_a_sealed_identity_opens_with_a_credential_wherever_a_passphrase_file_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "identity", "north", "five words of no meaning")
    monkeypatch.setenv(VARIABLE, str(folder))
    words = read_passphrase(tmp_path / "credential:phrase")  # as `base / site.passphrase_file`
    assert open_private(tmp_path / "identity", words).name == "north"
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "phrase").write_bytes(WORDS)
    with pytest.raises(IdentityError, match="handed no credentials"):
        read_passphrase(tmp_path / "credential:phrase")
