"""What a session computes is what its study says, and what its ledger is charged for.

Requests go through `Session.handle` on a real model. What is looked at is not the plan but what its
parts were called with, and which inputs went through the model. Noise and draws are the operating
system's: each checker's false-alarm level is stated, and it is also called on what it must refuse.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

import common.model.private
import common.privacy.counts
from client.guard import open_guard
from client.session import Party, Session
from common.config.canonical import study_hash
from common.config.site import Policy
from common.config.study import Study
from common.data.encode import Window, sentence_ranges
from common.io.datasets import simulated_sides
from common.metrics.evaluation import Evaluation
from common.model.ner import NerModel, Prepared
from common.model.private import Recipe
from common.privacy.events import GaussianSteps
from common.privacy.ledger_entries import Purpose, Reserve
from common.privacy.ledger_spend import pld_epsilon
from common.privacy.plan import Mechanism
from common.privacy.units import Units
from common.wire import Kind, Request, counts_from_bytes, decode_reply, encode
from tests import tiny
from tests.statistical.test_counts import slow_sum
from tests.statistical.test_noise import variance_fits

ALARM = 1e-7
NAME = tiny.INSTITUTIONS[0]
POLICY = Policy(accept_secure_aggregation_none=True)
ROUNDS, STEPS, MANY_STEPS = 2, 3, 20
RATE, NOISE, CLIP, DECLARED = 0.3, 1.5, 0.5, 11
COUNTS_EPSILON, COUNTS_CLIP = 40.0, 30
"""Little noise on counts, of which every document has more than the clip: the unit shows."""
PRIVACY = (
    f"noise_multiplier: {NOISE}, delta: 1e-3, clip: {CLIP}, sampling_rate: {RATE}, "
    f"declared_units: {DECLARED}, settings_from: synthetic, "
    f"evaluation: {{epsilon: {COUNTS_EPSILON}, clip: {COUNTS_CLIP}}}"
)
NOTES = "{synthetic: {patients_per_institution: 16, notes_per_patient: [2, 2]}}"
CASES = [("patient", "document"), ("record", "document"), ("record", "sentence")]
"""Units, and how documents are cut. Each patient has two documents."""


def study_of(encoder, unit: str, context: str, steps: int = STEPS) -> Study:
    return tiny.study(
        encoder,
        text=f"{{context: {context}, max_tokens: 80, overlap_tokens: 8}}",
        model="{train: head, dropout: 0}",
        training=f"{{rounds: {ROUNDS}, learning_rate: 1e-3, precision: float32}}",
        privacy=f"{{mechanism: local, unit: {unit}, steps_per_round: {steps}, {PRIVACY}}}",
        simulation=NOTES,
    )


@pytest.fixture(scope="module")
def institution(tiny_encoder, tmp_path_factory):
    """Model and party for each way of cutting."""
    made: dict[str, tuple[NerModel, Party]] = {}
    for context in ("document", "sentence"):
        study = study_of(tiny_encoder, "patient", context)
        model = NerModel(tiny_encoder, study, "cpu")
        sides = simulated_sides(study, tmp_path_factory.mktemp("base"))[NAME]
        train, test = model.prepare(sides.train), model.prepare(sides.test)
        party = Party(name=NAME, policy=POLICY, encoder="f" * 64, train=train, test=test)
        made[context] = model, party
    return made


@dataclass
class Asked:
    """A session and its study, asked through the wire's own bytes."""

    study: Study
    model: NerModel
    party: Party
    session: Session

    def ask(self, kind: Kind, round_: int) -> bytes:
        request = Request(kind=kind, study=study_hash(self.study), round=round_)
        reply = decode_reply(self.session.handle(encode(request)))
        assert reply.refusal == ""
        return reply.body

    def charged(self, purpose: Purpose, round_: int) -> Reserve:
        """The one reserve of a request."""
        reserves = [r.body for r in self.session.ledger.reserves.values()]
        (found,) = [r for r in reserves if (r.purpose, r.round) == (purpose, round_)]
        return found


@pytest.fixture
def start(tiny_encoder, institution, tmp_path):
    running: list[Session] = []

    def make(unit: str, context: str, steps: int = STEPS) -> Asked:
        study = study_of(tiny_encoder, unit, context, steps)
        model, party = institution[context]
        guard = open_guard(study, NAME, POLICY, tmp_path / "ledger", model.layout.size)
        running.append(Session(study, party, model, guard=guard))
        return Asked(study, model, party, running[-1])

    yield make
    while running:
        running.pop().close()


@dataclass
class Seen:
    """What the parts of the mechanism were called with, in order."""

    recipes: list[Recipe] = field(default_factory=list)
    units: list[Units] = field(default_factory=list)
    divisors: list[float] = field(default_factory=list)
    """What noised sums were over, as found from sum and gradient."""
    draws: list[tuple[int, float]] = field(default_factory=list)
    """From how many, and at which rate."""
    clips: list[float] = field(default_factory=list)
    stddevs: list[float] = field(default_factory=list)
    by_unit: list[np.ndarray] = field(default_factory=list)

    def event(self, rate: float) -> GaussianSteps:
        """What has happened, as an event."""
        (clip,), (stddev,) = set(self.clips), set(self.stddevs)
        return GaussianSteps(
            sampling_rate=rate, noise_multiplier=stddev / clip, steps=len(self.stddevs)
        )


@pytest.fixture
def seen(monkeypatch) -> Seen:
    """The real parts run; each notes what it got."""
    found = Seen()

    def note(module, name, noted):
        real = getattr(module, name)

        def part(*arguments):
            result = real(*arguments)
            noted(*arguments, result)
            return result

        monkeypatch.setattr(module, name, part)

    def step(_, clipper, data, recipe, *others):
        found.recipes.append(recipe)
        found.units.append(data.units)
        found.divisors.append(float(clipper.total.norm() / others[-1].norm()))

    def counted(by_unit, clip, _):
        found.by_unit.append(by_unit.copy())
        found.clips.append(clip)

    training, counts = common.model.private, common.privacy.counts
    note(training, "noisy_gradient", step)
    note(training, "poisson_sample", lambda n, rate, *_: found.draws.append((n, rate)))
    note(training, "UnitClipper", lambda _, clip, __: found.clips.append(clip))
    note(counts, "clipped_sum", counted)
    for module in (training, counts):
        note(module, "add_noise_", lambda _, stddev, *__: found.stddevs.append(stddev))
    return found


def unit_of(prepared: Prepared, window: Window, unit: str, context: str) -> tuple:
    """Whose a window is, found another way than the product does."""
    document = prepared.documents[window.document]
    if unit == "patient":
        return (document.patient_id,)
    if context == "document":
        return (document.doc_id,)
    ranges = sentence_ranges(document)
    (sentence,) = {i for w in window.words for i, (a, b) in enumerate(ranges) if a <= w < b}
    return document.doc_id, sentence


def rows_by_unit(prepared: Prepared, unit: str, context: str) -> dict[tuple, list[int]]:
    found: dict[tuple, list[int]] = {}
    for row, window in enumerate(prepared.windows):
        found.setdefault(unit_of(prepared, window, unit, context), []).append(row)
    return found


def counts_by_unit(asked: Asked, unit: str) -> np.ndarray:
    """Of the initial model, summed by hand, less the one count that no score uses."""
    asked.model.set_delta(None)
    each, documents = asked.model.evaluate_each(asked.party.test), asked.party.test.documents
    each[:, Evaluation.outside(asked.study.task.labels)] = 0
    if unit == "record":
        return each
    patients = sorted({d.patient_id for d in documents})
    return np.stack([each[[d.patient_id == p for d in documents]].sum(axis=0) for p in patients])


def in_order(rows: np.ndarray) -> list[list[int]]:
    return sorted(rows.tolist())


# training


@pytest.mark.parametrize(("unit", "context"), CASES)
def test_training_is_the_studys_mechanism_and_what_is_charged(start, seen, unit, context):
    asked = start(unit, context)
    asked.ask("train", 1)
    assert set(seen.clips) == {CLIP}
    assert {rate for _, rate in seen.draws} == {RATE}
    assert len(seen.recipes) == len(seen.draws) == STEPS
    charged = asked.charged("train", 1)
    assert charged.unit == unit
    assert charged.events == (seen.event(RATE),)
    assert seen.event(RATE) == GaussianSteps(
        sampling_rate=RATE, noise_multiplier=NOISE, steps=STEPS
    )
    assert seen.divisors == pytest.approx([RATE * DECLARED] * STEPS, rel=1e-5)
    for recipe in seen.recipes:
        assert recipe.mechanism == Mechanism(
            unit=unit,
            sampling_rate=RATE,
            clip=CLIP,
            noise_multiplier=NOISE,
            divisor=RATE * DECLARED,
            steps_per_round=STEPS,
        )
        assert recipe.privacy == asked.study.local_privacy
        assert recipe.training == asked.study.training


@pytest.mark.parametrize(("unit", "context"), CASES)
def test_training_draws_from_the_studys_units(start, seen, unit, context):
    """Two records of one patient are one unit of a study on patients."""
    asked = start(unit, context)
    asked.ask("train", 2)
    expected = rows_by_unit(asked.party.train, unit, context)
    assert set(seen.draws) == {(len(expected), RATE)}
    for units in seen.units:
        assert sorted(units.rows) == sorted(tuple(rows) for rows in expected.values())
    if unit == "patient":
        assert len(expected) == len(asked.party.train.documents) / 2


def within(counts: list[int], trials: int, chance: float) -> bool:
    """All within two-sided binomial bounds; false alarm `ALARM` over all of them."""
    share = ALARM / (2 * len(counts))
    low, high = stats.binom.ppf(share, trials, chance), stats.binom.isf(share, trials, chance)
    return all(low <= count <= high for count in counts)


@pytest.fixture
def forward(institution) -> Iterator[list[Counter[int]]]:
    """Rows that went through the model, each forward pass its own: by their sub-words."""
    model, party = institution["document"]
    passes: list[Counter[int]] = []
    rows = {window.input_ids: row for row, window in enumerate(party.train.windows)}
    assert len(rows) == len(party.train.windows)

    def look(_, __, inputs):
        there = inputs["attention_mask"][:, 0, 0] == 0  # what the eager kernel adds to scores
        pairs = zip(inputs["input_ids"], there, strict=True)
        passes.append(Counter(rows[tuple(ids[mask].tolist())] for ids, mask in pairs))

    handle = model.module.register_forward_pre_hook(look, with_kwargs=True)
    yield passes
    handle.remove()


@pytest.mark.parametrize("unit", ["patient", "record"])
def test_units_go_through_the_model_whole_and_at_the_studys_rate(start, forward, unit):
    """Two records of one patient join together in a study on patients, and else apart."""
    asked = start(unit, "document", MANY_STEPS)
    asked.ask("train", 1)
    units = list(rows_by_unit(asked.party.train, unit, "document").values())
    joined = np.array([[u[0] in rows for u in units] for rows in forward])
    for present, rows in zip(joined, forward, strict=True):
        whole = [units[i] for i in np.flatnonzero(present)]
        assert rows == Counter(row for unit_rows in whole for row in unit_rows)
    assert within(joined.sum(axis=0).tolist(), MANY_STEPS, RATE)
    total, trials = [int(joined.sum())], MANY_STEPS * len(units)
    assert within(total, trials, RATE)
    assert not within(total, trials, 3 * RATE)
    assert not within(total, trials, 1.0)
    if unit == "record":
        together = int((joined[:, 0::2] & joined[:, 1::2]).sum())
        assert within([together], trials // 2, RATE * RATE)
        assert not within([total[0] // 2], trials // 2, RATE * RATE)


# counts


@pytest.mark.parametrize(("unit", "context"), CASES)
def test_counts_are_noised_by_the_studys_mechanism_as_charged(start, seen, unit, context):
    asked = start(unit, context)
    asked.ask("evaluate", 1)
    charged = asked.charged("evaluate", 1)
    assert charged.unit == unit
    assert charged.events == (seen.event(1.0),)
    assert seen.clips == [COUNTS_CLIP]
    assert len(seen.stddevs) == 1
    whole = pld_epsilon(charged.events * ROUNDS, charged.delta)
    assert 0.95 * COUNTS_EPSILON < whole <= COUNTS_EPSILON


@pytest.mark.parametrize("unit", ["patient", "record"])
def test_counts_are_clipped_by_the_studys_unit(start, seen, unit):
    """Two records of one patient are one vector of a study on patients."""
    asked = start(unit, "document")
    asked.ask("evaluate", 1)
    (by_unit,) = seen.by_unit
    assert in_order(by_unit) == in_order(counts_by_unit(asked, unit))
    other = "record" if unit == "patient" else "patient"
    assert in_order(by_unit) != in_order(counts_by_unit(asked, other))


def test_counts_of_sentences_are_one_vector_for_each(start, seen):
    asked = start("record", "sentence")
    asked.ask("evaluate", 1)
    (by_unit,) = seen.by_unit
    assert len(by_unit) == sum(len(sentence_ranges(d)) for d in asked.party.test.documents)
    assert (by_unit.sum(axis=0) == counts_by_unit(asked, "record").sum(axis=0)).all()


@pytest.mark.parametrize("unit", ["patient", "record"])
def test_what_leaves_is_the_clipped_sum_and_noise_of_the_size_that_is_charged(start, unit):
    asked = start(unit, "document")
    size = Evaluation.size(asked.study.task.labels)
    bodies = [asked.ask("evaluate", r) for r in range(1, ROUNDS + 1)]
    found = np.stack([counts_from_bytes(body, size, noised=True) for body in bodies])
    (event,) = asked.charged("evaluate", 1).events
    stddev = np.hypot(event.noise_multiplier * COUNTS_CLIP, 12**-0.5)  # rounded to whole numbers
    by_unit = counts_by_unit(asked, unit)
    noise = (found - slow_sum(by_unit, COUNTS_CLIP)).ravel()
    assert variance_fits(noise, stddev)
    assert not variance_fits(noise, stddev * 3)
    other = counts_by_unit(asked, "record" if unit == "patient" else "patient")
    for wrong in (slow_sum(other, COUNTS_CLIP), by_unit.sum(axis=0)):
        assert not variance_fits((found - wrong).ravel(), stddev)
