"""A run while it goes on, as the coordinator sees it: sums, never one institution's scores."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from common.io.disk import is_locked
from scripts.highlight import visible
from scripts.live.lines import run_line
from scripts.live.parts import about, bar, f1_trends, framed, heading, plain
from scripts.live.run_state import RunState
from scripts.live.tail import Tail, unread
from scripts.reporting.figures import duration, size
from scripts.stages import STAGES
from server.origin import COORDINATOR_LOCK, MODEL, ORIGIN, SERVER_LOCK
from server.progress import AWAIT, Moment, read_moment
from server.run_dir import METRICS, RunDir

_ENDED: Final = frozenset({"finished", "failed", "lost"})
_AGAINST: Final = {
    "none": "none; the coordinator sees each institution's own update",
    "semi_honest": "sums alone are seen, if the coordinator keeps to the protocol",
    "malicious": "sums alone are seen, even by a coordinator that lies",
}
_INTERRUPTED: Final = "interrupted"
_LOCKS: Final = (COORDINATOR_LOCK, SERVER_LOCK)
_PLAIN: Final = {"train": "training", "evaluate": "evaluation", AWAIT: "waits for institutions"}
_COUNTED: Final = {**STAGES, "mask": "evaluation and masked counts"}
_WORKING: Final = frozenset({"train", "evaluate", "mask"})


class RunView:
    """Reads the run's folder again whenever it is drawn; drawn from one thread.

    Args:
        clock: the present, in UTC.
    """

    def __init__(self, run: RunDir, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._run, self._clock = run, clock
        self.metrics = run.path / METRICS
        self._tail = Tail(self.metrics)
        self.state = RunState(run.study())
        self._steps: dict[str, tuple[int, int]] = {}
        self._unread = 0

    line = staticmethod(run_line)

    def read(self) -> list[dict[str, Any]]:
        """Take what is new in the metrics, and give it."""
        events = self._tail.new()
        self._unread += unread(events, self.state.take)
        return events

    def step(self, name: str, done: int, of: int) -> None:
        """In a simulation, which knows it: steps of an institution's training."""
        self._steps[name] = done, of

    @property
    def is_over(self) -> bool:
        """Whether the run has come to an end, whatever end."""
        return self._status()["state"] in _ENDED

    @property
    def trouble(self) -> str:
        """Why it does not go on, though it is not over."""
        said = self._status()
        return said["message"] if said["state"] == _INTERRUPTED else ""

    def __call__(self) -> RenderableType:
        """As it stands."""
        self.read()
        state, status = self.state, self._status()
        over = status["state"] in (*_ENDED, _INTERRUPTED)
        moment = None if over else read_moment(self._run.path)
        parts = (
            self._bar(status["state"], over),
            self._doing(moment, status, over),
            *self._protection(),
            *self._scores(),
            *self._said(),
            heading("institutions"),
            self._institutions(moment),
        )
        down = "not recorded" if state.study.secure is None else size(state.bytes_down)
        foot = f"{size(state.bytes_up)} up, down {down}"
        if self._unread:
            foot += f"; {self._unread} lines of the metrics can't be read"
        return framed(f"{state.study.study}: {self._run.path.name}", parts, foot)

    def _status(self) -> Mapping[str, str]:
        """As the run says; or that who would say so is gone."""
        said = self._run.status()
        if said["state"] == "unknown":  # nothing was begun, or it is of `fedner train`
            trained = (self._run.path / MODEL).exists()
            return {"state": "finished", "message": ""} if trained else said
        if said["state"] in _ENDED or any(is_locked(self._run.path / lock) for lock in _LOCKS):
            return said
        message = "no coordinator is at work on it"
        if (self._run.path / ORIGIN).exists():
            message += f": fedner server --resume {self._run.path}"
        return {"state": _INTERRUPTED, "message": message}

    def _bar(self, status: str, over: bool) -> Table:
        state, of = self.state, self.state.study.training.rounds
        words = f"round {state.round} of {of}"
        if state.started is not None:
            end = state.last if over and state.last else self._clock()
            words += f", after {duration((end - state.started).total_seconds())}"
        words += f", {status}" if over else f", {about(state.seconds_left)}"
        return bar(state.round, of, words)

    def _doing(self, moment: Moment | None, status: Mapping[str, str], over: bool) -> Text | None:
        if over:
            said = visible(status["message"])
            return Text(said, style="bold red") if said else None
        if moment is None:
            return Text("starts")
        words = (_COUNTED if moment.purpose == "evaluate" else STAGES) | _PLAIN
        waited = duration(max(0.0, self._clock().timestamp() - moment.since))
        line = f"round {moment.round}: " if moment.round else ""
        line += words.get(moment.stage, moment.stage)
        if moment.asked:
            line += f", {len(moment.answered)} of {len(moment.asked)} answered"
        return Text(f"{line}, for {waited}")

    def _protection(self) -> Iterator[Text]:
        """What protects, and what does not, in the same place always."""
        state = self.state
        if state.study.local_privacy is None:
            yield Text("privacy: none; updates leave without clipping or noise", style="bold red")
        else:
            yield self._budget()
        adversary = state.study.secure_adversary
        style = "bold red" if adversary == "none" else ""
        yield Text(f"secure aggregation: {_AGAINST[adversary]}", style=style)

    def _budget(self) -> Text:
        said = self.state.protection
        if said is None:
            return Text("privacy: local, at each institution; its figures come with the start")
        spent = 0.0 if self.state.round == 0 else self.state.epsilon
        so_far = "not told" if spent is None else f"{spent:.4f}"
        text = Text(
            f"privacy: epsilon {so_far} by plan so far, of {said['epsilon']:.4f} at delta "
            f"{said['delta']:g}, for each {said['unit']}"
        )
        if said["insecure_seed"]:
            text.append("; INSECURE SEED: nothing of it holds", style="bold red")
        return text

    def _institutions(self, moment: Moment | None) -> Table:
        refused = any(one.refusals for one in self.state.institutions.values())
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        for head in ("", "state", "now"):
            table.add_column(head)
        table.add_column("in rounds", justify="right")
        for head in ("refusals", "last refusal") if refused else ():
            table.add_column(head)
        for name, one in self.state.institutions.items():
            style = "" if one.state in {"joined", "back", ""} else "red"
            state = Text(visible(one.state) or "not here yet", style=style)
            more = (str(one.refusals), plain(one.last_refusal)) if refused else ()
            table.add_row(plain(name), state, self._now(name, moment), str(one.rounds), *more)
        return table

    def _now(self, name: str, moment: Moment | None) -> str:
        if moment is None or name not in moment.asked:
            return ""
        if name in moment.answered:
            return "answered"
        done, of = self._steps.get(name, (0, 0))
        if moment.purpose == "train" and done < of:
            return f"step {done} of {of}"
        return "at work" if moment.stage in _WORKING else "asked"

    def _scores(self) -> Iterator[RenderableType]:
        state = self.state
        if not state.f1s:
            return
        counts = "noised counts" if state.noised else "exact counts"
        yield heading(f"shared model on all held-out documents ({counts})")
        yield f1_trends(state.label_f1s, state.f1s)

    def _said(self) -> Iterator[RenderableType]:
        if self.state.said:
            yield heading("last events")
            yield plain("\n".join(self.state.said))
