"""The one exception tree. Every error names the place, what was expected and the remedy.

    FednerError                exit code
    ├── UsageError             2   the command line was used wrongly
    ├── ConfigError            3   a study or site file
    ├── DataError              4   annotated input
    ├── EncoderError           5   base weights, tokenizer, model folder
    ├── PolicyError            6   the institution's policy says no
    ├── ProtocolError          7   bytes between coordinator, relay and worker
    ├── FederationError        8   a run that could not be carried through
    │   ├── AuditError         11  the audit log is not what it was, or in use; 13 where the disk
    │   │                          fails or is full
    │   └── FlowerEndedError   12  Flower's processes ended before the run: starting again goes on
    ├── BudgetError            9   the privacy budget is spent, or its ledger is not what it was
    │   └── StorageError       13  the disk under a site's state fails or is full: it passes, so
    │                              who starts a worker again starts it after this, too
    └── IdentityError          10  a key or a roster is missing, damaged or not the pinned one

Messages may name files, lines, offsets, labels and identifiers. They never quote a document's
text: an error may end up in a log or a ticket.
"""

from typing import ClassVar


class FednerError(Exception):
    """Base of all errors that fedner raises on purpose.

    Args:
        message: what is wrong, and what was expected.
        place: where: `file:line`, a YAML path, a document id.
        remedy: what the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, place: str | None = None, remedy: str | None = None):
        super().__init__(message, place, remedy)
        self.message = message
        self.place = place
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n  remedy: {self.remedy}" if self.remedy else head


class UsageError(FednerError):
    """The command line was used wrongly."""

    exit_code = 2


class ConfigError(FednerError):
    """A study or site file is not what the schema says."""

    exit_code = 3


class DataError(FednerError):
    """Annotated input is malformed, inconsistent or missing."""

    exit_code = 4


class EncoderError(FednerError):
    """Base weights, a tokenizer or a saved model are missing, altered or of another kind."""

    exit_code = 5


class PolicyError(FednerError):
    """The institution's own policy refuses what the study asks."""

    exit_code = 6


class ProtocolError(FednerError):
    """A message between coordinator, relay and worker breaks the protocol."""

    exit_code = 7


class FederationError(FednerError):
    """A federated run could not be carried through."""

    exit_code = 8


class FlowerEndedError(FederationError):
    """Flower's processes ended, or were killed, before the run had: it can be gone on with."""

    exit_code = 12


class BudgetError(FednerError):
    """The privacy budget does not allow it, or the ledger that holds it can't be trusted."""

    exit_code = 9


class StorageError(BudgetError):
    """The disk does not take or give what it must: ledger, vault, what a site remembers of sums."""

    exit_code = 13


class IdentityError(FednerError):
    """A long-term key or a roster is missing, damaged, unreadable or not the one agreed on."""

    exit_code = 10
