"""The vault: a retry sends the same bytes and is charged once; a lost vector is charged anew."""

import errno
import hashlib
import logging
import os
import stat
from dataclasses import fields, replace
from itertools import count

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import StorageError
from common.io import vault as vault_module
from common.io import vault_room
from common.io.disk import Disk
from common.io.release import release
from common.io.vault import Vault, VaultName
from common.privacy.ledger import Cap
from common.privacy.ledger_codec import canonical
from common.privacy.ledger_spend import spent
from tests.ledgers import DELTA, STEPS, charge, open_ledger, refused, steps

NAME = VaultName(
    ledger="0" * 32, seq=2, study="a" * 64, round=1, purpose="train", request="c" * 64, attempt=1
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ledger").mkdir()
    return tmp_path / "ledger"


@pytest.fixture
def institution(folder):
    """An open ledger with its vault, and `send`, which trains with fresh bytes each time."""
    with open_ledger(folder) as ledger:
        yield Institution(ledger, Vault(folder))


class Institution:
    def __init__(self, ledger, vault):
        self.ledger, self.vault, self.trained = ledger, vault, []
        self.fresh, self.size = count(), 0

    def send(self, asked=None, caps=()):
        compute = self.compute
        return release(self.ledger, self.vault, asked or charge(), caps, compute, self.size)

    def compute(self, reserved):
        self.trained.append(reserved.seq)
        return f"vector {next(self.fresh)}".encode()

    @property
    def steps(self):
        return sum(e.steps for e in spent(self.ledger.state, unit="patient"))


def path_of(folder, name=NAME):
    return folder / "vault" / name.file


def test_a_vector_comes_back_as_it_was_put(folder):
    for size in (0, 1, 100_000):
        name = replace(NAME, seq=size + 2)
        Vault(folder).put(name, bytes(range(256)) * size)
        assert Vault(folder).get(name) == bytes(range(256)) * size


def test_nothing_of_a_vector_stands_on_disk_in_the_clear(folder):
    vector = b"a very private gradient" * 10
    Vault(folder).put(NAME, vector)
    stored = path_of(folder).read_bytes()
    assert b"private" not in stored
    assert len(stored) == len(vector) + 12 + 16


def test_the_same_vector_is_never_stored_as_the_same_bytes(folder):
    vault, other = Vault(folder), replace(NAME, seq=3)
    vault.put(NAME, b"vector")
    vault.put(other, b"vector")
    first, second = path_of(folder).read_bytes(), path_of(folder, other).read_bytes()
    assert first[:12] != second[:12]


def test_files_and_key_are_for_their_owner_only(folder):
    Vault(folder).put(NAME, b"vector")
    for path in (folder / "vault.key", path_of(folder)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (folder / "vault.key").read_text().strip() not in repr(Vault(folder))
    (folder / "vault.key").chmod(0o644)
    assert "chmod 600" in refused(Vault, folder).remedy


def test_a_vector_that_is_not_there_is_none(folder):
    assert Vault(folder).get(NAME) is None


@pytest.mark.parametrize("field", [each.name for each in fields(VaultName)])
def test_a_vector_under_another_name_is_not_decrypted(folder, field, caplog):
    caplog.set_level(logging.ERROR, "fedner.vault")
    vault = Vault(folder)
    vault.put(NAME, b"vector")
    old = getattr(NAME, field)
    other = replace(NAME, **{field: old + 1 if isinstance(old, int) else "b" * len(old)})
    if other.file != NAME.file:
        path_of(folder).rename(path_of(folder, other))
    assert vault.get(other) is None
    assert "moved aside" in caplog.text


def test_a_changed_byte_is_found_and_the_file_is_kept_aside(folder, caplog):
    vault = Vault(folder)
    vault.put(NAME, b"vector")
    whole = path_of(folder).read_bytes()
    for number, position in enumerate(range(len(whole)), 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        path_of(folder).write_bytes(changed)
        assert vault.get(NAME) is None
        aside = path_of(folder).with_name(f"{NAME.file}.damaged-{number}")
        assert aside.read_bytes() == changed
        assert not path_of(folder).exists()
    for short in (b"", whole[:5], whole[:20]):
        path_of(folder).write_bytes(short)
        assert vault.get(NAME) is None
    vault.put(NAME, b"another")
    assert vault.get(NAME) == b"another"


def test_a_vector_is_never_written_over(folder):
    vault = Vault(folder)
    vault.put(NAME, b"vector")
    refused(vault.put, NAME, b"another")
    assert vault.get(NAME) == b"vector"


def test_what_the_cipher_can_not_take_at_once_is_refused(folder, monkeypatch):
    monkeypatch.setattr(vault_module, "MAX_BYTES", 10)
    vault = Vault(folder)
    assert "11 bytes can't be sealed, at most 10" in refused(vault.put, NAME, bytes(11)).message
    vault.put(NAME, bytes(10))


def test_what_can_not_be_sealed_is_refused_before_it_is_charged(institution, monkeypatch):
    monkeypatch.setattr(vault_module, "MAX_BYTES", 10)
    institution.size = 11
    for _ in range(2):
        error = refused(institution.send)
        assert "11 bytes can't be sealed" in error.message
        assert not isinstance(error, StorageError)
    assert not institution.ledger.state.reserves
    assert not institution.trained
    institution.size = 10
    assert institution.send()


# the key


def test_a_lost_key_is_not_made_anew_beside_vectors_that_it_sealed(folder):
    vault = Vault(folder)
    vault.put(NAME, b"vector")
    key = (folder / "vault.key").read_bytes()
    (folder / "vault.key").unlink()
    error = refused(Vault, folder)
    assert "1 vectors are sealed with it" in error.message
    assert str(folder / "vault") in error.remedy
    assert not (folder / "vault.key").exists()
    (folder / "vault.key").write_bytes(key)
    (folder / "vault.key").chmod(0o600)
    assert Vault(folder).get(NAME) == b"vector"


def test_a_key_that_is_gone_for_good_is_made_anew_once_its_vectors_are_moved_elsewhere(
    institution, folder, tmp_path
):
    first = institution.send()
    (folder / "vault.key").unlink()
    refused(Vault, folder)
    for path in (folder / "vault").glob("*.sealed"):
        path.rename(tmp_path / path.name)
    institution.vault = Vault(folder)
    assert institution.send() != first
    assert institution.steps == 2 * STEPS


# what earlier versions sealed


def seal_as_before(folder, name, vector):
    """The name was ledger, entry, study and round."""
    Vault(folder)
    cipher = AESGCM(bytes.fromhex((folder / "vault.key").read_text()))
    associated = canonical(["fedner vault v1", name.ledger, name.seq, name.study, name.round])
    nonce = bytes(range(12))
    path_of(folder, name).write_bytes(nonce + cipher.encrypt(nonce, vector, associated))


def test_a_vector_of_an_earlier_version_is_served_if_it_is_the_committed_one(institution, folder):
    reserved = institution.ledger.reserve(charge())
    seal_as_before(folder, VaultName.of(reserved), b"vector of before")
    institution.ledger.commit(reserved, hashlib.sha256(b"vector of before").hexdigest())
    assert institution.send() == b"vector of before"
    assert institution.trained == []


@pytest.mark.parametrize("committed", [None, "0" * 64])
def test_a_vector_of_an_earlier_version_that_nothing_binds_to_its_request_is_not(
    institution, folder, committed
):
    reserved = institution.ledger.reserve(charge())
    seal_as_before(folder, VaultName.of(reserved), b"of another request, perhaps")
    if committed:
        institution.ledger.commit(reserved, committed)
    assert institution.send() == b"vector 0"
    assert institution.steps == 2 * STEPS
    assert len(list((folder / "vault").glob("*.damaged-1"))) == 1


def test_pruning_deletes_what_is_named_and_keeps_the_rest(folder):
    vault = Vault(folder)
    others = [replace(NAME, seq=3), replace(NAME, ledger="1" * 32)]
    for name in (NAME, *others):
        vault.put(name, b"vector")
    unfinished = folder / "vault" / f".{NAME.file}.new"
    unfinished.write_bytes(b"half")
    assert vault.prune([others[0], replace(NAME, seq=9)], ["1" * 32]) == 2
    assert [path.name for path in (folder / "vault").iterdir()] == [NAME.file]
    assert vault.get(NAME) == b"vector"


class Full(Disk):
    """Fails one kind of call under `vault/`."""

    def __init__(self, call, code):
        self.call, self.code = call, code

    def _fail(self, call):
        if call == self.call:
            raise OSError(self.code, "the disk says no")

    def read(self, path):
        if path.suffix == ".sealed":
            self._fail("read")
        return super().read(path)

    def write(self, descriptor, data, offset):
        self._fail("write")
        return super().write(descriptor, data, offset)

    def fsync(self, descriptor):
        self._fail("fsync")
        super().fsync(descriptor)

    def rename(self, source, target):
        self._fail("rename")
        super().rename(source, target)


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_vector_that_the_disk_does_not_take_is_not_there(folder, call):
    Vault(folder)
    vault = Vault(folder, disk=Full(call, errno.ENOSPC))
    assert "the disk says no" in refused(vault.put, NAME, b"vector").message
    assert list((folder / "vault").iterdir()) == []
    assert Vault(folder).get(NAME) is None


def test_a_disk_that_does_not_give_a_vector_does_not_make_it_lost(folder):
    Vault(folder).put(NAME, b"vector")
    refused(Vault(folder, disk=Full("read", errno.EIO)).get, NAME)
    assert Vault(folder).get(NAME) == b"vector"


# release


def test_a_retry_sends_the_same_bytes_and_is_charged_once(institution):
    first = institution.send()
    entries = institution.ledger.state.seq
    assert institution.send() == first
    assert institution.send() == first
    assert institution.ledger.state.seq == entries
    assert institution.trained == [2]
    assert institution.steps == STEPS


def test_a_lost_vector_is_noised_and_charged_anew(institution, folder):
    first = institution.send()
    path_of(folder, VaultName.of(institution.ledger.state.reserves[2])).unlink()
    second = institution.send()
    assert second != first
    assert institution.steps == 2 * STEPS
    assert [r.body.attempt for r in institution.ledger.attempts(charge())] == [1, 2]
    assert institution.send() == second


def test_a_lost_vector_that_no_longer_fits_the_caps_is_refused(institution, folder):
    cap = Cap(unit="patient", delta=DELTA, epsilon_per_study=2.5)
    institution.send(caps=(cap,))
    assert institution.send(caps=(cap,))
    path_of(folder, VaultName.of(institution.ledger.state.reserves[2])).unlink()
    refused(institution.send, caps=(cap,))
    assert institution.steps == STEPS
    assert institution.trained == [2]


def test_a_damaged_vector_is_charged_anew(institution, folder):
    first = institution.send()
    path = path_of(folder, VaultName.of(institution.ledger.state.reserves[2]))
    path.write_bytes(path.read_bytes()[:-1])
    assert institution.send() != first
    assert institution.steps == 2 * STEPS


def test_a_vector_that_is_not_the_committed_one_is_not_sent(institution, folder, caplog):
    institution.send()
    name = VaultName.of(institution.ledger.state.reserves[2])
    path_of(folder, name).unlink()
    institution.vault.put(name, b"forged with the right key")
    assert institution.send() == b"vector 1"
    assert "not the committed one" in caplog.text
    assert institution.steps == 2 * STEPS


def test_a_vector_stored_before_a_crash_is_sent_and_committed_after_it(institution):
    reserved = institution.ledger.reserve(charge())
    institution.vault.put(VaultName.of(reserved), b"finished")
    assert institution.send() == b"finished"
    assert institution.trained == []
    assert institution.ledger.state.reserves[reserved.seq].vector is not None
    assert institution.steps == STEPS


def test_a_training_that_broke_off_is_charged_and_charged_again(institution):
    def break_off(_reserved):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        release(institution.ledger, institution.vault, charge(), (), break_off)
    assert institution.steps == STEPS
    institution.send()
    assert institution.steps == 2 * STEPS


def test_data_is_touched_only_after_the_reserve_and_nothing_is_sent_before_the_commit(institution):
    seen = []

    def compute(reserved):
        seen.append((institution.ledger.state.seq, reserved.seq, reserved.vector))
        return b"vector"

    assert release(institution.ledger, institution.vault, charge(), (), compute) == b"vector"
    assert seen == [(2, 2, None)]
    assert institution.ledger.state.reserves[2].vector is not None


def test_each_round_purpose_and_request_is_charged_by_itself(institution):
    asked = [
        charge(1),
        charge(2),
        charge(1, purpose="evaluate"),
        charge(1, request="b" * 64),
        charge(1, "lung"),
    ]
    vectors = [institution.send(one) for one in asked]
    assert len(set(vectors)) == len(asked)
    assert spent(institution.ledger.state, unit="patient") == (steps(5 * STEPS),)
    assert [institution.send(one) for one in asked] == vectors


# room


class Small(Disk):
    """A disk of so many bytes, of which others use some."""

    def __init__(self, folder, size):
        self.folder, self.size_, self.others = folder, size, 0

    @property
    def used(self):
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _take(self, descriptor, end):
        grown = max(0, end - os.fstat(descriptor).st_size)
        if grown and self.used + self.others + grown > self.size_:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, descriptor, data, offset):
        self._take(descriptor, offset + len(data))
        return super().write(descriptor, data, offset)

    def allocate(self, descriptor, size):
        self._take(descriptor, size)
        super().allocate(descriptor, size)


LONG = 1 << 20


@pytest.fixture
def small(folder):
    """An institution whose disk has 4 MiB for vectors of one."""
    disk = Small(folder, 4 * LONG)
    with open_ledger(folder, disk=disk) as ledger:
        made = Institution(ledger, Vault(folder, disk=disk))
        made.disk, made.size = disk, LONG
        made.compute = lambda reserved: made.trained.append(reserved.seq) or os.urandom(LONG)
        yield made


def test_a_vector_that_would_not_fit_is_not_charged_and_comes_when_there_is_room(small, folder):
    beside = 4 * LONG - small.disk.used  # all that is free
    for free in (0, LONG - 1000, LONG + 3000, LONG + vault_room.ENTRIES_BYTES + 300):
        small.disk.others = beside - free
        error = refused(small.send)
        assert isinstance(error, StorageError)
        assert f"no room for a vector of {LONG} bytes" in error.message
        assert "nothing was charged" in error.remedy
        assert not small.ledger.state.reserves
        assert not small.trained
        assert list((folder / "vault").iterdir()) == []
    small.disk.others = 0
    assert len(small.send()) == LONG
    assert small.steps == STEPS


def test_a_disk_that_others_fill_during_the_work_costs_no_vector(small):
    compute = small.compute

    def filled(reserved):
        small.disk.others = 4 * LONG - small.disk.used
        return compute(reserved)

    small.compute = filled
    first = small.send()
    assert small.ledger.state.reserves[2].vector is not None
    small.disk.others = 0
    assert small.send() == first
    assert small.steps == STEPS


def test_room_is_given_back_when_no_vector_comes_about(small, folder):
    cap = Cap(unit="patient", delta=DELTA, epsilon_per_study=1.0)
    refused(small.send, caps=(cap,))
    assert list((folder / "vault").iterdir()) == []

    def break_off(_reserved):
        raise RuntimeError("out of memory")

    small.compute = break_off
    with pytest.raises(RuntimeError):
        small.send()
    assert list((folder / "vault").iterdir()) == []


def test_a_vector_is_as_long_as_it_was_and_nothing_of_its_room_is_left(small, folder):
    small.compute = lambda _reserved: b"short"
    assert small.send() == small.send() == b"short"
    (stored,) = (folder / "vault").iterdir()
    assert stored.stat().st_size == 12 + len(b"short") + 16


def test_a_file_system_that_does_not_overwrite_in_place_still_gets_the_room(small, folder):
    """It wants fresh blocks for each write: the room is given up first."""
    write = small.disk.write

    def copied(descriptor, data, offset):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".room." in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data, offset)

    small.disk.write = copied
    assert len(small.send()) == LONG
    assert small.send() == small.send()
    assert small.steps == STEPS


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_is_not_called_full(small, monkeypatch, code):
    def fails(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(small.disk, "allocate", fails)
    error = refused(small.send)
    assert isinstance(error, StorageError)
    assert error.message == os.strerror(code)
    assert "free some space" not in error.remedy
    assert not small.ledger.state.reserves
