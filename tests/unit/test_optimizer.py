"""The coordinator's step against slow loops over float64, and its mean whatever is missing."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest

from common.config.study import Aggregation
from server.optimizer import ServerOptimizer, Vector, weighted_mean

DIMENSION, ROUNDS = 7, 12


def updates_of(seed: int, rounds: int = ROUNDS) -> list[Vector]:
    """Updates of very different sizes, zeros among them."""
    generator = np.random.Generator(np.random.PCG64(seed))
    scale = np.array([0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1.0, 10.0])
    return [(generator.normal(size=DIMENSION) * scale).astype(np.float32) for _ in range(rounds)]


def fedavg(settings: Aggregation, updates: list[Vector]) -> list[float]:
    model = [0.0] * DIMENSION
    for update in updates:
        for i in range(DIMENSION):
            model[i] += settings.rate * float(update[i])
    return model


def fedadam(settings: Aggregation, updates: list[Vector]) -> list[float]:
    """arXiv 2003.00295, algorithm 2: v starts at tau², no bias correction."""
    s = settings
    model, m, v = [0.0] * DIMENSION, [0.0] * DIMENSION, [s.tau**2] * DIMENSION
    for update in updates:
        for i in range(DIMENSION):
            d = float(update[i])
            m[i] = s.beta1 * m[i] + (1 - s.beta1) * d
            v[i] = s.beta2 * v[i] + (1 - s.beta2) * d * d
            model[i] += s.rate * m[i] / (math.sqrt(v[i]) + s.tau)
    return model


def adam(settings: Aggregation, updates: list[Vector]) -> list[float]:
    """arXiv 1412.6980, algorithm 1, ascending."""
    s = settings
    model, m, v = [0.0] * DIMENSION, [0.0] * DIMENSION, [0.0] * DIMENSION
    for t, update in enumerate(updates, start=1):
        for i in range(DIMENSION):
            d = float(update[i])
            m[i] = s.beta1 * m[i] + (1 - s.beta1) * d
            v[i] = s.beta2 * v[i] + (1 - s.beta2) * d * d
            m_hat, v_hat = m[i] / (1 - s.beta1**t), v[i] / (1 - s.beta2**t)
            model[i] += s.rate * m_hat / (math.sqrt(v_hat) + s.tau)
    return model


def run(settings: Aggregation, updates: list[Vector]) -> ServerOptimizer:
    optimizer = ServerOptimizer.start(settings, DIMENSION)
    for update in updates:
        optimizer.step(update)
    return optimizer


FEDAVG = [Aggregation(), Aggregation(learning_rate=0.3)]
FEDADAM = [
    Aggregation(optimizer="fedadam", learning_rate=1e-3),
    Aggregation(optimizer="fedadam", learning_rate=0.05, beta1=0.5, beta2=0.9, tau=0.1),
    Aggregation(optimizer="fedadam", learning_rate=1e-2, beta1=0.0, beta2=0.0, tau=1e-2),
]

ADAM = [
    Aggregation(optimizer="adam", learning_rate=1e-3, tau=1e-8),
    Aggregation(optimizer="adam", learning_rate=0.05, beta1=0.5, beta2=0.9, tau=0.1),
]


@pytest.mark.parametrize("settings", ADAM)
def test_adam_follows_the_paper(settings: Aggregation) -> None:
    updates = updates_of(5)
    found = run(settings, updates).delta
    np.testing.assert_allclose(found, adam(settings, updates), rtol=2e-5, atol=1e-9)


def test_the_rate_factor_scales_a_step() -> None:
    update = updates_of(6)[0]
    for settings in (FEDAVG[1], FEDADAM[0], ADAM[0]):
        whole, half = (ServerOptimizer.start(settings, DIMENSION) for _ in range(2))
        whole.step(update)
        half.step(update, 0.5)
        np.testing.assert_allclose(2 * half.delta, whole.delta, rtol=1e-6)


def test_the_average_weighs_every_round_and_is_what_is_released() -> None:
    updates = updates_of(7)
    optimizer = ServerOptimizer.start(Aggregation(average=0.8), DIMENSION)
    assert not optimizer.released.any()
    models, weights = [], []
    for update in updates:
        optimizer.step(update)
        models.append(optimizer.delta.astype(np.float64))
        weights = [0.8 * w for w in weights] + [0.2]
        expected = np.average(models, axis=0, weights=weights)
        np.testing.assert_allclose(optimizer.released, expected, rtol=1e-5, atol=1e-9)
    assert not np.allclose(optimizer.released, optimizer.delta)


def test_without_an_average_the_model_itself_is_released() -> None:
    optimizer = run(FEDAVG[0], updates_of(8))
    assert optimizer.released is optimizer.delta


@pytest.mark.parametrize("average", [None, 0.8])
def test_interpolation_shortens_what_is_released_and_nothing_else(average: float | None) -> None:
    settings = Aggregation(optimizer="adam", learning_rate=0.1, average=average)
    whole = run(settings, updates_of(9))
    most = run(replace(settings, interpolation=0.75), updates_of(9))
    np.testing.assert_array_equal(most.delta, whole.delta)
    np.testing.assert_array_equal(most.released, 0.75 * whole.released)
    assert whole.released.any()


@pytest.mark.parametrize("settings", FEDAVG)
def test_fedavg_adds_the_scaled_mean(settings: Aggregation) -> None:
    updates = updates_of(1)
    optimizer = run(settings, updates)
    np.testing.assert_allclose(optimizer.delta, fedavg(settings, updates), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("settings", FEDADAM)
def test_fedadam_is_algorithm_2_of_its_paper(settings: Aggregation) -> None:
    for rounds in (1, 2, ROUNDS):
        updates = updates_of(2, rounds)
        optimizer = run(settings, updates)
        np.testing.assert_allclose(
            optimizer.delta, fedadam(settings, updates), rtol=1e-4, atol=1e-6
        )


def test_the_first_step_of_fedadam_has_no_bias_correction() -> None:
    settings = Aggregation(optimizer="fedadam", learning_rate=1.0, beta2=0.99, tau=1e-6)
    optimizer = run(settings, [np.full(DIMENSION, 2.0, np.float32)])
    assert optimizer.delta[0] == pytest.approx(0.1 / math.sqrt(0.01), rel=1e-4)


@pytest.mark.parametrize("settings", [*FEDAVG, *FEDADAM])
def test_the_model_starts_at_zero_stays_float32_and_zeros_leave_it_there(
    settings: Aggregation,
) -> None:
    optimizer = ServerOptimizer.start(settings, DIMENSION)
    assert optimizer.delta.tolist() == [0.0] * DIMENSION
    for _ in range(3):
        optimizer.step(np.zeros(DIMENSION, np.float32))
        assert optimizer.delta.tolist() == [0.0] * DIMENSION
    optimizer.step(np.ones(DIMENSION, np.float32))
    assert optimizer.delta.dtype == optimizer.moments.dtype == np.float32
    assert optimizer.delta.shape == (DIMENSION,)


def test_fedavg_keeps_no_moments_and_fedadam_two() -> None:
    assert run(FEDAVG[0], updates_of(3)).moments.shape == (2, 0)
    assert run(FEDADAM[0], updates_of(3)).moments.shape == (2, DIMENSION)


@pytest.mark.parametrize("settings", [*FEDAVG, *FEDADAM])
def test_a_step_leaves_the_update_as_it_was(settings: Aggregation) -> None:
    update = updates_of(4, 1)[0]
    before = update.copy()
    run(settings, [update])
    assert update.tobytes() == before.tobytes()


def test_two_optimizers_share_no_state() -> None:
    first, second = (ServerOptimizer.start(FEDADAM[0], DIMENSION) for _ in range(2))
    first.step(np.ones(DIMENSION, np.float32))
    assert not second.delta.any()
    assert not second.moments[0].any()


WEIGHTS = {"north": 0.1, "east": 0.2, "south": 0.3, "west": 0.15, "centre": 0.25}


def _updates(names: list[str]) -> dict[str, Vector]:
    generator = np.random.Generator(np.random.PCG64(5))
    everyone = {name: generator.normal(size=DIMENSION).astype(np.float32) for name in WEIGHTS}
    return {name: everyone[name] for name in names}


def _reference(updates: dict[str, Vector]) -> npt.NDArray[np.float64]:
    total = math.fsum(WEIGHTS[name] for name in updates)
    terms = [np.float64(WEIGHTS[k] / total) * v.astype(np.float64) for k, v in updates.items()]
    result: npt.NDArray[np.float64] = sum(terms, np.zeros(DIMENSION))
    return result


@pytest.mark.parametrize(
    "names", [list(WEIGHTS), ["north"], ["west", "north"], ["south", "centre", "east"]]
)
def test_the_mean_is_weighted_and_rescaled_over_those_that_answered(names: list[str]) -> None:
    updates = _updates(names)
    mean = weighted_mean(updates, WEIGHTS)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, _reference(updates), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("missing", [None, *WEIGHTS])
def test_equal_updates_are_their_own_mean_whoever_is_missing(missing: str | None) -> None:
    same = {name: np.full(DIMENSION, 3.0, np.float32) for name in WEIGHTS if name != missing}
    np.testing.assert_allclose(weighted_mean(same, WEIGHTS), 3.0, rtol=1e-6)


def test_the_order_of_arrival_never_shows() -> None:
    answers = {weighted_mean(_updates(list(p)), WEIGHTS).tobytes() for p in permutations(WEIGHTS)}
    assert len(answers) == 1


# Added in the order of arrival, these weights' sum differs in its last bit, and with it the
# float32 weight of `a`.
_BITS = {"a": "0x1.1fb9190000000p-3", "b": "0x1.ef67b0240e057p-2", "c": "0x1.80bbc35bf1fa7p-2"}
CLOSE = {name: float.fromhex(bits) for name, bits in _BITS.items()}


def test_the_order_of_arrival_never_shows_in_the_last_bit_either() -> None:
    ones = {name: np.ones(1, np.float32) for name in CLOSE}
    sums = {(CLOSE[i] + CLOSE[j]) + CLOSE[k] for i, j, k in permutations(CLOSE)}
    assert len({np.float32(CLOSE["a"] / total) for total in sums}) > 1
    for lonely in CLOSE:
        updates = {k: v if k == lonely else np.zeros_like(v) for k, v in ones.items()}
        answers = {
            weighted_mean({k: updates[k] for k in order}, CLOSE).tobytes()
            for order in permutations(CLOSE)
        }
        assert len(answers) == 1


def test_the_mean_leaves_the_updates_as_they_were() -> None:
    updates = _updates(list(WEIGHTS))
    before = {name: update.tobytes() for name, update in updates.items()}
    for update in updates.values():
        update.flags.writeable = False
    weighted_mean(updates, WEIGHTS)
    assert {name: update.tobytes() for name, update in updates.items()} == before


def test_no_updates_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no updates"):
        weighted_mean({}, WEIGHTS)
