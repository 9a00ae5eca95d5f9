"""What all institutions must hold in common: said in `hello`, compared before anything is trained.

Guarantee: institutions that differ in version, model or encoder, and institutions that are not as
they were when the run began, are refused by name, with what differs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from common.errors import FederationError, ProtocolError
from common.wire import Reply

_REMEDY: Final = (
    "all institutions need the same fedner version and the same encoder files: "
    "compare `fedner encoder verify` on both"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Facts of `hello`, as `common.wire.CLEAR_FACTS` has them."""

    version: str
    dimension: int
    layout: str
    initial: str
    encoder: str


def common_terms(found: Mapping[str, Reply]) -> Terms:
    """What all who answered have.

    Raises:
        ProtocolError: an answer without its facts.
        FederationError: two differ.
    """
    terms = {name: _terms(name, reply) for name, reply in sorted(found.items())}
    first_name, first = next(iter(terms.items()))
    for name, other in terms.items():
        unlike = _unlike(asdict(first), asdict(other))
        if unlike:
            raise FederationError(
                f"{first_name} and {name} differ in: {', '.join(unlike)}", remedy=_REMEDY
            )
    return first


def require_as_begun(terms: Terms, start: Mapping[str, Any]) -> None:
    """Refuse to go on with another model than the run's.

    Args:
        start: the run's `start` event.

    Raises:
        FederationError: names what differs.
    """
    unlike = _unlike(asdict(terms), start)
    if unlike:
        raise FederationError(
            f"the institutions are not as they were when the run began: {', '.join(unlike)}",
            remedy="go back to the fedner version and encoder files of then, or begin a new study",
        )


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [field for field in Terms.__dataclass_fields__ if one[field] != other.get(field)]


def _terms(name: str, reply: Reply) -> Terms:
    try:
        terms = Terms(**reply.facts)  # type: ignore[arg-type]
    except TypeError:
        raise ProtocolError(
            "`hello` was answered without its facts",
            place=name,
            remedy="install the same fedner everywhere",
        ) from None
    if type(terms.dimension) is not int or not 0 < terms.dimension < 1 << 32:
        raise ProtocolError("an impossible dimension", place=name)
    return terms
