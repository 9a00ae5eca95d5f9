"""The canonical hash of a study: the same study, however its YAML is laid out."""

import hashlib
import json
from dataclasses import asdict

import yaml

from common.config.load import FLOAT
from common.config.study import Study

HASH_LABEL = b"fedner study v1\n"


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes the text `1e5`, which `parse_study` would read as a number."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def canonical_bytes(study: Study) -> bytes:
    """Canonical JSON (sorted keys, no blanks, ASCII) of all but `simulation`.

    `privacy.spare_rounds` is there only where there are some, and `aggregation.interpolation` where
    it is not 1: studies are older than those keys.
    """
    content = asdict(study)
    del content["simulation"]
    if study.local_privacy is not None and not study.local_privacy.spare_rounds:
        del content["privacy"]["spare_rounds"]
    if study.aggregation.interpolation == 1:
        del content["aggregation"]["interpolation"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def study_yaml(study: Study) -> str:
    """YAML of all but `simulation`; `parse_study` of it has the same hash."""
    text: str = yaml.dump(json.loads(canonical_bytes(study)), Dumper=_Dumper, sort_keys=False)
    return text


def study_hash(study: Study) -> str:
    """SHA-256, in hexadecimal, over a label and the canonical bytes, most defaults included."""
    return hashlib.sha256(HASH_LABEL + canonical_bytes(study)).hexdigest()
