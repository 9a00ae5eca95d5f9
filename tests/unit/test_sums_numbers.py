"""What both ends of a secure sum derive from the study."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.load import parse_study
from common.errors import ConfigError, IdentityError
from common.sums import (
    COUNT_BITS,
    contexts_of,
    counts_of_sum,
    counts_to_sum,
    grid_of,
    length_of,
    shares_of,
    sums_of,
)
from scripts.simulation import Cast
from tests.unit.test_secagg_config import secure, text


@given(st.lists(st.lists(st.integers(-(2**29), 2**29), min_size=3, max_size=3), min_size=3,
                max_size=3))  # fmt: skip
def test_counts_add_up_exactly_with_either_sign(rows) -> None:
    vectors = [counts_to_sum(np.array(row, np.int64), 3)[0] for row in rows]
    total = sum(v.astype(np.uint64) for v in vectors) % (1 << COUNT_BITS)
    assert counts_of_sum(total.astype(np.uint32)).tolist() == np.sum(rows, axis=0).tolist()


@pytest.mark.parametrize("n", [3, 4, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_count_that_the_sum_could_wrap_with_is_cut_to_the_largest_that_can_not(
    n: int, sign: int
) -> None:
    room = (2**31 - 1) // n
    counts = np.array([0, sign * room, sign * (room + 1), sign * 2**62], np.int64)
    levels, cut = counts_to_sum(counts, n)
    assert levels.dtype == np.uint32
    assert levels.view(np.int32).tolist() == [0, *[sign * room] * 3]
    assert cut == 2


def test_no_institution_multiplies_its_update_by_more_than_one() -> None:
    content = text("{}", 3).replace(
        "privacy: none",
        """aggregation:
  weights: {north: 5, site-2: 2, site-3: 1}
privacy: none""",
    )
    assert shares_of(parse_study(content, "study.yaml")) == pytest.approx(
        {"north": 1.0, "site-2": 0.4, "site-3": 0.2}
    )


def test_the_sums_of_a_study_stand_in_the_order_in_which_they_are_run() -> None:
    content = text("{}", 3).replace("rounds: 1", "rounds: 3")
    content = content.replace("federation: {", "federation: {evaluate_every: 2, ")
    order = [("train", 1), ("train", 2), ("evaluate", 2), ("train", 3), ("evaluate", 3)]
    assert list(sums_of(parse_study(content, "study.yaml"))) == order


def test_counts_go_under_their_own_modulus_and_updates_under_the_studys() -> None:
    study = secure("{}")
    contexts = contexts_of(study, Cast.of(study).roster)
    assert contexts["evaluate"].parameters.bits == COUNT_BITS
    assert contexts["train"].parameters == study.secure_parameters
    assert length_of(study, "train", 77) == 77
    assert length_of(study, "evaluate", 77) == 3 * 3 + 7 * 7


def test_a_roster_of_others_and_a_study_without_secure_aggregation_are_refused() -> None:
    study = secure("{}")
    with pytest.raises(IdentityError):
        contexts_of(study, Cast.of(secure("{}", n=5)).roster)
    with pytest.raises(ConfigError):
        contexts_of(secure("none"), Cast.of(study).roster)
    with pytest.raises(ConfigError):
        grid_of(secure("none"))
