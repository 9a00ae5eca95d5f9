"""What `scripts/bench namespaces` prints, and what of it is not as docs/walkthrough.md promises."""

from collections.abc import Mapping
from typing import Any


def report(done: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Lines of Markdown, and faults: empty if all is as promised.

    Args:
        done: what `walk` gives.
    """
    lines = [*_typed(done), "", *_spoken(done), "", *_listening(done), "", *_result(done)]
    return lines, [*_strangers(done), *_open_ports(done), *_wrong_spend(done)]


def _typed(done: Mapping[str, Any]) -> list[str]:
    rows = done["typed"]
    total = sum(row["commands"] for row in rows)
    return [
        f"{total} commands in {len(rows)} blocks, all of which ended with 0.",
        "",
        "| line | party | | commands | s |",
        "|---:|---|---|---:|---:|",
        *(
            f"| {r['line']} | {r['party']} | {r['how']} | {r['commands']} | {r['took_s']:.0f} |"
            for r in rows
        ),
    ]


def _spoken(done: Mapping[str, Any]) -> list[str]:
    names = {address: name for name, address in done["addresses"].items()}
    seen = done["seen"]
    lines = ["| from | to | connections asked for |", "|---|---|---:|"]
    for source, to, kind, port, count in seen["asked"]:
        lines.append(f"| {_named(names, source)} | {_named(names, to)} {kind} {port} | {count} |")
    lines += ["", "| machine | address | packets out | MB out | packets in | MB in |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for name, address in done["addresses"].items():
        out, into = done["counters"][name]["rx"], done["counters"][name]["tx"]  # of the bridge
        lines.append(
            f"| {name} | {address} | {out['packets']:,} | {out['bytes'] / 1e6:.1f} "
            f"| {into['packets']:,} | {into['bytes'] / 1e6:.1f} |"
        )
    frames = sum(row[-1] for row in seen["frames"])
    other = ", ".join(f"{count} {kind}" for kind, count in seen["other"].items()) or "none"
    lines += ["", f"{frames:,} IPv4 frames looked at, {seen['dropped']} missed; others: {other}."]
    return lines


def _named(names: Mapping[str, str], address: str) -> str:
    return f"{names.get(address, 'NOBODY')} {address}"


def _listening(done: Mapping[str, Any]) -> list[str]:
    return [
        "| machine | listens at the study's end |",
        "|---|---|",
        *(f"| {name} | {', '.join(said) or '-'} |" for name, said in done["sockets"].items()),
    ]


def _result(done: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{done['rounds']} rounds, F1 of the shared model: {done['f1']:.4f}.",
        "",
        "| institution | unit | delta | epsilon promised | epsilon spent, by its own ledger |",
        "|---|---|---:|---:|---:|",
    ]
    for name, spent in done["spent"].items():
        promised, own = done["promised"][name], spent["epsilon"]["pld"]
        lines.append(
            f"| {name} | {spent['unit']} | {spent['delta']:g} | {promised:.4f} | {own:.4f} |"
        )
    return lines


def _strangers(done: Mapping[str, Any]) -> list[str]:
    """Traffic that is not between an institution and the server's one port."""
    server, port = done["addresses"]["coordinator"], done["port"]
    sites = set(done["addresses"].values()) - {server}
    faults = [
        f"{source} asked {to} for {kind} {number}"
        for source, to, kind, number, _ in done["seen"]["asked"]
        if source not in sites or (to, kind, number) != (server, "tcp", port)
    ]
    for source, to, kind, _ in done["seen"]["frames"]:
        if kind != "tcp" or server not in (source, to) or not {source, to} & sites:
            faults.append(f"a frame from {source} to {to}, {kind}")
    if done["seen"]["dropped"]:
        faults.append(f"{done['seen']['dropped']} frames were not looked at")
    faults += [f"frames of {kind}" for kind in done["seen"]["other"] if kind != "arp"]
    silent = sites - {row[0] for row in done["seen"]["asked"]}
    return faults + [f"{site} never spoke to the server" for site in sorted(silent)]


def _open_ports(done: Mapping[str, Any]) -> list[str]:
    """Sockets that another machine could reach, but for the server's one."""
    server = f"tcp {done['addresses']['coordinator']}:{done['port']}"
    return [
        f"{name} listens at {socket}"
        for name, sockets in done["sockets"].items()
        for socket in sockets
        if not socket.split()[1].startswith("127.") and (name, socket) != ("coordinator", server)
    ]


def _wrong_spend(done: Mapping[str, Any]) -> list[str]:
    """Ledgers that say another epsilon than the study has promised: none was charged twice."""
    return [
        f"{name} has spent {spent['epsilon']['pld']}, not {done['promised'][name]}"
        for name, spent in done["spent"].items()
        if abs(spent["epsilon"]["pld"] - done["promised"][name]) > 1e-6
    ]
