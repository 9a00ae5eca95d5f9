"""Machines on one wire: network namespaces, each with an address, joined by a bridge.

The bridge stands in a namespace of its own. It is everybody's default gateway and resolver, and
leads nowhere: a packet that is meant for elsewhere comes to it, is seen, and is refused. The host's
own network is left alone. Needs root and `ip`.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import UsageError

GATEWAY: Final = "192.0.2.1"
_ETC: Final = Path("/etc/netns")
"""`ip netns exec` lays what is below over `/etc`: ip-netns(8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One network namespace.

    Attributes:
        address: IPv4; empty without a network.
    """

    space: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """A command as it runs inside."""
        return ["ip", "netns", "exec", self.space, *arguments]

    def says(self, *arguments: str) -> str:
        """The output of a command that must succeed inside."""
        return _run(*self.command(*arguments))

    def sockets(self) -> list[str]:
        """Addresses where somebody listens: TCP, and UDP that is bound."""
        lines = self.says("ss", "-H", "-l", "-n", "-t", "-u").splitlines()
        return sorted(f"{fields[0]} {fields[4]}" for fields in map(str.split, lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Machines by name, and the one that holds the bridge; `port(name)` is its end of a cable."""

    switch: Machine
    machines: Mapping[str, Machine]

    def counters(self) -> dict[str, Any]:
        """What the kernel has counted of each machine's cable, by machine: packets and bytes."""
        shown = json.loads(_run("ip", "-n", self.switch.space, "-s", "-j", "link"))
        links = {link["ifname"]: link["stats64"] for link in shown}
        return {name: links[port(i)] for i, name in enumerate(self.machines)}


def port(index: int) -> str:
    """The switch's end of a machine's cable."""
    return f"port{index}"


def require_namespaces() -> None:
    """Raise where they can't be made.

    Raises:
        UsageError: not root, no `ip`, or the kernel refuses.
    """
    probe = f"fedner-probe-{os.getpid()}"
    try:
        _run("ip", "netns", "add", probe)
        _run("ip", "netns", "del", probe)
    except (OSError, UsageError) as error:
        raise UsageError(
            f"no network namespace can be made: {error}",
            remedy="run it as root, on Linux with iproute2, where namespaces are permitted",
        ) from None


@contextmanager
def wire(addresses: Mapping[str, str], hosts: Mapping[str, str]) -> Iterator[Wire]:
    """The machines, removed at the end with every process that is still in them.

    Args:
        addresses: IPv4 of 192.0.2.0/24 by name; empty: a machine without any network.
        hosts: addresses by host name, for all.
    """
    prefix = f"fedner{os.getpid()}"
    with ExitStack() as stack:
        switch = Machine(space=f"{prefix}-switch", address=GATEWAY)
        stack.enter_context(_space(switch, hosts))
        for line in (
            "link add br0 type bridge",
            f"address add {GATEWAY}/24 dev br0",
            "link set br0 up",
        ):
            _ip(switch, line)
        _set(switch, "net/ipv4/ip_forward", "1")  # so that what leads nowhere is refused at once
        machines = {}
        for index, (name, address) in enumerate(addresses.items()):
            machines[name] = Machine(space=f"{prefix}-{name}", address=address)
            stack.enter_context(_space(machines[name], hosts))
            _plug(switch, machines[name], port(index))
        yield Wire(switch=switch, machines=machines)


@contextmanager
def _space(machine: Machine, hosts: Mapping[str, str]) -> Iterator[None]:
    files = _ETC / machine.space
    _run("ip", "netns", "add", machine.space)
    try:
        _set(machine, "net/ipv6/conf/all/disable_ipv6", "1")
        _set(machine, "net/ipv6/conf/default/disable_ipv6", "1")
        _ip(machine, "link set lo up")
        files.mkdir(parents=True)
        known = {"localhost": "127.0.0.1"} | dict(hosts)
        lines = "".join(f"{address} {name}\n" for name, address in known.items())
        (files / "hosts").write_text(lines)
        (files / "resolv.conf").write_text(f"nameserver {GATEWAY}\n")
        yield
    finally:
        _end_processes(machine)
        _run("ip", "netns", "del", machine.space)
        for file in ("hosts", "resolv.conf"):
            (files / file).unlink(missing_ok=True)
        files.rmdir()


def _plug(switch: Machine, machine: Machine, end: str) -> None:
    _ip(switch, f"link add {end} type veth peer name eth0 netns {machine.space}")
    _ip(switch, f"link set {end} master br0 up")
    if machine.address:
        _ip(machine, f"address add {machine.address}/24 dev eth0")
        _ip(machine, "link set eth0 up")
        _ip(machine, f"route add default via {GATEWAY}")


def _end_processes(machine: Machine, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while pids := _run("ip", "netns", "pids", machine.space).split():
        for pid in pids:
            subprocess.run(["kill", "-KILL", pid], check=False, stderr=subprocess.DEVNULL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)


def _set(machine: Machine, name: str, value: str) -> None:
    """A kernel setting of the namespace, where the kernel has it."""
    machine.says("sh", "-c", f"[ ! -e /proc/sys/{name} ] || echo {value} > /proc/sys/{name}")


def _ip(machine: Machine, line: str) -> None:
    _run("ip", "-n", machine.space, *line.split())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout
