"""How long a secure sum waits for enough institutions to be there, and between its attempts.

Guarantees:
    * No attempt begins while fewer institutions can be reached than a sum takes: who comes back
      within the limit costs no attempt.
    * The wait ends with the limit, and says who is missing.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from common.secagg.errors import BelowCohortError

log = logging.getLogger("fedner.server")

_PAUSES: Final = 10
"""Pauses that fit into one wait."""
_LONGEST_PAUSE_S: Final = 5.0

Present = Callable[[], Collection[str]]
"""Names of the institutions that can be reached now."""


class AbsentError(BelowCohortError):
    """Too few institutions could be reached for as long as the study waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What an absence may last.

    Attributes:
        limit_s: longest wait for enough institutions; 0: who is not there when asked is missed.
        poll_s: between two looks.
        sleep, clock: of this process, unless a test has its own.
    """

    limit_s: float = 0.0
    poll_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def pause(self) -> None:
        """Before another attempt, so that what broke the last one has a moment to mend."""
        self.sleep(min(_LONGEST_PAUSE_S, self.limit_s / _PAUSES))

    def await_enough(
        self, what: str, institutions: Sequence[str], needed: int, present: Present
    ) -> None:
        """Return as soon as so many institutions can be reached.

        Args:
            what: the sum, for the log.

        Raises:
            AbsentError: they could not within `limit_s`.
        """
        started, told = self.clock(), False
        while missing := self._too_few(institutions, needed, present()):
            waited = self.clock() - started
            here = f"{len(institutions) - len(missing)} of {len(institutions)} institutions"
            rest = f"a sum takes {needed}; missing: {', '.join(missing)}"
            if waited >= self.limit_s:
                raise AbsentError(f"{here} could be reached within {self.limit_s:g} s, {rest}")
            if not told:
                log.warning("%s waits: %s can be reached, %s", what, here, rest)
            told = True
            self.sleep(min(self.poll_s, self.limit_s - waited))
        if told:
            log.info("%s goes on after %.0f s", what, self.clock() - started)

    @staticmethod
    def _too_few(institutions: Sequence[str], needed: int, here: Collection[str]) -> list[str]:
        """Who is missing, if that is too many."""
        missing = [name for name in institutions if name not in here]
        return missing if len(institutions) - len(missing) < needed else []
