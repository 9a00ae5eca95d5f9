"""Study and site files are read strictly, and the study's hash covers what the study says."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.config.canonical import canonical_bytes, study_hash, study_yaml
from common.config.deployment import parse_deployment
from common.config.load import parse_any, parse_relay, parse_site, parse_study
from common.config.privacy import LocalPrivacy, NoisedEvaluation, Search, Trials
from common.config.site import Site
from common.config.study import Study
from common.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = sorted((REPOSITORY / "configs").glob("*.yaml"))
"""Those for containers are not fedner's own: tests/unit/test_deployment.py."""
PARSERS = {"federation.yaml": parse_deployment, "relay-example.yaml": parse_relay}

STUDY = f"""\
study: zorblax-trial
task:
  labels: [Disease, Drug]
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
text: {{max_tokens: 64, overlap_tokens: 8}}
model: {{train: full}}
training: {{rounds: 3, learning_rate: 1e-4}}
federation:
  institutions: [north, south, west]
privacy: none
secure_aggregation: none
"""

SITE = """\
institution: north
study: study.yaml
data:
  train: {format: jsonl, path: train.jsonl}
  test: {format: jsonl, path: test.jsonl}
coordinator: 127.0.0.1:9092
state: state
policy: {accept_privacy_none: true}
"""

FULL = f"""\
study: everything
task: {{kind: ner, labels: [Disease, Drug]}}
encoder: {{name: tiny, weights_sha256: {"ab" * 32}}}
text: {{context: document, max_tokens: 64, overlap_tokens: 8}}
model:
  train: lora
  dropout: 0.1
  lora: {{rank: 4, alpha: 8, dropout: 0.1, targets: [query, value], freeze_a: true}}
training:
  rounds: 3
  local_epochs: 2
  batch_size: 4
  learning_rate: 1e-4
  weight_decay: 0.1
  warmup: 0.2
  max_gradient_norm: 2.0
  precision: float32
  seed: 7
aggregation:
  optimizer: fedadam
  learning_rate: 0.5
  schedule: linear
  beta1: 0.8
  beta2: 0.95
  tau: 1e-2
  average: 0.9
  interpolation: 0.75
  weights: {{north: 1, south: 2, west: 3}}
federation: {{institutions: [north, south, west], quorum: 2, deadline_s: 60, evaluate_every: 2}}
privacy: none
secure_aggregation: none
"""

PRIVATE = STUDY.replace("{train: full}", "{train: full, dropout: 0}").replace(
    "privacy: none\n",
    """\
privacy:
  mechanism: local
  unit: document
  epsilon: 8
  delta: 1e-5
  clip: 0.1
  sampling_rate: 0.05
  steps_per_round: 5
  declared_units: {north: 100, south: 200, west: 300}
  physical_tokens: 512
  optimizer: sgd
  weight_decay: 0.1
  evaluation: {epsilon: 0.5, clip: 4}
  settings_from: search
  search:
    trials: [{runs: 3, sampling_rate: 0.2, noise_multiplier: 1.5, steps: 40}]
    description: three rates on the training set
  insecure_seed: 7
""",
    1,
)


def refused(text: str, *, site: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        (parse_site if site else parse_study)(text, "f.yaml")
    return caught.value


def replaced(old: str, new: str, text: str = STUDY) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def line_of(text: str, piece: str) -> int:
    return text[: text.index(piece)].count("\n") + 1


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_file_parses(path: Path) -> None:
    parse = PARSERS.get(path.name, parse_any)
    assert parse(path.read_text("utf-8"), str(path))


def test_there_are_sample_files() -> None:
    assert SAMPLES


def test_study_and_site_are_told_apart_by_the_institution() -> None:
    assert isinstance(parse_any(STUDY, "f.yaml"), Study)
    assert isinstance(parse_any(SITE, "f.yaml"), Site)


def case(old: str, new: str, said: str, line: int = 0) -> tuple[str, str, str, int]:
    """`line`: where the error stands, counted from the line of what is replaced."""
    return old, new, said, line


WRONG_STUDIES = [
    case("rounds: 3", "rouns: 3", "training.rouns: unknown key"),
    case("rounds: 3", "rounds: 3, rounds: 4", "'rounds' stands twice"),
    case("rounds: 3", "rounds: three", "training.rounds"),
    case("rounds: 3", "rounds: '3'", "training.rounds"),
    case("rounds: 3", "rounds: 3.0", "training.rounds"),
    case("rounds: 3", "rounds: true", "training.rounds"),
    case("rounds: 3", "rounds: 0", "training.rounds"),
    case("rounds: 3", "rounds: -1", "training.rounds"),
    case("rounds: 3", "rounds: 100001", "training.rounds"),
    case("rounds: 3", "rounds: .nan", "training.rounds"),
    case("rounds: 3", "rounds:", "training.rounds"),
    case("learning_rate: 1e-4", "learning_rate: 0", "training.learning_rate"),
    case("learning_rate: 1e-4", "learning_rate: .nan", "training.learning_rate"),
    case("learning_rate: 1e-4", "learning_rate: .inf", "training.learning_rate"),
    case("learning_rate: 1e-4", "learning_rate: 1e999", "training.learning_rate"),
    case("learning_rate: 1e-4", "learning_rate: '1e-4'", "training.learning_rate"),
    case("learning_rate: 1e-4", "learning_rate: 1, warmup: 1.0", "training.warmup"),
    case("learning_rate: 1e-4", "learning_rate: 1, seed: -1", "training.seed"),
    case("learning_rate: 1e-4", "learning_rate: 1, batch_size: 0", "training.batch_size"),
    case("learning_rate: 1e-4", "learning_rate: 1, precision: half", "training.precision"),
    case("learning_rate: 1e-4", "learning_rate: 1, 2020-01-01: 1", "training.2020-01-01"),
    case("max_tokens: 64", "max_tokens: 15", "text.max_tokens"),
    case("overlap_tokens: 8", "overlap_tokens: 31", "less than half of max_tokens"),
    case("zorblax-trial", "Zorblax", "study"),
    case("zorblax-trial", '"zorblax\\n"', "study"),
    case("zorblax-trial", "-zorblax", "study"),
    case("zorblax-trial", "z" * 64, "study"),
    case("[Disease, Drug]", "[]", "task.labels"),
    case("[Disease, Drug]", "[Drug, Drug]", "task.labels"),
    case("[Disease, Drug]", "[Drug, 'a b']", "task.labels"),
    case("[Disease, Drug]", "Drug", "task.labels"),
    case("[Disease, Drug]", "[Drug, no]", "task.labels"),
    case("[north, south, west]", "[]", "federation.institutions"),
    case("[north, south, west]", "[north, north]", "federation.institutions"),
    case("[north, south, west]", "[north, South]", "federation.institutions"),
    case("[north, south, west]", '[north, "south\\n"]', "federation.institutions"),
    case("[north, south, west]", "[north, ../south]", "federation.institutions"),
    case("[north, south, west]", "[north]\n  quorum: 2", "quorum is larger", -1),
    case("[north, south, west]", "[north]\n  quorum: 0", "federation.quorum", 1),
    case("{train: full}", "{train: lora}", "`lora` exactly when `train: lora`"),
    case("{train: full}", "{train: full, lora: {}}", "`lora` exactly when `train: lora`"),
    case("{train: full}", "{train: lora, lora: {rank: 0}}", "model.lora.rank"),
    case("{train: full}", "{train: lora, lora: {targets: 3}}", "model.lora.targets"),
    case("{train: full}", "{train: full, dropout: 1.0}", "model.dropout"),
    case("ab" * 32, "ab" * 31, "encoder.weights_sha256"),
    case("ab" * 32, "AB" * 32, "encoder.weights_sha256"),
]


@pytest.mark.parametrize(("old", "new", "said", "line"), WRONG_STUDIES)
def test_a_wrong_study_is_refused_with_line_and_path(
    old: str, new: str, said: str, line: int
) -> None:
    error = refused(replaced(old, new))
    assert said in error.message
    assert error.place == f"f.yaml:{line_of(STUDY, old) + line}"


def test_an_unknown_key_at_the_top_names_its_neighbour() -> None:
    error = refused(STUDY + "federatoin: 1\n")
    assert (error.place, error.message) == ("f.yaml:12", "federatoin: unknown key")
    assert "did you mean `federation`?" in (error.remedy or "")


def test_a_study_must_say_in_so_many_words_that_it_has_no_privacy() -> None:
    error = refused(replaced("\nprivacy: none", ""))
    assert error.place == "f.yaml:1"
    assert error.message == "privacy: missing, expected a value"
    assert "write `privacy: none` in so many words" in (error.remedy or "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("privacy", v) for v in ("local", "{}", "{mechanism: distributed}")),
        *(("secure_aggregation", v) for v in ("malicious", "on", "true", "[]")),
        *((k, v) for k in ("privacy", "secure_aggregation")
          for v in ("None", "null", "false", "[none]")),
    ],
)  # fmt: skip
def test_protection_that_does_not_exist_is_refused_and_nothing_weaker_put_there(
    key: str, value: str
) -> None:
    error = refused(replaced(f"\n{key}: none", f"\n{key}: {value}"))
    assert error.place == f"f.yaml:{line_of(STUDY, f'{key}: none')}"
    assert error.message.startswith(f"{key}: ")
    assert "nothing weaker is put in its place" in (error.remedy or "")


WRONG_PRIVACY = [
    ("unit: document", "unit: sentence", "privacy.unit: ", "'record', 'document' or 'patient'"),
    ("epsilon: 8", "epsilon: 0", "privacy.epsilon: ", "greater than 0"),
    ("epsilon: 8", "epsilon: .inf", "privacy.epsilon: ", "finite"),
    ("epsilon: 8", "epsilon: 0.5", "privacy.evaluation.epsilon: ", "leaves nothing"),
    ("epsilon: 8", "epsilon: 8\n  noise_multiplier: 1", "privacy: ", "exactly one"),
    ("  epsilon: 8\n", "", "privacy: ", "exactly one"),
    ("delta: 1e-5", "delta: 0.01", "privacy.delta: ", "not less than 1 / 300"),
    ("delta: 1e-5", "delta: 1", "privacy.delta: ", "less than 1"),
    ("  delta: 1e-5\n", "", "privacy.delta: ", "missing"),
    ("clip: 0.1", "clip: 0", "privacy.clip: ", "0.000001 (got 0)"),
    ("sampling_rate: 0.05", "sampling_rate: 0", "privacy.sampling_rate: ", "greater than 0"),
    ("sampling_rate: 0.05", "sampling_rate: 1.1", "privacy.sampling_rate: ", "or equal to 1"),
    ("sampling_rate: 0.05", "sampling_rate: 0.009", "privacy.sampling_rate: ", "one unit"),
    ("steps_per_round: 5", "steps_per_round: 0", "privacy.steps_per_round: ", "equal to 1"),
    ("north: 100,", "north: 0,", "privacy.declared_units.north: ", "equal to 1"),
    ("north: 100,", "north: 100.5,", "privacy.declared_units.north: ", "integer"),
    ("north: 100,", "nroth: 100,", "privacy.declared_units: ", "name every institution"),
    ("north: 100,", "", "privacy.declared_units: ", "name every institution"),
    ("north: 100,", "north: 100, east: 90,", "privacy.declared_units: ", "and no other"),
    ("{north: 100, south: 200, west: 300}", "{}", "privacy.declared_units: ", "name every"),
    ("{north: 100, south: 200, west: 300}", "many", "privacy.declared_units: ", "integer"),
    ("physical_tokens: 512", "physical_tokens: 63", "privacy.physical_tokens: ", "hold one"),
    ("optimizer: sgd", "optimizer: adamw", "privacy.optimizer: ", "'adam' or 'sgd'"),
    ("{epsilon: 0.5, clip: 4}", "noised", "privacy.evaluation: ", "'exact'"),
    ("{epsilon: 0.5, clip: 4}", "{epsilon: 0.5}", "privacy.evaluation.clip: ", "missing"),
    ("clip: 4}", "clip: 0}", "privacy.evaluation.clip: ", "equal to 1"),
    ("clip: 4}", "clip: 4, cost: 1}", "privacy.evaluation.cost: ", "unknown key"),
    ("  settings_from: search\n", "", "privacy.settings_from: ", "missing"),
    ("from: search", "from: habit", "privacy.settings_from: ", "'synthetic'"),
    ("from: search", "from: public", "privacy.settings_from: ", "exactly with"),
    ("trials: [{runs: 3", "trials: [{runs: 0", "privacy.search.trials.0.runs: ", "equal to 1"),
    ("insecure_seed: 7", "insecure_seed: -1", "privacy.insecure_seed: ", "equal to 0"),
    ("insecure_seed: 7", "insecure_seed: 7\n  epslon: 8", "privacy.epslon: ", "unknown key"),
    ("rounds: 3", "rounds: 3, local_epochs: 2", "training.local_epochs: ", "no epochs"),
]


def test_noised_counts_of_records_do_not_go_with_abbreviations_that_link_them() -> None:
    linked = replaced("\n  labels:", "\n  abbreviations: as_defined\n  labels:", PRIVATE)
    assert parse_study(linked, "f.yaml").task.abbreviations == "as_defined"
    error = refused(replaced("unit: document", "unit: record", linked))
    assert error.message.startswith("task.abbreviations: ")
    assert "or another unit" in (error.remedy or "")
    exact = replaced("{epsilon: 0.5, clip: 4}", "exact", linked)
    assert parse_study(replaced("unit: document", "unit: record", exact), "f.yaml")


@pytest.mark.parametrize(("old", "new", "path", "said"), WRONG_PRIVACY)
def test_a_wrong_privacy_section_is_refused_at_the_key_that_is_wrong(
    old: str, new: str, path: str, said: str
) -> None:
    text = replaced(old, new, PRIVATE)
    error = refused(text)
    assert error.message.startswith(path)
    assert said in error.message
    assert "mapping" not in error.message
    assert "scalar" not in error.message
    key = path.removesuffix(": ").split(".")[1] + ":" if "." in path else "privacy:"
    key = "trials:" if "trials" in path else key
    expected = line_of(text, key if key in text else "privacy:")
    assert error.place == f"f.yaml:{expected}"


REMEDIES = [
    ("epsilon: 8", "epsilon: 0.5", "evaluation: exact"),
    ("  epsilon: 8\n", "", "or `noise_multiplier`"),
    ("delta: 1e-5", "delta: 0.01", "lower delta well below 3.3e-03"),
    ("sampling_rate: 0.05", "sampling_rate: 0.009", "raise sampling_rate above 1.0e-02"),
    ("north: 100,", "", "north, south, west; or one number for all"),
    ("physical_tokens: 512", "physical_tokens: 63", "raise physical_tokens"),
    ("from: search", "from: public", "description: …}` with all runs"),
    ("rounds: 3", "rounds: 3, local_epochs: 2", "privacy.steps_per_round"),
    ("insecure_seed: 7", "insecure_seed: 7\n  epslon: 8", "did you mean `epsilon`?"),
    ("clip: 4}", "clip: 4, clop: 1}", "did you mean `clip`?"),
    ("  evaluation: {epsilon: 0.5, clip: 4}\n", "", "`evaluation: exact`"),
    ("  settings_from: search\n", "", "`synthetic`, `public` or `search`"),
]


@pytest.mark.parametrize(("old", "new", "remedy"), REMEDIES)
def test_a_wrong_privacy_section_is_refused_with_a_remedy(old: str, new: str, remedy: str) -> None:
    assert remedy in (refused(replaced(old, new, PRIVATE)).remedy or "")


@pytest.mark.parametrize(
    "model",
    [
        "{train: full}",
        "{train: full, dropout: 0.1}",
        "{train: lora, dropout: 0, lora: {dropout: 0.1}}",
    ],
)
def test_dropout_beside_a_privacy_mechanism_is_refused(model: str) -> None:
    error = refused(replaced("{train: full, dropout: 0}", model, PRIVATE))
    assert error.message.startswith("model: ")
    assert "who else was drawn" in error.message
    assert "model.dropout: 0" in (error.remedy or "")


def test_a_privacy_section_is_read_as_it_stands() -> None:
    study = parse_study(PRIVATE, "f")
    privacy = study.local_privacy
    assert isinstance(privacy, LocalPrivacy)
    assert study.privacy_mechanism == "local"
    assert (privacy.unit, privacy.epsilon, privacy.noise_multiplier) == ("document", 8.0, None)
    assert privacy.evaluation == NoisedEvaluation(epsilon=0.5, clip=4)
    assert privacy.search == Search(
        trials=(Trials(runs=3, sampling_rate=0.2, noise_multiplier=1.5, steps=40),),
        description="three rates on the training set",
    )
    assert [privacy.declared_at(name) for name in study.federation.institutions] == [100, 200, 300]
    with pytest.raises(ConfigError):
        privacy.declared_at("east")


def test_one_declared_number_stands_for_all_institutions() -> None:
    text = replaced("{north: 100, south: 200, west: 300}", "150", PRIVATE)
    privacy = parse_study(text, "f").local_privacy
    assert privacy is not None
    assert {privacy.declared_at(name) for name in ("north", "south")} == {150}


def test_a_study_without_privacy_has_no_settings_of_it() -> None:
    study = parse_study(STUDY, "f")
    assert study.local_privacy is None
    assert study.privacy_mechanism == "none"


def test_all_wrong_keys_are_named_at_once() -> None:
    error = refused(replaced("rounds: 3", "rounds: 0", replaced("max_tokens: 64", "max_tokens: 1")))
    assert "text.max_tokens" in error.message
    assert "also f.yaml:7: training.rounds" in error.message


WEIGHTS = [
    "{north: 1, south: 1}",
    "{north: 1, south: 1, west: 1, east: 1}",
    "{north: 1, south: 1, wets: 1}",
    "{}",
    "{north: 1, south: 1, west: 0}",
    "{north: 1, south: 1, west: -1}",
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_must_be_positive_and_name_the_roster(weights: str) -> None:
    error = refused(STUDY + f"aggregation: {{weights: {weights}}}\n")
    assert error.message.split(": ")[-1].startswith("aggregation.weights must")
    assert error.place == "f.yaml:1"


@pytest.mark.parametrize("weight", [".nan", ".inf", "one", "true"])
def test_weights_must_be_finite_numbers(weight: str) -> None:
    error = refused(STUDY + f"aggregation: {{weights: {{north: 1, south: 1, west: {weight}}}}}\n")
    assert error.place == "f.yaml:12"
    assert error.message.startswith("aggregation.weights.west: ")


def test_weights_are_shared_out_over_the_roster() -> None:
    weighted = parse_study(STUDY + "aggregation: {weights: {west: 2, south: 1, north: 1}}\n", "f")
    assert weighted.public_weights == {"north": 0.25, "south": 0.25, "west": 0.5}
    assert list(weighted.public_weights) == ["north", "south", "west"]
    assert parse_study(STUDY, "f").public_weights == dict.fromkeys(
        ["north", "south", "west"], 1 / 3
    )


def test_the_quorum_is_everyone_unless_said() -> None:
    assert parse_study(STUDY, "f").federation.required == 3
    text = replaced("[north, south, west]", "[north, south, west]\n  quorum: 2")
    assert parse_study(text, "f").federation.required == 2


DATA = "data: {train: {format: jsonl, path: a}, test: {format: jsonl, path: b}}"
SYNTHETIC = "synthetic: {patients_per_institution: 4}"
PARTITION = "partition: {kind: iid}"


@pytest.mark.parametrize("parts", [[SYNTHETIC], [DATA, PARTITION]])
def test_a_simulation_has_generated_notes_or_a_partitioned_corpus(parts: list[str]) -> None:
    text = STUDY + "simulation:\n" + "".join(f"  {part}\n" for part in parts)
    assert parse_study(text, "f").simulation


@pytest.mark.parametrize(
    "parts",
    [[DATA], [PARTITION], [SYNTHETIC, PARTITION], [SYNTHETIC, DATA, PARTITION], [SYNTHETIC, DATA]],
)
def test_other_combinations_of_a_simulation_are_refused(parts: list[str]) -> None:
    error = refused(STUDY + "simulation:\n" + "".join(f"  {part}\n" for part in parts))
    assert error.place == "f.yaml:12"
    assert error.message.startswith("simulation: ")


ONE = "all: {format: jsonl, path: a}"
SPLIT = "split: {test: 0.2, key: k}"
TRAIN = "train: {format: jsonl, path: train.jsonl}"
TEST = "test: {format: jsonl, path: test.jsonl}"


def site_with(*parts: str) -> str:
    start, end = SITE.index("  train:"), SITE.index("coordinator:")
    return SITE[:start] + "".join(f"  {part}\n" for part in parts) + SITE[end:]


@pytest.mark.parametrize("parts", [(TRAIN, TEST), (ONE, SPLIT)])
def test_data_is_two_sources_or_one_that_is_split(parts: tuple[str, ...]) -> None:
    assert parse_site(site_with(*parts), "f").data


@pytest.mark.parametrize(
    "parts",
    [(TRAIN,), (TEST,), (ONE,), (SPLIT,), (TRAIN, SPLIT), (TRAIN, TEST, SPLIT), (TRAIN, TEST, ONE)],
)
def test_other_combinations_of_data_are_refused(parts: tuple[str, ...]) -> None:
    error = refused(site_with(*parts), site=True)
    assert error.place == "f.yaml:3"
    assert error.message.startswith("data: give either")


WRONG_SITES = [
    case("institution: north", "institution: North", "institution: "),
    case("institution: north", "institution: north\nsite: 1", "site: unknown key", 1),
    case("format: jsonl, path: train.jsonl", "format: xml, path: a", "data.train.format: "),
    case("format: jsonl, path: train.jsonl", "format: jsonl, path: ''", "data.train.path: "),
    case("format: jsonl, path: train.jsonl", "format: jsonl, path: a, column: 1", "data.train: "),
    case(
        "format: jsonl, path: train.jsonl",
        "format: jsonl, path: a, schema: 1",
        "data.train.schema: ",
    ),
    case("127.0.0.1:9092", "127.0.0.1", "coordinator: "),
    case("127.0.0.1:9092", "'host:1\n\n  x'", "coordinator: "),
    case("state: state", "state: ''", "state: "),
    case("state: state", "state: state\nthreads: 0", "threads: ", 1),
    case("state: state", "state: state\ndevice: tpu", "device: ", 1),
    case("accept_privacy_none: true", "accept_privacy_none: 1", "policy.accept_privacy_none: "),
    case("accept_privacy_none: true", "accept_privacy_none: 'yes'", "policy.accept_privacy_none: "),
    case("accept_privacy_none: true", "study_sha256: abc", "policy.study_sha256: "),
    case("accept_privacy_none: true", "accept_all: true", "policy.accept_all: unknown key"),
    case("accept_privacy_none: true", "roster_sha256: abc", "policy.roster_sha256: "),
    case("accept_privacy_none: true", "min_cohort: 2", "policy.min_cohort: "),
    case("accept_privacy_none: true", "accept_semi_honest: 1", "policy.accept_semi_honest: "),
    case("state: state", "state: state\nidentity: ''", "identity: ", 1),
    case("state: state", "state: state\nroster: ''", "roster: ", 1),
    case("state: state", "state: state\npassphrase_file: ''", "passphrase_file: ", 1),
]


@pytest.mark.parametrize(("old", "new", "said", "line"), WRONG_SITES)
def test_a_wrong_site_is_refused_with_line_and_path(
    old: str, new: str, said: str, line: int
) -> None:
    error = refused(replaced(old, new, SITE), site=True)
    assert error.message.startswith(said)
    assert error.place == f"f.yaml:{line_of(SITE, old) + line}"


@pytest.mark.parametrize("key", ["institution", "study", "data", "coordinator", "state"])
def test_a_site_needs_each_of_its_keys(key: str) -> None:
    content = yaml.safe_load(SITE)
    del content[key]
    error = refused(yaml.safe_dump(content), site=True)
    assert (error.place, error.message) == ("f.yaml:1", f"{key}: missing, expected a value")


def test_a_site_accepts_nothing_that_it_does_not_say() -> None:
    policy = parse_site(replaced("policy: {accept_privacy_none: true}\n", "", SITE), "f").policy
    assert not policy.accept_privacy_none
    assert not policy.accept_secure_aggregation_none
    assert not policy.accept_one_user
    assert not policy.accept_exact_evaluation
    assert not policy.accept_insecure_seed
    assert not policy.accept_semi_honest
    assert policy.roster_sha256 is None
    assert policy.min_cohort == 3
    assert policy.budget == ()


CAP = "{unit: patient, delta: 1e-6, epsilon_lifetime: 10, epsilon_per_study: 3}"


def capped(*budgets: str) -> str:
    return replaced("accept_privacy_none: true", f"budget: [{', '.join(budgets)}]", SITE)


def test_a_budget_caps_a_study_a_lifetime_or_both() -> None:
    for kept in ("epsilon_lifetime: 10", "epsilon_per_study: 3"):
        text = capped(f"{{unit: patient, delta: 1e-6, {kept}}}", CAP.replace("patient", "record"))
        assert len(parse_site(text, "f").policy.budget) == 2


@pytest.mark.parametrize(
    ("budgets", "path", "said"),
    [
        (("{unit: patient, delta: 1e-6}",), "policy.budget.0: ", "needs `epsilon_lifetime`"),
        ((CAP, CAP), "policy: ", "two budgets for one unit"),
        ((CAP.replace("patient", "ward"),), "policy.budget.0.unit: ", "'record'"),
        ((CAP.replace("1e-6", "0"),), "policy.budget.0.delta: ", "greater than 0"),
        ((CAP.replace("study: 3", "study: 0"),), "policy.budget.0.epsilon_per_study: ", "than 0"),
        ((CAP.replace("lifetime", "life"),), "policy.budget.0.epsilon_life: ", "unknown key"),
    ],
)
def test_a_wrong_budget_is_refused_with_its_path(
    budgets: tuple[str, ...], path: str, said: str
) -> None:
    error = refused(capped(*budgets), site=True)
    assert error.message.startswith(path)
    assert said in error.message
    assert error.remedy is not None or "Input should" in error.message


BROKEN = {
    "not a mapping": "- 1\n",
    "empty": "",
    "a scalar": "study\n",
    "unclosed": STUDY + "x: [\n",
    "two documents": STUDY + "---\nx: 1\n",
    "NUL": STUDY + "x: \0\n",
    "an object": STUDY + "x: !!python/object/apply:os.getcwd []\n",
    "a list as a key": STUDY + "? [a, b]\n: 1\n",
    "a mapping as a key": STUDY + "? {a: b}\n: 1\n",
    "itself": STUDY + "x: &x [*x]\n",
    "an unknown anchor": STUDY + "x: *x\n",
    "a tag that does not fit": STUDY + "x: !!bool foo\n",
    "a mapping that is none": STUDY + "x: !!map foo\n",
    "an impossible date": STUDY + "x: 2020-13-45\n",
    "a merge key": STUDY + "<<: {x: 1}\n",
    "half a surrogate": replaced("[Disease, Drug]", '["\\ud800"]'),
    "too many digits": STUDY + "x: " + "9" * 5000 + "\n",
    "too many hexadecimal digits": STUDY + "x: 0x" + "f" * 9000 + "\n",
    "nested too deep": STUDY + "x: " + "[" * 3000 + "]" * 3000 + "\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_study_is_a_config_error_that_names_the_file(text: str) -> None:
    assert (refused(text).place or "").startswith("f.yaml")


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_is_a_config_error(text: str) -> None:
    for candidate in (text, STUDY + text):
        try:
            parse_any(candidate, "f.yaml")
        except ConfigError as error:
            assert (error.place or "").startswith("f.yaml")  # noqa: PT017


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.1e-3", "0.0001", ".1e-3", "1e-04", "+1e-4"])
def test_numbers_with_an_exponent_are_numbers(text: str) -> None:
    study = parse_study(replaced("learning_rate: 1e-4", f"learning_rate: {text}"), "f")
    assert study.training.learning_rate == 1e-4
    assert study_hash(study) == study_hash(parse_study(STUDY, "f"))


def test_the_hash_is_that_of_the_study_however_it_is_laid_out() -> None:
    study = parse_study(FULL, "f")
    reordered = yaml.safe_dump(_reversed(yaml.safe_load(study_yaml(study))), sort_keys=False)
    commented = "# a comment\n" + FULL.replace("rounds: 3", "rounds:   3   # three")
    block = yaml.safe_dump(yaml.safe_load(study_yaml(study)), default_flow_style=False)
    flow = yaml.safe_dump(yaml.safe_load(study_yaml(study)), default_flow_style=True)
    for text in (reordered, commented, block, flow):
        assert text != FULL
        assert study_hash(parse_study(text, "f")) == study_hash(study)


def test_a_default_hashes_like_the_same_value_written_out() -> None:
    assert study_hash(parse_study(study_yaml(parse_study(STUDY, "f")), "f")) == study_hash(
        parse_study(STUDY, "f")
    )
    said = replaced("rounds: 3", "rounds: 3, batch_size: 16, seed: 1")
    assert study_hash(parse_study(said, "f")) == study_hash(parse_study(STUDY, "f"))


def test_the_simulation_is_not_part_of_the_hash() -> None:
    plain = parse_study(STUDY, "f")
    for extra in (SYNTHETIC, "synthetic: {patients_per_institution: 5, seed: 9}"):
        simulated = parse_study(STUDY + f"simulation:\n  {extra}\n", "f")
        assert simulated != plain
        assert study_hash(simulated) == study_hash(plain)
        assert "simulation" not in study_yaml(simulated)


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return value


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], (*path, key))
    else:
        yield path


def _other(value: Any) -> Any:
    """Another value; whether the schema would take it is not the hash's matter."""
    if isinstance(value, tuple):
        return (*value, *value)
    if isinstance(value, str):
        return value + "x"
    if value is None:
        return "x"
    return math.nextafter(value, math.inf) if isinstance(value, float) else value + 1


def _with(study: Any, path: tuple[Any, ...], change: Any) -> Any:
    """The study with one leaf changed, past validation."""
    name, *rest = path
    if isinstance(study, dict):
        return {**study, name: change(study[name])}
    copy = object.__new__(type(study))
    for field in dataclasses.fields(study):
        object.__setattr__(copy, field.name, getattr(study, field.name))
    old = getattr(study, name)
    object.__setattr__(copy, name, _with(old, tuple(rest), change) if rest else change(old))
    return copy


LEAVES = [p for p in _leaves(dataclasses.asdict(parse_study(FULL, "f"))) if p != ("simulation",)]


def test_the_full_study_sets_every_field_that_the_schema_has() -> None:
    plain = dict.fromkeys(_leaves(dataclasses.asdict(parse_study(STUDY, "f"))))
    expected = {(f.name,) for f in dataclasses.fields(Study)}
    assert {path[:1] for path in LEAVES} == expected - {("simulation",)}
    assert {p for p in plain if p not in LEAVES} == {
        ("simulation",),
        ("model", "lora"),
        ("aggregation", "weights"),
    }
    assert len(LEAVES) >= 34


PRIVACY_LEAVES = [
    p for p in _leaves(dataclasses.asdict(parse_study(PRIVATE, "f"))) if p[0] == "privacy"
]


def test_the_private_study_has_every_field_of_the_privacy_section() -> None:
    names = {path[1] for path in PRIVACY_LEAVES}
    assert names == {field.name for field in dataclasses.fields(LocalPrivacy)}


@pytest.mark.parametrize("path", PRIVACY_LEAVES, ids=lambda path: ".".join(path))
def test_every_field_of_the_privacy_section_changes_the_hash(path: tuple[Any, ...]) -> None:
    study = parse_study(PRIVATE, "f")
    assert study_hash(_with(study, path, _other)) != study_hash(study)


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(path))
def test_every_field_changes_the_hash(path: tuple[Any, ...]) -> None:
    study = parse_study(FULL, "f")
    changed = _with(study, path, _other)
    assert study_hash(changed) != study_hash(study)
    assert study_hash(_with(study, path, lambda value: value)) == study_hash(study)


@pytest.mark.parametrize("text", [STUDY, FULL, PRIVATE], ids=["defaults", "full", "private"])
def test_the_yaml_of_a_study_has_its_hash(text: str) -> None:
    study = parse_study(text, "f")
    again = parse_study(study_yaml(study), "f")
    assert again == study
    assert canonical_bytes(again) == canonical_bytes(study)


_NAMES = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True),
    st.sampled_from(["1e5", "1", "0x10", "no", "null", "2020-01-01", "1_0", "0b1", "1e-3", "y"]),
)
_LABELS = st.one_of(
    _NAMES,
    st.sampled_from(["~", "=", "<<", "1:30", ".5", "1.", ".nan", "#", "-", "Ä", "+1E9"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
        lambda label: not any(c.isspace() for c in label)
    ),
)


@given(
    _NAMES,
    st.lists(_LABELS, min_size=1, max_size=4, unique=True),
    st.lists(_NAMES, min_size=1, max_size=4, unique=True),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)
def test_the_yaml_of_a_study_has_its_hash_whatever_the_names(
    name: str, labels: list[str], institutions: list[str], rate: float
) -> None:
    study = parse_study(STUDY, "f")
    changed = dataclasses.replace(
        study,
        study=name,
        task=dataclasses.replace(study.task, labels=tuple(labels)),
        training=dataclasses.replace(study.training, learning_rate=rate),
        federation=dataclasses.replace(study.federation, institutions=tuple(institutions)),
        aggregation=dataclasses.replace(
            study.aggregation, weights=dict.fromkeys(institutions, rate)
        ),
    )
    assert study_hash(parse_study(study_yaml(changed), "f")) == study_hash(changed)
