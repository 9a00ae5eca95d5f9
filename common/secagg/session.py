"""Which sum a message belongs to, and which parties know one another."""

from dataclasses import dataclass, field
from typing import Final, Literal

from common.errors import ConfigError
from common.identity.signing import Signer
from common.secagg.params import Parameters

Purpose = Literal["train", "evaluate"]
PURPOSES: Final[tuple[Purpose, ...]] = ("train", "evaluate")
HASH_BYTES: Final = 32
SESSION_BYTES: Final = 2 * HASH_BYTES + 1 + 4 + 4
_LIMIT: Final = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One aggregation. Its bytes stand in all that is signed, derived or boxed for it.

    Attributes:
        study, roster: hashes, in hexadecimal.
        purpose: whose sum it is: of updates or of evaluation counts.
        round, attempt: from 1; of one purpose the pair strictly increases.

    Raises:
        ConfigError: not such values.
    """

    study: str
    roster: str
    purpose: Purpose
    round: int
    attempt: int

    def __post_init__(self) -> None:
        _require_hash("study", self.study)
        _require_hash("roster", self.roster)
        if self.purpose not in PURPOSES:
            raise ConfigError(f"purpose {self.purpose!r}, expected one of {', '.join(PURPOSES)}")
        for name in ("round", "attempt"):
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number < _LIMIT:
                raise ConfigError(f"{name} {number!r}, expected 1 to 2^32 - 1")

    @property
    def order(self) -> tuple[int, int]:
        """What must increase."""
        return self.round, self.attempt

    def to_bytes(self) -> bytes:
        """`study | roster | purpose, from 1 | round | attempt`, integers big-endian."""
        purpose = bytes([PURPOSES.index(self.purpose) + 1])
        numbers = self.round.to_bytes(4, "big") + self.attempt.to_bytes(4, "big")
        return bytes.fromhex(self.study) + bytes.fromhex(self.roster) + purpose + numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What all parties of a study agree on before the first message.

    Attributes:
        parameters: of the study.
        study, roster: hashes, in hexadecimal; a site has pinned the roster's.
        public_keys: Ed25519, in hexadecimal, in the order of `parameters.institutions`.
        coordinator: the coordinator's public key.

    Raises:
        ConfigError: keys that do not fit the names, or one key twice.
    """

    parameters: Parameters
    study: str
    roster: str
    public_keys: tuple[str, ...]
    coordinator: str

    def __post_init__(self) -> None:
        _require_hash("study", self.study)
        _require_hash("roster", self.roster)
        if len(self.public_keys) != self.parameters.n:
            raise ConfigError(f"{len(self.public_keys)} keys for {self.parameters.n} institutions")
        if len({*self.public_keys, self.coordinator}) != self.parameters.n + 1:
            raise ConfigError("one public key stands for two parties")

    def name(self, index: int) -> str:
        """An institution's name, or its index if the roster has none there."""
        names = self.parameters.institutions
        return names[index] if 0 <= index < len(names) else f"institution {index}"

    def names(self, indices: frozenset[int] | tuple[int, ...]) -> str:
        """Names in roster order, for messages."""
        return ", ".join(self.name(index) for index in sorted(indices)) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One institution: the agreement, its own identity and its own policy.

    Attributes:
        context: what all agree on.
        index: place on the roster.
        signer: long-term identity.
        min_cohort: the site's own smallest cohort; the study's counts too.
        opened_over: survivors of a sum of the same vectors that may have been opened, in an earlier
            attempt; this institution takes part in no sum over others. Empty if there was none.

    Raises:
        ConfigError: an identity that is not the one at this place of the roster.
    """

    context: Context
    index: int
    signer: Signer = field(repr=False)
    min_cohort: int = 0
    opened_over: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.context.parameters.n:
            raise ConfigError(f"index {self.index} is not on the roster")
        if self.signer.public_key != self.context.public_keys[self.index]:
            raise ConfigError(f"the identity is not that of {self.context.name(self.index)}")

    @property
    def cohort(self) -> int:
        """Fewest institutions in a sum that this one takes part in."""
        return max(self.min_cohort, self.context.parameters.min_cohort)


def _require_hash(what: str, value: str) -> None:
    if len(value) != 2 * HASH_BYTES or set(value) - set("0123456789abcdef"):
        raise ConfigError(f"the hash of a {what} is {2 * HASH_BYTES} lower-case hexadecimal digits")
