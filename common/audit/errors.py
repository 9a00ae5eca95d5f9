"""The audit log's own error."""

from common.errors import FederationError


class AuditError(FederationError):
    """The audit log can't be written, is in use, or is not what it was.

    Not among the codes after which `fedner client` gives up: a worker whose disk was full is
    started again, and works once it can log.
    """

    exit_code = 11
