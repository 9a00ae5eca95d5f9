"""An institution's session behind one object, so that no state answers two messages.

The functions of `common.secagg.institution` leave it to the caller to go on with the new state.
This object does; a driver holds one for each session that is alive, and two at once where the next
session's keys travel ahead.
"""

from collections.abc import Callable, Mapping

from common.secagg import institution
from common.secagg.errors import SecaggError
from common.secagg.pipeline import Levels
from common.secagg.session import Party, Purpose
from common.secagg.states import Idle, State, Step
from common.secagg.transitions import Stage


class Machine:
    """One session of one institution.

    A driver makes `Step.durable` durable before it sends `Step.reply`, and where that fails, sends
    nothing: the same request gets the same reply later.

    Args:
        party: the institution.
        newest: by purpose, (round, attempt) of the newest session ever begun.
        random: secret uniform bytes of the operating system.
    """

    __slots__ = ("_random", "_state")

    def __init__(
        self,
        party: Party,
        newest: Mapping[Purpose, tuple[int, int]],
        random: Callable[[int], bytes],
    ):
        self._state: State = Idle(party=party, newest=dict(newest))
        self._random = random

    @property
    def stage(self) -> Stage:
        """What was done last."""
        return self._state.stage

    def receive(self, message: bytes) -> Step:
        """Answer a message; arguments and errors are those of `institution.receive`."""
        random = self._random(institution.random_bytes(self._state))
        return self._kept(institution.receive(self._state, message, random))

    def complaint(self, error: SecaggError) -> bytes:
        """What to send for a refusal of `receive`; see `institution.complaint`."""
        return institution.complaint(self._state, error)

    def submit(self, levels: Levels, threads: int = 1) -> Step:
        """Mask the vector asked for; arguments and errors are those of `institution.submit`."""
        return self._kept(institution.submit(self._state, levels, threads))

    def abort(self, reason: str) -> Step:
        """Give the session up for a reason of the institution's own."""
        return self._kept(institution.abort(self._state, reason))

    def _kept(self, step: Step) -> Step:
        self._state = step.state
        return step
