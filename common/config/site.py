"""The site: one institution's own file. It never leaves the institution."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from common.config.data import STRICT, Data
from common.config.study import NAME_PATTERN


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Policy:
    """What this institution refuses, whatever a study asks.

    Attributes:
        study_sha256: the one study hash this site takes part in; the hash of its own study file
            if absent.
        accept_privacy_none: whether updates may leave without differential privacy.
        accept_secure_aggregation_none: whether the coordinator may see this site's own update.
        accept_one_user: whether worker and relay may run as one OS user: development only.
    """

    study_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    accept_privacy_none: bool = False
    accept_secure_aggregation_none: bool = False
    accept_one_user: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Site:
    """One institution.

    Attributes:
        institution: its name on the study's roster.
        study: path of the site's own, approved copy of the study file.
        data: its documents.
        coordinator: `host:port` of the coordinator. Without TLS only a loopback address is
            accepted.
        state: folder for socket, logs and Flower's own state; made with mode 0700.
        device: `auto` takes CUDA when there is one.
        threads: CPU threads of the worker; all cores if absent.
        policy: what it refuses.
    """

    institution: str = Field(pattern=NAME_PATTERN)
    study: str = Field(min_length=1)
    data: Data
    coordinator: str = Field(pattern=r"^[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}$")
    state: str = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    policy: Policy = Field(default_factory=Policy)
