"""A run says which protections it does without, in fixed words."""

import dataclasses

import pytest

from common.privacy.notice import WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION, notices
from tests.unit.test_policy import STUDY


def test_a_study_without_protection_says_both_notices() -> None:
    assert notices(STUDY) == (WITHOUT_PRIVACY, WITHOUT_SECURE_AGGREGATION)


def test_the_notices_say_so_at_their_start() -> None:
    assert WITHOUT_PRIVACY.startswith("PRIVACY: NONE.")
    assert WITHOUT_SECURE_AGGREGATION.startswith("SECURE AGGREGATION: NONE.")


@pytest.mark.parametrize(
    ("key", "left"),
    [("privacy", WITHOUT_SECURE_AGGREGATION), ("secure_aggregation", WITHOUT_PRIVACY)],
)
def test_each_protection_has_its_own_notice(key: str, left: str) -> None:
    # no schema of this version has such a study: its fields are set past validation
    study = object.__new__(type(STUDY))
    for field in dataclasses.fields(STUDY):
        value = "some" if field.name == key else getattr(STUDY, field.name)
        object.__setattr__(study, field.name, value)
    assert notices(study) == (left,)
