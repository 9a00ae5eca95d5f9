"""A study while its public port is attacked: it must finish, with an undisturbed run's weights.

    scripts/bench attack [--sites 3] [--rounds 25] [--connections 10000] [--simulated]

A tiny model, TLS, node keys, secure aggregation, noise with test seeds: once undisturbed, once
under attack from the first round to the last, all on loopback and from thousands of its addresses.
Prints what came of each attack, the server's peak memory and open files in both runs, and by how
much its log and the run's folder have grown since the first round. Exit code 1: somebody got in,
the study failed, its weights are others, or log or folder grew by more than `LOG_LIMIT` or
`FOLDER_LIMIT`. With `--simulated` the undisturbed run is `fedner simulate`, which gives the same
weights sooner, and has no server.
"""

import argparse
import asyncio
import random
import resource
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from common.io.certificate_files import NODE_KEY
from common.io.processes import stopping
from scripts.benchmarks._attack_hands import Hands
from scripts.benchmarks._stage import Command, Stage, fedner
from scripts.benchmarks._stage_tiny import bert_folder, study_text
from server.origin import MODEL
from server.run_dir import RunDir
from server.supervisor import SUPERLINK_LOG

NAMES: Final = ("north", "east", "south", "west", "centre", "coast", "valley", "island")
_PRIVACY: Final = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 2, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic, insecure_seed: 7}"
)
_ROLES: Final = (
    ("server.gate", "gate and SuperLink"),
    ("serverapp", "ServerApp"),
    ("superexec", "Flower's starter"),
    ("fedner", "fedner server"),
)
_SLOW_S: Final = 45.0
_HOLD_S: Final = 30.0
_LIMIT_S: Final = 3600.0
LOG_LIMIT: Final = 256 << 10
"""Bytes by which superlink.log may grow; each attack has requests of tens of KB."""
FOLDER_LIMIT: Final = 4 << 20
"""Bytes by which all of the run's folder may, the log included."""


@dataclass(slots=True)
class Watched:
    """The server's processes, by role: the most that each ever held."""

    rss: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)

    def look(self, server: Command) -> None:
        """Note what they hold now."""
        for process in [psutil.Process(server.process.pid), *server.look()]:
            try:
                line = " ".join(process.cmdline())
                rss, files = process.memory_info().rss, process.num_fds()
            except psutil.Error:
                continue
            role = next((name for word, name in _ROLES if word in line), "")
            if role:
                self.rss[role] = max(self.rss.get(role, 0), rss)
                self.files[role] = max(self.files.get(role, 0), files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a study ended.

    Attributes:
        weights: trained weights after the last round, as bytes.
        survivors: institutions in each round's sum, by round.
        log_grew, folder_grew: bytes since the first round; none without a server.
    """

    code: int
    took_s: float
    weights: bytes
    survivors: dict[int, tuple[str, ...]]
    held: Watched
    said: str
    log_grew: int = 0
    folder_grew: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack, once."""

    name: str
    took_s: float
    outcomes: Counter[str]
    during: bool
    """Whether the study was still running at its end."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench attack")
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--seed", type=int, default=1, help="of the attackers' bytes")
    options = parser.parse_args(argv)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="fa-") as scratch, stopping():
        home = Path(scratch)
        study = _study(bert_folder(home / "encoder"), options.sites, options.rounds)
        attacks: list[Attack] = []
        if options.simulated:
            calm = simulated(home / "calm", study)
        else:
            calm = run(Stage(home / "calm", study), lambda stage: None)
        hit = run(
            Stage(home / "hit", study),
            lambda stage: attacks.extend(_attack(stage, options.connections, options.seed)),
        )
    faults = [*_compared(calm, hit), *_got_in(attacks), *grown(hit)]
    print("\n".join(_report(calm, hit, attacks)))
    for fault in faults:
        print(f"NOT AS IT SHOULD BE: {fault}")
    return 1 if faults else 0


def run(stage: Stage, meanwhile: Callable[[Stage], None]) -> Run:
    """One study to its end; `meanwhile` is called after the first round."""
    with stage:
        began = time.monotonic()
        server = stage.serve()
        with _watching(server) as held:
            stage.start()
            stage.await_event("round", limit_s=_LIMIT_S)
            before = sizes(stage.run)
            meanwhile(stage)
            code = stage.finish(_LIMIT_S)
            after = sizes(stage.run)
        return Run(
            code=code, took_s=time.monotonic() - began, weights=stage.weights(),
            survivors=stage.survivors("round"), held=held, said=server.text,
            log_grew=after[0] - before[0], folder_grew=after[1] - before[1],
        )  # fmt: skip


def sizes(run_dir: RunDir) -> tuple[int, int]:
    """Bytes of the log that strangers could make grow, and of all below a run's folder.

    The model that is saved at the end is not counted.
    """
    files = [path for path in run_dir.path.rglob("*") if path.is_file()]
    mine = [path for path in files if not path.is_relative_to(run_dir.path / MODEL)]
    log = run_dir.path / SUPERLINK_LOG
    return log.stat().st_size, sum(path.stat().st_size for path in mine)


def simulated(folder: Path, study: str) -> Run:
    """The same study in one process."""
    folder.mkdir()
    (folder / "study.yaml").write_text(study)
    began = time.monotonic()
    fedner("simulate", folder / "study.yaml", "--out", folder / "run", "--no-alone", "--threads", 1)
    done = RunDir(folder / "run")
    survivors = {e["round"]: tuple(e["institutions"]) for e in done.events("round")}
    return Run(
        code=0, took_s=time.monotonic() - began, weights=bytes(done.load_delta()[0].tobytes()),
        survivors=survivors, held=Watched(), said="",
    )  # fmt: skip


def hands(stage: Stage, seed: int) -> Hands:
    """A stranger's, and those of an institution that has turned, at a federation's port."""
    tls = ssl.create_default_context(cafile=stage.fed / "authority" / "ca.crt")
    site = next(iter(stage.sites.values())).parent
    turned = load_ssh_private_key((site / "node" / NODE_KEY).read_bytes(), None)
    return Hands(
        port=stage.port, tls=tls, stranger=generate_key_pairs()[0], turned=turned,
        chance=random.Random(seed),
    )  # fmt: skip


def _attack(stage: Stage, connections: int, seed: int) -> list[Attack]:
    """One attack after the other, all over again until the study has ended; each at least once."""
    own = hands(stage, seed)
    kinds: tuple[tuple[str, Callable[[], Awaitable[Counter[str]]]], ...] = (
        ("bytes in place of a handshake", lambda: own.raw_fuzz(500)),
        ("bytes after the handshake", lambda: own.tls_fuzz(500)),
        ("garbage in HTTP", lambda: own.garbage(200)),
        ("a stranger's key on every path", own.every_path),
        (
            f"{connections:,} connections",
            lambda: own.crowd(connections, connections // 5, _HOLD_S),
        ),
        ("slow senders and readers", lambda: own.slow(20, _SLOW_S)),
    )
    done: list[Attack] = []

    def going() -> bool:  # and not only its server, which has shut the port before its own end
        alive = stage.server is not None and stage.server.process.poll() is None
        return alive and stage.run.status()["state"] == "running"

    while going():
        for name, act in kinds:
            began = time.monotonic()
            outcomes = asyncio.run(_awaited(act))
            took = time.monotonic() - began
            done.append(Attack(name=name, took_s=took, outcomes=outcomes, during=going()))
            print(f"{name}: {took:.0f} s, {dict(outcomes)}", file=sys.stderr, flush=True)
            if not going():
                break
    return done


async def _awaited(act: Callable[[], Awaitable[Counter[str]]]) -> Counter[str]:
    return await act()


@contextmanager
def _watching(server: Command) -> Iterator[Watched]:
    held, over = Watched(), threading.Event()

    def look() -> None:
        while not over.wait(0.25):
            held.look(server)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()


def _study(encoder: Path, sites: int, rounds: int) -> str:
    names = ", ".join(NAMES[:sites])
    return study_text(
        encoder,
        privacy=_PRIVACY,
        model="{train: full, dropout: 0}",
        training=f"{{rounds: {rounds}, learning_rate: 5e-3, precision: float32}}",
        federation=f"{{institutions: [{names}], deadline_s: 300, evaluate_every: {rounds}}}",
        secure_aggregation="{}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )


def _compared(calm: Run, hit: Run) -> list[str]:
    faults = [f"{name} ended with {r.code}: {r.said}" for name, r in _named(calm, hit) if r.code]
    if calm.survivors != hit.survivors:
        faults.append(f"others took part: {calm.survivors} and {hit.survivors}")
    if calm.weights != hit.weights:
        faults.append("the weights differ")
    return faults


def _got_in(attacks: list[Attack]) -> list[str]:
    """Attacks with an answer that only an institution should get, and those that came too late."""
    faults = [
        f"{attack.name}: {outcome}"
        for attack in attacks
        for outcome in attack.outcomes
        if outcome.split()[-1].startswith("2")
    ]
    if not any(attack.during and attack.name.startswith("slow") for attack in attacks):
        faults.append("the study ended before each attack was made once: give more --rounds")
    return faults


def grown(hit: Run) -> list[str]:
    """What took more of the disk than it may."""
    found = ((SUPERLINK_LOG, hit.log_grew, LOG_LIMIT), ("the run's folder", hit.folder_grew,
             FOLDER_LIMIT))  # fmt: skip
    return [f"{what} grew by {size:,} bytes" for what, size, most in found if size > most]


def _report(calm: Run, hit: Run, attacks: list[Attack]) -> list[str]:
    lines = ["| attack | times | s | what came of it |", "|---|---:|---:|---|"]
    for name in dict.fromkeys(attack.name for attack in attacks):
        made = [attack for attack in attacks if attack.name == name]
        total = sum((attack.outcomes for attack in made), Counter())
        shown = ", ".join(f"{count:,} {what}" for what, count in sorted(total.items()))
        lines.append(f"| {name} | {len(made)} | {sum(a.took_s for a in made):.0f} | {shown} |")
    lines += [
        "",
        "| process | MiB, undisturbed | under attack | open files, undisturbed | under attack |",
    ]
    lines.append("|---|---:|---:|---:|---:|")
    for role in sorted(hit.held.rss):
        before = calm.held.rss.get(role, 0) >> 20
        lines.append(
            f"| {role} | {before or '-'} | {hit.held.rss[role] >> 20} "
            f"| {calm.held.files.get(role, '-')} | {hit.held.files[role]:,} |"
        )
    same = "the same bytes" if calm.weights == hit.weights else "OTHER BYTES"
    lines += [
        "",
        f"Undisturbed: {calm.took_s:.0f} s. Under attack: exit code {hit.code} after "
        f"{hit.took_s:.0f} s, {len(hit.survivors)} rounds, final weights {same}.",
        f"Since the first round {SUPERLINK_LOG} grew by {hit.log_grew:,} bytes, the run's folder "
        f"by {hit.folder_grew:,}.",
    ]
    return lines


def _named(calm: Run, hit: Run) -> tuple[tuple[str, Run], ...]:
    return (("the undisturbed run", calm), ("the attacked run", hit))
