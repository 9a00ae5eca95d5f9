"""Who takes part now: the coordinator's side, over a grid in this process."""

import logging
from pathlib import Path

import pytest

from common.errors import IdentityError
from common.identity.enrolment import Register, make_request
from common.identity.identity import Identity
from common.io.certificate_files import create_node_key, read_node_key
from common.io.register_file import REGISTER, write_register
from common.wire import decode_reply
from server import approvals as approvals_module
from server.app import GridMail
from server.approvals import Approvals, ApprovedMail
from server.exchange import NodeExchange
from server.mail import Pace
from tests.roll_call import HELLO, STUDY, Grid, LocalGrid, a_federation, ask

NAMES = ("north", "south")
WHEN = "2026-05-01T12:00:00Z"


def register_of(folder: Path) -> Register:
    """Both approved; written."""
    register = Register(federation="fed")
    for number, name in enumerate(NAMES):
        create_node_key(folder / name)
        key = read_node_key(folder / name)
        asked = make_request("fed", Identity.of(name, bytes([number]) * 32), key)
        register = register.approve(asked, NAMES, WHEN)
    write_register(folder, register)
    return register


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return register_of(tmp_path)


def exchange_over(grid: Grid, folder: Path, seen: list[str]) -> NodeExchange:
    """As the coordinator has it in a federation with node keys."""
    owners = dict(zip(LocalGrid.get_node_ids(grid), NAMES, strict=True))

    def tell(name: str, state: str) -> None:
        seen.append(f"{name}: {state}")

    mail = ApprovedMail(GridMail(grid), Approvals(folder), owners, tell)
    pace = Pace(sleep=grid.time.sleep, clock=grid.time.clock)
    return NodeExchange(mail, STUDY, on_seen=tell, owners=owners, pace=pace)


def asked(exchange: NodeExchange) -> list[str]:
    return sorted(decode_reply(data).institution for data in ask(exchange).values())


@pytest.mark.parametrize("state", ["revoked", "left"])
def test_who_is_revoked_is_asked_no_more_and_named_once(
    register: Register, tmp_path: Path, state: str
) -> None:
    seen: list[str] = []
    with a_federation({"name": "north"}, {"name": "south"}) as (grid, _, _):
        grid.online = (0, 1)
        exchange = exchange_over(grid, tmp_path, seen)
        exchange.discover(HELLO, lambda _found: set(exchange.present()) == set(NAMES))
        assert asked(exchange) == ["north", "south"]
        before = len(grid.asked(0))
        write_register(tmp_path, register.end("north", state, WHEN, "lost"))
        for _ in range(2):
            assert asked(exchange) == ["south"]
        assert len(grid.asked(0)) == before
        assert exchange.present() == {"south"}
        assert [said for said in seen if "joined" not in said] == [f"north: {state}"]


def test_who_is_enrolled_with_other_keys_meanwhile_is_asked_no_more(
    register: Register, tmp_path: Path
) -> None:
    """Its node has the old key; the new one is registered by the next start."""
    seen: list[str] = []
    with a_federation({"name": "north"}, {"name": "south"}) as (grid, _, _):
        grid.online = (0, 1)
        exchange = exchange_over(grid, tmp_path, seen)
        exchange.discover(HELLO, lambda _found: set(exchange.present()) == set(NAMES))
        create_node_key(tmp_path / "new")
        again = make_request(
            "fed", Identity.of("north", bytes([7]) * 32), read_node_key(tmp_path / "new")
        )
        ended = register.end("north", "revoked", WHEN, "")
        write_register(tmp_path, ended.approve(again, NAMES, WHEN))
        assert asked(exchange) == ["south"]
        assert seen[-1] == "north: revoked"


def test_while_the_register_is_damaged_nobody_is_there_and_then_all_are_again(
    register: Register, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    with a_federation({"name": "north"}, {"name": "south"}) as (grid, _, _):
        grid.online = (0, 1)
        exchange = exchange_over(grid, tmp_path, seen)
        exchange.discover(HELLO, lambda _found: set(exchange.present()) == set(NAMES))
        (tmp_path / REGISTER).write_bytes(b"{}")
        with caplog.at_level(logging.ERROR, "fedner.server"):
            assert exchange.present() == frozenset()
            assert asked(exchange) == []
        assert [r.getMessage() for r in caplog.records if "nobody is let in" in r.getMessage()]
        write_register(tmp_path, register)
        assert asked(exchange) == ["north", "south"]
        assert not [said for said in seen if "joined" not in said and "back" not in said]


def test_the_register_is_read_only_when_its_file_is_another(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approvals = Approvals(tmp_path)
    first = approvals.look()
    assert first == register
    assert approvals.look() is first
    write_register(tmp_path, register)
    second = approvals.look()
    assert second == register
    assert second is not first


def test_a_register_that_could_not_be_read_once_is_read_again(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole and stays as it is: only its reading failed, as where handles ran out."""
    approvals, real = Approvals(tmp_path), approvals_module.read_register
    failing = iter([IdentityError("too many open files")])

    def read(folder: Path) -> Register:
        for error in failing:
            raise error
        return real(folder)

    monkeypatch.setattr(approvals_module, "read_register", read)
    assert approvals.look() is None
    assert approvals.look() == register
