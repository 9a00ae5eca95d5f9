"""What was tried of each sum: attempts begun, vectors asked for, a set opened. Kept over a crash.

    attempts.json   {purpose: {round: {"attempts": how many were begun, "asked": true or false,
                                       "over": [name of an institution, ...]}}}

Guarantees:
    * When `begin` returns, the attempt is on disk, so after a crash no invitation leaves under a
      number that an institution has seen: it would be refused as stale.
    * When `ask` returns, it is on disk that vectors of this sum may have left an institution.
    * When `bind` returns, it is on disk over whom this sum may have been opened. The newest such
      set of a sum is kept until one is noted for a later round of its purpose.
    * A file that can't be read is refused, never begun anew.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from common.errors import FederationError
from common.io.disk import DISK, replace_file
from common.secagg.session import PURPOSES, Purpose
from common.sums import Sum
from server.run_dir import written

ATTEMPTS_FILE: Final = "attempts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """Of one sum.

    Attributes:
        attempts: begun.
        asked: whether an instruction was sent in any.
        over: names of those over whom it may have been opened; empty if it can't have been.
    """

    attempts: int = 0
    asked: bool = False
    over: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 0 or type(self.asked) is not bool:
            raise ValueError("not what was tried")
        if len(set(self.over)) < len(self.over) or not all(type(n) is str for n in self.over):
            raise ValueError("not over whom")


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
        self._keep({(purpose, round_): replace(tried, attempts=tried.attempts + 1)})
        return tried.attempts + 1

    def ask(self, purpose: Purpose, round_: int) -> None:
        """Note that institutions are about to be asked for their vectors."""
        tried = self._of(purpose, round_)
        if not tried.asked:
            self._keep({(purpose, round_): replace(tried, asked=True)})

    def asked(self, purpose: Purpose, round_: int) -> bool:
        """Whether they ever were."""
        return self._of(purpose, round_).asked

    def bind(self, purpose: Purpose, round_: int, over: tuple[str, ...]) -> None:
        """Note over whom it is about to be opened; of earlier rounds this is then forgotten."""
        tried = self._of(purpose, round_)
        if tried.over != over:
            past = {
                (p, r): replace(one, over=())
                for (p, r), one in self._tried.items()
                if p == purpose and r < round_
            }
            self._keep({**past, (purpose, round_): replace(tried, over=over)})

    def over(self, purpose: Purpose, round_: int) -> tuple[str, ...]:
        """Over whom it may have been opened; empty if it can't have been."""
        return self._of(purpose, round_).over

    def _of(self, purpose: Purpose, round_: int) -> Tried:
        return self._tried.get((purpose, round_), Tried())

    def _keep(self, changed: Mapping[Sum, Tried]) -> None:
        following = {**self._tried, **changed}
        if self._path is not None:
            _write(self._path, _text(following))
        self._tried = following


def _write(path: Path, data: bytes) -> None:
    with written(path):
        replace_file(DISK, path, data)


def _text(tried: dict[Sum, Tried]) -> bytes:
    content: dict[str, dict[str, Any]] = {}
    for (purpose, round_), one in sorted(tried.items()):
        said = {key: value for key, value in asdict(one).items() if key != "over" or value}
        content.setdefault(purpose, {})[str(round_)] = said
    return json.dumps(content, indent=1).encode() + b"\n"


def _parsed(content: Any) -> dict[Sum, Tried]:
    if not content.keys() <= set(PURPOSES):
        raise ValueError("unknown purpose")
    return {
        (purpose, int(round_)): _one(one)
        for purpose, some in content.items()
        for round_, one in some.items()
    }


def _one(entry: Mapping[str, Any]) -> Tried:
    over = entry.get("over", [])
    if type(over) is not list:
        raise ValueError("not over whom")
    return Tried(**{**entry, "over": tuple(over)})
