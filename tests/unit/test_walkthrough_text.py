"""docs/walkthrough.md as `scripts/bench namespaces` reads it, and what that says of a run."""

import struct
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from scripts.benchmarks._namespaces_packets import Seen
from scripts.benchmarks._namespaces_report import report
from scripts.benchmarks._namespaces_text import PARTIES, read_blocks, replaced

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"


def fenced(head: str, body: str) -> str:
    return f"text\n\n```{head}\n{body}```\n\nmore\n"


def test_the_page_has_blocks_of_every_party_and_starts_server_before_clients():
    blocks = read_blocks(PAGE.read_text("utf-8"), "page")
    assert {block.party for block in blocks} == set(PARTIES)
    staying = [block.party for block in blocks if block.how == "stays"]
    assert staying == ["coordinator", "institution"]
    assert [block.party for block in blocks if block.how == "waits"] == ["coordinator"]
    for verb in ("provision", "enrol request", "enrol approve", "roster pin", "policy check",
                 "doctor", "client --rehearse", "server", "client", "log verify"):  # fmt: skip
        assert any(f"fedner {verb} " in block.text for block in blocks), verb


def test_the_page_needs_no_development_keys():
    text = PAGE.read_text("utf-8")
    assert "--demo" not in text
    assert "--no-passphrase" not in text
    assert "data deal" not in text


@given(
    st.sampled_from(PARTIES),
    st.sampled_from(["", "stays", "waits"]),
    st.lists(st.text("ab $'<>|#`", max_size=20).filter(lambda line: line != "```"), max_size=5),
)
def test_a_block_is_what_stands_between_its_fences(party, how, lines):
    body = "".join(f"{line}\n" for line in lines)
    (block,) = read_blocks(fenced(f"sh {party} {how}".rstrip(), body), "page")
    assert (block.party, block.how, block.line, block.text) == (party, how, 4, body)


def test_other_fences_are_nobodys():
    text = fenced("", "sh carrier\n") + fenced("yaml", "a: 1\n") + fenced("sh", "rm -r /\n")
    assert read_blocks(text, "page") == []


@pytest.mark.parametrize("head", ["sh hospital", "sh carrier later", "sh carrier stays waits"])
def test_a_word_that_nobody_knows_is_refused_with_its_line(head):
    with pytest.raises(ConfigError, match=f"found `{head[3:]}`") as caught:
        read_blocks(fenced(head, "x\n"), "page")
    assert caught.value.place == "page:3"


def test_an_open_fence_is_refused():
    with pytest.raises(ConfigError, match="not closed"):
        read_blocks("```sh carrier\ncp a b\n", "page")


def test_what_a_here_document_holds_is_no_command():
    text = "cat > a <<'END'\nx\ny\nEND\ncat > b <<END\nz\nEND\nfedner config check a\n"
    (block,) = read_blocks(fenced("sh carrier", text), "page")
    assert block.commands == 3


def test_words_are_changed_everywhere_and_a_missing_one_is_refused():
    blocks = read_blocks(fenced("sh carrier", "cp a b\n") + fenced("sh records", "a\n"), "page")
    assert [b.text for b in replaced(blocks, {"a": "c"}, "page")] == ["cp c b\n", "c\n"]
    with pytest.raises(ConfigError, match="no block has 'z'"):
        replaced(blocks, {"z": "c"}, "page")


def frame(source: str, to: str, kind: int, port: int, flags: int = 0, options: int = 0) -> bytes:
    """Ethernet and IPv4 as RFC 791 has it, and TCP's or UDP's first fields."""
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, to))
    head = bytes([0x45 + options]) + bytes(8) + bytes([kind]) + bytes(2) + addresses
    inner = struct.pack("!HHIIBB", 40_000, port, 0, 0, 0x50, flags)
    return bytes(14) + head + bytes(4 * options) + inner


def test_connections_are_counted_where_they_are_asked_for_and_all_udp():
    seen = Seen()
    for flags in (0x02, 0x02, 0x12, 0x10, 0x18):
        seen.note(0x0800, frame("192.0.2.21", "192.0.2.10", 6, 9192, flags, options=3))
    seen.note(0x0800, frame("192.0.2.21", "192.0.2.1", 17, 53))
    seen.note(0x0800, frame("192.0.2.1", "192.0.2.21", 1, 0))
    seen.note(0x0806, bytes(42))
    seen.note(0x86DD, bytes(60))
    assert seen.to_json(5) == {
        "frames": [
            ["192.0.2.1", "192.0.2.21", "icmp", 1],
            ["192.0.2.21", "192.0.2.1", "udp", 1],
            ["192.0.2.21", "192.0.2.10", "tcp", 5],
        ],
        "asked": [
            ["192.0.2.21", "192.0.2.1", "udp", 53, 1],
            ["192.0.2.21", "192.0.2.10", "tcp", 9192, 2],
        ],
        "other": {"arp": 1, "ether 0x86dd": 1},
        "dropped": 5,
    }


SITE, SERVER, OTHER = "192.0.2.21", "192.0.2.10", "203.0.113.9"
CABLE = {"rx": {"packets": 3, "bytes": 300}, "tx": {"packets": 2, "bytes": 200}}
DONE = {
    "typed": [{"party": "carrier", "how": "", "line": 4, "commands": 3, "took_s": 1.0}],
    "sockets": {"coordinator": ["tcp 192.0.2.10:9192"], "north": ["tcp 127.0.0.1:4000"]},
    "counters": {"coordinator": CABLE, "north": CABLE},
    "seen": {
        "frames": [[SERVER, SITE, "tcp", 2], [SITE, SERVER, "tcp", 3]],
        "asked": [[SITE, SERVER, "tcp", 9192, 1]],
        "other": {"arp": 2},
        "dropped": 0,
    },
    "addresses": {"coordinator": SERVER, "north": SITE},
    "port": 9192,
    "rounds": 6,
    "f1": 0.25,
    "promised": {"north": 7.9},
    "spent": {"north": {"unit": "record", "delta": 1e-4, "epsilon": {"pld": 7.9}}},
}


def changed(*path_and_value) -> dict:
    done = deepcopy(DONE)
    *path, last, value = path_and_value
    place = done
    for step in path:
        place = place[step]
    place[last] = value
    return done


def test_a_run_as_promised_has_no_faults_and_its_figures_are_said():
    lines, faults = report(DONE)
    assert faults == []
    text = "\n".join(lines)
    for said in ("3 commands in 1 blocks", "| north 192.0.2.21 | coordinator 192.0.2.10 tcp 9192 |",
                 "0.2500", "7.9", "tcp 127.0.0.1:4000"):  # fmt: skip
        assert said in text, said


@pytest.mark.parametrize(
    ("done", "fault"),
    [
        (changed("seen", "asked", [[SITE, OTHER, "tcp", 443, 1]]), f"asked {OTHER} for tcp 443"),
        (changed("seen", "asked", [[SITE, SERVER, "tcp", 22, 1]]), f"asked {SERVER} for tcp 22"),
        (changed("seen", "asked", [[SERVER, SITE, "tcp", 9192, 1]]), f"{SERVER} asked {SITE}"),
        (changed("seen", "asked", []), f"{SITE} never spoke to the server"),
        (changed("seen", "frames", [[SITE, "192.0.2.1", "udp", 1]]), "192.0.2.1, udp"),
        (changed("seen", "frames", [[SITE, "192.0.2.22", "tcp", 1]]), f"{SITE} to 192.0.2.22"),
        (changed("seen", "dropped", 4), "4 frames were not looked at"),
        (changed("seen", "other", {"ether 0x86dd": 1}), "0x86dd"),
        (changed("sockets", "north", ["tcp 0.0.0.0:80"]), "north listens at tcp 0.0.0.0:80"),
        (changed("sockets", "coordinator", ["tcp 0.0.0.0:22"]), "coordinator listens at"),
        (changed("spent", "north", "epsilon", "pld", 8.1), "north has spent 8.1"),
    ],
)  # fmt: skip
def test_what_is_not_as_promised_is_named(done, fault):
    _, faults = report(done)
    assert any(fault in said for said in faults), faults
