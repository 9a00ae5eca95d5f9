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
    """What a study charged a unit in one ledger, by the site's audit log.

    Attributes:
        epsilon, delta: what the study came to, at its delta.
        ledger, reserve: id of the ledger, and the number of the newest such entry.
    """

    study: str
    unit: Unit
    epsilon: float
    delta: float
    ledger: str
    reserve: int

    def or_more(self, other: "Charged") -> "Charged":
        """Of both, which are of one study, unit and ledger."""
        return replace(
            self,
            epsilon=max(self.epsilon, other.epsilon),
            delta=max(self.delta, other.delta),
            reserve=max(self.reserve, other.reserve),
        )


def stated(
    unit: Unit, entries: Sequence[Readable], charges: Iterable[Charged], epsilon: Epsilon
) -> list[Stated]:
    """What the entries, oldest first, and the log say of a unit; all of it holds.

    Returns:
        Every figure of a lifetime. If there are reserves or charges that none of them covers, also
        the greatest of them plus what the studies of these state, epsilons and deltas added up; of
        charges that a recovery knew of, what they come to above its assumption. Not so where no
        lifetime is stated and the readable, proven events account for all that is: then nothing is
        hidden, and their composition says more. A figure covers what stands before it only if it is
        signed with the institution's own key, and no unproven entry.
    """
    own = [c for c in charges if c.unit == unit]
    whole, rest = _by_entries(unit, entries)
    earlier, later = uncovered(unit, entries, own, epsilon)
    more = _excess(unit, entries, own) if earlier else []
    if not later and not more and (not rest or (not whole and _is_explained(rest, epsilon))):
        return whole
    parts = [*_parts(rest, later, epsilon), *more]
    parts += [_greater(*whole)] if whole else []
    return [*whole, _sum(parts)]


def uncovered(
    unit: Unit, entries: Sequence[Readable], charges: Iterable[Charged], epsilon: Epsilon
) -> tuple[list[Charged], list[Charged]]:
    """The charges of a unit that no entry tells of: those that a recovery knew of and so may have
    counted, and all others.
    """
    _, rest = _by_entries(unit, entries)
    own = [one for one in entries if one.proof is Proof.KEY]
    lost = [
        c
        for c in charges
        if c.unit == unit
        and not any(_covers(one, c, epsilon) for one in own)
        and not any(_tells(one, c) for one in rest)  # it adds as much itself, proven or not
    ]
    earlier = [c for c in lost if any(_knew(one.body, c) for one in own)]
    return earlier, [c for c in lost if c not in earlier]


def _knew(body: Body, charged: Charged) -> bool:
    """Whether a recovery knew of a charge: it closed the study, and follows that ledger."""
    if not isinstance(body, Recover):
        return False
    return charged.study in body.closed and charged.ledger in body.ledgers


def _by_entries(unit: Unit, entries: Iterable[Readable]) -> tuple[list[Stated], list[Readable]]:
    """Every figure of a lifetime, and the reserves that none covers."""
    whole: list[Stated] = []
    rest: list[Readable] = []
    for one in entries:
        figures = of_lifetime(unit, one.body)
        whole += figures
        if figures and one.proof is Proof.KEY:
            rest = [r for r in rest if r.proof is Proof.NONE]
        elif not figures and isinstance(one.body, Reserve) and one.body.unit == unit:
            rest.append(one)
    return whole, rest


def _excess(unit: Unit, entries: Iterable[Readable], charges: Iterable[Charged]) -> list[Stated]:
    """What the charges that recoveries knew of come to above what these assumed, if they do."""
    recoveries = [e.body for e in entries if e.proof is Proof.KEY and isinstance(e.body, Recover)]
    known = [c for c in charges if any(_knew(body, c) for body in recoveries)]
    told = _sum([Stated(c.epsilon, c.delta) for c in known])
    assumed = [a.epsilon for body in recoveries for a in body.assumed if a.unit == unit]
    above = told.epsilon - max(assumed, default=0.0)
    return [Stated(above, told.delta)] if above > 0 else []


def _covers(one: Readable, charged: Charged, epsilon: Epsilon) -> bool:
    """A later figure of the lifetime does, a reserve that states as much, and a recovery that
    carries as much.
    """
    body = one.body
    if isinstance(body, Recover):
        same = [c for c in body.carried if (c.study, c.unit) == (charged.study, charged.unit)]
        return any(epsilon(c.events, charged.delta) >= charged.epsilon for c in same)
    after = one.ledger == charged.ledger and one.entry.seq >= charged.reserve
    return (after and bool(of_lifetime(charged.unit, body))) or _tells(one, charged)


def _tells(one: Readable, charged: Charged) -> bool:
    """Whether a reserve states as much; where its ledger is not known, it must be this very one."""
    body = one.body
    if not isinstance(body, Reserve):
        return False
    if (body.study, body.unit) != (charged.study, charged.unit):
        return False
    if one.ledger is None:
        return (one.entry.seq, body.epsilon) == (charged.reserve, charged.epsilon)
    return one.ledger == charged.ledger and body.epsilon >= charged.epsilon


def _parts(rest: Sequence[Readable], later: Iterable[Charged], epsilon: Epsilon) -> list[Stated]:
    """What each study comes to; a charge goes with the reserves of its study in its ledger."""
    parts = {("", study): _of_study(bodies, epsilon) for study, bodies in _by_study(rest).items()}
    readable = {(r.ledger, r.body.study) for r in rest if isinstance(r.body, Reserve)}
    for charged in later:
        ledger = "" if (charged.ledger, charged.study) in readable else charged.ledger
        said, key = Stated(charged.epsilon, charged.delta), (ledger, charged.study)
        parts[key] = _greater(parts.get(key, said), said)
    return list(parts.values())


def _greater(*said: Stated) -> Stated:
    return Stated(max(s.epsilon for s in said), max(s.delta for s in said))


def _sum(said: Sequence[Stated]) -> Stated:
    return Stated(sum(s.epsilon for s in said), sum(s.delta for s in said))


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
    return _greater(released, *every)


def _is_explained(rest: Sequence[Readable], epsilon: Epsilon) -> bool:
    proven = all(one.proof is not Proof.NONE for one in rest)
    return proven and all(_is_whole(b, epsilon) for b in _by_study(rest).values())


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


def _by_study(rest: Iterable[Readable]) -> dict[str, list[Reserve]]:
    studies: dict[str, list[Reserve]] = {}
    for one in rest:
        if isinstance(one.body, Reserve):
            studies.setdefault(one.body.study, []).append(one.body)
    return studies
