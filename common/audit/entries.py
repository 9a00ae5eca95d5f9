"""What an audit log can say: a closed set of entries, each field checked on construction.

Guarantees:
    * No field holds free text but `reasons`, which `common.audit.words` makes of errors that are
      about configuration, protocol or budget, and which hold printable ASCII alone.
    * Every other text is a name, a code, a hash, a head or one of a few words. So a document, a
      patient's name, a passphrase or a terminal's escape sequence is refused wherever it turns up.

All raise pydantic's ValidationError, a ValueError, on content of another type or out of range.
"""

from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.config.study import NAME_PATTERN
from common.privacy.events import Unit
from common.privacy.ledger_entries import Delta, EpsilonValue, PublicKey, Purpose, Sha256
from common.wire import LEDGER_PATTERN, Kind

FORMAT: Final = 1
MAX_INT: Final = 2**53
MAX_REASON: Final = 600
MAX_REASONS: Final = 32

Side = Literal["site", "coordinator"]
Process = Literal["worker", "coordinator"]
Outcome = Literal["finished", "stopped", "failed"]
What = Literal[
    "begun",
    "resumed",
    "round",
    "evaluation",
    "evaluation-missing",
    "abort",
    "revoked",  # or left, or not enrolled: the register's word for an institution, since this entry
    "left",
    "not-enrolled",
]
Choice = Literal[
    "one-user",  # worker and relay may share an OS user
    "no-tls",
    "one-process",  # coordinator and institutions are one process: a simulation or a test
    "demo-keys",  # one machine made all keys
    "privacy-none",
    "secure-aggregation-none",
    "semi-honest",  # the coordinator is trusted to follow the protocol
    "exact-evaluation",
    "insecure-seed",
    "unsigned-log",  # there is no identity to sign this log with
]

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
LogId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9a-z+-]{1,20}){1,5}$")]
Code = Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{0,40})?$")]
ERROR_NAME: Final = r"([A-Z][A-Za-z0-9]{0,50})?(Error|Exit|Exception|Interrupt)"
ErrorName = Annotated[str, Field(pattern=rf"^({ERROR_NAME})?$")]
Reason = Annotated[str, Field(pattern=r"^[ -~]+$", max_length=MAX_REASON)]
Reasons = Annotated[tuple[Reason, ...], Field(max_length=MAX_REASONS)]
TornFile = Annotated[str, Field(pattern=r"^audit\.torn-[1-9][0-9]{0,8}$")]
LedgerHead = Annotated[str, Field(pattern=rf"^{LEDGER_PATTERN}$")]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Positive = Annotated[int, Field(ge=1, le=MAX_INT)]
Round = Annotated[int, Field(ge=0, lt=1 << 31)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Open:
    """First entry. `log` is random: two logs are never taken for each other.

    Attributes:
        name: the institution, or `coordinator`.
        public_key: which signs until a `start` names another; `None`: nothing is signed.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    side: Side
    name: Name
    log: LogId
    public_key: PublicKey | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Start:
    """A process begins to write; one that was killed left no `stop` before it.

    Attributes:
        pid, uid: of the process, by the operating system.
        public_key: which signs from this entry on.
        study, roster: hashes.
    """

    process: Process
    version: Version
    pid: Count
    uid: Count
    public_key: PublicKey | None
    study: Sha256
    roster: Sha256 | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stop:
    """That process ends.

    Attributes:
        error: class of the error that ended it.
        reasons: why, at a site.
    """

    outcome: Outcome
    error: ErrorName = ""
    reasons: Reasons = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Insecure:
    """A protection that the running process does without."""

    choice: Choice


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Torn:
    """An unfinished or unreadable end, as a crash leaves it, was set aside."""

    file: TornFile
    bytes: Positive
    sha256: Sha256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Request:
    """At the coordinator: about to be sent. At a site: about to be worked on.

    Attributes:
        institution: to whom.
        study: that it names; `None` if that is no hash.
        sha256: `digest_of` the message.
    """

    institution: Name
    asked: Kind
    round: Round
    study: Sha256 | None
    bytes: Count
    sha256: Sha256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reply:
    """At a site: about to leave. At the coordinator: came in.

    Attributes:
        institution: from whom.
        code: of a refusal; empty if it was done as asked.
        ledger: head of the institution's privacy ledger that travels with it.
        reasons: of a refusal, each cut at `MAX_REASON` characters; at the site only.
    """

    institution: Name
    asked: Kind
    round: Round
    bytes: Count
    sha256: Sha256
    code: Code = ""
    ledger: LedgerHead = ""
    reasons: Reasons = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Repeated:
    """So many more of the kind and code that entry `entry` has, not written one by one."""

    entry: Positive
    count: Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Refusal:
    """What the coordinator made of a reply: a refusal, or the rule of the secure sum it breaks.

    Attributes:
        accused: whose doing it is, where the sender complains of another.
    """

    institution: Name
    asked: Kind
    round: Round
    code: Code
    accused: Name | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spend:
    """A reserve that the privacy ledger holds. The ledger is what counts; this says when it grew,
    and what it had, if it is lost.

    Attributes:
        epsilon: of the whole study at `delta`, with this reserve.
        target: the study's own epsilon.
        ledger, reserve: id of the ledger, and the number of its entry.
    """

    study: Sha256
    round: Round
    purpose: Purpose
    attempt: Positive
    unit: Unit
    epsilon: EpsilonValue
    delta: Delta
    target: EpsilonValue
    ledger: LogId
    reserve: Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Promise:
    """At the coordinator: what the study promises an institution's units, whole."""

    institution: Name
    unit: Unit
    epsilon: EpsilonValue
    delta: Delta


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Progress:
    """At the coordinator: how far the study is.

    Attributes:
        round: 0 where what happened belongs to none.
        institutions: whose vectors or counts are in it; or who was revoked.
        rule: which ended an attempt.
    """

    what: What
    round: Round
    institutions: tuple[Name, ...] = ()
    rule: Code = ""


Body = (
    Open
    | Start
    | Stop
    | Insecure
    | Torn
    | Request
    | Reply
    | Repeated
    | Refusal
    | Spend
    | Promise
    | Progress
)
