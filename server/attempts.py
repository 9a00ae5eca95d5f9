"""Which attempts at a sum were begun, and for which sums vectors were asked: kept over a crash.

    attempts.json   {purpose: {round: {"attempts": how many were begun, "asked": true or false}}}

Guarantees:
    * When `begin` returns, the attempt is on disk, so after a crash no invitation leaves under a
      number that an institution has seen: it would be refused as stale.
    * When `ask` returns, it is on disk that vectors of this sum may have left an institution.
    * A file that can't be read is refused, never begun anew.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError
from common.io.disk import DISK, replace_file
from common.secagg.session import PURPOSES, Purpose

ATTEMPTS_FILE: Final = "attempts.json"

Sum = tuple[Purpose, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """Of one sum: attempts begun, and whether an instruction was sent in any."""

    attempts: int = 0
    asked: bool = False

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 0 or type(self.asked) is not bool:
            raise ValueError("not what was tried")


class Attempts:
    """What one run tried.

    Args:
        path: of the file; without one, nothing outlives this object.

    Raises:
        FederationError: the file is damaged.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        data = None if path is None else DISK.read(path)
        try:
            self._tried = {} if data is None else _parsed(json.loads(data))
        except (ValueError, TypeError, AttributeError):
            raise FederationError(
                "damaged, so that no attempt can be numbered",
                place=str(path),
                remedy="put the file back as it was, or begin a new study",
            ) from None

    def begin(self, purpose: Purpose, round_: int) -> int:
        """The number of the next attempt, from 1."""
        tried = self._of(purpose, round_)
        self._keep((purpose, round_), replace(tried, attempts=tried.attempts + 1))
        return tried.attempts + 1

    def ask(self, purpose: Purpose, round_: int) -> None:
        """Note that institutions are about to be asked for their vectors."""
        tried = self._of(purpose, round_)
        if not tried.asked:
            self._keep((purpose, round_), replace(tried, asked=True))

    def asked(self, purpose: Purpose, round_: int) -> bool:
        """Whether they ever were."""
        return self._of(purpose, round_).asked

    def _of(self, purpose: Purpose, round_: int) -> Tried:
        return self._tried.get((purpose, round_), Tried())

    def _keep(self, which: Sum, tried: Tried) -> None:
        following = {**self._tried, which: tried}
        if self._path is not None:
            _write(self._path, _text(following))
        self._tried = following


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(DISK, path, data)
    except OSError as error:
        raise FederationError(
            f"can't be written: {error.strerror or type(error).__name__}",
            place=str(path),
            remedy="free some space or mend the disk, then `fedner server --resume`",
        ) from None


def _text(tried: dict[Sum, Tried]) -> bytes:
    content: dict[str, dict[str, Any]] = {}
    for (purpose, round_), one in sorted(tried.items()):
        content.setdefault(purpose, {})[str(round_)] = asdict(one)
    return json.dumps(content, indent=1).encode() + b"\n"


def _parsed(content: Any) -> dict[Sum, Tried]:
    if not content.keys() <= set(PURPOSES):
        raise ValueError("unknown purpose")
    return {
        (purpose, int(round_)): Tried(**one)
        for purpose, some in content.items()
        for round_, one in some.items()
    }
