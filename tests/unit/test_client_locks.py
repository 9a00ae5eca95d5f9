"""A worker is not started while a predecessor still holds a lock; nobody waits for ever."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from client import sides, supervisor
from client.supervisor import await_locks
from common.errors import FederationError
from common.io.disk import DISK


def test_a_free_lock_is_not_waited_for_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "ledger.lock").write_text("7\n")
    said: list[str] = []
    await_locks(tmp_path, said.append, limit_s=0.0)
    await_locks(tmp_path / "not there", said.append, limit_s=0.0)
    assert said == []
    assert (tmp_path / "ledger" / "ledger.lock").read_text() == "7\n"


def test_a_lock_that_is_given_back_is_waited_for_and_told_once(tmp_path: Path) -> None:
    lock = DISK.lock(tmp_path / "study.lock")
    assert lock is not None
    said: list[str] = []
    giving = threading.Thread(target=lambda: (time.sleep(0.7), DISK.close(lock)))
    giving.start()
    await_locks(tmp_path, said.append, limit_s=20.0)
    giving.join()
    assert said == [f"waiting for another process, which holds {tmp_path / 'study.lock'}"]


def test_a_lock_that_is_kept_ends_the_wait_with_its_name(tmp_path: Path) -> None:
    lock = DISK.lock(tmp_path / "study.lock")
    assert lock is not None
    try:
        with pytest.raises(FederationError, match="in use by another process") as caught:
            await_locks(tmp_path, lambda _: None, limit_s=0.3)
        assert caught.value.place == str(tmp_path / "study.lock")
    finally:
        DISK.close(lock)


def test_a_worker_has_huge_pages_unless_its_site_tunes_the_allocator_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert supervisor.worker_environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert supervisor.worker_environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0"


def test_a_worker_that_takes_no_connections_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """A stopped process: its kernel queues connections until there is no room for more."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as frozen, contextlib.ExitStack() as callers:
        frozen.bind(str(path))
        frozen.listen(0)
        full = False
        while not full:
            caller = callers.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            full = caller.connect_ex(str(path)) != 0
        assert not supervisor.listens(path)
        assert sides.probe(path) != 0
