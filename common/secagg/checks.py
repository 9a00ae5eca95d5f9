"""What both sides check of keys, and an institution of the sets that it is told.

Each check raises its own error and changes nothing.
"""

from collections.abc import Collection, Iterable

from common.secagg import keys, statements
from common.secagg.errors import (
    AdvertError,
    BelowCohortError,
    BelowNeighbourhoodError,
    BelowThresholdError,
    OpenedError,
    OverlapError,
    ReusedKeyError,
    SetsError,
    StatementError,
    TooFewSignaturesError,
    UnknownInstitutionError,
)
from common.secagg.messages import Advert, Survivors, Unmask
from common.secagg.session import Context, Party


def require_listed(context: Context, index: int) -> None:
    """Refuse who is not on the roster.

    Raises:
        UnknownInstitutionError: no such index.
    """
    if index >= context.parameters.n:
        raise UnknownInstitutionError(
            f"institution {index} is not on the roster of {context.parameters.n}",
            peer="coordinator",
        )


def require_advert(context: Context, advert: Advert) -> None:
    """Refuse keys that their owner did not sign for the session.

    Raises:
        UnknownInstitutionError, AdvertError, WeakKeyError: in this order.
    """
    require_listed(context, advert.sender)
    public, name = context.public_keys[advert.sender], context.name(advert.sender)
    text = statements.advert_text(advert)
    if not statements.verified(public, statements.ADVERT, text, advert.signature):
        raise AdvertError("keys that their owner did not sign for this session", peer=name)
    keys.require_strong(advert.box_key, name)
    keys.require_strong(advert.mask_key, name)


def require_distinct(context: Context, adverts: Iterable[Advert]) -> None:
    """Refuse a key or commitment that stands in two places.

    Raises:
        ReusedKeyError: naming the second owner.
    """
    seen: set[bytes] = set()
    for advert in adverts:
        mine = (advert.box_key, advert.mask_key, advert.commitment)
        if len(set(mine)) < len(mine) or not seen.isdisjoint(mine):
            raise ReusedKeyError("a key that is used twice", peer=context.name(advert.sender))
        seen.update(mine)


def require_enough(context: Context, there: Collection[int], cohort: int, what: str) -> None:
    """Abort below the threshold or the smallest cohort.

    Args:
        there: roster indices.
        cohort: smallest allowed.
        what: they did, for the message.

    Raises:
        BelowThresholdError, BelowCohortError: with numbers and the missing names.
    """
    count, n, threshold = len(there), context.parameters.n, context.parameters.threshold
    missing = context.names(frozenset(range(n)) - frozenset(there))
    if count < threshold:
        raise BelowThresholdError(
            f"{count} of {n} institutions {what}, the threshold is {threshold}; missing: {missing}"
        )
    if count < cohort:
        raise BelowCohortError(
            f"{count} of {n} institutions {what}, the smallest cohort is {cohort}; "
            f"missing: {missing}"
        )


def require_neighbours(context: Context, owner: int, there: int, what: str) -> None:
    """Abort where too few hold shares of one institution's secrets.

    Raises:
        BelowNeighbourhoodError: with numbers and the owner's name.
    """
    least = context.parameters.share_threshold
    if there < least:
        raise BelowNeighbourhoodError(
            f"{there} holders of the shares of {context.name(owner)} {what}, {least} open a secret"
        )


def require_sets(
    party: Party,
    members: Collection[int],
    holders: frozenset[int],
    dealers: Collection[int],
    told: Survivors | Unmask,
) -> None:
    """Refuse sets that are not what this institution saw, and abort if too few survive.

    Args:
        members: who advertised.
        holders: this institution and its neighbours.
        dealers: of `holders`, whose shares it has.
        told: the coordinator's sets.

    Raises:
        OverlapError, UnknownInstitutionError, SetsError, OpenedError: in this order.
        BelowThresholdError, BelowCohortError, BelowNeighbourhoodError: then.
    """
    survivors, dropped = frozenset(told.survivors), frozenset(told.dropped)
    context = party.context
    if both := survivors & dropped:
        raise OverlapError(
            f"{context.names(both)}: called survivor and drop-out", peer="coordinator"
        )
    if strangers := (survivors | dropped) - frozenset(members):
        raise UnknownInstitutionError(
            f"{context.names(strangers)}: sent no keys for this session", peer="coordinator"
        )
    if party.index not in survivors:
        raise SetsError("this institution is not among the survivors", peer="coordinator")
    if (survivors | dropped) & holders != frozenset(dealers):
        raise SetsError("the sets are not those who shared keys", peer="coordinator")
    _require_same_sum(party, told.survivors)
    require_enough(context, survivors, party.cohort, "sent a vector")
    require_neighbours(context, party.index, len(survivors & holders), "sent a vector")


def _require_same_sum(party: Party, survivors: tuple[int, ...]) -> None:
    """Refuse another sum of vectors whose sum is known: the difference would show one of them."""
    before, context = party.opened_over, party.context
    if before and survivors != before:
        raise OpenedError(
            f"a sum over {context.names(survivors)}, where an earlier attempt may have opened one "
            f"of the same vectors over {context.names(before)}",
            peer="coordinator",
        )


def require_signatures(party: Party, view: bytes, told: Unmask) -> None:
    """Refuse to unmask what fewer than the threshold have signed.

    Raises:
        UnknownInstitutionError: a signer that is no survivor.
        StatementError: a signature over another view.
        TooFewSignaturesError: below the threshold.
    """
    context = party.context
    for sender, signature in told.signatures:
        if sender not in told.survivors:
            raise UnknownInstitutionError(
                f"{context.name(sender)} signs and is no survivor", peer="coordinator"
            )
        public, name = context.public_keys[sender], context.name(sender)
        if not statements.verified(public, statements.VIEW, view, signature):
            raise StatementError("a signature over another view than this one", peer=name)
    threshold = context.parameters.threshold
    if len(told.signatures) < threshold:
        raise TooFewSignaturesError(
            f"{len(told.signatures)} signatures, the threshold is {threshold}", peer="coordinator"
        )
