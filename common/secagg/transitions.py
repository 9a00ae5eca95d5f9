"""Which message is expected when: one table for each side, and nothing else decides it.

What stands in no row is refused and changes nothing. `FAILED` has no row: it is left by nobody.
"""

from enum import StrEnum
from typing import Final

from common.secagg.errors import AnsweredError, FailedError, OutOfOrderError
from common.secagg.messages import Kind
from common.secagg.params import Adversary


class Stage(StrEnum):
    """What an institution has done last."""

    IDLE = "idle"
    ADVERTISED = "advertised"
    SHARED = "shared"
    INSTRUCTED = "instructed"
    MASKED = "masked"
    SIGNED = "signed"
    OPENED = "opened"
    FAILED = "failed"


class Local(StrEnum):
    """What comes from the institution itself, not in a message."""

    VECTOR = "vector"


Event = Kind | Local

INSTITUTION: Final[dict[tuple[Stage, Event], Stage]] = {
    (Stage.IDLE, Kind.INVITATION): Stage.ADVERTISED,
    (Stage.ADVERTISED, Kind.ADVERTS): Stage.SHARED,
    (Stage.SHARED, Kind.INSTRUCTION): Stage.INSTRUCTED,
    (Stage.INSTRUCTED, Local.VECTOR): Stage.MASKED,
    (Stage.MASKED, Kind.SURVIVORS): Stage.SIGNED,
    (Stage.SIGNED, Kind.UNMASK): Stage.OPENED,
}
SEMI_HONEST: Final[dict[tuple[Stage, Event], Stage]] = {
    (Stage.MASKED, Kind.UNMASK): Stage.OPENED,
}
"""In place of the last two rows, where the study trusts the coordinator to follow the protocol."""


class Phase(StrEnum):
    """What the coordinator waits for."""

    ADVERTS = "adverts"
    BOXES = "boxes"
    MODEL = "model"
    MASKED = "masked"
    SIGNATURES = "signatures"
    OPENINGS = "openings"
    DONE = "done"
    FAILED = "failed"


COLLECTS: Final[dict[Phase, Kind]] = {
    Phase.ADVERTS: Kind.ADVERT,
    Phase.BOXES: Kind.BOXES,
    Phase.MASKED: Kind.MASKED,
    Phase.SIGNATURES: Kind.CONSISTENT,
    Phase.OPENINGS: Kind.OPENING,
}
"""The one kind of reply that each phase takes."""

CLOSES: Final[dict[Phase, Phase]] = {
    Phase.ADVERTS: Phase.BOXES,
    Phase.BOXES: Phase.MODEL,
    Phase.MODEL: Phase.MASKED,
    Phase.MASKED: Phase.SIGNATURES,
    Phase.SIGNATURES: Phase.OPENINGS,
    Phase.OPENINGS: Phase.DONE,
}

_ORDER: Final = list(Stage)


def after(stage: Stage, event: Event, adversary: Adversary) -> Stage:
    """The stage that an event leads to.

    Raises:
        FailedError: the session has failed.
        AnsweredError: this came before.
        OutOfOrderError: this can't come now.
    """
    if stage is Stage.FAILED:
        raise FailedError("this session has failed", peer="coordinator")
    table = rows(adversary)
    if (found := table.get((stage, event))) is not None:
        return found
    name = event.name.lower()
    led = [to for (_, known), to in table.items() if known is event]
    if led and _ORDER.index(stage) >= _ORDER.index(led[0]):
        raise AnsweredError(f"{name} again after it was answered", peer="coordinator")
    raise OutOfOrderError(f"{name} to a session that is {stage}", peer="coordinator")


def rows(adversary: Adversary) -> dict[tuple[Stage, Event], Stage]:
    """The institution's table."""
    if adversary == "malicious":
        return INSTITUTION
    kept = {key: to for key, to in INSTITUTION.items() if key[1] not in _CONSISTENCY}
    return kept | SEMI_HONEST


_CONSISTENCY: Final = (Kind.SURVIVORS, Kind.UNMASK)


def phase_after(phase: Phase, adversary: Adversary) -> Phase:
    """What the coordinator waits for next.

    Raises:
        FailedError: the session has failed.
        OutOfOrderError: it is over.
    """
    if phase is Phase.FAILED:
        raise FailedError("this session has failed")
    if phase is Phase.DONE:
        raise OutOfOrderError("this session is done")
    following = CLOSES[phase]
    if following is Phase.SIGNATURES and adversary == "semi_honest":
        return CLOSES[following]
    return following
