"""Whatever is lost of a ledger and of its audit log, a recovery assumes all that the rest tells."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from common.privacy.ledger import Cap, make_reserve
from common.privacy.ledger_entries import Reserve
from common.privacy.ledger_recovery import Given, plan_recovery
from common.privacy.ledger_salvage import salvage
from common.privacy.ledger_stated import Charged
from tests.ledgers import DELTA, INSTITUTION, SIGNER, Chain, charge, steps, toy_epsilon
from tests.unit.test_ledger_recovery_bounds import without

CAPS = {
    "none": (),
    "per study": (Cap(unit="patient", delta=DELTA, epsilon_per_study=100.0),),
    "lifetime": (Cap(unit="patient", delta=2 * DELTA, epsilon_lifetime=1000.0),),
}
ASKED = st.tuples(
    st.sampled_from("abc"), st.sampled_from([8, 16, 24]), st.sampled_from(sorted(CAPS))
)


@dataclass
class History:
    """A ledger, which lines of it are lost, and which of its reserves the log has."""

    chain: Chain
    lost: set[int]
    logged: list[int]

    @property
    def reserves(self):
        return {seq: r.body for seq, r in self.chain.state.reserves.items()}

    def charges(self):
        """As `charges_in` makes them."""
        made = {}
        for seq in self.logged:
            body = self.reserves[seq]
            one = Charged(
                study=body.study, unit=body.unit, epsilon=body.epsilon, delta=body.delta,
                ledger=self.chain.state.opened.ledger, reserve=seq,
            )  # fmt: skip
            made[body.study] = made.get(body.study, one).or_more(one)
        return tuple(made.values())

    def told(self):
        """Events of all reserves that a readable line or the log speaks of."""
        told = set(self.logged)
        for seq in self.logged:
            told |= self._before(seq, whole=False)
        for entry in self.chain.entries:
            if entry.seq not in self.lost and isinstance(entry.body, Reserve):
                held = any(f.scope == "lifetime cap" for f in entry.body.figures)
                told |= self._before(entry.seq, whole=held)
        return [event for seq in told for event in self.reserves[seq].events]

    def _before(self, last, *, whole):
        """A reserve tells of its study so far; one under a lifetime cap, of all so far."""
        study = self.reserves[last].study
        return {s for s, b in self.reserves.items() if s <= last and (whole or b.study == study)}


@st.composite
def histories(draw):
    chain = Chain()
    for number, (study, count, kind) in enumerate(draw(st.lists(ASKED, min_size=1, max_size=5)), 1):
        delta = DELTA if study == "a" else DELTA / 2
        asked = charge(number, study, events=(steps(count),), delta=delta)
        chain.add(make_reserve(chain.state, CAPS[kind], asked, toy_epsilon))
    lines = st.integers(min_value=1, max_value=len(chain.entries))
    logged = st.lists(st.sampled_from(sorted(chain.state.reserves)), unique=True)
    return History(chain, draw(st.sets(lines)), draw(logged))


@given(histories(), st.sampled_from([SIGNER.public_key, None]), st.sampled_from(sorted(CAPS)))
def test_a_recovery_assumes_no_less_than_what_is_left_tells(history, key, caps):
    plan = plan_recovery(
        salvage([without(history.chain, *history.lost)], INSTITUTION, key), reason="test",
        caps=CAPS[caps], assume={"patient": Given(epsilon=0.0, delta=DELTA / 4)}, heads=(),
        studies=(), charges=history.charges(), epsilon=toy_epsilon,
    )  # fmt: skip
    (assumed,) = plan.assumed
    assert assumed.epsilon >= toy_epsilon(history.told(), assumed.delta) - 1e-9
