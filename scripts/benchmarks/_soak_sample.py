"""What the processes of a federation hold, sampled while it runs.

A group is one role at one party: the server's own process, the SuperLink behind the gate, the
ServerApp; and at each institution the supervisor, the worker, the SuperNode and the relay. Of
memory, file handles and threads only processes older than `SETTLED_S` count: the relay's children
live for one message, and share their memory with their parent.
"""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from scripts.benchmarks._stage import ROLES, Command, Stage

SETTLED_S: Final = 10.0
COORDINATOR: Final = "coordinator"
RECORDS: Final = (".jsonl", ".log", ".sealed")
"""Ends of files that grow, or of which there is one more, with each round of a study, by design:
ledger, audit log, metrics and logs; noised vectors, which the vault keeps until the next study."""

Sample = dict[str, Any]


class Sampler:
    """Samples one stage; keeps what it needs to tell the same process from another.

    Args:
        temporary: folder that all processes have as `TMPDIR`.
    """

    def __init__(self, stage: Stage, temporary: Path):
        self._stage, self._temporary = stage, temporary
        self._roles: dict[tuple[int, float], str] = {}

    def sample(self) -> Sample:
        """Figures by group, and bytes on disk by party."""
        groups: dict[str, list[psutil.Process]] = {}
        for party, command in self._commands():
            for role, process in self._below(party, command):
                groups.setdefault(f"{party}/{role}", []).append(process)
        figures = {name: _figures(found) for name, found in groups.items()}
        return {
            "groups": {name: found for name, found in figures.items() if found},
            "disk": {party: _disk(folder) for party, folder in self._folders()},
            "temporary": sum(1 for _ in self._temporary.rglob("*")),
        }

    def _commands(self) -> Iterator[tuple[str, Command]]:
        if self._stage.server is not None:
            yield COORDINATOR, self._stage.server
        yield from self._stage.clients.items()

    def _folders(self) -> Iterator[tuple[str, Path]]:
        yield COORDINATOR, self._stage.run.path
        for name in self._stage.sites:
            yield name, self._stage.state(name)

    def _below(self, party: str, command: Command) -> Iterator[tuple[str, psutil.Process]]:
        try:
            own = psutil.Process(command.process.pid)
            if own.status() != psutil.STATUS_ZOMBIE:
                yield "supervisor", own
        except psutil.NoSuchProcess:
            return
        for process in command.look():
            role = self._role(party, process)
            if role:
                yield role, process

    def _role(self, party: str, process: psutil.Process) -> str:
        """Empty for one that is gone."""
        try:
            key = process.pid, process.create_time()
            if key not in self._roles:
                self._roles[key] = _role_of(party, process.cmdline())
        except psutil.NoSuchProcess:
            return ""
        return self._roles[key]


def _role_of(party: str, line: list[str]) -> str:
    if "fedner-guard" in line:
        return "supervisor"
    if party == COORDINATOR:
        return "superlink" if any("server.gate" in part for part in line) else "serverapp"
    for role, word in ROLES.items():
        if any(word in part for part in line[1:]):
            return role
    return "supervisor"


def _figures(processes: list[psutil.Process]) -> dict[str, float]:
    """Of a group; `life` tells one leader from the next. Nothing if none of it is left."""
    found = [figures for figures in map(_of_one, processes) if figures]
    if not found:
        return {}
    leader = min(found, key=lambda one: one["since"])
    settled = [one for one in found if one["age_s"] > SETTLED_S]
    sums = {key: sum(one[key] for one in settled) for key in ("rss", "handles", "threads")}
    return {"life": leader["since"], "processes": len(found), **sums, "settled": len(settled)}


def _of_one(process: psutil.Process) -> Mapping[str, float]:
    try:
        with process.oneshot():
            since = process.create_time()
            return {
                "since": since,
                "age_s": time.time() - since,
                "rss": process.memory_info().rss,
                "handles": process.num_fds(),
                "threads": process.num_threads(),
            }
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return {}


def _disk(folder: Path) -> dict[str, int]:
    """Bytes of records, which grow by design, and of all else; and how many files that is."""
    found = {"records": 0, "rest": 0, "files": 0}
    for root, _folders, names in os.walk(folder):
        for name in names:
            try:
                size = os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
            is_record = name.endswith(RECORDS)
            found["records" if is_record else "rest"] += size
            found["files"] += not is_record
    return found


def strays(folder: Path) -> list[str]:
    """Command lines of processes, other than this one's, that were started for a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = str(folder) in " ".join(process.environ().values())
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
