"""An institution's part while it goes on: its own loss and scores, on its own side alone."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.config.site import Site
from common.config.study import Study
from common.io.audit_file import LOCK
from common.io.disk import is_locked
from common.io.display_file import read_display
from scripts.live.lines import site_line
from scripts.live.parts import bar, f1_trends, framed, heading, plain, sparkline
from scripts.live.site_state import SiteState
from scripts.live.tail import Tail, unread
from scripts.reporting.figures import duration, size

_DOING: Final = {
    "start": "starts",
    "": "waits for the coordinator",
    "hello": "says who it is",
    "train": "trains",
    "evaluate": "evaluates the shared model",
    "sum": "takes part in the secure sum",
}


class SiteView:
    """Reads the site's state again whenever it is drawn.

    Args:
        base: folder of the site file.
        clock: the present, in UTC.
    """

    def __init__(
        self,
        site: Site,
        study: Study,
        base: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self._name, self._clock = site.institution, clock
        self._paths = SitePaths.of(site, base)
        self.metrics = self._paths.metrics(study_hash(study))
        self._tail = Tail(self.metrics)
        self._progress = self._paths.progress(study_hash(study))
        self.state = SiteState(study)
        self._unread = 0

    is_over = False
    """A worker waits for the coordinator until it is stopped."""
    line = staticmethod(site_line)

    @property
    def trouble(self) -> str:
        """That nobody is at work."""
        return "" if is_locked(self._paths.state / LOCK) else "the worker does not run"

    def read(self) -> list[dict[str, Any]]:
        """Take what is new in the site's figures, and give it."""
        events = self._tail.new()
        self._unread += unread(events, self.state.take)
        return events

    def __call__(self) -> RenderableType:
        """As it stands."""
        self.read()
        state, doing = self.state, read_display(self._progress) or {}
        of = state.study.training.rounds
        parts = (
            bar(state.rounds, of, f"round {state.rounds} of {of}"),
            Text(self.trouble or self._doing(doing), style="bold red" if self.trouble else ""),
            Text(self._documents()),
            self._budget(),
            *self._scores(),
            *_refusals(doing),
        )
        foot = f"{size(state.bytes_up)} up, {size(state.bytes_down)} down; stays at this site"
        if self._unread:
            foot += f"; {self._unread} lines can't be read"
        return framed(f"{self._name}: {state.study.study}", parts, foot)

    def _doing(self, doing: Mapping[str, Any]) -> str:
        if not doing:
            return "nothing is known of what the worker does"
        waited = duration(max(0.0, self._clock().timestamp() - doing["since"]))
        words = _DOING.get(doing["asked"], doing["asked"])
        if doing["asked"] and doing["round"]:
            words = f"round {doing['round']}: {words}"
        if doing["asked"] == "train" and doing["steps"]:
            words += f", step {doing['step']} of {doing['steps']}"
        return f"{words}, for {waited}"

    def _documents(self) -> str:
        if not self.state.starts:
            return "the worker has not been started yet"
        train, test = self.state.train_documents, self.state.held_out_documents
        return f"{train} documents to train on, {test} held out"

    def _budget(self) -> Text:
        state = self.state
        if state.study.local_privacy is None:
            return Text("privacy: none; updates leave without clipping or noise", style="bold red")
        if state.planned is None:
            return Text("privacy: known once the worker has started")
        so_far = "not told" if state.spent is None else f"{state.spent:.4f}"
        return Text(
            f"privacy: epsilon {so_far} spent by this site's ledger, of "
            f"{state.planned:.4f} at delta {state.delta:g}, for each {state.unit}"
        )

    def _scores(self) -> Iterator[RenderableType]:
        state = self.state
        if state.losses:
            last = max(state.losses)
            values = [state.losses[r] for r in sorted(state.losses)]
            yield Text(f"own loss per word {state.losses[last]:.4f}  {sparkline(values)}")
        elif state.rounds and state.study.local_privacy is not None:
            yield Text("own loss: none, training under a mechanism tells no loss")
        if state.f1s and all(state.label_f1s.values()):
            yield heading("shared model on this site's own held-out documents (exact)")
            yield f1_trends(state.label_f1s, state.f1s)


def _refusals(doing: Mapping[str, Any]) -> Iterator[RenderableType]:
    refused = doing.get("refused")
    if refused:
        counts = ", ".join(f"{code} {n}" for code, n in sorted(refused.items()))
        yield heading("refused since the worker's start")
        yield plain(f"{counts}\nlast: {doing['last_refusal']}")
