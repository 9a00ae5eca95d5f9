"""The relay's own file: what an institution's outward side knows, where it is another user.

It names no data, no identity and no study. The node key is the one secret that it leads to.
"""

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.config.site import ADDRESS_PATTERN, START_LIMIT_S, require_both_or_neither
from common.config.study import NAME_PATTERN


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RelaySite:
    """One institution's outward side.

    Attributes:
        institution: its name on the study's roster.
        coordinator: `host:port` of the coordinator. Without `authority` and `node` only a
            loopback address is accepted.
        socket: the worker's, as the site file's `socket` says.
        state: the relay's own folder for logs and Flower's state; made with mode 0700.
        authority: certificate of the authority that vouches for the server: TLS, and nothing else.
        node: folder of the node key that the coordinator has registered. Both, or neither.
        start_limit_s: seconds for which the relay's side waits, when it starts, until the worker
            listens; it says each minute that it waits.
    """

    institution: str = Field(pattern=NAME_PATTERN)
    coordinator: str = Field(pattern=ADDRESS_PATTERN)
    socket: str = Field(min_length=1)
    state: str = Field(min_length=1)
    authority: str | None = Field(default=None, min_length=1)
    node: str | None = Field(default=None, min_length=1)
    start_limit_s: float = Field(default=START_LIMIT_S, gt=0)

    @model_validator(mode="after")
    def _both_or_neither(self) -> "RelaySite":
        require_both_or_neither(self.authority, self.node)
        return self
