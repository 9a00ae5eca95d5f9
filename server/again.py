"""Over whom a sum of noised vectors is tried again, once it may have been opened.

An institution that has given shares to open a sum (on a ring: that has signed for it) takes part in
another sum of the same vectors over exactly the same institutions only: `common.secagg.institution`
holds that. It does not say beforehand whether it has. So the coordinator notes over whom before it
asks for the first thing that binds, and tries again over exactly these.

| adversary     | all are neighbours | ring         | first request that binds |
|---------------|--------------------|--------------|--------------------------|
| `malicious`   | `open`             | `sign`       | see `binds_at`           |
| `semi_honest` | `open`             | `open`       | it has no `sign`         |

A set is noted just before the first request that binds is sent to a node, with that request in the
audit log already: not where nobody can be reached, or the log can't be written. It may be noted
though nobody was bound only if, in that very moment, the coordinator died or lost its SuperLink, or
if no node came to fetch the request.
Where the set stays incomplete, others may be asked (`Again.others_may`) only if that can't make
things worse: `malicious`, all neighbours. There a signature binds nobody, and whoever is bound to
the old set refuses to sign for a new one. Shares are asked for when a threshold has signed; then
fewer than a threshold of honest institutions ever gave shares over the old set, as `2 t > n + h`:
it was not opened. Elsewhere the first who answer would be bound to the new set, the others to the
old one, and neither could ever be opened.

Guarantees:
    * What binds is asked for only when it is on disk over whom.
    * A set is noted for noised vectors alone: others are given once, whatever is noted.
    * Whatever is tried here, it is the institutions that keep two sums apart, not the coordinator.
"""

from collections.abc import Mapping

from common.errors import FederationError
from common.secagg.params import Parameters
from common.secagg.session import Context, Purpose
from common.secagg.transitions import Phase
from server.attempts import ATTEMPTS_FILE, Attempts


def binds_at(parameters: Parameters) -> Phase:
    """Where the first request is sent after which an institution takes part over one set only."""
    signs = parameters.adversary == "malicious" and parameters.degree is not None
    return Phase.SIGNATURES if signs else Phase.OPENINGS


class Again:
    """What binds the noised sums of one run.

    Args:
        attempts: kept over a restart.
        noised: purposes whose vectors are given again.
    """

    def __init__(
        self,
        attempts: Attempts,
        contexts: Mapping[Purpose, Context],
        noised: frozenset[Purpose],
    ):
        self._attempts, self._noised = attempts, noised
        self._parameters = {purpose: one.parameters for purpose, one in contexts.items()}

    def over(self, purpose: Purpose, round_: int) -> tuple[str, ...]:
        """Names of those over whom alone the sum is tried again; empty if over whoever is there.

        Raises:
            FederationError: what was noted is not of this study.
        """
        over = self._attempts.over(purpose, round_) if purpose in self._noised else ()
        if strangers := sorted(set(over) - set(self._parameters[purpose].institutions)):
            raise FederationError(
                f"{purpose} of round {round_} over institutions that this study has not: "
                f"{', '.join(strangers)}",
                place=ATTEMPTS_FILE,
                remedy="put the file back as it was, or begin a new study",
            )
        return over

    def note(self, purpose: Purpose, round_: int, phase: Phase, over: tuple[str, ...]) -> None:
        """Before a phase's requests leave: if they bind, put on disk over whom."""
        if purpose in self._noised and phase is binds_at(self._parameters[purpose]):
            self._attempts.bind(purpose, round_, over)

    def others_may(self, purpose: Purpose, round_: int) -> bool:
        """Whether a sum that is bound, perhaps, may be tried over whoever is there."""
        parameters = self._parameters[purpose]
        harmless = parameters.adversary == "malicious" and parameters.degree is None
        return harmless and bool(self.over(purpose, round_))
