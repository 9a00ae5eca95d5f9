"""What an institution knows at each stage: frozen, and no longer than it is needed.

A state is replaced, never changed, so that whatever refuses a message leaves it as it was. Each
holds the last request and its reply, so that the same request gets the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

from common.secagg.keys import Secrets, Shares
from common.secagg.messages import Advert
from common.secagg.session import Party, Purpose, Session
from common.secagg.transitions import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """What must be on disk before a reply is sent.

    The driver keeps, for each purpose of a study, the newest `session.order` of stage `advertised`
    and hands it to `Idle` after a restart. With `masked`, it can refuse to let one vector that
    bears no noise of its own into a second session.

    Attributes:
        session: whose.
        stage: that the reply reaches.
        reply_sha256: of the reply, in hexadecimal.
        survivors: of the sum that may be opened after this reply; the driver hands them, as
            `Party.opened_over`, to every later attempt at the same sum. Empty if none may.
    """

    session: Session
    stage: Stage
    reply_sha256: str
    survivors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The last request's SHA-256, and what was said to it; `reply` is empty for an instruction."""

    request: bytes = field(repr=False)
    reply: bytes = field(repr=False)
    durable: Durable | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """Common to all."""

    stage: ClassVar[Stage]
    party: Party

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session's state is not pickled or copied: a copy could answer twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(_State):
    """Before a session.

    Attributes:
        newest: by purpose, (round, attempt) of the newest session ever begun, as made durable.
    """

    stage: ClassVar[Stage] = Stage.IDLE
    newest: Mapping[Purpose, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun(_State):
    session: Session
    answered: Answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertised(_Begun):
    """Keys were sent."""

    stage: ClassVar[Stage] = Stage.ADVERTISED
    secrets: Secrets = field(repr=False)
    advert: Advert


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(_Begun):
    """Shares were sent.

    Attributes:
        adverts: of all, by index.
        adverts_digest: SHA-256.
        neighbours: of this institution.
        own: its shares of its own secrets.
    """

    stage: ClassVar[Stage] = Stage.SHARED
    secrets: Secrets = field(repr=False)
    adverts: Mapping[int, Advert] = field(repr=False)
    adverts_digest: bytes
    neighbours: frozenset[int]
    own: Shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructed(_Begun):
    """The work is known, and who shared keys.

    Attributes:
        model: hash of the model to work on.
        shares: by dealer, this institution's own included.
    """

    stage: ClassVar[Stage] = Stage.INSTRUCTED
    secrets: Secrets = field(repr=False)
    adverts: Mapping[int, Advert] = field(repr=False)
    adverts_digest: bytes
    neighbours: frozenset[int]
    model: bytes
    shares: Mapping[int, Shares] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked(_Begun):
    """The masked vector was sent. Own keys and seed are gone; others' shares stay."""

    stage: ClassVar[Stage] = Stage.MASKED
    members: frozenset[int]
    adverts_digest: bytes
    neighbours: frozenset[int]
    model: bytes
    shares: Mapping[int, Shares] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(_Begun):
    """The view was signed.

    Attributes:
        view: the text signed.
    """

    stage: ClassVar[Stage] = Stage.SIGNED
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    view: bytes
    shares: Mapping[int, Shares] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(_Begun):
    """Shares were given out; no secret is left."""

    stage: ClassVar[Stage] = Stage.OPENED


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_State):
    """The session was aborted; no secret is left.

    Attributes:
        reason: in words.
    """

    stage: ClassVar[Stage] = Stage.FAILED
    session: Session
    reason: str


State = Idle | Advertised | Shared | Instructed | Masked | Signed | Opened | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Outcome of a message.

    Attributes:
        state: to go on with.
        reply: to send, once `durable` is on disk; empty where nothing is due yet.
        durable: what to make durable first.
        aborted: why the session is over, if it is; there is no reply then.
    """

    state: State
    reply: bytes = field(default=b"", repr=False)
    durable: Durable | None = None
    aborted: Exception | None = None
