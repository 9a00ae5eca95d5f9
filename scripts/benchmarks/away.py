"""A machine that is off for an hour in the middle of a round, and one that sleeps for as long.

    scripts/bench away [--seconds 3600] [--keep FOLDER]

One server and four clients as real processes: TLS, node keys, differential privacy under a test
seed, secure sums, a tiny encoder with random weights, and a deadline that is longer. Once the
vectors of round 2 are there and signatures are asked for, one institution's processes are all
killed, and another's are stopped where they are. After so long the one is started again, and the
other goes on. Nobody tells the server. Exit code 1 unless all rounds are done over all four, each
is charged once at each, and the models are those of a run in one process without a fault, to the
bit.
"""

import argparse
import logging
import signal
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from scripts.benchmarks import _stage_tiny as tiny
from scripts.benchmarks._faults_reference import Reference, digest
from scripts.benchmarks._stage import Command, Stage
from scripts.benchmarks._stage_moments import Moment, moments
from scripts.benchmarks.federation import commit
from scripts.console import quiet_libraries

NAMES: Final = ("north", "east", "south", "west")
OFF, ASLEEP = NAMES[:2]
ROUNDS: Final = 4
AT_ROUND: Final = 2
AT: Final = Moment("train", AT_ROUND, "signatures")
START_S: Final = 600.0
_PRIVACY: Final = (
    "{mechanism: local, unit: patient, noise_multiplier: 1.5, delta: 1e-3, clip: 0.5, "
    "sampling_rate: 0.5, steps_per_round: 2, declared_units: 8, "
    "evaluation: {epsilon: 20, clip: 3}, settings_from: synthetic, insecure_seed: 7, "
    "spare_rounds: 2}"
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench away")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--keep", type=Path, help="folder to make, and leave")
    options = parser.parse_args(argv)
    quiet_libraries()
    logging.getLogger("fedner").setLevel(logging.ERROR)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="away-")))
        folder = options.keep or scratch / "a"
        folder.mkdir(parents=True)
        found = away(folder, options.seconds)
        found |= _against_one_process(folder, found)
    return _report(found, options.seconds)


def away(folder: Path, seconds: float) -> dict[str, Any]:
    """Carry it out; what became of each round."""
    encoder = tiny.bert_folder(folder / "encoder")
    with Stage(folder / "s", _study_text(encoder, seconds + 2 * START_S)) as stage:
        stage.serve()
        stage.start()
        stage.await_true(lambda: AT in moments(stage.audit()), "signatures")
        stage.clients[OFF].look()
        stage.clients[OFF].destroy()
        _send_all(stage.clients[ASLEEP], signal.SIGSTOP)
        begun = time.monotonic()
        _wait(stage, seconds)
        gone = time.monotonic() - begun
        rounds = len(stage.run.events("round"))
        stage.start(OFF)
        _send_all(stage.clients[ASLEEP], signal.SIGCONT)
        back = time.monotonic()
        stage.await_event("round", AT_ROUND)
        took = time.monotonic() - back
        return {
            "code": stage.finish(),
            "gone": gone,
            "meanwhile": rounds,
            "back": took,
            "survivors": stage.survivors("round"),
            "evaluations": stage.survivors("evaluation"),
            "charges": {name: [tuple(c)[:2] for c in stage.charges(name)] for name in NAMES},
            "weights": digest(stage.weights()),
        }


def _study_text(encoder: Path, deadline_s: float) -> str:
    return tiny.study_text(
        encoder,
        study="away",
        privacy=_PRIVACY,
        model="{train: full, dropout: 0}",
        training=f"{{rounds: {ROUNDS}, learning_rate: 5e-3, precision: float32}}",
        federation=f"{{institutions: [{', '.join(NAMES)}], deadline_s: {deadline_s:g}}}",
        secure_aggregation="{}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
    )


def _send_all(client: Command, number: int) -> None:
    """To `fedner client` and everything below it."""
    for process in (*client.look(), psutil.Process(client.process.pid)):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait(stage: Stage, seconds: float) -> None:
    """So long, or until the server is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        server = stage.server
        if server is None or server.process.poll() is not None:
            return
        time.sleep(0.5)


def _against_one_process(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The weights of a run over the same institutions in which nobody was away."""
    survivors = {("train", r): names for r, names in found["survivors"].items()}
    survivors |= {("evaluate", r): names for r, names in found["evaluations"].items()}
    reference = Reference(folder / "s" / "study.yaml", folder / "reference")
    try:
        for round_ in sorted(found["survivors"]):
            after = reference.after(round_, survivors)
    finally:
        reference.close()
    return {"equal": after.weights == found["weights"]}


def _report(found: dict[str, Any], seconds: float) -> int:
    twice = {name: len(charged) - len(set(charged)) for name, charged in found["charges"].items()}
    whole = {r for r, names in found["survivors"].items() if set(names) == set(NAMES)}
    print(
        f"Commit {commit()}. {OFF} was off and {ASLEEP} asleep for {found['gone']:.0f} s, from the "
        f"signatures of round {AT_ROUND} on; {found['meanwhile']} round was done by then. That "
        f"round was done {found['back']:.0f} s after they were back. Over all four: {len(whole)} "
        f"of {ROUNDS} rounds. The server ended with {found['code']}. Charged twice: "
        f"{sum(twice.values())}. Weights equal to a run without a fault: {found['equal']}."
    )
    sound = (
        found["code"] == 0 and len(whole) == ROUNDS and found["equal"] and not any(twice.values())
        and found["gone"] >= seconds and found["meanwhile"] == AT_ROUND - 1
    )  # fmt: skip
    return 0 if sound else 1
