"""The hash of a study must never change by accident: sites pin it, and messages carry it."""

import hashlib

from common.config.canonical import HASH_LABEL, canonical_bytes, study_hash
from common.config.load import parse_study

STUDY = f"""\
study: golden
task: {{labels: [Disease, Médication]}}
encoder: {{name: tiny, weights_sha256: {"00112233445566778899aabbccddeeff" * 2}}}
training: {{rounds: 3, learning_rate: 5e-5}}
aggregation: {{weights: {{south: 2, north: 1}}}}
federation: {{institutions: [south, north]}}
privacy: none
secure_aggregation: none
simulation: {{synthetic: {{patients_per_institution: 4}}}}
"""

CANONICAL = (
    b'{"aggregation":{"average":null,"beta1":0.9,"beta2":0.99,"learning_rate":null,"optimize'
    b'r":"fedavg","schedule":"constant","tau":0.001,"weights":{"north":1.0,"south":2.0}},'
    b'"encoder":{"name":"tiny","weights_sha256":"00112233445566778899aabbccddeeff0011223344'
    b'5566778899aabbccddeeff"},'
    b'"federation":{"deadline_s":3600.0,"evaluate_every":1,"institutions":["south","north"]'
    b',"quorum":null},'
    b'"model":{"dropout":null,"lora":null,"train":"frozen_embeddings"},'
    b'"privacy":"none","secure_aggregation":"none","study":"golden","task":{"abbreviations":"as_found","kind":"ner",'
    b'"labels":["Disease","M\\u00e9dication"]},'
    b'"text":{"context":"sentence","max_tokens":128,"overlap_tokens":32},'
    b'"training":{"batch_size":16,"learning_rate":5e-05,"local_epochs":1,"max_gradient_norm'
    b'":1.0,"precision":"auto","rounds":3,"seed":1,"warmup":0.05,"weight_decay":0.01}}'
)
HASH = "cac6a041944cdc7105bba19539fd6675dddf68084bb449369917a8dcc95eec33"

PRIVATE_STUDY = f"""\
study: golden-private
encoder: {{name: tiny, weights_sha256: {"00112233445566778899aabbccddeeff" * 2}}}
model: {{train: lora, lora: {{rank: 4}}, dropout: 0}}
training: {{rounds: 3, learning_rate: 5e-3}}
federation: {{institutions: [south, north]}}
privacy:
  mechanism: local
  unit: patient
  epsilon: 8
  delta: 1e-5
  clip: 0.1
  sampling_rate: 0.25
  steps_per_round: 5
  declared_units: {{south: 40, north: 60}}
  evaluation: {{epsilon: 0.5, clip: 2}}
  settings_from: synthetic
secure_aggregation: none
"""

PRIVATE_CANONICAL = (
    b'{"aggregation":{"average":null,"beta1":0.9,"beta2":0.99,"learning_rate":null,"optimize'
    b'r":"fedavg","schedule":"constant","tau":0.001,"weights":null},'
    b'"encoder":{"name":"tiny","weights_sha256":"00112233445566778899aabbccddeeff00112233445'
    b'566778899aabbccddeeff"},'
    b'"federation":{"deadline_s":3600.0,"evaluate_every":1,"institutions":["south","north"],'
    b'"quorum":null},'
    b'"model":{"dropout":0.0,"lora":{"alpha":16.0,"core":false,"directions_sha256":null,"dropout":0.0'
    b',"freeze_a":false,"layers":null,"rank":4,"targets":"all-linear"},"train":"lora"},'
    b'"privacy":{"clip":0.1,"declared_units":{"north":60,"south":40},"delta":1e-05,"epsilon"'
    b':8.0,"evaluation":{"clip":2,"epsilon":0.5},"insecure_seed":null,"mechanism":"local","n'
    b'oise_multiplier":null,"optimizer":"adam","physical_tokens":4096,"sampling_rate":0.25,"'
    b'schedule":"linear","search":null,"settings_from":"synthetic","steps_per_round":5,"unit":"patient","weight_'
    b'decay":0.0},"secure_aggregation":"none","study":"golden-private",'
    b'"task":{"abbreviations":"as_found","kind":"ner","labels":["Disease","Symptom","Medication"]},'
    b'"text":{"context":"sentence","max_tokens":128,"overlap_tokens":32},'
    b'"training":{"batch_size":16,"learning_rate":0.005,"local_epochs":1,"max_gradient_norm"'
    b':1.0,"precision":"auto","rounds":3,"seed":1,"warmup":0.05,"weight_decay":0.01}}'
)
PRIVATE_HASH = "09b4e477ee9b2ebfa5675232e7ea1a08893fbd86458fa3a3b285564b6af6daf5"


def test_the_canonical_bytes_of_a_fixed_study_are_these() -> None:
    assert canonical_bytes(parse_study(STUDY, "golden")) == CANONICAL


def test_the_hash_of_a_fixed_study_is_this() -> None:
    assert study_hash(parse_study(STUDY, "golden")) == HASH


def test_the_hash_is_sha256_over_a_label_and_the_canonical_bytes() -> None:
    assert HASH_LABEL == b"fedner study v1\n"
    assert hashlib.sha256(b"fedner study v1\n" + CANONICAL).hexdigest() == HASH


def test_the_canonical_bytes_of_a_fixed_study_with_privacy_are_these() -> None:
    assert canonical_bytes(parse_study(PRIVATE_STUDY, "golden")) == PRIVATE_CANONICAL


def test_the_hash_of_a_fixed_study_with_privacy_is_this() -> None:
    assert study_hash(parse_study(PRIVATE_STUDY, "golden")) == PRIVATE_HASH
    assert hashlib.sha256(HASH_LABEL + PRIVATE_CANONICAL).hexdigest() == PRIVATE_HASH


SECURE_STUDY = f"""\
study: golden-secure
encoder: {{name: tiny, weights_sha256: {"00112233445566778899aabbccddeeff" * 2}}}
training: {{rounds: 3, learning_rate: 5e-4}}
federation: {{institutions: [south, north, west, east, centre]}}
privacy: none
"""

SECURE_SECTION = (
    b'"secure_aggregation":{"adversary":"malicious","bits":19,"clip":0.128,"collusion":2,"degre'
    b'e":"complete","min_cohort":4,"neighbour_threshold":null,"roster_sha256":null,"threshold":4,"'
    b'value_bits":16},"study":"golden-secure"'
)
SECURE_HASH = "3e03052eb76ea1f02fee4c2777a4a0e956c8fcafb4b5330eca0312c7ada23645"


def test_the_canonical_bytes_of_secure_aggregation_by_default_are_these() -> None:
    assert SECURE_SECTION in canonical_bytes(parse_study(SECURE_STUDY, "golden"))


def test_the_hash_of_a_fixed_study_with_secure_aggregation_is_this() -> None:
    assert study_hash(parse_study(SECURE_STUDY, "golden")) == SECURE_HASH


def test_spare_rounds_are_in_the_canonical_bytes_exactly_where_there_are_some() -> None:
    none, some = (
        canonical_bytes(
            parse_study(PRIVATE_STUDY.replace("  clip", f"  spare_rounds: {k}\n  clip"), "golden")
        )
        for k in (0, 2)
    )
    assert none == PRIVATE_CANONICAL
    assert some == PRIVATE_CANONICAL.replace(
        b'"search":null,"settings_from":"synthetic",',
        b'"search":null,"settings_from":"synthetic","spare_rounds":2,',
    )


def test_an_interpolation_is_in_the_canonical_bytes_exactly_where_it_is_not_1() -> None:
    whole, less = (
        canonical_bytes(
            parse_study(
                STUDY.replace("aggregation: {", f"aggregation: {{interpolation: {share}, "),
                "golden",
            )
        )
        for share in (1, 0.9)
    )
    assert whole == CANONICAL
    assert less == CANONICAL.replace(
        b'"learning_rate":null,"optimizer"', b'"interpolation":0.9,"learning_rate":null,"optimizer"'
    )
