"""A federation's folder as `fedner server` uses it: opened and checked before anything starts.

    federation.yaml  register.json  nodes/  server/      as `fedner provision` and `enrol` made them
    coordinator/  roster.yaml                            used unless told otherwise

Guarantee: what is wrong with certificates, keys or register is said before a socket is opened.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.config.deployment import Deployment, parse_deployment
from common.config.study import Study
from common.errors import ConfigError, FederationError, IdentityError
from common.identity.enrolment import Register
from common.io.certificate_files import SERVER, expiry_notices, require_server
from common.io.configs import read_config
from common.io.register_file import read_register

DEPLOYMENT: Final = "federation.yaml"
COORDINATOR: Final = "coordinator"
ROSTER: Final = "roster.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A folder that a server can start with.

    Attributes:
        root: absolute.
        demo: one machine made all keys.
        notices: what a person should read.
    """

    root: Path
    deployment: Deployment
    demo: bool
    notices: tuple[str, ...]

    @classmethod
    def open(cls, root: Path, study: Study, now: datetime.datetime) -> "Federation":
        """Look at all that a server for this study needs.

        Raises:
            ConfigError: `federation.yaml` is missing or wrong.
            IdentityError: register, certificates or keys are missing, wrong or expired.
            FederationError: fewer institutions of the study are enrolled than it requires.
        """
        root = root.absolute()
        deployment, register = _deployment(root), read_register(root)
        if register.federation != deployment.federation:
            raise IdentityError(
                f"is of the federation {deployment.federation}, the register beside it of "
                f"{register.federation}",
                place=str(root / DEPLOYMENT),
                remedy="put the file back that `fedner provision` wrote",
            )
        require_server(root / SERVER, deployment.server.hosts, now)
        notices = (*_absences(study, register, root), *expiry_notices(root / SERVER, now))
        return cls(root=root, deployment=deployment, demo=register.demo, notices=notices)

    @property
    def coordinator(self) -> Path:
        """Folder of the coordinator's identity."""
        return self.root / COORDINATOR

    @property
    def roster(self) -> Path:
        """File; there once every institution is enrolled."""
        return self.root / ROSTER


def _deployment(root: Path) -> Deployment:
    path = root / DEPLOYMENT
    if not path.is_file():
        raise ConfigError(
            "is not there",
            place=str(path),
            remedy="give the folder that `fedner provision` made; `fedner provision "
            "FEDERATION.yaml --out FOLDER --renew` writes this file anew",
        )
    return parse_deployment(read_config(path), str(path))


def _absences(study: Study, register: Register, root: Path) -> Iterator[str]:
    names, approved = study.federation.institutions, register.approved
    missing = ", ".join(name for name in names if name not in approved)
    if not missing:
        return
    enrolled = sum(name in approved for name in names)
    required = study.federation.required
    said = f"not enrolled: {missing}; {enrolled} are, the study requires {required}"
    if enrolled < required:
        remedy = "`fedner enrol approve` their requests; `fedner enrol list` shows who is enrolled"
        raise FederationError(said, place=str(root), remedy=remedy)
    yield said
