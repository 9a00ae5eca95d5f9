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
    b'{"aggregation":{"beta1":0.9,"beta2":0.99,"learning_rate":null,"optimizer":"fedavg","ta'
    b'u":0.001,"weights":{"north":1.0,"south":2.0}},'
    b'"encoder":{"name":"tiny","weights_sha256":"00112233445566778899aabbccddeeff0011223344'
    b'5566778899aabbccddeeff"},'
    b'"federation":{"deadline_s":3600.0,"evaluate_every":1,"institutions":["south","north"]'
    b',"quorum":null},'
    b'"model":{"dropout":null,"lora":null,"train":"frozen_embeddings"},'
    b'"privacy":"none","secure_aggregation":"none","study":"golden","task":{"kind":"ner","l'
    b'abels":["Disease","M\\u00e9dication"]},'
    b'"text":{"context":"sentence","max_tokens":128,"overlap_tokens":32},'
    b'"training":{"batch_size":16,"learning_rate":5e-05,"local_epochs":1,"max_gradient_norm'
    b'":1.0,"precision":"auto","rounds":3,"seed":1,"warmup":0.05,"weight_decay":0.01}}'
)
HASH = "d4a91b31dbb6de4417e141b02eb2db6045d73af406d26ba1bd37b6344c9b0e16"


def test_the_canonical_bytes_of_a_fixed_study_are_these() -> None:
    assert canonical_bytes(parse_study(STUDY, "golden")) == CANONICAL


def test_the_hash_of_a_fixed_study_is_this() -> None:
    assert study_hash(parse_study(STUDY, "golden")) == HASH


def test_the_hash_is_sha256_over_a_label_and_the_canonical_bytes() -> None:
    assert HASH_LABEL == b"fedner study v1\n"
    assert hashlib.sha256(b"fedner study v1\n" + CANONICAL).hexdigest() == HASH
