"""Where the coordinator's key and roster lie, told by `fedner server` to Flower's process.

The run's folder gets paths of the key and its passphrase, which stay where they are, and a copy of
the roster: that of the federation's folder is withdrawn when an institution is revoked, and the run
goes on under the one it began with, whose hash `server.origin` holds.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from common.config.study import Study
from common.errors import FederationError
from common.io.atomic import write_bytes, write_json
from common.io.identity_files import os_errors, read_passphrase
from common.io.standing import Standing, coordinator_standing
from server.run_dir import RunDir

WHEREABOUTS: Final = "standing.json"
ROSTER: Final = "roster.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Absolute paths.

    Attributes:
        identity: folder.
        roster: file.
        passphrase_file: of the identity; empty for one without a passphrase.
    """

    identity: str
    roster: str
    passphrase_file: str = ""

    @classmethod
    def of(cls, identity: Path, roster: Path, passphrase_file: Path | None) -> "Whereabouts":
        """Of paths as they were given."""
        words = "" if passphrase_file is None else str(passphrase_file.absolute())
        return cls(
            identity=str(identity.absolute()), roster=str(roster.absolute()), passphrase_file=words
        )

    def open(self, study: Study) -> Standing:
        """The coordinator's key, on its roster.

        Raises:
            IdentityError, ConfigError: as `coordinator_standing`.
        """
        words = read_passphrase(Path(self.passphrase_file)) if self.passphrase_file else None
        return coordinator_standing(Path(self.identity), words, Path(self.roster), study)

    def save(self, run: RunDir) -> None:
        """Keep them in the run's folder, with the roster's copy in place of the roster.

        Raises:
            IdentityError: the roster can't be read.
        """
        kept = (run.path / ROSTER).absolute()
        with os_errors(Path(self.roster)):
            data = Path(self.roster).read_bytes()
        write_bytes(kept, data)
        write_json(run.path / WHEREABOUTS, asdict(replace(self, roster=str(kept))))


def standing_of(run: RunDir) -> Standing | None:
    """The coordinator's standing in a run; none where none was kept.

    Raises:
        FederationError: what was kept is damaged.
        IdentityError, ConfigError: as `coordinator_standing`.
    """
    path = run.path / WHEREABOUTS
    if not path.exists():
        return None
    try:
        kept = Whereabouts(**json.loads(path.read_text("utf-8")))
        Path(kept.identity), Path(kept.roster), Path(kept.passphrase_file)
    except (ValueError, TypeError):
        raise FederationError(
            "is damaged: expected where identity, roster and passphrase file lie, as JSON",
            place=str(path),
            remedy="put it back from a copy of the run's folder",
        ) from None
    return kept.open(run.study())
