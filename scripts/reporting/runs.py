"""Runs at a glance: what a run's folder says, read without changing it, while it goes on too."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from common.config.canonical import study_hash
from common.errors import FederationError, FednerError, UsageError
from common.io.disk import is_locked
from scripts.reporting.source import MICRO
from server.origin import COORDINATOR_LOCK, MODEL, ORIGIN, SERVER_LOCK
from server.run_dir import LOG, METRICS, STATUS, STUDY, RunDir

REPORT: Final = "report.html"
RUNS: Final = Path("runs")
_SIGNS: Final = (METRICS, STATUS, LOG)
"""Files by which a folder is known to be a run's: a federation's has a study, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run.

    Attributes:
        started: when its first event was, or else when its study was written; UTC.
        made_by: `server`, `simulation`, or `train`.
        has_started: whether its institutions were there once.
        state: in words; `damaged` if `damage` says why nothing more is known.
        message: of the status, how it ended early.
        epsilon: the largest of all institutions, of the plan; `None` without a mechanism, and
            before the start.
        f1: by label and `micro`, of the last evaluation, or of the model that `train` made.
        support: likewise, held-out entities.
        noised: whether these counts carry noise.
        seconds, bytes_up, bytes_down: of all rounds; down as far as it is recorded.
        notices: what the study does with and without, as at its start.
    model, report: paths, if they are there.
    """

    name: str
    path: str
    started: str | None
    damage: str | None = None
    state: str = "damaged"
    message: str = ""
    made_by: str | None = None
    has_started: bool = False
    study: str | None = None
    study_sha256: str | None = None
    institutions: tuple[str, ...] = ()
    privacy: str | None = None
    secure_aggregation: str | None = None
    epsilon: float | None = None
    rounds: int | None = None
    rounds_done: int = 0
    evaluated: int | None = None
    noised: bool = False
    f1: Mapping[str, float]
    support: Mapping[str, float]
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int | None = None
    notices: tuple[str, ...] = ()
    model: str | None = None
    report: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def found_runs(folder: Path) -> tuple[RunFacts, ...]:
    """Every run right under a folder, in the order of their start.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(
            "no such folder", place=str(folder), remedy="name the folder that holds the runs"
        )
    runs = [p for p in folder.iterdir() if any((p / sign).exists() for sign in _SIGNS)]
    return tuple(sorted(map(facts_of, runs), key=lambda run: (run.started or "", run.name)))


def one_run(path: Path) -> RunFacts:
    """A run by its folder, or by its name under `runs`.

    Raises:
        UsageError: neither is there.
        FederationError: it is damaged, and how.
    """
    place = path if path.is_dir() else RUNS / path
    facts = facts_of(RunDir.open(place).path)
    if facts.damage is not None:
        raise FederationError(
            f"the run is damaged: {facts.damage}",
            place=str(place),
            remedy="put back a copy of the run folder",
        )
    return facts


def facts_of(path: Path) -> RunFacts:
    """What is known of a run; of a damaged one, what its damage is."""
    started = _started(path)
    try:
        return _read(path, started)
    except FednerError as error:
        damage = f"{error.place}: {error.message}" if error.place else error.message
    except OSError as error:
        damage = f"{error.filename}: {error.strerror or type(error).__name__}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        damage = f"an event or a status without what it should have: {type(error).__name__} {error}"
    return RunFacts(
        name=path.name, path=str(path), started=started, damage=damage, f1={}, support={}
    )


def _started(path: Path) -> str | None:
    try:
        written = (path / STUDY).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")


def _read(path: Path, started: str | None) -> RunFacts:
    run = RunDir.open(path)
    study, events = run.study(), run.events()
    status, starts = run.status(), _of(events, "start")
    done = _of(events, "round")
    downs = [e["sum"]["bytes_down"] for e in done if "sum" in e]
    return RunFacts(
        name=path.name,
        path=str(path),
        started=events[0].get("time", started) if events else started,
        state=_state(run, status["state"], events, study.training.rounds),
        message=status["message"],
        made_by=_made_by(run, events),
        has_started=bool(starts),
        study=study.study,
        study_sha256=study_hash(study),
        institutions=study.federation.institutions,
        privacy=study.privacy_mechanism,
        secure_aggregation=study.secure_adversary,
        epsilon=_epsilon(starts),
        rounds=study.training.rounds,
        rounds_done=_last_round(done),
        seconds=round(sum(e["seconds"] for e in done), 3),
        bytes_up=sum(e["bytes_up"] for e in done),
        bytes_down=sum(downs) if downs else None,
        notices=tuple(starts[0]["notices"]) if starts else (),
        model=_there(path / MODEL),
        report=_there(path / REPORT),
        **_scores(events),
    )


def _of(events: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event["event"] == kind]


def _there(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _made_by(run: RunDir, events: Sequence[Mapping[str, Any]]) -> str:
    if (run.path / ORIGIN).exists():
        return "server"
    is_trained = not (run.path / STATUS).exists() and _of(events, "baseline")
    return "train" if is_trained else "simulation"


def _epsilon(starts: Sequence[Mapping[str, Any]]) -> float | None:
    said = starts[0].get("protection", {}) if starts else {}
    return max((one["epsilon"] for one in said.values()), default=None)


def _scores(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    evaluations = _of(events, "evaluation")
    alone = [] if _of(events, "start") else _of(events, "baseline")
    if not evaluations and not alone:
        return {"f1": {}, "support": {}}
    last = (evaluations or alone)[-1]
    rows = {k: s for k, s in last["entities"].items() if k not in {"macro", "weighted"}}
    return {
        "evaluated": last.get("round"),
        "noised": last.get("noised", False),
        "f1": {label: row["f1"] for label, row in rows.items()},
        "support": {label: row["support"] for label, row in rows.items()},
    }


def _last_round(done: Sequence[Mapping[str, Any]]) -> int:
    return max((int(event["round"]) for event in done), default=0)


def _state(run: RunDir, said: str, events: Sequence[Mapping[str, Any]], rounds: int) -> str:
    """In words; a run whose process is gone without a word is `interrupted`."""
    done = _last_round(_of(events, "round"))
    after = f"{done} of {rounds} rounds"
    if said == "unknown":
        return "trained" if _of(events, "baseline") else "not started"
    if said == "finished":
        return "finished"
    if said in {"failed", "lost"}:
        return f"ended early, {after}"
    if not any(is_locked(run.path / lock) for lock in (SERVER_LOCK, COORDINATOR_LOCK)):
        return f"interrupted, {after}"
    if said == "starting" or not _of(events, "start"):
        return "waiting for institutions"
    return f"going on, {after}"


# --- several beside each other


def differing(runs: Sequence[RunFacts]) -> dict[str, list[Any]]:
    """Keys of the studies, as paths, whose values are not the same in all runs.

    Lists of plain values are one value; what a study does not have is `None`.
    """
    flat = [dict(_flat(yaml.safe_load((Path(r.path) / STUDY).read_text("utf-8")))) for r in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    beside = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in beside.items() if any(v != values[0] for v in values)}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{index}")
    else:
        yield path, value


def beside(runs: Sequence[RunFacts]) -> dict[str, list[Any]]:
    """Figures of several runs, by name."""
    labels = dict.fromkeys(label for run in runs for label in run.f1 if label != MICRO)
    scores = {f"F1 {label}": [r.f1.get(label) for r in runs] for label in (*labels, MICRO)}
    rest = {
        "epsilon": [r.epsilon for r in runs],
        "rounds": [r.rounds_done for r in runs],
        "seconds": [r.seconds for r in runs],
        "bytes up": [r.bytes_up for r in runs],
        "bytes down": [r.bytes_down for r in runs],
    }
    return scores | rest


def same_held_out(runs: Sequence[RunFacts]) -> bool | None:
    """Whether the scores may be of the same documents, by their supports; unknown under noise."""
    scored = [run for run in runs if run.support]
    if any(run.noised for run in scored):
        return None
    return all(run.support == scored[0].support for run in scored)
