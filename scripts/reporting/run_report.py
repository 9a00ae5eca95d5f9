"""The report of one run, from its metrics and its study alone."""

from collections.abc import Iterator
from typing import Final

import yaml

from scripts.highlight import NOT_A_DEVICE
from scripts.reporting.course import cooperation, cost
from scripts.reporting.figures import Figure, duration, gain, score, significant, size
from scripts.reporting.html import is_grave
from scripts.reporting.institutions import by_institution, data
from scripts.reporting.page import Page, Section, Text
from scripts.reporting.protection import privacy
from scripts.reporting.scores import comparison, scores
from scripts.reporting.source import MICRO, Source
from server.run_dir import RunDir
from server.standing import ROSTER

_DEMO: Final = "DEMO"
"""How the note of a roster begins whose keys one machine has made."""
_SIMULATION: Final = (
    "SIMULATION. One process trained for all institutions, and saw all their data. In a federation "
    "documents stay where they are, and only updates of the model travel."
)
_UNFINISHED: Final = "UNFINISHED. Not all rounds are done: here is what there is so far."
_LIMITS: Final = (
    NOT_A_DEVICE,
    "Scores are those of the institutions' own held-out documents, which may be unlike yours.",
    "An entity counts as found only if both boundaries and the label are right.",
    "One run with one seed: another would give somewhat other scores.",
)
_AGAIN_SIMULATED: Final = (
    "Save the study below as study.yaml, add the `simulation` section of the file that was run (no "
    "part of a study is where its data lie), then `fedner simulate study.yaml`."
)
_AGAIN_REAL: Final = (
    "Save the study below as study.yaml. Keys and certificates are a federation's own: "
    "`fedner provision`, then `fedner server study.yaml --federation FOLDER`."
)


def build(run: RunDir) -> Page:
    """All that a run's folder says, in sections.

    Raises:
        UsageError: the run has not started, so that there is nothing to report.
        FederationError: a damaged line of the metrics.
        OSError: as the disk says.
    """
    source = Source(run)
    return Page(
        title=f"{source.study.study}: report of a federated run",
        lead=_lead(source),
        marks=tuple(_marks(source)),
        keys=tuple(_keys(source)),
        sections=(
            scores(source),
            comparison(source),
            by_institution(source),
            data(source),
            privacy(source),
            cooperation(source),
            cost(source),
            Section(name="limits", title="Limits", points=tuple((text,) for text in _LIMITS)),
            _again(source),
        ),
    )


def _lead(source: Source) -> Text:
    """What was done, in a sentence or two."""
    named: Text = (
        source.how_many_institutions(),
        " institutions together trained a model that finds ",
        ", ".join(source.labels),
        " in text, from the encoder ",
        source.of_study("encoder name"),
        ", over ",
        source.lines.count("round"),
        " of ",
        source.of_study("training rounds"),
        " rounds. ",
    )
    if source.last is None:
        return (*named, "It was not evaluated.")
    last = source.lines.figure(source.last, "f1", score)
    return (*named, "Its F1 on documents that were kept back, at the last evaluation: ", last, ".")


def _marks(source: Source) -> Iterator[Text]:
    """What is not real or not protected; other notices stand under privacy."""
    if source.is_simulated:
        yield (_SIMULATION,)
    if len(source.rounds) < source.study.training.rounds:
        yield (_UNFINISHED,)
    said = yaml.safe_load(source.roster.read_text("utf-8")) if source.roster.exists() else {}
    if str(said.get("note", "")).startswith(_DEMO):
        yield (Figure(said["note"], said["note"], f"{ROSTER} note"),)
    yield from ((notice,) for notice in source.notices() if is_grave(notice.text))


def _keys(source: Source) -> Iterator[tuple[str, Text]]:
    """What somebody wants to know who reads nothing else."""
    if source.last is not None:
        yield "F1 of the shared model", (source.lines.figure(source.last, "f1", score),)
    yield from _gains(source)
    if source.protected:
        at = f"protection {source.protected[0]} epsilon"
        yield "epsilon of the study", (source.of_start(at, significant),)
    else:
        yield "differential privacy", ("none",)
    yield "rounds", (source.lines.count("round"), " of ", source.of_study("training rounds"))
    if source.rounds:
        yield "time of all rounds", (source.lines.total("round", "seconds", duration),)
        yield "sent to the coordinator", (source.lines.total("round", "bytes_up", size),)


def _gains(source: Source) -> Iterator[tuple[str, Text]]:
    """Over the best of those who trained alone: the least that federation gave."""
    alone = [n for n in source.baselines if source.lines.value(n, "trained_by") != "pooled"]
    if alone and source.shared is not None:
        path = f"entities {MICRO} f1"
        best = max(alone, key=lambda number: source.lines.value(number, path))
        gained = source.lines.difference((source.shared, path), (best, path), gain)
        yield "F1 above the best alone", (gained,)


def _again(source: Source) -> Section:
    """Hashes, version, and the study file, whole."""
    facts: tuple[Text, ...] = (
        ("fedner ", source.of_start("version")),
        ("study ", source.of_start("study_sha256")),
        ("base weights ", source.of_study("encoder weights_sha256")),
        (_AGAIN_SIMULATED if source.is_simulated else _AGAIN_REAL,),
    )
    return Section(name="again", title="How to do it again", points=facts, quoted=source.study_text)
