"""An institution's keys in use: adverts, shares for its neighbours, their boxes, masks.

Guarantees:
    * A neighbour's shares go into a box that it alone opens, in this session.
    * A box counts only if its claimed dealer closed it and it holds the shares that it commits to;
      otherwise its dealer is named. Who of the two is at fault can't be told: the dealer may have
      closed something else, the holder may say so of a good box.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from common.privacy.keystream import Keystream
from common.secagg import keys, statements
from common.secagg.errors import BoxError, SecaggError, ShareError, UnknownInstitutionError
from common.secagg.keys import Secrets, Shares
from common.secagg.masks import Mask
from common.secagg.messages import Advert, Box, Complaint
from common.secagg.session import Party, Session
from common.secagg.shamir import deal
from common.secagg.states import Advertised, Instructed, Shared, State

_SHARES: Final = "fedner secagg shares v1"


def make_advert(party: Party, session: Session, secrets: Secrets) -> Advert:
    """The public keys and the commitment, signed."""
    unsigned = Advert(
        session=session,
        sender=party.index,
        box_key=keys.public_key(secrets.box_key),
        mask_key=keys.public_key(secrets.mask_key),
        commitment=keys.commitment(session, party.index, secrets.seed),
        signature=b"",
    )
    text = statements.advert_text(unsigned)
    return replace(unsigned, signature=statements.sign(party.signer, statements.ADVERT, text))


def deal_shares(state: Advertised, neighbours: frozenset[int], random: bytes) -> dict[int, Shares]:
    """Shares of the mask key and of the seed, by holder; this institution is one of them.

    Args:
        random: secret uniform bytes, `SEED_BYTES` of them.
    """
    threshold = state.party.context.parameters.share_threshold
    holders = sorted(neighbours | {state.party.index})
    draw = Keystream(random, _SHARES).bytes
    of_key = deal(state.secrets.mask_key, threshold, holders, draw)
    of_seed = deal(state.secrets.seed, threshold, holders, draw)
    return {holder: Shares(key=of_key[holder], seed=of_seed[holder]) for holder in holders}


def boxed(
    state: Advertised, adverts: Mapping[int, Advert], dealt: Mapping[int, Shares]
) -> tuple[Box, ...]:
    """A box for each holder but this institution, by index."""
    session, own, private = state.session, state.party.index, state.secrets.box_key
    boxes = []
    for peer in sorted(dealt.keys() - {own}):
        key = keys.box_key(private, adverts[peer].box_key, session, own, peer, own)
        boxes.append(keys.seal(key, session, own, peer, dealt[peer]))
    return tuple(boxes)


def unboxed(state: Shared, box: Box) -> Shares:
    """The shares in a neighbour's box.

    Raises:
        UnknownInstitutionError: of no neighbour.
        BoxError, ShareError: naming the dealer; `complaint` tells the coordinator.
    """
    context, own = state.party.context, state.party.index
    if box.peer not in state.neighbours:
        raise UnknownInstitutionError(
            f"a box of {context.name(box.peer)}, no neighbour", peer="coordinator"
        )
    public = state.adverts[box.peer].box_key
    key = keys.box_key(state.secrets.box_key, public, state.session, box.peer, own, own)
    return keys.unseal(key, state.session, box, own, context.name(box.peer))


def complaint(state: State, error: SecaggError) -> Complaint | None:
    """What the coordinator is to know of a refused instruction: whose box did not open.

    The state is as it was, so that an instruction with good boxes is still answered.
    """
    if not isinstance(state, Shared) or not isinstance(error, BoxError | ShareError):
        return None
    party = state.party
    accused = party.context.parameters.institutions.index(error.peer)
    return Complaint(session=state.session, sender=party.index, accused=accused)


def masks(state: Instructed) -> list[Mask]:
    """Of the vector: its own, and one for each neighbour that shared keys."""
    session, own, secrets = state.session, state.party.index, state.secrets
    pairs = [
        keys.pair_mask(secrets.mask_key, state.adverts[peer].mask_key, session, own, peer)
        for peer in state.shares
        if peer != own
    ]
    return [keys.self_mask(secrets.seed, session, own), *pairs]
