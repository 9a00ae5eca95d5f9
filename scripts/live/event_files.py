"""TensorBoard's event files of a run's metrics, or of an institution's own figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from common.errors import UsageError
from scripts.live.run_state import time_of
from scripts.live.tail import Tail

Scalars = Iterator[tuple[str, float]]


class EventFiles:
    """One folder of them. Steps are rounds; times are those of the lines.

    Args:
        folder: to write to.
        metrics: the `metrics.jsonl` that is read.
    """

    def __init__(self, folder: Path, metrics: Path):
        self._writer = SummaryWriter(str(folder))
        self._tail = Tail(metrics)

    @classmethod
    def create(cls, folder: Path, metrics: Path) -> "EventFiles":
        """In a new folder: in one that has some, points would be there twice.

        Raises:
            UsageError: it is there already, or can't be made.
        """
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise UsageError(
                f"the folder for the event files can't be made: {error.strerror}",
                place=str(folder),
                remedy="name one that is not there yet",
            ) from None
        return cls(folder, metrics)

    def take_new(self) -> None:
        """Write what came since, and flush it."""
        for event in self._tail.new():
            time = time_of(event)
            seconds = None if time is None else time.timestamp()
            for name, value in scalars(event):
                self._writer.add_scalar(name, value, event["round"], walltime=seconds)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def scalars(event: Mapping[str, Any]) -> Scalars:
    """What is plotted of a line, with the name of its plot."""
    match event["event"]:
        case "round":
            yield from _given(event, "round", ("seconds", "bytes_up", "epsilon"))
            yield "round/institutions", len(event["institutions"])
            for stage, seconds in event.get("sum", {}).get("stage_seconds", {}).items():
                yield f"stage_seconds/{stage}", seconds
        case "evaluation":
            yield from _scores(event, "shared")
        case "train":
            yield "own/loss", event["loss"]
        case "evaluate":
            yield from _scores(event, "own")
        case "reply":
            yield from _given(event, f"own_{event['asked']}", ("seconds", "bytes_up"))
            yield from _given(event, "own", ("epsilon",))


def _given(event: Mapping[str, Any], group: str, names: tuple[str, ...]) -> Scalars:
    for name in names:
        if name in event:
            yield f"{group}/{name}", event[name]


def _scores(event: Mapping[str, Any], whose: str) -> Scalars:
    yield f"{whose}/f1", event["f1"]
    for label, scores in event["entities"].items():
        for name in ("precision", "recall", "f1"):
            yield f"{whose}_{label}/{name}", scores[name]
