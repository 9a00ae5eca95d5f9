"""What a site's worker can see for itself: clock, users, its own code, sign-offs, ledger."""

import datetime
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import client
import common
from client.site_paths import SitePaths
from common.config.site import Site
from common.errors import DataError
from common.identity.sign_off import SignOff
from common.io.code_hash import code_sha256
from common.io.ledger_folder import read_state
from common.io.sign_offs import read_sign_offs
from common.io.withdrawn_file import reader_of
from common.policy import Asked, Facts
from common.privacy.events import Unit
from common.privacy.ledger_spend import lifetime_epsilon

log = logging.getLogger("fedner.worker")

Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The machine's clock."""
    return datetime.datetime.now(datetime.UTC)


def installed_code() -> str:
    """Hash of the sources of `client` and `common`: all of fedner that runs at an institution."""
    return code_sha256(Path(str(package.__file__)).parent for package in (client, common))


class Witness:
    """Of one site. Sign-offs are read anew each time; the code is that of this object's making.

    Args:
        base: folder of the site file, at which relative paths start.

    Raises:
        ConfigError: the installed code can't be read.
    """

    def __init__(self, site: Site, base: Path, clock: Clock = utc_now):
        self._site, self._base, self._clock = site, base, clock
        self._code = installed_code()

    def __call__(self, asked: Asked) -> Facts:
        """What is so now."""
        return Facts(
            asked=asked,
            now=self._clock(),
            users="one" if self._site.relay_group is None else "apart",
            code_sha256=self._code,
            sign_offs=self._sign_offs() if self._site.policy.sign_offs else (),
        )

    def at_start(self) -> Facts:
        """The same, with what only a start shows: ledger, and whether the list can be read.

        Raises:
            BudgetError: the ledger can't be trusted.
        """
        return replace(self("start"), spent=self._spent(), exclude_problem=self._list_problem())

    def _sign_offs(self) -> tuple[SignOff, ...]:
        found, problems = read_sign_offs(self._base / str(self._site.sign_offs))
        for problem in problems:
            log.warning("sign-offs: %s", problem)
        return found

    def _spent(self) -> dict[Unit, float]:
        capped = [b for b in self._site.policy.budget if b.epsilon_lifetime is not None]
        if not capped:
            return {}
        found, _ = read_state(SitePaths.of(self._site, self._base).ledger, self._site.institution)
        if found.state is None:
            return {}
        return {b.unit: lifetime_epsilon(found.state, b.unit, b.delta) for b in capped}

    def _list_problem(self) -> str:
        read = reader_of(self._site, self._base)
        try:
            if read is not None:
                read()
        except DataError as error:
            return str(error)
        return ""
