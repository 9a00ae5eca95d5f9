"""The audit log's own errors."""

from common.errors import FederationError, StorageError


class AuditError(FederationError):
    """The audit log is not what it was, is in use, or can't be written."""

    exit_code = 11


class AuditStorageError(AuditError):
    """The disk does not take or give the audit log: like `common.errors.StorageError`, it passes.

    So `fedner client` starts a worker again after it, and the worker works once it can log.
    """

    exit_code = StorageError.exit_code
