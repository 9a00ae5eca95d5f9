"""Whether the site takes part in what is asked, by its policy and by who has withdrawn until now.

Guarantees:
    * The policy is decided anew for each request that is not answered from memory (the same bytes
      as before), with the facts of that moment.
    * Who has withdrawn is read anew before each request that touches data, and taken out before it
      is answered. A list that is missing, unreadable or malformed refuses that request.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from client.work import Party, Work
from common.config.study import Study
from common.data.withdrawn import Withdrawn
from common.errors import DataError
from common.io.withdrawn_file import ReadWithdrawn
from common.policy import WORK, Asked, Facts, decide
from common.wire import Kind, Refusal

log = logging.getLogger("fedner.worker")

Witness = Callable[[Asked], Facts]
"""Sees what is so at this moment, for what is asked."""


class Denied(Exception):  # noqa: N818 - a decision, not a fault
    """A request is refused. `why` stays at the site."""

    def __init__(self, code: Refusal, why: str):
        super().__init__(why)
        self.code, self.why = code, why


class Consent:
    """One institution's, in one study.

    Args:
        read_withdrawn: reads who has withdrawn; absent if the site has no such list.

    Raises:
        DataError: who has withdrawn can't be read.
    """

    def __init__(
        self,
        study: Study,
        party: Party,
        work: Work,
        witness: Witness,
        read_withdrawn: ReadWithdrawn | None,
    ):
        self._study, self._policy, self._name = study, party.policy, party.name
        self._work, self._witness, self._read = work, witness, read_withdrawn
        if read_withdrawn is not None:
            self._begin(read_withdrawn())

    def require(self, asked: Kind) -> None:
        """Return if the site takes part; who has withdrawn is then no part of its data.

        Raises:
            Denied: the policy does not allow it.
        """
        facts, withdrawn = self._witness(asked), None
        if self._read is not None and asked in WORK:
            facts, withdrawn = self._with_withdrawn(facts, self._read)
        decision = decide(self._study, self._policy, self._name, facts)
        if not decision.allowed:
            raise Denied(Refusal.POLICY, str(decision))
        if withdrawn is not None:
            self._work.withdraw(withdrawn)

    def _with_withdrawn(self, facts: Facts, read: ReadWithdrawn) -> tuple[Facts, Withdrawn | None]:
        try:
            withdrawn = read()
        except DataError as error:
            return replace(facts, exclude_problem=str(error)), None
        return replace(facts, exclude_unknown=self._work.unknown(withdrawn)), withdrawn

    def _begin(self, withdrawn: Withdrawn) -> None:
        unknown = self._work.unknown(withdrawn)
        log.info("withdrawn: %d ids are listed, %d of no document here", len(withdrawn), unknown)
        self._work.withdraw(withdrawn)
