"""`fedner identity` and `fedner roster` as their users meet them, on real files."""

import json
import os
import shutil
import stat
import sys

import pytest
from typer.testing import CliRunner

from common.errors import ConfigError, IdentityError, UsageError
from common.identity.fingerprint import key_fingerprint, roster_fingerprint
from common.identity.signing import Signer
from common.io.configs import load_roster
from common.io.identity_files import create, open_private, read_guarded, read_own, read_passphrase
from scripts import cli

WORDS = "correct horse battery"
NAMES = ("north", "south", "west")


class Result:
    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err
        self.said = " ".join(self.err.split())


@pytest.fixture
def fedner(monkeypatch, capsys, tmp_path):
    """Runs `fedner` in this process, in an empty folder, through its entry point."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedner", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
        result = Result(code, capsys.readouterr())
        assert "Traceback" not in result.out + result.err
        return result

    return run


@pytest.fixture
def words(tmp_path):
    """A passphrase file."""
    path = tmp_path / "words"
    path.write_text(WORDS + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def north(tmp_path):
    """A folder with an identity that has no passphrase."""
    create(tmp_path / "north", "north", None)
    return tmp_path / "north"


@pytest.fixture
def roster(fedner, tmp_path):
    """A roster file of three institutions, whose folders lie beside it."""
    for name in (*NAMES, "coordinator"):
        create(tmp_path / name, name, None)
    made = fedner("roster", "make", "--coordinator", "coordinator", *members(), "--out", "r.yaml")
    assert made.code == 0, made.err
    return tmp_path / "r.yaml"


def members(*names):
    return [word for name in names or NAMES for word in ("--institution", f"{name}/public.json")]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- identities


def test_new_makes_a_key_that_its_owner_alone_may_read_whatever_the_umask(fedner, words, tmp_path):
    before = os.umask(0)
    try:
        result = fedner("identity", "new", "north", "--out", "key", "--passphrase-file", words)
    finally:
        os.umask(before)
    folder = tmp_path / "key"
    assert result.code == 0
    assert (mode(folder), mode(folder / "private.key")) == (0o700, 0o600)
    assert sorted(os.listdir(folder)) == ["private.key", "public.json"]
    assert sorted(os.listdir(tmp_path)) == ["key", "words"]


def test_new_shows_what_show_shows_and_the_key_opens_with_the_passphrase(fedner, words, tmp_path):
    made = fedner("identity", "new", "north", "--out", "key", "--passphrase-file", words)
    identity = open_private(tmp_path / "key", read_passphrase(words))
    shown = fedner("identity", "show", "key")
    for text in (identity.name, identity.signer.public_key):
        assert text in made.out
        assert text in shown.out
    assert key_fingerprint(identity.signer.public_key) in shown.out
    assert fedner("identity", "show", "key/public.json").out == shown.out
    with pytest.raises(IdentityError, match="passphrase is wrong"):
        open_private(tmp_path / "key", "some other words")


def test_nothing_that_new_prints_or_leaves_holds_a_secret(fedner, words, tmp_path, north):
    made = fedner("identity", "new", "south", "--out", "key", "--passphrase-file", words)
    seed = json.loads((north / "private.key").read_text())["seed"]
    shown = fedner("identity", "show", north)
    assert Signer(bytes.fromhex(seed)).public_key in shown.out  # it is the seed
    for text in (made.out, made.err, shown.out, shown.err, (north / "public.json").read_text()):
        assert WORDS not in text
        assert seed not in text
    assert WORDS not in (tmp_path / "key/private.key").read_text()


def test_new_asks_for_the_passphrase_twice_and_does_not_echo_it(tmp_path):
    folder = tmp_path / "key"
    answers = f"{WORDS}\nsomething else\n{WORDS}\n{WORDS}\n"
    arguments = ["identity", "new", "north", "--out", str(folder)]
    result = CliRunner().invoke(cli.app, arguments, input=answers)
    assert result.exit_code == 0, result.output
    assert "do not match" in result.output
    assert WORDS not in result.output
    assert open_private(folder, WORDS).name == "north"


def test_a_key_without_passphrase_is_made_only_when_asked_for_and_loudly(fedner, tmp_path):
    result = fedner("identity", "new", "north", "--out", "key", "--no-passphrase")
    assert result.code == 0
    assert result.said.startswith("NO PASSPHRASE. The private key lies open")
    assert open_private(tmp_path / "key", None).name == "north"


def test_new_takes_one_way_to_the_passphrase(fedner, words):
    arguments = ("identity", "new", "north", "--out", "key", "--no-passphrase")
    assert fedner(*arguments, "--passphrase-file", words).code == UsageError.exit_code


@pytest.mark.parametrize("made", ["identity", "empty folder", "file", "dangling link"])
def test_new_never_overwrites(fedner, tmp_path, made):
    key = tmp_path / "key"
    if made == "identity":
        create(key, "north", None)
    elif made == "empty folder":
        key.mkdir()
    elif made == "file":
        key.write_text("mine")
    else:
        key.symlink_to("nowhere")
    before = key.read_text() if made == "file" else made == "identity" and read_own(key)
    result = fedner("identity", "new", "south", "--out", "key", "--no-passphrase")
    assert result.code == IdentityError.exit_code == 10
    assert "never overwritten" in result.said
    assert os.listdir(tmp_path) == ["key"]
    after = key.read_text() if made == "file" else made == "identity" and read_own(key)
    assert before == after


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path):
    def random(n):
        create(tmp_path / "key", "north", None)
        return os.urandom(n)

    with pytest.raises(IdentityError, match="never overwritten"):
        create(tmp_path / "key", "south", None, random=random)
    assert read_own(tmp_path / "key").name == "north"
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("name", ["North", "a b", "../x"])
def test_new_refuses_a_name_before_it_asks_for_anything(fedner, name):
    result = fedner("identity", "new", name, "--out", "key")
    assert (result.code, "is not a name" in result.said) == (10, True)


def test_new_in_a_folder_that_is_not_there_says_so(fedner):
    result = fedner("identity", "new", "north", "--out", "none/key", "--no-passphrase")
    assert (result.code, "No such file" in result.said) == (10, True)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
def test_a_private_key_that_others_may_use_is_refused(north, bits):
    (north / "private.key").chmod(bits)
    with pytest.raises(IdentityError, match=f"mode {bits:04o}") as caught:
        open_private(north, None)
    assert "chmod 600" in (caught.value.remedy or "")


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o711])
def test_a_private_key_in_a_folder_that_others_may_enter_is_refused(north, bits):
    north.chmod(bits)
    with pytest.raises(IdentityError, match=f"mode {bits:04o}") as caught:
        open_private(north, None)
    assert "chmod 700" in (caught.value.remedy or "")


def test_a_private_key_for_reading_alone_is_fine(north):
    (north / "private.key").chmod(0o400)
    assert open_private(north, None).name == "north"


def test_a_private_key_is_never_read_through_a_link(north, tmp_path):
    (north / "private.key").rename(tmp_path / "elsewhere")
    (north / "private.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="can't be used"):
        open_private(north, None)


def test_a_private_key_that_is_no_plain_file_is_refused_without_waiting(north):
    (north / "private.key").unlink()
    os.mkfifo(north / "private.key", 0o600)
    with pytest.raises(IdentityError, match="not a plain file"):
        open_private(north, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_private_key_of_another_user_is_refused(north):
    os.chown(north / "private.key", 12345, -1)
    with pytest.raises(IdentityError, match="belongs to another user"):
        open_private(north, None)


@pytest.mark.parametrize("name", ["private.key", "public.json"])
def test_a_missing_or_cut_file_is_refused_by_name(north, name):
    data = (north / name).read_bytes()
    (north / name).write_bytes(data[:-20])
    with pytest.raises(IdentityError) as caught:
        open_private(north, None)
    assert caught.value.place == str(north / name)
    (north / name).unlink()
    with pytest.raises(IdentityError, match="No such file"):
        open_private(north, None)


def test_two_files_of_different_identities_are_refused(fedner, north, tmp_path):
    create(tmp_path / "south", "south", None)
    shutil.copy(tmp_path / "south/public.json", north / "public.json")
    with pytest.raises(IdentityError, match="different identities"):
        open_private(north, None)
    result = fedner("identity", "show", north)
    assert (result.code, "different identities" in result.said) == (10, True)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_passphrase_file_without_a_passphrase_is_refused(words, content):
    words.write_bytes(content)
    with pytest.raises(IdentityError, match="no passphrase"):
        read_passphrase(words)


def test_a_passphrase_file_that_others_may_read_is_refused(words):
    words.chmod(0o644)
    with pytest.raises(IdentityError, match="mode 0644"):
        read_passphrase(words)


def test_a_passphrase_is_the_first_line(words):
    words.write_bytes(b"two  words \r\nsecond\n")
    assert read_passphrase(words) == "two  words "


def test_a_file_that_is_too_long_is_not_read_whole(words):
    words.write_bytes(b"x" * (1 << 20))
    assert len(read_guarded(words, own_folder=False)) < 1 << 17


# --- rosters


def test_make_writes_a_roster_that_verifies(fedner, roster):
    made = load_roster(roster)
    assert made.names == NAMES
    shown = fedner("roster", "verify", roster)
    assert shown.code == 0
    for key in (made.coordinator, *made.public_keys.values()):
        assert key in shown.out
        assert key_fingerprint(key) in shown.out
    assert f"roster_sha256: {made.sha256}" in shown.out
    assert roster_fingerprint(made.sha256) in shown.out


def test_a_roster_from_keys_is_the_one_from_files(fedner, roster, tmp_path):
    made = load_roster(roster)
    pairs = [w for n, k in made.public_keys.items() for w in ("--institution", f"{n}={k}")]
    result = fedner("roster", "make", "--coordinator", made.coordinator, *pairs, "--out", "2.yaml")
    assert result.code == 0
    assert load_roster(tmp_path / "2.yaml") == made


@pytest.mark.parametrize("note", ['a "note": # no comment', "été 🌞", "- x", "two\nlines"])
def test_a_note_of_any_text_comes_back(fedner, roster, tmp_path, note):
    arguments = ("--coordinator", "coordinator", *members(), "--note", note, "--out", "2.yaml")
    assert fedner("roster", "make", *arguments).code == 0
    assert load_roster(tmp_path / "2.yaml").note == note


def test_make_never_overwrites(fedner, roster):
    before = roster.read_bytes()
    result = fedner("roster", "make", "--coordinator", "north", *members(), "--out", roster)
    assert (result.code, roster.read_bytes()) == (2, before)


@pytest.mark.parametrize(
    ("coordinator", "names", "code", "said"),
    [
        ("coordinator", ("north", "north"), 3, "two institutions have the name north"),
        ("north", NAMES, 3, "the coordinator's key is that of north, too"),
        ("none", NAMES, 10, "is not a public key"),
        ("01" + "00" * 31, NAMES, 10, "low order"),
        ("coordinator", ("none",), 10, "No such file"),
    ],
)
def test_make_refuses_and_writes_nothing(fedner, roster, tmp_path, coordinator, names, code, said):
    arguments = ("--coordinator", coordinator, *members(*names), "--out", "2.yaml")
    result = fedner("roster", "make", *arguments)
    assert result.code == code
    assert said in result.said
    assert not (tmp_path / "2.yaml").exists()


@pytest.mark.parametrize("key", ["", "abc", "north", "01" + "00" * 31])
def test_make_refuses_a_key_that_is_none(fedner, roster, tmp_path, key):
    arguments = ("--coordinator", "coordinator", "--institution", f"x={key}", "--out", "2.yaml")
    result = fedner("roster", "make", *arguments)
    assert (result.code, "--institution x" in result.said) == (10, True)


def test_verify_against_a_pin(fedner, roster):
    assert fedner("roster", "verify", roster, "--pin", load_roster(roster).sha256).code == 0
    result = fedner("roster", "verify", roster, "--pin", "0" * 64)
    assert (result.code, "--pin pins roster 000" in result.said) == (10, True)


def test_verify_refuses_what_is_no_roster(fedner, tmp_path):
    (tmp_path / "r.yaml").write_text("coordinator: x\n")
    assert fedner("roster", "verify", "r.yaml").code == ConfigError.exit_code


SITE = """\
# a comment that stays
institution: north
study: study.yaml
coordinator: 127.0.0.1:9192
state: state
identity: north
data:
  all: {format: brat, path: notes}
  split: {test: 0.2, key: a key}
policy:
  accept_one_user: true
"""


def test_pin_shows_the_line_and_leaves_the_site_file_alone(fedner, roster, tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text(SITE)
    result = fedner("roster", "pin", roster, site)
    line = f"  roster_sha256: {load_roster(roster).sha256}\n"
    assert (result.code, site.read_text()) == (0, SITE)
    assert "pins no roster yet" in result.out
    assert line in result.out
    assert roster_fingerprint(load_roster(roster).sha256) in result.out
    site.write_text(SITE + line)
    again = fedner("roster", "pin", roster, site)
    assert (again.code, again.out) == (0, f"{site} pins this roster\n")


def test_pin_refuses_another_roster_than_the_pinned_one(fedner, roster, tmp_path):
    (tmp_path / "site.yaml").write_text(SITE + f"  roster_sha256: {'a' * 64}\n")
    result = fedner("roster", "pin", roster, "site.yaml")
    assert result.code == 10
    assert "pins roster aaaa" in result.said


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("identity: north", "identity: other"), 10, "another key for north"),
        (("identity: north", "identity: south"), 10, "identity of south, the site is north"),
        (("identity: north\n", ""), 2, "has no `identity`"),
        (("institution: north", "institution: west"), 10, "identity of north, the site is west"),
    ],
)
def test_pin_refuses_a_roster_that_is_not_this_sites(fedner, roster, tmp_path, change, code, said):
    create(tmp_path / "other", "north", None)
    (tmp_path / "site.yaml").write_text(SITE.replace(*change))
    result = fedner("roster", "pin", roster, "site.yaml")
    assert result.code == code
    assert said in result.said
    assert "roster_sha256" not in result.out


def test_every_verb_has_an_example(fedner):
    for verb in (("identity", "new"), ("identity", "show"), ("roster", "make"),
                 ("roster", "verify"), ("roster", "pin")):  # fmt: skip
        assert f"Example: fedner {' '.join(verb)}" in fedner(*verb, "--help").out
