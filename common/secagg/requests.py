"""What each request must be before an institution looks at what it asks.

Guarantees:
    * A request is of this study, roster and session, and one that begins a session is newer than
      the newest of its purpose.
    * The coordinator's identity signed it, to the byte: kind, session and body, the receiver and
      the boxes of an instruction among them. So neither a stranger nor who carries the messages
      can make up, change or move one, whichever adversary the study assumes.
"""

from common.secagg import statements
from common.secagg.errors import (
    StaleError,
    UnsignedError,
    WrongRosterError,
    WrongSessionError,
    WrongStudyError,
)
from common.secagg.session import Session
from common.secagg.states import Idle, State


def require_request(state: State, session: Session, message: bytes) -> None:
    """Refuse what the coordinator did not ask of this institution's session.

    Args:
        session: of the message.
        message: as it came; it was decoded.

    Raises:
        WrongStudyError, WrongRosterError, StaleError, WrongSessionError, UnsignedError: in this
            order.
    """
    _require_session(state, session)
    if not statements.is_signed(state.party.context.coordinator, message):
        raise UnsignedError("the coordinator did not sign this", peer="coordinator")


def _require_session(state: State, session: Session) -> None:
    context = state.party.context
    if session.study != context.study:
        raise WrongStudyError("a message of another study", peer="coordinator")
    if session.roster != context.roster:
        raise WrongRosterError("a message under another roster", peer="coordinator")
    if isinstance(state, Idle):
        _require_newer(state, session)
    elif session != state.session:
        raise WrongSessionError(
            f"{_called(session)}, this session is {_called(state.session)}", peer="coordinator"
        )


def _require_newer(idle: Idle, session: Session) -> None:
    newest = idle.newest.get(session.purpose)
    if newest is not None and session.order <= newest:
        raise StaleError(
            f"{_called(session)}, but {newest[0]}.{newest[1]} was begun already",
            peer="coordinator",
        )


def _called(session: Session) -> str:
    return f"{session.purpose} {session.round}.{session.attempt}"
