"""Which protections a study does without, as an audit log names them."""

from collections.abc import Iterator

from common.audit.entries import Choice
from common.config.study import Study


def choices_of(study: Study) -> Iterator[Choice]:
    """One for each; the same on both sides."""
    privacy, section = study.local_privacy, study.secure
    if privacy is None:
        yield "privacy-none"
    elif privacy.evaluation == "exact":
        yield "exact-evaluation"
    if privacy is not None and privacy.insecure_seed is not None:
        yield "insecure-seed"
    if section is None:
        yield "secure-aggregation-none"
    elif section.adversary == "semi_honest":
        yield "semi-honest"
