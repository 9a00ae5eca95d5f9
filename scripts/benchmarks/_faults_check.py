"""What a campaign left on disk, held against an undisturbed run and against what rounds cost."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from common.config.study import Study
from common.io.ledger_folder import read_state
from common.model.ner import set_threads
from common.privacy.accountant import epsilon
from common.privacy.ledger_spend import spent
from common.privacy.plan import plan_of
from scripts.benchmarks._faults_reference import Reference, digest
from server.run_dir import RunDir

Line = dict[str, Any]
LEDGERS: Final = "ledgers"


def checked(made: Sequence[Mapping[str, Any]], place: Path) -> list[Line]:
    """Of each row: whether its rounds' models are the undisturbed run's; F1 after it; all spend.

    Args:
        made: the rows, with their `sums`.
        place: a campaign's folder, once it is over.

    Raises:
        FednerError: the undisturbed run does not come about.
    """
    set_threads(1)  # several spin where cores are busy
    with _quiet():
        return _checked(made, place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Of the undisturbed run errors alone are told."""
    logger = logging.getLogger("fedner")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _checked(made: Sequence[Mapping[str, Any]], place: Path) -> list[Line]:
    events = RunDir(place / "s" / "run").events()
    survivors = {
        ("train" if e["event"] == "round" else "evaluate", e["round"]): e["institutions"]
        for e in events
        if e["event"] in ("round", "evaluation")
    }
    reference = Reference(place / "s" / "study.yaml", place / "reference")
    try:
        equal = dict(_rounds(reference, survivors, place))
        found = [_row(line, equal, reference, place) for line in made if line.get("sums")]
    finally:
        reference.close()
    paid = {name: _paid(reference.study, name, place) for name in reference.institutions}
    return [
        *found,
        {"row": LEDGERS, "spent": paid, "rounds": len(equal), "equal": all(equal.values())},
    ]


def _rounds(reference: Reference, survivors: Any, place: Path) -> Any:
    """Round, and whether its model is the undisturbed run's; of those whose model was kept."""
    for round_ in sorted(r for purpose, r in survivors if purpose == "train"):
        after, kept = reference.after(round_, survivors), _kept(place, round_)
        if kept is not None:
            yield round_, digest(kept.tobytes()) == after.weights


def _kept(place: Path, round_: int) -> Any:
    path = place / "weights" / f"{round_}.npy"
    return np.load(path) if path.exists() else None


def _row(
    line: Mapping[str, Any], equal: Mapping[int, bool], reference: Reference, place: Path
) -> Line:
    rounds = [one["round"] for one in line["sums"]]
    last = _kept(place, rounds[-1])
    return {
        "row": line["row"],
        "equal": all(equal.get(round_, False) for round_ in rounds),
        "f1": None if last is None else reference.f1(last),
    }


def _paid(study: Study, name: str, place: Path) -> Line:
    """What a ledger says was spent, and what its rounds and evaluations cost by the plan."""
    folder = place / "s" / "fed" / "sites" / name / "state" / "ledger"
    state = read_state(folder, name)[0].state
    plan = plan_of(study, name)
    bodies = [] if state is None else [r.body for r in state.reserves.values()]
    sums = [(body.purpose, body.round) for body in bodies]
    cost = {"train": plan.training_event, "evaluate": plan.evaluation_event}
    expected = [event for purpose, _ in sums if (event := cost[purpose]) is not None]
    unit = study.local_privacy.unit if study.local_privacy else "record"
    return {
        "train": sum(purpose == "train" for purpose, _ in sums),
        "evaluate": sum(purpose == "evaluate" for purpose, _ in sums),
        "twice": len(sums) - len(set(sums)),
        "epsilon": epsilon(spent(state, unit=unit), plan.delta),
        "expected": epsilon(expected, plan.delta),
    }
