"""How the secure sum refuses: one class for each rule, so that a test can tell them apart.

    SecaggError(ProtocolError)     the message is refused, the state stays as it was
    └── Aborted                    the session is over for whoever raised it, its secrets are gone

Messages name institutions, stages, counts and rounds: never a key, a share or a value.
"""

from typing import ClassVar

from common.errors import ProtocolError


class SecaggError(ProtocolError):
    """A message that breaks a rule of the secure sum.

    Args:
        message: what is wrong.
        peer: whose doing it is: an institution's name, `coordinator`, or empty if unknown.
    """

    rule: ClassVar[str] = "protocol"

    def __init__(self, message: str, *, peer: str = ""):
        super().__init__(message, place=peer or None, remedy=None)
        self.peer = peer


class MalformedError(SecaggError):
    """Not exactly a message of this version."""

    rule = "malformed"


class WrongStudyError(SecaggError):
    """A message of another study."""

    rule = "other-study"


class WrongRosterError(SecaggError):
    """A message under another roster."""

    rule = "other-roster"


class WrongSessionError(SecaggError):
    """A message of another purpose, round or attempt."""

    rule = "other-session"


class StaleError(SecaggError):
    """A session that is not newer than the newest one begun."""

    rule = "stale"


class OutOfOrderError(SecaggError):
    """A message that this stage does not expect."""

    rule = "out-of-order"


class AnsweredError(SecaggError):
    """A stage that was answered already, asked again in another way or too late."""

    rule = "answered"


class FailedError(SecaggError):
    """A message to a session that has failed."""

    rule = "failed"


class UnsignedError(SecaggError):
    """A request, boxes, an opening or a complaint that its author did not sign, as it stands."""

    rule = "unsigned"


class UnknownInstitutionError(SecaggError):
    """An index that is not on the roster, or that has no place in this message."""

    rule = "not-on-roster"


class WrongSenderError(SecaggError):
    """A message that came from one party in another's name, or went to the wrong one."""

    rule = "wrong-sender"


class AdvertError(SecaggError):
    """Keys that their owner did not sign for this session."""

    rule = "advert"


class OwnAdvertError(SecaggError):
    """The institution's own keys are missing or replaced."""

    rule = "own-advert"


class ReusedKeyError(SecaggError):
    """One key or commitment in two places."""

    rule = "reused-key"


class WeakKeyError(SecaggError):
    """A public key that gives everybody the same shared secret."""

    rule = "weak-key"


class BoxError(SecaggError):
    """A box that does not open as its claimed sender's for this receiver in this session."""

    rule = "box"


class ShareError(SecaggError):
    """A share of another index, out of range, or not the one that its dealer committed to."""

    rule = "share"


class ComplaintError(SecaggError):
    """An institution says that the box of another does not open: either of them may be at fault.

    Args:
        message, peer: `peer` is who says so.
        accused: the other's name.
    """

    rule = "complaint"

    def __init__(self, message: str, *, peer: str, accused: str):
        super().__init__(message, peer=peer)
        self.accused = accused


class OverlapError(SecaggError):
    """An institution called both survivor and drop-out."""

    rule = "overlap"


class SetsError(SecaggError):
    """Survivors and drop-outs are not the institutions that shared keys."""

    rule = "sets"


class ChangedSetsError(SecaggError):
    """Unmasking is asked for other sets than were signed."""

    rule = "changed-sets"


class OpenedError(SecaggError):
    """A sum over other survivors than those over whom the same vectors may have been opened."""

    rule = "opened"


class StatementError(SecaggError):
    """A signature over another view: other keys, another model, other sets, or no signature."""

    rule = "statement"


class TooFewSignaturesError(SecaggError):
    """Fewer valid signatures than the threshold."""

    rule = "too-few-signatures"


class Aborted(SecaggError):  # noqa: N818
    """The session can't go on."""

    rule = "aborted"


class BelowThresholdError(Aborted):
    """Fewer institutions are left than the threshold."""

    rule = "below-threshold"


class BelowCohortError(Aborted):
    """Fewer institutions are left than the smallest cohort."""

    rule = "below-cohort"


class BelowNeighbourhoodError(Aborted):
    """Too few neighbours of one institution are left to open its mask."""

    rule = "below-neighbourhood"


class BrokenSeedError(Aborted):
    """The shares that an institution dealt do not give the seed that it committed to."""

    rule = "broken-seed"


class BrokenKeyError(Aborted):
    """The shares that an institution dealt do not give the private key of its public one."""

    rule = "broken-key"
