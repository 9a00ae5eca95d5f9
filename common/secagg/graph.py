"""Who shares keys with whom: everybody, or a ring of `k` neighbours over an unforeseeable order.

Without a degree all are neighbours, which is right up to some `COMPLETE_LIMIT` institutions. With
one, those who advertised are put on a ring, and each is joined to the `k / 2` before and after it
(the Harary graph of Bell et al. 2020, CCS, section 3). The order is a permutation drawn from
SHA-256 over study, roster, session and all adverts, and each institution computes it anew. So
nobody chooses a victim's neighbours: changing an advert draws another order, one attempt each.

What `k` and the neighbours' threshold `t'` must satisfy. This is our argument, not Bell's theorem.
An institution's `k + 1` holders are its neighbours and itself. Say that at most `c` of any honest
institution's neighbours collude, and let

    t' >= k / 2 + c + 2.                                                              (1)

* *Not both secrets.* Both take `2 t'` shares; colluders give two each, honest holders one: at most
  `k + 1 + c < 2 t'`. Whoever the coordinator calls dropped, to whom.
* *No partial sum.* A sum free of masks holds, with each institution, all its honest neighbours in
  the view, for their pairwise masks are opened to nobody. Say that it does not hold the whole view.
  Then somewhere on the ring one of its members is followed, `k / 2` places or more away, by the
  next honest institution in the view, so that it has at most `k / 2` such neighbours, all on the
  other side. But its seed was opened by `t'` shares: `c` at most of colluders, one its own, and so
  `k / 2 + 1` or more of such neighbours. This holds for drop-outs chosen when the order is known.

The second takes it that all survivors signed the view: who signs had the boxes of all its
neighbours in it, so that both bear the mask of each pair. One who was given other boxes refuses to
sign. If its seed is opened all the same, `t' - c` honest neighbours did it, and `t' - 1 - c` honest
ones at least are in its masks. Of its honest neighbours `c + 3` or more are then both, so that no
sum holds it alone. That a sum which holds it holds the whole view is not shown.

There is chance only in `c`: colluders among `k` neighbours drawn from a cohort are hypergeometric.
The cohort is taken as the threshold, the smallest that goes on, with all `h` colluders in it; a
union bound covers its members, and `GRINDING_BITS` the attempts.

Liveness is apart: if more than `k + 1 - t'` of one neighbourhood vanish, the round aborts and
nothing is revealed. That chance is computed for drop-outs that nobody chooses.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import ConfigError
from common.privacy.keystream import Keystream

COMPLETE_LIMIT: Final = 32
FAILURE_BITS: Final = 40
GRINDING_BITS: Final = 40

_LABEL: Final = b"fedner secagg graph v1\n"
_STREAM: Final = "fedner secagg permutation v1"


@dataclass(frozen=True, slots=True)
class Graph:
    """The neighbours of each member.

    Attributes:
        members: roster indices of those who advertised, in ring order.
        degree: `None` if all are neighbours.
    """

    members: tuple[int, ...]
    degree: int | None

    def neighbours(self, member: int) -> frozenset[int]:
        """Those whom a member shares keys with; never itself.

        Raises:
            ValueError: not a member.
        """
        place, n = self.members.index(member), len(self.members)
        if self.degree is None:
            return frozenset(self.members) - {member}
        steps = [d for d in range(-(self.degree // 2), self.degree // 2 + 1) if d]
        return frozenset(self.members[(place + step) % n] for step in steps)


def make_graph(members: Sequence[int], degree: int | None, session: bytes, adverts: bytes) -> Graph:
    """The graph of a session, the same for all who hold the same adverts.

    Args:
        members: roster indices of those who advertised, ascending.
        degree: of the study.
        session: canonical bytes of the session's identity, study and roster in it.
        adverts: canonical bytes of all adverts, or their hash.

    Raises:
        ConfigError: no more members than a neighbourhood.
    """
    if degree is None:
        return Graph(tuple(members), None)
    if len(members) <= degree + 1:
        raise ConfigError(f"{len(members)} members, expected more than degree + 1 = {degree + 1}")
    seed = hashlib.sha256(_LABEL + session + adverts).digest()
    return Graph(_permuted(members, seed), degree)


def _permuted(members: Sequence[int], seed: bytes) -> tuple[int, ...]:
    """Sorted by 64-bit keys of the seed; equal keys, of chance below 2^-38, keep their order."""
    keys = Keystream(seed, _STREAM).uint64(len(members)).tolist()
    return tuple(member for _, member in sorted(zip(keys, members, strict=True)))


def choose_degree(
    threshold: int, collusion: int, dropout: float, n: int
) -> tuple[int, int] | tuple[None, None]:
    """The smallest degree, and its threshold, for a study; twice `None` if all must be neighbours.

    Privacy fails below `2^-FAILURE_BITS` after `2^GRINDING_BITS` attempts, and an unlucky abort is
    as rare if each institution vanishes with chance `dropout`.

    Args:
        threshold, collusion, n: `t`, `h` and roster size of the study.
        dropout: share of institutions that vanish in a session, 0 to 1.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"a drop-out of {dropout!r}, expected 0 to 1")
    if n <= COMPLETE_LIMIT:
        return None, None
    for degree in range(4, threshold - 1, 2):
        least = _least_neighbours(threshold, collusion, degree)
        if least <= degree + 1 and liveness_failure_log2(n, dropout, degree, least) <= -40:
            return degree, least
    return None, None


def privacy_failure_log2(cohort: int, collusion: int, degree: int, least: int) -> float:
    """Base-2 logarithm of the chance that (1) fails for some honest institution, in one attempt.

    Args:
        cohort: institutions on the ring.
        collusion: of these.
        degree: `k`.
        least: `t'`.
    """
    allowed = least - degree // 2 - 2
    tail = _hypergeometric_tail(cohort - 1, collusion, degree, allowed + 1)
    return math.log2(cohort) + tail


def liveness_failure_log2(n: int, dropout: float, degree: int, least: int) -> float:
    """Base-2 logarithm of the chance that some neighbourhood has too few left, by a union bound."""
    holders = degree + 1
    terms = [
        _log2_comb(holders, lost)
        + lost * math.log2(dropout)
        + (holders - lost) * math.log2(1 - dropout)
        for lost in range(holders - least + 1, holders + 1)
        if dropout > 0
    ]
    return math.log2(n) + _log2_sum(terms)


def _least_neighbours(cohort: int, collusion: int, degree: int) -> int:
    """The smallest `t'` whose privacy failure is rare enough; `degree + 2` if there is none."""
    low, high = degree // 2 + 2, degree + 2
    while low < high:
        middle = (low + high) // 2
        if privacy_failure_log2(cohort, collusion, degree, middle) <= -FAILURE_BITS - GRINDING_BITS:
            high = middle
        else:
            low = middle + 1
    return low


def _hypergeometric_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """Base-2 logarithm of the chance of `least` or more marked ones among the drawn."""
    whole = _log2_comb(population, drawn)
    terms = [
        _log2_comb(marked, x) + _log2_comb(population - marked, drawn - x) - whole
        for x in range(max(least, 0), min(marked, drawn) + 1)
        if drawn - x <= population - marked
    ]
    return _log2_sum(terms)


def _log2_comb(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _log2_sum(terms: Sequence[float]) -> float:
    if not terms:
        return -math.inf
    largest = max(terms)
    return largest + math.log2(sum(2.0 ** (term - largest) for term in terms))
