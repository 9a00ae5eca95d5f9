"""A study of many rounds with random kills: does anything leak, and is what was spent exact?

    scripts/bench soak --rounds 200 --out runs/soak.jsonl [--seed 1] [--plot docs/images/soak.svg]
    scripts/bench soak --report runs/soak.jsonl [--plot ...]

One server and four clients as real processes, TLS, node keys, secure sums, differential privacy and
a tiny encoder with random weights. A fixed seed draws which round sees which process killed: relay,
SuperNode and worker of any institution but the first, which nobody touches, and the server, which
then goes on by `--resume`. One line of figures a second goes to the file, then what became of all.
"""

import argparse
import json
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from common.audit.entries import Body, Request, Spend
from common.audit.examine import Examined, examine
from common.config.canonical import study_hash
from common.config.load import parse_study
from scripts.benchmarks._soak_report import report
from scripts.benchmarks._soak_sample import Sampler, strays
from scripts.benchmarks._stage import Stage, StageError
from tests import tiny

NAMES: Final = ("north", "east", "south", "west")
SERVER: Final = "server"
VICTIMS: Final = (("relay", 10), ("supernode", 6), ("worker", 6), (SERVER, 2))
"""What is killed, and how often for each other."""
KILLS_A_ROUND: Final = 0.15
LONGEST_DELAY_S: Final = 2.0
SAMPLE_S: Final = 2.0
POLL_S: Final = 0.25
STALLED_S: Final = 1200.0
EVALUATE_EVERY: Final = 20


class Kill(NamedTuple):
    """After so many rounds and seconds more; `name` is empty for the server."""

    round: int
    delay_s: float
    role: str
    name: str


def plan(rounds: int, seed: int) -> list[Kill]:
    """Which process dies when, in order."""
    dice, kills = random.Random(seed), []
    roles, weights = zip(*VICTIMS, strict=True)
    for round_ in range(2, rounds - 1):
        if dice.random() >= KILLS_A_ROUND:
            continue
        role = dice.choices(roles, weights)[0]
        name = "" if role == SERVER else dice.choice(NAMES[1:])
        kills.append(Kill(round_, round(dice.uniform(0, LONGEST_DELAY_S), 3), role, name))
    return kills


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench soak")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="end early, with what there is")
    parser.add_argument("--out", type=Path, help="JSON lines, a new file")
    parser.add_argument("--report", type=Path, help="only print what a file says")
    parser.add_argument("--plot", type=Path, help="SVG to write")
    options = parser.parse_args(argv)
    if options.report is None:
        if options.out is None:
            parser.error("give --out FILE, or --report FILE")
        with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
            soak(Path(scratch), options.rounds, options.seed, options.out, 60 * options.minutes)
    return report(options.report or options.out, options.plot)


def soak(scratch: Path, rounds: int, seed: int, out: Path, limit_s: float) -> None:
    """Run it; all that is known goes to `out`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stage = _stage(scratch, rounds)
    kills = plan(rounds, seed)
    with out.open("x", buffering=1) as file, stage:
        file.write(json.dumps({"kind": "begun", "rounds": rounds, "seed": seed}) + "\n")
        run = Soak(stage, kills, file, scratch / "tmp")
        try:
            run.carry_out(time.monotonic() + limit_s)
        finally:
            print(f"failure: {run.failure or 'none'}", flush=True)
            file.write(json.dumps({"kind": "ended", **run.verdict(scratch)}) + "\n")


def _stage(scratch: Path, rounds: int) -> Stage:
    encoder = tiny.bert_folder(scratch / "tiny-bert")
    text = tiny.study_text(
        encoder,
        study="soak",
        model="{train: head, dropout: 0}",
        training=f"{{rounds: {rounds}, learning_rate: 1e-2, precision: float32}}",
        federation=f"{{institutions: [{', '.join(NAMES)}], quorum: 3, deadline_s: 120, "
        f"evaluate_every: {EVALUATE_EVERY}}}",
        privacy="{mechanism: local, unit: patient, epsilon: 8, delta: 1e-3, clip: 0.5, "
        "sampling_rate: 0.5, steps_per_round: 1, declared_units: 8, "
        "evaluation: {epsilon: 1, clip: 3}, settings_from: synthetic}",
        secure_aggregation="{}",
    )
    stage = Stage(scratch / "s", text)
    (scratch / "tmp").mkdir()
    stage.environment["TMPDIR"] = str(scratch / "tmp")
    return stage


class Soak:
    """One run.

    Args:
        file: takes a JSON object a line.
    """

    def __init__(self, stage: Stage, kills: Sequence[Kill], file: Any, temporary: Path):
        self._stage, self._kills, self._file = stage, list(kills), file
        self._sampler = Sampler(stage, temporary)
        self._over = threading.Event()
        self._lives = 1
        self.failure = ""
        self._deadline = 0.0

    def carry_out(self, deadline: float) -> None:
        """From the start to the last round, or to the deadline."""
        self._deadline = deadline
        self._stage.serve()
        self._stage.start()
        watch = threading.Thread(target=self._sample_on)
        watch.start()
        try:
            self._kill_all()
            code = self._stage.finish(STALLED_S)
            self.failure = f"the server ended with {code}" if code else ""
        except StageError as error:
            self.failure = str(error)[-2000:]
        except KeyboardInterrupt:
            self.failure = "interrupted"
        finally:
            self._over.set()
            watch.join()

    def _kill_all(self) -> None:
        for kill in self._kills:
            self._await_round(kill.round)
            time.sleep(kill.delay_s)
            if kill.role == SERVER:
                self._stage.kill_server()
                self._stage.serve()
                self._lives += 1
                found = 1
            else:
                found = self._stage.send(kill.name, kill.role)
            self._write("kill", {**kill._asdict(), "processes": found})
        self._await_round(self._stage.run.study().training.rounds)

    @property
    def _rounds(self) -> int:
        """That are done."""
        metrics = self._stage.run.path / "metrics.jsonl"
        return metrics.read_bytes().count(b'"event": "round"') if metrics.exists() else 0

    def _await_round(self, count: int) -> None:
        """Until so many are done; no round may take longer than `STALLED_S`.

        Raises:
            StageError: one did, the server is gone, or the time is over.
        """
        done, since = self._rounds, time.monotonic()
        while done < count:
            time.sleep(POLL_S)
            found = self._rounds
            if found > done:
                done, since = found, time.monotonic()
            server = self._stage.server
            if server is None or server.process.poll() is not None:
                raise StageError(f"the server is gone: {server and server.text[-500:]}")
            if time.monotonic() - since > STALLED_S:
                raise StageError(f"no round for {STALLED_S:g} s: {server.text[-500:]}")
            if time.monotonic() > self._deadline:
                raise StageError(f"ended early, after {done} rounds, as it was told to")

    def _sample_on(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._write("sample", {"round": self._rounds, **self._sampler.sample()})

    def _write(self, kind: str, figures: dict[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, "t": round(time.time(), 2), **figures}) + "\n")

    def verdict(self, scratch: Path) -> dict[str, Any]:
        """What became of the study, of each site's spend, and of all processes."""
        server = self._stage.server
        if server is not None and server.process.poll() is None:  # the soak ended early
            server.process.send_signal(signal.SIGTERM)
            server.await_end(60)
        codes = {name: self._stage.stop(name) for name in self._stage.clients}
        left = [line for command in self._stage.commands for line in command.left()]
        done = len(self._stage.run.events("round"))
        return {
            "failure": self.failure,
            "rounds_done": done,
            "server_lives": self._lives,
            "client_exit_codes": codes,
            "left": left,
            "strays": strays(scratch),
            "temporary": sum(1 for _ in (scratch / "tmp").rglob("*")),
            "refusals": len(self._stage.run.events("refusal")),
            "aborts": len(self._stage.run.events("abort")),
            "f1": self._stage.f1(),
            "spend": {name: self._spend(name) for name in NAMES},
        }

    def _spend(self, name: str) -> dict[str, Any]:
        """What the ledger holds, beside what the coordinator and the site's own log say of it."""
        stage = self._stage
        charges = stage.charges(name)
        study = parse_study((stage.fed / "study.yaml").read_text("utf-8"), "study.yaml")
        asked = {(kind, r) for kind, r in self._asked(name)}
        summed = {("train", r) for r, names in stage.survivors("round").items() if name in names}
        summed |= {
            ("evaluate", r) for r, names in stage.survivors("evaluation").items() if name in names
        }
        charged = [(c.purpose, c.round) for c in charges]
        spends = [body for body in _bodies(stage.audit(name)) if isinstance(body, Spend)]
        return {
            "charges": len(charged),
            "twice": len(charged) - len(set(charged)),
            "unpaid": sorted(summed - set(charged)),
            "unasked": sorted(set(charged) - asked),
            "not_in_a_sum": len(set(charged) - summed),
            "epsilon": stage.epsilon(name),
            "logged": len(spends),
            "log_faults": len(_examined(stage.audit(name)).faults),
            "other_study": sum(s.study != study_hash(study) for s in spends),
        }

    def _asked(self, name: str) -> Iterator[tuple[str, int]]:
        for body in _bodies(self._stage.audit()):
            if isinstance(body, Request) and body.institution == name:
                yield body.asked, body.round


def _examined(path: Path) -> Examined:
    """An audit log; an empty one if it was never begun."""
    return examine(path.read_bytes() if path.exists() else b"")


def _bodies(path: Path) -> list[Body]:
    return [entry.body for entry in _examined(path).entries]
