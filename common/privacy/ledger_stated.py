"""What is stated of a lost ledger's spend: by its readable entries, and by the site's audit log.

A reserve says what its study and the whole lifetime came to with it, and a recovery what it
assumed. So a readable entry speaks for unreadable ones before it, too. The log has of each reserve
what its study came to, training and evaluation without the search.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from common.privacy.events import Unit, merge
from common.privacy.ledger_entries import Body, Figure, Recover, Reserve
from common.privacy.ledger_salvage import Proof, Readable
from common.privacy.ledger_spend import Epsilon


@dataclass(frozen=True, slots=True)
class Stated:
    """That all of a unit's spend, or one study's, had come to `epsilon` at `delta` by then."""

    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """That a study charged a unit: `epsilon` at `delta` of the study, by the site's audit log."""

    study: str
    unit: Unit
    epsilon: float
    delta: float

    def or_more(self, other: "Charged") -> "Charged":
        """Of both, which are of one study and unit: an epsilon holds at a greater delta, too."""
        return replace(
            self, epsilon=max(self.epsilon, other.epsilon), delta=max(self.delta, other.delta)
        )


def logged(
    unit: Unit, charges: Iterable[Charged], entries: Sequence[Readable], *, capped: bool
) -> list[Stated]:
    """What the log's charges come to at least; nothing if the entries account for all of them.

    Args:
        capped: whether a lifetime cap bounds what all studies came to. Without one it is their sum,
            epsilons and deltas; with one the greatest of them, for a cap that was lowered since.
    """
    own = [c for c in charges if c.unit == unit]
    if all(_is_known(c, entries) for c in own):
        return []
    said = [Stated(c.epsilon, c.delta) for c in own]
    return said if capped else [Stated(sum(s.epsilon for s in said), sum(s.delta for s in said))]


def _is_known(charged: Charged, entries: Iterable[Readable]) -> bool:
    """Whether a proven entry states as much of the study, or an earlier recovery has closed it."""
    bodies = (one.body for one in entries if one.proof is not Proof.NONE)
    return any(_tells(body, charged) for body in bodies)


def _tells(body: Body, charged: Charged) -> bool:
    if isinstance(body, Reserve):
        of_it = (body.study, body.unit) == (charged.study, charged.unit)
        return of_it and body.epsilon >= charged.epsilon
    return isinstance(body, Recover) and charged.study in body.closed


def stated(unit: Unit, entries: Iterable[Readable], epsilon: Epsilon) -> list[Stated]:
    """What the entries, oldest first, say of a unit; all of it holds.

    Returns:
        Every figure of a lifetime. If there are reserves that none of them covers, also the
        greatest of them plus what the studies of these reserves state: epsilons and deltas added
        up. Not so where no lifetime is stated and the readable, proven events account for all that
        is: then nothing is hidden, and their composition says more. A figure covers what stands
        before it only if it is signed with the institution's own key, and no unproven entry.
    """
    whole: list[Stated] = []
    rest: list[Readable] = []
    for one in entries:
        figures = of_lifetime(unit, one.body)
        whole += figures
        if figures and one.proof is Proof.KEY:
            rest = [r for r in rest if r.proof is Proof.NONE]
        elif not figures and isinstance(one.body, Reserve) and one.body.unit == unit:
            rest.append(one)
    if not rest or (not whole and _is_explained(rest, epsilon)):
        return whole
    parts = [_of_study(bodies, epsilon) for bodies in _by_study(rest)]
    parts += [Stated(max(w.epsilon for w in whole), max(w.delta for w in whole))] if whole else []
    return [*whole, Stated(sum(p.epsilon for p in parts), sum(p.delta for p in parts))]


def of_lifetime(unit: Unit, body: Body) -> list[Stated]:
    """What one entry says of a unit's whole time up to it."""
    if isinstance(body, Recover):
        return [Stated(a.epsilon, a.delta) for a in body.assumed if a.unit == unit]
    if not isinstance(body, Reserve):
        return []
    figures = [f for f in body.figures if f.scope == "lifetime cap" and f.unit == unit]
    return [Stated(max(f.before, f.after), f.delta) for f in figures]


def _of_study(bodies: Sequence[Reserve], epsilon: Epsilon) -> Stated:
    """What a study's reserves state: of training and evaluation, and of all; plus its search."""
    released = Stated(max(b.epsilon for b in bodies), max(b.delta for b in bodies))
    every = [Stated(max(f.before, f.after), f.delta) for f in _capped(bodies)]
    search = merge(e for b in bodies if b.purpose == "search" for e in b.events)
    if search:
        looked = released.epsilon + epsilon(search, released.delta)
        released = Stated(looked, 2 * released.delta)
    said = [released, *every]
    return Stated(max(s.epsilon for s in said), max(s.delta for s in said))


def _is_explained(rest: Sequence[Readable], epsilon: Epsilon) -> bool:
    proven = all(one.proof is not Proof.NONE for one in rest)
    return proven and all(_is_whole(bodies, epsilon) for bodies in _by_study(rest))


def _is_whole(bodies: Sequence[Reserve], epsilon: Epsilon) -> bool:
    """Whether a study's readable events come to all that its reserves state."""
    own = merge(e for b in bodies if b.purpose != "search" for e in b.events)
    every = merge(e for b in bodies for e in b.events)
    released = [Stated(b.epsilon, b.delta) for b in bodies]
    capped = [Stated(f.after, f.delta) for f in _capped(bodies)]
    checks = [(own, s) for s in _greatest(released)] + [(every, s) for s in _greatest(capped)]
    return all(epsilon(events, said.delta) >= said.epsilon for events, said in checks)


def _greatest(said: Iterable[Stated]) -> Iterable[Stated]:
    """One for each delta: an accountant takes its time."""
    greatest: dict[float, Stated] = {}
    for one in said:
        known = greatest.get(one.delta, one)
        greatest[one.delta] = max(known, one, key=lambda s: s.epsilon)
    return greatest.values()


def _capped(bodies: Iterable[Reserve]) -> list[Figure]:
    return [f for body in bodies for f in body.figures if f.scope == "cap per study"]


def _by_study(rest: Iterable[Readable]) -> list[list[Reserve]]:
    studies: dict[str, list[Reserve]] = {}
    for one in rest:
        if isinstance(one.body, Reserve):
            studies.setdefault(one.body.study, []).append(one.body)
    return list(studies.values())
