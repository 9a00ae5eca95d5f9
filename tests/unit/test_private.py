"""One round of DP-SGD: what is drawn is clipped, summed, noised, divided and stepped along."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.study import Study
from common.data.encode import Window
from common.errors import DataError
from common.model.build import build_model, get_vector
from common.model.inputs import Collator, Tokenizer
from common.model.private import (
    PrivateData,
    Randomness,
    Recipe,
    noisy_gradient,
    physical_batches,
    train_privately,
)
from common.model.running import attend_for
from common.model.train import Examples, Stage, token_losses
from common.privacy.clipping import UnitClipper
from common.privacy.keystream import Keystream, Seed
from common.privacy.noise import add_noise_, grid_step
from common.privacy.plan import Mechanism
from common.privacy.units import Units
from tests import tiny

CPU = torch.device("cpu")
PATIENTS = ((3,), (0, 4, 5, 6, 7, 8), (), (1, 2))
"""One is long, one has no window."""
TAGS = 7
QUIET = 2.0**-40
"""A noise multiplier that leaves float32 sums as they are."""
STAGE = Stage(start=0.0, end=1.0, seed_text="test")
PRIVACY = (
    "{mechanism: local, unit: patient, noise_multiplier: 1, delta: 1e-3, clip: 1, "
    "sampling_rate: 0.5, steps_per_round: 1, declared_units: 8, optimizer: sgd, "
    "schedule: constant, evaluation: exact, settings_from: synthetic}"
)
MODEL = "{train: frozen_embeddings, dropout: 0}"
TRAINING = "{rounds: 1, learning_rate: 0.5, precision: float32}"


def units_of(rows: Sequence[Sequence[int]]) -> Units:
    return Units(tuple(f"u{i}" for i in range(len(rows))), tuple(tuple(r) for r in rows))


def examples_of(lengths: Sequence[int]) -> Examples:
    """Random tokens, each second one a word's first with a random tag."""
    rng = np.random.default_rng(3)
    windows, labels = [], []
    for length in lengths:
        owned = tuple(range(1, length - 1, 2))
        ids = (2, *rng.integers(5, 40, length - 2).tolist(), 3)
        windows.append(Window(0, ids, owned, owned))
        labels.append(tuple(rng.integers(0, TAGS, len(owned)).tolist()))
    return Examples(windows=tuple(windows), labels=tuple(labels))


COLLATE = Collator(pad_id=0, takes_token_types=True, first_position=0, n_positions=512)


def data_of(rows: Sequence[Sequence[int]], lengths: Sequence[int], collate: Collator = COLLATE):
    return PrivateData(examples=examples_of(lengths), units=units_of(rows), collate=collate)


LENGTHS = (9, 5, 12, 7, 9, 14, 6, 9, 10)


@pytest.fixture(scope="module")
def study(tiny_encoder) -> Study:
    return tiny.study(tiny_encoder, model=MODEL, privacy=PRIVACY, training=TRAINING)


@pytest.fixture
def model(tiny_encoder, study):
    return build_model(tiny_encoder, study)


@pytest.fixture
def data(model, tiny_encoder) -> PrivateData:
    return data_of(PATIENTS, LENGTHS, Collator.of(model, Tokenizer.load(tiny_encoder)))


def recipe_of(study: Study, physical_tokens: int = 64, **changes: Any) -> Recipe:
    settings = {
        "unit": "patient",
        "sampling_rate": 1.0,
        "clip": 0.5,
        "noise_multiplier": QUIET,
        "divisor": 3.0,
        "steps_per_round": 1,
    }
    privacy = replace(study.local_privacy, physical_tokens=physical_tokens)
    return Recipe(Mechanism(**(settings | changes)), privacy, study.training)


def randomness(seed: int = 1) -> Randomness:
    value = Seed.for_tests(seed).value
    return Randomness(Keystream(value, "sampling"), Keystream(value, "noise"))


def noised(model, data: PrivateData, recipe: Recipe, seed: int = 1) -> torch.Tensor:
    clipper = UnitClipper(model, recipe.mechanism.clip)
    return noisy_gradient(model, clipper, data, recipe, randomness(seed), CPU)


def gradients_of(model, data: PrivateData) -> list[torch.Tensor]:
    """Each unit's, by autograd alone: float64 `[size]`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for rows in data.units.rows:
        if rows:
            windows = [data.examples.windows[i] for i in rows]
            batch = data.collate(windows, [data.examples.labels[i] for i in rows])
            labels = batch.pop("labels")
            losses = token_losses(model(**batch).logits, labels)
            parts = torch.autograd.grad(losses.sum(), trained)
            found.append(torch.cat([part.flatten() for part in parts]).double())
    return found


# --- physical batches


@st.composite
def divided(draw: st.DrawFn) -> tuple[PrivateData, list[int], int]:
    """Units with any number of windows, none included; some of them drawn; a budget."""
    unit_of = draw(st.lists(st.integers(0, 6), max_size=20))
    lengths = draw(st.lists(st.integers(3, 30), min_size=len(unit_of), max_size=len(unit_of)))
    rows = [[row for row, u in enumerate(unit_of) if u == unit] for unit in range(7)]
    chosen = draw(st.lists(st.integers(0, 6), unique=True).map(sorted))
    return data_of(rows, lengths), chosen, draw(st.integers(16, 120))


@settings(deadline=None)
@given(divided())
def test_every_unit_drawn_that_has_windows_is_in_one_batch_and_no_other_is(drawn) -> None:
    data, chosen, budget = drawn
    batches = list(physical_batches(data, chosen, budget))
    assert sorted(u for batch in batches for u in batch) == [
        u for u in chosen if data.units.rows[u]
    ]
    assert all(batches)


@settings(deadline=None)
@given(divided())
def test_a_batch_fits_the_budget_unless_it_is_one_large_unit(drawn) -> None:
    data, chosen, budget = drawn
    for batch in physical_batches(data, chosen, budget):
        most = max(len(data.units.rows[unit]) for unit in batch)
        padded = most * len(batch) * data.length(data.units.rows[batch[0]])
        assert padded <= budget or len(batch) == 1


@settings(deadline=None)
@given(divided())
def test_units_of_a_batch_have_one_shape_each_by_itself(drawn) -> None:
    data, chosen, budget = drawn
    for batch in physical_batches(data, chosen, budget):
        alone = {data.length(data.units.rows[unit]) for unit in batch}
        together = data.length([row for unit in batch for row in data.units.rows[unit]])
        assert alone == {together}
        assert len({len(data.units.rows[unit]) for unit in batch}) == 1
        for window in data.examples.windows:
            assert 0 <= data.collate.padded(window) - len(window.input_ids) < 8


def test_one_large_unit_does_not_widen_all_others() -> None:
    """Clipping makes as many rows of each unit as the largest of its batch has."""
    rows = [tuple(range(16)), *((row,) for row in range(16, 32))]
    data = data_of(rows, [8] * 32)
    assert list(physical_batches(data, range(17), 4096)) == [list(range(1, 17)), [0]]


@pytest.mark.parametrize(
    ("positions", "expected"), [(512, (8, 8, 16, 16, 24)), (20, (8, 8, 16, 16, 20))]
)
def test_a_window_is_padded_to_a_multiple_of_8_or_the_encoders_positions(
    positions, expected
) -> None:
    collate = replace(COLLATE, n_positions=positions)
    windows = examples_of((3, 8, 9, 16, 17)).windows
    assert tuple(collate.padded(window) for window in windows) == expected


def test_an_empty_draw_has_no_batch() -> None:
    data = data_of(PATIENTS, LENGTHS)
    assert list(physical_batches(data, [], 64)) == []
    assert list(physical_batches(data, [2], 64)) == []


@pytest.mark.parametrize("rows", [((0,), (2,)), ((0, 1), (1, 2)), ((0, 1, 2), (3,)), ()])
def test_a_window_of_no_unit_or_of_two_is_refused(rows) -> None:
    with pytest.raises(DataError, match="exactly one unit"):
        data_of(rows, (5, 6, 7))


# --- the noised sum


LIKE_PADDING = 39


def attending_to_padding(model, collate: Collator):
    """A model whose scores overflow on words: attention is all padding's, or `LIKE_PADDING`'s.

    Where there is neither, they are NaN. What is changed are weights that a coordinator sends.
    """
    base = model.base_model
    half = base.config.hidden_size // 2
    there = torch.tensor([1.0, -1.0] * half)
    embeddings = base.embeddings

    def without(x: torch.Tensor) -> torch.Tensor:
        return x - torch.outer(x @ there / (2 * half), there)

    with torch.no_grad():
        words = embeddings.word_embeddings.weight
        words.copy_(without(0.3 * torch.randn_like(words)) - there)
        words[[collate.pad_id, LIKE_PADDING]] = torch.tensor([1.0, 1.0, -1.0, -1.0] * (half // 2))
        for other in (embeddings.position_embeddings, embeddings.token_type_embeddings):
            other.weight.copy_(without(other.weight))
        attention = base.encoder.layer[0].attention.self
        for weight in (*attention.value.parameters(), attention.query.weight, attention.key.bias):
            weight.zero_()
        attention.query.bias.fill_(1e19)
        attention.key.weight.copy_((there / (2 * half)).expand(2 * half, -1) * 3e18)
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_model_makes_the_others_follow_from_who_is_longest(
    model, study, tiny_encoder, precision
) -> None:
    collate = Collator.of(model, Tokenizer.load(tiny_encoder))
    attend_for(attending_to_padding(model.train(), collate), CPU)
    recipe = recipe_of(study, 4096, clip=0.1, divisor=1.0)
    recipe = replace(recipe, training=replace(recipe.training, precision=precision))
    data = data_of([(row,) for row in range(21)], [9] * 20 + [14], collate)
    windows = [replace(w, input_ids=tuple(min(i, 38) for i in w.input_ids))
               for w in data.examples.windows]  # fmt: skip
    longest = (2, LIKE_PADDING, *windows[-1].input_ids[2:])
    windows[-1] = replace(windows[-1], input_ids=longest)

    def sum_of(n: int) -> torch.Tensor:
        examples = Examples(windows=tuple(windows[:n]), labels=data.examples.labels[:n])
        units = units_of([(row,) for row in range(n)])
        return noised(
            model, PrivateData(examples=examples, units=units, collate=collate), recipe
        ).double()

    whole, without = sum_of(21), sum_of(20)
    assert 0 < whole.norm() < 0.1 * 21
    assert (whole - without).norm() <= 0.1 * (1 + 1e-3)


def test_the_others_do_not_follow_from_whether_one_is_padded(study, tiny_encoder) -> None:
    """In bfloat16. Without a mask of its own a batch rounds otherwise, by a hundredth of a clip."""
    lora = tiny.study(tiny_encoder, model="{train: lora, dropout: 0, lora: {rank: 4}}").model
    sharp = build_model(tiny_encoder, replace(study, model=lora)).train()
    attend_for(sharp, CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in sharp.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
            elif name.endswith(("query.base_layer.weight", "key.base_layer.weight")):
                parameter.mul_(30)
    collate = Collator.of(sharp, Tokenizer.load(tiny_encoder))
    recipe = recipe_of(study, 4096, clip=0.1, divisor=1.0)
    recipe = replace(recipe, training=replace(recipe.training, precision="bfloat16"))
    sums = [
        noised(sharp, data_of([(i,) for i in range(len(n))], n, collate), recipe).double()
        for n in ([16] * 20, [16] * 20 + [13])
    ]
    assert 0.99 * 0.1 <= (sums[1] - sums[0]).norm() <= 0.1 * (1 + 1e-3)


@pytest.mark.parametrize("physical_tokens", [16, 30, 64, 4096])
@pytest.mark.parametrize("clip", [0.5, 20.0, 1e4])
def test_the_sum_is_that_of_units_clipped_one_at_a_time_over_the_divisor(
    model, data, study, clip, physical_tokens
) -> None:
    gradients = gradients_of(model.train(), data)
    expected = sum(g / max(1.0, float(g.norm()) / clip) for g in gradients) / 3.0
    found = noised(model, data, recipe_of(study, physical_tokens, clip=clip)).double()
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    norms = sorted(float(g.norm()) for g in gradients)
    assert norms[0] > 0.5
    assert norms[-1] < 1e4
    assert norms[0] < 20.0 < norms[-1]


def test_a_unit_larger_than_a_batch_goes_in_parts_that_fit(model, data, study, monkeypatch) -> None:
    parts, batches = [], []
    large, rows = UnitClipper.add_large, UnitClipper.rows

    def add_large(self, losses, n_rows):
        parts.append(n_rows)
        return large(self, losses, n_rows)

    def announced(self, units):
        batches.append(list(units))
        return rows(self, units)

    monkeypatch.setattr(UnitClipper, "add_large", add_large)
    monkeypatch.setattr(UnitClipper, "rows", announced)
    noised(model, data, recipe_of(study, physical_tokens=40))
    # six rows of up to 14 sub-words, padded to 16: two at a time; the others fit, of two lengths
    assert parts == [[2, 2, 2]]
    assert batches == [[0], [0, 0], [0, 0], [0, 0], [0, 0]]


def test_a_sum_differs_by_at_most_the_clip_with_and_without_any_unit(model, data, study) -> None:
    clip, divisor = 0.5, 3.0
    whole = noised(model, data, recipe_of(study, clip=clip)).double()
    for unit, gone in enumerate(PATIENTS):
        left = [row for row in range(len(LENGTHS)) if row not in gone]
        number = {row: i for i, row in enumerate(left)}
        rows = [[number[r] for r in u] for i, u in enumerate(PATIENTS) if i != unit]
        examples = Examples(
            windows=tuple(data.examples.windows[r] for r in left),
            labels=tuple(data.examples.labels[r] for r in left),
        )
        without = PrivateData(examples=examples, units=units_of(rows), collate=data.collate)
        found = noised(model, without, recipe_of(study, clip=clip)).double()
        moved = divisor * float((whole - found).norm())
        # float32 rounding of the other units' forward passes, in a batch of another size
        assert moved <= clip * (1 + 1e-5)
        assert moved >= 0.99 * clip * bool(gone)


@pytest.mark.parametrize("case", ["none drawn", "no unit", "no window"])
def test_a_step_without_rows_is_noise_alone_over_the_same_divisor(model, data, study, case) -> None:
    rate = 2.0**-60 if case == "none drawn" else 1.0
    if case != "none drawn":
        rows = () if case == "no unit" else ((), ())
        data = data_of(rows, (), data.collate)
    recipe = recipe_of(study, noise_multiplier=1.5, sampling_rate=rate, divisor=7.0)
    noise = torch.zeros(get_vector(model).size)
    add_noise_(noise, 1.5 * 0.5, randomness().noise)
    assert noised(model, data, recipe).equal(noise / 7.0)


def test_noise_is_added_once_to_the_whole_sum_on_the_public_grid(model, data, study) -> None:
    """Not once for each physical batch, and before the division."""
    one, many = (
        noised(model, data, recipe_of(study, tokens, noise_multiplier=2.0, divisor=1.0))
        for tokens in (4096, 16)
    )
    grid = grid_step(2.0 * 0.5)
    assert ((one / grid).round() * grid).equal(one)
    assert (one - many).abs().max() <= grid
    plain = noised(model, data, recipe_of(study, divisor=1.0))
    assert float((one - plain).std()) == pytest.approx(1.0, rel=0.02)


def test_the_divisor_is_the_mechanisms_whatever_was_drawn(model, data, study) -> None:
    for rate in (1.0, 0.5, 2.0**-60):
        one, other = (
            noised(model, data, recipe_of(study, sampling_rate=rate, divisor=divisor))
            for divisor in (4.0, 8.0)
        )
        assert one.equal(2 * other)


def test_sampling_and_noise_follow_from_their_keystreams_alone(model, data, study) -> None:
    recipe = recipe_of(study, sampling_rate=0.5, noise_multiplier=1.0)
    torch.manual_seed(1)
    one = noised(model, data, recipe)
    torch.manual_seed(2)
    assert noised(model, data, recipe).equal(one)
    assert not noised(model, data, recipe, seed=2).equal(one)


def test_two_uses_of_one_clipper_are_two_draws_and_not_a_running_sum(model, data, study) -> None:
    recipe, source = recipe_of(study), randomness()
    clipper = UnitClipper(model, recipe.mechanism.clip)
    one, other = (noisy_gradient(model, clipper, data, recipe, source, CPU) for _ in range(2))
    assert torch.allclose(one, other, rtol=0, atol=1e-7)
    noisy = recipe_of(study, noise_multiplier=1.0)
    one, other = (noisy_gradient(model, clipper, data, noisy, source, CPU) for _ in range(2))
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.1


# --- steps


def test_a_step_follows_the_noised_gradient_and_no_other(model, data, study) -> None:
    recipe = recipe_of(study, noise_multiplier=1.0)
    expected = noised(model.train(), data, recipe).numpy()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    before = get_vector(model)
    train_privately(model, data, recipe, STAGE, randomness(), CPU)
    moved = get_vector(model) - before
    assert np.allclose(moved, -0.5 * expected, rtol=1e-4, atol=1e-6)
    assert all(p.equal(frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("rate", [1.0, 0.5, 2.0**-60])
def test_steps_and_progress_are_as_many_whatever_was_drawn(model, data, study, rate) -> None:
    recipe = recipe_of(study, noise_multiplier=1.0, steps_per_round=3, sampling_rate=rate)
    told, before = [], get_vector(model)
    train_privately(model, data, recipe, STAGE, randomness(), CPU, lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]
    # three steps of independent noise: 0.5 / 3 each, times the learning rate
    stddev = float(np.std(get_vector(model) - before))
    assert stddev == pytest.approx(0.5 * 0.5 / 3.0 * 3**0.5, rel=0.05)


def test_an_institution_without_units_sends_noise_and_no_error(model, data, study) -> None:
    recipe = recipe_of(study, noise_multiplier=1.0)
    nobody = data_of((), (), data.collate)
    before = get_vector(model)
    train_privately(model, nobody, recipe, STAGE, randomness(), CPU)
    assert np.count_nonzero(get_vector(model) - before) > 0.99 * before.size


def test_a_linear_schedule_follows_the_studys_progress_and_a_constant_one_does_not(
    model, data, study
) -> None:
    lengths = {}
    for schedule in ("constant", "linear"):
        recipe = recipe_of(study, noise_multiplier=1.0)
        recipe = replace(recipe, privacy=replace(recipe.privacy, schedule=schedule))
        for late in (False, True):
            stage = Stage(start=0.9, end=1.0, seed_text="s") if late else STAGE
            before = get_vector(model)
            train_privately(model, data_of((), (), data.collate), recipe, stage, randomness(), CPU)
            lengths[schedule, late] = float(np.linalg.norm(get_vector(model) - before))
    assert lengths["constant", False] == pytest.approx(lengths["constant", True], rel=1e-3)
    assert lengths["linear", True] < 0.2 * lengths["linear", False]


def poisoned(model, row):
    """A hook that makes the forward pass overflow on one window's tokens, and on no others."""
    mark = torch.tensor(examples_of(LENGTHS).windows[row].input_ids)

    def spoil(_module, inputs, output):
        tokens = inputs[0][:, : len(mark)]
        same = (tokens == mark[: tokens.shape[1]]).all(1)
        return torch.where(same[:, None, None], torch.full_like(output, float("inf")), output)

    return model.base_model.embeddings.word_embeddings.register_forward_hook(spoil)


@pytest.mark.parametrize(("unit", "budget"), [(0, 64), (0, 200), (1, 200), (1, 32)])
def test_a_unit_whose_gradient_is_not_finite_adds_nothing_and_the_others_all(
    model, data, study, unit, budget
) -> None:
    """In a batch with others, and as one that is larger than a batch."""
    recipe = recipe_of(study, physical_tokens=budget)
    gone = set(PATIENTS[unit])
    examples = Examples(
        windows=tuple(
            replace(w, words=(), positions=()) if i in gone else w
            for i, w in enumerate(data.examples.windows)
        ),
        labels=tuple(() if i in gone else t for i, t in enumerate(data.examples.labels)),
    )
    expected = noised(model, replace(data, examples=examples), recipe)
    hook = poisoned(model, PATIENTS[unit][-1])
    found = noised(model, data, recipe)
    hook.remove()
    assert expected.any()
    assert not torch.allclose(noised(model, data, recipe), expected, rtol=1e-2, atol=1e-4)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_model_that_is_not_finite_for_anyone_gives_noise_and_no_error(model, data, study) -> None:
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    found = noised(model, data, recipe_of(study, noise_multiplier=1.0))
    assert found.isfinite().all()
    assert found.any()
