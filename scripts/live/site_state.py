"""An institution's part in a study, as its own figures tell it: the latest run's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.config.study import Study


@dataclass(slots=True)
class SiteState:
    """What is shown at an institution.

    Attributes:
        losses: mean loss per word by round; none under a mechanism, which tells none.
        f1s: micro F1 of the shared model on this site's own held-out documents, by round.
        planned: epsilon of the whole study; `spent` by this site's ledger; both of a mechanism.
    """

    study: Study
    train_documents: int = 0
    held_out_documents: int = 0
    starts: int = 0
    rounds: int = 0
    losses: dict[int, float] = field(default_factory=dict)
    f1s: dict[int, float] = field(default_factory=dict)
    label_f1s: dict[str, dict[int, float]] = field(default_factory=dict)
    unit: str = ""
    delta: float | None = None
    planned: float | None = None
    spent: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0

    def take(self, event: Mapping[str, Any]) -> None:
        """One line more."""
        handle = getattr(self, f"_on_{event['event']}", None)
        if handle is not None:
            handle(event)

    def _on_start(self, event: Mapping[str, Any]) -> None:
        self.starts += 1
        self.train_documents = event["train_documents"]
        self.held_out_documents = event["held_out_documents"]
        self.unit, self.delta = event.get("unit", ""), event.get("delta")
        self.planned = event.get("epsilon_planned")
        self.spent = event.get("epsilon", self.spent)

    def _on_train(self, event: Mapping[str, Any]) -> None:
        begin_again(event["round"], self.losses)
        self.losses[event["round"]] = event["loss"]

    def _on_evaluate(self, event: Mapping[str, Any]) -> None:
        found = {label: event["entities"][label]["f1"] for label in self.study.task.labels}
        begin_again(event["round"], self.f1s, *self.label_f1s.values())
        self.f1s[event["round"]] = event["f1"]
        for label, value in found.items():
            self.label_f1s.setdefault(label, {})[event["round"]] = value

    def _on_reply(self, event: Mapping[str, Any]) -> None:
        if event["asked"] == "train":
            self.rounds = event["round"]
        self.bytes_up += event["bytes_up"]
        self.bytes_down += event["bytes_down"]
        self.spent = event.get("epsilon", self.spent)


def begin_again(round_: int, *by_round: dict[int, float]) -> None:
    """A lower round than the last one of its kind: the study was begun again."""
    if by_round[0] and round_ < max(by_round[0]):
        for one in by_round:
            one.clear()
