"""The study's secure aggregation: on by default, filled in when loaded, refused when unsafe."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from common.config.canonical import canonical_bytes, study_hash, study_yaml
from common.config.load import parse_study
from common.config.secagg import ADAM_BOUND, SecureAggregation, parameters_of, resolve
from common.config.study import Study
from common.errors import ConfigError
from common.secagg.params import Parameters

NAMES = ("north", *(f"site-{i}" for i in range(2, 1001)))

PRIVATE = """\
privacy:
  mechanism: local
  unit: record
  noise_multiplier: 1
  delta: 1e-5
  clip: 0.1
  sampling_rate: 0.1
  steps_per_round: 4
  declared_units: 1000
  optimizer: sgd
  evaluation: exact
  settings_from: public
"""


def text(section: str | None, n: int = 4, *, quorum: int | None = None) -> str:
    federation = {"institutions": list(NAMES[:n])} | ({"quorum": quorum} if quorum else {})
    said = f"secure_aggregation: {section}\n" if section is not None else ""
    return f"""\
study: s
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
model: {{dropout: 0}}
training: {{rounds: 1, learning_rate: 1e-3}}
federation: {yaml.safe_dump(federation, default_flow_style=True, width=10**6).strip()}
privacy: none
{said}"""


def secure(section: str | None, n: int = 4, **options: Any) -> Study:
    return parse_study(text(section, n, **options), "study.yaml")


def section_of(section: str | None, n: int = 4, **options: Any) -> SecureAggregation:
    found = secure(section, n, **options).secure
    assert found is not None
    return found


def refused(section: str | None, n: int = 4, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        secure(section, n, **options)
    return caught.value


# --- defaults


@pytest.mark.parametrize(
    ("n", "h", "t"),
    [(3, 1, 3), (4, 1, 3), (5, 2, 4), (6, 2, 5), (7, 3, 6), (8, 3, 6), (32, 15, 24)],
)
def test_the_defaults_are_those_of_the_design(n: int, h: int, t: int) -> None:
    found = section_of("{}", n)
    assert (found.adversary, found.collusion, found.threshold, found.min_cohort) == (
        "malicious", h, t, t,
    )  # fmt: skip
    assert (found.degree, found.neighbour_threshold) == ("complete", None)


@pytest.mark.parametrize("n", [*range(3, 65), 100, 300])
def test_the_defaults_are_safe_for_every_number_of_institutions(n: int) -> None:
    found = secure(None, n).secure_parameters
    assert isinstance(found, Parameters)
    assert 2 * found.threshold > n + found.collusion
    assert found.threshold - found.collusion >= 2
    assert n * (2**15 - 1) < 2 ** (found.bits - 1)


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_a_semi_honest_study_needs_fewer_but_never_shows_one_among_colluders(n: int) -> None:
    found = section_of("{adversary: semi_honest}", n)
    h = (n - 1) // 2
    assert found.threshold == n // 2 + 1
    assert found.min_cohort == max(n // 2 + 1, h + 2)


@pytest.mark.parametrize("n", [3, 4, 50])
def test_a_study_that_says_nothing_has_secure_aggregation(n: int) -> None:
    assert secure(None, n).secure_adversary == "malicious"
    assert secure(None, n) == secure("{}", n)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("section", [None, "{}", "{adversary: semi_honest}"])
def test_one_or_two_institutions_must_say_none(n: int, section: str | None) -> None:
    error = refused(section, n)
    assert "at least 3 are needed" in error.message
    assert "write `secure_aggregation: none` in so many words" in (error.remedy or "")
    assert secure("none", n).secure is None


def test_none_is_none_for_any_number() -> None:
    for n in (1, 3, 40):
        made = secure("none", n)
        assert (made.secure, made.secure_parameters, made.secure_adversary) == (None, None, "none")


@pytest.mark.parametrize(
    ("n", "value_bits", "bits"),
    [(3, 16, 18), (4, 16, 18), (5, 16, 19), (32, 16, 21), (3, 8, 16), (100, 24, 31), (3, 2, 16)],
)
def test_bits_are_the_fewest_that_hold_the_sum(n: int, value_bits: int, bits: int) -> None:
    assert section_of(f"{{value_bits: {value_bits}}}", n).bits == bits
    largest = n * (2 ** (value_bits - 1) - 1)
    assert largest < 2 ** (bits - 1)
    assert bits == 16 or largest >= 2 ** (bits - 2)


def test_the_clip_without_a_mechanism_is_256_learning_rates() -> None:
    assert section_of("{}").clip == 0.256
    assert section_of("{clip: 0.5}").clip == 0.5


def test_the_clip_with_a_mechanism_follows_from_it() -> None:
    made = parse_study(text("{}").replace("privacy: none\n", PRIVATE), "f").secure
    assert made is not None
    assert made.clip == pytest.approx(2 * 1e-3 * 0.1 * 4)
    adam = PRIVATE.replace("optimizer: sgd", "optimizer: adam")
    made = parse_study(text("{}").replace("privacy: none\n", adam), "f").secure
    assert made is not None
    assert made.clip == pytest.approx(ADAM_BOUND * 1e-3 * 4)


def test_no_step_of_adam_is_longer_than_its_bound() -> None:
    # the longest is that of a gradient that comes after many zeros
    mean = variance = longest = 0.0
    for step in range(1, 20_001):
        gradient = 1.0 if step in {1, 2, 20_000} else 0.0
        mean, variance = 0.9 * mean + 0.1 * gradient, 0.999 * variance + 0.001 * gradient**2
        corrected = variance / (1 - 0.999**step)
        longest = max(longest, mean / (1 - 0.9**step) / corrected**0.5)
    assert 3.1 < longest < ADAM_BOUND


def test_above_32_institutions_a_graph_is_chosen_where_one_is_safe() -> None:
    found = section_of("{collusion: 18}", 300)
    assert isinstance(found.degree, int)
    assert found.degree < 150
    assert found.neighbour_threshold is not None
    assert section_of("{}", 300).degree == "complete"
    assert section_of("{collusion: 18, degree: complete}", 300).degree == "complete"


# --- canonical


SECTIONS = [None, "{}", "{adversary: semi_honest}", "{clip: 1.5, bits: 32}", "none"]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("n", [3, 5, 40])
def test_a_study_comes_back_from_its_own_yaml(section: str | None, n: int) -> None:
    made = secure(section, n)
    again = parse_study(study_yaml(made), "again")
    assert again == made
    assert canonical_bytes(again) == canonical_bytes(made)


def test_a_large_study_with_a_graph_comes_back_from_its_own_yaml() -> None:
    made = secure("{collusion: 18}", 300)
    assert parse_study(study_yaml(made), "again") == made


def test_a_default_hashes_like_the_same_value_written_out() -> None:
    said = "{adversary: malicious, collusion: 1, threshold: 3, min_cohort: 3, clip: 0.256, "
    said += "value_bits: 16, bits: 18, degree: complete}"
    assert study_hash(secure(said)) == study_hash(secure(None))


CHANGES = [
    "none",
    "{adversary: semi_honest}",
    "{collusion: 2}",
    "{threshold: 4}",
    "{min_cohort: 4}",
    "{clip: 0.25}",
    "{value_bits: 17}",
    "{bits: 20}",
    f"{{roster_sha256: {'ab' * 32}}}",
]


def test_the_hash_covers_every_setting() -> None:
    hashes = {study_hash(secure(section)) for section in (*CHANGES, None)}
    assert len(hashes) == len(CHANGES) + 1


def test_every_setting_has_a_change_above_or_belongs_to_the_graph() -> None:
    named = {key for change in CHANGES for key in _keys(change)}
    fields = {field.name for field in dataclasses.fields(SecureAggregation)}
    assert fields - named == {"degree", "neighbour_threshold"}
    graph = {
        study_hash(secure(s, 300)) for s in ("{collusion: 18}", "{collusion: 18, degree: complete}")
    }
    assert len(graph) == 2


def _keys(change: str) -> Iterator[str]:
    content = yaml.safe_load(change)
    yield from content if isinstance(content, dict) else ()


def test_a_replaced_study_keeps_its_settings() -> None:
    made = secure(None)
    again = dataclasses.replace(made, training=dataclasses.replace(made.training, seed=9))
    assert again.secure == made.secure


def test_resolving_twice_changes_nothing() -> None:
    found = section_of("{}", 5)
    assert resolve(found, NAMES[:5], 9.0, None) == found


# --- refusals


@pytest.mark.parametrize(
    ("section", "n", "said"),
    [
        ("{threshold: 3}", 5, "2 * 3 = 6, 5 + 2 = 7"),
        ("{threshold: 2}", 3, "2 * 2 = 4, 3 + 1 = 4"),
        ("{threshold: 4, collusion: 3}", 4, "4 - 3 = 1"),
        ("{collusion: 3}", 4, "2 t > n + h and t - h >= 2 take t >= 5"),
        ("{threshold: 5}", 4, "threshold t = 5, of n = 4"),
        ("{collusion: 2}", 3, "collusion h = 2 of n = 3 leaves no threshold"),
        ("{collusion: 3, adversary: semi_honest}", 3, "h = 3"),
        ("{threshold: 2, adversary: semi_honest}", 4, "2 * 2 = 4, n = 4"),
        ("{min_cohort: 2}", 4, "min_cohort 2, expected t = 3"),
        ("{min_cohort: 5}", 4, "min_cohort 5, expected t = 3 to n = 4"),
        ("{min_cohort: 3, adversary: semi_honest}", 5, "3 - 2 = 1"),
        ("{bits: 17}", 3, "3 * (2^15 - 1) = 98301, a modulus of 17 bits holds 2^16 - 1 = 65535"),
        ("{value_bits: 24}", 600, "600 * (2^23 - 1)"),
        ("{degree: 4}", 40, "neighbour_threshold exactly with degree"),
        ("{neighbour_threshold: 4}", 40, "neighbour_threshold exactly with degree"),
        ("{degree: 4, neighbour_threshold: 4}", 40, "2^"),
        ("{degree: 5, neighbour_threshold: 5}", 40, "even"),
    ],
)
def test_an_impossible_combination_is_refused_with_the_arithmetic(
    section: str, n: int, said: str
) -> None:
    error = refused(section, n)
    assert said in error.message
    assert error.message.startswith("secure_aggregation: ")
    assert error.place == "study.yaml:7"
    assert error.remedy


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{collusion: 0}", "secure_aggregation.collusion: "),
        ("{collusion: 1.0}", "secure_aggregation.collusion: "),
        ("{threshold: '3'}", "secure_aggregation.threshold: "),
        ("{adversary: honest}", "secure_aggregation.adversary: "),
        ("{clip: 0}", "secure_aggregation.clip: "),
        ("{clip: .inf}", "secure_aggregation.clip: "),
        ("{value_bits: 1}", "secure_aggregation.value_bits: "),
        ("{value_bits: 25}", "secure_aggregation.value_bits: "),
        ("{bits: 15}", "secure_aggregation.bits: "),
        ("{bits: 33}", "secure_aggregation.bits: "),
        ("{degree: ring}", "secure_aggregation.degree: "),
        ("{degree: 1}", "secure_aggregation.degree: "),
        ("{roster_sha256: abc}", "secure_aggregation.roster_sha256: "),
        ("{treshold: 3}", "secure_aggregation.treshold: unknown key"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_path(section: str, said: str) -> None:
    error = refused(section)
    assert error.message.startswith(said)
    assert error.place == "study.yaml:7"


def test_a_quorum_below_the_threshold_is_refused() -> None:
    error = refused("{}", 5, quorum=3)
    assert error.message.startswith("federation.quorum: 3 is below threshold 4")
    assert error.place == "study.yaml:5"
    assert secure("{}", 5, quorum=4).federation.required == 4
    assert secure("none", 5, quorum=1).federation.required == 1


def test_a_quorum_below_the_cohort_is_refused() -> None:
    assert "min_cohort 5" in refused("{min_cohort: 5}", 5, quorum=4).message


def test_parameters_of_an_unresolved_section_are_refused() -> None:
    with pytest.raises(ConfigError):
        parameters_of(SecureAggregation(), NAMES[:4])
