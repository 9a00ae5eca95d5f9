"""What a privacy ledger can say: the bodies of its entries, checked on construction.

All raise pydantic's ValidationError, a ValueError, on content of another type or out of range.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, PlainValidator
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.privacy.events import GaussianSteps, Unit

FORMAT: Final = 1
MAX_INT: Final = 2**53
MAX_TEXT: Final = 1000

Purpose = Literal["train", "evaluate", "search"]
Scope = Literal["study", "cap per study", "lifetime cap"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
LedgerId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]
Seconds = Annotated[int, Field(ge=0, le=MAX_INT)]
Delta = Annotated[float, Field(gt=0, lt=1)]
EpsilonValue = Annotated[float, Field(ge=0)]


def _event(content: object) -> GaussianSteps:
    return content if isinstance(content, GaussianSteps) else GaussianSteps.from_dict(content)


Events = tuple[Annotated[GaussianSteps, PlainValidator(_event)], ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Head:
    """How far a ledger goes: the number of its last entry, and that line's SHA-256."""

    ledger: LedgerId
    seq: Count
    hash: Sha256

    def __str__(self) -> str:
        return f"{self.ledger}:{self.seq}:{self.hash}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Receipt:
    """A head, countersigned by the counterpart, at the counterpart's time."""

    ledger: LedgerId
    seq: Count
    hash: Sha256
    time: Seconds
    public_key: PublicKey
    signature: Signature

    @property
    def head(self) -> Head:
        return Head(ledger=self.ledger, seq=self.seq, hash=self.hash)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Open:
    """First entry. `ledger` is random: two ledgers are never taken for each other."""

    format: Literal[1]
    institution: Text
    public_key: PublicKey
    ledger: LedgerId


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Figure:
    """One limit, and how a reserve stands to it: epsilon before and with it, at `delta`."""

    scope: Scope
    unit: Unit
    delta: Delta
    before: EpsilonValue
    after: EpsilonValue
    limit: EpsilonValue


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reserve:
    """Privacy loss that may have happened from here on, whether or not a commit follows.

    Attributes:
        study: the study's hash.
        request: SHA-256 of the model bytes that were asked to be trained or evaluated.
        attempt: from 1, for this study, round, purpose and request.
        delta, target: of the study.
        epsilon: of the whole study at `delta`, with this reserve.
        figures: the limits that were checked.
    """

    study: Sha256
    name: Text
    round: Annotated[int, Field(ge=0, le=MAX_INT)]
    purpose: Purpose
    request: Sha256
    attempt: Count
    unit: Unit
    dataset: Text
    events: Annotated[Events, Field(min_length=1)]
    delta: Delta
    target: EpsilonValue
    epsilon: EpsilonValue
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Commit:
    """The finished vector of the reserve with number `reserve` is stored; `vector`: its SHA-256."""

    reserve: Count
    vector: Sha256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Anchor:
    """The counterpart has seen this ledger up to the receipt's head.

    Attributes:
        pinned: the institution had been told the counterpart's key. Only then may the key be
            another than before.
    """

    receipt: Receipt
    pinned: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Note:
    """Something that happened to the file. It changes no spend."""

    text: Text
    file: Text
    sha256: Sha256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Carried:
    """Reserves that were still readable in the ledgers before, by study."""

    study: Sha256
    name: Text
    unit: Unit
    delta: Delta
    events: Events


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Assumed:
    """What all reserves before this ledger are taken to have spent together, for one unit."""

    unit: Unit
    epsilon: EpsilonValue
    delta: Delta


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recover:
    """Second entry of a ledger that follows a lost or damaged one.

    Attributes:
        heads: of the ledgers before, as far as anyone had one.
        ledgers: ids of the ledgers before.
        assumed: never less than what was readable.
        closed: hashes of studies that may have spent what is no longer readable.
        kept: names of the files kept from before.
        counterpart: public key of the counterpart, if the ledgers before had one.
    """

    reason: Text
    heads: tuple[Head, ...]
    ledgers: tuple[LedgerId, ...]
    carried: tuple[Carried, ...]
    assumed: tuple[Assumed, ...]
    closed: tuple[Sha256, ...]
    kept: tuple[Text, ...]
    counterpart: PublicKey | None


Body = Open | Reserve | Commit | Anchor | Note | Recover
