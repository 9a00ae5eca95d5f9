"""The roster: who takes part, by public key. It belongs to no study; studies and sites name it.

A roster is worth what its comparison is worth: whoever accepts one from the coordinator alone may
be the only institution among as many made-up ones as the coordinator likes. So a roster counts at
a site only if that site's policy pins its hash, compared with the other institutions by telephone
or on paper, not through the coordinator.

Guarantees:
    - The hash covers all that a roster says: every name and key, the order of the institutions,
      the coordinator's key and the note. It does not depend on how the file is laid out.
    - No two parties of a roster have the same key, and every key is one that somebody can hold
      the private key of.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.config.privacy import refusal
from common.config.study import NAME_PATTERN
from common.errors import IdentityError
from common.identity.points import why_no_public_key

HASH_LABEL: Final = b"fedner roster v1\n"
PUBLIC_KEY_PATTERN: Final = r"^[0-9a-f]{64}$"


def _checked(public_key: str) -> str:
    why = why_no_public_key(bytes.fromhex(public_key))
    if why is not None:
        raise refusal(
            f"is not a public key: {why}",
            "get the key from its owner; `fedner identity show` prints it",
        )
    return public_key


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Member:
    """An institution.

    Attributes:
        name: in studies.
        public_key: its Ed25519 public key, in hexadecimal.
    """

    name: str = Field(pattern=NAME_PATTERN)
    public_key: str = Field(pattern=PUBLIC_KEY_PATTERN)

    _is_a_key = field_validator("public_key")(_checked)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Roster:
    """All parties.

    Attributes:
        coordinator: its Ed25519 public key, in hexadecimal.
        institutions: in the order that the protocol numbers them.
        note: free text, part of the hash.
    """

    coordinator: str = Field(pattern=PUBLIC_KEY_PATTERN)
    institutions: tuple[Member, ...] = Field(min_length=1)
    note: str = Field(default="", max_length=1000)

    _is_a_key = field_validator("coordinator")(_checked)

    @model_validator(mode="after")
    def _distinct(self) -> "Roster":
        names = [member.name for member in self.institutions]
        keys = [member.public_key for member in self.institutions]
        for what, values in (("name", names), ("public key", keys)):
            twice = next((v for i, v in enumerate(values) if v in values[:i]), None)
            if twice is not None:
                raise refusal(
                    f"two institutions have the {what} {twice}",
                    "every institution makes an identity of its own",
                    at=("institutions",),
                )
        if self.coordinator in keys:
            raise refusal(
                f"the coordinator's key is that of {names[keys.index(self.coordinator)]}, too",
                "the coordinator makes an identity of its own: one that trains would see its own "
                "update and the sum",
                at=("coordinator",),
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Institutions in order."""
        return tuple(member.name for member in self.institutions)

    @property
    def public_keys(self) -> dict[str, str]:
        """Public key, in hexadecimal, by institution, in order."""
        return {member.name: member.public_key for member in self.institutions}

    @property
    def sha256(self) -> str:
        """The canonical hash, in hexadecimal: what sites pin."""
        return hashlib.sha256(HASH_LABEL + roster_bytes(self)).hexdigest()


def roster_bytes(roster: Roster) -> bytes:
    """Canonical JSON: sorted keys, no blanks, ASCII; institutions as pairs, in order."""
    content = {
        "coordinator": roster.coordinator,
        "institutions": [[member.name, member.public_key] for member in roster.institutions],
        "note": roster.note,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii")


def require_pin(roster: Roster, pin: str | None, whose: str) -> None:
    """The roster must be the one whose hash was agreed on.

    Args:
        pin: the hash; `None` if nobody pinned one.
        whose: who pins, for the message: `the site's policy`.

    Raises:
        IdentityError: it is another, or none is pinned.
    """
    if pin is None:
        raise IdentityError(
            f"{whose} pins no roster, this one is {roster.sha256}",
            remedy="compare the hash with the other institutions, then `fedner roster pin`",
        )
    if roster.sha256 != pin:
        raise IdentityError(
            f"{whose} pins roster {pin}, this one is {roster.sha256}",
            remedy="find out who changed the roster and why; pin another only after comparing it "
            "with the other institutions again",
        )


def require_names(roster: Roster, names: Sequence[str]) -> None:
    """A study's institutions must be exactly the roster's, in the same order.

    Raises:
        IdentityError: one more, one less, or another order.
    """
    if tuple(names) != roster.names:
        raise IdentityError(
            f"the study's institutions are {', '.join(names)}; the roster's are "
            f"{', '.join(roster.names)}",
            remedy="give a roster of exactly these institutions, in the study's order",
        )


def require_member(roster: Roster, name: str, public_key: str) -> None:
    """The roster must have this institution with this key.

    Raises:
        IdentityError: it does not name it, or with another key.
    """
    found = roster.public_keys.get(name)
    if found != public_key:
        is_there = f"has another key for {name}: {found}" if found else f"does not name {name}"
        raise IdentityError(
            f"the roster {is_there}",
            remedy=f"the key here is {public_key}; a roster with another one is not yours to pin",
        )
