"""The coordinator's last stage: shares come in, seeds and keys are rebuilt, masks are taken off.

Guarantees:
    * A share counts only if it is the one its dealer committed to; otherwise its holder is named.
      A dealer's share of its own seed has no digest: if it is wrong, the others' do without it
      where they are enough; where they are not, holder and dealer are one.
    * A rebuilt seed gives the dealer's commitment, a rebuilt key its public key; otherwise the
      dealer is named, for the shares were all its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.secagg import checks, keys
from common.secagg.errors import BrokenKeyError, BrokenSeedError, SetsError, ShareError
from common.secagg.graph import Graph
from common.secagg.masks import Mask
from common.secagg.messages import Advert, Box, Opening
from common.secagg.session import Context, Session
from common.secagg.shamir import Opener, require_share

Boxes = Mapping[int, Mapping[int, Box]]
"""By dealer, then by holder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the coordinator holds when it asks for shares."""

    session: Session
    adverts: Mapping[int, Advert] = field(repr=False)
    boxes: Boxes = field(repr=False)
    graph: Graph = field(repr=False)
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]


class Openings:
    """Shares by owner and holder.

    Args:
        context: what all agree on.
        view: of the session.
    """

    def __init__(self, context: Context, view: View):
        self._context, self._view = context, view
        self._seeds: dict[int, dict[int, bytes]] = {owner: {} for owner in view.survivors}
        self._keys: dict[int, dict[int, bytes]] = {owner: {} for owner in view.dropped}
        self._opener = Opener(context.parameters.share_threshold)

    def take(self, opening: Opening) -> None:
        """Keep one holder's shares.

        Raises:
            SetsError: not the shares asked for.
            ShareError: a share that is not the one dealt. In both cases none is kept.
        """
        holder = opening.sender
        seeds, of_keys = dict(opening.seeds), dict(opening.keys)
        dealt = self._view.graph.neighbours(holder) | {holder}
        asked = dealt & self._seeds.keys(), dealt & self._keys.keys()
        if (frozenset(seeds), frozenset(of_keys)) != asked:
            raise SetsError("other shares than were asked for", peer=self._context.name(holder))
        for owner, share in seeds.items():
            self._require_dealt(keys.SEED_SHARE, owner, holder, share)
        for owner, share in of_keys.items():
            self._require_dealt(keys.KEY_SHARE, owner, holder, share)
        for owner, share in seeds.items():
            self._seeds[owner][holder] = share
        for owner, share in of_keys.items():
            self._keys[owner][holder] = share

    def _require_dealt(self, label: bytes, owner: int, holder: int, share: bytes) -> None:
        name = self._context.name(holder)
        require_share(share, name)
        if owner == holder:
            return
        box = self._view.boxes[owner][holder]
        expected = box.seed_digest if label == keys.SEED_SHARE else box.key_digest
        if keys.share_digest(label, self._view.session, owner, holder, share) != expected:
            raise ShareError(
                f"a share that is not the one {self._context.name(owner)} dealt", peer=name
            )

    def masks(self) -> list[Mask]:
        """What the sum of the masked vectors still has to be given to be free of masks.

        Raises:
            BelowNeighbourhoodError: too few shares of one owner.
            BrokenSeedError, BrokenKeyError: naming the dealer.
        """
        view = self._view
        taken = [self._self_mask(owner) for owner in view.survivors]
        for owner in view.dropped:
            key = self._key(owner)
            for peer in sorted(view.graph.neighbours(owner) & set(view.survivors)):
                public = view.adverts[peer].mask_key
                # the sign that the drop-out would have used undoes the survivor's
                taken.append(keys.pair_mask(key, public, view.session, owner, peer))
        return taken

    def _self_mask(self, owner: int) -> Mask:
        session, shares = self._view.session, self._seeds[owner]
        others = {holder: share for holder, share in shares.items() if holder != owner}
        enough = len(others) >= self._context.parameters.share_threshold
        # without the owner's own share, which has no digest, where that one is wrong
        for chosen in (shares, others) if enough else (shares,):
            seed = self._secret(owner, chosen)
            if seed is not None and self._is_committed(owner, seed):
                return Mask(key=keys.self_mask(seed, session, owner).key, sign=-1)
        raise BrokenSeedError(
            "dealt shares of another seed than it committed to", peer=self._context.name(owner)
        )

    def _is_committed(self, owner: int, seed: bytes) -> bool:
        committed = self._view.adverts[owner].commitment
        return keys.commitment(self._view.session, owner, seed) == committed

    def _key(self, owner: int) -> bytes:
        key = self._secret(owner, self._keys[owner])
        if key is None or keys.public_key(key) != self._view.adverts[owner].mask_key:
            raise BrokenKeyError(
                "dealt shares of another key than it announced", peer=self._context.name(owner)
            )
        return key

    def _secret(self, owner: int, shares: Mapping[int, bytes]) -> bytes | None:
        checks.require_neighbours(self._context, owner, len(shares), "opened their shares")
        return self._opener.open(shares)
